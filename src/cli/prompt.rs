//! Questions on a terminal, and secrets from standard input.

use std::io::{self, IsTerminal as _, Read};

use rustix::process::{Signal, getpid, kill_process};
use zeroize::Zeroizing;

use crate::cli::output;
use crate::cli::terminal::EchoOff;
use crate::config::SecretSource;
use crate::secret::Secret;

/// The longest secret that is read: four times the longest token.
const SECRET_MAX: usize = 64 * 1024;

/// Keys, termios(3): Ctrl-C, Ctrl-D, Ctrl-U, and both kinds of backspace.
const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const CLEAR: u8 = 0x15;
const BACKSPACE: [u8; 2] = [0x08, 0x7f];

pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal()
}

/// The answer to a question, without the white space around it; `None` if it is empty.
pub(super) fn line(question: &str) -> Result<Option<String>, String> {
    output::question(question);
    let mut answer = String::new();
    match io::stdin().read_line(&mut answer) {
        Err(error) => Err(format!("cannot read the answer: {error}")),
        Ok(0) => {
            output::question("\n");
            Err("no answer".to_owned())
        }
        Ok(_) => Ok(Some(answer.trim().to_owned()).filter(|answer| !answer.is_empty())),
    }
}

/// A secret that is typed and not shown; `None` if it is empty.
pub(super) fn hidden(what: &str, note: &str) -> Result<Option<Secret>, String> {
    output::question(format!("{what} ({note}): "));
    let echo_off = EchoOff::keys();
    let typed = keys(&mut io::stdin().lock());
    drop(echo_off);
    output::question("\n");
    match typed.map_err(|error| format!("cannot read the {what}: {error}"))? {
        Typed::Interrupted => {
            // Only now that the terminal echoes again.
            let _ = kill_process(getpid(), Signal::INT);
            Err("interrupted".to_owned())
        }
        Typed::Line(bytes) if bytes.trim_ascii().is_empty() => Ok(None),
        Typed::Line(bytes) => secret(what, &bytes).map(Some),
    }
}

/// The secret on standard input, which is not a terminal.
pub(super) fn piped(what: &str) -> Result<Secret, String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_MAX + 1));
    let read = io::stdin().lock().take(SECRET_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot read the {what}: {error}"))?;
    secret(what, &bytes)
}

fn secret(what: &str, bytes: &[u8]) -> Result<Secret, String> {
    if bytes.len() > SECRET_MAX {
        return Err(format!("the {what} is longer than any token"));
    }
    SecretSource::secret_from(bytes).map_err(|error| format!("the {what} {error}"))
}

#[derive(Debug, PartialEq)]
enum Typed {
    Line(Zeroizing<Vec<u8>>),
    Interrupted,
}

/// Reads keys up to the end of the line.
fn keys(input: &mut impl Read) -> io::Result<Typed> {
    let mut line = Zeroizing::new(Vec::with_capacity(SECRET_MAX + 2));
    let mut key = [0];
    loop {
        match (input.read(&mut key)?, key[0]) {
            (0, _) | (_, b'\n' | b'\r' | END) => return Ok(Typed::Line(line)),
            (_, INTERRUPT) => return Ok(Typed::Interrupted),
            (_, CLEAR) => line.clear(),
            (_, key) if BACKSPACE.contains(&key) => drop(line.pop()),
            // The vector must not grow and leave copies behind; a longer secret is refused later.
            (_, key) if line.len() <= SECRET_MAX => line.push(key),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::prompt::*;

    #[test]
    fn keys_make_a_line() {
        let line = |text: &[u8]| Typed::Line(Zeroizing::new(text.to_vec()));
        for (typed, read) in [
            (&b"abc\nrest"[..], line(b"abc")),
            (b"ab\x7fc\x08d\r", line(b"ad")),
            (b"wrong\x15right\n", line(b"right")),
            (b"\x7f\x04", line(b"")),
            (b"abc", line(b"abc")),
            (b"abc\x03", Typed::Interrupted),
        ] {
            assert_eq!(keys(&mut &*typed).unwrap(), read, "{typed:?}");
        }
    }
}
