//! The discovery document that an account's token endpoint came from, kept between passes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::clock::Timestamp;
use crate::files::{Attributes, Temporary};
use crate::store::lock::StateDir;
use crate::store::state::StateError;

/// The file's name in the account's directory.
const DISCOVERY: &str = "discovery";

/// The most that is read of it: two addresses and a time.
const DISCOVERY_MAX: usize = 64 * 1024;

/// The part of a discovery document that is kept (RFC 8414 section 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cached {
    /// The issuer, as it was configured.
    pub issuer: String,
    /// The token endpoint in it.
    pub token_endpoint: Url,
    /// The host that refresh tokens go to.
    pub confirmed_host: String,
    /// When it was fetched.
    pub fetched_at: Timestamp,
}

/// Where it is kept.
#[derive(Debug, Clone)]
pub struct Cache {
    state_dir: PathBuf,
    account: String,
}

impl Cache {
    /// Opens nothing yet.
    pub fn new(state_dir: &Path, account: &str) -> Self {
        Self { state_dir: state_dir.to_owned(), account: account.to_owned() }
    }

    /// The content. A cache that is missing or cannot be read is no reason to fail.
    pub fn read(&self) -> Option<Cached> {
        let dir = StateDir::find(&self.state_dir).ok()??.find_account(&self.account).ok()??;
        let contents = dir.directory().read(OsStr::new(DISCOVERY), DISCOVERY_MAX).ok()??;
        serde_json::from_slice(&contents.bytes).ok()
    }

    /// Replaces it.
    pub fn write(&self, cached: &Cached) -> Result<(), StateError> {
        let dir = StateDir::create(&self.state_dir)?.create_account(&self.account)?;
        let bytes = serde_json::to_vec_pretty(cached)
            .map_err(|source| StateError::Encode { account: self.account.clone(), source })?;
        let mut temporary = Temporary::create(&dir.file(DISCOVERY), Attributes::PRIVATE)?;
        temporary.write_all(&bytes)?;
        Ok(temporary.commit()?)
    }
}
