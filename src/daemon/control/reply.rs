//! Replies: JSON, and errors that say what to do.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use serde::Serialize;
use serde_with_macros::skip_serializing_none;

use crate::problem::{Class, Problem};

/// A reply that has not been sent yet.
#[derive(Debug)]
pub(super) struct ControlReply {
    pub(super) status: u16,
    content_type: &'static str,
    allow: Option<&'static str>,
    /// Seconds, RFC 9110 10.2.3.
    retry_after: Option<u64>,
    pub(super) body: String,
}

#[skip_serializing_none]
#[derive(Serialize)]
pub(super) struct ErrorBody<'a> {
    pub(super) error: &'a str,
    pub(super) error_description: &'a str,
    pub(super) cause: Option<&'a str>,
    pub(super) hint: Option<&'a str>,
}

impl ControlReply {
    pub(super) fn json(status: u16, body: &impl Serialize) -> Self {
        // Strings and numbers always encode.
        let body = serde_json::to_string(body).unwrap_or_default() + "\n";
        Self { status, content_type: "application/json", allow: None, retry_after: None, body }
    }

    /// Prometheus' text format.
    pub(super) fn metrics(body: String) -> Self {
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
        Self { status: 200, content_type, allow: None, retry_after: None, body }
    }

    pub(super) fn error(status: u16, error: &str, description: &str, hint: &str) -> Self {
        Self::json(
            status,
            &ErrorBody { error, error_description: description, cause: None, hint: Some(hint) },
        )
    }

    pub(super) fn allow(self, methods: &'static str) -> Self {
        Self { allow: Some(methods), ..self }
    }

    /// Whole seconds, and never at once.
    pub(super) fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait.as_millis().div_ceil(1000).max(1) as u64), ..self }
    }

    /// A pass that did not end well.
    pub(super) fn problem(problem: &Problem, next_in: Option<Duration>) -> Self {
        let status = match problem.class {
            Class::Unavailable | Class::Busy => 503,
            Class::NeedsLogin | Class::Config => 409,
            Class::Io | Class::Unexpected => 500,
        };
        let Problem { kind, message, cause, hint, .. } = problem;
        let (cause, hint) = (cause.as_deref(), hint.as_deref());
        let problem = ErrorBody { error: kind, error_description: message, cause, hint };
        let reply = Self::json(status, &problem);
        match next_in.filter(|_| status == 503) {
            Some(wait) => reply.retry_after(wait),
            None => reply,
        }
    }

    pub(super) fn forbidden() -> Self {
        let text = "only the user who runs zg-tokend, and root, may use its control socket";
        Self::error(403, "forbidden", text, "ask as one of them, as by sudo")
    }

    /// The loop is not there to answer.
    pub(super) fn stopping() -> Self {
        let hint = "read the token file, which stays as it is; `zg-tokend status` says whether it runs";
        Self::error(503, "stopping", "zg-tokend is stopping, or the account has gone", hint)
    }

    pub(super) fn busy() -> Self {
        let hint = "send fewer requests at the same time, and wait for their replies";
        Self::error(503, "busy", "too many requests are waiting for a refresh", hint)
            .retry_after(Duration::from_secs(1))
    }

    pub(super) fn too_late() -> Self {
        let hint = "see `zg-tokend status`; what was asked for may still be done";
        Self::error(503, "timeout", "no answer was to be had in time", hint)
    }

    pub(super) fn response(self) -> hyper::Response<Full<Bytes>> {
        let mut builder = hyper::Response::builder()
            .status(self.status)
            .header(CONTENT_TYPE, self.content_type)
            .header(CACHE_CONTROL, "no-store");
        if let Some(methods) = self.allow {
            builder = builder.header(ALLOW, methods);
        }
        if let Some(seconds) = self.retry_after {
            builder = builder.header(RETRY_AFTER, seconds);
        }
        let body = Full::new(Bytes::from(self.body));
        // Every header above is valid, so that nothing is lost.
        builder.body(body).unwrap_or_default()
    }
}
