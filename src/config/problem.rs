//! A problem of the config, and its bytes in the text.

use std::fmt::Display;
use std::ops::Range;

/// An error at a place in the text, before the line is cut out of it.
#[derive(Debug)]
pub(super) struct ConfigProblem {
    /// If it is empty, there is no line to show.
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) hint: String,
}

impl ConfigProblem {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { span, message: message.into(), hint: hint.into() }
    }
}

/// A value that breaks a rule: "`KEY` WHAT".
pub(super) fn bad_value(
    key: &str,
    span: Range<usize>,
    what: impl Display,
    hint: impl Into<String>,
) -> ConfigProblem {
    ConfigProblem::new(span, format!("`{key}` {what}"), hint)
}
