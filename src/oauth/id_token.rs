//! The ID token, OpenID Connect Core 1.0 section 2: the user who has logged in.
//!
//! Its signature is not checked. It comes straight from the token endpoint over TLS, which vouches for it
//! (section 3.1.3.7, point 6).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// By so many seconds a clock may be wrong. An ID token lives for minutes, and a login needs none that
/// lives longer.
const LEEWAY: f64 = 300.0;

/// The placeholder in the issuer of Entra ID's endpoints for several tenants.
const TENANT: &str = "{tenantid}";

/// The user of a login. Issuer and subject together are never given to another user (section 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub issuer: String,
    pub subject: String,
    /// For people; it may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

impl Identity {
    /// The e-mail address if it is known, else the whole name.
    pub fn short(&self) -> String {
        self.email.clone().unwrap_or_else(|| self.to_string())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.issuer, self.subject)
    }
}

/// The claims that an ID token must have.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedClaims<'a> {
    /// May have Entra ID's placeholder; `None` if no issuer is known.
    pub issuer: Option<&'a str>,
    /// `None` if it may be meant for another program: a server can issue ID tokens for a reader that
    /// expects its own `aud`.
    pub client_id: Option<&'a str>,
    /// The nonce of the request; `None` if the request had none.
    pub nonce: Option<&'a Secret>,
    /// Unix seconds.
    pub now: i64,
}

/// Why an ID token says nothing about the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenFault {
    #[error("is not a JWT with iss, sub, aud and exp")]
    NotAnIdToken,
    #[error("is from another issuer: {0:?}")]
    Issuer(String),
    #[error("is for another client")]
    Audience,
    #[error("has expired")]
    Expired,
    #[error("belongs to another login: its nonce is not the one that was sent")]
    Nonce,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: f64,
    nonce: Option<String>,
    email: Option<String>,
}

impl Claims {
    fn is_for(&self, client_id: &str) -> bool {
        let (is_named, is_alone) = match &self.aud {
            Audience::One(audience) => (audience == client_id, true),
            Audience::Several(list) => (list.iter().any(|one| one == client_id), list.len() == 1),
        };
        is_named && self.azp.as_deref().map_or(is_alone, |azp| azp == client_id)
    }
}

/// The payload of a JWT (RFC 7519).
fn claims<T: DeserializeOwned>(token: &Secret) -> Option<T> {
    let mut parts = token.expose().split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?);
    serde_json::from_slice(&payload).ok()
}

/// The `exp` of a JWT, in Unix seconds.
pub(super) fn expiry(token: &Secret) -> Option<f64> {
    #[derive(Deserialize)]
    struct Expiry {
        exp: f64,
    }

    claims::<Expiry>(token).map(|claims| claims.exp)
}

/// Checks an ID token by section 3.1.3.7, and returns the user in it.
pub fn check_id_token(token: &Secret, expected: &ExpectedClaims<'_>) -> Result<Identity, IdTokenFault> {
    let claims: Claims = claims(token).ok_or(IdTokenFault::NotAnIdToken)?;
    let shown = |text: &str| text.chars().filter(|c| !c.is_control()).take(200).collect();
    if expected.issuer.is_some_and(|issuer| !is_issuer(issuer, &claims.iss)) {
        return Err(IdTokenFault::Issuer(shown(&claims.iss)));
    }
    if expected.client_id.is_some_and(|client_id| !claims.is_for(client_id)) {
        return Err(IdTokenFault::Audience);
    }
    if claims.exp + LEEWAY < expected.now as f64 {
        return Err(IdTokenFault::Expired);
    }
    if expected.nonce.is_some_and(|nonce| claims.nonce.as_deref() != Some(nonce.expose())) {
        return Err(IdTokenFault::Nonce);
    }
    if claims.sub.is_empty() {
        return Err(IdTokenFault::NotAnIdToken);
    }
    Ok(Identity {
        issuer: shown(&claims.iss),
        subject: shown(&claims.sub),
        email: claims.email.filter(|email| !email.is_empty()).map(|email| shown(&email)),
    })
}

/// Whether this is the issuer, or a tenant of it.
pub fn is_issuer(expected: &str, stated: &str) -> bool {
    let Some((before, after)) = expected.split_once(TENANT) else { return expected == stated };
    let tenant = stated.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    tenant.is_some_and(|tenant| {
        !tenant.is_empty() && tenant.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::oauth::id_token::*;

    fn token(claims: &Value) -> Secret {
        Secret::new(format!("e30.{}.", URL_SAFE_NO_PAD.encode(claims.to_string())))
    }

    fn good() -> Value {
        json!({ "iss": "https://as.example", "sub": "u1", "aud": "c", "exp": 2000, "nonce": "n" })
    }

    #[test]
    fn each_claim_is_checked() {
        let nonce = Secret::new("n");
        let expected = ExpectedClaims {
            issuer: Some("https://as.example"),
            client_id: Some("c"),
            nonce: Some(&nonce),
            now: 2100,
        };
        let judge = |name: &str, value: Value| {
            let mut claims = good();
            claims[name] = value;
            check_id_token(&token(&claims), &expected)
        };
        assert_eq!(judge("x", Value::Null).unwrap().to_string(), "https://as.example#u1");
        assert_eq!(judge("aud", json!(["c"])).unwrap().subject, "u1");
        assert_eq!(judge("email", json!("a@b")).unwrap().short(), "a@b");
        for (name, value, fault) in [
            ("iss", json!("https://as.example/"), IdTokenFault::Issuer("https://as.example/".into())),
            ("aud", json!("d"), IdTokenFault::Audience),
            ("aud", json!(["c", "d"]), IdTokenFault::Audience),
            ("azp", json!("d"), IdTokenFault::Audience),
            ("exp", json!(1000), IdTokenFault::Expired),
            ("nonce", json!("m"), IdTokenFault::Nonce),
            ("nonce", Value::Null, IdTokenFault::Nonce),
            ("sub", json!(""), IdTokenFault::NotAnIdToken),
            ("sub", Value::Null, IdTokenFault::NotAnIdToken),
        ] {
            assert_eq!(judge(name, value.clone()), Err(fault), "{name} {value}");
        }
        let several = json!({ "iss": "https://as.example", "sub": "u", "aud": ["c", "d"], "azp": "c", "exp": 2000,
            "nonce": "n" });
        assert!(check_id_token(&token(&several), &expected).is_ok());
        let of_a_reader =
            json!({ "iss": "https://as.example", "sub": "u", "aud": "reader", "exp": 2000, "nonce": "n" });
        assert!(
            check_id_token(&token(&of_a_reader), &ExpectedClaims { client_id: None, ..expected }).is_ok()
        );
        assert_eq!(check_id_token(&Secret::new("a.b"), &expected), Err(IdTokenFault::NotAnIdToken));
    }

    #[test]
    fn a_tenant_is_a_word() {
        let pattern = "https://login.example/{tenantid}/v2.0";
        assert!(is_issuer(pattern, "https://login.example/0a-1b/v2.0"));
        for stated in ["https://login.example//v2.0", "https://login.example/a/b/v2.0", "https://x/0a/v2.0"] {
            assert!(!is_issuer(pattern, stated), "{stated}");
        }
    }
}
