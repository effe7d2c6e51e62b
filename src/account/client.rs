//! What a request is made of: secrets, and the address that it goes to.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::account::context::Context;
use crate::clock::Timestamp;
use crate::config;
use crate::config::{Endpoint, SecretSource};
use crate::http::discovery;
use crate::http::discovery::DiscoveryError;
use crate::http::{HttpEndpoint, HttpOptions};
use crate::oauth;
use crate::oauth::{
    Answer, AuthMethod, ClientAuthentication, FailureKind, RefreshRequest, Sent, TransportFailure,
};
use crate::problem::{Class, Problem};
use crate::refresh::decide::Inputs;
use crate::secret::Secret;
use crate::secrets;
use crate::secrets::SecretError;
use crate::store::discovery::{Cache, Cached};

/// How often the secrets are looked at while only a new login can help: soon enough for the user
/// who has just logged in, seldom enough for a password manager.
pub const REREAD: Duration = Duration::from_secs(5 * 60);

/// A discovery document is fetched again when it is this old (it changes about never).
const DISCOVERY_FRESH: Duration = Duration::from_secs(24 * 3600);

/// The clients for token endpoints, one for each set of certificate authorities.
pub type Endpoints = HashMap<(Duration, Option<PathBuf>, bool), Rc<HttpEndpoint>>;

/// How one account asks for a token.
#[derive(Debug)]
pub struct Client {
    account: Arc<config::AccountConfig>,
    cache: Cache,
    /// The request without its refresh token, since the inputs were last read.
    request: Option<Box<RefreshRequest>>,
}

impl Client {
    /// Reads nothing yet.
    pub fn new(settings: &config::Settings, account: &Arc<config::AccountConfig>) -> Self {
        Self {
            account: Arc::clone(account),
            cache: Cache::new(&settings.state_dir, account.name.as_str()),
            request: None,
        }
    }

    /// Drops the secrets, until the inputs are read again.
    pub fn forget(&mut self) {
        self.request = None;
    }

    /// Reads the secrets, and finds the token endpoint.
    pub async fn read_inputs(&mut self, context: &Context) -> Result<Inputs, Problem> {
        let client_secret = match &self.account.client_secret {
            Some(source) => Some(
                read(&self.account, "client_secret", source).await.map_err(|error| secret_problem(&error))?,
            ),
            None => None,
        };
        let seed = match &self.account.refresh_token {
            Some(source) => read(&self.account, "refresh_token", source).await.map(Some),
            None => Ok(None),
        };
        let token_endpoint = self.token_endpoint(context).await?;
        let account = &self.account;
        let extra = account.audience.iter().map(|audience| ("audience".to_owned(), audience.clone()));
        let extra = extra.chain(account.resource.iter().map(|uri| ("resource".to_owned(), uri.clone())));
        let request = RefreshRequest {
            token_endpoint,
            client_id: account.client_id.clone(),
            client_authentication: authentication(account.auth_method, client_secret),
            refresh_token: Secret::new(""),
            scope: account.scope.clone(),
            extra_params: extra.chain(account.extra_params.iter().cloned()).collect(),
        };
        let fingerprint = request.fingerprint();
        self.request = Some(Box::new(request));
        let (seed, seed_problem) = match seed {
            Ok(seed) => (seed, None),
            Err(error) => (None, Some(secret_problem(&error))),
        };
        Ok(Inputs { seed, seed_problem, request: fingerprint })
    }

    /// One POST, and what it came to.
    pub async fn post(&self, refresh_token: Secret, context: &Context) -> Answer {
        let Some(request) = self.request.clone() else {
            // The core asks for the inputs first, so this does not happen; if it did, nothing
            // would have been sent.
            let (sent, kind) = (Sent::NotSent, FailureKind::Other);
            let failure = TransportFailure { sent, kind, detail: "the request was not put together".into() };
            return oauth::classify(Err(&failure), &self.judge(context.clock.now(), &[]));
        };
        let request = RefreshRequest { refresh_token, ..*request };
        let asked_at = context.clock.now();
        let reply = self.endpoint(context).post(&request).await;
        let mut known = vec![&request.refresh_token];
        known.extend(request.client_authentication.client_secret());
        oauth::classify(reply.as_ref(), &self.judge(asked_at, &known))
    }

