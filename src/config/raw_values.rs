//! The types of single values, as serde reads them.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, Range};

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

/// A value and its place. In a box, since few of the many keys of an account have a value: else each
/// function that moves the keys takes four kilobytes of stack, and a short command spends most of its time
/// on the first use of pages.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(super) struct Value<T>(Box<Spanned<T>>);

impl<T> Value<T> {
    pub(super) fn new(place: Range<usize>, value: T) -> Self {
        Self(Box::new(Spanned::new(place, value)))
    }

    pub(super) fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T> Deref for Value<T> {
    type Target = Spanned<T>;

    fn deref(&self) -> &Spanned<T> {
        &self.0
    }
}

impl<T> From<Value<T>> for Spanned<T> {
    fn from(value: Value<T>) -> Self {
        *value.0
    }
}

/// A user or group.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum NameOrNumber {
    Name(String),
    Number(i64),
}

/// A text, or a table or a list in its place. By hand, since `untagged` would lose the place of a wrong item.
#[derive(Clone)]
pub(super) enum TextOr<S, T> {
    Text(S),
    Other(T),
}

/// One string or several.
pub(super) type OneOrMany = TextOr<String, Vec<String>>;

impl<'de, S: From<String>, T: Deserialize<'de>> Deserialize<'de> for TextOr<S, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EitherVisitor<S, T>(PhantomData<(S, T)>);

        impl<'de, S: From<String>, T: Deserialize<'de>> Visitor<'de> for EitherVisitor<S, T> {
            type Value = TextOr<S, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a table or an array")
            }

            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(TextOr::Text(value.to_owned().into()))
            }

            fn visit_string<E>(self, value: String) -> Result<Self::Value, E> {
                Ok(TextOr::Text(value.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(TextOr::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                T::deserialize(SeqAccessDeserializer::new(seq)).map(TextOr::Other)
            }
        }

        deserializer.deserialize_any(EitherVisitor(PhantomData))
    }
}
