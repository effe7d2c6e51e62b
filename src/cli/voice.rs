//! What the terminal sees. Data goes to stdout, talk to stderr: `error:`, `warning:` and `hint:`,
//! lower case, without a full stop. A reader that has gone away is no error.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use anstyle::{AnsiColor, Style};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// One line of data.
pub fn say(line: impl Display) {
    let _ = writeln!(anstream::stdout(), "{line}");
}

/// All that was asked for, which may go to a file; false, and said, if not all of it got there: half
/// of it must not pass for the whole.
pub fn tell(text: impl Display) -> bool {
    let mut stdout = anstream::stdout();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
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

/// Something has failed.
pub fn error(message: impl Display) {
    talk(ERROR, "error", message);
}

/// Something should be looked at.
pub fn warning(message: impl Display) {
    talk(WARNING, "warning", message);
}

/// The way out.
pub fn hint(message: impl Display) {
    talk(HINT, "hint", message);
}

/// An error, and the way out if there is one.
pub fn failure(message: impl Display, way_out: Option<&str>) {
    error(message);
    if let Some(way_out) = way_out {
        hint(way_out);
    }
}

/// A question, on the line that the answer comes to.
pub fn ask(question: impl Display) {
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "{question}").and_then(|()| stderr.flush());
}

fn talk(style: Style, word: &str, message: impl Display) {
    let _ = writeln!(anstream::stderr(), "{style}{word}:{style:#} {message}");
}
