//! HTTPS by reqwest and rustls: one exchange per call.

use std::error::Error;
use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap,
    HeaderName, HeaderValue,
};
use reqwest::{Client, RequestBuilder, Response};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::ring;
use tokio::time::{Sleep, sleep};
use url::Url;
use zeroize::Zeroizing;

use crate::config::is_loopback;
use crate::http::encoding::{EncodingError, decode};
use crate::http::failure::{ANSWER, failure, timed_out};
use crate::http::proxy::ProxyVariables;
use crate::http::roots;
use crate::oauth::{FailureKind, Reply, Sent, TokenRequest, TransportFailure};
use crate::secret::Secret;
use crate::workers;

/// The longest body that is read. Token responses have a few KiB, discovery documents up to 10.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// How much longer an exchange may take, to read what the kernel has received already.
const LAST_LOOK: Duration = Duration::from_secs(1);

const USER_AGENT: &str = concat!("zg-tokend/", env!("CARGO_PKG_VERSION"));

/// How requests are made. Accounts with equal options can share one [`HttpEndpoint`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpOptions {
    /// One deadline for everything, from the DNS query to the last byte of the body. An answer that
    /// the kernel has received by then is still read.
    pub timeout: Duration,
    /// Root certificates (PEM) in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Permits plain http to other machines than this one.
    pub allow_http: bool,
}

/// Token endpoints reached by HTTP. Nothing is built or read before the first request; root
/// certificates are loaded at the first https one. Requests may run side by side.
/// No Debug: a proxy's URL may hold a password.
pub struct HttpEndpoint {
    options: HttpOptions,
    environment: ProxyVariables,
    https: OnceLock<Client>,
    http: OnceLock<Client>,
}

impl HttpEndpoint {
    /// Reads the proxy variables and SSL_CERT_FILE from the environment, and nothing else yet.
    pub fn new(options: HttpOptions) -> Self {
        Self::with_environment(options, ProxyVariables::read(|name| std::env::var_os(name)))
    }

    pub(super) fn with_environment(options: HttpOptions, environment: ProxyVariables) -> Self {
        Self { options, environment, https: OnceLock::new(), http: OnceLock::new() }
    }

    /// Does everything for an exchange with this URL that needs no network: reads the root
    /// certificates and the proxy variables, and checks whether plain http is permitted.
    pub fn prepare(&self, url: &Url) -> Result<(), TransportFailure> {
        self.client_for(url).map(drop)
    }

    /// Host and port of the proxy for this URL, if the environment names one.
    pub fn proxy_for(&self, url: &Url) -> Option<String> {
        self.environment.proxy_for(url)
    }

    /// One GET, under the same rules as a POST.
    pub async fn get(&self, url: &Url) -> Result<Reply, TransportFailure> {
        self.exchange(url, self.client_for(url)?.get(url.clone())).await
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
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap_or(reqwest::Method::POST);
        let mut request = self.client_for(url)?.request(method, url.clone()).body(body.expose().to_owned());
        for (name, value) in headers {
            request = request.header(name.as_str(), sensitive(value)?);
        }
        self.exchange(url, request).await
    }

    /// The status of the answer to a GET with this token, under the same rules as a POST. The body is
    /// not read.
    pub async fn probe(&self, url: &Url, token: &Secret) -> Result<u16, TransportFailure> {
        // RFC 6750 section 2.1.
        let bearer = Secret::new(format!("Bearer {}", token.expose()));
        let get = self.client_for(url)?.get(url.clone()).header(AUTHORIZATION, sensitive(&bearer)?);
        let mut deadline = Deadline::after(self.options.timeout);
        Ok(self.send_out(url, get, &mut deadline).await?.status().as_u16())
    }

    async fn exchange(&self, url: &Url, request: RequestBuilder) -> Result<Reply, TransportFailure> {
        let mut deadline = Deadline::after(self.options.timeout);
        let response = self.send_out(url, request, &mut deadline).await?;
        read(response, &mut deadline).await
    }

    /// Sends it, and waits for the head of the answer.
    async fn send_out(
        &self,
        url: &Url,
        request: RequestBuilder,
        deadline: &mut Deadline,
    ) -> Result<Response, TransportFailure> {
        let sent = deadline.bound(request.send()).await.ok_or_else(|| deadline.failure())?;
        sent.map_err(|error| failure(&error, self.connect_timeout(), self.proxy_for(url)))
    }

    fn client_for(&self, url: &Url) -> Result<&Client, TransportFailure> {
        let https = url.scheme() == "https";
        if !https && !self.options.allow_http && !is_loopback(url) {
            let detail = "plain http would send the token unencrypted".to_owned();
            return Err(not_sent(FailureKind::PlainHttp, detail));
        }
        let cell = if https { &self.https } else { &self.http };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let client = if https { self.build_https()? } else { self.build_http()? };
        Ok(cell.get_or_init(|| client))
    }

