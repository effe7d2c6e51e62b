//! The reply to one POST, before it is classified.

use std::fmt;

use zeroize::Zeroizing;

use crate::oauth::extract::{ReplyBody, Value};

/// A complete HTTP reply: the status, the headers that matter, the whole body.
#[derive(Clone, Default)]
pub struct Reply {
    /// The status code, RFC 9110 section 15.
    pub status: u16,
    /// The Content-Type header; only ever shown, never trusted.
    pub content_type: Option<String>,
    /// The Retry-After header, RFC 9110 section 10.2.3.
    pub retry_after: Option<String>,
    /// The Date header, which a Retry-After date is measured from.
    pub date: Option<String>,
    /// The Location header of a redirect. It is never followed.
    pub location: Option<String>,
    /// The body. It holds tokens: wiped on drop.
    pub body: Zeroizing<Vec<u8>>,
}

impl Reply {
    /// True for a success whose body, even if it broke off, holds a refresh token: such a reply
    /// must be judged, not thrown away.
    pub fn holds_refresh_token(&self) -> bool {
        let body = || ReplyBody::parse(&self.body, self.content_type.as_deref());
        (200..=299).contains(&self.status)
            && body().is_some_and(|body| body.found().refresh_token.is_some_and(Value::is_there))
    }
}

impl fmt::Debug for Reply {
    /// The status and the body's length: a server may echo a secret in any header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply {{ status: {}, body: {} bytes }}", self.status, self.body.len())
    }
}

/// Whether the server may have seen the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Certainly not: the refresh token has not left this machine.
    NotSent,
    /// It may have been received, and the refresh token rotated.
    PerhapsSent,
}

/// The kind of failure that kept a complete reply from coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The host name could not be resolved.
    Dns,
    /// No connection: refused, unreachable.
    Connect,
    /// The handshake failed: the certificate, the protocol.
    Tls,
    /// There are no root certificates to check the server's with.
    Roots,
    /// The server does not speak TLS on this port.
    NotTls,
    /// The proxy did not let the connection through.
    Proxy,
    /// Plain http to another machine, which `allow_http` does not permit.
    PlainHttp,
    /// The deadline passed.
    Timeout,
    /// The connection broke off.
    Reset,
    /// The body is over the limit.
    BodyTooLarge,
    /// The headers are over the limit.
    HeadersTooLarge,
    /// The answer is not HTTP.
    NotHttp,
    /// Anything else.
    Other,
}

impl FailureKind {
    /// A short word for status and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls | Self::NotTls => "tls",
            Self::Roots => "roots",
            Self::Proxy => "proxy",
            Self::PlainHttp => "plain_http",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::BodyTooLarge => "body_too_large",
            Self::HeadersTooLarge => "headers_too_large",
            Self::NotHttp => "not_http",
            Self::Other => "transport",
        }
    }

    /// The next step of a person, if there is one.
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Self::Dns => Some("check the host name in token_endpoint, and this machine's DNS"),
            Self::Connect => Some("check that the host in token_endpoint is up and reachable from here"),
            Self::Tls => Some(
                "check the host name in token_endpoint and this machine's clock; \
                 for a private certificate authority set ca_file",
            ),
            Self::NotTls => Some("use http:// if the server is this machine, or the port for https"),
            Self::Roots => {
                Some("install ca-certificates, or name a PEM file in ca_file that this user can read")
            }
            Self::Proxy => Some("check HTTPS_PROXY, ALL_PROXY and NO_PROXY"),
            Self::PlainHttp => Some("use https, or set allow_http = true if the network is trusted"),
            Self::BodyTooLarge | Self::HeadersTooLarge | Self::NotHttp => {
                Some("check token_endpoint: this is not how a token endpoint answers")
            }
            Self::Timeout | Self::Reset | Self::Other => None,
        }
    }
}

/// No complete reply: how far it got, and why not further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportFailure {
    /// Whether the server may have acted on the request.
    pub sent: Sent,
    /// The kind of failure.
    pub kind: FailureKind,
    /// The same in words: a lower-case fragment without secrets or URLs.
    pub detail: String,
}

impl fmt::Display for TransportFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for TransportFailure {}
