//! A secret as the state holds it: in plain, or sealed.
//!
//! A sealed one shows its fingerprint without the key, which is enough to decide whether anything is due.
//! `store/seal.rs` seals and opens.

use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::secret::{Fingerprint, Secret};

/// A refresh token or an ID token. Two are equal if their plain texts are.
///
/// Boxed, since a record with three of them is passed around.
#[derive(Clone)]
pub struct StoredSecret(Box<Parts>);

#[derive(Clone)]
struct Parts {
    fingerprint: Fingerprint,
    plain: Option<Secret>,
    /// The sealed text of the state file.
    sealed: Option<Box<str>>,
    /// The member of the state that it was read from, to which the seal is bound.
    member: &'static str,
    /// It was read from a state where it is in plain.
    read_plain: bool,
}

impl StoredSecret {
    /// The value, unless it is still sealed.
    pub fn open(&self) -> Option<&Secret> {
        self.0.plain.as_ref()
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    /// The sealed text, if it was read from a sealed state or sealed since.
    pub fn sealed(&self) -> Option<&str> {
        self.0.sealed.as_deref()
    }

    /// The member of the state that it was read from; empty if it is new.
    pub fn member(&self) -> &'static str {
        self.0.member
    }

    pub fn set_member(&mut self, member: &'static str) {
        self.0.member = member;
    }

    /// Whether the state file has it in plain already.
    pub fn was_read_plain(&self) -> bool {
        self.0.read_plain
    }

    /// Takes the opened value. False if that is not the one that was sealed.
    #[must_use]
    pub fn set_open(&mut self, plain: Secret) -> bool {
        let is_right = plain.fingerprint() == self.0.fingerprint;
        self.0.plain = Some(plain).filter(|_| is_right);
        is_right
    }

    /// From now on it is written in this form; with `None` in plain, if it is open.
    pub fn set_sealed(&mut self, sealed: Option<String>) {
        self.0.sealed = sealed.map(String::into_boxed_str);
    }
}

impl From<Secret> for StoredSecret {
    fn from(plain: Secret) -> Self {
        Self(Box::new(Parts {
            fingerprint: plain.fingerprint(),
            plain: Some(plain),
            sealed: None,
            member: "",
            read_plain: false,
        }))
    }
}

impl PartialEq for StoredSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.fingerprint == other.0.fingerprint
    }
}

impl Eq for StoredSecret {}

impl PartialEq<Secret> for StoredSecret {
    fn eq(&self, other: &Secret) -> bool {
        self.0.fingerprint == other.fingerprint()
    }
}

impl fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for StoredSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (&self.0.sealed, &self.0.plain) {
            (Some(sealed), _) => {
                let mut members = serializer.serialize_struct("StoredSecret", 2)?;
                members.serialize_field("sealed", sealed)?;
                members.serialize_field("sha256", &self.0.fingerprint)?;
                members.end()
            }
            (None, Some(plain)) => serializer.serialize_str(plain.expose()),
            (None, None) => Err(serde::ser::Error::custom("a secret is neither open nor sealed")),
        }
    }
}

impl<'de> Deserialize<'de> for StoredSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PlainOrSealed;

        impl<'de> Visitor<'de> for PlainOrSealed {
            type Value = StoredSecret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret, plain or sealed")
            }

            fn visit_str<E: Error>(self, plain: &str) -> Result<StoredSecret, E> {
                let mut secret = StoredSecret::from(Secret::new(plain));
                secret.0.read_plain = true;
                Ok(secret)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StoredSecret, A::Error> {
                let (mut sealed, mut fingerprint) = (None, None);
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "sealed" => sealed = Some(map.next_value::<String>()?.into_boxed_str()),
                        "sha256" => fingerprint = Some(map.next_value()?),
                        _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
                    }
                }
                Ok(StoredSecret(Box::new(Parts {
                    fingerprint: fingerprint.ok_or_else(|| A::Error::missing_field("sha256"))?,
                    plain: None,
                    sealed: Some(sealed.ok_or_else(|| A::Error::missing_field("sealed"))?),
                    member: "",
                    read_plain: false,
                })))
            }
        }

        deserializer.deserialize_any(PlainOrSealed)
    }
}
