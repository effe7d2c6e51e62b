//! Assertions: JWTs that this program signs (RFC 7523), and what can be read of others' before they are
//! sent.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::oauth::id_token;
use crate::secret::Secret;

/// How long before now an assertion was made, by its own account: a server whose clock is a little behind
/// would refuse one from its future.
const BACKDATED: i64 = 10;

/// How long an assertion lives: the exchange takes seconds, and servers accept no more than some minutes.
const LIFETIME: i64 = 300;

/// The claims of an assertion, RFC 7523 section 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertionClaims<'a> {
    pub issuer: &'a str,
    pub subject: Option<&'a str>,
    pub audience: &'a str,
    /// Google wants the scope in here.
    pub scope: Option<&'a str>,
    /// Unix seconds.
    pub now: i64,
    /// Of at least 128 random bits; no two assertions have the same.
    pub id: [u8; 16],
}

/// The header's members beside `typ`: `alg`, and what helps the server to find the key.
pub type Header = Map<String, Value>;

/// The signed text: header and claims, RFC 7515 section 5.1.
pub fn signing_input(mut header: Header, claims: &AssertionClaims<'_>) -> String {
    header.insert("typ".into(), "JWT".into());
    let mut body = json!({
        "iss": claims.issuer,
        "aud": claims.audience,
        "iat": claims.now - BACKDATED,
        "nbf": claims.now - BACKDATED,
        "exp": claims.now + LIFETIME,
        "jti": URL_SAFE_NO_PAD.encode(claims.id),
    });
    if let Some(subject) = claims.subject {
        body["sub"] = subject.into();
    }
    if let Some(scope) = claims.scope {
        body["scope"] = scope.into();
    }
    let part = |value: String| URL_SAFE_NO_PAD.encode(value);
    format!("{}.{}", part(Value::Object(header).to_string()), part(body.to_string()))
}

/// The whole JWT.
pub fn compact(signing_input: &str, signature: &[u8]) -> Secret {
    Secret::new(format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// When it expires, in Unix seconds, if it is a JWT that says so.
pub fn expires_at(assertion: &Secret) -> Option<i64> {
    id_token::expiry(assertion).map(|at| at as i64)
}

#[cfg(test)]
mod tests {
    use crate::oauth::assertion::*;

    #[test]
    fn an_assertion_is_young_lives_for_minutes_and_says_so() {
        let claims = AssertionClaims {
            issuer: "client",
            subject: Some("client"),
            audience: "https://as.example",
            scope: None,
            now: 1_000_000,
            id: [7; 16],
        };
        let input = signing_input(Header::from_iter([("alg".to_owned(), "RS256".into())]), &claims);
        let jwt = compact(&input, b"signature");
        let part = |index: usize| {
            let text = jwt.expose().split('.').nth(index).unwrap();
            serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
        };
        assert_eq!(part(0), json!({ "alg": "RS256", "typ": "JWT" }));
        assert_eq!(
            part(1),
            json!({ "iss": "client", "sub": "client", "aud": "https://as.example", "iat": 999_990,
                "nbf": 999_990, "exp": 1_000_300, "jti": "BwcHBwcHBwcHBwcHBwcHBw" })
        );
        assert_eq!(expires_at(&jwt), Some(1_000_300));
        assert_eq!(expires_at(&Secret::new("opaque")), None);
    }
}
