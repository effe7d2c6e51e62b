//! The keys of an account's state, read when a refresh or a login needs them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::cipher::StateKey;
use crate::config::{AccountConfig, SecretSource, Settings, TokenFormat};
use crate::problem::{Class, Problem};
use crate::refresh::record::{AccessToken, STATE_KEY, STATE_KEY_UNREAD};
use crate::refresh::stored::StoredSecret;
use crate::secret::Secret;
use crate::secrets;
use crate::secrets::SecretError;
use crate::store;
use crate::store::document::Stored;
use crate::store::seal;
use crate::store::seal::{SealError, SealRules, StateKeys};
use crate::store::state::StateError;
use crate::workers;

/// How long the keys may take: two commands, or a file system that is slow.
const FILE_TIME: Duration = Duration::from_secs(25);

/// How the states of an account are written.
pub fn rules(account: &AccountConfig) -> SealRules {
    SealRules {
        seals: account.state_key.is_some(),
        plain_id_token: account.formats().any(TokenFormat::needs_id_token),
    }
}

/// The use of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// The login in the state is used.
    Open,
    /// A new login replaces it, so that the key of the old one may be lost.
    Replace,
}

/// Reads the keys that the config names, on another thread: a file or a command may hang. If nobody else
/// waits (`inline`), only a key file is read there.
pub async fn read_keys(
    settings: &Arc<Settings>,
    account: &Arc<AccountConfig>,
    key_use: KeyUse,
    inline: bool,
) -> Result<Option<Arc<StateKeys>>, Problem> {
    let sources = [("state_key", &account.state_key), ("state_key_previous", &account.state_key_previous)];
    let file = sources.into_iter().find_map(|(key, source)| match source {
        Some(SecretSource::File(path)) => Some((key, path.clone())),
        _ => None,
    });
    let has_none = sources.iter().all(|(_, source)| source.is_none());
    let (settings, account) = (Arc::clone(settings), Arc::clone(account));
    let work = move || read_keys_here(&settings, &account, key_use);
    let Some((key, path)) = file else {
        return match () {
            () if inline => work(),
            // Only the state is read. The many threads for programs would be made for nothing.
            () if has_none => workers::run(work).await,
            () => workers::run_program(work).await,
        };
    };
    let read = workers::run_within(&path, FILE_TIME, work).await;
    read.unwrap_or_else(|| {
        Err(Problem { kind: STATE_KEY_UNREAD.into(), ..SecretError::Hang { key, path }.into() })
    })
}

/// Reads the keys that the config names; `None` if none is needed. They are tried on the state, so that a
/// wrong one is known before anything is locked or sent. The previous key is read only if the state asks
/// for it.
pub fn read_keys_here(
    settings: &Settings,
    account: &AccountConfig,
    key_use: KeyUse,
) -> Result<Option<Arc<StateKeys>>, Problem> {
    let mut keys = StateKeys { current: read_state_key(account)?, ..StateKeys::default() };
    // A state that cannot be read is no fault of the keys: what loads it next reports it.
    let try_on = |keys: &StateKeys| try_on_state(settings, account, keys).unwrap_or_default();
    let mut fault = try_on(&keys);
    if fault.is_some() && account.state_key_previous.is_some() {
        keys.previous = read_key("state_key_previous", account.state_key_previous.as_ref(), account)?;
        fault = try_on(&keys);
    }
    if fault.is_some() && key_use == KeyUse::Replace && keys.current.is_some() {
        keys.is_lost = true;
        fault = None;
    }
    let has_keys = keys.current.is_some() || keys.previous.is_some();
    fault.map_or_else(|| Ok(has_keys.then(|| Arc::new(keys))), Err)
}

/// The state_key of the config, if it has one.
pub fn read_state_key(account: &AccountConfig) -> Result<Option<StateKey>, Problem> {
    read_key("state_key", account.state_key.as_ref(), account)
}

fn read_key(
    name: &'static str,
    source: Option<&SecretSource>,
    account: &AccountConfig,
) -> Result<Option<StateKey>, Problem> {
    let read = |source| key(name, source, secrets::read(name, source, &account.secret_variables));
    source.map(read).transpose()
}

/// The warning after a new login whose predecessor could not be opened. `copy` keeps that, if it could be
/// written: the new login is worth more than one that nothing opens.
pub fn lost_login(copy: Option<&Path>) -> (String, String) {
    let before = "the login before was sealed with another key: it was not revoked";
    match copy {
        Some(copy) => (
            format!("{before}, and {} keeps it", copy.display()),
            "revoke it on the provider's page, and remove that file when nobody needs it".into(),
        ),
        None => {
            (format!("{before}, and no copy of it could be kept"), "revoke it on the provider's page".into())
        }
    }
}

/// Opens the ID token, which `token` prints.
pub fn open_id_token(
    settings: &Settings,
    account: &AccountConfig,
    token: &mut AccessToken,
) -> Result<(), Problem> {
    if token.id_token.as_ref().is_none_or(|id_token| id_token.open().is_some()) {
        return Ok(());
    }
    let keys = read_keys_here(settings, account, KeyUse::Open)?.unwrap_or_default();
    let mut store = store::open(settings, account);
    store.set_keys(Some(keys), rules(account));
    if let Stored::Record(record) = store.load()? {
        let stored = record.access_token.filter(|stored| stored.value == token.value);
        token.id_token = stored.and_then(|stored| stored.id_token).or(token.id_token.take());
    }
    Ok(())
}

/// Why these keys do not open the state; `None` if they do.
pub fn try_on_state(
    settings: &Settings,
    account: &AccountConfig,
    keys: &StateKeys,
) -> Result<Option<Problem>, Problem> {
    let Stored::Record(mut record) = store::open(settings, account).load()? else { return Ok(None) };
    let Err(mut source) = seal::open(&mut record, keys) else { return Ok(None) };
    if account.state_key.is_none() && account.state_key_previous.is_none() {
        source = SealError::NoKey;
    }
    let error = StateError::Seal { account: account.name.to_string(), source };
    Ok(Some(Problem { kind: STATE_KEY.into(), ..error.into() }))
}

fn key(name: &str, source: &SecretSource, read: Result<Secret, SecretError>) -> Result<StateKey, Problem> {
    let read = read.map_err(|error| Problem { kind: STATE_KEY_UNREAD.into(), ..error.into() })?;
    StateKey::new(read).map_err(|error| {
        Problem::of(Class::Config, STATE_KEY, format!("{name} from {source} {error}"))
            .hint("make one: `zg-tokend seal --help` shows how")
    })
}

/// The open value, or a problem that says that it is not.
pub fn open(secret: &StoredSecret) -> Result<&Secret, Problem> {
    secret.open().ok_or_else(|| Problem::bug("a refresh token is still sealed"))
}
