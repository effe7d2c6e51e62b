//! Finding the token endpoint from the issuer: RFC 8414, then OpenID Connect Discovery 1.0.

use serde::Deserialize;
use url::Url;

use crate::config::is_loopback;
use crate::http::HttpEndpoint;
use crate::oauth::TransportFailure;

/// The metadata of an authorization server, as far as it is needed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// Exactly as configured.
    pub issuer: String,
    /// https, or http on this machine if the issuer is on this machine, too.
    pub token_endpoint: Url,
    /// For clients with a certificate, RFC 8705 section 5; as safe as the token endpoint, or absent.
    pub mtls_token_endpoint: Option<Url>,
    /// RFC 8414's default, `client_secret_basic`, if it is missing.
    pub token_endpoint_auth_methods_supported: Vec<String>,
    /// As the document states it: with the placeholder of Entra ID's endpoints for several tenants.
    pub stated_issuer: String,
    /// This and the next two: as safe as the token endpoint, or absent.
    pub authorization_endpoint: Option<Url>,
    /// RFC 8628 section 4.
    pub device_authorization_endpoint: Option<Url>,
    /// RFC 7009.
    pub revocation_endpoint: Option<Url>,
    pub scopes_supported: Vec<String>,
    /// RFC 7636; `None` if it is not stated.
    pub code_challenge_methods_supported: Option<Vec<String>>,
    /// RFC 9207 section 3.
    pub authorization_response_iss_parameter_supported: bool,
}

/// Why no token endpoint was found.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// RFC 8414 section 2.
    #[error("\"{issuer}\" is not an issuer: {reason}")]
    Issuer { issuer: String, reason: &'static str },
    /// No answer. The other path is on the same host and was not tried.
    #[error("no answer from {url}")]
    Unreachable { url: Url, source: TransportFailure },
    #[error("no discovery document at {oauth_url} ({oauth}) or at {openid_url} ({openid})")]
    NoDocument { oauth_url: Url, oauth: DocumentError, openid_url: Url, openid: DocumentError },
}

/// The fault of one discovery document.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    #[error("HTTP {0}")]
    Status(u16),
    /// It is not a JSON object, or a member has the wrong type.
    #[error("not a JSON object with issuer and token_endpoint")]
    NotADocument,
    #[error("{0} is missing")]
    Missing(&'static str),
    /// RFC 8414 section 3.3.
    #[error("its issuer is {0:?}")]
    OtherIssuer(String),
    /// The refresh token would travel unencrypted.
    #[error("its token_endpoint is not https: {0:?}")]
    Insecure(String),
}

impl DiscoveryError {
    /// True if it may go away without a change of the config.
    pub fn is_transient(&self) -> bool {
        let is_busy =
            |error: &DocumentError| matches!(error, DocumentError::Status(408 | 425 | 429 | 500..=599));
        match self {
            Self::Issuer { .. } => false,
            Self::Unreachable { .. } => true,
            Self::NoDocument { oauth, openid, .. } => is_busy(oauth) || is_busy(openid),
        }
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Issuer { .. } => {
                Some("write the issuer exactly as the provider publishes it, for example https://login.example.com".to_owned())
            }
            Self::Unreachable { source, .. } => {
                Some(source.kind.hint().map_or_else(|| AGAIN.to_owned(), |hint| hint.replace("token_endpoint", "issuer")))
            }
            Self::NoDocument { oauth, openid, .. } => {
                let other = |error: &DocumentError| match error {
                    DocumentError::OtherIssuer(issuer) => Some(format!(
                        "if that is your provider, set issuer = {issuer:?}; else set token_endpoint"
                    )),
                    _ => None,
                };
                let own =
                    if self.is_transient() { AGAIN } else { "check issuer, or set token_endpoint instead" };
                other(oauth).or_else(|| other(openid)).or_else(|| Some(own.to_owned()))
            }
        }
    }
}

const AGAIN: &str = "wait: the next refresh tries again; or set token_endpoint, which needs no discovery";

