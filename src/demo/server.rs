//! The issuer on a loopback port.
//!
//! | request | what for |
//! | --- | --- |
//! | `POST /token`, `/revoke`, `/introspect` | RFC 6749, 7009, 7662 |
//! | `GET /.well-known/oauth-authorization-server`, `/.well-known/openid-configuration` | discovery |
//! | `GET /authorize`, `/device` | the consent page, where the form posts to the same address |
//! | `POST /device_authorization` | RFC 8628 |
//! | `GET /resource` | 200 for a live Bearer token |
//! | `POST /seed` | a first refresh token, for the `client_id` in the form or the first client |
//! | `POST /faults` | replaces all of [`Faults`] by the JSON in the body |
//! | `GET /audit` | the audit log as JSON |

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::clock::{Clock, SystemClock, Timestamp, millis};
use crate::demo::audit::AuditEntry;
use crate::demo::body::{Body, Dropped};
use crate::demo::faults::{Fault, Faults, Outage};
use crate::demo::issuer::{Issuer, IssuerOptions};
use crate::demo::message::{DemoReply, DemoRequest, Refused, parameter};
use crate::secret::Secret;

/// The longest request body read. Token requests are a few hundred bytes; a scripted fault may
/// carry a reply just over the 1 MiB at which a client gives up.
const MAX_REQUEST: usize = 4 << 20;

/// How long to wait when accept(2) fails. It does for want of descriptors, and would fail again
/// at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The port is not available.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The kernel gives no random bytes (getrandom(2)).
    #[error("no random bytes for the tokens")]
    Random {
        /// Why not.
        source: getrandom::Error,
    },
    /// No thread, or no runtime in it.
    #[error("cannot start the server's thread")]
    Thread {
        /// Why not.
        source: io::Error,
    },
}

impl ServerError {
    /// The way out.
    pub fn hint(&self) -> String {
        let hint = match self {
            Self::Listen { .. } => "choose another port, or 0 for any that is free",
            Self::Random { .. } => "allow getrandom(2) in the sandbox",
            Self::Thread { .. } => "raise the limit of threads: ulimit -u",
        };
        hint.to_owned()
    }
}

/// The layer between TCP and HTTP: nothing, or TLS in the tests.
pub trait Transport: Send + Sync + 'static {
    /// The stream below HTTP.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The base URL of a server at this address, without a slash at the end.
    fn url(&self, address: SocketAddr) -> String;

    /// Makes an accepted connection ready for HTTP. An error closes it.
    fn wrap(&self, connection: TcpStream) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Plain HTTP.
pub struct Plain;

impl Transport for Plain {
    type Stream = TcpStream;

    fn url(&self, address: SocketAddr) -> String {
        format!("http://{address}")
    }

    async fn wrap(&self, connection: TcpStream) -> io::Result<TcpStream> {
        Ok(connection)
    }
}

