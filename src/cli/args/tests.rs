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
