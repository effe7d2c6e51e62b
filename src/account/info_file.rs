//! `TOKEN_FILE.json`, the info file: facts about the token in the token file beside it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::account::token_file::Observation;
use crate::config::AccountConfig;
use crate::files::{Contents, FileError};
use crate::refresh::record::AccessToken;
use crate::secret::Secret;

/// A change of a member's meaning raises the version.
const VERSION: u32 = 1;

/// The longest info file that is read, in bytes: one has about 300, and 200 more
/// for each output.
const MAX_LEN: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Info<'a> {
    version: u32,
    account: &'a str,
    /// The number of the token, counted from the first one that the account was granted.
    generation: u64,
    /// Unix seconds.
    issued_at: i64,
    /// Unix seconds.
    expires_at: i64,
    /// The SHA-256 of the token file in hex: shows that the two files belong together.
    sha256: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<OutputInfo>,
}

/// Another file with the same token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct OutputInfo {
    path: String,
    /// Absent if the file cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// Whether the path holds a file of another kind, which would be lost.
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
    match Contents::of_path(path, MAX_LEN) {
        Ok(Some(file)) => Ok(serde_json::from_slice::<InfoMembers>(&file.bytes).is_err()),
        Ok(None) => Ok(false),
        Err(FileError::TooLong { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

impl<'a> Info<'a> {
    /// For the files as they are.
    pub fn new<'p>(
        account: &'a AccountConfig,
        generation: u64,
        token: &AccessToken,
        token_file: &Observation,
        outputs: impl Iterator<Item = (&'p Path, Observation)>,
    ) -> Self {
        let outputs = outputs.map(|(path, seen)| OutputInfo {
            path: path.to_string_lossy().into_owned(),
            sha256: sha256(&seen),
        });
        Self {
            version: VERSION,
            account: account.name.as_str(),
            generation,
            issued_at: token.issued_at.wall / 1000,
            expires_at: token.expires_at().wall / 1000,
            sha256: sha256(token_file).unwrap_or_default(),
            outputs: outputs.collect(),
        }
    }

    /// One line of JSON.
    pub fn render(&self) -> Secret {
        // Strings and numbers always encode.
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        Secret::new(text)
    }
}

fn sha256(seen: &Observation) -> Option<String> {
    match seen {
        Observation::Holds { fingerprint, .. } => Some(fingerprint.to_string()),
        Observation::Missing | Observation::Unreadable(_) => None,
    }
}
