//! One answer: asked for, or taken from a flag.

use std::path::Path;

use crate::cli::init::error::InitError;
use crate::cli::{output, prompt};
use crate::secret::Secret;

/// A value of the config, or where it is.
pub(super) enum Source {
    /// No secret.
    Text(String),
    Inline(Secret),
    File(String),
    Env(String),
}

pub(super) fn source(file: Option<&Path>, variable: Option<&str>) -> Result<Option<Source>, InitError> {
    Ok(match (file, variable) {
        (Some(file), _) => Some(Source::File(absolute(file)?)),
        (None, variable) => variable.map(|name| Source::Env(name.to_owned())),
    })
}

/// A path on the command line is relative to the working directory, one in the config to the config.
pub(super) fn absolute(path: &Path) -> Result<String, InitError> {
    let absolute = std::path::absolute(path).ok().and_then(|path| Some(path.to_str()?.to_owned()));
    absolute.ok_or_else(|| InitError::Answer(format!("the path {} is not valid UTF-8", path.display())))
}

pub(super) fn optional(question: &str) -> Result<Option<String>, InitError> {
    prompt::line(question).map_err(InitError::Answer)
}

/// Asks again until there is an answer.
pub(super) fn needed(question: &str) -> Result<String, InitError> {
    loop {
        if let Some(answer) = optional(question)? {
            return Ok(answer);
        }
        output::hint("it cannot be empty; Ctrl-C stops, and nothing is written");
    }
}

/// Asks again until the answer is one of the letters, or empty (`None`).
pub(super) fn letter<const N: usize>(
    question: &str,
    letters: [&'static str; N],
) -> Result<Option<&'static str>, InitError> {
    loop {
        let Some(answer) = optional(question)? else { return Ok(None) };
        match letters.into_iter().find(|letter| *letter == answer.to_lowercase()) {
            Some(letter) => return Ok(Some(letter)),
            None => output::hint(format!("answer {}, or press Enter", letters.join(", "))),
        }
    }
}

/// A secret that is typed and not shown; `None` if it is empty.
pub(super) fn hidden(what: &str, note: &str) -> Result<Option<Source>, InitError> {
    Ok(prompt::hidden(what, note).map_err(InitError::Answer)?.map(Source::Inline))
}
