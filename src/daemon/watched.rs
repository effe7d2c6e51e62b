//! The files whose change is something to do.

use std::io;
use std::path::PathBuf;

use crate::config::{SecretSource, Settings};
use crate::files::watch::Watch;
use crate::store::state::Store;

/// Watches the config, and the files that hold secrets: a change of either may be a new login, or
/// the key that a push target was waiting for.
pub(super) fn inputs(settings: &Settings) -> io::Result<Watch> {
    let sources = settings.accounts.iter().flat_map(|account| account.secrets());
    let files = sources.filter_map(|(_, source)| match source {
        SecretSource::File(path) => Some(path.as_path()),
        _ => None,
    });
    Watch::new(files.chain([settings.path.as_path()]))
}

/// Watches the states of the accounts that have push targets: their targets are to have every new
/// token, whoever refreshed it.
pub(super) fn states(settings: &Settings) -> io::Result<Watch> {
    let pushing = settings.accounts.iter().filter(|account| !account.push.is_empty());
    let states: Vec<_> =
        pushing.map(|account| Store::new(&settings.state_dir, account.name.as_str()).path()).collect();
    Watch::new(states.iter().map(PathBuf::as_path))
}
