//! One connection for one exchange: TCP, a proxy's tunnel, TLS, and HTTP/1.1 over it.
//!
//! Built from the parts that reqwest is built from. reqwest itself reads interim answers (HTTP 1xx)
//! for as long as they come, at the cost of a processor, and tells nobody of them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::error::Error;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::vec::IntoIter;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::ext::on_informational;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::sync::watch::Receiver;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::clock::monotonic;
use crate::http::proxy::{HttpsProxy, place};
use crate::http::tunnel::{TunnelError, connect, socks5};
use crate::workers;

/// Interim answers in one exchange. HTTP/1.1 knows few uses for them: a server that says every second
/// that it is still busy (102) sends 30.
const INTERIM_MAX: usize = 100;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// How long a name stands for the addresses that were found, in milliseconds: a wave of a thousand accounts
/// takes seconds, and each lookup a thread.
const ADDRESSES_FRESH: i64 = 1000;

/// How connections are made.
pub(super) struct Connector {
    /// Resumes the sessions of earlier connections, if the config permits it.
    tls: TlsConnector,
    /// Resumes none. It takes the place of the other one once a handshake has failed.
    tls_anew: TlsConnector,
    /// Whether no handshake has failed yet.
    resumes: AtomicBool,
    /// The names that were looked up.
    names: Arc<Names>,
    /// The proxy for https, if there is one.
    proxy: Option<HttpsProxy>,
}

impl Connector {
    pub(super) fn new(tls: ClientConfig, proxy: Option<HttpsProxy>) -> Self {
        let mut anew = tls.clone();
        anew.resumption = Resumption::disabled();
        let (tls, tls_anew) = (TlsConnector::from(Arc::new(tls)), TlsConnector::from(Arc::new(anew)));
        Self { tls, tls_anew, resumes: AtomicBool::new(true), names: Arc::default(), proxy }
    }

    /// Host and port of the proxy for this URL.
    pub(super) fn proxy_for(&self, uri: &Uri) -> Option<String> {
        self.proxy.as_ref()?.intercept(uri).map(|proxy| place(&proxy))
    }

    /// Connects to the server of this URL. Nothing of the request is sent.
    pub(super) async fn connect(&self, uri: &Uri) -> Result<Wire, BoxError> {
        let stream = match self.proxy.as_ref().and_then(|proxy| proxy.intercept(uri)) {
            None => Box::new(self.tcp(uri).await?),
            Some(proxy) => {
                let tunnel = Box::pin(self.tunnel(&proxy, uri)).await;
                tunnel.map_err(|source| ProxyError { proxy: place(&proxy), source })?
            }
        };
        if uri.scheme_str() == Some("https") {
            return Ok(TokioIo::new(Box::new(self.secure(uri, stream).await?)));
        }
        Ok(TokioIo::new(stream))
    }

    /// A connection to the server by the proxy.
    async fn tunnel(&self, proxy: &Intercept, uri: &Uri) -> Result<Box<dyn ByteStream>, BoxError> {
        let scheme = proxy.uri().scheme_str().unwrap_or_default();
        let (host, port) = (host(uri), uri.port_u16().unwrap_or(HTTPS));
        let mut stream = self.tcp(proxy.uri()).await?;
        match scheme {
            "http" | "https" => {
                let target = format!("{}:{port}", uri.host().unwrap_or_default());
                if scheme == "http" {
                    connect(&mut stream, &target, proxy.basic_auth()).await?;
                    return Ok(Box::new(stream));
                }
                let mut secured = self.secure(proxy.uri(), Box::new(stream)).await?;
                connect(&mut secured, &target, proxy.basic_auth()).await?;
                return Ok(Box::new(secured));
            }
            // The h of socks5h: the proxy resolves the name.
            "socks5" => {
                let unresolved = |error: ResolveError| {
                    TunnelError::Name(format!(
                        "gets addresses, and {host} cannot be resolved here ({error}): socks5h:// lets the proxy resolve it"
                    ))
                };
                let mut addresses = lookup(host.to_owned(), port).await.map_err(unresolved)?;
                let address = addresses.next().map(|address| address.ip().to_string());
                let address = address.unwrap_or_else(|| host.to_owned());
                socks5(&mut stream, (&address, port), proxy.raw_auth()).await?;
            }
            _ => socks5(&mut stream, (host, port), proxy.raw_auth()).await?,
        }
        Ok(Box::new(stream))
    }

    async fn secure(
        &self,
        uri: &Uri,
        stream: Box<dyn ByteStream>,
    ) -> Result<TlsStream<Box<dyn ByteStream>>, BoxError> {
        let name = ServerName::try_from(host(uri).to_owned())?;
        let tls = if self.resumes.load(Ordering::Relaxed) { &self.tls } else { &self.tls_anew };
        let secured = tls.connect(name, stream).await;
        if secured.is_err() {
            self.resumes.store(false, Ordering::Relaxed);
        }
        Ok(secured?)
    }

