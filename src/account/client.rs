//! The client of a token endpoint: reads the secrets, finds the endpoint, sends requests.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::account::context::Context;
use crate::account::credentials::CredentialReader;
use crate::account::google;
use crate::account::sources::read;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::config;
use crate::config::{AccountConfig, Endpoint, SecretSource};
use crate::http::discovery;
use crate::http::discovery::DiscoveryError;
use crate::http::{HttpEndpoint, HttpOptions};
use crate::oauth;
use crate::oauth::{
    Answer, ClientAuthentication, Field, Grant, GrantType, Reply, ReplyContext, Shape, TokenClient,
    TokenRequest, other_way,
};
use crate::problem::{Class, Problem};
use crate::refresh::decide::Inputs;
use crate::secret::Secret;
use crate::store;
use crate::store::discovery::Discovered;
use crate::workers;

/// A discovery document is fetched again after this time; it hardly ever changes.
const DISCOVERY_FRESH: Duration = Duration::from_secs(24 * 3600);

/// How long root certificates may take: as long as a secret file.
const FILE_TIME: Duration = Duration::from_secs(10);

/// One account as a client of its token endpoint.
#[derive(Debug)]
pub struct Client {
    account: Arc<AccountConfig>,
    settings: Arc<config::Settings>,
    current: RefCell<Current>,
}

/// The values from outside the config that decide where requests go, as last read.
#[derive(Debug, Clone)]
struct Current {
    /// With its endpoints.
    account: Arc<AccountConfig>,
    /// The value of `proxy`.
    proxy: Option<Secret>,
}

impl Client {
    pub fn new(settings: &Arc<config::Settings>, account: &Arc<AccountConfig>) -> Self {
        let current = Current { account: Arc::clone(account), proxy: None };
        Self { account: Arc::clone(account), settings: Arc::clone(settings), current: current.into() }
    }

    /// Wipes what was read of the secrets.
    pub fn forget(&self) {
        let account = Arc::clone(&self.account);
        self.current.replace(Current { account, proxy: None });
    }

    /// The account, with the endpoints that were read.
    pub fn account(&self) -> Arc<AccountConfig> {
        Arc::clone(&self.current.borrow().account)
    }

    async fn read_current(&self) -> Result<Arc<AccountConfig>, Problem> {
        let account = &self.account;
        let proxy = match &account.proxy {
            Some(source) => Some(read(account, "proxy", source).await?),
            None => None,
        };
        let mut values = Vec::new();
        for (key, source) in account.elsewhere.iter() {
            values.push((*key, read(account, key, source).await?));
        }
        let current = if values.is_empty() {
            Ok(Arc::clone(account))
        } else {
            account.with_endpoints(&values).map(Arc::new)
        };
        let account = current
            .map_err(|flaw| Problem::new(&flaw, Class::Config, "endpoint", Some(flaw.hint.clone())))?;
        self.current.replace(Current { account: Arc::clone(&account), proxy });
        Ok(account)
    }

    /// Reads the secrets, and finds the token endpoint.
    pub async fn read_inputs(&self, context: &Context) -> Result<Inputs, Problem> {
        let account = &self.read_current().await?;
        let client_id = read(account, "client_id", &account.client_id).await?.expose().to_owned();
        let seed = match &account.refresh_token {
            Some(source) => read(account, "refresh_token", source).await.map(Some),
            None => Ok(None),
        };
        let extra = account.audience.iter().map(|audience| ("audience".to_owned(), audience.clone()));
        let extra = extra.chain(account.resource.iter().map(|uri| ("resource".to_owned(), uri.clone())));
        let plain = account.extra_params.iter().filter_map(|(name, source)| match source {
            SecretSource::Inline(text) => Some((name.clone(), text.expose().to_owned())),
            _ => None,
        });
        let mut shape = Shape { body: account.request_body.clone(), ..Shape::default() };
        let is_elsewhere = |(_, source): &&(String, SecretSource)| !matches!(source, SecretSource::Inline(_));
        for header in &account.request_headers {
            shape.headers.push(field(account, "request_headers", header).await?);
        }
        for param in account.extra_params.iter().filter(is_elsewhere) {
            shape.secret_params.push(field(account, "extra_params", param).await?);
        }
        let token_endpoint = self.token_endpoint(context).await?;
        let mut reader = CredentialReader::new(account, client_id.clone(), context.clock.now());
        let mut client = TokenClient {
            client_authentication: self.authentication(&mut reader, &token_endpoint).await?,
            token_endpoint,
            client_id,
            scope: account.scope.clone(),
            extra_params: extra.chain(plain).collect(),
            shape,
        };
        let grant = Box::pin(grant(&mut reader, &mut client)).await?;
        let mut inputs = reader.finish(client, grant);
        // Its certificate, and the endpoint of Google's files, are known only now.
        let endpoint = self.endpoint_for(&inputs.client, context);
        self.prepare(endpoint, &inputs.client.token_endpoint, context).await?;
        match seed {
            Ok(seed) => inputs.seed = seed,
            Err(error) => inputs.seed_problem = Some(error.into()),
        }
        Ok(inputs)
    }

