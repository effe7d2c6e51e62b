//! The types of single values, as serde reads them.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// One string or several. By hand, since `untagged` would lose the place of a wrong item.
#[derive(Clone)]
pub(super) struct OneOrMany(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;

        impl<'de> Visitor<'de> for ListVisitor {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E>(self, value: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![value.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany, A::Error> {
                std::iter::from_fn(|| seq.next_element().transpose()).collect::<Result<_, _>>().map(OneOrMany)
            }
        }

        deserializer.deserialize_any(ListVisitor)
    }
}

/// A user or group.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum NameOrNumber {
    Name(String),
    Number(i64),
}

/// A text, or a table in its place. By hand, as [`OneOrMany`].
#[derive(Clone)]
pub(super) enum TextOrTable<S, T> {
    Inline(S),
    Table(T),
}

impl<'de, S: From<String>, T: Deserialize<'de>> Deserialize<'de> for TextOrTable<S, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EitherVisitor<S, T>(PhantomData<(S, T)>);

        impl<'de, S: From<String>, T: Deserialize<'de>> Visitor<'de> for EitherVisitor<S, T> {
            type Value = TextOrTable<S, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a table")
            }

            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(TextOrTable::Inline(value.to_owned().into()))
            }

            fn visit_string<E>(self, value: String) -> Result<Self::Value, E> {
                Ok(TextOrTable::Inline(value.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(TextOrTable::Table)
            }
        }

        deserializer.deserialize_any(EitherVisitor(PhantomData))
    }
}
