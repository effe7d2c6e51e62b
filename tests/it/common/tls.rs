//! TLS in front of the embedded server, with a CA made for the occasion.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::demo::{Server, Transport};

/// Starts the embedded server with HTTPS and writes the CA that vouches for it to `ca_file`.
pub fn serve(options: IssuerOptions, ca_file: &Path) -> Server {
    serve_as(Leaf::Valid, options, ca_file)
}

/// The same with this certificate.
pub fn serve_as(leaf: Leaf, options: IssuerOptions, ca_file: &Path) -> Server {
    Server::spawn_thread(0, Tls::new(leaf, ca_file), options).unwrap()
}

/// The kinds of server certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    /// All is well.
    Valid,
    /// It was valid until 2001.
    Expired,
    /// It is for another host.
    OtherName,
    /// It is signed by nobody that `ca_file` vouches for.
    Unknown,
}

/// A server's side of TLS; the CA is written to `ca_file`.
pub fn server_config(leaf: Leaf, ca_file: &Path) -> Arc<ServerConfig> {
    let ca = authority("test CA");
    let trusted = if leaf == Leaf::Unknown { authority("other CA").pem() } else { ca.pem() };
    fs::write(ca_file, trusted).unwrap();
    let key = KeyPair::generate().unwrap();
    let names: &[&str] = if leaf == Leaf::OtherName {
        &["elsewhere.test"]
    } else {
        &["localhost", "127.0.0.1", "as.test", "192.0.2.1"]
    };
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut certificate = CertificateParams::new(names).unwrap();
    if leaf == Leaf::Expired {
        certificate.not_after = date_time_ymd(2001, 1, 1);
    }
    let certificate = certificate.signed_by(&key, &ca).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    Arc::new(config)
}

/// An authority of this name.
pub fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Issuer and subject of the leaf must differ, or it counts as self-signed.
    ca.distinguished_name.push(DnType::CommonName, name);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap()
}

struct Tls(TlsAcceptor);

impl Tls {
    fn new(leaf: Leaf, ca_file: &Path) -> Self {
        Self(TlsAcceptor::from(server_config(leaf, ca_file)))
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
