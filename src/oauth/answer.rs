//! The result of one request, its sentence and its hint.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::oauth::meaning::look_up;
use crate::oauth::reply::{FailureKind, TransportFailure};
use crate::secret::Secret;

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Answer {
    #[error("a token for {} s was granted", .0.expires_in.as_secs())]
    Granted(TokenResponse),
    /// A success that cannot be used. A new refresh token in it replaces the old one all the same,
    /// because the server has rotated.
    #[error("the reply of the token endpoint cannot be used")]
    Defective { refresh_token: Option<Secret>, defect: Defect },
    /// The refresh token is dead and must never be sent again.
    #[error("the server refuses the refresh token: {0}")]
    InvalidGrant(ErrorReply),
    /// The client or its request is configured wrongly. The refresh token may be alive.
    #[error("the server refuses the client: {0}")]
    ClientRefused(ErrorReply),
    /// Nothing was granted; a later attempt may succeed.
    #[error("{}", .0.reason)]
    Unavailable(Unavailable),
    /// Something may have been granted: there is no answer, or none that can be read.
    #[error("{}", .0.reason)]
    Ambiguous(Unclear),
}

/// A successful response, RFC 6749 section 5.1.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenResponse {
    /// The new access token: 1 to 16 KiB bytes of VSCHAR.
    pub access_token: Secret,
    /// `Bearer`, whatever the server calls it: no other scheme takes such a token (RFC 6750).
    pub token_type: String,
    /// The lifetime, counted from before the POST: 1 s to 365 d.
    pub expires_in: Duration,
    pub expires_in_source: ExpiresInSource,
    /// The next refresh token; `None`: the old one stays (RFC 6749 section 6).
    pub refresh_token: Option<Secret>,
    /// True if the reply has a refresh token that cannot be used (too long, forbidden
    /// characters): the old one stays, but may be dead.
    pub refresh_token_unusable: bool,
    /// The lifetime in the reply, if that cannot be read.
    pub expires_in_unreadable: bool,
    /// How long the login lives, if the server says so.
    pub login_expires_in: Option<Duration>,
    /// The scope granted, if it is stated.
    pub scope: Option<String>,
    /// The ID token of OpenID Connect, if there is one. Not checked.
    pub id_token: Option<Secret>,
    /// The proxy and the certificates on the way, if the environment names them.
    pub came_by: Option<String>,
}

/// The end of a message about a server that cannot be reached: cron and services do not have the variables of
/// a shell. Empty if the way is that of the last grant.
pub fn other_way(way: Option<&str>, last: Option<&str>) -> String {
    match last {
        Some(last) if way != Some(last) => format!(
            "; the last refresh came by {last}, which the environment does not name here: set it for this service or \
             cron job, or in the config"
        ),
        _ => String::new(),
    }
}

/// The origin of a token's lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpiresInSource {
    /// The reply's expires_in.
    Stated,
    /// The exp of an access token that is a JWT.
    Jwt,
    /// The configured default.
    Default,
}

/// An error response, RFC 6749 section 5.2: the server's words without secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// The code: a known one in its registered spelling, another as the server writes it; empty if
    /// there are only words.
    pub code: String,
    /// The `error_description`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The `error_uri`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Seconds by which this machine's clock is ahead of the server's, where that may be the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ahead: Option<i64>,
}

/// Why a success cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    #[error("the access_token {0}")]
    AccessToken(TokenFault),
    /// Readers can use bearer tokens only.
    #[error("token_type is not bearer: {0}")]
    TokenType(String),
    #[error("expires_in is not a positive number: {0}")]
    ExpiresIn(String),
    #[error("it has both a token and an error: {0}")]
    Contradiction(ErrorReply),
    /// But it holds a refresh token.
    #[error("it is incomplete or not valid JSON")]
    Unreadable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Absent or null.
    #[error("is missing")]
    Missing,
    #[error("is not a string")]
    NotAString,
    #[error("is empty")]
    Empty,
    /// Over [`MAX_TOKEN_BYTES`](crate::oauth::MAX_TOKEN_BYTES).
    #[error("is too long: {bytes} bytes, over 16 KiB")]
    TooLong { bytes: usize },
    /// A character outside VSCHAR, 0x20 to 0x7E (RFC 6749 appendix A.12).
    #[error("has characters that are not allowed in a token")]
    ForbiddenCharacter,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    pub reason: ServerFailure,
    /// The server's Retry-After, at most 1 h.
    pub retry_after: Option<Duration>,
}

