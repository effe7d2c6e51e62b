//! The client of a token endpoint: reads the secrets, finds the endpoint, sends requests.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::account::context::Context;
use crate::config;
use crate::config::{AccountConfig, Endpoint, SecretSource};
use crate::http::discovery;
use crate::http::discovery::DiscoveryError;
use crate::http::{HttpEndpoint, HttpOptions};
use crate::oauth;
use crate::oauth::{
    Answer, AuthMethod, ClientAuthentication, Field, ReplyContext, Shape, TokenClient, TokenRequest,
};
use crate::problem::{Class, Problem};
use crate::refresh::decide::Inputs;
use crate::secret::Secret;
use crate::secrets;
use crate::secrets::SecretError;
use crate::store;
use crate::store::discovery::Discovered;
use crate::workers;

/// A discovery document is fetched again after this time; it hardly ever changes.
const DISCOVERY_FRESH: Duration = Duration::from_secs(24 * 3600);

/// How long a secret file or root certificates may take: as long as a secret command.
const FILE_TIME: Duration = Duration::from_secs(10);

/// One account as a client of its token endpoint.
#[derive(Debug)]
pub struct Client {
    account: Arc<AccountConfig>,
    settings: Arc<config::Settings>,
}

impl Client {
    pub fn new(settings: &Arc<config::Settings>, account: &Arc<AccountConfig>) -> Self {
        Self { account: Arc::clone(account), settings: Arc::clone(settings) }
    }

    /// Reads the secrets, and finds the token endpoint.
    pub async fn read_inputs(&self, context: &Context) -> Result<Inputs, Problem> {
        let account = &self.account;
        let client_secret = match &account.client_secret {
            Some(source) => Some(read(account, "client_secret", source).await?),
            None => None,
        };
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
        let client = TokenClient {
            token_endpoint: self.token_endpoint(context).await?,
            client_id: account.client_id.clone(),
            client_authentication: authentication(account.auth_method, client_secret),
            scope: account.scope.clone(),
            extra_params: extra.chain(plain).collect(),
            shape,
        };
        Ok(match seed {
            Ok(seed) => Inputs::new(seed, None, client),
            Err(error) => Inputs::new(None, Some(error.into()), client),
        })
    }

    pub async fn post(&self, request: &TokenRequest, context: &Context) -> Answer {
        let now = context.clock.now();
        let reply = self.endpoint(context).post(request).await;
        let (default_lifetime, known_secrets) = (self.account.default_lifetime, &request.secrets()[..]);
        oauth::classify(reply.as_ref(), &ReplyContext { now, default_lifetime, known_secrets })
    }

    pub fn endpoint(&self, context: &Context) -> Arc<HttpEndpoint> {
        context.endpoint(HttpOptions {
            timeout: self.account.timeout,
            ca_file: self.account.ca_file.clone(),
            allow_http: self.account.allow_http,
        })
    }