/// A server that runs until this is dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts on 127.0.0.1 and this port (0: any that is free), in a thread of its own that ends
    /// when the server is dropped. `options.random` is overwritten with bytes from the kernel.
    pub fn spawn_thread<T: Transport>(
        port: u16,
        transport: T,
        mut options: IssuerOptions,
    ) -> Result<Self, ServerError> {
        getrandom::fill(&mut options.random).map_err(|source| ServerError::Random { source })?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let bound = std::net::TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        });
        let (address, listener) = bound.map_err(|source| ServerError::Listen { address, source })?;
        let thread_error = |source| ServerError::Thread { source };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(thread_error)?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener).map_err(thread_error)?
        };
        let clock = SystemClock::new();
        options.url = transport.url(address);
        let shared = Arc::new(Shared {
            url: options.url.clone(),
            started_at: clock.now(),
            clock,
            state: Mutex::new(ServerState { issuer: Issuer::new(options), faults: Faults::default() }),
        });
        let (stop, stopped) = oneshot::channel();
        let accepted = accept(listener, Arc::new(transport), Arc::clone(&shared), stopped);
        let thread = std::thread::Builder::new()
            .name("demo-server".to_owned())
            .spawn(move || runtime.block_on(accepted))
            .map_err(thread_error)?;
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL, which is also the issuer identifier of discovery.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// Where refresh tokens are exchanged.
    pub fn token_endpoint(&self) -> String {
        format!("{}/token", self.shared.url)
    }

    /// Milliseconds since 1970 on the server's clock: the wall clock when it started, and the
    /// boot clock from there, so that a set clock does not change what is alive.
    pub fn now(&self) -> i64 {
        self.shared.now()
    }

    /// Reads or changes the issuer.
    pub fn issuer<R>(&self, with: impl FnOnce(&mut Issuer) -> R) -> R {
        with(&mut self.shared.state().issuer)
    }

    /// A first refresh token of a new family, for this client; `None` if it is not registered.
    pub fn seed(&self, client_id: &str) -> Option<Secret> {
        let now = self.now();
        self.issuer(|issuer| issuer.seed(now, client_id))
    }

    /// True while the resource accepts this access token.
    pub fn is_live(&self, access_token: &Secret) -> bool {
        let now = self.now();
        self.issuer(|issuer| issuer.is_live(now, access_token))
    }

    /// The requests so far, oldest first.
    pub fn audit(&self) -> Vec<AuditEntry> {
        self.issuer(|issuer| issuer.audit().to_vec())
    }

    /// Scripts what goes wrong.
    pub fn faults(&self, script: impl FnOnce(&mut Faults)) {
        script(&mut self.shared.state().faults);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there has been printed over there.
            _ = thread.join();
        }
    }
}

struct Shared {
    url: String,
    clock: SystemClock,
    started_at: Timestamp,
    state: Mutex<ServerState>,
}

struct ServerState {
    issuer: Issuer,
    faults: Faults,
}

impl Shared {
    fn now(&self) -> i64 {
        self.started_at.wall + millis(self.clock.now().since(self.started_at))
    }

