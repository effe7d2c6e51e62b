//! The HTTP side of the issuer: requests and replies.

use std::collections::HashMap;
use std::fmt;

use hyper::body::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::secret::{Fingerprint, Secret};

/// A request as it arrives.
#[derive(Clone)]
pub struct DemoRequest {
    /// The Content-Type header.
    pub content_type: Option<String>,
    /// The Authorization header.
    pub authorization: Option<String>,
    /// The form.
    pub body: Bytes,
}

impl DemoRequest {
    /// The fingerprint of the refresh token, for the audit log: also in requests that are refused.
    pub(super) fn refresh_token(&self) -> Option<Fingerprint> {
        parameter(&self.body, "refresh_token").map(|token| Secret::new(token).fingerprint())
    }
}

/// The first value of a parameter, in a query or a form.
pub(super) fn parameter(form: &[u8], wanted: &str) -> Option<String> {
    form_urlencoded::parse(form).find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
}

/// A reply: the issuer's, or one that a fault sends as it is. Its body may hold tokens.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DemoReply {
    /// The status code.
    pub status: u16,
    /// Headers beside Content-Length, which the server adds; one that HTTP cannot carry fails the request.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The body; in JSON a string.
    #[serde(default, deserialize_with = "text")]
    pub body: Vec<u8>,
}

impl fmt::Debug for DemoReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DemoReply").field("status", &self.status).finish_non_exhaustive()
    }
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    String::deserialize(deserializer).map(String::into_bytes)
}

impl DemoReply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub(super) fn new(status: u16, content_type: &str, body: String) -> Self {
        // No cache may keep a token (RFC 6749 5.1).
        let reply = Self { body: body.into_bytes(), ..Self::empty(status) };
        reply.with_header("content-type", content_type).with_header("cache-control", "no-store")
    }

    pub(super) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    pub(super) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// An error of RFC 6749 5.2.
pub(super) struct Refused {
    pub(super) error: &'static str,
    description: String,
}

impl Refused {
    pub(super) fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self { error, description: description.into() }
    }
}

impl From<Refused> for DemoReply {
    fn from(refused: Refused) -> Self {
        let body = json!({ "error": refused.error, "error_description": refused.description });
        if refused.error == "invalid_client" {
            // The challenge is due to clients that used the header, and harms no other.
            Self::json(401, &body).with_header("www-authenticate", r#"Basic realm="zg-tokend demo""#)
        } else {
            Self::json(400, &body)
        }
    }
}

/// The parameters of a request body.
pub(super) struct Form(HashMap<String, String>);

impl Form {
    /// Refuses other content types and parameters that come twice (RFC 6749 3.2). Empty
    /// parameters count as omitted, as there.
    pub(super) fn parse(request: &DemoRequest) -> Result<Self, Refused> {
        let media_type = request.content_type.as_deref().and_then(|header| header.split(';').next());
        let media_type = media_type.unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let description = "the body must be application/x-www-form-urlencoded";
            return Err(Refused::new("invalid_request", description));
        }
        let mut form = HashMap::new();
        for (name, value) in form_urlencoded::parse(&request.body).filter(|(_, value)| !value.is_empty()) {
            if form.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(Refused::new("invalid_request", "a parameter comes twice"));
            }
        }
        Ok(Self(form))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The fingerprint of a token or code that must be there.
    pub(super) fn secret(&self, name: &str) -> Result<Fingerprint, Refused> {
        let value = self.get(name);
        let value = value.ok_or_else(|| Refused::new("invalid_request", format!("{name} is missing")))?;
        Ok(Secret::new(value).fingerprint())
    }
}

/// The part after the scheme in an Authorization header; the scheme is case-insensitive.
pub(super) fn credentials<'a>(header: &'a str, scheme: &str) -> Option<&'a str> {
    header
        .split_once(' ')
        .filter(|(found, _)| found.eq_ignore_ascii_case(scheme))
        .map(|(_, rest)| rest.trim())
}
