//! `zg-tokend man` and `zg-tokend completions`: made from the command line's own definition and
//! from the table of config keys, so that they cannot drift.

use clap::{Command, CommandFactory};
use clap_complete::generate;
use clap_mangen::Man as CommandPage;
use roff::{Roff, bold, italic, roman};

use super::args::{Args, Completions, Man, Page};
use super::voice;
use crate::config::MINIMAL;
use crate::config::keys::{FORMS, KEYS, Place};
use crate::exit::Exit;

/// Prints a manual page in roff.
pub(super) fn man(flags: &Man) -> Exit {
    voice::say(match flags.page {
        Page::Commands => commands(),
        Page::Config => config(),
    });
    Exit::Success
}

/// Prints the completions for a shell.
pub(super) fn completions(flags: &Completions) -> Exit {
    let mut script = Vec::new();
    generate(flags.shell, &mut Args::command(), "zg-tokend", &mut script);
    voice::say(String::from_utf8_lossy(&script).trim_end());
    Exit::Success
}

/// zg-tokend(1): the program, then each command with its flags.
fn commands() -> String {
    let mut command = Args::command();
    command.build();
    let page = CommandPage::new(command.clone());
    let mut text = Vec::new();
    // Writing to memory does not fail.
    let _ = page.render_title(&mut text);
    let _ = page.render_name_section(&mut text);
    let _ = page.render_synopsis_section(&mut text);
    let _ = page.render_description_section(&mut text);
    let _ = page.render_options_section(&mut text);
    text.extend(b".SH COMMANDS\n");
    for subcommand in command.get_subcommands() {
        text.extend(section(subcommand).into_bytes());
    }
    text.extend(rest(&command).into_bytes());
    String::from_utf8_lossy(&text).into_owned()
}

fn section(subcommand: &Command) -> String {
    let mut page = Roff::new();
    page.control("SS", [subcommand.get_name()]);
    page.text([roman(subcommand.get_about().map(ToString::to_string).unwrap_or_default())]);
    for argument in subcommand.get_arguments().filter(|argument| !argument.is_global_set()) {
        let Some(help) = argument.get_help() else { continue };
        let value = argument.get_value_names().filter(|_| argument.get_action().takes_values());
        let value = value.and_then(<[_]>::first).map(ToString::to_string).unwrap_or_default();
        page.control("TP", []);
        match argument.get_long() {
            Some("help" | "version") => continue,
            Some(long) => page.text([bold(format!("--{long}")), roman(" "), italic(value)]),
            None => page.text([italic(value)]),
        };
        page.text([roman(help.to_string())]);
    }
    page.render()
}

fn rest(command: &Command) -> String {
    let mut page = Roff::new();
    page.control("SH", ["EXAMPLES AND EXIT CODES"]);
    page.control("nf", []);
    page.text([roman(command.get_after_help().map(ToString::to_string).unwrap_or_default())]);
    page.control("fi", []);
    page.control("SH", ["FILES"]);
    for (path, what) in [
        ("~/.config/zg-tokend/config.toml", "the config file; see zg-tokend.toml(5)"),
        ("/etc/zg-tokend/NAME.toml", "the config file of a system instance"),
        ("~/.local/state/zg-tokend/ACCOUNT/state", "the refresh token in force, and all that is remembered"),
        ("/var/lib/zg-tokend/NAME/ACCOUNT/state", "the same for a system instance"),
    ] {
        page.control("TP", []);
        page.text([bold(path)]);
        page.text([roman(what)]);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("zg-tokend.toml(5), systemd.exec(5), RFC 6749")]);
    page.render()
}

/// zg-tokend.toml(5): every key.
fn config() -> String {
    let mut page = Roff::new();
    page.control("TH", ["zg-tokend.toml", "5", "", concat!("zg-tokend ", env!("CARGO_PKG_VERSION"))]);
    page.control("SH", ["NAME"]);
    page.text([roman("zg-tokend.toml - what zg-tokend(1) keeps fresh, and how")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "The file is TOML. Its keys describe one account, named default; with [accounts.NAME] tables they are \
         the defaults of those accounts. A path may begin with ~/; a relative one is relative to the directory \
         of the file. A file that holds a secret must not be readable by others.",
    )]);
    page.control("SH", ["EXAMPLE"]);
    page.control("nf", []);
    page.text([roman(MINIMAL.trim_end())]);
    page.control("fi", []);
    for (title, place) in [
        ("KEYS OF AN ACCOUNT", Place::Account),
        ("KEYS OF AN ACCOUNT THAT ARE NEVER INHERITED", Place::Own),
        ("KEYS OF THE FILE", Place::File),
    ] {
        page.control("SH", [title]);
        for key in KEYS.iter().filter(|key| key.place == place) {
            page.control("TP", []);
            page.text([bold(key.name), roman(format!(" = {}", key.kind.describe()))]);
            page.text([roman(format!("{}. Default: {}.", capital(key.doc), key.default))]);
            page.control("br", []);
            page.text([roman(format!("Example: {} = {}", key.name, key.example))]);
        }
    }
    page.control("SH", ["SECRETS"]);
    page.text([roman("client_secret and refresh_token are strings, or say where the secret is:")]);
    for form in FORMS {
        page.control("TP", []);
        page.text([bold(form.example)]);
        page.text([roman(form.doc)]);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("zg-tokend(1)")]);
    page.render()
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().into_iter().flat_map(char::to_uppercase).chain(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_flag_has_its_place_in_the_manual() {
        let manual = commands().replace("\\-", "-");
        let mut command = Args::command();
        command.build();
        for subcommand in command.get_subcommands() {
            assert!(manual.contains(&format!(".SS {}", subcommand.get_name())), "{subcommand}");
            for argument in subcommand.get_arguments() {
                assert!(argument.get_help().is_some(), "{subcommand}: {argument} has no help");
                let flag = argument.get_long().map(|long| format!("--{long}"));
                assert!(flag.is_none_or(|flag| manual.contains(&flag)), "{subcommand}: {argument}");
            }
        }
    }

    #[test]
    fn every_key_has_its_place_in_the_manual() {
        let manual = config().replace("\\-", "-");
        for key in KEYS {
            assert!(manual.contains(&format!("\\fB{}\\fR", key.name)), "{}", key.name);
        }
    }
}
