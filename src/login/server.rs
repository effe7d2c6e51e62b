//! The authorization server as a login needs it: from the config, the preset and the issuer's metadata.

use std::sync::Arc;

use url::Url;

use crate::account::client::Client;
use crate::account::context::Context;
use crate::config::{AccountConfig, LoginConfig};
use crate::http::discovery::{self, Discovery};
use crate::login::request::{AuthorizationRequest, login_scope};
use crate::oauth::TokenClient;
use crate::problem::{Class, Problem};

#[derive(Debug)]
pub struct LoginServer {
    /// Without `scope`, which narrows a refresh and has no place in the exchange of a code.
    pub client: Arc<TokenClient>,
    pub authorization_endpoint: Option<Url>,
    pub device_authorization_endpoint: Option<Url>,
    pub revocation_endpoint: Option<Url>,
    /// May have Entra ID's placeholder.
    pub issuer: Option<String>,
    /// RFC 9207: the server says that its redirects name it.
    pub sends_issuer: bool,
    pub scope: Option<String>,
    /// More parameters of the authorization request.
    pub params: Vec<(String, String)>,
    /// The server states its methods, and S256 is none of them.
    pub lacks_s256: bool,
}

impl LoginServer {
    pub async fn find(
        client: &Client,
        account: &AccountConfig,
        context: &Context,
        token_client: &TokenClient,
        scope: Option<&str>,
    ) -> Result<Self, Problem> {
        let LoginConfig {
            authorization_endpoint, device_authorization_endpoint, revocation_endpoint, ..
        } = &account.login;
        let is_known = authorization_endpoint.is_some() || device_authorization_endpoint.is_some();
        let found = match &account.issuer {
            Some(issuer) => match discovery::fetch(&client.endpoint(context), issuer).await {
                Ok(found) => Some(found),
                // The config may name all that is needed.
                Err(_) if is_known => None,
                Err(error) => return Err(error.into()),
            },
            None => None,
        };
        let of = |own: &Option<Url>, get: fn(&Discovery) -> &Option<Url>| {
            own.clone().or_else(|| found.as_ref().and_then(|found| get(found).clone()))
        };
        let supported = found.as_ref().map_or(&[][..], |found| &found.scopes_supported);
        let server = Self {
            client: Arc::new(TokenClient { scope: None, ..token_client.clone() }),
            authorization_endpoint: of(authorization_endpoint, |found| &found.authorization_endpoint),
            device_authorization_endpoint: of(device_authorization_endpoint, |found| {
                &found.device_authorization_endpoint
            }),
            revocation_endpoint: of(revocation_endpoint, |found| &found.revocation_endpoint),
            issuer: found.as_ref().map(|found| found.stated_issuer.clone()).or(account.issuer.clone()),
            sends_issuer: found
                .as_ref()
                .is_some_and(|found| found.authorization_response_iss_parameter_supported),
            scope: login_scope(
                scope.or(account.login.scope.as_deref()),
                account.scope.as_deref(),
                account.login.preset_scope,
                supported,
            ),
            params: params(account),
            lacks_s256: found
                .as_ref()
                .and_then(|found| found.code_challenge_methods_supported.as_ref())
                .is_some_and(|methods| !methods.iter().any(|method| method == "S256")),
        };
        if server.authorization_endpoint.is_none() && server.device_authorization_endpoint.is_none() {
            return Err(no_endpoint("authorization_endpoint"));
        }
        Ok(server)
    }

    pub fn authorization_request(&self) -> Result<AuthorizationRequest, Problem> {
        Ok(AuthorizationRequest {
            endpoint: self
                .authorization_endpoint
                .clone()
                .ok_or_else(|| no_endpoint("authorization_endpoint"))?,
            client_id: self.client.client_id.clone(),
            scope: self.scope.clone(),
            params: self.params.clone(),
        })
    }
}

/// An endpoint that nobody names.
pub fn no_endpoint(key: &'static str) -> Problem {
    Problem::of(Class::Config, "no_endpoint", format!("neither the config nor the issuer names the {key}"))
        .hint(format!("set {key} to the address in the provider's documentation"))
}

/// Audience and resource select what the token is for, and some servers want them at the login.
fn params(account: &AccountConfig) -> Vec<(String, String)> {
    let mut params = account.login.params.clone();
    let has = |name: &str| account.login.params.iter().any(|(known, _)| known == name);
    if let Some(audience) = account.audience.as_ref().filter(|_| !has("audience")) {
        params.push(("audience".into(), audience.clone()));
    }
    if !has("resource") {
        params.extend(account.resource.iter().map(|uri| ("resource".to_owned(), uri.clone())));
    }
    params
}
