//! The end of a token: RFC 7009.

use std::time::Duration;

use url::Url;

use crate::clock::{Clock, SystemClock};
use crate::http::HttpEndpoint;
use crate::oauth::{ReplyContext, TokenClient, error_of};
use crate::problem::{Class, Problem};
use crate::secret::Secret;

/// `token_type_hint`, RFC 7009 section 2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    RefreshToken,
    AccessToken,
}

impl TokenKind {
    fn hint(self) -> &'static str {
        match self {
            Self::RefreshToken => "refresh_token",
            Self::AccessToken => "access_token",
        }
    }
}

/// Asks the server to revoke a token. A token that is dead already is a success (section 2.2), and some
/// servers say so by an error.
pub async fn revoke(
    http: &HttpEndpoint,
    client: &TokenClient,
    endpoint: &Url,
    kind: TokenKind,
    token: &Secret,
) -> Result<(), Problem> {
    let (headers, body) = client.form(&[("token", token.expose()), ("token_type_hint", kind.hint())]);
    let problem =
        |class: Class, message: String, hint: &str| Problem::of(class, "revocation", message).hint(hint);
    let reply = http.send("POST", endpoint, &headers, &body).await.map_err(|failure| {
        let hint = failure.kind.hint().unwrap_or(AGAIN);
        let problem = problem(Class::Unavailable, "the revocation endpoint did not answer".into(), hint);
        Problem { kind: failure.kind.name().into(), cause: Some(failure.to_string()), ..problem }
    })?;
    let mut known_secrets = vec![token];
    known_secrets.extend(client.client_authentication.client_secret());
    let context = ReplyContext {
        now: SystemClock::new().now(),
        default_lifetime: Duration::ZERO,
        known_secrets: &known_secrets,
    };
    let error = error_of(&reply, &context);
    let code = error.as_ref().map_or("", |error| error.code.as_str());
    let said = || error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    let status = reply.status;
    match (status, code) {
        (200..=299, _) | (400..=499, "invalid_token" | "invalid_grant") => Ok(()),
        (408 | 425 | 429 | 500..=599, _) => {
            let message = format!("the revocation endpoint answers HTTP {status}{}", said());
            Err(problem(Class::Unavailable, message, AGAIN))
        }
        (_, "unsupported_token_type") => {
            let message = format!("the server revokes no {}", kind.hint().replace('_', " "));
            Err(problem(Class::Config, message, LOCAL))
        }
        _ => {
            let message = format!("the server does not revoke the login (HTTP {status}){}", said());
            Err(problem(Class::Config, message, LOCAL))
        }
    }
}

const AGAIN: &str = "try again later; `zg-tokend logout --local` forgets the login on this machine alone";

const LOCAL: &str = "check client_id, client_secret and revocation_endpoint; or forget the login on this machine alone with --local, and revoke it on the provider's page";