/// Why nothing was granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerFailure {
    /// The request did not leave this machine.
    #[error("the token endpoint could not be reached")]
    NotSent(TransportFailure),
    /// An error code that means "not now", or an unknown one.
    #[error("the server refuses for now: {0}")]
    Refused(ErrorReply),
    /// An HTTP status without an error code.
    #[error("the token endpoint answers HTTP {status}{}", said(words.as_ref()))]
    Status {
        status: u16,
        /// The body, if it is an OAuth error.
        words: Option<ErrorReply>,
    },
    /// A redirect, which is not followed: the new host would get the refresh token.
    #[error(
        "the token endpoint redirects{} (HTTP {status})",
        host.as_ref().map(|host| format!(" to {host}")).unwrap_or_default()
    )]
    Redirect {
        status: u16,
        /// The new host, if it is another one.
        host: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unclear {
    pub reason: Doubt,
    /// The server's Retry-After, at most 1 h.
    pub retry_after: Option<Duration>,
}

/// Why it is not known whether something was granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// The request may have arrived, but no complete reply came back.
    #[error("{}", lost(.0))]
    Lost(TransportFailure),
    /// A gateway answered in the server's place, or the status has no defined meaning.
    #[error("the token endpoint answers HTTP {status}{}", said(words.as_ref()))]
    Gateway {
        status: u16,
        /// The body, if it is an OAuth error.
        words: Option<ErrorReply>,
    },
    /// A success whose body is not a complete JSON object.
    #[error(
        "the answer (HTTP {status}{}) is not a JSON object",
        content_type.as_ref().map(|text| format!(", {text}")).unwrap_or_default()
    )]
    Unreadable { status: u16, content_type: Option<String> },
}

/// The words for an answer beside its sentence.
struct Explanation {
    kind: &'static str,
    cause: Option<Cow<'static, str>>,
    hint: Option<&'static str>,
}

const CHECK_ENDPOINT: &str = "check token_endpoint against the provider's documentation";
const CLIENT_NOT_PROVEN: &str = "the client did not prove who it is";
const NO_TOKEN_ENDPOINT: &str = "there is no OAuth token endpoint at this address";
const WRONG_WAY: &str =
    "token_endpoint is another address than the provider's, or a firewall or proxy refuses the request";
const CHECK_WAY: &str = "check token_endpoint, then the firewall or proxy on the way to it";
const TOO_LATE: &str = "the server took too long";
const TOO_MANY: &str = "the server got too many requests";

