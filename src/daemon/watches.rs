//! The files that `run` watches.

use std::path::PathBuf;
use std::sync::Arc;

use crate::account::google;
use crate::config::{AccountConfig, AccountName, SecretSource, Settings};
use crate::files::links::Apart;
use crate::files::watch::Watch;
use crate::store;

/// The config and the files that hold secrets: a change may bring a new login, or the key that a
/// push target was waiting for.
pub fn inputs(settings: &Settings) -> Watch {
    let sources = settings.accounts.iter().flat_map(|account| account.secrets());
    let files = sources.filter_map(|(_, source)| source.file());
    let certificates = settings.accounts.iter().flat_map(|account| account.grant.certificates());
    let certificates = certificates.map(|(_, path)| path.as_path());
    // Google's files name another one, which the platform writes.
    let apart = Apart::new(|| Box::new(google::platform_file));
    let credentials =
        settings.accounts.iter().filter_map(|account| match &account.grant.google_credentials {
            Some(SecretSource::File(path)) => apart.ask(path).flatten(),
            _ => None,
        });
    let platform_files: Vec<_> = credentials.collect();
    let platform_files = platform_files.iter().map(PathBuf::as_path);
    Watch::new(files.chain(certificates).chain(platform_files).chain([settings.path.as_path()]))
}

/// The states of accounts with push targets, which get every new token, even if another process has
/// refreshed it; and of accounts that use the login of another one, which may change.
pub fn states(settings: &Settings) -> Watch<AccountName> {
    let watched = |account: &&Arc<AccountConfig>| !account.push.is_empty() || account.from.is_some();
    let watched = settings.accounts.iter().filter(watched);
    Watch::keyed(
        watched.map(|account| (store::state_path(settings, account.login_account()), account.name.clone())),
    )
}

/// Watches the state of one more account, which has the login `login`.
pub fn add_state(
    watch: &mut Watch<AccountName>,
    settings: &Settings,
    account: &AccountName,
    login: &AccountName,
) {
    watch.add(&store::state_path(settings, login), account);
}
