//! Whether the state can be opened and sealed with the configured keys, and where they lie.

use std::path::Path;

use crate::account::plain_copy;
use crate::account::sealing::try_on_state;
use crate::check::finding::Finding;
use crate::check::inputs::secret;
use crate::cipher::StateKey;
use crate::config::{AccountConfig, SecretSource, Settings};
use crate::store;
use crate::store::seal::StateKeys;

/// The keys, which are the same for all accounts: read once.
#[derive(Default)]
pub(super) struct KnownKeys(Option<(StateKeys, bool)>);

pub(super) fn seal(settings: &Settings, account: &AccountConfig, known: &mut KnownKeys) -> Vec<Finding> {
    let mut findings = Vec::new();
    if known.0.is_none() {
        let mut is_complete = true;
        let mut read = |key: &'static str, source: &Option<SecretSource>| {
            let (value, finding) = secret(account, key, source.as_ref()?, false);
            findings.push(finding);
            findings.extend(source.as_ref().and_then(|source| place(settings, key, source)));
            is_complete &= value.is_some();
            let made = StateKey::new(value?);
            if let Err(error) = &made {
                let hint = "make one: `zg-tokend seal --help` shows how";
                findings.push(Finding::problem(key, error.to_string(), Some(hint.into())));
            }
            made.ok()
        };
        let current = read("state_key", &account.state_key);
        let previous = read("state_key_previous", &account.state_key_previous);
        known.0 = Some((StateKeys { current, previous, is_lost: false }, is_complete));
        if account.state_key.is_some() {
            findings.extend(store::plain_leftovers(settings).into_iter().map(|path| {
                let message = format!("{} may have an old refresh token in plain", path.display());
                Finding::warning("state", message, "remove it if nothing needs it")
            }));
        }
    }
    // Without the key, which perhaps only the service can read, nothing can be said of the state.
    if let Some((keys, true)) = &known.0
        && let Ok(Some(problem)) = try_on_state(settings, account, keys)
    {
        findings.push(Finding::of_problem("state", problem));
    }
    findings
}

/// A key file that a backup of what it seals has as well guards nothing there.
fn place(settings: &Settings, key: &'static str, source: &SecretSource) -> Option<Finding> {
    let SecretSource::File(path) = source else { return None };
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let key_file = real(path);
    let has_sealed_secrets = settings.accounts.iter().any(|account| plain_copy::has_sealed_secrets(account));
    let config = settings.path.parent().filter(|_| has_sealed_secrets);
    let config = config.map(|config| ("the sealed secrets are", config));
    let sealed = [("the state is", settings.state_dir.as_path())].into_iter().chain(config);
    let mut together = sealed.filter_map(|(what, sealed)| {
        let sealed = real(sealed);
        let together = key_file.ancestors().skip(1).find(|ancestor| sealed.starts_with(ancestor))?;
        together.parent().map(|_| (what, together.to_owned()))
    });
    let (what, together) = together.next()?;
    let message = format!(
        "the key file {} is below {}, as {what}: a backup of both opens it",
        path.display(),
        together.display()
    );
    let hint = "leave the key file out of the backup, or keep the key in a keyring or with systemd-creds";
    Some(Finding::warning(key, message, hint))
}

/// The copy of the config with its secrets in plain, if there is one.
pub(super) fn copy_of_config(settings: &Settings) -> Option<Finding> {
    let path = plain_copy::find(settings)?;
    let message = format!("{} has the secrets of the config in plain", path.display());
    let by_hand = format!("rm '{}'", path.display());
    let hint = if settings.accounts.iter().any(|account| plain_copy::has_sealed_secrets(account)) {
        format!(
            "a refresh of each account removes it: zg-tokend once --force; where zg-tokend may not: {by_hand}"
        )
    } else {
        format!("remove it: {by_hand}")
    };
    Some(Finding::warning("config", message, hint))
}
