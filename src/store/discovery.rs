//! The discovery document that an account's token endpoint came from, kept between passes.
//!
//! Not a note: it must survive a crash and exist after the first pass, since the host in it is
//! compared with the host in the next document.

use std::ffi::OsStr;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::clock::Timestamp;
use crate::store::state::{StateError, Store};

/// The file's name in the account's directory.
const DISCOVERY: &str = "discovery";

/// The most that is read of it: two addresses and a time.
const DISCOVERY_MAX: usize = 64 * 1024;

/// The part of a discovery document that is kept (RFC 8414 section 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovered {
    /// The issuer, as it was configured.
    pub issuer: String,
    /// Whether it is the endpoint for clients with a certificate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mtls: bool,
    pub token_endpoint: Url,
    /// The host that refresh tokens go to.
    pub confirmed_host: String,
    pub fetched_at: Timestamp,
}

impl Store {
    /// The document that was kept last. One that cannot be read is fetched again.
    pub fn discovered(&mut self) -> Option<Discovered> {
        let contents = self.open().ok()??.directory().read(OsStr::new(DISCOVERY), DISCOVERY_MAX).ok()??;
        serde_json::from_slice(&contents.bytes).ok()
    }

    /// Keeps a document, durably.
    pub fn keep_discovered(&self, discovered: &Discovered) -> Result<(), StateError> {
        // Strings and numbers always encode.
        let bytes = serde_json::to_vec_pretty(discovered).unwrap_or_default();
        Ok(self.create()?.write(DISCOVERY, &bytes)?)
    }
}
