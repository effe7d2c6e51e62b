//! HTTPS by hyper and rustls: one exchange per call.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Bytes};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, DATE, HOST,
    HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, Request, Uri};
use rustls::client::WantsClientCert;
use rustls::client::{Resumption, Tls12Resumption, WebPkiServerVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, WantsVerifier};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Sleep, sleep, timeout};
use url::Url;
use zeroize::Zeroizing;

use crate::config::{AccountConfig, is_loopback};
use crate::http::connection::{Connector, HttpExchange, send};
use crate::http::encoding::{EncodingError, decode};
use crate::http::failure::{ANSWER, failure, timed_out};
use crate::http::proxy::{ProxyVariables, place};
use crate::http::roots;
use crate::http::roots::Roots;
use crate::http::verifier::Verifier;
use crate::oauth::{ClientCertificate, FailureKind, Reply, Sent, TokenRequest, TransportFailure};
use crate::problem::chain;
use crate::secret::Secret;

/// The longest body that is read. Token responses have a few KiB, discovery documents up to 10.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// How much longer an exchange may take, to read what the kernel has received already.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// The sessions that are kept, up to eight for each host: more hosts are seldom asked at the same time.
const SESSIONS: usize = 256;

const AGENT: &str = concat!("zg-tokend/", env!("CARGO_PKG_VERSION"));

/// How requests are made. Accounts with equal options can share one [`HttpEndpoint`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HttpOptions {
    /// One deadline for everything, from the DNS query to the last byte of the body. An answer that
    /// the kernel has received by then is still read.
    pub timeout: Duration,
    /// Root certificates (PEM) in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Permits plain http to other machines than this one.
    pub allow_http: bool,
    /// The client's own, for servers that ask for one.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The proxy for https in place of the environment's, a URL; `none` for no proxy.
    pub proxy: Option<Secret>,
}

impl HttpOptions {
    /// Those of an account; `proxy` is the value of that key.
    pub fn new(account: &AccountConfig, timeout: Duration, proxy: Option<Secret>) -> Self {
        let (ca_file, allow_http) = (account.ca_file.clone(), account.allow_http);
        Self { timeout, ca_file, allow_http, certificate: None, proxy }
    }
}

/// Token endpoints reached by HTTP. Nothing is built or read before the first request; root
/// certificates are loaded at the first https one. Requests may run side by side.
/// No Debug: a proxy's URL may hold a password.
pub struct HttpEndpoint {
    options: HttpOptions,
    environment: ProxyVariables,
    https: OnceLock<Connector>,
    http: OnceLock<Connector>,
    preparation: Mutex<()>,
}

impl HttpEndpoint {
    /// Reads the proxy variables and SSL_CERT_FILE from the environment, and nothing else yet.
    pub fn new(options: HttpOptions) -> Self {
        Self::with_environment(options, ProxyVariables::read(|name| std::env::var_os(name)))
    }

    pub(super) fn with_environment(options: HttpOptions, environment: ProxyVariables) -> Self {
        let (https, http, preparation) = Default::default();
        Self { options, environment, https, http, preparation }
    }

    /// Does everything for an exchange with this URL that needs no network: reads the root
    /// certificates and the proxy variables, and checks whether plain http is permitted.
    pub fn prepare(&self, url: &Url) -> Result<(), TransportFailure> {
        self.connector_for(url).map(drop)
    }

