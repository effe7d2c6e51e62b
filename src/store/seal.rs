//! The seal on the secrets of a state: its refresh tokens and its ID token.
//!
//! A seal (`cipher.rs`) is bound to the format, the account, the member of the state and the fingerprint of
//! the secret. Writing seals anew; a secret that is not open is written as it was read.

use crate::cipher::{NoRandom, StateKey};
use crate::refresh::record::{PLAIN_VERSION, Record, VERSION};
use crate::refresh::stored::StoredSecret;
use crate::secret::Secret;

/// The format, for the binding of a seal.
const FORMAT: &str = "zg-tokend state 2";

/// The keys at hand.
#[derive(Debug, Clone, Default)]
pub struct StateKeys {
    /// Seals, and opens.
    pub current: Option<StateKey>,
    /// Opens only. Alone, it has the state written in plain again.
    pub previous: Option<StateKey>,
    /// The key of the state is lost, and a new login replaces what it sealed: that is left out.
    pub is_lost: bool,
}

/// How a store writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SealRules {
    /// The config has a state_key: a new secret is not written in plain.
    pub seals: bool,
    /// A file in plain has the ID token as well.
    pub plain_id_token: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Nothing that is sealed is written in plain, and nothing new either.
    #[error("is sealed, and the key is not at hand")]
    NoKey,
    #[error("is sealed with another key")]
    WrongKey,
    #[error("cannot be sealed: the kernel gives no random bytes")]
    Random,
}

impl SealError {
    pub fn hint(self) -> &'static str {
        match self {
            Self::NoKey => {
                "set state_key in the config to the key that it was sealed with; if that is lost, make another one with `zg-tokend seal --with`, and log in again"
            }
            Self::WrongKey => {
                "set state_key to the key that it was sealed with, or state_key_previous beside a new one; if that key is lost, log in again with `zg-tokend login` or `set`"
            }
            Self::Random => "allow getrandom(2) in the sandbox",
        }
    }
}

/// The secrets of a record, each with the name of its place.
pub fn secrets(record: &mut Record) -> impl Iterator<Item = (&'static str, &mut StoredSecret)> {
    let refresh_token = record.refresh_token.as_mut().map(|token| ("refresh_token", &mut token.value));
    let previous = record.previous.as_mut().map(|token| ("previous", &mut token.value));
    let others = record.tokens.values_mut().map(|part| &mut part.access_token);
    let tokens = others.chain([&mut record.access_token]).flatten();
    let id_tokens = tokens.filter_map(|token| Some((ID_TOKEN, token.id_token.as_mut()?)));
    [refresh_token, previous].into_iter().flatten().chain(id_tokens)
}

const ID_TOKEN: &str = "id_token";

/// Notes where each secret of a record was read: its seal is bound to that.
pub fn note_places(record: &mut Record) {
    secrets(record).for_each(|(member, secret)| secret.set_member(member));
}

/// Opens what is sealed in a record that was just read.
pub fn open(record: &mut Record, keys: &StateKeys) -> Result<(), SealError> {
    let account = record.account.clone();
    let is_lost = keys.is_lost;
    for (_, secret) in secrets(record) {
        let Some(sealed) = secret.sealed().filter(|_| secret.open().is_none()) else { continue };
        let mut keys = [&keys.current, &keys.previous].into_iter().flatten();
        let plain = keys.find_map(|key| opened(key, &account, secret, sealed));
        if !plain.is_some_and(|plain| secret.set_open(plain)) && !is_lost {
            return Err(SealError::WrongKey);
        }
    }
    if is_lost {
        leave_out_closed(record);
    }
    Ok(())
}

fn leave_out_closed(record: &mut Record) {
    let is_closed = |secret: &StoredSecret| secret.open().is_none();
    record.refresh_token.take_if(|token| is_closed(&token.value));
    record.previous.take_if(|token| is_closed(&token.value));
    let others = record.tokens.values_mut().map(|part| &mut part.access_token);
    for token in others.chain([&mut record.access_token]).flatten() {
        token.id_token.take_if(|id_token| is_closed(id_token));
    }
}

/// Seals the secrets of a record that is about to be written, or lays them open, and sets its version.
pub fn close(record: &mut Record, keys: Option<&StateKeys>, rules: SealRules) -> Result<(), SealError> {
    let account = record.account.clone();
    let current = keys.and_then(|keys| keys.current.as_ref());
    let has_closed = secrets(record).any(|(_, secret)| secret.open().is_none());
    let mut sealed_any = false;
    for (member, secret) in secrets(record) {
        let stays_plain = member == ID_TOKEN && rules.plain_id_token;
        match (secret.open().is_some(), current) {
            (false, _) if secret.member() == member => {}
            (false, _) => return Err(SealError::NoKey),
            (true, _) if stays_plain => secret.set_sealed(None),
            (true, Some(key)) => {
                let sealed = sealed(key, &account, member, secret)?;
                secret.set_sealed(Some(sealed));
            }
            // The state has been plain all along, and the key cannot be read at present.
            (true, None) if rules.seals && secret.was_read_plain() => {}
            (true, None) if rules.seals || has_closed => return Err(SealError::NoKey),
            (true, None) => secret.set_sealed(None),
        }
        sealed_any |= secret.sealed().is_some();
    }
    record.version = if sealed_any { VERSION } else { PLAIN_VERSION };
    Ok(())
}

/// Whether a record that was read without keys needs none.
pub fn is_open(record: &Record) -> bool {
    let refresh_tokens = [&record.refresh_token, &record.previous].into_iter().flatten();
    let others = record.tokens.values().map(|part| &part.access_token);
    let tokens = others.chain([&record.access_token]).flatten();
    let id_tokens = tokens.filter_map(|token| token.id_token.as_ref());
    refresh_tokens.map(|token| &token.value).chain(id_tokens).all(|secret| secret.open().is_some())
}

/// Whether anything in the record is sealed.
pub fn is_sealed(record: &Record) -> bool {
    record.version > PLAIN_VERSION
}

/// Everything that a seal is bound to.
fn binding(account: &str, member: &str, secret: &StoredSecret) -> String {
    format!("{FORMAT}\0{account}\0{member}\0{}", secret.fingerprint())
}

fn sealed(key: &StateKey, account: &str, member: &str, secret: &StoredSecret) -> Result<String, SealError> {
    let plain = secret.open().ok_or(SealError::NoKey)?.expose().as_bytes();
    key.seal(FORMAT, &binding(account, member, secret), plain).map_err(|NoRandom| SealError::Random)
}

fn opened(key: &StateKey, account: &str, secret: &StoredSecret, sealed: &str) -> Option<Secret> {
    let plain = key.open(FORMAT, &binding(account, secret.member(), secret), sealed)?;
    Some(Secret::new(std::str::from_utf8(&plain).ok()?))
}

#[cfg(test)]
mod tests;
