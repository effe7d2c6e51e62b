//! The config file as serde sees it: every value with its place in the text, none judged yet.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::de::{DeTable, Error, ValueDeserializer};

use crate::secret::Secret;

/// The whole file: global keys, the keys of the flat account or the defaults of all accounts,
/// and the accounts.
pub(super) struct RawFile {
    pub(super) global: RawGlobal,
    pub(super) top: RawAccount,
    /// In file order; `None` if the file is flat.
    pub(super) accounts: Option<Vec<(Spanned<String>, Box<RawAccount>)>>,
}

impl RawFile {
    /// Takes the table apart by hand: `serde(flatten)` would lose the spans.
    pub(super) fn from_table(mut table: Spanned<DeTable<'_>>) -> Result<Self, Error> {
        let accounts = table
            .get_mut()
            .remove("accounts")
            .map(|value| {
                BTreeMap::<Spanned<String>, Box<RawAccount>>::deserialize(ValueDeserializer::from(value))
            })
            .transpose()?;
        let mut global = DeTable::new();
        if let Some((key, value)) = table.get_mut().remove_entry("state_dir") {
            global.insert(key, value);
        }
        let global = Spanned::new(table.span(), global);
        Ok(Self {
            global: RawGlobal::deserialize(toml::Deserializer::from(global))?,
            top: RawAccount::deserialize(toml::Deserializer::from(table))?,
            accounts: accounts.map(|accounts| {
                let mut accounts: Vec<_> = accounts.into_iter().collect();
                accounts.sort_by_key(|(name, _)| name.span().start);
                accounts
            }),
        })
    }
}

/// Keys that hold for the whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGlobal {
    pub(super) state_dir: Option<Spanned<String>>,
}

/// Keys of one account, or the defaults of all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAccount {
    pub(super) provider: Option<Spanned<String>>,
    pub(super) issuer: Option<Spanned<String>>,
    pub(super) token_endpoint: Option<Spanned<String>>,
    pub(super) confirmed_endpoint_host: Option<Spanned<String>>,
    pub(super) client_id: Option<Spanned<String>>,
    pub(super) client_secret: Option<Spanned<RawSecret>>,
    pub(super) token_endpoint_auth_method: Option<Spanned<String>>,
    pub(super) refresh_token: Option<Spanned<RawSecret>>,
    pub(super) scope: Option<Spanned<String>>,
    pub(super) audience: Option<Spanned<String>>,
    pub(super) resource: Option<Spanned<OneOrMany>>,
    pub(super) extra_params: Option<BTreeMap<Spanned<String>, Spanned<String>>>,
    pub(super) skew: Option<Spanned<String>>,
    pub(super) default_lifetime: Option<Spanned<String>>,
    pub(super) timeout: Option<Spanned<String>>,
    pub(super) ca_file: Option<Spanned<String>>,
    pub(super) allow_http: Option<bool>,
    pub(super) token_file: Option<Spanned<String>>,
    pub(super) token_file_mode: Option<Spanned<String>>,
    pub(super) token_file_owner: Option<Spanned<NameOrNumber>>,
    pub(super) token_file_group: Option<Spanned<NameOrNumber>>,
    pub(super) token_format: Option<Spanned<String>>,
    pub(super) write: Option<Spanned<String>>,
    pub(super) on_expired: Option<Spanned<String>>,
    pub(super) token_file_info: Option<bool>,
    pub(super) push: Option<Vec<RawPush>>,
    pub(super) probe: Option<RawProbe>,
    pub(super) on_refresh: Option<Spanned<Vec<String>>>,
    pub(super) on_failure: Option<Spanned<Vec<String>>>,
    pub(super) on_recovery: Option<Spanned<Vec<String>>>,
    pub(super) on_needs_login: Option<Spanned<Vec<String>>>,
}

