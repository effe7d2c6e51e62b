//! The authorization request: RFC 6749 section 4.1.1, RFC 7636, OpenID Connect Core 1.0 section 3.1.2.1.
//! Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use url::Url;

use crate::secret::Secret;

/// The values that are made anew for each login. Each has 256 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonces {
    /// Ties the redirect to this login.
    pub state: Secret,
    /// Ties the ID token to this login.
    pub nonce: Secret,
    /// RFC 7636: proves that the code is exchanged by the program that asked for it.
    pub code_verifier: Secret,
}

impl Nonces {
    pub fn new(random: &[u8; 96]) -> Self {
        let part = |at: usize| Secret::new(URL_SAFE_NO_PAD.encode(&random[at..at + 32]));
        Self { state: part(0), nonce: part(32), code_verifier: part(64) }
    }

    /// RFC 7636 section 4.2, S256.
    pub fn code_challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.code_verifier.expose()))
    }
}

/// The fixed parts of the request, from config and metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationRequest {
    pub endpoint: Url,
    pub client_id: String,
    pub scope: Option<String>,
    /// From `authorization_params` and the preset, then audience and resource.
    pub params: Vec<(String, String)>,
}

impl AuthorizationRequest {
    /// The URL for the browser. It holds no secret that is worth anything without the verifier.
    pub fn url(&self, redirect_uri: &str, nonces: &Nonces) -> Url {
        let mut url = self.endpoint.clone();
        let mut query = url.query_pairs_mut();
        query.append_pair("response_type", "code");
        query.append_pair("client_id", &self.client_id);
        query.append_pair("redirect_uri", redirect_uri);
        if let Some(scope) = &self.scope {
            query.append_pair("scope", scope);
        }
        query.extend_pairs(&self.params);
        if self.needs_consent() {
            query.append_pair("prompt", "consent");
        }
        query.append_pair("state", nonces.state.expose());
        if self.has_scope("openid") {
            query.append_pair("nonce", nonces.nonce.expose());
        }
        query.append_pair("code_challenge", &nonces.code_challenge());
        query.append_pair("code_challenge_method", "S256");
        drop(query);
        url
    }

    pub fn has_scope(&self, word: &str) -> bool {
        self.scope.as_deref().is_some_and(|scope| scope.split(' ').any(|known| known == word))
    }

    /// OpenID Connect Core 1.0 section 11: without consent there is no refresh token.
    fn needs_consent(&self) -> bool {
        let has = |name: &str| self.params.iter().any(|(known, _)| known == name);
        let is_offline = self.params.iter().any(|(name, value)| name == "access_type" && value == "offline");
        !has("prompt") && (is_offline || self.has_scope("offline_access"))
    }
}

