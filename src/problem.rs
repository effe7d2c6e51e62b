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
    /// The event, and its path: understandable alone.
    pub message: String,
    /// Why, where that is another thing.
    pub cause: Option<String>,
    /// The next step.
    pub hint: Option<String>,
}

impl Problem {
    /// In these words, without a cause and a hint.
    pub fn of(class: Class, kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { class, kind: kind.into(), message: message.into(), cause: None, hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same with a cause.
    #[must_use]
    pub fn cause(self, cause: impl Into<String>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    /// A mistake of this program.
    pub fn bug(message: &str) -> Self {
        Self::of(Class::Unexpected, "bug", message).hint("this is a bug: please report it")
    }

    /// The kernel gives no random bytes.
    pub fn no_random() -> Self {
        Self::of(Class::Unexpected, "random", "the kernel gives no random bytes")
            .hint("allow getrandom(2) in the sandbox")
    }

    /// An error with its causes.
    pub fn new(error: &dyn Error, class: Class, kind: &str, hint: Option<String>) -> Self {
        Self { class, kind: kind.into(), message: error.to_string(), cause: cause(error), hint }
    }

    /// The same as the cause of something larger.
    #[must_use]
    pub fn within(self, message: impl Into<String>) -> Self {
        Self { cause: Some(self.whole()), message: message.into(), ..self }
    }

    /// Message and cause, as a part of a longer sentence.
    pub fn whole(&self) -> String {
        match &self.cause {
            Some(cause) => format!("{}: {cause}", self.message),
            None => self.message.clone(),
        }
    }
}

/// The causes of an error on one line, as `why: why`, each part once and none that the error names itself.
pub fn cause(error: &dyn Error) -> Option<String> {
    let mut told = error.to_string();
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        if !told.ends_with(&text) {
            causes.push(text.clone());
            told = text;
        }
        next = error.source();
    }
    (!causes.is_empty()).then(|| causes.join(": "))
}

/// An error and its causes where there is one line for both, such as inside a longer sentence.
pub fn chain(error: &dyn Error) -> String {
    match cause(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Message and cause where there is one line for both: a line of the journal, a variable.
pub fn told(message: &str, cause: Option<&str>) -> String {
    match cause {
        Some(cause) => format!("{message}; cause: {cause}"),
        None => message.to_owned(),
    }
}
