//! Errors of a connection in our words: how far the request got, and why not further.

use std::error::Error;
use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};

use crate::http::connection::{EndlessInterim, ResolveError};
use crate::oauth::{FailureKind, Sent, TransportFailure};

/// Classifies an error of a connection or of an exchange by its causes. `proxy` is the host and port of
/// the proxy on the way: then that could not be reached.
pub(super) fn failure(error: &(dyn Error + 'static), sent: Sent, proxy: Option<String>) -> TransportFailure {
    let (kind, detail) = if let Some(cause) = causes(error).find_map(explain) {
        cause
    } else if causes(error).any(<dyn Error>::is::<ResolveError>) {
        (FailureKind::Dns, format!("the host name cannot be resolved: {}", root(error)))
    } else if sent == Sent::NotSent {
        (FailureKind::Connect, root(error))
    } else {
        (FailureKind::Other, root(error))
    };
    match (kind, proxy) {
        (FailureKind::Connect | FailureKind::Dns, Some(proxy)) => {
            let detail = format!("the proxy {proxy} cannot be reached: {detail}");
            TransportFailure { sent, kind: FailureKind::Proxy, detail }
        }
        _ => TransportFailure { sent, kind, detail },
    }
}

pub(super) const ANSWER: &str = "waiting for the answer";

/// `timeout` to a tenth of a second.
pub(super) fn timed_out(timeout: Duration, doing: &str) -> String {
    format!("timed out after {} s while {doing}", (timeout.as_secs_f64() * 10.0).round() / 10.0)
}

/// The error and its causes.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The innermost cause's text.
fn root(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map_or_else(|| "unknown reason".to_owned(), ToString::to_string)
}

/// One cause, if it is of a kind that has a name.
fn explain(error: &(dyn Error + 'static)) -> Option<(FailureKind, String)> {
    if let Some(io) = error.downcast_ref::<io::Error>() {
        // An io::Error's source() skips what it wraps.
        return io.get_ref().and_then(|inner| explain(inner)).or_else(|| explain_io(io));
    }
    if let Some(endless) = error.downcast_ref::<EndlessInterim>() {
        return Some((FailureKind::Other, endless.to_string()));
    }
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(match tls {
            rustls::Error::InvalidMessage(_) => {
                let detail = "the server does not speak TLS on this port; it may speak plain HTTP";
                (FailureKind::NotTls, detail.to_owned())
            }
            _ => (FailureKind::Tls, explain_tls(tls)),
        });
    }
    if let Some(http) = error.downcast_ref::<hyper::Error>() {
        return explain_http(http);
    }
    // hyper-util does not export the type of this error.
    let text = error.to_string();
    let reason = text.strip_prefix("tunnel error: ")?;
    // The proxy itself could not be reached: the cause says more.
    let unreached = reason.starts_with("failed to create") || reason.starts_with("io error");
    (!unreached).then(|| (FailureKind::Proxy, format!("the proxy refuses the connection: {reason}")))
}

fn explain_io(error: &io::Error) -> Option<(FailureKind, String)> {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
        NetworkUnreachable, UnexpectedEof,
    };
    let (kind, text) = match error.kind() {
        ConnectionRefused => (FailureKind::Connect, "connection refused"),
        HostUnreachable => (FailureKind::Connect, "the host is unreachable"),
        NetworkUnreachable => (FailureKind::Connect, "the network is unreachable"),
        ConnectionReset => (FailureKind::Reset, "the server reset the connection"),
        ConnectionAborted | BrokenPipe | UnexpectedEof => {
            (FailureKind::Reset, "the server closed the connection")
        }
        _ => return None,
    };
    Some((kind, text.to_owned()))
}

fn explain_http(error: &hyper::Error) -> Option<(FailureKind, String)> {
    let (kind, text) = if error.is_parse_too_large() {
        (FailureKind::HeadersTooLarge, "the answer's headers are too large")
    } else if error.is_parse() {
        (FailureKind::NotHttp, "the answer is not HTTP")
    } else if error.is_incomplete_message() {
        (FailureKind::Reset, "the server closed the connection before its answer was complete")
    } else {
        return None;
    };
    Some((kind, text.to_owned()))
}

/// The names in a certificate, which rustls gives as `DnsName("example.com")`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
    presented.iter().map(bare).collect::<Vec<_>>().join(", ")
}

fn explain_tls(error: &rustls::Error) -> String {
    use CertificateError as Cert;
    match error {
        rustls::Error::InvalidCertificate(reason) => match reason {
            Cert::Expired | Cert::ExpiredContext { .. } => "the server's certificate has expired".to_owned(),
            Cert::NotValidYet | Cert::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet (is the clock right?)".to_owned()
            }
            Cert::NotValidForName => "the server's certificate is for another host name".to_owned(),
            Cert::NotValidForNameContext { expected, presented } => format!(
                "the server's certificate is not for {}, but for {}",
                expected.to_str(),
                if presented.is_empty() { "no name at all".to_owned() } else { names(presented) }
            ),
            Cert::UnknownIssuer => {
                "the server's certificate is self-signed, or from a certificate authority that is not trusted"
                    .to_owned()
            }
            Cert::Revoked => "the server's certificate has been revoked".to_owned(),
            other => format!("the server's certificate is not acceptable: {other}"),
        },
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the server does not support TLS 1.2 or newer".to_owned()
        }
        other => other.to_string(),
    }
}
