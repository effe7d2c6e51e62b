//! The check of a server's certificate: that of rustls, with the certificate's names and dates where it
//! fails. One thing more is trusted: a certificate that stands byte for byte in the user's own file, also
//! if it is that of an authority (`openssl req -x509` makes no other). curl takes it as well.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use crate::http::roots::OwnCertificates;
use crate::oauth::FailureKind;
use crate::signing::certificate::Certificate;

#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) standard: Arc<WebPkiServerVerifier>,
    /// The certificates in the user's own file; without one, the system's authorities count alone.
    pub(super) own: Option<OwnCertificates>,
}

/// The fault of a certificate.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub(super) struct BadCertificate {
    pub(super) kind: FailureKind,
    pub(super) detail: String,
}

impl Verifier {
    /// A certificate of the user's own file needs no authority, but the right name and time.
    fn check_own(
        certificate: &CertificateDer<'_>,
        read: &Certificate,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if seconds < read.starts_at {
            return Err(CertificateError::NotValidYet);
        }
        if seconds > read.ends_at {
            return Err(CertificateError::Expired);
        }
        match ParsedCertificate::try_from(certificate).and_then(|parsed| verify_server_name(&parsed, name)) {
            Ok(()) => Ok(()),
            Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                presented, ..
            })) if presented.is_empty() && read.subject.eq_ignore_ascii_case(&name.to_str()) => {
                // Old tools write the name of the host there alone.
                Ok(())
            }
            Err(Error::InvalidCertificate(reason)) => Err(reason),
            Err(_) => Err(CertificateError::BadEncoding),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.standard.verify_server_cert(certificate, intermediates, name, ocsp_response, now);
        let Err(Error::InvalidCertificate(mut reason)) = verified else { return verified };
        let read = Certificate::from_der(certificate);
        let is_own = self.own.as_ref().is_some_and(|own| own.have(certificate));
        if let Some(read) = read.as_ref().filter(|_| is_own) {
            match Self::check_own(certificate, read, name, now) {
                Ok(()) => return Ok(ServerCertVerified::assertion()),
                Err(why) => reason = why,
            }
        }
        let bad = explain(&reason, read.as_ref(), self.own.is_some());
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(bad)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.standard.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.standard.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.standard.supported_verify_schemes()
    }
}

/// The reason in words. `has_file`: the user has named a file of authorities.
pub(super) fn explain(
    reason: &CertificateError,
    certificate: Option<&Certificate>,
    has_file: bool,
) -> BadCertificate {
    use CertificateError as Reason;
    let on = |at: fn(&Certificate) -> i64| certificate.map(|read| date(at(read)));
    let authority = if has_file { FailureKind::OtherAuthority } else { FailureKind::Authority };
    let (kind, what) = match reason {
        Reason::Expired | Reason::ExpiredContext { .. } => {
            let on = on(|read| read.ends_at).map(|date| format!(": it was valid until {date}"));
            (FailureKind::Validity, format!("has expired{}", on.unwrap_or_default()))
        }
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => {
            let on = on(|read| read.starts_at).map(|date| format!(": it begins at {date}"));
            (FailureKind::Validity, format!("is not valid yet{}", on.unwrap_or_default()))
        }
        Reason::NotValidForName => (FailureKind::Name, "is for another host name".to_owned()),
        Reason::NotValidForNameContext { expected, presented } => {
            let names = if presented.is_empty() { "no name at all".to_owned() } else { names(presented) };
            (FailureKind::Name, format!("is not for {}, but for {names}", expected.to_str()))
        }
        reason if is_of_unknown_authority(reason) => match certificate {
            Some(read) if read.issuer == read.subject => {
                (authority, "is self-signed and not trusted".to_owned())
            }
            Some(read) => {
                let issuer = named(&read.issuer);
                (authority, format!("is from a certificate authority that is not trusted: {issuer}"))
            }
            None => {
                (authority, "is self-signed, or from a certificate authority that is not trusted".to_owned())
            }
        },
        Reason::Revoked => (FailureKind::Tls, "has been revoked".to_owned()),
        Reason::BadEncoding => (FailureKind::Tls, "is damaged".to_owned()),
        Reason::BadSignature => (FailureKind::Tls, "has a wrong signature".to_owned()),
        Reason::InvalidPurpose | Reason::InvalidPurposeContext { .. } => {
            (FailureKind::Tls, "is not one for a server".to_owned())
        }
        _ => (FailureKind::Tls, "is of a kind that is not supported".to_owned()),
    };
    // Its other names are told already.
    let whose = certificate.filter(|_| kind != FailureKind::Name);
    let whose = whose.map(|read| format!(" ({})", named(&read.subject))).unwrap_or_default();
    BadCertificate { kind, detail: format!("the server's certificate{whose} {what}") }
}

/// Unix seconds for people, in the time of certificates.
fn date(at: i64) -> String {
    let text = jiff::Timestamp::from_second(at).map(|at| at.strftime("%Y-%m-%d %H:%M UTC").to_string());
    text.unwrap_or_else(|_| at.to_string())
}

fn named(name: &str) -> &str {
    if name.is_empty() { "without a name" } else { name }
}

/// A server that shows the certificate of an authority shows its own, or one of a chain: rustls has no word
/// for that.
fn is_of_unknown_authority(reason: &CertificateError) -> bool {
    match reason {
        CertificateError::UnknownIssuer => true,
        CertificateError::Other(other) => other.to_string() == "CaUsedAsEndEntity",
        _ => false,
    }
}

/// The names in a certificate, which rustls gives as `DnsName("example.com")`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
    presented.iter().map(bare).collect::<Vec<_>>().join(", ")
}
