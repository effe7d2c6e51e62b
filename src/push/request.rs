//! The request to a target of `push`. Pure: mod.rs sends it.

use url::Url;

use crate::config::{NoIdToken, PushConfig, Values};
use crate::secret::Secret;

/// One request.
#[derive(Debug)]
pub struct PushRequest {
    pub method: &'static str,
    /// Where it goes.
    pub url: Url,
    /// Lower-case names, and values that may be secrets.
    pub headers: Vec<(String, Secret)>,
    /// The token, in its template.
    pub body: Secret,
}

impl PushRequest {
    /// `headers` are those of the target, read.
    pub fn new(
        push: &PushConfig,
        mut headers: Vec<(String, Secret)>,
        api_key: Option<&Secret>,
        values: &Values<'_>,
    ) -> Result<Self, NoIdToken> {
        headers.push(("content-type".into(), Secret::new(push.content_type.as_str())));
        if let Some(key) = api_key {
            headers.push(("authorization".into(), Secret::new(format!("Bearer {}", key.expose()))));
        }
        let body = if push.is_json() { push.body.render_json(values)? } else { push.body.render(values)? };
        Ok(Self { method: push.method.as_str(), url: push.url.clone(), headers, body })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::settings::PushMethod;
    use crate::push::request::*;

    fn values(access_token: &Secret) -> Values<'_> {
        let (token_type, scope, account) = ("Bearer", "", "default");
        Values { access_token, token_type, id_token: None, scope, account, expires_at: 1, now: 0 }
    }

    fn push(content_type: &str) -> PushConfig {
        PushConfig {
            url: "http://localhost:8741/v1/token".parse().unwrap(),
            body: crate::config::keys::find("push.body").unwrap().default.parse().unwrap(),
            method: PushMethod::Post,
            content_type: content_type.into(),
            headers: Vec::new(),
            api_key: None,
        }
    }

    #[test]
    fn a_token_is_escaped_in_json_alone() {
        let token = Secret::new(r#"a"b\c"#);
        let values = values(&token);
        let body = |content_type: &str| {
            PushRequest::new(&push(content_type), Vec::new(), None, &values).unwrap().body
        };
        let json: serde_json::Value = serde_json::from_str(body("application/json").expose()).unwrap();
        assert_eq!(json["token"], token.expose());
        assert_eq!(body("text/plain").expose(), r#"{"token": "a"b\c"}"#);
    }

    #[test]
    fn an_api_key_is_a_bearer_token() {
        let key = Secret::new("key");
        let (push, token) = (push("text/plain"), Secret::new("t"));
        let request = PushRequest::new(&push, Vec::new(), Some(&key), &values(&token)).unwrap();
        let (name, value) = request.headers.last().unwrap();
        assert_eq!((name.as_str(), value.expose()), ("authorization", "Bearer key"));
        assert!(!format!("{request:?}").contains("key\""));
    }
}
