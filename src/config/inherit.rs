//! The keys that an account takes from the top of the file, and from the account whose login it uses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::config::document::{FROM_IN_AUDIENCE, RawEntry};
use crate::config::key::Group;
use crate::config::keys::{RawAccount, RawTable as _};
use crate::config::problem::{ConfigProblem, bad_value};
use crate::config::settings::{AccountConfig, AccountName};

/// The accounts that `from` names, by name.
pub(super) type Logins = BTreeMap<String, Box<RawAccount>>;

pub(super) fn logins(accounts: &[RawEntry]) -> Logins {
    let named: BTreeSet<_> = accounts.iter().filter_map(|entry| Some(entry.keys.from()?.get_ref())).collect();
    let logins = accounts.iter().filter(|entry| named.contains(entry.name.get_ref()));
    logins.map(|entry| (entry.name.get_ref().clone(), entry.keys.clone().all())).collect()
}

/// An account with `from` gets the keys of that login.
pub(super) fn with_login(
    RawEntry { keys, way, .. }: RawEntry,
    logins: &Logins,
    top: &RawAccount,
) -> Result<Box<RawAccount>, ConfigProblem> {
    let raw = keys.all();
    let Some(from) = raw.from.clone() else { return Ok(raw) };
    let name = from.get_ref();
    let place = from.span();
    if way == FROM_IN_AUDIENCE {
        let hint = "remove it: an account in `audience` has the login of the account that it stands in";
        return Err(bad_value(way, place, "names another login", hint));
    }
    let Some(login) = logins.get(name) else {
        let hint = "write the name of another account in this file, as in [accounts.NAME]";
        return Err(bad_value(way, place, "names no account", hint));
    };
    if login.from.is_some() {
        let hint = "name the account that has the login itself";
        return Err(bad_value(way, place, format!("names `{name}`, which has `from` as well"), hint));
    }
    let login = login.clone().inherit(Box::new(top.clone()));
    if login.grant_type.as_ref().is_some_and(|grant| grant.get_ref() != "refresh_token") {
        let hint = "an account without a login needs no other one: give this one the same keys";
        return Err(bad_value(way, place, format!("names `{name}`, which has no login"), hint));
    }
    raw.use_login(*login).map(Box::new).map_err(|key| {
        let hint = format!("remove one of the two: client, server and login are those of account `{name}`");
        bad_value(way, place, format!("stands beside `{key}`"), hint)
    })
}

impl RawAccount {
    /// These keys, and `defaults` where there are none.
    ///
    /// Server and client are inherited whole or not at all.
    pub(super) fn inherit(mut self: Box<Self>, mut defaults: Box<Self>) -> Box<Self> {
        if self.provider.is_some() || self.issuer.is_some() || self.token_endpoint.is_some() {
            defaults.clear(Some(Group::Server));
        }
        if self.client_id.is_some() {
            defaults.clear(Some(Group::Client));
        }
        self.fill(*defaults);
        self
    }

    /// The keys of an account with `from`: client, server and login are those of the other account. The
    /// error is a key that both would have.
    pub(super) fn use_login(mut self, mut login: Self) -> Result<Self, &'static str> {
        let groups = [Group::Server, Group::Client, Group::Login];
        if let Some(key) = groups.into_iter().find_map(|group| self.first_of(group)) {
            return Err(key);
        }
        let defaults = Self {
            extra_params: login.extra_params.take(),
            request_headers: login.request_headers.take(),
            timeout: login.timeout.take(),
            ca_file: login.ca_file.take(),
            proxy: login.proxy.take(),
            allow_http: login.allow_http.take(),
            ..Self::default()
        };
        login.clear(None);
        self.fill(login);
        self.fill(defaults);
        Ok(self)
    }
}

/// The places of the accounts that have a login in common, by the name of the one that has it.
pub(super) fn shared_logins(accounts: &[Arc<AccountConfig>]) -> HashMap<AccountName, Vec<usize>> {
    let users = accounts.iter().filter_map(|account| account.from.clone());
    let mut logins: HashMap<_, _> = users.map(|login| (login, Vec::new())).collect();
    for (place, account) in accounts.iter().enumerate() {
        if let Some(places) = logins.get_mut(account.login_account()) {
            places.push(place);
        }
    }
    logins
}
