//! What standard output can do, and where it is shown.

use std::io::{self, IsTerminal as _};

use anstream::{AutoStream, ColorChoice};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// For a terminal that does not tell its width.
const WIDTH: usize = 80;

/// For a terminal that does not tell its height.
const HEIGHT: usize = 24;

/// What standard output can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abilities {
    /// A person looks at it, and lines can be redrawn.
    pub(super) live: bool,
    /// Colours: neither NO_COLOR nor a pipe says otherwise.
    pub(super) colour: bool,
    /// It shows more than ASCII.
    pub(super) unicode: bool,
}

impl Abilities {
    /// Of standard output.
    pub(super) fn of_stdout() -> Self {
        let stdout = io::stdout();
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        Self {
            live: stdout.is_terminal() && !dumb,
            colour: AutoStream::choice(&stdout) != ColorChoice::Never,
            unicode: is_utf8(|name| std::env::var(name).ok()),
        }
    }
}

/// Width and height of the terminal on standard output.
pub(super) fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let known =
        |size: Option<u16>, default| size.map(usize::from).filter(|size| *size > 0).unwrap_or(default);
    (known(size.map(|size| size.ws_col), WIDTH), known(size.map(|size| size.ws_row), HEIGHT))
}

/// Whether the locale's characters are UTF-8: locale(7), the first of these that is set decides.
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| variable(name).filter(|value| !value.is_empty()))
        .unwrap_or_default()
        .to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// A terminal that does not show what is typed, until this is dropped.
pub(super) struct Silence {
    before: Termios,
}

impl Silence {
    /// `None` if standard input is no terminal.
    pub(super) fn begin() -> Option<Self> {
        Self::without(LocalModes::ECHO)
    }

    /// The same, and every key comes at once: Ctrl-C as well, since a process that it ended would
    /// leave the terminal silent.
    pub(super) fn key_by_key() -> Option<Self> {
        Self::without(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    fn without(modes: LocalModes) -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(modes);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent).ok()?;
        Some(Self { before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::terminal::*;

    #[test]
    fn the_locale_decides_what_characters_there_are() {
        let of = |variables: &[(&str, &str)]| {
            is_utf8(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(of(&[("LANG", "de_DE.UTF-8")]) && of(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]));
        assert!(!of(&[]) && !of(&[("LANG", "C")]) && !of(&[("LC_ALL", "POSIX"), ("LANG", "de_DE.UTF-8")]));
    }
}
