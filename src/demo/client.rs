//! Registered clients and their authentication.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::demo::message::{DemoRequest, Form, Refused, credentials};
use crate::secret::Secret;

/// Client authentication, by the registered names of RFC 7591 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientMethod {
    /// A form-encoded pair in the Authorization header (RFC 6749 2.3.1).
    ClientSecretBasic,
    /// client_id and client_secret in the body.
    ClientSecretPost,
    /// A public client: client_id in the body.
    None,
}

/// A registered client. Its method is the only one it may use.
#[derive(Debug, Clone)]
pub struct DemoClient {
    id: String,
    secret: Option<Secret>,
    method: ClientMethod,
}

impl DemoClient {
    /// Its client_id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it has no secret.
    pub(super) fn is_public(&self) -> bool {
        self.method == ClientMethod::None
    }

    /// A client without a secret.
    pub fn public(client_id: &str) -> Self {
        Self { id: client_id.to_owned(), secret: None, method: ClientMethod::None }
    }

    /// A client with a secret, sent by client_secret_basic.
    pub fn basic(client_id: &str, client_secret: &str) -> Self {
        Self {
            secret: Some(Secret::new(client_secret)),
            method: ClientMethod::ClientSecretBasic,
            ..Self::public(client_id)
        }
    }

    /// A client with a secret, sent by client_secret_post.
    pub fn post(client_id: &str, client_secret: &str) -> Self {
        Self { method: ClientMethod::ClientSecretPost, ..Self::basic(client_id, client_secret) }
    }
}

/// The client of a request: authenticated in exactly one way, the one that it registered.
pub(super) fn authenticate(clients: &[DemoClient], request: &DemoRequest) -> Result<(Form, String), Refused> {
    let form = Form::parse(request)?;
    let basic = request.authorization.as_deref().map(|header| {
        basic_credentials(header)
            .ok_or_else(|| Refused::new("invalid_client", "the Authorization header is not a Basic pair"))
    });
    let (client_id, secret, method) = match (basic.transpose()?, form.get("client_secret")) {
        (Some(_), Some(_)) => {
            return Err(Refused::new("invalid_request", "two ways of client authentication at once"));
        }
        (Some((client_id, secret)), None) => (client_id, Some(secret), ClientMethod::ClientSecretBasic),
        (None, secret) => {
            let client_id =
                form.get("client_id").ok_or_else(|| Refused::new("invalid_client", "no client_id"))?;
            let method = if secret.is_some() { ClientMethod::ClientSecretPost } else { ClientMethod::None };
            (client_id.to_owned(), secret.map(Secret::new), method)
        }
    };
    if form.get("client_id").is_some_and(|in_body| in_body != client_id) {
        return Err(Refused::new("invalid_request", "two different client_ids"));
    }
    match clients.iter().find(|client| client.id == client_id) {
        None => Err(Refused::new("invalid_client", "the client is unknown")),
        Some(client) if client.method != method => {
            Err(Refused::new("invalid_client", "the client is registered with another authentication method"))
        }
        Some(client) if client.secret != secret => {
            Err(Refused::new("invalid_client", "the client_secret is wrong"))
        }
        Some(_) => Ok((form, client_id)),
    }
}

/// client_id and client_secret, each form-encoded inside the pair (RFC 6749 2.3.1).
fn basic_credentials(header: &str) -> Option<(String, Secret)> {
    let pair = String::from_utf8(STANDARD.decode(credentials(header, "Basic")?).ok()?).ok()?;
    let (client_id, secret) = pair.split_once(':')?;
    let decode = |part: &str| {
        form_urlencoded::parse(format!("={part}").as_bytes()).next().map(|(_, value)| value.into_owned())
    };
    Some((decode(client_id)?, Secret::new(decode(secret)?)))
}
