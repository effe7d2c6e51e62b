//! One connection for one exchange: TCP, a proxy's tunnel, TLS, and HTTP/1.1 over it.
//!
//! Built from the parts that reqwest is built from. reqwest itself reads interim answers (HTTP 1xx)
//! for as long as they come, at the cost of a processor, and tells nobody of them.

use std::error::Error;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::vec::IntoIter;

use crate::http::proxy::HttpsProxy;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::ext::on_informational;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use rustls::ClientConfig;
use tokio::task::JoinHandle;
use tower_service::Service;

use crate::workers;

/// Interim answers in one exchange. HTTP/1.1 knows few uses for them: a server that says every second
/// that it is still busy (102) sends 30.
const INTERIM_MAX: usize = 100;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// How connections are made.
pub(super) struct Connector {
    tls: Arc<ClientConfig>,
    /// The proxy for https, if there is one.
    proxy: Option<HttpsProxy>,
}

impl Connector {
    pub(super) fn new(tls: ClientConfig, proxy: Option<HttpsProxy>) -> Self {
        Self { tls: Arc::new(tls), proxy }
    }

    /// Connects to the server of this URL. Nothing of the request is sent.
    pub(super) async fn connect(&self, uri: &Uri) -> Result<Box<dyn Wire>, BoxError> {
        let mut tcp = HttpConnector::new_with_resolver(Resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let mut direct = HttpsConnector::from((tcp, Arc::clone(&self.tls)));
        let Some(proxy) = self.proxy.as_ref().and_then(|proxy| proxy.intercept(uri)) else {
            return Ok(Box::new(direct.call(uri.clone()).await?));
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), direct);
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let mut tunnelled = HttpsConnector::from((tunnel, Arc::clone(&self.tls)));
        Ok(Box::new(tunnelled.call(uri.clone()).await?))
    }
}

/// A connection.
pub(super) trait Wire: Read + Write + Unpin + Send {}

impl<T: Read + Write + Unpin + Send> Wire for T {}

/// The head of an answer. Its body is read from the connection, which is closed when this is dropped.
pub(super) struct HttpExchange {
    pub(super) response: Response<Incoming>,
    _driver: Driver,
}

struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends the request, and waits for the head of the answer.
pub(super) async fn send(
    wire: Box<dyn Wire>,
    mut request: Request<Full<Bytes>>,
) -> Result<HttpExchange, hyper::Error> {
    let interim = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&interim);
    on_informational(&mut request, move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let (mut sender, connection) = http1::handshake(BoundedWire { wire, interim }).await?;
    let driver = Driver(tokio::spawn(async {
        // The one who waits for the answer gets the error.
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await?;
    Ok(HttpExchange { response, _driver: driver })
}

/// The server sends interim answers and no final one.
#[derive(Debug, thiserror::Error)]
#[error("the server sends interim answers (HTTP 1xx) without end")]
pub(super) struct EndlessInterim;

/// A connection that ends after [`INTERIM_MAX`] interim answers.
struct BoundedWire {
    wire: Box<dyn Wire>,
    interim: Arc<AtomicUsize>,
}

impl Read for BoundedWire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.interim.load(Ordering::Relaxed) > INTERIM_MAX {
            return Poll::Ready(Err(io::Error::other(EndlessInterim)));
        }
        Pin::new(&mut self.wire).poll_read(context, buffer)
    }
}

impl Write for BoundedWire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}

/// Resolves names by getaddrinfo(3), on a thread if one can be had: the resolver of hyper-util panics if
/// not.
#[derive(Clone)]
struct Resolver;

/// The name of the host is not known, or the name server does not answer.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct ResolveError(#[from] io::Error);

impl Service<Name> for Resolver {
    type Response = IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ResolveError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ResolveError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move { Ok(workers::run_lookup(move || (name.as_str(), 0).to_socket_addrs()).await?) })
    }
}
