//! The arguments of the process, with a quick way to read the lines that scripts run often: to build the
//! definition of the whole command line takes as long as `status` itself.

use std::ffi::OsString;

use clap::{Args as _, FromArgMatches as _, Parser as _};

use crate::cli::args::{Args, Command, Common, Exec, Once, Rejected, Run, Status, Token, account_name};

/// Reads the arguments of this process.
pub fn arguments() -> Result<Args, clap::Error> {
    let mut line: Vec<OsString> = std::env::args_os().collect();
    // As many programs have it: help COMMAND is COMMAND --help.
    if line.get(1).is_some_and(|word| word == "help") {
        line.remove(1);
        line.push("--help".into());
    }
    read(&line).map_or_else(|| Args::try_parse_from(line), Ok)
}

/// `None` for other commands, for help and for mistakes: the whole definition answers those.
fn read(line: &[OsString]) -> Option<Args> {
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

#[cfg(test)]
mod tests {
    use crate::cli::brief::*;

    #[test]
    fn a_line_that_is_read_briefly_means_the_same() {
        for line in [
            "run --log-format json",
            "once --force --retry-dead --every 5min --account a",
            "token --format git get",
            "token help",
            "exec --config c --retry-on-exit 3 -- env --json",
            "rejected --wait 1s",
            "status --json",
            "status",
            "status --account=a",
            "status --config c --account a.b",
            "once --account a --config -",
            "once",
            "token --config c",
            "token",
            "run --account a",
            "run",
        ] {
            let line: Vec<OsString> = format!("zg-tokend {line}").split(' ').map(OsString::from).collect();
            let briefly = read(&line).unwrap();
            assert_eq!(format!("{briefly:?}"), format!("{:?}", Args::try_parse_from(line).unwrap()));
        }
    }

    #[test]
    fn help_and_mistakes_are_for_the_whole_definition() {
        for line in [
            "",
            "--config c status",
            "once -h",
            "run -V",
            "status --jsn",
            "token --wait x",
            "exec",
            "status --config",
            "status --config --account",
            "status --config c --config d",
            "once --account a/b",
            "status help",
        ] {
            let line = ["zg-tokend"].into_iter().chain(line.split(' ')).map(OsString::from);
            assert!(read(&line.collect::<Vec<_>>()).is_none());
        }
    }
}
