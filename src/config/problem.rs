//! What is wrong with the config, and at which bytes of its text.

use std::ops::Range;

/// An error at a place in the text, before the line is cut out of it.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) span: Range<usize>,
    pub(super) key: String,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Problem {
    /// An error at the bytes `span`, about `key`. An empty span shows no line: nothing that
    /// could be pointed at.
    pub(super) fn new(span: Range<usize>, key: &str, message: String) -> Self {
        Self { span, key: key.to_owned(), message, hint: None }
    }

    /// The same error with a way out.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
