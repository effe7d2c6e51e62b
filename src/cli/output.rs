//! What the terminal sees. Data goes to stdout, talk to stderr: `error:`, `warning:` and `hint:`,
//! lower case, without a full stop. A reader that has gone away is no error.

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use anstyle::{AnsiColor, Style};

use crate::cli::exit::Exit;
use crate::message::RAISE_LIMITS;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// One line of data.
pub fn say(line: impl Display) {
    let _ = writeln!(anstream::stdout(), "{}", printable(&line.to_string()));
}

/// All that was asked for, which may go to a file; false, and said, if not all of it got there: half
/// of it must not pass for the whole. Several lines, fit to be printed.
pub fn tell(text: impl Display) -> bool {
    let mut stdout = anstream::stdout();
    is_told(writeln!(stdout, "{text}").and_then(|()| stdout.flush()))
}

/// Whether stdout took what was written to it; else this is said.
pub(super) fn is_told(written: std::io::Result<()>) -> bool {
    match written {
        Err(problem) if problem.kind() != ErrorKind::BrokenPipe => {
            failure(
                format!("cannot write to stdout: {problem}"),
                Some("look at where it goes: a full disk, or a terminal that is gone"),
            );
            false
        }
        _ => true,
    }
}

/// Something should be looked at, and what to do about it.
pub fn warning(message: impl Display, way_out: impl Display) {
    talk(WARNING, "warning", message);
    hint(way_out);
}

/// The way out.
pub fn hint(message: impl Display) {
    talk(HINT, "hint", message);
}

/// An error, and the way out if there is one.
pub fn failure(message: impl Display, way_out: Option<&str>) {
    failure_in(message, None, way_out);
}

/// The same with the lines that it is about between the two, which must be fit to be printed.
pub(super) fn failure_in(message: impl Display, lines: Option<&str>, way_out: Option<&str>) {
    let _ = write!(anstream::stderr(), "{}", failed(message, lines, way_out));
}

fn failed(message: impl Display, lines: Option<&str>, way_out: Option<&str>) -> String {
    let mut text = line(ERROR, "error", message);
    text.extend(lines.map(|lines| format!("{lines}\n")));
    text.extend(way_out.map(|way_out| line(HINT, "hint", way_out)));
    text
}

/// The kernel refused what every pass needs.
pub(super) fn no_event_loop(error: &std::io::Error) -> Exit {
    failure(format!("cannot set up the event loop: {error}"), Some(RAISE_LIMITS));
    Exit::Failure
}

/// A question, on the line that the answer comes to.
pub fn ask(question: impl Display) {
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "{question}").and_then(|()| stderr.flush());
}

fn talk(style: Style, word: &str, message: impl Display) {
    let _ = write!(anstream::stderr(), "{}", line(style, word, message));
}

fn line(style: Style, word: &str, message: impl Display) -> String {
    format!("{style}{word}:{style:#} {}\n", printable(&message.to_string()))
}

/// A text as one line that says what is in it: what would break the line, move the cursor, set a
/// colour or turn the direction around is escaped. A path may be named by anybody.
pub(super) fn printable(text: &str) -> String {
    let moves = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if moves(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}
