//! What is wrong with the config, and at which bytes of its text.

use std::ops::Range;

/// Something wrong, as long as nobody has said what to do about it: it is no error before.
#[derive(Debug)]
pub(super) struct Flaw {
    span: Range<usize>,
    key: String,
    message: String,
}

impl Flaw {
    /// Something wrong at the bytes `span`, about `key`. An empty span shows no line: nothing that
    /// could be pointed at.
    pub(super) fn new(span: Range<usize>, key: &str, message: String) -> Self {
        Self { span, key: key.to_owned(), message }
    }

    /// An error: the same, with a way out.
    pub(super) fn hint(self, hint: impl Into<String>) -> ConfigProblem {
        let Self { span, key, message } = self;
        ConfigProblem { span, key, message, hint: hint.into() }
    }
}

/// An error at a place in the text, before the line is cut out of it.
#[derive(Debug)]
pub(super) struct ConfigProblem {
    pub(super) span: Range<usize>,
    pub(super) key: String,
    pub(super) message: String,
    pub(super) hint: String,
}
