//! The root certificates.
//!
//! One file is read, once; directories of single certificates are not scanned, which would cost
//! more than the handshake.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

use crate::files::read;

/// The bundles of distributions: the first that exists is used.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Arch, Gentoo, NixOS
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",   // older Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",             // openSUSE
    "/etc/ssl/cert.pem",                  // Alpine, macOS
    "/usr/local/etc/ssl/cert.pem",        // FreeBSD
];

/// The lines around a certificate, RFC 7468 section 5.
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const END: &[u8] = b"-----END CERTIFICATE-----";

/// The longest file of certificates: distributions' bundles have up to 1 MiB.
const MAX_LEN: usize = 8 << 20;

/// The hint is that of [`FailureKind::Roots`](crate::oauth::FailureKind).
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    #[error("cannot read the root certificates in {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("no usable certificate in {}", path.display())]
    Empty { path: PathBuf },
}

/// The authorities to trust.
pub(super) struct Roots {
    pub(super) store: RootCertStore,
    /// Those of the user's own file, if they are from there.
    pub(super) own: Option<OwnCertificates>,
}

/// The certificates of a file, by their SHA-256: a distribution's bundle takes a quarter of a megabyte.
#[derive(Debug, Default)]
pub(super) struct OwnCertificates(Vec<[u8; 32]>);

impl OwnCertificates {
    fn add(&mut self, certificate: &CertificateDer<'_>) {
        self.0.push(Sha256::digest(certificate).into());
    }

    /// Whether this certificate stands in the file, byte for byte.
    pub(super) fn have(&self, certificate: &CertificateDer<'_>) -> bool {
        self.0.contains(&Sha256::digest(certificate).into())
    }
}

/// The roots in `ca_file`, else in the file that SSL_CERT_FILE names, else in the first of
/// the distributions' bundles. `None` if nothing is named and no bundle exists.
pub(super) fn load(
    ca_file: Option<&Path>,
    ssl_cert_file: Option<&Path>,
) -> Result<Option<Roots>, RootsError> {
    let own = ca_file.or(ssl_cert_file);
    let bundle = || BUNDLES.iter().map(Path::new).find(|path| path.exists());
    let Some(path) = own.or_else(bundle) else { return Ok(None) };
    let unreadable = |source| RootsError::Unreadable { path: path.to_owned(), source };
    let mut roots = Roots { store: RootCertStore::empty(), own: own.map(|_| OwnCertificates::default()) };
    // In pieces: glibc keeps as much free memory as twice the largest piece that was ever given back.
    let pem = read::read_in_pieces(path, MAX_LEN).map_err(unreadable)?;
    read_bundle(pem, |certificate| roots.add(certificate)).map_err(unreadable)?;
    if roots.store.is_empty() {
        return Err(RootsError::Empty { path: path.to_owned() });
    }
    Ok(Some(roots))
}

/// Reads the certificates of a bundle. rustls decodes base64 in constant time, and took more than half of the
/// instructions of `once` for what is no secret.
fn read_bundle(mut pem: impl BufRead, mut add: impl FnMut(CertificateDer<'_>)) -> io::Result<()> {
    // One buffer for all certificates: what is kept of them then lies side by side, and nothing free in between.
    let (mut line, mut digits, mut der, mut is_inside) = (Vec::new(), Vec::new(), Vec::new(), false);
    while pem.read_until(b'\n', &mut line)? > 0 {
        match line.trim_ascii_end() {
            BEGIN => {
                is_inside = true;
                digits.clear();
            }
            END if is_inside => {
                is_inside = false;
                der.clear();
                if STANDARD.decode_vec(&digits, &mut der).is_ok() {
                    add(der.as_slice().into());
                } else {
                    // In another form, as rustls reads it. One bad certificate in a bundle must not cost all
                    // the others.
                    let section = [BEGIN, &*digits, END].join(&b'\n');
                    CertificateDer::pem_slice_iter(&section).flatten().for_each(&mut add);
                }
            }
            // Lines that end as those of an old Macintosh.
            text if text.contains(&b'\r') => {
                CertificateDer::pem_slice_iter(text).flatten().for_each(&mut add);
            }
            text if is_inside => digits.extend_from_slice(text),
            _ => {}
        }
        line.clear();
    }
    Ok(())
}

impl Roots {
    /// Adds a certificate, if it can be one of an authority.
    fn add(&mut self, certificate: CertificateDer<'_>) {
        if let Some(own) = &mut self.own {
            own.add(&certificate);
        }
        let _ = self.store.add(certificate);
    }
}

#[cfg(test)]
mod tests {
    use crate::http::roots::*;

    fn certificate() -> String {
        rcgen::generate_simple_self_signed(["as.example".to_owned()]).unwrap().cert.pem()
    }

    const ODD: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const BROKEN: &str = "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n";

    #[test]
    fn odd_certificates_are_skipped() {
        let bundle = format!("# a comment\n{ODD}{}{BROKEN}{}", certificate(), certificate());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, bundle).unwrap();
        assert_eq!(load(Some(&path), None).unwrap().unwrap().store.len(), 2);
    }

    #[test]
    fn a_bundle_may_have_any_form_that_rustls_reads() {
        let (plain, key) = (certificate(), rcgen::KeyPair::generate().unwrap().serialize_pem());
        let der = CertificateDer::from_pem_slice(plain.as_bytes()).unwrap();
        let broken_off = plain.rsplit_once("-----END").unwrap().0;
        let text = plain.replace('\n', "\n ").replace("\n -", "\n-");
        let forms =
            [&plain, plain.trim_end(), &plain.replace('\n', "\r\n"), &plain.replace('\n', " \n"), &text];
        let others = [&*plain.replace('\n', "\r"), &format!("{key}about it\n{plain}{broken_off}")];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        for form in forms.into_iter().chain(others) {
            std::fs::write(&path, form).unwrap();
            let read = load(Some(&path), None).unwrap().unwrap();
            assert_eq!(read.store.len(), 1, "{form}");
            assert!(read.own.unwrap().have(&der), "{form}");
        }
    }

    #[test]
    fn no_usable_certificate_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        for content in ["", "no PEM", ODD] {
            std::fs::write(&path, content).unwrap();
            assert!(matches!(load(Some(&path), None), Err(RootsError::Empty { .. })));
        }
        let missing = dir.path().join("missing");
        assert!(matches!(load(Some(&missing), None), Err(RootsError::Unreadable { .. })));
    }

    #[test]
    fn what_has_no_end_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
        let long = dir.path().join("long");
        std::fs::File::create(&long).unwrap().set_len(MAX_LEN as u64 + 1).unwrap();
        for path in [fifo.as_path(), Path::new("/dev/zero"), long.as_path()] {
            assert!(matches!(load(Some(path), None), Err(RootsError::Unreadable { .. })), "{path:?}");
        }
    }

    #[test]
    fn ca_file_goes_before_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::write(&one, certificate()).unwrap();
        std::fs::write(&two, certificate() + &certificate()).unwrap();
        let count = |ca_file, ssl| load(ca_file, ssl).unwrap().unwrap().store.len();
        assert_eq!(count(Some(one.as_path()), Some(two.as_path())), 1);
        assert_eq!(count(None, Some(two.as_path())), 2);
    }
}