    /// The authentication of one request, with the client_secret read anew.
    async fn authentication(
        &self,
        reader: &mut CredentialReader<'_>,
        token_endpoint: &Url,
    ) -> Result<ClientAuthentication, Problem> {
        let client_secret = match &self.account.client_secret {
            Some(source) => Some(read(&self.account, "client_secret", source).await?),
            None => None,
        };
        // On the heap: a login waits for it, and its future is large.
        Box::pin(reader.authentication(client_secret, token_endpoint)).await
    }

    /// The client with an assertion for another request: each assertion serves one (RFC 7523 section 3,
    /// jti), and none lives as long as a person may take to log in.
    pub async fn renewed(
        &self,
        client: &Arc<TokenClient>,
        context: &Context,
    ) -> Result<Arc<TokenClient>, Problem> {
        if !matches!(client.client_authentication, ClientAuthentication::Assertion { .. }) {
            return Ok(Arc::clone(client));
        }
        let account = self.account();
        let mut reader = CredentialReader::new(&account, client.client_id.clone(), context.clock.now());
        // Boxed: rare, and much larger than what calls it.
        let client_authentication =
            Box::pin(self.authentication(&mut reader, &client.token_endpoint)).await?;
        Ok(Arc::new(TokenClient { client_authentication, ..TokenClient::clone(client) }))
    }

    /// `last` is the way of the last grant.
    pub async fn post(&self, request: &TokenRequest, last: Option<&str>, context: &Context) -> Answer {
        let now = context.clock.now();
        let endpoint = self.endpoint_for(&request.client, context);
        let reply = endpoint.post(request).await;
        let (default_lifetime, known_secrets) = (self.account.default_lifetime, &request.secrets()[..]);
        let reply_context = ReplyContext { now, default_lifetime, known_secrets };
        let mut answer = oauth::classify(reply.as_ref(), &reply_context);
        let may_concern_clock = request.has_assertion();
        if let Ok(reply) = &reply
            && may_concern_clock
            && let Some(ahead) = clock_ahead(reply, now, context.clock.now())
        {
            answer.note_clock(ahead);
        }
        if let (Answer::Granted(granted), Some((url, scopes))) =
            (&answer, &request.client.shape.impersonation)
        {
            answer = impersonate(&endpoint, url, scopes, &granted.access_token, &reply_context).await;
        }
        answer.note_way(endpoint.way(&request.client.token_endpoint), self.environment_way(last));
        answer
    }

    /// The end of a message where the way is not that of the last grant.
    pub fn other_way(&self, last: Option<&str>, context: &Context) -> String {
        let issuer = self.account().issuer.as_ref().and_then(|issuer| issuer.parse().ok());
        let way = issuer.and_then(|issuer| self.endpoint(context).way(&issuer));
        other_way(way.as_deref(), self.environment_way(last))
    }