    /// The turn of one exchange to prepare: the others wait for it without a thread.
    pub async fn preparation(&self) -> MutexGuard<'_, ()> {
        self.preparation.lock().await
    }

    /// Whether the root certificates were read.
    pub fn is_prepared(&self) -> bool {
        self.https.get().is_some()
    }

    /// Host and port of the proxy for this URL, if there is one. Known when the endpoint is prepared.
    pub fn proxy_for(&self, url: &Url) -> Option<String> {
        self.https.get()?.proxy_for(&url.as_str().parse().ok()?)
    }

    /// The proxy and the certificates that the environment names, and the config does not.
    pub fn way(&self, url: &Url) -> Option<String> {
        if url.scheme() != "https" {
            return None;
        }
        let proxy =
            self.environment.https_proxy(None).ok().flatten().filter(|_| self.options.proxy.is_none());
        let proxy = proxy.and_then(|proxy| proxy.intercept(&url.as_str().parse().ok()?));
        let proxy = proxy.map(|proxy| format!("the proxy {}", place(&proxy)));
        let roots = self.environment.ssl_cert_file.as_ref().filter(|_| self.options.ca_file.is_none());
        let roots = roots.map(|path| format!("SSL_CERT_FILE {}", path.display()));
        let parts: Vec<_> = proxy.into_iter().chain(roots).collect();
        (!parts.is_empty()).then(|| parts.join(" and "))
    }

    /// One GET, under the same rules as a POST.
    pub async fn get(&self, url: &Url) -> Result<Reply, TransportFailure> {
        self.exchange(url, HttpMessage { method: Method::GET, ..HttpMessage::default() }).await
    }

    /// One request with any other body than a refresh request, under the same rules as a POST. Header
    /// values are kept out of logs.
    pub async fn send(
        &self,
        method: &'static str,
        url: &Url,
        headers: &[(String, Secret)],
        body: &Secret,
    ) -> Result<Reply, TransportFailure> {
        // The methods come from the program, not from the user.
        let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::POST);
        let mut request = HttpMessage { method, ..HttpMessage::post(body) };
        for (name, value) in headers {
            request.headers.append(header_name(name)?, sensitive(value)?);
        }
        self.exchange(url, request).await
    }

    /// The status of the answer to a GET with this token, under the same rules as a POST. The body is
    /// not read.
    pub async fn probe(&self, url: &Url, token: &Secret) -> Result<u16, TransportFailure> {
        // RFC 6750 section 2.1.
        let bearer = Secret::new(format!("Bearer {}", token.expose()));
        let mut get = HttpMessage { method: Method::GET, ..HttpMessage::default() };
        get.headers.insert(AUTHORIZATION, sensitive(&bearer)?);
        let mut deadline = Deadline::after(self.options.timeout);
        Ok(self.send_out(url, get, &mut deadline).await?.response.status().as_u16())
    }

    async fn exchange(&self, url: &Url, message: HttpMessage) -> Result<Reply, TransportFailure> {
        let mut deadline = Deadline::after(self.options.timeout);
        let exchange = self.send_out(url, message, &mut deadline).await?;
        read(exchange, &mut deadline).await
    }

    /// Sends it, and waits for the head of the answer.
    async fn send_out(
        &self,
        url: &Url,
        message: HttpMessage,
        deadline: &mut Deadline,
    ) -> Result<HttpExchange, TransportFailure> {
        let connector = self.connector_for(url)?;
        let request = message.to(url)?;
        let uri: Uri = url.as_str().parse().map_err(unusable)?;
        let exchange = async {
            let wire = match timeout(self.connect_timeout(), Box::pin(connector.connect(&uri))).await {
                Err(_) => {
                    let by = connector.proxy_for(&uri).map(|proxy| format!(" by the proxy {proxy}"));
                    let doing = format!("connecting{}", by.unwrap_or_default());
                    return Err(not_sent(FailureKind::Timeout, timed_out(self.connect_timeout(), &doing)));
                }
                Ok(Err(error)) => return Err(failure(&*error, Sent::NotSent)),
                Ok(Ok(wire)) => wire,
            };
            send(wire, request).await.map_err(|error| failure(&error, Sent::PerhapsSent))
        };
        deadline.bound(exchange).await.ok_or_else(|| deadline.failure())?
    }

    fn connector_for(&self, url: &Url) -> Result<&Connector, TransportFailure> {
        let https = url.scheme() == "https";
        if !https && !self.options.allow_http && !is_loopback(url) {
            let detail = "plain http would send the token unencrypted".to_owned();
            return Err(not_sent(FailureKind::PlainHttp, detail));
        }
        let cell = if https { &self.https } else { &self.http };
        if let Some(connector) = cell.get() {
            return Ok(connector);
        }
        let connector = if https { self.build_https()? } else { Self::build_http()? };
        Ok(cell.get_or_init(|| connector))
    }

    fn build_https(&self) -> Result<Connector, TransportFailure> {
        let ca_file = self.options.ca_file.as_deref();
        let ssl_cert_file = self.environment.ssl_cert_file.as_deref().map(Path::new);
        let proxy = self.environment.https_proxy(self.options.proxy.as_ref());
        let tls = verifying(ca_file, ssl_cert_file)?;
        let proxy = proxy.map_err(|detail| not_sent(FailureKind::Proxy, detail))?;
        let tls = match &self.options.certificate {
            None => with_sessions(tls.with_no_client_auth()),
            Some(own) => {
                let unusable = |error: &dyn Error| not_sent(FailureKind::Tls, error.to_string());
                let chain = CertificateDer::pem_slice_iter(own.chain.as_bytes()).collect::<Result<_, _>>();
                let key = PrivateKeyDer::from_pem_slice(own.key.expose().as_bytes());
                let (chain, key) =
                    (chain.map_err(|error| unusable(&error))?, key.map_err(|error| unusable(&error))?);
                let tls = tls.with_client_auth_cert(chain, key).map_err(|error| unusable(&error))?;
                without_sessions(tls)
            }
        };
        Ok(Connector::new(tls, proxy))
    }

    fn build_http() -> Result<Connector, TransportFailure> {
        let tls = tls_builder()?.with_root_certificates(rustls::RootCertStore::empty());
        Ok(Connector::new(without_sessions(tls.with_no_client_auth()), None))
    }

    /// Just before the deadline, so that nothing was sent in an exchange that times out in connecting.
    fn connect_timeout(&self) -> Duration {
        self.options.timeout.mul_f32(0.9)
    }

    /// Sends the request once. A reply of any status is `Ok`; a failure says whether the server may
    /// have got the request.
    pub async fn post(&self, request: &TokenRequest) -> Result<Reply, TransportFailure> {
        let mut post = HttpMessage::post(&request.body());
        post.headers.insert(CONTENT_TYPE, HeaderValue::from_static(request.content_type()));
        if let Some(authorization) = request.client.authorization() {
            post.headers.insert(AUTHORIZATION, sensitive(&authorization)?);
        }
        for field in &request.client.shape.headers {
            post.headers.insert(header_name(&field.name)?, sensitive(&field.value)?);
        }
        self.exchange(&request.client.token_endpoint, post).await
    }
}

