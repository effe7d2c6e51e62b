//! From the errors of the rooms below to what the core counts.

use std::error::Error;

use crate::durable::FailureClass;
use crate::supervisor::trouble::{Class, Trouble};

/// The way out where the kernel refuses descriptors or threads.
pub const RAISE_LIMITS: &str =
    "raise the limits of this user: ulimit -n, ulimit -u; for a service LimitNOFILE=, TasksMax=";

/// What a failure of a file means for the exit code.
pub fn class(class: FailureClass) -> Class {
    match class {
        FailureClass::Io => Class::Io,
        FailureClass::Misplaced => Class::Config,
    }
}

/// An error with its causes, as one line.
pub fn trouble(error: &dyn Error, class: Class, kind: &str, hint: Option<String>) -> Trouble {
    Trouble { class, kind: kind.into(), message: chain(error), hint }
}

/// `what: why: why`, each part once.
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
