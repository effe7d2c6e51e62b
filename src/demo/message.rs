//! The HTTP side of the issuer: requests and replies.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::secret::{Fingerprint, Secret};

/// A POST as it arrives.
#[derive(Clone, Copy)]
pub struct DemoRequest<'a> {
    /// The Content-Type header.
    pub content_type: Option<&'a str>,
    /// The Authorization header.
    pub authorization: Option<&'a str>,
    /// The form.
    pub body: &'a [u8],
}

impl DemoRequest<'_> {
    /// The fingerprint of the refresh token, for the audit log: also in requests that are refused.
    pub(super) fn refresh_token(&self) -> Option<Fingerprint> {
        form_urlencoded::parse(self.body)
            .find(|(name, _)| name == "refresh_token")
            .map(|(_, token)| Secret::new(token).fingerprint())
    }
}

/// An HTTP reply. Its body may hold tokens.
#[derive(Clone)]
pub struct DemoReply {
    /// The status code.
    pub status: u16,
    /// Headers beside those that every reply has (the server adds Content-Length).
    pub headers: Vec<(&'static str, String)>,
    /// JSON, or empty.
    pub body: String,
}

impl DemoReply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        // No cache may keep a token (RFC 6749 5.1).
        let headers =
            vec![("content-type", "application/json".to_owned()), ("cache-control", "no-store".to_owned())];
        Self { status, headers, body: body.to_string() }
    }

    pub(super) fn html(status: u16, body: String) -> Self {
        let headers = vec![
            ("content-type", "text/html; charset=utf-8".to_owned()),
            ("cache-control", "no-store".to_owned()),
        ];
        Self { status, headers, body }
    }

    pub(super) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    pub(super) fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// An error of RFC 6749 5.2.
pub(super) struct Refused {
    pub(super) error: &'static str,
    description: &'static str,
}

impl Refused {
    pub(super) fn new(error: &'static str, description: &'static str) -> Self {
        Self { error, description }
    }

    pub(super) fn reply(&self) -> DemoReply {
        let body = json!({ "error": self.error, "error_description": self.description });
        if self.error == "invalid_client" {
            // The challenge is due to clients that used the header, and harms no other.
            DemoReply::json(401, &body)
                .with_header("www-authenticate", r#"Basic realm="zg-tokend demo""#.to_owned())
        } else {
            DemoReply::json(400, &body)
        }
    }
}

/// The parameters of a request body.
pub(super) struct Form(HashMap<String, String>);

impl Form {
    /// Refuses other content types and parameters that come twice (RFC 6749 3.2). Empty
    /// parameters count as omitted, as there.
    pub(super) fn parse(request: &DemoRequest<'_>) -> Result<Self, Refused> {
        let media_type = request.content_type.and_then(|header| header.split(';').next()).unwrap_or_default();
        if !media_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Refused::new(
                "invalid_request",
                "the body must be application/x-www-form-urlencoded",
            ));
        }
        let mut form = HashMap::new();
        for (name, value) in form_urlencoded::parse(request.body).filter(|(_, value)| !value.is_empty()) {
            if form.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(Refused::new("invalid_request", "a parameter comes twice"));
            }
        }
        Ok(Self(form))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// The part after the scheme in an Authorization header; the scheme is case-insensitive.
pub(super) fn credentials<'a>(header: &'a str, scheme: &str) -> Option<&'a str> {
    header
        .split_once(' ')
        .filter(|(found, _)| found.eq_ignore_ascii_case(scheme))
        .map(|(_, rest)| rest.trim())
}
