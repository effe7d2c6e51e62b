//! Terminal output: data on stdout, the rest on stderr as `error:`, `warning:` and `hint:`
//! in lower case, without a full stop. A reader that has gone away is no error.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal as _, Write, stderr, stdout};
use std::sync::{Mutex, OnceLock};

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

use crate::cli::exit::Exit;
use crate::cli::terminal::{columns_of, fold};
use crate::message::RAISE_LIMITS;
use crate::sink::Sink;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// One line on stdout.
pub fn print_line(line: impl Display) {
    let _ = writeln!(anstream::stdout(), "{}", printable(&line.to_string()));
}

/// The same in a style.
pub fn print_styled(style: Style, line: impl Display) {
    let _ = writeln!(anstream::stdout(), "{style}{}{style:#}", printable(&line.to_string()));
}

/// A whole result on stdout. False, with an error on stderr, if stdout did not take all of it:
/// half a result must not pass for a whole one. The caller escapes the text, see [`printable`].
pub fn print(text: impl Display) -> bool {
    let text = format!("{text}\n");
    // Without an escape sequence there is none to look for where stdout is no terminal.
    let is_plain = text.bytes().all(|byte| byte == b'\n' || (byte >= b' ' && byte != 0x7f));
    let written = if is_plain {
        stdout().write_all(text.as_bytes())
    } else {
        anstream::stdout().write_all(text.as_bytes())
    };
    is_complete(written.and_then(|()| stdout().flush()))
}

pub(super) fn is_complete(written: std::io::Result<()>) -> bool {
    match written {
        Err(problem) if problem.kind() != ErrorKind::BrokenPipe => {
            error(
                format!("cannot write to stdout: {problem}"),
                Some("check where stdout goes: the disk may be full, or the terminal closed"),
            );
            false
        }
        _ => true,
    }
}

pub fn warning(message: impl Display, way_out: impl Display) {
    let text = line(WARNING, "warning", message) + &line(HINT, "hint", way_out);
    let _ = write!(anstream::stderr(), "{text}");
}

/// The same in mid-pass: a reader of stderr that stands still must not hold up an exchange.
pub fn warning_at_once(message: impl Display, way_out: impl Display) {
    static STDERR: OnceLock<Option<Mutex<Sink>>> = OnceLock::new();
    let render = |text: String| match AutoStream::choice(&stderr()) {
        ColorChoice::Never => strip_str(&text).to_string().into_bytes(),
        _ => text.into_bytes(),
    };
    let text = line(WARNING, "warning", message) + &line(HINT, "hint", way_out);
    let lost =
        |count| render(line(WARNING, "warning", format!("{count} warnings were lost: nobody read them")));
    let sink = STDERR.get_or_init(|| Sink::stderr().ok().map(Mutex::new));
    if let Some(Ok(mut sink)) = sink.as_ref().map(Mutex::lock) {
        sink.write(&render(text), lost);
    }
}

pub fn hint(message: impl Display) {
    let _ = write!(anstream::stderr(), "{}", line(HINT, "hint", message));
}

/// A line on stderr that is neither an error nor a hint.
pub fn note(message: impl Display) {
    let message = message.to_string();
    let message = if stderr().is_terminal() { fold(&message, columns_of(stderr()), 0) } else { message };
    let _ = writeln!(anstream::stderr(), "{message}");
}

pub fn error(message: impl Display, way_out: Option<&str>) {
    error_with(message, None, way_out);
}

/// An error with the lines that it is about, which the caller has escaped.
pub(super) fn error_with(message: impl Display, lines: Option<&str>, way_out: Option<&str>) {
    let _ = write!(anstream::stderr(), "{}", error_text(message, lines, way_out));
}

fn error_text(message: impl Display, lines: Option<&str>, way_out: Option<&str>) -> String {
    let mut text = line(ERROR, "error", message);
    text.extend(lines.map(|lines| format!("{lines}\n")));
    text.extend(way_out.map(|way_out| line(HINT, "hint", way_out)));
    text
}

pub(super) fn no_event_loop(problem: &std::io::Error) -> Exit {
    error(format!("cannot set up the event loop: {problem}"), Some(RAISE_LIMITS));
    Exit::Failure
}

/// A question; the answer is typed on the same line.
pub fn question(text: impl Display) {
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "{text}").and_then(|()| stderr.flush());
}

fn line(style: Style, word: &str, message: impl Display) -> String {
    let message = printable(&message.to_string());
    let message =
        if stderr().is_terminal() { fold(&message, columns_of(stderr()), word.len() + 2) } else { message };
    format!("{style}{word}:{style:#} {message}\n")
}

/// A text on one line, with everything escaped that would break the line, move the cursor, set a
/// colour or change the direction: anybody may have named the path in it.
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

#[cfg(test)]
mod tests;
