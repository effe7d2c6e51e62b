//! Seals short texts with a key of the user's.
//!
//! HKDF-SHA256 (RFC 5869) makes one key for each seal from the user's key and a random salt;
//! ChaCha20-Poly1305 (RFC 8439) seals. A seal opens only with the format and the binding that it was made
//! with, so that no seal from another place opens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use zeroize::{Zeroize as _, Zeroizing};

use crate::secret::Secret;

/// Bytes of salt: with 128 random bits no two seals have the same key.
const SALT_LEN: usize = 16;

/// The shortest state key: 32 bytes in base64. A passphrase would need a slow hash, and a person.
const KEY_CHARS: usize = 43;

/// A key from the config that seals and opens.
#[derive(Clone)]
pub struct StateKey(Secret);

/// A text that is too easy to guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a key: it must have at least {KEY_CHARS} letters, digits and - _ + / =, as 32 random bytes in base64"
)]
pub struct NotAKey;

/// The kernel gives no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRandom;

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
    pub fn random() -> Result<Self, NoRandom> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).map_err(|_| NoRandom)?;
        Ok(Self(Secret::new(URL_SAFE_NO_PAD.encode(*bytes))))
    }

    /// The text, for the place where it is kept.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Base64 of salt, nonce and ciphertext.
    pub fn seal(&self, format: &str, binding: &str, plain: &[u8]) -> Result<String, NoRandom> {
        let mut random = [0; SALT_LEN + NONCE_LEN];
        getrandom::fill(&mut random).map_err(|_| NoRandom)?;
        let (salt, nonce) = random.split_at(SALT_LEN);
        // Room for all of it: a vector that grows leaves an unwiped copy of the plain text behind.
        let mut text = Vec::with_capacity(plain.len() + CHACHA20_POLY1305.tag_len());
        text.extend_from_slice(plain);
        let cipher = self.cipher(salt, format).zip(Nonce::try_assume_unique_for_key(nonce).ok());
        let done = cipher.and_then(|(cipher, nonce)| {
            cipher.seal_in_place_append_tag(nonce, Aad::from(binding), &mut text).ok()
        });
        if done.is_none() {
            text.zeroize();
            return Err(NoRandom);
        }
        Ok(URL_SAFE_NO_PAD.encode([&random[..], &text].concat()))
    }

    /// The plain text of what [`StateKey::seal`] has made; `None` if anything differs.
    pub fn open(&self, format: &str, binding: &str, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(sealed).ok()?);
        let (salt, rest) = bytes.split_at_mut_checked(SALT_LEN)?;
        let (nonce, text) = rest.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.cipher(salt, format)?.open_in_place(nonce, Aad::from(binding), text).ok()?;
        Some(Zeroizing::new(plain.to_vec()))
    }

    fn cipher(&self, salt: &[u8], format: &str) -> Option<LessSafeKey> {
        let prk = Salt::new(HKDF_SHA256, salt).extract(self.0.expose().as_bytes());
        let info = [format.as_bytes()];
        let okm = prk.expand(&info, &CHACHA20_POLY1305).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(okm)))
    }
}

impl std::fmt::Debug for StateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}
