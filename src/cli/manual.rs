//! `zg-tokend man` and `zg-tokend completions`: made from the command line's own definition and
//! from the table of config keys, so that they cannot drift.

use clap::builder::{PossibleValue, StyledStr};
use clap::{Arg, ArgAction, CommandFactory};
use clap_complete::{Shell, generate};
use roff::{Roff, bold, italic, roman};

use crate::cli::args::{Args, Completions, Man, ManualPage};
use crate::cli::exit::Exit;
use crate::cli::{exec, voice};
use crate::config::MINIMAL;
use crate::config::keys::{FORMS, HOOK_VARIABLES, KEYS, Key, PROBE_KEYS, PUSH_KEYS, Place};

const DESCRIPTION: [&str; 2] = [
    "zg-tokend holds the refresh token of a login, asks for a new access token well before the old one \
     expires, and replaces the token file atomically. It is for programs that re-read a bearer token from a \
     file and cannot refresh it themselves.",
    "Servers replace refresh tokens: the one in force is in the state, and newer than the one in the config, \
     which is never rewritten. To log in again, write the new refresh token into the config, or give it to \
     zg-tokend set. Nothing else may use the same refresh token.",
];

const SIGNALS: [(&str, &str); 3] = [
    ("SIGTERM, SIGINT", "run finishes the exchange that is under way, stores its result, and ends"),
    ("SIGHUP", "run reloads the config; a wrong one is reported, and the last good one stays in force"),
    ("SIGUSR1", "run refreshes now what is not due, too"),
];

const ENVIRONMENT: [(&str, &str); 9] = [
    ("ZG_TOKEND_CONFIG", "the config file, unless --config names one"),
    (
        "XDG_CONFIG_HOME, XDG_STATE_HOME",
        "where config, token file and state are, instead of ~/.config and ~/.local/state",
    ),
    (
        "RUNTIME_DIRECTORY, XDG_RUNTIME_DIR",
        "where run has its control socket: in the first, which systemd sets, else in zg-tokend/ in the second, \
         else there is none",
    ),
    ("CREDENTIALS_DIRECTORY", "where systemd puts credentials"),
    (
        "HTTPS_PROXY, ALL_PROXY, NO_PROXY",
        "the proxy for https, and the hosts to reach without it; in lower case as well",
    ),
    ("SSL_CERT_FILE", "a PEM file of certificate authorities, instead of the system's; ca_file goes first"),
    ("RUST_LOG", "how much run logs, as in debug or zg_tokend=debug"),
    ("NO_COLOR", "no colours, whatever it is set to"),
    (
        "ZEROGRAVITY_TOKEN",
        "nothing to zg-tokend; ZeroGravity takes it instead of the file, and status warns of that",
    ),
];

const EXIT_STATUS: [(Exit, &str); 8] = [
    (Exit::Success, "refreshed, or nothing was due"),
    (Exit::Failure, "an unexpected failure"),
    (Exit::Usage, "wrong usage"),
    (Exit::Unavailable, "the endpoint or a secret is unavailable, or a wait is in force; it will be retried"),
    (Exit::Io, "state or token could not be read or written"),
    (Exit::Busy, "another process held the lock too long, or supervises already"),
    (Exit::NeedsLogin, "log in again; run stays up instead, says so, and resumes with the new login"),
    (Exit::Config, "config or client is wrong"),
];

const STATUS_OF_CHECK: [(Exit, &str); 2] = [
    (Exit::Success, "no problem; there may be warnings"),
    (Exit::Config, "a problem, which the report names"),
];

const STATUS_OF_EXEC: [(u8, &str); 3] = [
    (exec::FAILED, "zg-tokend itself has failed, and says why"),
    (exec::NOT_EXECUTABLE, "the command was found and cannot be run"),
    (exec::NOT_FOUND, "the command was not found"),
];

const STATUS_OF_STATUS: [(u8, &str); 4] = [
    (0, "every token is fresh"),
    (1, "warning: live, but overdue, backing off or soon dead"),
    (2, "critical: expired, missing, or needs login"),
    (3, "unknown: wrong usage or config, or an unreadable state"),
];

const FILES: [(&str, &str); 8] = [
    ("~/.config/zg-tokend/config.toml", "the config file; see zg-tokend.toml(5)"),
    ("/etc/zg-tokend/NAME.toml", "the config file of a system instance"),
    ("~/.config/zerogravity/token", "the access token, unless token_file says otherwise"),
    ("~/.local/state/zg-tokend/ACCOUNT/state", "the refresh token in force, and all that is remembered"),
    ("/var/lib/zg-tokend/NAME/ACCOUNT/state", "the same for a system instance"),
    (
        "$XDG_RUNTIME_DIR/zg-tokend/control.sock",
        "the control socket: while run runs, it serves HTTP here, to its own user and to root",
    ),
    ("/run/zg-tokend/NAME/control.sock", "the same for a system instance"),
    (
        "/usr/share/doc/zg-tokend/",
        "from the package: README.md, with recipes for other programs; examples/config.example.toml; \
         openapi.json, which describes the control socket; the schemas of --json",
    ),
];

