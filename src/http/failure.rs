//! What went wrong in reqwest, in our words: how far the request got, and why not further.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};

use crate::oauth::{FailureKind, Sent, TransportFailure};

/// What was being done when it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Connecting, sending, waiting for the headers.
    Sending {
        /// Host and port of the proxy that it goes by: then this is what could not be reached.
        proxy: Option<String>,
    },
    /// Reading the body.
    Reading,
}

/// Judges an error of reqwest's by its causes. Its own text has the URL and is never used.
pub(super) fn failure(error: &reqwest::Error, stage: Stage) -> TransportFailure {
    // reqwest calls it "connect" until TCP, the proxy's tunnel and TLS are all up.
    let connecting = error.is_connect() || error.is_builder();
    let sent = if connecting { Sent::NotSent } else { Sent::PerhapsSent };
    let (kind, detail) = if error.is_timeout() {
        let during = if connecting { "connecting" } else { "waiting for the answer" };
        (FailureKind::Timeout, format!("the time ran out while {during}"))
    } else if let Some(cause) = causes(error).find_map(explain) {
        cause
    } else if error.is_dns() {
        (FailureKind::Dns, format!("the host name cannot be resolved: {}", root(error)))
    } else if connecting {
        (FailureKind::Connect, root(error))
    } else {
        (FailureKind::Other, root(error))
    };
    match (kind, stage) {
        (FailureKind::Connect | FailureKind::Dns, Stage::Sending { proxy: Some(proxy) }) => {
            let detail = format!("the proxy {proxy} cannot be reached: {detail}");
            TransportFailure { sent, kind: FailureKind::Proxy, detail }
        }
        _ => TransportFailure { sent, kind, detail },
    }
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |error| (*error).source())
}

/// The innermost cause's text.
fn root(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| "for no stated reason".to_owned(), ToString::to_string)
}

/// One cause, if it is of a kind that has a name.
fn explain(error: &(dyn Error + 'static)) -> Option<(FailureKind, String)> {
    if let Some(io) = error.downcast_ref::<io::Error>() {
        // An io::Error's source() skips what it wraps.
        return io.get_ref().and_then(|inner| explain(inner)).or_else(|| explain_io(io));
    }
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some((FailureKind::Tls, explain_tls(tls)));
    }
    if let Some(http) = error.downcast_ref::<hyper::Error>() {
        return explain_http(http);
    }
    // hyper-util does not export this one's type.
    let text = error.to_string();
    let reason = text.strip_prefix("tunnel error: ")?;
    // The proxy itself could not be reached: the cause says more.
    let unreached = reason.starts_with("failed to create") || reason.starts_with("io error");
    (!unreached).then(|| (FailureKind::Proxy, format!("the proxy does not let it through: {reason}")))
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
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => {
            (FailureKind::Reset, "the server broke the connection off")
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
                "the server's certificate is issued by an authority that is not trusted here".to_owned()
            }
            Cert::Revoked => "the server's certificate has been revoked".to_owned(),
            other => format!("the server's certificate is not acceptable: {other}"),
        },
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS on this port".to_owned(),
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the server speaks no TLS version from 1.2 on".to_owned()
        }
        other => other.to_string(),
    }
}
