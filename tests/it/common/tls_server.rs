//! Servers for the tests: they do to a connection what a script says, with or without TLS.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A listener on a free port of 127.0.0.1. Stops when dropped.
pub(super) struct Server {
    pub(super) port: u16,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    /// Runs `script` over each connection, one after the other.
    pub(super) async fn start(script: impl AsyncFn(TcpStream) + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        // spawn_local: scripts need not be Send.
        let task = tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                script(stream).await;
            }
        });
        Self { port, connections, task }
    }

    /// Answers each request with `reply`, and closes.
    pub(super) async fn answering(reply: impl Into<Vec<u8>>) -> Self {
        let reply = reply.into();
        Self::start(async move |mut stream| answer(&mut stream, &reply).await).await
    }

    /// The same over TLS.
    pub(super) async fn answering_tls(authority: &Authority, leaf: Leaf, reply: &str) -> Self {
        let (acceptor, reply) = (authority.acceptor(leaf), reply.to_owned());
        Self::start(async move |stream| {
            // A client that dislikes the certificate goes away here.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                answer(&mut stream, reply.as_bytes()).await;
            }
        })
        .await
    }

    pub(super) fn url(&self, scheme: &str) -> url::Url {
        format!("{scheme}://127.0.0.1:{}/token", self.port).parse().unwrap()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), reply: &[u8]) {
    read_request(stream).await;
    // A client that has seen enough may be gone.
    let _ = stream.write_all(reply).await;
    let _ = stream.shutdown().await;
}

/// Reads a whole request: the head, and as many bytes as its Content-Length says.
pub(super) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "the request broke off");
        bytes.extend_from_slice(&buffer[..read]);
    }
}

/// A reply with its Content-Length.
pub(super) fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A certificate authority of the test's own.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// Its own certificate and key, which its server shows in place of a leaf.
    own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
}

/// The kinds of server certificates.
#[derive(Clone, Copy)]
pub(super) enum Leaf {
    For(&'static str),
    Expired,
    NotValidYet,
}

impl Leaf {
    fn params(self) -> CertificateParams {
        let name = if let Self::For(name) = self { name } else { "127.0.0.1" };
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        match self {
            Self::For(_) => {}
            Self::Expired => params.not_after = date_time_ymd(2001, 1, 1),
            Self::NotValidYet => params.not_before = date_time_ymd(4000, 1, 1),
        }
        params
    }
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem, own: None }
    }

    /// An authority whose server has its own certificate.
    pub(super) fn of_itself(name: &str, leaf: Leaf) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf.params();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        let own = Some((der, PrivateKeyDer::Pkcs8(key.serialize_der().into())));
        Self { issuer: Issuer::new(params, key), pem, own }
    }

    /// Writes the authority's own certificate.
    pub(super) fn ca_file(&self, dir: &tempfile::TempDir) -> PathBuf {
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, &self.pem).unwrap();
        path
    }

    pub(super) fn acceptor(&self, leaf: Leaf) -> TlsAcceptor {
        let own = self.own.as_ref().map(|(certificate, key)| (certificate.clone(), key.clone_key()));
        let (certificate, key) = own.unwrap_or_else(|| {
            let key = KeyPair::generate().unwrap();
            let certificate = leaf.params().signed_by(&key, &self.issuer).unwrap();
            (certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        });
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A port that refuses connections, and that nobody else gets, while the socket is kept.
pub(super) fn closed_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}