    fn state(&self) -> MutexGuard<'_, ServerState> {
        // A test that panicked while it scripted a fault must not take the server along.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts until stopped; the connections end with it.
async fn accept<T: Transport>(
    listener: TcpListener,
    transport: Arc<T>,
    shared: Arc<Shared>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = &mut stopped => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((connection, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let now = shared.now();
        let mut state = shared.state();
        if state.faults.outage == Some(Outage::Closed) {
            state.issuer.note_hangup(now);
        } else {
            connections.spawn(serve(connection, Arc::clone(&transport), Arc::clone(&shared)));
        }
    }
}

async fn serve<T: Transport>(connection: TcpStream, transport: Arc<T>, shared: Arc<Shared>) {
    // Replies are small and written at once: Nagle's algorithm would only hold them back.
    _ = connection.set_nodelay(true);
    let Ok(stream) = transport.wrap(connection).await else { return };
    let service = hyper::service::service_fn(|request| respond(Arc::clone(&shared), request));
    // An error here is a client that left or a fault that was asked for.
    _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(shared: Arc<Shared>, request: hyper::Request<Incoming>) -> Result<Response<Body>, Dropped> {
    let (head, body) = request.into_parts();
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let whole = |reply| response(reply, &Fault::default());
    let Ok(body) = Limited::new(body, MAX_REQUEST).collect().await else {
        return whole(error(413, "the request is too large"));
    };
    let (content_type, authorization) = (text(CONTENT_TYPE), text(AUTHORIZATION));
    let request = DemoRequest { content_type, authorization, body: body.to_bytes() };
    let path = head.uri.path();
    if let Some(reply) = during_outage(&shared, path, &request) {
        return whole(reply?);
    }
    if path == "/token" && head.method == Method::POST {
        // A task of its own: a client that hangs up does not undo what it asked for.
        return tokio::spawn(token(shared, request)).await.unwrap_or(Err(Dropped));
    }
    let query = head.uri.query().unwrap_or_default();
    whole(route(&shared, head.method.as_str(), path, query, &request).unwrap_or_else(DemoReply::from))
}

/// Everything but the token endpoint.
fn route(
    shared: &Shared,
    method: &str,
    path: &str,
    query: &str,
    request: &DemoRequest,
) -> Result<DemoReply, Refused> {
    let now = shared.now();
    let ServerState { issuer, faults } = &mut *shared.state();
    Ok(match (method, path) {
        ("POST", "/revoke") => issuer.revoke(now, request)?,
        ("POST", "/introspect") => issuer.introspect(now, request)?,
        ("GET", "/authorize") => issuer.consent_page(query),
        ("POST", "/authorize") => issuer.decide_consent(now, query, &request.body),
        ("GET", "/device") => issuer.device_page(query),
        ("POST", "/device") => issuer.decide_device(&request.body),
        ("POST", "/device_authorization") => issuer.device_authorization(now, request)?,
        ("GET", "/resource") => issuer.resource(now, request.authorization.as_deref()),
        ("GET", "/.well-known/oauth-authorization-server" | "/.well-known/openid-configuration") => {
            issuer.metadata(&shared.url)
        }
        ("GET", "/audit") => DemoReply::json(200, &json!(issuer.audit())),
        ("POST", "/seed") => seed(issuer, shared, now, &request.body),
        ("POST", "/faults") => match serde_json::from_slice(&request.body) {
            Ok(script) => {
                *faults = script;
                DemoReply::json(200, &json!({}))
            }
            Err(wrong) => error(400, &wrong.to_string()),
        },
        (_, "/token" | "/revoke" | "/introspect" | "/resource" | "/audit" | "/seed" | "/faults") => {
            error(405, "another method is needed here")
        }
        _ => error(404, "there is nothing here"),
    })
}

/// The reply while the server is out of order; `None`: it is in order.
fn during_outage(shared: &Shared, path: &str, request: &DemoRequest) -> Option<Result<DemoReply, Dropped>> {
    let now = shared.now();
    let mut state = shared.state();
    let outage = state.faults.outage?;
    if outage == Outage::Unavailable && matches!(path, "/seed" | "/faults" | "/audit") {
        return None;
    }
    if path == "/token" {
        state.issuer.receive(now, request);
        state.issuer.note_fault(now, request, "outage".to_owned());
    }
    Some(match outage {
        Outage::Closed => Err(Dropped),
        Outage::Unavailable => Ok(error(503, "out of order")),
    })
}

/// The token endpoint and the faults scripted for it.
async fn token(shared: Arc<Shared>, request: DemoRequest) -> Result<Response<Body>, Dropped> {
    let fault = {
        let now = shared.now();
        let state = &mut *shared.state();
        state.issuer.receive(now, &request);
        let fault = state.faults.take();
        if let Some(fault) = &fault {
            state.issuer.note_fault(now, &request, fault.describe());
        }
        fault.unwrap_or_default()
    };
    pause(fault.delay_before_commit_ms).await;
    let committed = fault.commits().then(|| {
        let now = shared.now();
        shared.state().issuer.answer(now, &request)
    });
    pause(fault.delay_after_commit_ms).await;
    if fault.drop {
        return Err(Dropped);
    }
    let reply = fault.reply.clone().or(committed).ok_or(Dropped)?;
    response(reply, &fault)
}

/// Waits; zero does not even cost the timer's granularity of a millisecond.
async fn pause(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

fn seed(issuer: &mut Issuer, shared: &Shared, now: i64, form: &[u8]) -> DemoReply {
    let asked = parameter(form, "client_id").or_else(|| issuer.first_client().map(str::to_owned));
    let client_id = asked.unwrap_or_default();
    let Some(seed) = issuer.seed(now, &client_id) else { return error(400, "no such client") };
    let token_endpoint = format!("{}/token", shared.url);
    let seed =
        json!({ "refresh_token": seed.expose(), "client_id": client_id, "token_endpoint": token_endpoint });
    DemoReply::json(200, &seed)
}

fn error(status: u16, description: &str) -> DemoReply {
    DemoReply::json(status, &json!({ "error": "server_error", "error_description": description }))
}

/// A response, unless a scripted header is one that HTTP cannot carry.
fn response(reply: DemoReply, fault: &Fault) -> Result<Response<Body>, Dropped> {
    let builder = Response::builder().status(reply.status);
    let builder = reply.headers.iter().fold(builder, |builder, (name, value)| builder.header(name, value));
    builder.body(Body::new(reply.body, fault)).map_err(|_| Dropped)
}

#[cfg(test)]
mod tests;
