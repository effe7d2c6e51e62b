//! The result of one request, its sentence and its hint.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::oauth::meaning::look_up;
use crate::oauth::reply::{FailureKind, TransportFailure};
use crate::secret::Secret;

#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Granted(TokenResponse),
    /// A success that cannot be used. A new refresh token in it replaces the old one all the same,
    /// because the server has rotated.
    Defective {
        refresh_token: Option<Secret>,
        defect: Defect,
    },
    /// The refresh token is dead and must never be sent again.
    InvalidGrant(ErrorReply),
    /// The client or its request is configured wrongly. The refresh token may be alive.
    ClientRefused(ErrorReply),
    /// Nothing was granted; a later attempt may succeed.
    Unavailable(Unavailable),
    /// Something may have been granted: there is no answer, or none that can be read.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Defect {
    AccessToken(TokenFault),
    /// Readers can use bearer tokens only.
    TokenType(String),
    /// expires_in is zero, negative or not a number.
    ExpiresIn(String),
    /// An error beside a token.
    Contradiction(ErrorReply),
    /// The JSON is incomplete or not valid, but holds a refresh token.
    Unreadable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// Absent or null.
    Missing,
    NotAString,
    Empty,
    /// Over [`MAX_TOKEN_BYTES`](crate::oauth::MAX_TOKEN_BYTES).
    TooLong {
        bytes: usize,
    },
    /// A character outside VSCHAR, 0x20 to 0x7E (RFC 6749 appendix A.12).
    ForbiddenCharacter,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    pub reason: ServerFailure,
    /// The server's Retry-After, at most 1 h.
    pub retry_after: Option<Duration>,
}

/// Why nothing was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFailure {
    /// The request did not leave this machine.
    NotSent(TransportFailure),
    /// An error code that means "not now", or an unknown one.
    Refused(ErrorReply),
    /// An HTTP status without an error code.
    Status {
        status: u16,
        /// The body, if it is an OAuth error.
        words: Option<ErrorReply>,
    },
    /// A redirect, which is not followed: the new host would get the refresh token.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The request may have arrived, but no complete reply came back.
    Lost(TransportFailure),
    /// A gateway answered in the server's place, or the status has no defined meaning.
    Gateway {
        status: u16,
        /// The body, if it is an OAuth error.
        words: Option<ErrorReply>,
    },
    /// A success whose body is not a complete JSON object.
    Unreadable { status: u16, content_type: Option<String> },
}

