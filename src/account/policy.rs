//! The accounts of a config, and what the core needs to know of each.

use std::sync::Arc;

use crate::account::context::Mode;
use crate::account::{Account, REREAD, machine};
use crate::config::settings::CommonConfig;
use crate::config::{AccountConfig, AccountName, SecretSource, Settings};
use crate::message::login_hint;
use crate::refresh::{FleetPolicy, LoginHint, Policy, Terms};
use crate::secret::Fingerprint;

/// The accounts of a config, or the one with the name `only`.
pub fn accounts<'a>(
    settings: &'a Arc<Settings>,
    only: Option<&'a str>,
    mode: Mode,
) -> impl Iterator<Item = Account> + 'a {
    let by_name = Arc::clone(settings);
    let hint = LoginHint::new(move |name| {
        let account = by_name.accounts.iter().find(|account| account.name.as_str() == name);
        account.map(|account| login_hint(&by_name, account)).unwrap_or_default()
    });
    // Neighbours in the config most often share their terms.
    let mut last: Option<(Arc<CommonConfig>, bool, Arc<Terms>)> = None;
    settings.chosen(only).map(move |account| {
        let inline_seed = inline_seed(account);
        let terms = match &last {
            Some((common, is_inline, terms))
                if Arc::ptr_eq(common, &account.common) && *is_inline == inline_seed.is_some() =>
            {
                Arc::clone(terms)
            }
            _ => Arc::new(terms(settings, account, inline_seed, mode, hint.clone())),
        };
        last = Some((Arc::clone(&account.common), inline_seed.is_some(), Arc::clone(&terms)));
        Account::new(settings, account, with_terms(account, inline_seed, terms))
    })
}

/// The part of an account's configuration that the core needs.
pub fn policy(settings: &Arc<Settings>, account: &Arc<AccountConfig>, mode: Mode) -> Policy {
    let hint = LoginHint::new({
        let (settings, account) = (Arc::clone(settings), Arc::clone(account));
        move |_| login_hint(&settings, &account)
    });
    let inline_seed = inline_seed(account);
    with_terms(account, inline_seed, Arc::new(terms(settings, account, inline_seed, mode, hint)))
}

fn inline_seed(account: &AccountConfig) -> Option<Fingerprint> {
    match &account.refresh_token {
        Some(SecretSource::Inline(secret)) => Some(secret.fingerprint()),
        _ => None,
    }
}

fn with_terms(account: &AccountConfig, inline_seed: Option<Fingerprint>, terms: Arc<Terms>) -> Policy {
    let from = account.from.as_ref().map(AccountName::shared);
    Policy { account: account.name.shared(), from, inline_seed, terms }
}

fn terms(
    settings: &Settings,
    account: &AccountConfig,
    inline_seed: Option<Fingerprint>,
    mode: Mode,
    login_hint: LoginHint,
) -> Terms {
    Terms {
        config: Arc::clone(&settings.path_text),
        grant_type: account.grant.grant_type,
        skew: account.skew,
        default_lifetime: account.default_lifetime,
        horizon: mode.horizon,
        login_hint,
        reread_secrets: inline_seed.is_none().then_some(REREAD),
        lock_patience: mode.lock_patience,
        remove_expired: account.remove_expired,
        patient: mode.patient,
        fleet: account.fleet.as_ref().map(|fleet| FleetPolicy {
            role: fleet.role,
            host: machine::host(&settings.state_dir).into(),
            place: machine::place(&settings.state_dir),
        }),
    }
}
