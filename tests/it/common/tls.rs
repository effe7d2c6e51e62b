//! TLS in front of the embedded server, with a CA made for the occasion.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zg_tokend::demo::issuer::Options;
use zg_tokend::demo::server::{Server, Transport};

/// Starts the embedded server with HTTPS and writes the CA that vouches for it to `ca_file`.
pub fn serve(options: Options, ca_file: &Path) -> Server {
    Server::spawn_thread(0, Tls::new(ca_file), options).unwrap()
}

struct Tls(TlsAcceptor);

impl Tls {
    fn new(ca_file: &Path) -> Self {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Issuer and subject of the leaf must differ, or it counts as self-signed.
        ca.distinguished_name.push(DnType::CommonName, "test CA");
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        fs::write(ca_file, ca.pem()).unwrap();

        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        Self(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Transport for Tls {
    type Stream = TlsStream<TcpStream>;

    fn url(&self, address: SocketAddr) -> String {
        format!("https://localhost:{}", address.port())
    }

    async fn wrap(&self, connection: TcpStream) -> io::Result<Self::Stream> {
        self.0.accept(connection).await
    }
}
