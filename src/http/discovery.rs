//! Finding the token endpoint from the issuer: RFC 8414, then OpenID Connect Discovery 1.0.

use serde::{Deserialize, Serialize};
use url::Url;

use crate::config::is_loopback;
use crate::http::HttpEndpoint;
use crate::oauth::TransportFailure;

/// What an authorization server says about itself, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discovery {
    /// The issuer, exactly as it was asked for.
    pub issuer: String,
    /// Where refresh requests go: https, or http on this machine if the issuer is there, too.
    pub token_endpoint: Url,
    /// How clients may authenticate; RFC 8414's default, `client_secret_basic`, if unsaid.
    pub token_endpoint_auth_methods_supported: Vec<String>,
}

/// Why no token endpoint was found.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// What is configured cannot be an issuer (RFC 8414 section 2).
    #[error("\"{issuer}\" is not an issuer: {reason}")]
    Issuer {
        /// As configured.
        issuer: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No answer. The other path is on the same host and was not tried.
    #[error("no answer from {url}")]
    Unreachable {
        /// Which document was asked for.
        url: Url,
        /// What happened.
        source: TransportFailure,
    },
    /// Answers, but no document that can be used.
    #[error("nothing usable at {oauth_url} ({oauth}), nor at {openid_url} ({openid})")]
    NoDocument {
        /// RFC 8414's place.
        oauth_url: Url,
        /// What is wrong with what is there.
        oauth: DocumentError,
        /// OpenID Connect's place.
        openid_url: Url,
        /// What is wrong with what is there.
        openid: DocumentError,
    },
}

/// What is wrong with one discovery document.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// It is not there, or not to be had at the moment.
    #[error("HTTP {0}")]
    Status(u16),
    /// It is no JSON object, or a member has the wrong type.
    #[error("not a discovery document")]
    NotADocument,
    /// It lacks a member.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// It is somebody else's: RFC 8414 section 3.3.
    #[error("it is of the issuer {0:?}")]
    OtherIssuer(String),
    /// The refresh token would travel unencrypted.
    #[error("its token_endpoint is not https: {0:?}")]
    Insecure(String),
}

impl DiscoveryError {
    /// True if it may well be different soon: nothing need be changed in the config.
    pub fn is_transient(&self) -> bool {
        let is_busy =
            |error: &DocumentError| matches!(error, DocumentError::Status(408 | 425 | 429 | 500..=599));
        match self {
            Self::Issuer { .. } => false,
            Self::Unreachable { .. } => true,
            Self::NoDocument { oauth, openid, .. } => is_busy(oauth) || is_busy(openid),
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Issuer { .. } => {
                Some("write issuer as the provider does, such as https://login.example.com".to_owned())
            }
            Self::Unreachable { source, .. } => Some(source.kind.hint().unwrap_or(AGAIN).to_owned()),
            Self::NoDocument { oauth, openid, .. } => {
                let other = |error: &DocumentError| match error {
                    DocumentError::OtherIssuer(issuer) => Some(format!(
                        "if that is your provider, set issuer = {issuer:?}, to the letter; else set token_endpoint"
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

/// Where waiting is all there is.
const AGAIN: &str = "it is asked again at the next refresh; set token_endpoint to do without it";

/// Asks the issuer: at RFC 8414's place first, and at OpenID Connect's if that has no answer
/// that can be used.
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

/// The two places: RFC 8414 section 3.1 puts the well-known part between host and path, OpenID
/// Connect Discovery section 4 after the path.
fn document_urls(issuer: &str) -> Result<[Url; 2], &'static str> {
    let url = Url::parse(issuer).map_err(|_| "it is no URL")?;
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

/// As much of a stranger's words as fits into a message; no issuer is longer.
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
    }

    let document: Metadata = serde_json::from_slice(bytes).map_err(|_| DocumentError::NotADocument)?;
    let stated = document.issuer.ok_or(DocumentError::Missing("issuer"))?;
    if stated != issuer {
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
    Ok(Discovery {
        issuer: stated,
        token_endpoint,
        token_endpoint_auth_methods_supported: document
            .token_endpoint_auth_methods_supported
            .unwrap_or_else(|| vec!["client_secret_basic".to_owned()]),
    })
}
