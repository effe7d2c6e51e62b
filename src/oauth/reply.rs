//! The reply to one POST, or the failure to get one.

use std::fmt;

use zeroize::Zeroizing;

use crate::oauth::extract::{JsonValue, ReplyBody};

/// A complete HTTP reply.
#[derive(Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub content_type: Option<String>,
    /// RFC 9110 section 10.2.3.
    pub retry_after: Option<String>,
    /// The Date header: the start of a Retry-After that is a date.
    pub date: Option<String>,
    /// The Location header of a redirect, which is never followed.
    pub location: Option<String>,
    /// It holds tokens: wiped on drop.
    pub body: Zeroizing<Vec<u8>>,
}

impl Reply {
    /// True for a success whose body, complete or not, holds a refresh token: such a reply must not be
    /// dropped.
    pub fn holds_refresh_token(&self) -> bool {
        let body = || ReplyBody::parse(&self.body, self.content_type.as_deref());
        (200..=299).contains(&self.status)
            && body().is_some_and(|body| body.found().refresh_token.is_some_and(JsonValue::is_there))
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
    /// The refresh token has not left this machine.
    NotSent,
    /// The server may have received it and rotated the refresh token.
    PerhapsSent,
}

/// Why there is no complete reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The host name could not be resolved.
    Dns,
    /// No connection: refused, unreachable.
    Connect,
    /// The handshake failed.
    Tls,
    /// The certificate is from an authority that the system does not trust.
    Authority,
    /// It is from none of the authorities in the user's own file.
    OtherAuthority,
    /// The certificate has expired, or is not valid yet.
    Validity,
    /// The certificate is for other hosts.
    Name,
    /// There are no root certificates to check the server's certificate.
    Roots,
    /// The server does not speak TLS on this port.
    NotTls,
    /// The proxy cannot be reached, or is none.
    Proxy,
    /// The proxy wants a user name and a password.
    ProxyLogin,
    /// The proxy does not connect to the server.
    ProxyTarget,
    /// Plain http to another machine, which `allow_http` does not permit.
    PlainHttp,
    Timeout,
    /// The connection was closed or reset.
    Reset,
    /// The body is over the limit.
    BodyTooLarge,
    /// The headers are over the limit.
    HeadersTooLarge,
    /// The answer is not HTTP.
    NotHttp,
    Other,
}

impl FailureKind {
    /// A short, stable name for status and metrics.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// For a request to token_endpoint.
    pub fn hint(self) -> Option<&'static str> {
        self.row().1
    }

    /// Name and hint.
    fn row(self) -> (&'static str, Option<&'static str>) {
        let (name, hint) = match self {
            Self::Dns => ("dns", "check the host name in token_endpoint, and this machine's DNS"),
            Self::Connect => {
                ("connect", "check that the host in token_endpoint is up and reachable from here")
            }
            Self::Tls => {
                ("tls", "check the host name in token_endpoint, and that no other server answers there")
            }
            Self::Authority => (
                "tls",
                "if the server is your own, put its certificate, or that of its authority, into a PEM file and name it in ca_file; \
                 else check that no other server answers here",
            ),
            Self::OtherAuthority => (
                "tls",
                "add the certificate of that authority to ca_file, or the server's own if it is self-signed: \
                 ca_file is trusted in place of the system's authorities",
            ),
            Self::Validity => {
                ("tls", "check this machine's clock with `date`; if it is right, renew the certificate")
            }
            Self::Name => {
                ("tls", "write a name of the certificate into the address, or check where that name leads")
            }
            Self::NotTls => ("tls", "use http:// if the server is this machine, or the port for https"),
            Self::Roots => {
                ("roots", "install ca-certificates, or name a PEM file in ca_file that this user can read")
            }
            Self::Proxy => (
                "proxy",
                "check `proxy` in the config, or HTTPS_PROXY, ALL_PROXY and NO_PROXY in the environment",
            ),
            Self::ProxyLogin => (
                "proxy",
                "write the user name and password of the proxy into its URL, http://USER:PASSWORD@HOST:PORT, \
                 in `proxy` or HTTPS_PROXY",
            ),
            Self::ProxyTarget => (
                "proxy",
                "ask whoever runs the proxy: the provider has seen nothing; if this machine reaches the host \
                 without it, name the host in NO_PROXY",
            ),
            Self::PlainHttp => {
                ("plain_http", "use https, or set allow_http = true if the network is trusted")
            }
            Self::BodyTooLarge => ("body_too_large", NOT_OAUTH),
            Self::HeadersTooLarge => ("headers_too_large", NOT_OAUTH),
            Self::NotHttp => ("not_http", NOT_OAUTH),
            Self::Timeout => return ("timeout", None),
            Self::Reset => return ("reset", None),
            Self::Other => return ("transport", None),
        };
        (name, Some(hint))
    }
}

const NOT_OAUTH: &str = "check token_endpoint: an OAuth server does not answer like this";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct TransportFailure {
    pub sent: Sent,
    pub kind: FailureKind,
    /// For people: a lower-case fragment without secrets or URLs.
    pub detail: String,
}