/// The scope of a login. A flag or `login_scope` is the whole; else it is `scope` with the words that get
/// a refresh token and an ID token: those of the preset, or those that the server says it knows.
pub fn login_scope(
    whole: Option<&str>,
    scope: Option<&str>,
    preset: Option<&str>,
    supported: &[String],
) -> Option<String> {
    if let Some(whole) = whole {
        return Some(whole.to_owned());
    }
    let known = ["openid", "offline_access"].into_iter().filter(|word| supported.iter().any(|it| it == word));
    let mut words: Vec<&str> = Vec::new();
    for word in scope.into_iter().chain(preset).flat_map(str::split_whitespace).chain(known) {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    (!words.is_empty()).then(|| words.join(" "))
}

/// Words that steer a login. Many servers do not repeat them, or repeat them otherwise.
const STEERING: [&str; 6] =
    ["openid", "profile", "email", "offline_access", "offline.access", "refresh_token"];

/// The requested words that are not among the granted ones. Servers grant a word in its short or its long
/// form (`Mail.Read` and `https://graph.microsoft.com/Mail.Read`), and some put commas between them.
pub fn ungranted<'a>(requested: &'a str, granted: &str) -> Vec<&'a str> {
    let short = |word: &str| word.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let granted: Vec<String> = granted.split([' ', ',']).filter(|word| !word.is_empty()).map(short).collect();
    let is_missed = |word: &&str| {
        // `.default` stands for whatever the client may have.
        let word = short(word);
        !STEERING.contains(&&*word) && word != ".default" && !granted.contains(&word)
    };
    requested.split_whitespace().filter(is_missed).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::login::request::*;

    fn nonces() -> Nonces {
        Nonces::new(&std::array::from_fn(|at| at as u8))
    }

    fn request(scope: &str, params: &[(&str, &str)]) -> AuthorizationRequest {
        AuthorizationRequest {
            endpoint: "https://as.example/authorize?tenant=1".parse().unwrap(),
            client_id: "a b".into(),
            scope: (!scope.is_empty()).then(|| scope.to_owned()),
            params: params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    fn query(request: &AuthorizationRequest) -> BTreeMap<String, String> {
        let url = request.url("http://127.0.0.1:9/", &nonces());
        let query: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(query.len(), url.query_pairs().count(), "no parameter comes twice: {url}");
        query
    }

    /// The example of RFC 7636 appendix B.
    #[test]
    fn the_challenge_is_the_hash_of_the_verifier() {
        let code_verifier = Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        let nonces = Nonces { code_verifier, ..nonces() };
        assert_eq!(nonces.code_challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert_eq!(nonces.state.expose().len(), 43);
    }

    #[test]
    fn the_url_has_every_parameter_once() {
        let query = query(&request("openid api", &[("audience", "x&y")]));
        for (name, value) in [
            ("tenant", "1"),
            ("response_type", "code"),
            ("client_id", "a b"),
            ("redirect_uri", "http://127.0.0.1:9/"),
            ("scope", "openid api"),
            ("audience", "x&y"),
            ("code_challenge_method", "S256"),
        ] {
            assert_eq!(query.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!(query["state"], nonces().state.expose());
        assert_eq!(query["nonce"], nonces().nonce.expose());
        assert!(!query.values().any(|value| value == nonces().code_verifier.expose()));
        assert!(!query.contains_key("prompt"));
    }

    #[test]
    fn consent_is_asked_for_where_a_refresh_token_needs_it() {
        for (scope, params, prompt) in [
            ("openid", &[][..], None),
            ("offline_access", &[], Some("consent")),
            ("", &[("access_type", "offline")], Some("consent")),
            ("offline_access", &[("prompt", "select_account")], Some("select_account")),
        ] {
            let query = query(&request(scope, params));
            assert_eq!(query.get("prompt").map(String::as_str), prompt, "{scope} {params:?}");
            assert_eq!(query.contains_key("nonce"), scope == "openid");
        }
    }

    #[test]
    fn what_was_not_granted_is_named_and_nothing_else() {
        for (requested, granted, missed) in [
            ("openid offline_access mail.read", "mail.read", &[][..]),
            ("mail.read mail.send", "openid mail.read", &["mail.send"]),
            ("a b", "b,a", &[]),
            ("https://graph.example/Mail.Read", "Mail.read", &[]),
            ("Mail.Read", "https://graph.example/Mail.Read", &[]),
            ("https://graph.example/.default", "User.Read", &[]),
            ("a b", "", &["a", "b"]),
        ] {
            assert_eq!(ungranted(requested, granted), missed, "{requested} {granted}");
        }
    }

    #[test]
    fn the_scope_gets_what_a_login_needs() {
        let supported: Vec<String> = ["openid", "api", "offline_access"].map(str::to_owned).to_vec();
        let scope = |whole, own, preset, supported: &[String]| login_scope(whole, own, preset, supported);
        assert_eq!(scope(Some("a"), Some("b"), Some("c"), &supported).as_deref(), Some("a"));
        assert_eq!(scope(None, None, None, &[]), None);
        assert_eq!(scope(None, Some("b openid"), Some("c b"), &[]).as_deref(), Some("b openid c"));
        assert_eq!(scope(None, Some("b"), None, &supported).as_deref(), Some("b openid offline_access"));
    }
}
