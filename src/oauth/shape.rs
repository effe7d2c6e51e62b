//! The parts of a request beside RFC 6749: headers, secret parameters, a body of another form.

use std::collections::BTreeSet;

use form_urlencoded::{Serializer, byte_serialize};
use url::Url;
use zeroize::Zeroizing;

use crate::secret::Secret;
use crate::template;

/// Empty for a server that follows the RFC. Its values may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// Lower-case names. They replace the client's own.
    pub headers: Vec<Field>,
    /// Parameters that are read anew for each request, such as a client_assertion.
    pub secret_params: Vec<Field>,
    /// In place of the form.
    pub body: Option<BodyTemplate>,
    /// The granted token is exchanged here for that of a service account, for this scope: Google's
    /// `generateAccessToken`.
    pub impersonation: Option<(Url, Vec<String>)>,
}

impl Shape {
    /// Its bytes, for a fingerprint. A server that follows the RFC has none, so that its verdicts
    /// outlive an upgrade.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let fields = self.headers.iter().chain(&self.secret_params).flat_map(|field| {
            let value = if field.made_anew { &[] } else { field.value.expose().as_bytes() };
            [field.name.as_bytes(), value]
        });
        let pieces = self.body.iter().flat_map(|body| &body.pieces);
        fields.chain(
            pieces.flat_map(|(text, name)| [text.as_bytes(), name.as_deref().unwrap_or_default().as_bytes()]),
        )
    }
}

/// One header or parameter.
#[derive(Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub value: Secret,
    /// Made by a command: it may be another in each request, and says nothing of the config.
    pub made_anew: bool,
}

/// A template of a body: texts, each with the name of the value after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyTemplate {
    pieces: Vec<(String, Option<String>)>,
}

/// The fault of a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("has an unknown placeholder `{{{0}}}`")]
    Unknown(String),
    #[error("has an unmatched brace")]
    Unbalanced,
    #[error("does not contain `{{refresh_token}}`")]
    NoToken,
}

impl BodyTemplate {
    pub const PLACEHOLDERS: [&str; 5] =
        ["grant_type", "refresh_token", "client_id", "client_secret", "scope"];

    /// `params` are further names that have a value.
    pub fn parse(text: &str, params: &[String]) -> Result<Self, TemplateError> {
        let pieces = template::pieces(text).map_err(|_| TemplateError::Unbalanced)?;
        let names: BTreeSet<_> = pieces.iter().filter_map(|(_, name)| *name).collect();
        let is_known =
            |name: &str| Self::PLACEHOLDERS.contains(&name) || params.iter().any(|param| param == name);
        if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
            return Err(TemplateError::Unknown((*unknown).to_owned()));
        }
        if !names.contains("refresh_token") {
            return Err(TemplateError::NoToken);
        }
        Ok(Self { pieces: pieces.into_iter().map(|(text, name)| (text, name.map(str::to_owned))).collect() })
    }

    /// Stands for the token in the body of another grant; no server and no user writes it.
    pub(super) const TOKEN_PLACE: &str = "{the grant}";

    /// The body of another grant: the member with the refresh token becomes those of the grant.
    pub(super) fn replace_token(&self, body: &Secret, grant: &[(&'static str, &str)]) -> Secret {
        if self.is_json() {
            let mut members: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(body.expose()).unwrap_or_default();
            members.retain(|_, value| value.as_str() != Some(Self::TOKEN_PLACE));
            members.extend(grant.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())));
            return Secret::new(serde_json::Value::from(members).to_string());
        }
        let others = form_urlencoded::parse(body.expose().as_bytes());
        let others = others.filter(|(_, value)| value != Self::TOKEN_PLACE);
        let mut form = Serializer::new(String::with_capacity(3 * body.expose().len() + 1024));
        Secret::new(form.extend_pairs(others).extend_pairs(grant).finish())
    }

    /// JSON if it begins with a brace, else a form.
    pub fn is_json(&self) -> bool {
        self.pieces.first().is_some_and(|(text, _)| text.trim_start().starts_with('{'))
    }

    /// The body, with each value escaped as its place wants it.
    pub(super) fn render(&self, value: &dyn Fn(&str) -> String) -> Secret {
        let escaped = |name: &str| {
            let value = Zeroizing::new(value(name));
            Zeroizing::new(if self.is_json() {
                let quoted = Zeroizing::new(serde_json::Value::from(value.as_str()).to_string());
                quoted[1..quoted.len() - 1].to_owned()
            } else {
                byte_serialize(value.as_bytes()).collect()
            })
        };
        let parts: Vec<_> = self
            .pieces
            .iter()
            .flat_map(|(text, name)| {
                [Zeroizing::new(text.clone()), name.as_deref().map(escaped).unwrap_or_default()]
            })
            .collect();
        // Room for all of it at once: a string that grows leaves copies behind, unwiped.
        let mut body = String::with_capacity(parts.iter().map(|part| part.len()).sum());
        body.extend(parts.iter().map(|part| part.as_str()));
        Secret::new(body)
    }
}
