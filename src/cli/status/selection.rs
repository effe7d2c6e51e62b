//! The accounts that `status` shows.

use std::path::PathBuf;

use crate::config::{Environment, Settings};
use crate::status::{Snapshot, status};

/// If set, ZeroGravity takes its token from here instead of the token file.
const ZEROGRAVITY_TOKEN: &str = "ZEROGRAVITY_TOKEN";

/// The accounts to show.
pub(super) struct Selection<'a> {
    pub(super) settings: Settings,
    pub(super) only: Option<&'a str>,
    /// The token file that an environment variable masks.
    pub(super) masked: Option<PathBuf>,
}

impl Selection<'_> {
    pub(super) fn snapshot(&self) -> Snapshot {
        let masked = self.masked.as_deref().map(|path| (ZEROGRAVITY_TOKEN, path));
        status(&self.settings, self.only, masked)
    }
}

pub(super) fn masked_file() -> Option<PathBuf> {
    std::env::var_os(ZEROGRAVITY_TOKEN).filter(|value| !value.is_empty())?;
    Environment::of_process().zerogravity_token()
}
