use crate::cli::args::*;
use clap::CommandFactory;

#[test]
fn the_definition_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn every_command_has_examples() {
    let command = Args::command();
    for command in std::iter::once(&command).chain(command.get_subcommands()) {
        let shown = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(shown.starts_with("Examples:\n  "), "{}: {shown}", command.get_name());
    }
}

#[test]
fn global_flags_go_before_and_after_the_command() {
    for line in [
        ["zg-tokend", "--config", "c", "--account", "a", "run"],
        ["zg-tokend", "run", "--config", "c", "--account", "a"],
    ] {
        let args = Args::try_parse_from(line).unwrap();
        let Common { config, account } = args.common;
        assert_eq!((config.unwrap(), account.unwrap()), (PathBuf::from("c"), "a".into()));
    }
}

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
        let briefly = brief::read(&line).unwrap();
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
        assert!(brief::read(&line.collect::<Vec<_>>()).is_none());
    }
}
