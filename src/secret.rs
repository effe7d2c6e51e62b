//! Values that must never be shown, and their fingerprints, which may be.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

/// A string that no log, error or status may ever contain: a token, a client secret.
///
/// `Debug` prints `[redacted]`, there is no `Display`, and serde sees it only through
/// `stored`, which the state file alone uses. The memory is wiped on drop.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for a request or a file.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True for the empty string.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The SHA-256 of the value, which may be kept and compared where the value may not.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of([self.0.as_bytes()])
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Serde for a [`Secret`] in the state file, and nowhere else: `#[serde(with = "secret::stored")]`.
pub mod stored {
    use crate::secret::Secret;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the value in the clear: the state file is 0600 in a 0700 directory.
    pub fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

/// A SHA-256, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of several fields. One field is hashed as it is, so that
    /// `printf %s TOKEN | sha256sum` gives the same digits; of several, each is preceded by
    /// its length, so that no two different lists run together.
    pub fn of<const N: usize>(fields: [&[u8]; N]) -> Self {
        match &fields[..] {
            [one] => Self(Sha256::digest(one).into()),
            _ => Self::of_all(fields.into_iter()),
        }
    }

    /// The one with these bytes, if they are 32.
    #[cfg(feature = "fleet")]
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its 32 bytes.
    #[cfg(feature = "fleet")]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same of a list of any length.
    pub fn of_all<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        for field in fields {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        Self(hash.finalize().into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not byte by byte through the formatter: a state has a dozen of them.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(2 * self.0.len());
        for digit in self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
            text.push(char::from(DIGITS[usize::from(digit)]));
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a SHA-256 is 64 hexadecimal digits")]
pub struct NotAFingerprint;

impl std::str::FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return Err(NotAFingerprint);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(NotAFingerprint);
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hex;

        impl serde::de::Visitor<'_> for Hex {
            type Value = Fingerprint;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a fingerprint")
            }

            // A state has many of them: no copy of the text for each.
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Fingerprint, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Hex)
    }
}

#[cfg(test)]
mod tests {
    use crate::secret::*;

    #[test]
    fn debug_redacts() {
        let secret = Secret::new("ya29.very-secret");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "[redacted] Some([redacted])");
    }

    #[test]
    fn one_field_is_plain_sha256() {
        assert_eq!(
            Secret::new("abc").fingerprint().to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn fields_do_not_run_together() {
        assert_ne!(Fingerprint::of([b"ab", b"c"]), Fingerprint::of([b"a", b"bc"]));
    }

    #[test]
    fn fingerprints_survive_text() {
        let fingerprint = Secret::new("abc").fingerprint();
        assert_eq!(fingerprint.to_string().parse::<Fingerprint>().unwrap(), fingerprint);
        assert!("zz".repeat(32).parse::<Fingerprint>().is_err());
        assert!("abc".parse::<Fingerprint>().is_err());
    }
}
