//! The files that `run` watches.

use crate::config::{AccountName, SecretSource, Settings};
use crate::files::watch::Watch;
use crate::store;

/// The config and the files that hold secrets: a change may bring a new login, or the key that a
/// push target was waiting for.
pub fn inputs(settings: &Settings) -> Watch {
    let sources = settings.accounts.iter().flat_map(|account| account.secrets());
    let files = sources.filter_map(|(_, source)| match source {
        SecretSource::File(path) => Some(path.as_path()),
        _ => None,
    });
    let certificates = settings.accounts.iter().flat_map(|account| account.grant.certificates());
    let certificates = certificates.map(|(_, path)| path.as_path());
    Watch::new(files.chain(certificates).chain([settings.path.as_path()]))
}

/// The states of accounts with push targets: the targets get every new token, even if another
/// process has refreshed it.
pub fn states(settings: &Settings) -> Watch<AccountName> {
    let pushing = settings.accounts.iter().filter(|account| !account.push.is_empty());
    let states = pushing.flat_map(|account| {
        let paths = store::open(settings, &account.name).watched(&[]);
        paths.into_iter().map(|path| (path, account.name.clone())).collect::<Vec<_>>()
    });
    Watch::keyed(states)
}

/// Watches the state of one more account.
pub fn add_state(watch: &mut Watch<AccountName>, settings: &Settings, account: &AccountName) {
    for path in store::open(settings, account).watched(&[]) {
        watch.add(&path, account);
    }
}
