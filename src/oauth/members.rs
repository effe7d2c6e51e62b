//! The members of a token endpoint's JSON that matter here, RFC 6749 sections 5.1 and 5.2.
//!
//! Read by a visitor rather than into a `serde_json::Value`: tokens go straight into
//! [`Secret`]s, and members nobody asked for are skipped without being built, however deep.
//! Of duplicate keys the last wins, as in most parsers.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::secret::Secret;

/// One member's value. A text may be a token, hence [`Secret`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Member {
    Text(Secret),
    Number(f64),
    Null,
    /// A boolean, an array or an object.
    Other,
    /// An object with a `code`: how some servers write `error`, against the RFC.
    Coded {
        code: Secret,
        message: Option<Secret>,
    },
}

impl Member {
    pub(super) fn text(&self) -> Option<&Secret> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// The members of a reply; `None` for one that is not there.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) access_token: Option<Member>,
    pub(super) token_type: Option<Member>,
    pub(super) expires_in: Option<Member>,
    pub(super) refresh_token: Option<Member>,
    pub(super) scope: Option<Member>,
    pub(super) error: Option<Member>,
    pub(super) error_description: Option<Member>,
    pub(super) error_uri: Option<Member>,
}

impl Members {
    /// The members, if the body is one JSON object and nothing else. A byte order mark before
    /// it is skipped, as RFC 8259 section 8.1 permits.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(without_mark(body)).ok()
    }
}

/// The top-level refresh_token of a body that is not whole: of an object that breaks off or
/// goes wrong after it, or that holds a string or number elsewhere that cannot be read.
pub(super) fn salvage_refresh_token(body: &[u8]) -> Option<Secret> {
    /// Collects from an object until something goes wrong.
    struct Salvage<'a>(&'a mut Option<Member>);

    impl<'de> Visitor<'de> for Salvage<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<String>()? {
                if key == "refresh_token" {
                    *self.0 = Some(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(())
        }
    }

    let mut found = None;
    let mut json = serde_json::Deserializer::from_slice(without_mark(body));
    // That it fails is known; what it found before is what counts.
    let _ = json.deserialize_map(Salvage(&mut found));
    found.and_then(|member| member.text().cloned())
}

fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopLevel;

        impl<'de> Visitor<'de> for TopLevel {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Members::default();
                while let Some(key) = map.next_key::<String>()? {
                    let member = match key.as_str() {
                        "access_token" => &mut members.access_token,
                        "token_type" => &mut members.token_type,
                        "expires_in" => &mut members.expires_in,
                        "refresh_token" => &mut members.refresh_token,
                        "scope" => &mut members.scope,
                        "error" => &mut members.error,
                        "error_description" => &mut members.error_description,
                        "error_uri" => &mut members.error_uri,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *member = Some(map.next_value()?);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(TopLevel)
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;

        impl<'de> Visitor<'de> for Value {
            type Value = Member;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_str<E>(self, text: &str) -> Result<Member, E> {
                Ok(Member::Text(Secret::new(text)))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Member, E> {
                Ok(Member::Number(number as f64))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Member, E> {
                Ok(Member::Number(number as f64))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Member, E> {
                Ok(Member::Number(number))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Member, E> {
                Ok(Member::Other)
            }

            fn visit_unit<E>(self) -> Result<Member, E> {
                Ok(Member::Null)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Member, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Member::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Member, A::Error> {
                let (mut code, mut message) = (None, None);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        // serde_json's limit on depth bounds this recursion.
                        "code" => code = map.next_value::<Member>()?.text().cloned(),
                        "message" => message = map.next_value::<Member>()?.text().cloned(),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(code.map_or(Member::Other, |code| Member::Coded { code, message }))
            }
        }

        deserializer.deserialize_any(Value)
    }
}