    fn build_https(&self) -> Result<Client, TransportFailure> {
        let ca_file = self.options.ca_file.as_deref();
        let ssl_cert_file = self.environment.ssl_cert_file.as_deref().map(Path::new);
        let roots = roots::load(ca_file, ssl_cert_file).map_err(no_roots)?;
        let proxy = self.environment.https_proxy();
        let mut builder = self.builder();
        if let Some(proxy) = proxy.map_err(|detail| not_sent(FailureKind::Proxy, detail.to_owned()))? {
            builder = builder.proxy(proxy);
        }
        if let Some(roots) = roots {
            builder = builder.tls_backend_preconfigured(tls_config(roots)?);
        } else {
            // No bundle where distributions put it: reqwest asks the platform, and needs the provider
            // installed for the process. An error means that it is installed already.
            let _ = ring::default_provider().install_default();
        }
        builder.build().map_err(|error| no_roots(error.without_url()))
    }

    fn build_http(&self) -> Result<Client, TransportFailure> {
        self.builder()
            .tls_backend_preconfigured(tls_config(rustls::RootCertStore::empty())?)
            .build()
            .map_err(|error| not_sent(FailureKind::Other, chain(&error.without_url())))
    }

    /// Just before the deadline, so that nothing was sent in an exchange that times out in connecting.
    fn connect_timeout(&self) -> Duration {
        self.options.timeout.mul_f32(0.9)
    }

    /// The options of both clients.
    fn builder(&self) -> reqwest::ClientBuilder {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(headers)
            .connect_timeout(self.connect_timeout())
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(0)
            .referer(false)
            .dns_resolver(Arc::new(Resolver))
            .http1_only()
            .no_proxy()
    }

    /// Sends the request once. A reply of any status is `Ok`; a failure says whether the server may
    /// have got the request.
    pub async fn post(&self, request: &TokenRequest) -> Result<Reply, TransportFailure> {
        let client = self.client_for(&request.client.token_endpoint)?;
        let mut post = client
            .post(request.client.token_endpoint.clone())
            .header(CONTENT_TYPE, request.content_type())
            .body(request.body().expose().to_owned());
        if let Some(authorization) = request.client.authorization() {
            post = post.header(AUTHORIZATION, sensitive(&authorization)?);
        }
        let mut own = HeaderMap::new();
        for field in &request.client.shape.headers {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| {
                not_sent(FailureKind::Other, "a header name is not allowed in HTTP".to_owned())
            })?;
            own.insert(name, sensitive(&field.value)?);
        }
        let post = post.headers(own);
        self.exchange(&request.client.token_endpoint, post).await
    }
}

/// Resolves names by getaddrinfo(3), on a thread if one can be had: reqwest's own resolver panics
/// if not.
struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = workers::run(move || (name.as_str(), 0).to_socket_addrs()).await?;
            Ok(Box::new(found) as Addrs)
        })
    }
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
/// No memory of sessions: a client makes one connection per refresh.
fn tls_config(roots: rustls::RootCertStore) -> Result<ClientConfig, TransportFailure> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| not_sent(FailureKind::Tls, error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The end of an exchange. Not reqwest's own: that one gives up before it reads an answer that came
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
        let detail = timed_out(self.timeout, ANSWER);
        TransportFailure { sent: Sent::PerhapsSent, kind: FailureKind::Timeout, detail }
    }
}

async fn read(mut response: Response, deadline: &mut Deadline) -> Result<Reply, TransportFailure> {
    let header = |name: HeaderName| {
        let value = response.headers().get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    let mut reply = Reply {
        status: response.status().as_u16(),
        content_type: header(CONTENT_TYPE),
        retry_after: header(reqwest::header::RETRY_AFTER),
        date: header(reqwest::header::DATE),
        location: header(reqwest::header::LOCATION),
        body: Zeroizing::default(),
    };
    let coding = header(CONTENT_ENCODING);
    if response.content_length().is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return Err(too_large());
    }
    let broken = loop {
        break Some(match deadline.bound(response.chunk()).await {
            Some(Ok(None)) => break None,
            Some(Ok(Some(chunk))) if reply.body.len() + chunk.len() <= MAX_BODY_BYTES => {
                reply.body.extend_from_slice(&chunk);
                continue;
            }
            Some(Ok(Some(_))) => too_large(),
            Some(Err(error)) => failure(&error, deadline.timeout, None),
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
    let other = |detail| TransportFailure { sent: Sent::PerhapsSent, kind: FailureKind::Other, detail };
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
    TransportFailure {
        sent: Sent::PerhapsSent,
        kind: FailureKind::BodyTooLarge,
        detail: "the answer is longer than 1 MiB".to_owned(),
    }
}

fn not_sent(kind: FailureKind, detail: String) -> TransportFailure {
    TransportFailure { sent: Sent::NotSent, kind, detail }
}

fn no_roots(error: impl Error) -> TransportFailure {
    not_sent(FailureKind::Roots, chain(&error))
}

/// An error and its causes, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
