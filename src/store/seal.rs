//! The seal on the secrets of a state: its refresh tokens and its ID token.
//!
//! HKDF-SHA256 (RFC 5869) makes one key for each seal from the state key and a random salt;
//! ChaCha20-Poly1305 (RFC 8439) seals. The seal is bound to the format, the account, the member of the
//! state and the fingerprint of the secret, so that no text from another place opens. Writing seals anew;
//! a secret that is not open is written as it was read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use zeroize::{Zeroize as _, Zeroizing};

use crate::refresh::record::{PLAIN_VERSION, Record, VERSION};
use crate::refresh::stored::StoredSecret;
use crate::secret::Secret;

/// The format, for the binding of a seal.
const FORMAT: &str = "zg-tokend state 2";

/// Bytes of salt: with 128 random bits no two seals have the same key.
const SALT_LEN: usize = 16;

/// The shortest state key: 32 bytes in base64. A passphrase would need a slow hash, and a person.
const KEY_CHARS: usize = 43;

/// A key from the config that seals or opens states.
#[derive(Clone)]
pub struct StateKey(Secret);

/// A text that is too easy to guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a key: it must have at least {KEY_CHARS} letters, digits and - _ + / =, as 32 random bytes in base64"
)]
pub struct NotAKey;

impl StateKey {
    pub fn new(text: Secret) -> Result<Self, NotAKey> {
        let is_key_char = |c: char| c.is_ascii_alphanumeric() || "-_+/=".contains(c);
        let is_long = text.expose().len() >= KEY_CHARS && text.expose().chars().all(is_key_char);
        // A line of dashes is long as well.
        let mut seen: Vec<char> = text.expose().chars().collect();
        seen.sort_unstable();
        seen.dedup();
        let is_varied = seen.len() >= 10;
        seen.zeroize();
        if is_long && is_varied { Ok(Self(text)) } else { Err(NotAKey) }
    }

    /// 32 bytes from the kernel.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes)?;
        Ok(Self(Secret::new(URL_SAFE_NO_PAD.encode(*bytes))))
    }

    /// The text, for the place where it is kept.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    fn cipher(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let prk = Salt::new(HKDF_SHA256, salt).extract(self.0.expose().as_bytes());
        let info = [FORMAT.as_bytes()];
        let okm = prk.expand(&info, &CHACHA20_POLY1305).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(okm)))
    }
}

impl std::fmt::Debug for StateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The keys at hand.
#[derive(Debug, Clone, Default)]
pub struct StateKeys {
    /// Seals, and opens.
    pub current: Option<StateKey>,
    /// Opens only. Alone, it has the state written in plain again.
    pub previous: Option<StateKey>,
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
            Self::NoKey => "set state_key in the config to the key that it was sealed with",
            Self::WrongKey => {
                "set state_key to the key that it was sealed with, or state_key_previous beside a new one; if that key is lost, remove the state file and log in again"
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
    for (_, secret) in secrets(record) {
        let Some(sealed) = secret.sealed().filter(|_| secret.open().is_none()) else { continue };
        let mut keys = [&keys.current, &keys.previous].into_iter().flatten();
        let plain = keys.find_map(|key| opened(key, &account, secret, sealed));
        if !plain.is_some_and(|plain| secret.set_open(plain)) {
            return Err(SealError::WrongKey);
        }
    }
    Ok(())
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

/// Whether anything in the record is sealed.
pub fn is_sealed(record: &Record) -> bool {
    record.version > PLAIN_VERSION
}

/// Everything that a seal is bound to.
fn binding(account: &str, member: &str, secret: &StoredSecret) -> String {
    format!("{FORMAT}\0{account}\0{member}\0{}", secret.fingerprint())
}

/// Base64 of salt, nonce and ciphertext.
fn sealed(key: &StateKey, account: &str, member: &str, secret: &StoredSecret) -> Result<String, SealError> {
    let plain = secret.open().ok_or(SealError::NoKey)?.expose().as_bytes();
    let mut random = [0; SALT_LEN + NONCE_LEN];
    getrandom::fill(&mut random).map_err(|_| SealError::Random)?;
    let (salt, nonce) = random.split_at(SALT_LEN);
    // Room for all of it: a vector that grows leaves an unwiped copy of the plain text behind.
    let mut text = Vec::with_capacity(plain.len() + CHACHA20_POLY1305.tag_len());
    text.extend_from_slice(plain);
    let done =
        key.cipher(salt).zip(Nonce::try_assume_unique_for_key(nonce).ok()).and_then(|(cipher, nonce)| {
            let aad = Aad::from(binding(account, member, secret));
            cipher.seal_in_place_append_tag(nonce, aad, &mut text).ok()
        });
    if done.is_none() {
        text.zeroize();
        return Err(SealError::NoKey);
    }
    Ok(URL_SAFE_NO_PAD.encode([&random[..], &text].concat()))
}

fn opened(key: &StateKey, account: &str, secret: &StoredSecret, sealed: &str) -> Option<Secret> {
    let mut bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(sealed).ok()?);
    let (salt, rest) = bytes.split_at_mut_checked(SALT_LEN)?;
    let (nonce, text) = rest.split_at_mut_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let aad = Aad::from(binding(account, secret.member(), secret));
    let plain = key.cipher(salt)?.open_in_place(nonce, aad, text).ok()?;
    Some(Secret::new(std::str::from_utf8(plain).ok()?))
}

#[cfg(test)]
mod tests;
