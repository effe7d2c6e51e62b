//! Where accounts keep their state. Stores are opened here alone, so that another kind of store is one more folder.

pub mod discovery;
pub mod lock;
pub mod note;
pub mod seeds;
pub mod state;

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{AccountConfig, AccountName, Settings};
use crate::store::lock::{STATE, StateDir};
use crate::store::state::Store;

/// The store of an account. Touches no file until it is used.
pub fn open(settings: &Settings, account: &AccountConfig) -> Store {
    let user = account.from.is_some().then(|| account.name.as_str());
    Store::new(&settings.state_dir, settings.missing_state_dir, account.login_account().as_str(), user)
}

/// The path of the state that has the login of this account.
pub fn state_path(settings: &Settings, login: &AccountName) -> PathBuf {
    settings.state_dir.join(login.as_str()).join(STATE)
}

/// The stores of several accounts: the path to their common directory is checked once for all.
pub fn open_all<'a>(
    settings: &'a Settings,
    only: Option<&'a str>,
) -> impl Iterator<Item = (&'a Arc<AccountConfig>, Store)> {
    // If it cannot be opened, each store reports that when it is used.
    let state_dir = StateDir::find(&settings.state_dir).ok().flatten();
    settings.chosen(only).map(move |account| {
        let mut store = open(settings, account);
        if let Some(state_dir) = &state_dir {
            store.open_within(state_dir);
        }
        (account, store)
    })
}

/// Whether both configs keep their states in the same place.
pub fn is_shared(one: &Settings, other: &Settings) -> bool {
    one.state_dir == other.state_dir
}
