//! A quick way to read the lines that scripts run often. To build the definition of the whole command line
//! takes as long as `status` itself.

use std::ffi::OsString;

use clap::{Args as _, FromArgMatches as _};

use crate::cli::args::{Args, Command, Common, Exec, Once, Rejected, Run, Status, Token, account_name};

/// `None` for other commands, for help and for mistakes: the whole definition answers those.
pub(super) fn read(line: &[OsString]) -> Option<Args> {
    let [_, command, words @ ..] = line else { return None };
    let command = command.to_str()?;
    without_flags(command, words).or_else(|| with_flags(command, line))
}

/// A command with no flags of its own.
fn without_flags(command: &str, words: &[OsString]) -> Option<Args> {
    let common = common(words)?;
    let command = match command {
        "run" => Command::Run(Run::default()),
        "once" => Command::Once(Once::default()),
        "token" => Command::Token(Token::default()),
        "status" => Command::Status(Status::default()),
        _ => return None,
    };
    Some(Args { common, command })
}

fn common(words: &[OsString]) -> Option<Common> {
    let mut common = Common::default();
    let (pairs, []) = words.as_chunks::<2>() else { return None };
    for [flag, value] in pairs {
        // Help, a forgotten value or one that needs care.
        if value.is_empty() || value.as_encoded_bytes().starts_with(b"-") {
            return None;
        }
        match flag.to_str()? {
            "--config" if common.config.is_none() => common.config = Some(value.into()),
            "--account" if common.account.is_none() => {
                common.account = Some(account_name(value.to_str()?).ok()?);
            }
            _ => return None,
        }
    }
    Some(common)
}

/// Parses with the definition of that command alone.
fn with_flags(command: &str, line: &[OsString]) -> Option<Args> {
    let (name, flags): (_, fn(clap::Command) -> clap::Command) = match command {
        "run" => ("run", Run::augment_args),
        "once" => ("once", Once::augment_args),
        "token" => ("token", Token::augment_args),
        "exec" => ("exec", Exec::augment_args),
        "rejected" => ("rejected", Rejected::augment_args),
        "status" => ("status", Status::augment_args),
        _ => return None,
    };
    let program = Common::augment_args(clap::Command::new("zg-tokend"));
    let program = program.subcommand(flags(clap::Command::new(name)));
    Args::from_arg_matches(&program.try_get_matches_from(line).ok()?).ok()
}