impl Answer {
    /// A short, stable name for status and metrics.
    pub fn kind(&self) -> &'static str {
        self.explanation().kind
    }

    /// The reason, as the answer states it; `None` where the sentence says all that is known, and for a dead
    /// login, where the history of the token shows it.
    pub fn cause(&self) -> Option<String> {
        self.explanation().cause.map(Cow::into_owned)
    }

    /// The next step of the user; `None` where only waiting helps, and for a dead login, where it
    /// depends on the config (`login_hint` in message.rs).
    pub fn hint(&self) -> Option<String> {
        self.explanation().hint.map(str::to_owned)
    }

    fn explanation(&self) -> Explanation {
        match self {
            Self::Granted(_) => explain("granted", None, None),
            Self::InvalidGrant(_) => {
                Explanation { cause: self.clock(), ..explain("invalid_grant", None, None) }
            }
            Self::ClientRefused(error) => {
                let (cause, hint) = client_refused(error.kind());
                let cause = self.clock().or(Some(cause.into()));
                Explanation { kind: error.kind(), cause, hint: Some(hint) }
            }
            Self::Defective { defect, .. } => {
                let (kind, hint) = match defect {
                    Defect::AccessToken(TokenFault::Missing) => ("no_access_token", Some(CHECK_ENDPOINT)),
                    Defect::AccessToken(_) => ("bad_access_token", Some(CHECK_ENDPOINT)),
                    Defect::TokenType(_) => {
                        ("bad_token_type", Some("have the provider issue bearer tokens to this client"))
                    }
                    Defect::ExpiresIn(_) => ("bad_expires_in", Some(CHECK_ENDPOINT)),
                    Defect::Contradiction(_) => ("contradictory_reply", Some(CHECK_ENDPOINT)),
                    Defect::Unreadable => ("unreadable_reply", None),
                };
                Explanation { kind, cause: Some(defect.to_string().into()), hint }
            }
            Self::Unavailable(Unavailable { reason, .. }) => match reason {
                ServerFailure::NotSent(failure) => of_failure(failure),
                ServerFailure::Refused(error) => {
                    Explanation { cause: self.clock(), ..explain(error.kind(), None, None) }
                }
                ServerFailure::Redirect { .. } => explain(
                    "redirect",
                    Some("redirects are not followed: another server would get the refresh token"),
                    Some(
                        "set token_endpoint to the address that the redirect leads to, if that is the provider's",
                    ),
                ),
                // RFC 6749 section 5.2 has this status for a client that fails to prove who it is.
                ServerFailure::Status { status: 401, words: Some(_) } => explain(
                    "http_4xx",
                    Some(CLIENT_NOT_PROVEN),
                    Some(
                        "check client_id, client_secret and token_endpoint_auth_method, then token_endpoint",
                    ),
                ),
                ServerFailure::Status { status, .. } => of_status(*status),
            },
            Self::Ambiguous(Unclear { reason, .. }) => match reason {
                Doubt::Lost(failure) if failure.kind == FailureKind::BodyTooLarge => {
                    Explanation { cause: None, ..of_failure(failure) }
                }
                Doubt::Lost(failure) => of_failure(failure),
                Doubt::Gateway { status, .. } => Explanation { hint: None, ..of_status(*status) },
                Doubt::Unreadable { .. } => explain(
                    "unreadable_reply",
                    Some(
                        "it comes from something else than a token endpoint, such as a captive portal or a proxy",
                    ),
                    Some(
                        "check token_endpoint; if this network wants a login, log in to it with a browser first",
                    ),
                ),
            },
        }
    }

    /// Notes in a refusal that the clocks differ.
    pub fn note_clock(&mut self, ahead: i64) {
        match self {
            Self::InvalidGrant(error)
            | Self::ClientRefused(error)
            | Self::Unavailable(Unavailable {
                reason: ServerFailure::Refused(error) | ServerFailure::Status { words: Some(error), .. },
                ..
            }) => error.clock_ahead = Some(ahead),
            _ => {}
        }
    }

    /// Notes the way of the exchange, as the environment has it, beside that of the last grant.
    pub fn note_way(&mut self, way: Option<String>, last: Option<&str>) {
        match self {
            Self::Granted(granted) => granted.came_by = way,
            Self::Unavailable(Unavailable { reason: ServerFailure::NotSent(failure), .. }) => {
                failure.detail.push_str(&other_way(way.as_deref(), last));
            }
            _ => {}
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable(unavailable) => unavailable.retry_after,
            Self::Ambiguous(unclear) => unclear.retry_after,
            _ => None,
        }
    }

    /// The clocks differ, which explains a refusal.
    fn clock(&self) -> Option<Cow<'static, str>> {
        let ahead = match self {
            Self::InvalidGrant(error)
            | Self::ClientRefused(error)
            | Self::Unavailable(Unavailable {
                reason: ServerFailure::Refused(error) | ServerFailure::Status { words: Some(error), .. },
                ..
            }) => error.clock_ahead?,
            _ => return None,
        };
        let direction = if ahead > 0 { "ahead of" } else { "behind" };
        let span = match ahead.unsigned_abs() {
            seconds @ 0..120 => format!("{seconds} s"),
            seconds => format!("{} min", seconds / 60),
        };
        Some(format!("the clock of this machine is {span} {direction} the server's").into())
    }
}

