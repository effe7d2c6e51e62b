//! The command line: one file per command, and what they share.

mod args;
mod ask;
mod check;
mod completions;
mod config_file;
mod demo;
mod exec;
mod exit;
mod fleet;
mod init;
mod log;
mod login;
mod logout;
mod manual;
mod once;
mod output;
mod page;
mod prompt;
mod reaper;
mod rejected;
mod run;
mod seal;
mod session;
mod set;
mod status;
mod terminal;
mod token;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::cli::args::{Args, Command};
use crate::cli::exit::Exit;
use crate::config;
use crate::config::{AccountConfig, ConfigError, Environment, Settings, Symlinks};
use crate::message::way_out;
use crate::problem::Problem;
use crate::problem::chain;
use crate::signals;

/// The most names of accounts in a hint.
const NAMES_MAX: usize = 20;

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    signals::block_unused();
    // Neither a core dump nor a debugger of the same user gets at the tokens (PR_SET_DUMPABLE(2const)).
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let line: Vec<OsString> = std::env::args_os().collect();
    if let [_, command, words @ ..] = &*line
        && command == completions::ACCOUNTS
    {
        return completions::accounts(words).into();
    }
    let args = match Args::of_process() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    match &args.command {
        Command::Run(flags) => run::execute(&args, flags).into(),
        Command::Once(flags) => once::execute(&args, flags).into(),
        Command::Man(flags) => manual::man(flags).into(),
        Command::Completions(flags) => completions::execute(flags).into(),
        Command::Token(flags) => token::execute(&args, flags).into(),
        Command::Exec(flags) => exec::execute(&args, flags),
        Command::Rejected(flags) => rejected::execute(&args, flags).into(),
        Command::Login(flags) => login::execute(&args, flags).into(),
        Command::Logout(flags) => logout::execute(&args, flags).into(),
        Command::Fleet(flags) => fleet::execute(&args, flags).into(),
        Command::Seal(flags) => seal::execute(&args, flags).into(),
        Command::Set(flags) => set::execute(&args, flags).into(),
        Command::Status(flags) => ExitCode::from(status::execute(&args, flags) as u8),
        Command::Init(flags) => init::execute(&args, flags).into(),
        Command::Check(flags) => check::execute(&args, flags).into(),
        Command::Demo(flags) => demo::execute(flags).into(),
    }
}

/// Help and version go to stdout and are a success; the rest is wrong usage, which monitoring must
/// not take for the state of a token.
fn usage(error: &clap::Error) -> ExitCode {
    let printed = output::is_complete(error.print().and_then(|()| std::io::stdout().flush()));
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion if printed => Exit::Success.into(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Io.into(),
        _ if is_status(std::env::args_os().skip(1)) => ExitCode::from(crate::status::Severity::Unknown as u8),
        _ => Exit::Usage.into(),
    }
}

/// True if the first argument that is neither a flag nor a flag's value is `status`.
fn is_status(mut arguments: impl Iterator<Item = OsString>) -> bool {
    while let Some(argument) = arguments.next() {
        if argument == "--config" || argument == "--account" {
            arguments.next();
        } else if !argument.as_encoded_bytes().starts_with(b"-") {
            return argument == "status";
        }
    }
    false
}

/// Loads the config, or prints what is wrong with it.
fn settings(args: &Args) -> Option<Settings> {
    load(args).map_err(|failure| failure.print()).ok()
}

/// The config is wrong, or has no such account.
struct ConfigFailure {
    problem: String,
    /// The line with a caret below it.
    excerpt: Option<String>,
    /// A minimal config, for a user who has none.
    example: Option<String>,
    hint: Option<String>,
}

impl ConfigFailure {
    fn print(&self) {
        let lines = self.excerpt.as_deref().or(self.example.as_deref());
        output::error_with(&self.problem, lines, self.hint.as_deref());
    }
}

impl From<ConfigError> for ConfigFailure {
    fn from(error: ConfigError) -> Self {
        let (excerpt, example) = (error.excerpt(), error.example());
        Self { problem: chain(&error), excerpt, example, hint: error.hint() }
    }
}

fn load(args: &Args) -> Result<Settings, ConfigFailure> {
    let symlinks = match args.command {
        Command::Status(_) => Symlinks::Keep,
        Command::Run(_) => Symlinks::FollowApart,
        _ => Symlinks::Follow,
    };
    let settings = config::load(&locate(args)?, &Environment::of_process(), symlinks)?;
    unknown_account(&settings, args).map_or(Ok(settings), Err)
}

/// The config, and the account of --account or the only one; else prints an error.
fn one_account(args: &Args) -> Result<(Settings, Arc<AccountConfig>), Exit> {
    let settings = settings(args).ok_or(Exit::Config)?;
    let name = args.common.account.as_deref();
    let is_chosen = |account: &&Arc<AccountConfig>| name.is_none_or(|name| account.name.as_str() == name);
    let chosen: Vec<_> = settings.accounts.iter().filter(is_chosen).take(2).cloned().collect();
    if let Ok([account]) = <[_; 1]>::try_from(chosen) {
        return Ok((settings, account));
    }
    let hint = format!("choose one with --account NAME: {}", names(&settings));
    output::error("the config has several accounts", Some(&hint));
    Err(Exit::Usage)
}

/// Prints a problem of an account and returns the exit code for it.
fn report(account: &AccountConfig, problem: &Problem) -> Exit {
    let way_out = way_out(problem.class, problem.hint.as_deref());
    output::error(format!("account {}: {}", account.name, problem.message), Some(way_out));
    Exit::from(problem.class)
}

fn locate(args: &Args) -> Result<PathBuf, ConfigError> {
    config::locate(args.common.config.as_deref(), &Environment::of_process())
}

fn unknown_account(settings: &Settings, args: &Args) -> Option<ConfigFailure> {
    let wanted = args.common.account.as_deref()?;
    let is_known = settings.accounts.iter().any(|account| account.name.as_str() == wanted);
    (!is_known).then(|| ConfigFailure {
        problem: format!("there is no account {wanted:?} in {}", settings.path.display()),
        excerpt: None,
        example: None,
        hint: Some(format!("accounts in the config: {}", names(settings))),
    })
}

/// The names of the accounts; of very many the first.
fn names(settings: &Settings) -> String {
    let names: Vec<_> = settings.accounts.iter().map(|account| account.name.as_str()).collect();
    match names.get(..NAMES_MAX) {
        Some(first) if names.len() > NAMES_MAX => {
            format!("{} and {} more", first.join(", "), names.len() - NAMES_MAX)
        }
        _ => names.join(", "),
    }
}
