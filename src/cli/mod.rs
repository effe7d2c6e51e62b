//! The commands, as a person meets them.

pub mod args;
pub mod check;
pub mod demo;
pub mod exec;
pub mod exit;
pub mod init;
pub mod log;
pub mod manual;
pub mod once;
pub mod page;
pub mod prompt;
pub mod rejected;
pub mod run;
pub mod set;
pub mod status;
pub mod terminal;
pub mod token;
pub mod voice;

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
use crate::config::{AccountConfig, ConfigError, Environment, Settings};
use crate::message::way_out;
use crate::problem::Problem;
use crate::problem::chain;

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    // Neither a core dump nor a debugger of the same user gets at the tokens (PR_SET_DUMPABLE(2const)).
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let args = match Args::of_process() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    match &args.command {
        Command::Run(flags) => run::run(&args, flags).into(),
        Command::Once(flags) => once::once(&args, flags).into(),
        Command::Man(flags) => manual::man(flags).into(),
        Command::Completions(flags) => manual::completions(flags).into(),
        Command::Token(flags) => token::token(&args, flags).into(),
        Command::Exec(flags) => exec::exec(&args, flags),
        Command::Rejected(flags) => rejected::rejected(&args, flags).into(),
        Command::Set(flags) => set::set(&args, flags).into(),
        Command::Status(flags) => ExitCode::from(status::status(&args, flags) as u8),
        Command::Init(flags) => init::init(&args, flags).into(),
        Command::Check(flags) => check::check(&args, flags).into(),
        Command::Demo(flags) => demo::demo(flags).into(),
    }
}

/// Help and version go to stdout and are a success; the rest is a mistake, which monitoring must
/// not take for the token's.
fn usage(error: &clap::Error) -> ExitCode {
    let told = voice::is_told(error.print().and_then(|()| std::io::stdout().flush()));
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion if told => Exit::Success.into(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Io.into(),
        _ if asks_for_status(std::env::args_os().skip(1)) => {
            ExitCode::from(crate::status::Severity::Unknown as u8)
        }
        _ => Exit::Usage.into(),
    }
}

/// Whether the first argument that is neither a flag nor a flag's value is `status`.
fn asks_for_status(mut arguments: impl Iterator<Item = OsString>) -> bool {
    while let Some(argument) = arguments.next() {
        if argument == "--config" || argument == "--account" {
            arguments.next();
        } else if !argument.as_encoded_bytes().starts_with(b"-") {
            return argument == "status";
        }
    }
    false
}

/// Loads the config, and says what is wrong with it.
fn settings(args: &Args) -> Option<Settings> {
    load(args).map_err(|unusable| unusable.say()).ok()
}

/// What is wrong with the config, or with what is asked of it.
struct ConfigFailure {
    problem: String,
    /// The line that it is about.
    excerpt: Option<String>,
    /// What a config could be, for somebody who has none.
    example: Option<String>,
    hint: Option<String>,
}

impl ConfigFailure {
    fn say(&self) {
        let lines = self.excerpt.as_deref().or(self.example.as_deref());
        voice::failure_in(&self.problem, lines, self.hint.as_deref());
    }
}

impl From<ConfigError> for ConfigFailure {
    fn from(error: ConfigError) -> Self {
        let (excerpt, example) = (error.excerpt(), error.example());
        Self { problem: chain(&error), excerpt, example, hint: error.hint() }
    }
}

/// Loads the config; else what is wrong with it, and the way out.
fn load(args: &Args) -> Result<Settings, ConfigFailure> {
    let settings = config::load(&locate(args)?, &Environment::of_process())?;
    match unknown_account(&settings, args) {
        None => Ok(settings),
        Some(unusable) => Err(unusable),
    }
}

/// The one account that is meant, or what to say.
fn the_account<'a>(settings: &'a Settings, args: &Args) -> Result<&'a Arc<AccountConfig>, Exit> {
    let wanted = args.common.account.as_deref();
    match (settings.chosen(wanted).next(), wanted) {
        (Some(account), Some(_)) => Ok(account),
        (Some(account), None) if settings.accounts.len() == 1 => Ok(account),
        _ => {
            voice::failure("the config has several accounts", Some("say which one with --account NAME"));
            Err(Exit::Usage)
        }
    }
}

/// Tells what went wrong with an account, and gives the exit code for it.
fn report(account: &AccountConfig, problem: &Problem) -> Exit {
    let way_out = way_out(problem.class, problem.hint.as_deref());
    voice::failure(format!("account {}: {}", account.name, problem.message), Some(way_out));
    Exit::from(problem.class)
}

fn locate(args: &Args) -> Result<PathBuf, ConfigError> {
    config::locate(args.common.config.as_deref(), &Environment::of_process())
}

/// The account that was asked for is not there: what to say, and the way out.
fn unknown_account(settings: &Settings, args: &Args) -> Option<ConfigFailure> {
    let wanted = args.common.account.as_deref()?;
    let names: Vec<&str> = settings.accounts.iter().map(|account| account.name.as_str()).collect();
    (!names.contains(&wanted)).then(|| ConfigFailure {
        problem: format!("there is no account {wanted:?} in {}", settings.path.display()),
        excerpt: None,
        example: None,
        hint: Some(format!("the config has: {}", names.join(", "))),
    })
}