const SEVERAL: &str = r#"provider = "google"
client_id = "YOUR-CLIENT-ID"
client_secret = { file = "client_secret" }

[accounts.work]
refresh_token = { file = "work.refresh_token" }
token_file = "~/.config/zerogravity/work"

[accounts.mail]
refresh_token = { command = ["pass", "show", "mail"] }
token_file = "~/.config/mail/token"
"#;

const HOOKS: [&str; 3] = [
    "The commands of on_refresh, on_failure, on_recovery and on_needs_login are run without a shell, after the \
     fact, those of an account one after the other. What zg-tokend token and exec find out is told by the next \
     pass of run or once.",
    "A hook has 30 s and nothing to read; what it prints goes nowhere. One that fails is a warning, with the \
     first line of its standard error. What takes longer goes into the background, its output elsewhere: \
     sh -c '... >/dev/null 2>&1 &'. Under the units it may write only where they let it: the README has the \
     drop-in for more.",
    "Its environment is that of zg-tokend without the variables that hold secrets, and with these:",
];

/// Prints a manual page in roff.
pub(super) fn man(flags: &Man) -> Exit {
    let page = match flags.page {
        ManualPage::Commands => commands(),
        ManualPage::Config => config(),
    };
    exit_of(voice::tell(page))
}

/// Prints the completions for a shell.
pub(super) fn completions(flags: &Completions) -> Exit {
    exit_of(voice::tell(script(flags.shell).trim_end()))
}

fn exit_of(told: bool) -> Exit {
    if told { Exit::Success } else { Exit::Io }
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    generate(shell, &mut Args::command(), "zg-tokend", &mut script);
    // clap_complete spells its labels in two ways when the program's name has a hyphen, and bash
    // then knows no flag of a command: https://github.com/clap-rs/clap/issues/6421
    String::from_utf8_lossy(&script).replace("zg__subcmd__tokend", "zg__tokend")
}

/// zg-tokend(1): the program, then each command with its flags.
fn commands() -> String {
    let mut command = Args::command();
    command.build();
    let mut page = Roff::new();
    title(&mut page, "zg-tokend", "1", "keeps an OAuth 2.0 access token fresh in a file");
    page.control("SH", ["SYNOPSIS"]);
    page.text([
        bold("zg-tokend"),
        roman(" [--config "),
        italic("PATH"),
        roman("] [--account "),
        italic("NAME"),
        roman("] "),
        italic("COMMAND"),
        roman(" [flags]"),
    ]);
    page.control("SH", ["DESCRIPTION"]);
    for paragraph in DESCRIPTION {
        page.control("PP", []);
        page.text([roman(paragraph)]);
    }
    page.control("SH", ["COMMANDS"]);
    for subcommand in command.get_subcommands() {
        page.control("SS", [subcommand.get_name()]);
        page.text([roman(plain(subcommand.get_about()))]);
        let everywhere =
            |argument: &Arg| argument.is_global_set() || matches!(argument.get_action(), ArgAction::Help);
        arguments(&mut page, subcommand.get_arguments().filter(|argument| !everywhere(argument)));
    }
    page.control("SH", ["FLAGS OF EVERY COMMAND"]);
    arguments(&mut page, command.get_arguments());
    page.control("SH", ["EXAMPLES"]);
    page.control("nf", []);
    let after_help = plain(command.get_after_help());
    let examples = after_help.split("\n\n").next().unwrap_or_default();
    for example in examples.lines().skip(1) {
        page.text([roman(example.trim_start())]);
    }
    page.control("fi", []);
    list(&mut page, "SIGNALS", SIGNALS);
    page.control("SH", ["EXIT STATUS"]);
    page.text([roman("Of run and once, and as far as they apply of the others:")]);
    entries(&mut page, EXIT_STATUS.map(|(exit, what)| (exit.code().to_string(), what)));
    page.control("PP", []);
    page.text([roman("Of check:")]);
    entries(&mut page, STATUS_OF_CHECK.map(|(exit, what)| (exit.code().to_string(), what)));
    page.control("PP", []);
    page.text([roman(
        "Of exec, the command's own, 128 and the signal's number if a signal has ended it, or:",
    )]);
    entries(&mut page, STATUS_OF_EXEC.map(|(code, what)| (code.to_string(), what)));
    page.control("PP", []);
    page.text([roman("Of status, as monitoring plugins have it:")]);
    entries(&mut page, STATUS_OF_STATUS.map(|(code, what)| (code.to_string(), what)));
    list(&mut page, "ENVIRONMENT", ENVIRONMENT);
    list(&mut page, "FILES", FILES);
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("zg-tokend.toml(5), systemd.exec(5), RFC 6749")]);
    page.render()
}

