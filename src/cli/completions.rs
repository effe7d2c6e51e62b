//! `zg-tokend completions`, and the names of accounts, for which the scripts ask the program.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::cli::args::{Args, Completions};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::config::{self, Environment, Symlinks};

/// The command of the scripts: the words of the command line follow it. Nobody types it, so that it is
/// no command for clap.
pub(super) const ACCOUNTS: &str = "__accounts";

/// For each shell, the text of clap_complete that completes a value of `--account`, and its replacement.
const OF_SHELL: [(Shell, &str, &str); 3] = [
    (
        Shell::Bash,
        "--account)\n                    COMPREPLY=($(compgen -f \"${cur}\"))",
        "--account)\n                    COMPREPLY=($(compgen -W \"$(\"$1\" __accounts \"${COMP_WORDS[@]}\" 2>/dev/null)\" -- \"${cur}\"))",
    ),
    (
        Shell::Zsh,
        "'--account=[Name of the account]:NAME:_default'",
        "'--account=[Name of the account]:NAME:{local -a names; names=(${(f)\"$(${(Q)${(z)LBUFFER}[1]} __accounts ${(Q)${(z)LBUFFER}} 2>/dev/null)\"}); compadd -a names}'",
    ),
    (
        Shell::Fish,
        "-l account -d 'Name of the account' -r",
        "-l account -d 'Name of the account' -r -f -a '(set -l words (commandline -opc); $words[1] __accounts $words 2>/dev/null)'",
    ),
];

pub(super) fn execute(flags: &Completions) -> Exit {
    if output::print(script(flags.shell).trim_end()) { Exit::Success } else { Exit::Io }
}

pub(super) fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    generate(shell, &mut Args::command(), "zg-tokend", &mut script);
    // clap_complete spells its labels in two ways when the program's name has a hyphen, and bash
    // then knows no flag of a command: https://github.com/clap-rs/clap/issues/6421
    let script = String::from_utf8_lossy(&script).replace("zg__subcmd__tokend", "zg__tokend");
    let ours = OF_SHELL.iter().filter(|(of, ..)| *of == shell);
    let script = ours.fold(script, |script, (_, theirs, ours)| script.replace(theirs, ours));
    // The condition of clap_complete does not hold before a command while a flag lacks its value.
    let before_command = (shell == Shell::Fish).then(|| format!("complete -c zg-tokend {}\n", OF_SHELL[2].2));
    script + &before_command.unwrap_or_default()
}

/// Prints the names of the accounts in the config that the words of a command line choose. Without a
/// valid config there are none: a shell has no place for an error.
pub(super) fn accounts(words: &[OsString]) -> Exit {
    let environment = Environment::of_process();
    let path = config_of(words).map(|path| from_home(path, &environment));
    let path = config::locate(path.as_deref(), &environment);
    let settings = path.and_then(|path| config::load(&path, &environment, Symlinks::Keep));
    if let Ok(settings) = settings {
        let names: Vec<_> = settings.accounts.iter().map(|account| account.name.as_str()).collect();
        output::print(names.join("\n"));
    }
    Exit::Success
}

/// The value of `--config`. bash breaks `--config=PATH` into three words.
fn config_of(words: &[OsString]) -> Option<&Path> {
    let mut words = words.iter().map(|word| word.to_str().unwrap_or_default());
    while let Some(word) = words.next() {
        if word == "--config" {
            return words.find(|word| *word != "=").map(Path::new);
        }
        if let Some(path) = word.strip_prefix("--config=") {
            return Some(Path::new(path));
        }
    }
    None
}

/// The shell has not replaced `~` yet.
fn from_home(path: &Path, environment: &Environment) -> PathBuf {
    match (path.strip_prefix("~"), &environment.home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::completions::*;

    #[test]
    fn every_shell_asks_for_the_accounts() {
        for (shell, theirs, ours) in OF_SHELL {
            let script = script(shell);
            assert!(!script.contains(theirs) || ours.contains(theirs), "{shell}");
            let flags = script.matches("account=[").count().max(script.matches("--account)").count());
            let flags = flags.max(script.matches("-l account ").count());
            assert!(flags > 10, "{shell}: {flags}");
            assert_eq!(script.matches(ours).count(), flags, "{shell}");
        }
    }

    #[test]
    fn the_line_chooses_the_config() {
        let of = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            config_of(&words).map(|path| path.to_str().unwrap().to_owned())
        };
        assert_eq!(of("zg-tokend once --account"), None);
        assert_eq!(of("zg-tokend --config a.toml once --account").unwrap(), "a.toml");
        assert_eq!(of("zg-tokend once --config=~/b --account x").unwrap(), "~/b");
        assert_eq!(of("zg-tokend once --config = c --account").unwrap(), "c");
    }
}
