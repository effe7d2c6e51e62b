//! The request to a target of `push`. Pure: mod.rs sends it.

use std::fmt::Write as _;

use url::Url;

use crate::config::PushConfig;
use crate::secret::Secret;

/// One POST.
#[derive(Debug)]
pub struct PushRequest {
    /// Where it goes.
    pub url: Url,
    /// Lower-case names, and values that may be secrets.
    pub headers: Vec<(String, Secret)>,
    /// The token, in its template.
    pub body: Secret,
}

impl PushRequest {
    /// Puts it together; `expires_at` is in Unix seconds.
    pub fn new(
        push: &PushConfig,
        api_key: Option<&Secret>,
        token: &Secret,
        token_type: &str,
        expires_at: i64,
    ) -> Self {
        let mut headers = push.headers.clone();
        if let Some(key) = api_key {
            headers.push(("authorization".into(), Secret::new(format!("Bearer {}", key.expose()))));
        }
        let body = if push.is_json() {
            let (token, token_type) = (escaped(token.expose()), escaped(token_type));
            push.body.render(&token, token_type.expose(), expires_at)
        } else {
            push.body.render(token, token_type, expires_at)
        };
        Self { url: push.url.clone(), headers, body }
    }
}

/// Escaped for a JSON string (RFC 8259 section 7).
fn escaped(text: &str) -> Secret {
    // Allocated at once: a string that grows leaves unwiped copies behind.
    let mut json = String::with_capacity(text.len() * 6);
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    Secret::new(json)
}

#[cfg(test)]
mod tests {
    use crate::push::request::*;

    fn push(content_type: &str) -> PushConfig {
        PushConfig {
            url: "http://localhost:8741/v1/token".parse().unwrap(),
            body: crate::config::keys::find("push.body").unwrap().default.parse().unwrap(),
            headers: vec![("content-type".into(), Secret::new(content_type))],
            api_key: None,
        }
    }

    #[test]
    fn a_token_is_escaped_in_json_alone() {
        let token = Secret::new(r#"a"b\c"#);
        let body = |content_type: &str| PushRequest::new(&push(content_type), None, &token, "Bearer", 1).body;
        let json: serde_json::Value = serde_json::from_str(body("application/json").expose()).unwrap();
        assert_eq!(json["token"], token.expose());
        assert_eq!(body("text/plain").expose(), r#"{"token": "a"b\c"}"#);
    }

    #[test]
    fn an_api_key_is_a_bearer_token() {
        let key = Secret::new("key");
        let request = PushRequest::new(&push("text/plain"), Some(&key), &Secret::new("t"), "Bearer", 1);
        let (name, value) = request.headers.last().unwrap();
        assert_eq!((name.as_str(), value.expose()), ("authorization", "Bearer key"));
        assert!(!format!("{request:?}").contains("key\""));
    }
}
