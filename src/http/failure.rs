//! Errors of a connection in our words: how far the request got, and why not further.

use std::error::Error;
use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, OtherError};

use crate::http::connection::{EndlessInterim, ProxyError, ResolveError};
use crate::http::tunnel::TunnelError;
use crate::http::verifier;
use crate::http::verifier::BadCertificate;
use crate::oauth::{FailureKind, Sent, TransportFailure};

/// Classifies an error of a connection or of an exchange by its causes.
pub(super) fn failure(error: &(dyn Error + 'static), sent: Sent) -> TransportFailure {
    let (kind, detail) = if let Some(error) = error.downcast_ref::<ProxyError>() {
        explain_proxy(error)
    } else if let Some(cause) = causes(error).find_map(explain) {
        cause
    } else if causes(error).any(<dyn Error>::is::<ResolveError>) {
        (FailureKind::Dns, format!("the host name cannot be resolved: {}", root(error)))
    } else if sent == Sent::NotSent {
        (FailureKind::Connect, root(error))
    } else {
        (FailureKind::Other, root(error))
    };
    TransportFailure { sent, kind, detail }
}

/// The same words for a connection that is no HTTP.
#[cfg(feature = "fleet")]
pub fn words(error: &(dyn Error + 'static)) -> String {
    failure(error, Sent::NotSent).detail
}

/// The proxy's word, or why there is none.
fn explain_proxy(ProxyError { proxy, source }: &ProxyError) -> (FailureKind, String) {
    let (kind, what) = match source.downcast_ref() {
        Some(TunnelError::Login(what)) => (FailureKind::ProxyLogin, what.clone()),
        Some(TunnelError::Target(what)) => (FailureKind::ProxyTarget, what.clone()),
        Some(error @ (TunnelError::Protocol(_) | TunnelError::Name(_))) => {
            (FailureKind::Proxy, error.to_string())
        }
        io => {
            let detail = match io {
                Some(TunnelError::Io(error)) => failure(error, Sent::NotSent).detail,
                _ => failure(&**source, Sent::NotSent).detail,
            };
            let what = detail.replacen("the server's", "its", 1).replacen("the server ", "it ", 1);
            (FailureKind::Proxy, format!("cannot be reached: {what}"))
        }
    };
    (kind, format!("the proxy {proxy} {what}"))
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
            _ => explain_tls(tls),
        });
    }
    error.downcast_ref().and_then(explain_http)
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

fn explain_tls(error: &rustls::Error) -> (FailureKind, String) {
    use AlertDescription as Alert;
    let text = match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(own)))
            if let Some(bad) = own.downcast_ref::<BadCertificate>() =>
        {
            return (bad.kind, bad.detail.clone());
        }
        rustls::Error::InvalidCertificate(reason) => {
            let BadCertificate { kind, detail } = verifier::explain(reason, None, false);
            return (kind, detail);
        }
        rustls::Error::AlertReceived(Alert::ProtocolVersion) => {
            "the server does not support TLS 1.2 or newer".to_owned()
        }
        rustls::Error::AlertReceived(Alert::HandshakeFailure) | rustls::Error::PeerIncompatible(_) => {
            "the server has no cipher of TLS 1.2 or newer in common with this program, or wants a client certificate"
                .to_owned()
        }
        rustls::Error::AlertReceived(Alert::CertificateRequired) => {
            "the server wants a client certificate".to_owned()
        }
        rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::UnsupportedCertificate,
        ) => "the server refuses the client certificate".to_owned(),
        rustls::Error::AlertReceived(Alert::UnrecognisedName) => {
            "the server does not know this host name".to_owned()
        }
        rustls::Error::AlertReceived(alert) => {
            format!("the server ends the TLS handshake with alert {}", u8::from(*alert))
        }
        rustls::Error::General(text) => format!("TLS failed: {text}"),
        _ => "the server breaks the rules of TLS".to_owned(),
    };
    (FailureKind::Tls, text)
}