    async fn tcp(&self, uri: &Uri) -> Result<TcpStream, BoxError> {
        let mut tcp = HttpConnector::new_with_resolver(Resolver(Arc::clone(&self.names)));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        Ok(tcp.call(uri.clone()).await?.into_inner())
    }
}

/// The port of https, where a URL has none.
const HTTPS: u16 = 443;

/// The proxy cannot be reached, or leads nowhere.
#[derive(Debug, thiserror::Error)]
#[error("the proxy {proxy}")]
pub(super) struct ProxyError {
    /// Host and port.
    pub(super) proxy: String,
    pub(super) source: BoxError,
}

/// The host of a URL, an address of IPv6 without its brackets.
fn host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

/// A connection of any kind.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

/// A connection to the server, for hyper.
pub(super) type Wire = TokioIo<Box<dyn ByteStream>>;

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
    wire: Wire,
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
    wire: Wire,
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
struct Resolver(Arc<Names>);

/// The addresses of names, each with the time when they were found.
type KnownNames = BTreeMap<String, (i64, Vec<SocketAddr>)>;

#[derive(Default)]
struct Names(Mutex<KnownNames>);

impl Names {
    fn known(&self) -> MutexGuard<'_, KnownNames> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of the host is not known, or the name server does not answer. Several may have asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub(super) struct ResolveError(Arc<io::Error>);

impl Service<Name> for Resolver {
    type Response = IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ResolveError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ResolveError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (names, name) = (Arc::clone(&self.0), name.as_str().to_owned());
        Box::pin(async move {
            let known =
                names.known().get(&name).filter(|known| monotonic() - known.0 < ADDRESSES_FRESH).cloned();
            if let Some((_, addresses)) = known {
                return Ok(addresses.into_iter());
            }
            let addresses = lookup(name.clone(), 0).await?;
            names.known().insert(name, (monotonic(), addresses.as_slice().to_vec()));
            Ok(addresses)
        })
    }
}

/// A name and a port.
type HostPort = (String, u16);
type Addresses = Result<Vec<SocketAddr>, ResolveError>;

/// The lookups under way. The accounts of a wave ask for the same name at the same time, and each lookup
/// of its own would take a thread.
static LOOKUPS: Mutex<BTreeMap<HostPort, Receiver<Option<Addresses>>>> = Mutex::new(BTreeMap::new());

fn lookups() -> MutexGuard<'static, BTreeMap<HostPort, Receiver<Option<Addresses>>>> {
    LOOKUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One lookup, which ends when it is dropped: its exchange may end before the answer comes.
struct Lookup(HostPort);

impl Drop for Lookup {
    fn drop(&mut self) {
        lookups().remove(&self.0);
    }
}

async fn lookup(name: String, port: u16) -> Result<IntoIter<SocketAddr>, ResolveError> {
    let place = (name, port);
    let (found, addresses) = watch::channel(None);
    let lookup = loop {
        let other = match lookups().entry(place.clone()) {
            Entry::Occupied(other) => other.get().clone(),
            Entry::Vacant(vacant) => {
                vacant.insert(addresses);
                break Lookup(place);
            }
        };
        if let Some(addresses) = answer(other).await {
            return addresses.map(Vec::into_iter);
        }
        // Its exchange has ended without an answer.
    };
    let (name, port) = lookup.0.clone();
    let addresses = workers::run_lookup(move || (name.as_str(), port).to_socket_addrs()).await;
    let addresses = addresses.map(Iterator::collect).map_err(|error| ResolveError(Arc::new(error)));
    // From now on a lookup begins anew.
    drop(lookup);
    found.send_replace(Some(addresses.clone()));
    addresses.map(Vec::into_iter)
}

async fn answer(mut lookup: Receiver<Option<Addresses>>) -> Option<Addresses> {
    lookup.wait_for(Option::is_some).await.ok()?.clone()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use crate::http::connection::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn those_who_ask_at_the_same_time_get_the_same_answer() {
        runtime().block_on(async {
            let ask = || lookup("localhost".into(), 7);
            let (first, second) = tokio::join!(ask(), ask());
            assert_eq!(first.unwrap().collect::<Vec<_>>(), second.unwrap().collect::<Vec<_>>());
            let ask = || lookup("no such name".into(), 7);
            let (first, second) = tokio::join!(ask(), ask());
            assert_eq!(first.unwrap_err().to_string(), second.unwrap_err().to_string());
        });
        assert!(!lookups().keys().any(|(_, port)| *port == 7));
    }

    #[test]
    fn an_exchange_that_ends_early_leaves_the_lookup_to_the_others() {
        runtime().block_on(async {
            let mut first = Box::pin(lookup("localhost".into(), 8));
            let mut second = Box::pin(lookup("localhost".into(), 8));
            // The first is under way, and the second waits for it.
            let _ = timeout(Duration::ZERO, &mut first).await;
            let waits = timeout(Duration::ZERO, &mut second).await;
            drop(first);
            assert!(match waits {
                Ok(answer) => answer.is_ok(),
                Err(_) => second.await.is_ok(),
            });
        });
    }
}