impl Answer {
    /// A short, stable name for status and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Granted(_) => "granted",
            Self::Defective { defect, .. } => match defect {
                Defect::AccessToken(TokenFault::Missing) => "no_access_token",
                Defect::AccessToken(_) => "bad_access_token",
                Defect::TokenType(_) => "bad_token_type",
                Defect::ExpiresIn(_) => "bad_expires_in",
                Defect::Contradiction(_) => "contradictory_reply",
                Defect::Unreadable => "unreadable_reply",
            },
            Self::InvalidGrant(_) => "invalid_grant",
            Self::ClientRefused(error) => error.kind(),
            Self::Unavailable(Unavailable { reason, .. }) => match reason {
                ServerFailure::NotSent(failure) => failure.kind.name(),
                ServerFailure::Refused(error) => error.kind(),
                ServerFailure::Status { status, .. } => http_kind(*status),
                ServerFailure::Redirect { .. } => "redirect",
            },
            Self::Ambiguous(Unclear { reason, .. }) => match reason {
                Doubt::Lost(failure) => failure.kind.name(),
                Doubt::Gateway { status, .. } => http_kind(*status),
                Doubt::Unreadable { .. } => "unreadable_reply",
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

    /// The reason, as the answer states it; `None` where the sentence says all that is known, and for a dead
    /// login, where the history of the token shows it.
    pub fn cause(&self) -> Option<String> {
        let cause = match self {
            Self::Granted(_) | Self::InvalidGrant(_) => return self.clock(),
            Self::ClientRefused(error) => match error.kind() {
                _ if error.clock_ahead.is_some() => return self.clock(),
                "invalid_client" => {
                    "the server does not know client_id, or client_secret is wrong or sent in another way than it wants"
                }
                "unauthorized_client" => {
                    "this client may not use the refresh_token grant, or did not prove who it is"
                }
                "unsupported_grant_type" => {
                    "the server does not offer the refresh_token grant to this client"
                }
                "invalid_scope" => "scope asks for more than the server grants to this login",
                _ => "the request lacks a parameter, or has one that the server does not take",
            },
            Self::Defective { defect, .. } => return Some(defect.to_string()),
            Self::Unavailable(Unavailable { reason, .. }) => match reason {
                ServerFailure::NotSent(failure) => return Some(failure.to_string()),
                ServerFailure::Refused(_) => return self.clock(),
                ServerFailure::Redirect { .. } => {
                    "redirects are not followed: another server would get the refresh token"
                }
                ServerFailure::Status { status: 401, words: Some(_) } => "the client did not prove who it is",
                ServerFailure::Status { status, .. } => status_cause(*status)?,
            },
            Self::Ambiguous(Unclear { reason, .. }) => match reason {
                Doubt::Lost(failure) if failure.kind == FailureKind::BodyTooLarge => return None,
                Doubt::Lost(failure) => return Some(failure.to_string()),
                Doubt::Gateway { status, .. } => status_cause(*status)?,
                Doubt::Unreadable { .. } => {
                    "it comes from something else than a token endpoint, such as a captive portal or a proxy"
                }
            },
        };
        Some(cause.to_owned())
    }

    /// The clocks differ, which explains a refusal.
    fn clock(&self) -> Option<String> {
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
        Some(format!("the clock of this machine is {span} {direction} the server's"))
    }

    /// The next step of the user; `None` where only waiting helps, and for a dead login, where it
    /// depends on the config (`login_hint` in message.rs).
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Granted(_) | Self::InvalidGrant(_) => return None,
            Self::ClientRefused(error) => match error.kind() {
                "invalid_client" => {
                    "check client_id, client_secret and token_endpoint_auth_method against the provider's console"
                }
                "unauthorized_client" => {
                    "check client_secret and token_endpoint_auth_method; then allow the refresh_token grant for this client in the provider's console"
                }
                "unsupported_grant_type" => {
                    "allow the refresh_token grant for this client in the provider's console"
                }
                "invalid_scope" => {
                    "request no more scope than was granted at login, or remove scope from the config"
                }
                _ => "check client_id, client_secret, scope, extra_params and token_endpoint_auth_method",
            },
            Self::Defective { defect, .. } => match defect {
                Defect::TokenType(_) => "have the provider issue bearer tokens to this client",
                Defect::Unreadable => return None,
                _ => "check token_endpoint against the provider's documentation",
            },
            Self::Unavailable(Unavailable { reason, .. }) => match reason {
                ServerFailure::NotSent(failure) => failure.kind.hint()?,
                ServerFailure::Refused(_) => return None,
                ServerFailure::Redirect { .. } => {
                    "set token_endpoint to the address that the redirect leads to, if that is the provider's"
                }
                // RFC 6749 section 5.2 has this status for a client that fails to prove who it is.
                ServerFailure::Status { status: 401, words: Some(_) } => {
                    "check client_id, client_secret and token_endpoint_auth_method, then token_endpoint"
                }
                ServerFailure::Status { status, .. } => status_hint(*status)?,
            },
            Self::Ambiguous(Unclear { reason, .. }) => match reason {
                Doubt::Lost(failure) => failure.kind.hint()?,
                Doubt::Gateway { .. } => return None,
                Doubt::Unreadable { .. } => {
                    "check token_endpoint; if this network wants a login, log in to it with a browser first"
                }
            },
        };
        Some(hint.to_owned())
    }
}

impl ErrorReply {
    /// The code, from a closed set.
    fn kind(&self) -> &'static str {
        look_up(&self.code).map_or("unknown_error", |(known, _)| known)
    }
}