    fn judge<'a>(&self, now: Timestamp, known_secrets: &'a [&'a Secret]) -> oauth::ReplyContext<'a> {
        oauth::ReplyContext { now, default_lifetime: self.account.default_lifetime, known_secrets }
    }

    fn endpoint(&self, context: &Context) -> Rc<HttpEndpoint> {
        let key = (self.account.timeout, self.account.ca_file.clone(), self.account.allow_http);
        let mut endpoints = context.endpoints.borrow_mut();
        let endpoint = endpoints.entry(key.clone()).or_insert_with(|| {
            let (timeout, ca_file, allow_http) = key.clone();
            Rc::new(HttpEndpoint::new(HttpOptions { timeout, ca_file, allow_http }))
        });
        Rc::clone(endpoint)
    }

    /// The configured one, or the one that the issuer publishes.
    async fn token_endpoint(&self, context: &Context) -> Result<Url, Problem> {
        let issuer = match &self.account.endpoint {
            Endpoint::Explicit(url) => return Ok(url.clone()),
            Endpoint::Discovered { issuer } => issuer,
        };
        let now = context.clock.now();
        let cached = self.cache.read().filter(|cached| cached.issuer == *issuer);
        if let Some(cached) = &cached
            && cached.fetched_at.wall <= now.wall
            && now.since(cached.fetched_at) < DISCOVERY_FRESH
        {
            return self.confirmed(cached, cached.token_endpoint.clone());
        }
        match discovery::fetch(&self.endpoint(context), issuer).await {
            Ok(found) => {
                let confirmed_host = cached
                    .as_ref()
                    .map_or_else(|| host(&found.token_endpoint), |cached| cached.confirmed_host.clone());
                let fetched = Cached {
                    issuer: issuer.clone(),
                    token_endpoint: found.token_endpoint,
                    confirmed_host,
                    fetched_at: now,
                };
                let endpoint = self.confirmed(&fetched, fetched.token_endpoint.clone())?;
                // Without the cache the next pass asks again: slower, and no reason to fail.
                let _ = self.cache.write(&Cached { confirmed_host: host(&endpoint), ..fetched });
                Ok(endpoint)
            }
            Err(error) => match cached {
                Some(cached) => self.confirmed(&cached, cached.token_endpoint.clone()),
                None => Err(discovery_problem(&error)),
            },
        }
    }

    /// An endpoint on another host than the one before gets no refresh token, unless the user
    /// has said so: who can change the document could otherwise collect them.
    fn confirmed(&self, known: &Cached, endpoint: Url) -> Result<Url, Problem> {
        let found = host(&endpoint);
        if found == known.confirmed_host || self.account.confirmed_endpoint_host.as_deref() == Some(&*found) {
            return Ok(endpoint);
        }
        Err(Problem {
            class: Class::Config,
            kind: "endpoint_moved".into(),
            message: format!(
                "the issuer {} has moved its token endpoint from host {} to {found}",
                known.issuer, known.confirmed_host
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
        (AuthMethod::ClientSecretPost, Some(client_secret)) => ClientAuthentication::Post { client_secret },
        (AuthMethod::None, _) | (_, None) => ClientAuthentication::None,
    }
}

/// A command may take seconds, and a file may be on a slow disk: not on this thread, unless the
/// secret is here already.
pub async fn read(
    account: &config::AccountConfig,
    key: &'static str,
    source: &SecretSource,
) -> Result<Secret, SecretError> {
    let variables = &account.secret_variables;
    if matches!(source, SecretSource::Command(_)) {
        let (command, variables) = (source.clone(), Arc::clone(variables));
        let read = tokio::task::spawn_blocking(move || secrets::read(key, &command, &variables));
        // A panic aborts the process, and nothing cancels the task.
        if let Ok(secret) = read.await {
            return secret;
        }
    }
    secrets::read(key, source, variables)
}

fn secret_problem(error: &SecretError) -> Problem {
    Problem::new(error, Class::Unavailable, "secret", error.hint())
}

fn discovery_problem(error: &DiscoveryError) -> Problem {
    let class = if error.is_transient() { Class::Unavailable } else { Class::Config };
    Problem::new(error, class, "discovery", error.hint())
}