/// A request without its destination.
#[derive(Default)]
struct HttpMessage {
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

impl HttpMessage {
    fn post(body: &Secret) -> Self {
        let body = Bytes::from(body.expose().to_owned());
        Self { method: Method::POST, body, ..Self::default() }
    }

    /// The request to this URL. Headers of the program do not replace those of the config.
    fn to(self, url: &Url) -> Result<Request<Full<Bytes>>, TransportFailure> {
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let host = match (url.host_str().unwrap_or_default(), url.port()) {
            (host, Some(port)) => format!("{host}:{port}"),
            (host, None) => host.to_owned(),
        };
        let mut request = Request::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = target.parse().map_err(unusable)?;
        *request.headers_mut() = self.headers;
        let host = HeaderValue::from_str(&host).map_err(unusable)?;
        for (name, value) in [
            (HOST, host),
            (USER_AGENT, HeaderValue::from_static(AGENT)),
            (ACCEPT, HeaderValue::from_static("application/json")),
            (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
            (CONNECTION, HeaderValue::from_static("close")),
        ] {
            request.headers_mut().entry(name).or_insert(value);
        }
        Ok(request)
    }
}

fn header_name(name: &str) -> Result<HeaderName, TransportFailure> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| not_sent(FailureKind::Other, "a header name is not allowed in HTTP".to_owned()))
}

/// A URL that the config accepts, and HTTP does not.
fn unusable(error: impl Error) -> TransportFailure {
    not_sent(FailureKind::Other, format!("the URL cannot be used: {error}"))
}

/// A value that is kept out of logs.
fn sensitive(value: &Secret) -> Result<HeaderValue, TransportFailure> {
    let unfit =
        |_| not_sent(FailureKind::Other, "a header value has a character that HTTP forbids".to_owned());
    let mut value = HeaderValue::from_str(value.expose()).map_err(unfit)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Ring by name, not by default: the process has no other provider, but need not know that.
fn tls_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TransportFailure> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| not_sent(FailureKind::Tls, error.to_string()))
}

/// TLS that checks the server by these certificate authorities, else by those of the system.
fn verifying(
    ca_file: Option<&Path>,
    ssl_cert_file: Option<&Path>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TransportFailure> {
    let builder = tls_builder()?;
    Ok(match roots::load(ca_file, ssl_cert_file).map_err(no_roots)? {
        Some(Roots { store, own }) => {
            let provider = Arc::new(ring::default_provider());
            let standard = WebPkiServerVerifier::builder_with_provider(store.into(), provider);
            let standard = standard.build().map_err(no_roots)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier { standard, own }))
        }
        // No bundle where distributions put it: the platform is asked.
        None => builder.with_platform_verifier().map_err(no_roots)?,
    })
}

/// The same for a connection that is no HTTP.
#[cfg(feature = "fleet")]
pub fn tls_config(ca_file: Option<&Path>) -> Result<ClientConfig, TransportFailure> {
    let ssl_cert_file = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty());
    let builder = verifying(ca_file, ssl_cert_file.as_deref().map(Path::new))?;
    Ok(without_sessions(builder.with_no_client_auth()))
}

