//! Where accounts keep their state. Stores are opened here alone, so that another kind of store is one more folder.

pub mod discovery;
pub mod document;
#[cfg(feature = "fleet")]
pub mod fleet;
#[cfg(any(feature = "fleet", test))]
pub mod fleet_error;
pub mod lock;
pub mod note;
pub mod seal;
pub mod seeds;
pub mod state;

use std::path::PathBuf;

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

/// Opens the stores of several accounts: the path to their common directory is checked once for all.
pub struct Stores<'a> {
    settings: &'a Settings,
    /// If it cannot be opened, each store reports that when it is used.
    state_dir: Option<StateDir>,
}

impl<'a> Stores<'a> {
    pub fn new(settings: &'a Settings) -> Self {
        Self { settings, state_dir: StateDir::find(&settings.state_dir).ok().flatten() }
    }

    pub fn open(&self, account: &AccountConfig) -> Store {
        let mut store = open(self.settings, account);
        if let Some(state_dir) = &self.state_dir {
            store.open_within(state_dir);
        }
        store
    }
}

/// Files below the state directory that have a refresh token in plain, or that cannot be read: what
/// earlier programs and accounts left behind. The states of `accounts` do not count.
pub fn plain_leftovers(settings: &Settings) -> Vec<PathBuf> {
    let Ok(Some(state_dir)) = StateDir::find(&settings.state_dir) else { return Vec::new() };
    let names = state_dir.accounts().unwrap_or_default().into_iter();
    let directories = names.filter_map(|name| Some((state_dir.find_account(&name).ok()??, name)));
    let leftovers = directories.flat_map(|(directory, name)| {
        let is_ours = settings.accounts.iter().any(|account| account.name.as_str() == name);
        let names = directory.names().unwrap_or_default().into_iter();
        let states = names.filter(move |name| name.starts_with("state.") || (name == "state" && !is_ours));
        let plain = states.filter(|name| state::is_plain(&directory, name));
        let path = directory.directory().path().to_owned();
        plain.map(|name| path.join(name)).collect::<Vec<_>>()
    });
    leftovers.collect()
}

/// Whether both configs keep their states in the same place.
pub fn is_shared(one: &Settings, other: &Settings) -> bool {
    one.state_dir == other.state_dir
}
