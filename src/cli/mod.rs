//! The commands, as a person meets them.

pub mod args;
mod check;
mod demo;
mod log;
mod manual;
mod once;
mod run;
mod set;
mod status;
pub mod voice;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::config::{self, ConfigError, Environment, Settings};
use crate::exit::Exit;
use crate::shell::trouble::chain;
use args::{Args, Command};

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    // Neither a core dump nor a debugger of the same user gets at the tokens (PR_SET_DUMPABLE(2const)).
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    match &args.command {
        Command::Run(flags) => run::run(&args, flags).into(),
        Command::Once(flags) => once::once(&args, flags).into(),
        Command::Man(flags) => manual::man(flags).into(),
        Command::Completions(flags) => manual::completions(flags).into(),
        Command::Set(flags) => set::set(&args, flags).into(),
        Command::Status(flags) => ExitCode::from(status::status(&args, flags) as u8),
        Command::Check => check::check(&args).into(),
        Command::Demo(flags) => demo::demo(flags).into(),
    }
}

/// Help and version go to stdout and are a success; the rest is a mistake, which monitoring must
/// not take for the token's.
fn usage(error: &clap::Error) -> ExitCode {
    // A reader that has gone away is no error.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Success.into(),
        _ if std::env::args_os().any(|arg| arg == "status") => {
            ExitCode::from(crate::shell::status::Severity::Unknown as u8)
        }
        _ => Exit::Usage.into(),
    }
}

/// Loads the config, and says what is wrong with it.
fn settings(args: &Args) -> Option<Settings> {
    let loaded = locate(args).and_then(|path| config::load(&path, &Environment::of_process()));
    match loaded {
        Ok(settings) => match unknown_account(&settings, args) {
            None => Some(settings),
            Some((problem, hint)) => {
                voice::failure(problem, Some(&hint));
                None
            }
        },
        Err(error) => {
            voice::failure(chain(&error), error.hint().as_deref());
            None
        }
    }
}

fn locate(args: &Args) -> Result<PathBuf, ConfigError> {
    config::locate(args.config.as_deref(), &Environment::of_process())
}

/// The account that was asked for is not there: what to say, and the way out.
fn unknown_account(settings: &Settings, args: &Args) -> Option<(String, String)> {
    let wanted = args.account.as_deref()?;
    let names: Vec<&str> = settings.accounts.iter().map(|account| account.name.as_str()).collect();
    (!names.contains(&wanted)).then(|| {
        let problem = format!("there is no account {wanted} in {}", settings.path.display());
        (problem, format!("the config has: {}", names.join(", ")))
    })
}
