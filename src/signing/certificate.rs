//! The little that is read of an X.509 certificate: its names, its dates, and its thumbprints.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// One certificate, of a client or a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    /// The first second of its validity, Unix time.
    pub starts_at: i64,
    pub ends_at: i64,
    /// The common name, else the organisation, else empty; for people.
    pub subject: String,
    /// The same of the authority that has signed it.
    pub issuer: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a certificate in PEM")]
pub struct NotACertificate;

impl NotACertificate {
    pub const HINT: &str =
        "write the certificate of the client first, from -----BEGIN CERTIFICATE----- to its END line";
}

impl Certificate {
    /// The first certificate of a PEM file.
    pub fn from_pem(pem: &[u8]) -> Result<Self, NotACertificate> {
        let der = CertificateDer::from_pem_slice(pem).map_err(|_| NotACertificate)?.to_vec();
        Self::from_der(&der).ok_or(NotACertificate)
    }

    /// RFC 5280 section 4.1.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (_, certificate, _) = element(der, Some(SEQUENCE))?;
        let (_, mut fields, _) = element(certificate, Some(SEQUENCE))?;
        // The version may be left out: it has a tag of its own.
        if fields.first() == Some(&0xa0) {
            fields = element(fields, None)?.2;
        }
        // Serial number, algorithm.
        for _ in 0..2 {
            fields = element(fields, None)?.2;
        }
        let (_, issuer, fields) = element(fields, Some(SEQUENCE))?;
        let (_, validity, fields) = element(fields, Some(SEQUENCE))?;
        let (_, subject, _) = element(fields, Some(SEQUENCE))?;
        let (begin_tag, begin, validity) = element(validity, None)?;
        let (end_tag, end, _) = element(validity, None)?;
        Some(Self {
            der: der.to_owned(),
            starts_at: time(begin_tag, begin)?,
            ends_at: time(end_tag, end)?,
            subject: name(subject),
            issuer: name(issuer),
        })
    }

    /// Whether it may be used at this Unix time, in seconds.
    pub fn is_valid(&self, now: i64) -> bool {
        self.starts_at <= now && now < self.ends_at
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-1, for servers that know no better.
    pub fn x5t(&self) -> String {
        thumbprint(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &self.der)
    }

    /// SHA-256.
    pub fn x5t_s256(&self) -> String {
        thumbprint(&ring::digest::SHA256, &self.der)
    }
}

const SEQUENCE: u8 = 0x30;

/// The longest name that is shown. Those of the authorities of the web have up to 64 characters.
const NAME_MAX: usize = 100;

/// The common name in a distinguished name, else the organisation, else nothing; without control characters.
fn name(mut parts: &[u8]) -> String {
    let (mut common_name, mut organisation) = (None, None);
    while let Some((_, part, rest)) = element(parts, None) {
        parts = rest;
        let pair = element(part, Some(SEQUENCE)).and_then(|(_, pair, _)| {
            let (_, key, value) = element(pair, Some(0x06))?;
            Some((key, element(value, None)?.1))
        });
        match pair {
            Some(([0x55, 0x04, 0x03], value)) => common_name = common_name.or(Some(value)),
            Some(([0x55, 0x04, 0x0a], value)) => organisation = organisation.or(Some(value)),
            _ => {}
        }
    }
    let text = String::from_utf8_lossy(common_name.or(organisation).unwrap_or_default());
    text.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect()
}

/// Section 4.1.2.5, in Unix seconds.
fn time(tag: u8, time: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(time).ok()?.strip_suffix('Z')?;
    // A UTCTime of two digits is of 1950 to 2049.
    let text = match (tag, text.len()) {
        (0x17, 12) => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        (0x18, 14) => text.to_owned(),
        _ => return None,
    };
    let at = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", &text).ok()?;
    Some(at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

/// The first element of DER: its tag, its content, and what follows. `None` if it is another than `tag`, or
/// does not fit.
fn element(der: &[u8], tag: Option<u8>) -> Option<(u8, &[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    tag.is_none_or(|tag| tag == found).then_some((found, content, rest))
}

/// A thumbprint in a header, RFC 7515 sections 4.1.7 and 4.1.8.
fn thumbprint(algorithm: &'static ring::digest::Algorithm, der: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(ring::digest::digest(algorithm, der))
}
