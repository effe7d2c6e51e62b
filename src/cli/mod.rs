//! The command line: one file per command, and what they share.

mod args;
mod ask;
mod brief;
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
mod settings;
mod status;
mod terminal;
mod token;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::cli::args::Command;
use crate::cli::exit::Exit;
use crate::signals;

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
    let args = match brief::arguments() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    let done = match &args.command {
        Command::Run(flags) => Ok(run::execute(&args, flags)),
        Command::Once(flags) => Ok(once::execute(&args, flags)),
        Command::Man(flags) => apart(|| Ok(manual::man(flags))),
        Command::Completions(flags) => apart(|| Ok(completions::execute(flags))),
        Command::Token(flags) => token::execute(&args, flags),
        Command::Exec(flags) => return exec::execute(&args, flags),
        Command::Rejected(flags) => apart(|| rejected::execute(&args, flags)),
        Command::Login(flags) => apart(|| login::execute(&args, flags)),
        Command::Logout(flags) => apart(|| logout::execute(&args, flags)),
        Command::Fleet(flags) => apart(|| Ok(fleet::execute(&args, flags))),
        Command::Seal(flags) => apart(|| Ok(seal::execute(&args, flags))),
        Command::Set(flags) => apart(|| set::execute(&args, flags)),
        Command::Status(flags) => return ExitCode::from(status::execute(&args, flags) as u8),
        Command::Init(flags) => apart(|| Ok(init::execute(&args, flags))),
        Command::Check(flags) => apart(|| check::execute(&args, flags)),
        Command::Demo(flags) => apart(|| Ok(demo::execute(flags))),
    };
    // A command that ends early has shown why.
    done.unwrap_or_else(|exit| exit).into()
}

/// A command that people type, on its own: inlined, the largest of them would give its stack to all commands.
#[inline(never)]
fn apart<T>(command: impl FnOnce() -> T) -> T {
    command()
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
