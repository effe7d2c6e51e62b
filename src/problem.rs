//! One failure as the user meets it: its class, its words and the next step.

use std::error::Error;

/// The next step where the kernel refuses a process or a thread.
pub const RAISE_PROCESSES: &str = "raise the limit of processes and threads: ulimit -u; for a service TasksMax=, for a container --pids-limit";

/// The kinds of failure that the exit code tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The token endpoint or a secret cannot be had now; will be retried.
    Unavailable,
    /// State or token file could not be read or written.
    Io,
    /// Another process held the lock for too long.
    Busy,
    /// Only the user can help, by logging in again.
    NeedsLogin,
    /// Config, client or placement is wrong; only a change of them helps.
    Config,
    /// A mistake of this program.
    Unexpected,
}

/// A failure in words that hold no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its meaning for the exit code.
    pub class: Class,
    /// A short name for machines.
    pub kind: String,
    /// The whole story: what, which path, and why.
    pub message: String,
    /// The next step.
    pub hint: Option<String>,
}

impl Problem {
    /// A mistake of this program.
    pub fn bug(message: &str) -> Self {
        let hint = Some("this is a bug: please report it".into());
        Self { class: Class::Unexpected, kind: "bug".into(), message: message.into(), hint }
    }

    /// The kernel gives no random bytes.
    pub fn no_random() -> Self {
        Self {
            class: Class::Unexpected,
            kind: "random".into(),
            message: "the kernel gives no random bytes".into(),
            hint: Some("allow getrandom(2) in the sandbox".into()),
        }
    }

    /// An error with its causes.
    pub fn new(error: &dyn Error, class: Class, kind: &str, hint: Option<String>) -> Self {
        Self { class, kind: kind.into(), message: chain(error), hint }
    }
}

/// An error and its causes on one line, as `what: why: why`, each part once.
pub fn chain(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.ends_with(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}