    /// The way of the last grant, unless the config names another one by now.
    fn environment_way<'a>(&self, last: Option<&'a str>) -> Option<&'a str> {
        let has_file = self.account.ca_file.is_some();
        last.filter(|last| self.account.proxy.is_none() && !(has_file && last.contains("SSL_CERT_FILE")))
    }

    pub fn endpoint(&self, context: &Context) -> Arc<HttpEndpoint> {
        context.endpoint(self.options())
    }

    /// The endpoint that shows the certificate of this client.
    pub fn endpoint_for(&self, client: &TokenClient, context: &Context) -> Arc<HttpEndpoint> {
        let mut options = self.options();
        options.certificate = client.client_authentication.certificate().cloned();
        // Two exchanges, in the time of one: others wait for the lock.
        if client.shape.impersonation.is_some() {
            options.timeout /= 2;
        }
        context.endpoint(options)
    }

    fn options(&self) -> HttpOptions {
        HttpOptions::new(&self.account, self.account.timeout, self.current.borrow().proxy.clone())
    }

    /// Reads the root certificates on another thread: their file system may hang. If they cannot be read,
    /// the request says so.
    async fn prepare(
        &self,
        endpoint: Arc<HttpEndpoint>,
        url: &Url,
        context: &Context,
    ) -> Result<(), Problem> {
        if context.inline || url.scheme() != "https" || endpoint.is_prepared() {
            return Ok(());
        }
        let _turn = endpoint.preparation().await;
        if endpoint.is_prepared() {
            return Ok(());
        }
        let (url, preparing) = (url.clone(), Arc::clone(&endpoint));
        let path = self.account.ca_file.clone().unwrap_or_default();
        let prepared = workers::run_within(&path, FILE_TIME, move || preparing.prepare(&url).is_ok()).await;
        prepared.map(drop).ok_or_else(|| {
            Problem::of(Class::Unavailable, "files_hang", "cannot read the root certificates")
                .cause("the file system does not answer")
                .hint("check the file system of ca_file: mount, df, dmesg")
        })
    }

    /// File work on another thread, unless the account is alone.
    async fn on_files<T: Send + 'static>(
        &self,
        context: &Context,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if context.inline { work() } else { workers::run(work).await }
    }

    /// The configured endpoint, or the one in the issuer's discovery document.
    async fn token_endpoint(&self, context: &Context) -> Result<Url, Problem> {
        let account = self.account();
        let issuer = match &account.endpoint {
            Endpoint::Explicit(url) => {
                self.prepare(self.endpoint(context), url, context).await?;
                return Ok(url.clone());
            }
            Endpoint::Discovered { issuer } => issuer,
            Endpoint::Elsewhere => return Err(Problem::bug("the endpoint was not read")),
        };
        let mtls = self.account.grant.tls.is_some();
        let now = context.clock.now();
        let mut store = store::open(&self.settings, &self.account);
        let cached = self.on_files(context, move || store.discovered()).await;
        let cached = cached.filter(|cached| cached.issuer == *issuer && cached.mtls == mtls);
        if let Some(cached) = &cached
            && cached.fetched_at.wall <= now.wall
            && now.since(cached.fetched_at) < DISCOVERY_FRESH
        {
            self.prepare(self.endpoint(context), &cached.token_endpoint, context).await?;
            return self.confirmed(cached, cached.token_endpoint.clone());
        }
        if let Ok(url) = issuer.parse() {
            self.prepare(self.endpoint(context), &url, context).await?;
        }
        match discovery::fetch(&self.endpoint(context), issuer).await {
            Ok(found) => {
                // RFC 8705 section 5.
                let token_endpoint = match found.mtls_token_endpoint {
                    Some(alias) if mtls => alias,
                    _ => found.token_endpoint,
                };
                let confirmed_host = cached
                    .as_ref()
                    .map_or_else(|| host(&token_endpoint), |cached| cached.confirmed_host.clone());
                let fetched = Discovered {
                    issuer: issuer.clone(),
                    mtls,
                    token_endpoint,
                    confirmed_host,
                    fetched_at: now,
                };
                let endpoint = self.confirmed(&fetched, fetched.token_endpoint.clone())?;
                // Without the cache the next pass fetches the document again: no reason to fail.
                let kept = Discovered { confirmed_host: host(&endpoint), ..fetched };
                let store = store::open(&self.settings, &self.account);
                let _ = self.on_files(context, move || store.keep_discovered(&kept)).await;
                Ok(endpoint)
            }
            Err(error) => match cached {
                Some(cached) => self.confirmed(&cached, cached.token_endpoint.clone()),
                None => Err(error.into()),
            },
        }
    }

    /// An endpoint on a new host gets no refresh token before the user confirms the host: an attacker
    /// who can change the discovery document could collect them.
    fn confirmed(&self, cached: &Discovered, endpoint: Url) -> Result<Url, Problem> {
        let found = host(&endpoint);
        if found == cached.confirmed_host || self.account.confirmed_endpoint_host.as_deref() == Some(&*found)
        {
            return Ok(endpoint);
        }
        let message = format!(
            "the issuer {} has moved its token endpoint from host {} to {found}",
            cached.issuer, cached.confirmed_host
        );
        Err(Problem::of(Class::Config, "endpoint_moved", message)
            .hint(format!("if the provider announces this, set confirmed_endpoint_host = \"{found}\"")))
    }
}

