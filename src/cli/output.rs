//! Terminal output: data on stdout, the rest on stderr as `error:` or `warning:`, `cause:` and `hint:`, each
//! on a line of its own, in lower case, without a full stop. A reader that has gone away is no error.

use std::error::Error;
use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal as _, Write, stderr, stdout};
use std::sync::{Mutex, OnceLock};

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

use crate::cli::exit::Exit;
use crate::cli::terminal::{columns_of, fold};
use crate::message::RAISE_LIMITS;
use crate::problem;
use crate::sink::Sink;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const CAUSE: Style = Style::new().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// One line on stdout; on a terminal it is broken between words.
pub fn print_line(line: impl Display) {
    let line = printable(&line.to_string());
    let line = if stdout().is_terminal() { fold(&line, columns_of(stdout()), 0) } else { line };
    let _ = writeln!(anstream::stdout(), "{line}");
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
            error_for(
                "cannot write to stdout",
                Some(&problem.to_string()),
                Some("check where stdout goes: the disk may be full, or the terminal closed"),
            );
            false
        }
        _ => true,
    }
}

pub fn warning(message: impl Display, way_out: impl Display) {
    warning_for(message, None, way_out);
}

/// A warning with its cause.
pub(super) fn warning_for(message: impl Display, cause: Option<&str>, way_out: impl Display) {
    let text = parts(WARNING, "warning", message, cause) + &line(HINT, "hint", way_out);
    let _ = write!(anstream::stderr(), "{text}");
}

/// The same in mid-pass: a reader of stderr that stands still must not hold up an exchange.
pub fn warning_at_once(message: impl Display, cause: Option<&str>, way_out: impl Display) {
    static STDERR: OnceLock<Option<Mutex<Sink>>> = OnceLock::new();
    let render = |text: String| match AutoStream::choice(&stderr()) {
        ColorChoice::Never => strip_str(&text).to_string().into_bytes(),
        _ => text.into_bytes(),
    };
    let text = parts(WARNING, "warning", message, cause) + &line(HINT, "hint", way_out);
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
    error_for(message, None, way_out);
}

/// An error with its cause.
pub(super) fn error_for(message: impl Display, cause: Option<&str>, way_out: Option<&str>) {
    error_with(message, cause, None, way_out);
}

/// An error that ends the command with this exit code.
pub(super) fn fail(exit: Exit, message: impl Display, way_out: &str) -> Exit {
    error(message, Some(way_out));
    exit
}

/// An error of a module, with its causes.
pub(super) fn failure(error: &dyn Error, way_out: Option<&str>) {
    error_for(error, problem::cause(error).as_deref(), way_out);
}

/// An error with the lines that it is about, which the caller has escaped.
pub(super) fn error_with(
    message: impl Display,
    cause: Option<&str>,
    lines: Option<&str>,
    way_out: Option<&str>,
) {
    let _ = write!(anstream::stderr(), "{}", error_text(message, cause, lines, way_out));
}

fn error_text(
    message: impl Display,
    cause: Option<&str>,
    lines: Option<&str>,
    way_out: Option<&str>,
) -> String {
    let mut text = parts(ERROR, "error", message, cause);
    text.extend(lines.map(|lines| format!("{lines}\n")));
    text.extend(way_out.map(|way_out| line(HINT, "hint", way_out)));
    text
}

pub(super) fn no_event_loop(problem: &std::io::Error) -> Exit {
    error_for("cannot set up the event loop", Some(&problem.to_string()), Some(RAISE_LIMITS));
    Exit::Failure
}

/// A question; the answer is typed on the same line.
pub fn question(text: impl Display) {
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "{text}").and_then(|()| stderr.flush());
}

/// A message, and its cause on the next line.
fn parts(style: Style, word: &str, message: impl Display, cause: Option<&str>) -> String {
    line(style, word, message) + &cause.map(|cause| line(CAUSE, "cause", cause)).unwrap_or_default()
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
