//! Questions on a terminal, and secrets from standard input.

use std::io::{self, IsTerminal as _, Read};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use zeroize::Zeroizing;

use crate::cli::output;
use crate::cli::terminal::{EchoOff, columns_of, fold};
use crate::config::SecretSource;
use crate::secret::Secret;

/// The longest secret that is read: four times the longest token.
const SECRET_MAX: usize = 64 * 1024;

/// Lines of one pasted text follow each other within this time; nobody types so fast.
const PASTE_PAUSE: Duration = Duration::from_millis(150);

const CHUNK: usize = 4 << 10;

/// Keys, termios(3): Ctrl-C, Ctrl-D, Ctrl-U, and both kinds of backspace.
const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const CLEAR: u8 = 0x15;
const BACKSPACE: [u8; 2] = [0x08, 0x7f];

pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal()
}

/// Shows a question, broken between words; the answer is typed behind it.
fn ask(question: &str) {
    output::question(fold(question, columns_of(io::stderr()), 0));
}

/// The answer to a question, without the white space around it; `None` if it is empty.
pub(super) fn line(question: &str) -> Result<Option<String>, String> {
    ask(question);
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

/// The answer to a question whose default is yes.
pub(super) fn agree(question: &str) -> Result<bool, String> {
    loop {
        match line(question)?.unwrap_or_default().to_lowercase().as_str() {
            "" | "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => output::hint("answer y or n"),
        }
    }
}

/// A secret that is typed and not shown; `None` if it is empty.
pub(super) fn hidden(what: &str, note: &str) -> Result<Option<Secret>, String> {
    ask(&format!("{what} ({note}): "));
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

/// Texts that are pasted while something else goes on; nothing of them is shown. Echo is back when it is
/// dropped. Ctrl-C sends SIGINT to this process.
pub(super) struct Paste {
    pub(super) texts: UnboundedReceiver<Secret>,
    _echo_off: Option<EchoOff>,
}

impl Paste {
    pub(super) fn begin() -> Self {
        let (send, texts) = unbounded_channel();
        let echo_off = EchoOff::keys();
        // It ends with the process: nothing interrupts its read.
        let _ = std::thread::Builder::new().name("paste".into()).spawn(move || {
            let mut text = PastedText::new();
            while let Some(bytes) = read_chunk(&text) {
                match text.take(&bytes) {
                    Some(Typed::Interrupted) => {
                        let _ = kill_process(getpid(), Signal::INT);
                    }
                    Some(Typed::Line(line)) if send.send(lossy(&line)).is_err() => return,
                    _ => {}
                }
            }
        });
        Self { texts, _echo_off: echo_off }
    }
}

fn lossy(bytes: &[u8]) -> Secret {
    Secret::new(String::from_utf8_lossy(bytes))
}

/// The next bytes; empty if none come soon after the end of a line. `None` at the end of input.
fn read_chunk(text: &PastedText) -> Option<Zeroizing<Vec<u8>>> {
    let stdin = io::stdin();
    let pause = Timespec { tv_sec: 0, tv_nsec: PASTE_PAUSE.as_nanos() as i64 };
    let timeout = text.is_complete.then_some(&pause);
    loop {
        let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut ready, timeout) {
            Ok(0) => return Some(Zeroizing::default()),
            Err(Errno::INTR) => continue,
            _ => {}
        }
        let mut bytes = Zeroizing::new(vec![0; CHUNK]);
        match rustix::io::read(&stdin, &mut bytes[..]) {
            Ok(0) => return None,
            Ok(count) => {
                bytes.truncate(count);
                return Some(bytes);
            }
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// A text that is being typed or pasted. A mail or a terminal may have broken it into lines, and those
/// come at once.
struct PastedText {
    bytes: Zeroizing<Vec<u8>>,
    /// It ends with the end of a line.
    is_complete: bool,
}

impl PastedText {
    fn new() -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(SECRET_MAX)), is_complete: false }
    }

    /// Takes more bytes; none if no more came for a moment. Returns the whole text, or Ctrl-C.
    fn take(&mut self, bytes: &[u8]) -> Option<Typed> {
        if bytes.is_empty() && self.is_complete {
            return Some(Typed::Line(std::mem::replace(self, Self::new()).bytes));
        }
        for key in bytes {
            self.is_complete = matches!(key, b'\n' | b'\r' | &END);
            match *key {
                INTERRUPT => return Some(Typed::Interrupted),
                CLEAR => self.bytes.clear(),
                key if BACKSPACE.contains(&key) => drop(self.bytes.pop()),
                // The vector must not grow and leave copies behind.
                key if self.bytes.len() < SECRET_MAX => {
                    self.bytes.push(if self.is_complete { b'\n' } else { key });
                }
                _ => {}
            }
        }
        None
    }
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
    fn lines_that_come_at_once_are_one_text() {
        let mut text = PastedText::new();
        let line = |text: &[u8]| Some(Typed::Line(Zeroizing::new(text.to_vec())));
        assert_eq!(text.take(b"http://a/?co"), None);
        assert_eq!(text.take(b""), None, "the line is not complete");
        assert_eq!(text.take(b"de=1\rsta"), None);
        assert_eq!(text.take(b"te=2\n"), None);
        assert_eq!(text.take(b""), line(b"http://a/?code=1\nstate=2\n"));
        assert_eq!((text.take(b"\n"), text.take(b"")), (None, line(b"\n")));
        assert_eq!(text.take(b"x\x15y\x03"), Some(Typed::Interrupted));
    }

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
