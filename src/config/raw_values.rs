//! The types of single values, as serde reads them.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
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