async fn grant(
    reader: &mut CredentialReader<'_>,
    client: &mut TokenClient,
) -> Result<Option<Grant>, Problem> {
    match reader.account.grant.grant_type {
        GrantType::GoogleCredentials => google::grant(reader, client).await.map(Some),
        _ => reader.grant(&client.token_endpoint).await,
    }
}

/// Everything of a request but the request, and the secrets of a login: the keys of the config that are
/// read for it, each with a word on it or the problem.
pub async fn rehearse(account: &AccountConfig) -> Vec<(&'static str, Result<String, Problem>)> {
    let token_endpoint = match &account.endpoint {
        Endpoint::Explicit(url) => Ok(url.clone()),
        // Only for the audience, which nobody sees.
        Endpoint::Discovered { issuer } => issuer.parse(),
        Endpoint::Elsewhere => "https://localhost/".parse(),
    };
    let Ok(token_endpoint) = token_endpoint else { return Vec::new() };
    let mut reader = CredentialReader::new(account, String::new(), SystemClock::new().now());
    let proof = reader.authentication(None, &token_endpoint).await.err();
    let proof = proof.map(|problem| (reader.key, Err(problem)));
    let mut client = TokenClient {
        token_endpoint,
        client_id: String::new(),
        client_authentication: ClientAuthentication::None,
        scope: account.scope.clone(),
        extra_params: Vec::new(),
        shape: Shape::default(),
    };
    let grant = grant(&mut reader, &mut client).await.err().map(|problem| (reader.key, Err(problem)));
    let found = reader.found.into_iter().map(|(key, found)| (key, Ok(found)));
    found.chain(proof).chain(grant).collect()
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

/// By how many seconds this machine's clock is ahead of the server's, if that is worth a word: a clock of
/// half a minute's error is what nobody keeps on purpose. `before` and `after` are the clocks around the
/// exchange.
fn clock_ahead(reply: &Reply, before: Timestamp, after: Timestamp) -> Option<i64> {
    const NOTABLE: i64 = 30;
    let date = oauth::retry_after::epoch_millis(reply.date.as_deref()?)? / 1000;
    let (before, after) = (before.wall / 1000, after.wall / 1000);
    let ahead = if date < before { before - date } else { (after - date).min(0) };
    (ahead.abs() > NOTABLE).then_some(ahead)
}

/// Exchanges a token for that of a service account: Google's `generateAccessToken`.
async fn impersonate(
    endpoint: &HttpEndpoint,
    url: &Url,
    scopes: &[String],
    token: &Secret,
    context: &ReplyContext<'_>,
) -> Answer {
    let headers = [
        ("authorization".to_owned(), Secret::new(format!("Bearer {}", token.expose()))),
        ("content-type".to_owned(), Secret::new("application/json")),
    ];
    let body = Secret::new(json!({ "scope": scopes, "lifetime": "3600s" }).to_string());
    let known_secrets: Vec<_> = context.known_secrets.iter().copied().chain([token]).collect();
    let context = ReplyContext { known_secrets: &known_secrets, ..*context };
    let mut reply = endpoint.send("POST", url, &headers, &body).await;
    if let Ok(reply) = &mut reply
        && let Ok(granted) = serde_json::from_slice::<Impersonated>(&reply.body)
    {
        let words = json!({ "access_token": granted.access_token, "expires_at": granted.expire_time });
        reply.body = words.to_string().into_bytes().into();
    }
    oauth::classify(reply.as_ref(), &context)
}

/// The reply of `generateAccessToken`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Impersonated {
    access_token: String,
    /// RFC 3339.
    expire_time: String,
}

async fn field(
    account: &AccountConfig,
    key: &'static str,
    (name, source): &(String, SecretSource),
) -> Result<Field, Problem> {
    let value = read(account, key, source).await?;
    Ok(Field { name: name.clone(), value, made_anew: matches!(source, SecretSource::Command(_)) })
}

impl From<DiscoveryError> for Problem {
    fn from(error: DiscoveryError) -> Self {
        let class = if error.is_transient() { Class::Unavailable } else { Class::Config };
        Self::new(&error, class, "discovery", error.hint())
    }
}