    /// Reads the root certificates on another thread: their file system may hang. If they cannot be read,
    /// the request says so.
    async fn prepare(&self, url: &Url, context: &Context) -> Result<(), Problem> {
        let endpoint = self.endpoint(context);
        if context.inline || url.scheme() != "https" || endpoint.is_prepared() {
            return Ok(());
        }
        let url = url.clone();
        let path = self.account.ca_file.clone().unwrap_or_default();
        let prepared = workers::run_within(&path, FILE_TIME, move || endpoint.prepare(&url).is_ok()).await;
        prepared.map(drop).ok_or_else(|| Problem {
            class: Class::Unavailable,
            kind: "files_hang".into(),
            message: "cannot read the root certificates: the file system does not answer".into(),
            hint: Some("check the file system of ca_file: mount, df, dmesg".into()),
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
        let issuer = match &self.account.endpoint {
            Endpoint::Explicit(url) => {
                self.prepare(url, context).await?;
                return Ok(url.clone());
            }
            Endpoint::Discovered { issuer } => issuer,
        };
        let now = context.clock.now();
        let mut store = store::open(&self.settings, &self.account.name);
        let cached = self.on_files(context, move || store.discovered()).await;
        let cached = cached.filter(|cached| cached.issuer == *issuer);
        if let Some(cached) = &cached
            && cached.fetched_at.wall <= now.wall
            && now.since(cached.fetched_at) < DISCOVERY_FRESH
        {
            self.prepare(&cached.token_endpoint, context).await?;
            return self.confirmed(cached, cached.token_endpoint.clone());
        }
        if let Ok(url) = issuer.parse() {
            self.prepare(&url, context).await?;
        }
        match discovery::fetch(&self.endpoint(context), issuer).await {
            Ok(found) => {
                let confirmed_host = cached
                    .as_ref()
                    .map_or_else(|| host(&found.token_endpoint), |cached| cached.confirmed_host.clone());
                let fetched = Discovered {
                    issuer: issuer.clone(),
                    token_endpoint: found.token_endpoint,
                    confirmed_host,
                    fetched_at: now,
                };
                let endpoint = self.confirmed(&fetched, fetched.token_endpoint.clone())?;
                // Without the cache the next pass fetches the document again: no reason to fail.
                let kept = Discovered { confirmed_host: host(&endpoint), ..fetched };
                let store = store::open(&self.settings, &self.account.name);
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
        Err(Problem {
            class: Class::Config,
            kind: "endpoint_moved".into(),
            message: format!(
                "the issuer {} has moved its token endpoint from host {} to {found}",
                cached.issuer, cached.confirmed_host
            ),
            hint: Some(format!("if the provider announces this, set confirmed_endpoint_host = \"{found}\"")),
        })
    }
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

fn authentication(method: AuthMethod, client_secret: Option<Secret>) -> ClientAuthentication {
    match (method, client_secret) {
        (AuthMethod::ClientSecretBasic, Some(client_secret)) => ClientAuthentication::Basic { client_secret },
        (AuthMethod::ClientSecretBasicRaw, Some(client_secret)) => {
            ClientAuthentication::BasicRaw { client_secret }
        }
        (AuthMethod::ClientSecretPost, Some(client_secret)) => ClientAuthentication::Post { client_secret },
        (AuthMethod::None, _) | (_, None) => ClientAuthentication::None,
    }
}

/// Runs commands and reads files on another thread: either may take seconds.
pub async fn read(
    account: &AccountConfig,
    key: &'static str,
    source: &SecretSource,
) -> Result<Secret, SecretError> {
    let variables = &account.secret_variables;
    if !matches!(source, SecretSource::Command(_) | SecretSource::File(_)) {
        return secrets::read(key, source, variables);
    }
    let (source, variables) = (source.clone(), Arc::clone(variables));
    if let SecretSource::File(path) = &source {
        let path = path.clone();
        let read = move || secrets::read(key, &source, &variables);
        let done = workers::run_within(&path, FILE_TIME, read).await;
        return done.unwrap_or(Err(SecretError::Hang { key, path }));
    }
    // It has a deadline of its own.
    workers::run_program(move || secrets::read(key, &source, &variables)).await
}

async fn field(
    account: &AccountConfig,
    key: &'static str,
    (name, source): &(String, SecretSource),
) -> Result<Field, Problem> {
    let value = read(account, key, source).await?;
    Ok(Field { name: name.clone(), value, made_anew: matches!(source, SecretSource::Command(_)) })
}

impl From<SecretError> for Problem {
    fn from(error: SecretError) -> Self {
        Self::new(&error, Class::Unavailable, "secret", error.hint())
    }
}

impl From<DiscoveryError> for Problem {
    fn from(error: DiscoveryError) -> Self {
        let class = if error.is_transient() { Class::Unavailable } else { Class::Config };
        Self::new(&error, class, "discovery", error.hint())
    }
}