/// Requests the document of RFC 8414 first, then that of OpenID Connect.
pub async fn fetch(endpoint: &HttpEndpoint, issuer: &str) -> Result<Discovery, DiscoveryError> {
    let [oauth_url, openid_url] = document_urls(issuer)
        .map_err(|reason| DiscoveryError::Issuer { issuer: issuer.to_owned(), reason })?;
    let oauth = match document(endpoint, &oauth_url, issuer).await? {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    match document(endpoint, &openid_url, issuer).await? {
        Ok(found) => Ok(found),
        Err(openid) => Err(DiscoveryError::NoDocument { oauth_url, oauth, openid_url, openid }),
    }
}

async fn document(
    endpoint: &HttpEndpoint,
    url: &Url,
    issuer: &str,
) -> Result<Result<Discovery, DocumentError>, DiscoveryError> {
    let reply =
        endpoint.get(url).await.map_err(|source| DiscoveryError::Unreachable { url: url.clone(), source })?;
    if reply.status != 200 {
        return Ok(Err(DocumentError::Status(reply.status)));
    }
    Ok(parse_document(&reply.body, issuer))
}

/// The two URLs: RFC 8414 section 3.1 puts the well-known part between host and path, OpenID
/// Connect Discovery section 4 after the path.
fn document_urls(issuer: &str) -> Result<[Url; 2], &'static str> {
    let url = Url::parse(issuer).map_err(|_| "it is not a valid URL")?;
    if url.scheme() != "https" && url.scheme() != "http" {
        return Err("it is not https");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it has a query or a fragment");
    }
    let path = url.path().trim_end_matches('/');
    let at = |path: &str| {
        let mut url = url.clone();
        url.set_path(path);
        url
    };
    Ok([
        at(&format!("/.well-known/oauth-authorization-server{path}")),
        at(&format!("{path}/.well-known/openid-configuration")),
    ])
}

/// Entra ID's endpoints for several tenants publish a placeholder for the tenant of each login.
fn is_tenant_of(issuer: &str, stated: &str) -> bool {
    ["common", "organizations", "consumers"].iter().any(|name| stated.replace("{tenantid}", name) == issuer)
}

/// Cut to fit into a message; no issuer is longer.
fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Reads a document, and checks that it is `issuer`'s own.
pub fn parse_document(bytes: &[u8], issuer: &str) -> Result<Discovery, DocumentError> {
    #[derive(Deserialize)]
    struct Metadata {
        issuer: Option<String>,
        token_endpoint: Option<String>,
        token_endpoint_auth_methods_supported: Option<Vec<String>>,
        authorization_endpoint: Option<String>,
        device_authorization_endpoint: Option<String>,
        revocation_endpoint: Option<String>,
        scopes_supported: Option<Vec<String>>,
        code_challenge_methods_supported: Option<Vec<String>>,
        authorization_response_iss_parameter_supported: Option<bool>,
        mtls_endpoint_aliases: Option<Aliases>,
    }

    #[derive(Deserialize)]
    struct Aliases {
        token_endpoint: Option<String>,
    }

    let document: Metadata = serde_json::from_slice(bytes).map_err(|_| DocumentError::NotADocument)?;
    let stated = document.issuer.ok_or(DocumentError::Missing("issuer"))?;
    if stated != issuer && !is_tenant_of(issuer, &stated) {
        return Err(DocumentError::OtherIssuer(shown(&stated)));
    }
    let token_endpoint = document.token_endpoint.ok_or(DocumentError::Missing("token_endpoint"))?;
    let issuer_is_local = Url::parse(issuer).is_ok_and(|url| url.scheme() == "http" && is_loopback(&url));
    let is_safe = |url: &Url| {
        url.scheme() == "https" || (url.scheme() == "http" && issuer_is_local && is_loopback(url))
    };
    let Some(token_endpoint) = Url::parse(&token_endpoint).ok().filter(is_safe) else {
        return Err(DocumentError::Insecure(shown(&token_endpoint)));
    };
    let safe = |url: Option<String>| url.and_then(|url| Url::parse(&url).ok()).filter(is_safe);
    Ok(Discovery {
        stated_issuer: stated,
        authorization_endpoint: safe(document.authorization_endpoint),
        device_authorization_endpoint: safe(document.device_authorization_endpoint),
        mtls_token_endpoint: safe(document.mtls_endpoint_aliases.and_then(|aliases| aliases.token_endpoint)),
        revocation_endpoint: safe(document.revocation_endpoint),
        scopes_supported: document.scopes_supported.unwrap_or_default(),
        code_challenge_methods_supported: document.code_challenge_methods_supported,
        authorization_response_iss_parameter_supported: document
            .authorization_response_iss_parameter_supported
            .unwrap_or(false),
        issuer: issuer.to_owned(),
        token_endpoint,
        token_endpoint_auth_methods_supported: document
            .token_endpoint_auth_methods_supported
            .unwrap_or_else(|| vec!["client_secret_basic".to_owned()]),
    })
}