impl ErrorReply {
    /// The code, from a closed set.
    fn kind(&self) -> &'static str {
        look_up(&self.code).map_or("unknown_error", |(known, _)| known)
    }
}

fn explain(kind: &'static str, cause: Option<&'static str>, hint: Option<&'static str>) -> Explanation {
    Explanation { kind, cause: cause.map(Cow::Borrowed), hint }
}

fn of_failure(failure: &TransportFailure) -> Explanation {
    let (kind, hint) = (failure.kind.name(), failure.kind.hint());
    Explanation { kind, cause: Some(failure.detail.clone().into()), hint }
}

/// Cause and hint for an error code that is about the client.
fn client_refused(code: &str) -> (&'static str, &'static str) {
    match code {
        "invalid_client" => (
            "the server does not know client_id, or client_secret is wrong or sent in another way than it wants",
            "check client_id, client_secret and token_endpoint_auth_method against the provider's console",
        ),
        "unauthorized_client" => (
            "this client may not use the refresh_token grant, or did not prove who it is",
            "check client_secret and token_endpoint_auth_method; then allow the refresh_token grant for this client in the provider's console",
        ),
        "unsupported_grant_type" => (
            "the server does not offer the refresh_token grant to this client",
            "allow the refresh_token grant for this client in the provider's console",
        ),
        "invalid_scope" => (
            "scope asks for more than the server grants to this login",
            "request no more scope than was granted at login, or remove scope from the config",
        ),
        _ => (
            "the request lacks a parameter, or has one that the server does not take",
            "check client_id, client_secret, scope, extra_params and token_endpoint_auth_method",
        ),
    }
}

/// For an HTTP status without an error code.
fn of_status(status: u16) -> Explanation {
    match status {
        401 => explain("http_4xx", Some(WRONG_WAY), Some(CHECK_WAY)),
        403 => explain("http_403", Some(WRONG_WAY), Some(CHECK_WAY)),
        404 => explain("http_404", Some(NO_TOKEN_ENDPOINT), Some(CHECK_ENDPOINT)),
        407 => explain(
            "http_4xx",
            Some("the proxy asks for a user and a password"),
            Some("add the user and password of the proxy to HTTPS_PROXY, or the host to NO_PROXY"),
        ),
        408 => explain("http_408", Some(TOO_LATE), None),
        425 => explain("http_425", Some(TOO_MANY), None),
        429 => explain("http_429", Some(TOO_MANY), None),
        400..=499 => explain("http_4xx", Some(NO_TOKEN_ENDPOINT), Some(CHECK_ENDPOINT)),
        500 => explain("http_500", Some("the server has a fault of its own"), None),
        502 => explain("http_502", Some("the server behind the provider's gateway is down"), None),
        503 => explain("http_503", Some("the server is overloaded or in maintenance"), None),
        504 => explain("http_504", Some(TOO_LATE), None),
        501..=599 => explain("http_5xx", None, None),
        _ => explain("http_other", None, None),
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)?;
        if let Some(description) = &self.description {
            let separator = if self.code.is_empty() { "" } else { ": " };
            write!(f, "{separator}\"{description}\"")?;
        }
        if let Some(uri) = &self.uri {
            write!(f, " (see {uri})")?;
        }
        Ok(())
    }
}

/// The end of a sentence about an HTTP status.
fn said(words: Option<&ErrorReply>) -> String {
    words.map_or_else(String::new, |words| format!(": {words}"))
}

/// The sentence for a request without an answer.
fn lost(failure: &TransportFailure) -> &str {
    match failure.kind {
        FailureKind::BodyTooLarge => &failure.detail,
        _ => "the token endpoint did not answer the request",
    }
}