fn http_kind(status: u16) -> &'static str {
    match status {
        403 => "http_403",
        404 => "http_404",
        408 => "http_408",
        425 => "http_425",
        429 => "http_429",
        500 => "http_500",
        502 => "http_502",
        503 => "http_503",
        504 => "http_504",
        400..=499 => "http_4xx",
        501..=599 => "http_5xx",
        _ => "http_other",
    }
}

fn status_hint(status: u16) -> Option<&'static str> {
    match status {
        408 | 425 | 429 => None,
        401 | 403 => Some("check token_endpoint, then the firewall or proxy on the way to it"),
        407 => Some("add the user and password of the proxy to HTTPS_PROXY, or the host to NO_PROXY"),
        400..=499 => Some("check token_endpoint against the provider's documentation"),
        _ => None,
    }
}

fn status_cause(status: u16) -> Option<&'static str> {
    Some(match status {
        401 | 403 => {
            "token_endpoint is another address than the provider's, or a firewall or proxy refuses the request"
        }
        407 => "the proxy asks for a user and a password",
        408 | 504 => "the server took too long",
        425 | 429 => "the server got too many requests",
        400..=499 => "there is no OAuth token endpoint at this address",
        500 => "the server has a fault of its own",
        502 => "the server behind the provider's gateway is down",
        503 => "the server is overloaded or in maintenance",
        _ => return None,
    })
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granted(grant) => write!(f, "a token for {} s was granted", grant.expires_in.as_secs()),
            Self::Defective { .. } => f.write_str("the reply of the token endpoint cannot be used"),
            Self::InvalidGrant(error) => write!(f, "the server refuses the refresh token: {error}"),
            Self::ClientRefused(error) => write!(f, "the server refuses the client: {error}"),
            Self::Unavailable(unavailable) => unavailable.reason.fmt(f),
            Self::Ambiguous(unclear) => unclear.reason.fmt(f),
        }
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

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AccessToken(fault) => write!(f, "the access_token {fault}"),
            Self::TokenType(stated) => write!(f, "token_type is not bearer: {stated}"),
            Self::ExpiresIn(stated) => write!(f, "expires_in is not a positive number: {stated}"),
            Self::Contradiction(error) => write!(f, "it has both a token and an error: {error}"),
            Self::Unreadable => f.write_str("it is incomplete or not valid JSON"),
        }
    }
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::NotAString => f.write_str("is not a string"),
            Self::Empty => f.write_str("is empty"),
            Self::TooLong { bytes } => write!(f, "is too long: {bytes} bytes, over 16 KiB"),
            Self::ForbiddenCharacter => f.write_str("has characters that are not allowed in a token"),
        }
    }
}

impl fmt::Display for ServerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(_) => f.write_str("the token endpoint could not be reached"),
            Self::Refused(error) => write!(f, "the server refuses for now: {error}"),
            Self::Status { status, words } => http_answer(f, *status, words.as_ref()),
            Self::Redirect { status, host: Some(host) } => {
                write!(f, "the token endpoint redirects to {host} (HTTP {status})")
            }
            Self::Redirect { status, host: None } => {
                write!(f, "the token endpoint redirects (HTTP {status})")
            }
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(failure) if failure.kind == FailureKind::BodyTooLarge => failure.fmt(f),
            Self::Lost(_) => f.write_str("the token endpoint did not answer the request"),
            Self::Gateway { status, words } => http_answer(f, *status, words.as_ref()),
            Self::Unreadable { status, content_type: Some(content_type) } => {
                write!(f, "the answer (HTTP {status}, {content_type}) is not a JSON object")
            }
            Self::Unreadable { status, content_type: None } => {
                write!(f, "the answer (HTTP {status}) is not a JSON object")
            }
        }
    }
}

fn http_answer(f: &mut fmt::Formatter<'_>, status: u16, words: Option<&ErrorReply>) -> fmt::Result {
    write!(f, "the token endpoint answers HTTP {status}")?;
    words.map_or(Ok(()), |words| write!(f, ": {words}"))
}