/// The accounts of a wave resume each other's sessions: the first connections have shown who the server is,
/// and a signature takes longer than all else. A ticket serves once, so that one that the server does not like
/// spoils one exchange. The sessions end with the wave.
fn with_sessions(mut config: ClientConfig) -> ClientConfig {
    let sessions = Resumption::in_memory_sessions(SESSIONS);
    config.resumption = sessions.tls12_resumption(Tls12Resumption::Disabled);
    config
}

/// For a client that shows a certificate: a token may be bound to it, and not every server knows it again in
/// a session that was resumed.
fn without_sessions(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config
}

/// The end of an exchange. Not an ordinary timeout: that one gives up before it reads an answer that came
/// while this process was stopped (SIGSTOP, a frozen container), and the answer may be the only copy
/// of the next refresh token.
struct Deadline {
    timeout: Duration,
    end: Pin<Box<Sleep>>,
    passed: bool,
}

impl Deadline {
    fn after(timeout: Duration) -> Self {
        Self { timeout, end: Box::pin(sleep(timeout)), passed: false }
    }

    /// The result of the future; `None` if it does not come in time.
    async fn bound<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                biased;
                done = &mut future => return Some(done),
                () = &mut self.end => {}
            }
            if self.passed {
                return None;
            }
            *self = Self { passed: true, timeout: self.timeout, ..Self::after(LAST_LOOK) };
        }
    }

    fn failure(&self) -> TransportFailure {
        perhaps_sent(FailureKind::Timeout, timed_out(self.timeout, ANSWER))
    }
}

async fn read(mut exchange: HttpExchange, deadline: &mut Deadline) -> Result<Reply, TransportFailure> {
    let response = &mut exchange.response;
    let header = |name: HeaderName| {
        let value = response.headers().get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    let mut reply = Reply {
        status: response.status().as_u16(),
        content_type: header(CONTENT_TYPE),
        retry_after: header(RETRY_AFTER),
        date: header(DATE),
        location: header(LOCATION),
        body: Zeroizing::default(),
    };
    let coding = header(CONTENT_ENCODING);
    if response.body().size_hint().exact().is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return Err(too_large());
    }
    let broken = loop {
        break Some(match deadline.bound(response.body_mut().frame()).await {
            Some(None) => break None,
            Some(Some(Ok(frame))) => match frame.data_ref() {
                Some(chunk) if reply.body.len() + chunk.len() > MAX_BODY_BYTES => too_large(),
                chunk => {
                    reply.body.extend_from_slice(chunk.map_or(&[], |chunk| chunk));
                    continue;
                }
            },
            Some(Some(Err(error))) => failure(&error, Sent::PerhapsSent),
            None => deadline.failure(),
        });
    };
    let undecodable = coding.and_then(|coding| undo(&mut reply, &coding).err());
    match broken.or(undecodable) {
        // The part that is there may hold the next refresh token: better a defective reply than a
        // lost login.
        Some(broken) if !reply.holds_refresh_token() => Err(broken),
        _ => Ok(reply),
    }
}

/// Decodes the body.
fn undo(reply: &mut Reply, coding: &str) -> Result<(), TransportFailure> {
    let other = |detail| perhaps_sent(FailureKind::Other, detail);
    let body = std::mem::take(&mut reply.body);
    reply.body = decode(body, coding, MAX_BODY_BYTES).map_err(|error| match error {
        EncodingError::TooLong => too_large(),
        EncodingError::Unknown(name) => {
            let name: String = name.chars().filter(char::is_ascii_graphic).take(40).collect();
            other(format!("the answer has the content coding {name}, which was not asked for"))
        }
        EncodingError::Damaged(part) => {
            reply.body = part;
            other(format!("the answer cannot be decoded: its {} is damaged", coding.trim()))
        }
    })?;
    Ok(())
}

fn too_large() -> TransportFailure {
    perhaps_sent(FailureKind::BodyTooLarge, "the answer is longer than 1 MiB".to_owned())
}

fn perhaps_sent(kind: FailureKind, detail: String) -> TransportFailure {
    TransportFailure { sent: Sent::PerhapsSent, kind, detail }
}

fn not_sent(kind: FailureKind, detail: String) -> TransportFailure {
    TransportFailure { sent: Sent::NotSent, kind, detail }
}

fn no_roots(error: impl Error) -> TransportFailure {
    not_sent(FailureKind::Roots, chain(&error))
}