fn title(page: &mut Roff, name: &str, section: &str, what: &str) {
    page.control("TH", [name, section, "", concat!("zg-tokend ", env!("CARGO_PKG_VERSION"))]);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{name} - {what}"))]);
}

/// What clap holds, without its styles and without the backticks of a terminal.
fn plain(text: Option<&StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default().replace('`', "")
}

fn arguments<'a>(page: &mut Roff, arguments: impl Iterator<Item = &'a Arg>) {
    for argument in arguments {
        let takes_values = argument.get_action().takes_values();
        let values = argument.get_value_names().filter(|_| takes_values);
        let value = values.and_then(<[_]>::first).map(ToString::to_string).unwrap_or_default();
        let short = argument.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
        page.control("TP", []);
        match argument.get_long() {
            Some(long) => page.text([bold(format!("{short}--{long}")), roman(" "), italic(value)]),
            None => page.text([italic(value)]),
        };
        let is_shown = takes_values && !argument.is_hide_possible_values_set();
        let mut choices = argument.get_possible_values();
        choices.retain(|_| is_shown);
        let (explained, plain_ones): (Vec<_>, Vec<_>) =
            choices.iter().partition(|choice| choice.get_help().is_some());
        let names: Vec<_> = plain_ones.into_iter().map(PossibleValue::get_name).collect();
        let names = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
        let default = default_of(argument).map(|default| format!(" [default: {default}]"));
        page.text([roman(plain(argument.get_help()) + &names + &default.unwrap_or_default())]);
        for choice in explained {
            page.control("br", []);
            page.text([italic(choice.get_name()), roman(format!(": {}", plain(choice.get_help())))]);
        }
    }
}

/// What holds where the argument is not given, if help tells that.
fn default_of(argument: &Arg) -> Option<String> {
    let is_told = argument.get_action().takes_values() && !argument.is_hide_default_value_set();
    let default = argument.get_default_values().first().filter(|_| is_told)?;
    Some(default.to_string_lossy().into_owned())
}

fn list<const N: usize>(page: &mut Roff, title: &str, list: [(&str, &str); N]) {
    page.control("SH", [title]);
    entries(page, list.map(|(name, what)| (name.to_owned(), what)));
}

fn entries<'a>(page: &mut Roff, list: impl IntoIterator<Item = (String, &'a str)>) {
    for (name, what) in list {
        page.control("TP", []);
        page.text([bold(name)]);
        page.text([roman(what)]);
    }
}

/// zg-tokend.toml(5): every key.
fn config() -> String {
    let mut page = Roff::new();
    title(&mut page, "zg-tokend.toml", "5", "what zg-tokend(1) keeps fresh, and how");
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
    page.control("PP", []);
    page.text([roman("Two logins with one client:")]);
    page.control("nf", []);
    page.text([roman(SEVERAL.trim_end())]);
    page.control("fi", []);
    for (title, place) in [
        ("KEYS OF AN ACCOUNT", Place::Account),
        ("KEYS OF AN ACCOUNT THAT ARE NEVER INHERITED", Place::Own),
        ("KEYS OF THE FILE", Place::File),
    ] {
        page.control("SH", [title]);
        for key in KEYS.iter().filter(|key| key.place == place) {
            describe(&mut page, key);
        }
    }
    for (title, whose, keys) in
        [("PUSH", "A table in push", PUSH_KEYS), ("PROBE", "The table probe", PROBE_KEYS)]
    {
        page.control("SH", [title]);
        page.text([roman(format!("{whose} has these keys:"))]);
        for key in keys {
            describe(&mut page, key);
        }
    }
    page.control("SH", ["HOOKS"]);
    for paragraph in HOOKS {
        page.control("PP", []);
        page.text([roman(paragraph)]);
    }
    entries(&mut page, HOOK_VARIABLES.iter().map(|(name, what)| ((*name).to_owned(), *what)));
    page.control("SH", ["SECRETS"]);
    page.text([roman(
        "client_secret, refresh_token and the api_key of push are strings, or say where the secret is:",
    )]);
    for form in FORMS {
        page.control("TP", []);
        page.text([bold(form.example)]);
        page.text([roman(form.doc)]);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("zg-tokend(1)")]);
    page.render()
}

fn describe(page: &mut Roff, key: &Key) {
    page.control("TP", []);
    page.text([bold(key.name), roman(format!(" = {}", key.kind.describe()))]);
    page.text([roman(key.doc)]);
    page.control("br", []);
    page.text([roman(format!("Default: {}", key.default))]);
    page.control("br", []);
    page.text([roman(format!("Example: {} = {}", key.name, key.example))]);
}

#[cfg(test)]
mod tests;
