//! `TOKEN_FILE.json`: what a reader may want to know of the token beside it, without the token.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files::{Contents, FileError};
use crate::secret::{Fingerprint, Secret};

/// The version of what is in it; a change of meaning raises it.
const VERSION: u32 = 1;

/// The most that is read of such a file, in bytes: it has about 300.
const MAX_LEN: usize = 4096;

/// The facts about a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Info<'a> {
    version: u32,
    /// Name of the account.
    account: &'a str,
    /// The number of the token, counted from the first that the account was granted.
    generation: u64,
    /// Unix seconds.
    issued_at: i64,
    /// Unix seconds.
    expires_at: i64,
    /// The SHA-256 of the token file, in hex: tells whether the two files belong together.
    sha256: String,
}

/// Whether there is a file of another kind at a path, which would be lost.
pub fn is_foreign(path: &Path) -> Result<bool, FileError> {
    #[derive(Deserialize)]
    struct InfoMembers {
        #[serde(rename = "version")]
        _version: u32,
        #[serde(rename = "generation")]
        _generation: u64,
        #[serde(rename = "sha256")]
        _sha256: String,
    }
    let found = match Contents::of_path(path, MAX_LEN) {
        Err(FileError::TooLong { .. }) => return Ok(true),
        found => found?,
    };
    Ok(found.is_some_and(|found| serde_json::from_slice::<InfoMembers>(&found.bytes).is_err()))
}

impl<'a> Info<'a> {
    /// Of the token file with this content; instants are Unix seconds.
    pub fn new(
        account: &'a str,
        generation: u64,
        issued_at: i64,
        expires_at: i64,
        content: Fingerprint,
    ) -> Self {
        Self { version: VERSION, account, generation, issued_at, expires_at, sha256: content.to_string() }
    }

    /// The content of the file: JSON, one line.
    pub fn render(&self) -> Secret {
        // Strings and numbers always encode.
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        Secret::new(text)
    }
}
