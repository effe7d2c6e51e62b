use std::collections::BTreeSet;
use std::path::Path;

use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::args::Args;
use crate::cli::completions::script;
use crate::cli::exec;
use crate::cli::manual::*;
use crate::config::error::MINIMAL;
use crate::config::{Environment, parse};
use crate::oauth::providers::PROVIDERS;
use crate::status::Severity;

/// Without styles and without the backticks of a terminal.
fn plain(text: Option<&StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default().replace('`', "")
}

/// The default that help shows.
fn default_of(argument: &Arg) -> Option<String> {
    let is_shown = argument.get_action().takes_values() && !argument.is_hide_default_value_set();
    let default = argument.get_default_values().first().filter(|_| is_shown)?;
    Some(default.to_string_lossy().into_owned())
}

/// The text of a page as a terminal shows it.
fn shown(page: &str) -> String {
    page.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\")
}

fn definition() -> Command {
    let mut command = Args::command();
    command.build();
    command
}

/// The part of a page under one heading.
fn part(page: &str, heading: &str) -> String {
    let page = shown(page);
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let end = ["\n.SH", "\n.SS"].iter().filter_map(|next| rest.find(next)).min();
    rest[..end.unwrap_or(rest.len())].to_owned()
}

/// The arguments that are written in bold or, when they have no dashes, in italics.
fn tags(part: &str) -> BTreeSet<String> {
    let tagged = part.lines().zip(part.lines().skip(1)).filter(|(before, _)| *before == ".TP");
    let words = tagged.map(|(_, tag)| tag.trim_start_matches(r"\fB").trim_start_matches(r"\fI"));
    words.map(|tag| tag.split('\\').next().unwrap_or_default().to_owned()).collect()
}

fn written(argument: &Arg) -> String {
    let short = argument.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    match argument.get_long() {
        Some(long) => format!("{short}--{long}"),
        None => argument.get_id().as_str().to_uppercase(),
    }
}

#[test]
fn the_manual_has_the_commands_and_flags_that_there_are_each_in_its_place() {
    let (manual, command) = (commands(), definition());
    let everywhere: BTreeSet<_> = command.get_arguments().map(written).collect();
    assert_eq!(tags(&part(&manual, ".SH \"FLAGS OF EVERY COMMAND\"")), everywhere);
    for subcommand in command.get_subcommands() {
        let part = part(&manual, &format!(".SS {}", subcommand.get_name()));
        let arguments = subcommand.get_arguments().filter(|argument| !argument.is_hide_set());
        let own: BTreeSet<_> = arguments.map(written).collect();
        assert_eq!(tags(&part), own.difference(&everywhere).cloned().collect(), "{subcommand}");
    }
}

#[test]
fn help_has_every_command_and_flag_and_says_what_it_does() {
    let mut command = definition();
    let overview = command.render_long_help().to_string();
    for subcommand in command.get_subcommands_mut() {
        let name = subcommand.get_name().to_owned();
        assert!(subcommand.get_about().is_some(), "{name} has no help");
        assert!(overview.contains(&format!("\n  {name} ")), "{name} is not in --help");
        let help = subcommand.render_long_help().to_string();
        for argument in subcommand.get_arguments().filter(|argument| !argument.is_hide_set()) {
            assert!(argument.get_help().is_some(), "{name}: {argument} has no help");
            let line = argument.get_long().map_or(written(argument), |long| format!("--{long}"));
            assert!(help.contains(&line), "{name}: {line} is not in --help:\n{help}");
        }
    }
}

#[test]
fn completions_have_every_command_and_flag() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let script = script(shell);
        for subcommand in definition().get_subcommands() {
            assert!(script.contains(subcommand.get_name()), "{shell}: {subcommand}");
            for long in subcommand.get_arguments().filter_map(Arg::get_long) {
                // fish has no dashes: complete -l force.
                assert!(
                    script.contains(&format!("-{long}")) || script.contains(&format!("-l {long}")),
                    "{shell}: {long}"
                );
            }
        }
    }
}

#[test]
fn bash_knows_the_flags_of_each_command() {
    let script = script(Shell::Bash);
    let labels: Vec<_> =
        script.lines().filter_map(|line| line.trim().strip_prefix("cmd=\"")?.strip_suffix('"')).collect();
    for label in labels.into_iter().filter(|label| !label.is_empty()) {
        assert!(
            script.contains(&format!("\n        {label})\n            opts=")),
            "{label} is set, and has no branch"
        );
    }
}