impl RawAccount {
    /// These keys, and `defaults` where there are none.
    ///
    /// Two groups are inherited whole or not at all: an account that says where its endpoint
    /// is must not send its secrets to the default one, and a client secret belongs to the
    /// client_id beside it. A refresh token and a token file are never inherited.
    pub(super) fn or(self, defaults: &Self) -> Self {
        let own_endpoint = self.provider.is_some() || self.issuer.is_some() || self.token_endpoint.is_some();
        let endpoint = (!own_endpoint).then_some(defaults);
        let client = self.client_id.is_none().then_some(defaults);
        Self {
            provider: self.provider.or_else(|| endpoint?.provider.clone()),
            issuer: self.issuer.or_else(|| endpoint?.issuer.clone()),
            token_endpoint: self.token_endpoint.or_else(|| endpoint?.token_endpoint.clone()),
            confirmed_endpoint_host: self
                .confirmed_endpoint_host
                .or_else(|| endpoint?.confirmed_endpoint_host.clone()),
            client_id: self.client_id.or_else(|| client?.client_id.clone()),
            client_secret: self.client_secret.or_else(|| client?.client_secret.clone()),
            refresh_token: self.refresh_token,
            token_file: self.token_file,
            token_endpoint_auth_method: self
                .token_endpoint_auth_method
                .or_else(|| defaults.token_endpoint_auth_method.clone()),
            scope: self.scope.or_else(|| defaults.scope.clone()),
            audience: self.audience.or_else(|| defaults.audience.clone()),
            resource: self.resource.or_else(|| defaults.resource.clone()),
            extra_params: self.extra_params.or_else(|| defaults.extra_params.clone()),
            skew: self.skew.or_else(|| defaults.skew.clone()),
            default_lifetime: self.default_lifetime.or_else(|| defaults.default_lifetime.clone()),
            timeout: self.timeout.or_else(|| defaults.timeout.clone()),
            ca_file: self.ca_file.or_else(|| defaults.ca_file.clone()),
            allow_http: self.allow_http.or(defaults.allow_http),
            token_file_mode: self.token_file_mode.or_else(|| defaults.token_file_mode.clone()),
            token_file_owner: self.token_file_owner.or_else(|| defaults.token_file_owner.clone()),
            token_file_group: self.token_file_group.or_else(|| defaults.token_file_group.clone()),
            token_format: self.token_format.or_else(|| defaults.token_format.clone()),
            write: self.write.or_else(|| defaults.write.clone()),
            on_expired: self.on_expired.or_else(|| defaults.on_expired.clone()),
            token_file_info: self.token_file_info.or(defaults.token_file_info),
            push: self.push,
            probe: self.probe,
            on_refresh: self.on_refresh.or_else(|| defaults.on_refresh.clone()),
            on_failure: self.on_failure.or_else(|| defaults.on_failure.clone()),
            on_recovery: self.on_recovery.or_else(|| defaults.on_recovery.clone()),
            on_needs_login: self.on_needs_login.or_else(|| defaults.on_needs_login.clone()),
        }
    }
}

/// One target of `push`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPush {
    pub(super) url: Spanned<String>,
    pub(super) body: Option<Spanned<String>>,
    pub(super) headers: Option<BTreeMap<Spanned<String>, Spanned<String>>>,
    pub(super) api_key: Option<Spanned<RawSecret>>,
}

/// What `probe` asks.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProbe {
    pub(super) url: Spanned<String>,
    pub(super) every: Option<Spanned<String>>,
}

/// A secret: the value itself, or a table that says where it is.
#[derive(Clone)]
pub(super) enum RawSecret {
    Inline(Secret),
    Table(RawForms),
}

/// The table that says where a secret is: exactly one key, which is checked later.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawForms {
    pub(super) file: Option<Spanned<String>>,
    pub(super) env: Option<Spanned<String>>,
    pub(super) command: Option<Spanned<Vec<String>>>,
    pub(super) credential: Option<Spanned<String>>,
}

impl<'de> Deserialize<'de> for RawSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SecretVisitor;

        impl<'de> Visitor<'de> for SecretVisitor {
            type Value = RawSecret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a table")
            }

            fn visit_str<E>(self, value: &str) -> Result<RawSecret, E> {
                Ok(RawSecret::Inline(Secret::new(value)))
            }

            fn visit_string<E>(self, value: String) -> Result<RawSecret, E> {
                Ok(RawSecret::Inline(Secret::new(value)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawSecret, A::Error> {
                RawForms::deserialize(MapAccessDeserializer::new(map)).map(RawSecret::Table)
            }
        }

        deserializer.deserialize_any(SecretVisitor)
    }
}

/// One string or several.
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
                let mut values = Vec::new();
                while let Some(value) = seq.next_element()? {
                    values.push(value);
                }
                Ok(OneOrMany(values))
            }
        }

        deserializer.deserialize_any(ListVisitor)
    }
}

/// A user or group as it stands in the file.
#[derive(Clone)]
pub(super) enum NameOrNumber {
    Name(String),
    Number(i64),
}

impl<'de> Deserialize<'de> for NameOrNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PrincipalVisitor;

        impl Visitor<'_> for PrincipalVisitor {
            type Value = NameOrNumber;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a number")
            }

            fn visit_str<E>(self, value: &str) -> Result<NameOrNumber, E> {
                Ok(NameOrNumber::Name(value.to_owned()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<NameOrNumber, E> {
                Ok(NameOrNumber::Number(value))
            }
        }

        deserializer.deserialize_any(PrincipalVisitor)
    }
}

#[cfg(test)]
pub(super) mod fields {
    //! Asks a derived `Deserialize` which fields it knows.

    use serde::de::value::Error;
    use serde::de::{Deserialize, Error as _, Visitor};

    struct Ask<'a>(&'a mut &'static [&'static str]);

    impl<'de> serde::Deserializer<'de> for Ask<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            *self.0 = fields;
            Err(Error::custom("only asked"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    pub(in crate::config) fn of<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
        let mut fields: &'static [&'static str] = &[];
        let _ = T::deserialize(Ask(&mut fields));
        fields
    }
}
