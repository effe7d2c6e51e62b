//! HTTPS by reqwest and rustls: a client that does one thing once.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder, Response};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::ring;
use tokio::time::{Sleep, sleep};
use url::Url;
use zeroize::Zeroizing;

use crate::config::is_loopback;
use crate::http::failure::{Stage, failure};
use crate::http::proxy::ProxyVariables;
use crate::http::roots;
use crate::oauth::{FailureKind, Reply, Sent, TokenRequest, TransportFailure};
use crate::secret::Secret;

/// The longest body that is read. Token responses have a few KiB, discovery documents up to 10.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// How much longer than its time an exchange may take, for what the kernel has received already.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Who we are in the server's log.
const USER_AGENT: &str = concat!("zg-tokend/", env!("CARGO_PKG_VERSION"));

/// How requests are made. Accounts with equal options can share one [`HttpEndpoint`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpOptions {
    /// One deadline for everything, from the DNS query to the last byte of the body; an answer
    /// that is in the kernel's hands by then is still taken.
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
        Self::with_environment(options, ProxyVariables::of_the_process())
    }

    pub(super) fn with_environment(options: HttpOptions, environment: ProxyVariables) -> Self {
        Self { options, environment, https: OnceLock::new(), http: OnceLock::new() }
    }

    /// Everything for an exchange with this URL that needs no network: the root certificates, the
    /// proxy that the environment names, whether plain http is permitted.
    pub fn prepare(&self, url: &Url) -> Result<(), TransportFailure> {
        self.client_for(url).map(drop)
    }

    /// Host and port of the proxy that requests to this URL go by, if the environment names one
    /// for it.
    pub fn proxy_for(&self, url: &Url) -> Option<String> {
        self.environment.proxy_for(url)
    }

    /// One GET, under the same rules as a POST.
    pub async fn get(&self, url: &Url) -> Result<Reply, TransportFailure> {
        self.exchange(url, self.client_for(url)?.get(url.clone())).await
    }

    /// One POST of any other body than a refresh request, under the same rules. Header values are
    /// kept out of logs.
    pub async fn send(
        &self,
        url: &Url,
        headers: &[(String, Secret)],
        body: &Secret,
    ) -> Result<Reply, TransportFailure> {
        let mut post = self.client_for(url)?.post(url.clone()).body(body.expose().to_owned());
        for (name, value) in headers {
            post = post.header(name.as_str(), sensitive(value)?);
        }
        self.exchange(url, post).await
    }

    /// The status that a GET with this token is answered with, under the same rules as a POST. Of
    /// the answer nothing but its head is read.
    pub async fn probe(&self, url: &Url, token: &Secret) -> Result<u16, TransportFailure> {
        let get = self.client_for(url)?.get(url.clone()).header(AUTHORIZATION, bearer(token)?);
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
        let sent = deadline.bound(request.send()).await.ok_or_else(too_late)?;
        sent.map_err(|error| failure(&error, Stage::Sending { proxy: self.proxy_for(url) }))
    }

    fn client_for(&self, url: &Url) -> Result<&Client, TransportFailure> {
        let https = url.scheme() == "https";
        if !https && !self.options.allow_http && !is_loopback(url) {
            let detail = "plain http would show the token to everybody on the way".to_owned();
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
        let mut builder = self.builder();
        if let Some(proxy) = self
            .environment
            .https_proxy()
            .map_err(|detail| not_sent(FailureKind::Proxy, detail.to_owned()))?
        {
            builder = builder.proxy(proxy);
        }
        if let Some(roots) = roots {
            builder = builder.tls_backend_preconfigured(tls_config(roots)?);
        } else {
            // No bundle where distributions put it: reqwest asks the platform, and needs the
            // provider installed for the process. If somebody did that before, fine.
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

    /// What both clients have in common.
    fn builder(&self) -> reqwest::ClientBuilder {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        // A connection attempt gives up just before the deadline, so that this timeout is
        // known to be one where nothing was sent.
        let connect_timeout = self.options.timeout.mul_f32(0.9);
        Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(headers)
            .connect_timeout(connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(0)
            .referer(false)
            .http1_only()
            .no_proxy()
    }

    /// Sends the request once. A reply of any status is `Ok`; the failure tells whether the
    /// server may have seen the request.
    pub async fn post(&self, request: &TokenRequest) -> Result<Reply, TransportFailure> {
        let client = self.client_for(&request.client.token_endpoint)?;
        let mut post = client
            .post(request.client.token_endpoint.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(request.body().expose().to_owned());
        if let Some(authorization) = request.client.authorization() {
            let mut value = HeaderValue::from_str(authorization.expose())
                .map_err(|_| not_sent(FailureKind::Other, "the client_id fits into no header".to_owned()))?;
            value.set_sensitive(true);
            post = post.header(AUTHORIZATION, value);
        }
        self.exchange(&request.client.token_endpoint, post).await
    }
}

/// RFC 6750 section 2.1.
fn bearer(token: &Secret) -> Result<HeaderValue, TransportFailure> {
    sensitive(&Secret::new(format!("Bearer {}", token.expose())))
}

/// A value that is kept out of logs.
fn sensitive(value: &Secret) -> Result<HeaderValue, TransportFailure> {
    let unfit = |_| not_sent(FailureKind::Other, "a header's value fits into no header".to_owned());
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

/// The end of an exchange's time. Not reqwest's own: that one gives up before it has looked at
/// an answer that came while this process stood still (SIGSTOP, a frozen container), and the
/// answer may be the only copy of the next refresh token.
struct Deadline {
    end: Pin<Box<Sleep>>,
    passed: bool,
}

impl Deadline {
    fn after(timeout: Duration) -> Self {
        Self { end: Box::pin(sleep(timeout)), passed: false }
    }

    /// What the future gives; `None` if it does not come in time.
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
            *self = Self { passed: true, ..Self::after(LAST_LOOK) };
        }
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
    if response.content_length().is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return Err(too_large());
    }
    loop {
        let broken = match deadline.bound(response.chunk()).await {
            Some(Ok(None)) => return Ok(reply),
            Some(Ok(Some(chunk))) if reply.body.len() + chunk.len() <= MAX_BODY_BYTES => {
                reply.body.extend_from_slice(&chunk);
                continue;
            }
            Some(Ok(Some(_))) => too_large(),
            Some(Err(error)) => failure(&error, Stage::Reading),
            None => too_late(),
        };
        // What is there may hold the next refresh token already: better a defective reply
        // than a lost login.
        return if reply.holds_refresh_token() { Ok(reply) } else { Err(broken) };
    }
}

fn too_late() -> TransportFailure {
    TransportFailure {
        sent: Sent::PerhapsSent,
        kind: FailureKind::Timeout,
        detail: "the time ran out while waiting for the answer".to_owned(),
    }
}

fn too_large() -> TransportFailure {
    TransportFailure {
        sent: Sent::PerhapsSent,
        kind: FailureKind::BodyTooLarge,
        detail: "the answer's body is over 1 MiB".to_owned(),
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