#[test]
fn the_manual_has_the_values_and_the_default_of_each_flag_as_help_does() {
    let (manual, command) = (commands(), definition());
    for subcommand in command.get_subcommands() {
        let name = subcommand.get_name();
        let part = part(&manual, &format!(".SS {name}"));
        let help = subcommand.clone().render_long_help().to_string();
        for argument in subcommand.get_arguments().filter(|argument| argument.get_action().takes_values()) {
            if let Some(default) = default_of(argument) {
                let default = format!("[default: {default}]");
                assert!(help.contains(&default), "{name}: {argument}\n{help}");
                assert!(part.contains(&default), "{name}: {argument}\n{part}");
            }
            let shown = !argument.is_hide_possible_values_set();
            for value in argument.get_possible_values().into_iter().filter(|_| shown) {
                for words in [value.get_name(), &plain(value.get_help())] {
                    assert!(part.contains(words), "{name}: {argument}: {words}\n{part}");
                }
            }
        }
    }
    let list = config();
    let names = PROVIDERS.iter().map(|provider| format!("\n\\fB{}\\fR\n", roff(provider.name)));
    assert!(names.into_iter().all(|name| list.contains(&name)), "{list}");
}

#[test]
fn every_key_has_its_place_in_the_manual_with_type_default_and_example() {
    let manual = config();
    assert!(!manual.contains("@KEYS") && !manual.contains("@VERSION"), "{manual}");
    for (key, heading) in (KEYS.iter().map(|key| (key, heading_of(key.place))))
        .chain(PUSH_KEYS.iter().map(|key| (key, ".SH PUSH")))
        .chain(PROBE_KEYS.iter().map(|key| (key, ".SH PROBE")))
        .chain(SIGNAL_KEYS.iter().map(|key| (key, ".SH SIGNAL")))
        .chain(FLEET_KEYS.iter().map(|key| (key, ".SH FLEET")))
    {
        for filled in [key.default, key.doc, key.example, key.kind.describe()] {
            assert!(!filled.is_empty(), "{}", key.name);
        }
        let entry = format!(
            ".TP\n\\fB{name}\\fR = {}\n{}\n.br\nDefault: {}\n.br\nExample: {name} = {}\n",
            key.kind.describe(),
            key.doc,
            key.default,
            key.example,
            name = key.name,
        );
        let part = part(&manual, heading) + "\n";
        assert!(part.contains(&entry), "{entry}\nis not in\n{part}");
    }
}

fn heading_of(place: Place) -> &'static str {
    match place {
        Place::Account => ".SH \"KEYS OF AN ACCOUNT\"",
        Place::Own => ".SH \"KEYS OF AN ACCOUNT THAT ARE NEVER INHERITED\"",
        Place::File => ".SH \"KEYS OF THE FILE\"",
    }
}

#[test]
fn the_examples_are_right() {
    let environment = Environment {
        home: Some("/home/u".into()),
        config_home: Some("/home/u/.config".into()),
        ..Environment::default()
    };
    let page = shown(&config());
    let examples = page.split("\n.nf\n").skip(1).map(|rest| rest.split("\n.fi\n").next().unwrap());
    let counts = examples.map(|example| {
        let text = format!("state_dir = \"~/s\"\n{example}");
        parse(&text, Path::new("/c/config.toml"), &environment).unwrap().accounts.len()
    });
    assert_eq!(counts.collect::<Vec<_>>(), [1, 2]);
    assert!(page.contains(MINIMAL));
}

#[test]
fn the_manual_has_every_exit_code() {
    let own = [
        Exit::Success,
        Exit::Failure,
        Exit::Usage,
        Exit::Unavailable,
        Exit::Io,
        Exit::Busy,
        Exit::NeedsLogin,
        Exit::Config,
    ];
    let status = [Severity::Ok, Severity::Warning, Severity::Critical, Severity::Unknown];
    let codes = own.map(Exit::code).into_iter();
    let codes = codes.chain([exec::FAILED, exec::NOT_EXECUTABLE, exec::NOT_FOUND]);
    let codes = codes.chain(status.map(|severity| severity as u8));
    let page = commands();
    assert_eq!(tags(&part(&page, ".SH \"EXIT STATUS\"")), codes.map(|code| code.to_string()).collect());
}

#[test]
fn the_manual_and_the_example_have_the_variables_of_a_hook() {
    let source = include_str!("../../hooks/mod.rs");
    let given: BTreeSet<_> = source.split('"').filter(|word| word.starts_with("ZG_TOKEND_")).collect();
    assert_eq!(HOOK_VARIABLES.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>(), given);
    let of_hooks = tags(&part(&config(), ".SH HOOKS"));
    assert_eq!(of_hooks.iter().map(String::as_str).collect::<BTreeSet<_>>(), given);
    let example = include_str!("../../../packaging/config.example.toml");
    for name in given {
        let short = name.strip_prefix("ZG_TOKEND").unwrap();
        assert!(example.contains(name) || example.contains(&format!(" {short}")), "{name}");
    }
}

#[test]
fn lines_that_are_not_filled_fit_a_terminal() {
    for page in [commands(), config()] {
        let mut filled = true;
        for line in page.lines() {
            match line {
                ".nf" => filled = false,
                ".fi" => filled = true,
                // 80 columns but for the indentation on the left.
                line => assert!(filled || line.replace('\\', "").len() <= 73, "{line}"),
            }
        }
    }
}
