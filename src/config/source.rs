//! Where a secret comes from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::secret::Secret;

/// Where a secret comes from. Reading it is [`crate::secrets`]' part, when it is needed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// It stands in the config file.
    Inline(Secret),
    /// A file that holds it and nothing else. Absolute, unless the config's path is not.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A program and its arguments, run without a shell; its standard output is the secret.
    Command(Vec<String>),
    /// The name of a systemd credential, systemd.exec(5).
    Credential(String),
    /// A file that `zg-tokend seal --secrets` has written.
    Sealed(Arc<SealedFile>),
}

/// A sealed file, and everything that opens it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SealedFile {
    pub path: PathBuf,
    /// The accounts that it may have been sealed for: the one that reads it, and the one whose login that
    /// uses.
    pub accounts: Vec<String>,
    /// The purpose that it must have been sealed for: the key in the config, with the name in its table.
    pub purpose: String,
    /// The sources of state_key and state_key_previous.
    pub state_keys: Vec<(&'static str, SecretSource)>,
}

impl SecretSource {
    /// The file that is read.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Sealed(sealed) => Some(&sealed.path),
            _ => None,
        }
    }
}

/// The endpoints that stand outside the config, as secrets do: their keys, with their sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointSources(Vec<(&'static str, SecretSource)>);

impl EndpointSources {
    pub fn iter(&self) -> impl Iterator<Item = &(&'static str, SecretSource)> {
        self.0.iter()
    }

    /// The file of the first, as the name of a server that is not read yet; empty if it is no file.
    pub fn place(&self) -> &str {
        let file = self.0.first().and_then(|(_, source)| source.file()?.to_str());
        file.unwrap_or_default()
    }

    pub(super) fn add(&mut self, key: &'static str, source: SecretSource) {
        self.0.push((key, source));
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == key)
    }
}

/// Names the source, never the value. Of a command only the program is named, since its
/// arguments may be anything.
impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("the config file"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Command(argv) => write!(f, "command `{}`", argv.first().map_or("", String::as_str)),
            Self::Credential(name) => write!(f, "systemd credential {name}"),
            Self::Sealed(sealed) => write!(f, "sealed file {}", sealed.path.display()),
        }
    }
}

/// Why a text cannot be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretFlaw {
    /// Nothing but white space.
    #[error("is empty")]
    Empty,
    /// A line break inside: two secrets, or a message beside one.
    #[error("has more than one line")]
    Lines,
    /// A control character, which no token (RFC 6749 appendix A) and no HTTP header may have.
    #[error("contains control characters")]
    Control,
    /// Something outside VSCHAR, 0x20 to 0x7E, of which tokens and client secrets are made (RFC 6749
    /// appendix A.2 and A.17): pasted from a document, perhaps, with a dash or a quote made pretty.
    #[error("contains characters other than ASCII letters, digits, punctuation and spaces")]
    NotAscii,
    /// Bytes that are not UTF-8.
    #[error("is not UTF-8 text")]
    NotText,
}

impl SecretSource {
    /// The secret that `bytes` hold, without the white space around it.
    pub fn secret_from(bytes: &[u8]) -> Result<Secret, SecretFlaw> {
        let text = std::str::from_utf8(bytes).map_err(|_| SecretFlaw::NotText)?.trim();
        if text.is_empty() {
            Err(SecretFlaw::Empty)
        } else if text.contains(['\n', '\r']) {
            Err(SecretFlaw::Lines)
        } else if text.contains(char::is_control) {
            Err(SecretFlaw::Control)
        } else if !text.is_ascii() {
            Err(SecretFlaw::NotAscii)
        } else {
            Ok(Secret::new(text))
        }
    }
}
