//! The abilities of standard output, and terminal modes of standard input.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd;

use anstream::{AutoStream, ColorChoice};
use rustix::termios::{LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr};

/// For a terminal that does not report its size: that of the VT100.
const COLUMNS: usize = 80;
const ROWS: usize = 24;

/// The narrowest column of text.
pub(super) const NARROWEST: usize = 20;

/// The abilities of standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terminal {
    /// It is a terminal that can redraw lines.
    pub(super) live: bool,
    pub(super) colour: bool,
    /// It shows more than ASCII.
    pub(super) unicode: bool,
}

impl Terminal {
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

/// The columns of the terminal on a stream.
pub(super) fn columns_of(stream: impl AsFd) -> usize {
    size_of(tcgetwinsize(stream).ok()).0
}

/// Columns and rows of the terminal on standard output.
pub(super) fn size() -> (usize, usize) {
    size_of(tcgetwinsize(io::stdout()).ok())
}

/// The columns for a picture on standard error; `None` if that is no terminal with colours and block
/// characters.
pub(super) fn picture_columns() -> Option<usize> {
    let stderr = io::stderr();
    let is_able = stderr.is_terminal()
        && AutoStream::choice(&stderr) != ColorChoice::Never
        && is_utf8(|name| std::env::var(name).ok());
    is_able.then(|| columns_of(&stderr))
}

fn size_of(size: Option<Winsize>) -> (usize, usize) {
    let known =
        |size: Option<u16>, default| size.map(usize::from).filter(|size| *size > 0).unwrap_or(default);
    (known(size.map(|size| size.ws_col), COLUMNS), known(size.map(|size| size.ws_row), ROWS))
}

/// One column for each character.
pub(super) fn columns(text: &str) -> usize {
    text.chars().count()
}

/// The indent of a piece that may be too long for the usual one.
pub(super) fn indent_of(length: usize, indent: usize, width: usize) -> usize {
    indent.min(width.saturating_sub(length))
}

/// A text with `~` for the home directory at the beginning of its words.
pub(super) fn from_home(text: &str) -> String {
    let home = std::env::var("HOME").unwrap_or_default();
    let home = home.trim_end_matches('/');
    let words = text.split(' ').map(|word| {
        let rest = word.strip_prefix(home).filter(|_| !home.is_empty());
        let at_home = rest.filter(|rest| rest.is_empty() || rest.starts_with('/'));
        at_home.map_or(Cow::Borrowed(word), |rest| Cow::Owned(format!("~{rest}")))
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The pieces of a text that no line breaks: its words, and a command in backquotes that has room in a
/// line of `room` columns, since a person copies it.
fn pieces(text: &str, room: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let word = text.find(' ').unwrap_or(text.len());
        let quoted = text.strip_prefix('`').filter(|text| !text[..word - 1].contains('`'));
        let command = quoted.and_then(|text| text.find('`')).map(|end| {
            let end = end + 2;
            end + text[end..].find(' ').unwrap_or(text.len() - end)
        });
        let end = command.filter(|end| columns(&text[..*end]) <= room).unwrap_or(word);
        rest = text.get(end + 1..);
        Some(&text[..end])
    })
}

/// Breaks a text between words, and not within a command; a word that is longer than a line, such as a path, has a line of its own.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in pieces(text, width) {
        if !line.is_empty() {
            if columns(&line) + 1 + columns(word) > width {
                lines.push(std::mem::take(&mut line));
            } else {
                line.push(' ');
            }
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// A text for a terminal of `width` columns, below a label of `indent` columns: no line breaks a
/// word or a command. A word that is longer than a line, such as a path, has a line of its own, which begins further
/// left. The home directory is `~`.
pub(super) fn fold(text: &str, width: usize, indent: usize) -> String {
    // Not even a narrow terminal makes a column of single words.
    let room = width.saturating_sub(indent).max(NARROWEST);
    let begin = text.trim_start_matches(' ');
    let mut folded = text[..text.len() - begin.len()].to_owned();
    for (at, line) in wrapped(&from_home(begin), room).iter().enumerate() {
        let length = columns(line);
        if at > 0 || length > room && indent > 0 {
            folded.push('\n');
            folded.extend(std::iter::repeat_n(' ', indent_of(length, indent, width)));
        }
        folded.push_str(line);
    }
    folded
}

/// Writes a frame at once, so that no half of it is visible.
pub(super) fn write(frame: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(frame.as_bytes())?;
    stdout.flush()
}

/// True if the locale uses UTF-8: locale(7), the first of these that is set decides.
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| variable(name).filter(|value| !value.is_empty()))
        .unwrap_or_default()
        .to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Until this is dropped, the terminal does not show what is typed.
pub(super) struct EchoOff {
    before: Termios,
}

impl EchoOff {
    /// `None` if standard input is not a terminal.
    pub(super) fn lines() -> Option<Self> {
        Self::without(LocalModes::ECHO)
    }

    /// Also delivers every key at once, Ctrl-C too: if Ctrl-C ended the process here, the terminal
    /// would stay without echo.
    pub(super) fn keys() -> Option<Self> {
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

impl Drop for EchoOff {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::terminal::*;

    #[test]
    fn a_path_is_not_broken_and_begins_further_left_if_it_must() {
        assert_eq!(fold("see the file", 24, 4), "see the file");
        assert_eq!(fold("then run `zg-tokend set`, or", 24, 0), "then run\n`zg-tokend set`, or");
        assert_eq!(
            fold("run `zg-tokend set --account work` now", 24, 0),
            "run `zg-tokend set\n--account work` now"
        );
        assert_eq!(fold("a `b` c `", 24, 0), "a `b` c `");
        assert_eq!(fold("", 24, 0), "");
        assert_eq!(fold("  see", 24, 0), "  see");
        assert_eq!(fold("see /a/path/of/21/columns ok", 24, 4), "see\n   /a/path/of/21/columns\n    ok");
        assert_eq!(
            fold("/a/path/of/more/columns/than/there/are", 24, 0),
            "/a/path/of/more/columns/than/there/are"
        );
    }

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
