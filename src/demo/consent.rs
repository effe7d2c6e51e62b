//! Logins at the issuer: the consent page of RFC 6749 section 4.1 with PKCE, and the device codes of
//! RFC 8628. There are no passwords: whoever is at the page is whoever they say.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use crate::clock::millis;
use crate::demo::audit::RevocationReason;
use crate::demo::client::authenticate;
use crate::demo::code::{Consent, DeviceLogin, Granted, IssuedCode, LOGIN_SCOPES};
use crate::demo::issuer::Issuer;
use crate::demo::message::{DemoReply, DemoRequest, Form, Refused, parameter};
use crate::secret::{Fingerprint, Secret};

/// How long a code lives: RFC 6749 section 4.1.2 recommends at most 10 minutes.
const CODE_LIFE: Duration = Duration::from_secs(60);

/// How long an ID token lives.
const ID_TOKEN_LIFE: i64 = 300;

impl Issuer {
    /// The authorization endpoint: a page that asks for consent.
    pub fn consent_page(&self, query: &str) -> DemoReply {
        match self.authorization(query) {
            Ok((consent, _, _)) => {
                let scope = if consent.scope.is_empty() { "its default" } else { &consent.scope };
                let text = format!("{} asks for the scope {scope}.", consent.client_id);
                page(200, "Log in", &text, Some((&format!("/authorize?{query}"), None)))
            }
            Err(refused) => page(400, "This login cannot go on", refused, None),
        }
    }

    /// The answer of the user: a redirect with a code, or with an error.
    pub fn decide_consent(&mut self, now: i64, query: &str, form: &[u8]) -> DemoReply {
        let (consent, mut redirect, state) = match self.authorization(query) {
            Ok(authorization) => authorization,
            Err(refused) => return page(400, "This login cannot go on", refused, None),
        };
        let redirect_uri = redirect.to_string();
        match decision(form) {
            Ok(user) => {
                let code = self.mint("code_");
                redirect.query_pairs_mut().append_pair("code", code.expose());
                let issued = IssuedCode { consent, redirect_uri, user, issued_at: now, spent_for: None };
                self.consents.codes.insert(code.fingerprint(), issued);
            }
            Err(()) => {
                redirect.query_pairs_mut().append_pair("error", "access_denied");
            }
        }
        redirect.query_pairs_mut().extend_pairs(state.map(|state| ("state", state)));
        redirect.query_pairs_mut().append_pair("iss", &self.options.url);
        DemoReply::empty(303).with_header("location", redirect.as_str())
    }

    /// Checks an authorization request: the consent it asks for, the redirect URI, the state.
    fn authorization(&self, query: &str) -> Result<(Consent, Url, Option<String>), &'static str> {
        let request: HashMap<String, String> =
            form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let get = |name: &str| request.get(name).cloned();
        let client_id = get("client_id").unwrap_or_default();
        if !self.options.clients.iter().any(|client| client.id() == client_id) {
            return Err("The client is unknown.");
        }
        let redirect_uri = get("redirect_uri").and_then(|uri| Url::parse(&uri).ok());
        let is_local = |uri: &Url| {
            uri.scheme() == "http" && matches!(uri.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"))
        };
        let redirect_uri =
            redirect_uri.filter(is_local).ok_or("The redirect_uri is none of this machine.")?;
        if get("response_type").as_deref() != Some("code") {
            return Err("The response_type is not code.");
        }
        let code_challenge =
            get("code_challenge").filter(|_| get("code_challenge_method").as_deref() == Some("S256"));
        let code_challenge = code_challenge.ok_or("PKCE with S256 is missing.")?;
        let scope = get("scope").unwrap_or_default();
        if !self.may_grant(&scope) {
            return Err("The scope is more than this server grants.");
        }
        Ok((Consent { client_id, code_challenge, nonce: get("nonce"), scope }, redirect_uri, get("state")))
    }

    fn may_grant(&self, scope: &str) -> bool {
        scope.split_whitespace().all(|word| {
            LOGIN_SCOPES.contains(&word) || self.options.scope.split(' ').any(|granted| granted == word)
        })
    }

    /// The device authorization endpoint, RFC 8628 section 3.1.
    pub(super) fn device_authorization(
        &mut self,
        now: i64,
        request: &DemoRequest,
    ) -> Result<DemoReply, Refused> {
        let (form, client_id) = authenticate(&self.options.clients, request)?;
        let get = |name: &str| form.get(name).unwrap_or_default().to_owned();
        let (code_challenge, scope) = (get("code_challenge"), get("scope"));
        if !self.may_grant(&scope) {
            return Err(Refused::new("invalid_scope", "the scope exceeds what can be granted"));
        }
        let consent = Consent { client_id, code_challenge, nonce: None, scope };
        let device_code = self.mint("dc_");
        let user_code = user_code(&device_code);
        let url = format!("{}/device", self.options.url);
        let reply = json!({
            "device_code": device_code.expose(),
            "user_code": user_code,
            "verification_uri": url,
            "verification_uri_complete": format!("{url}?user_code={user_code}"),
            "expires_in": self.options.device_code_lifetime.as_secs(),
            "interval": self.options.device_interval.as_secs(),
        });
        let login = DeviceLogin { consent, user_code, issued_at: now, polled_at: now, decision: None };
        self.consents.devices.insert(device_code.fingerprint(), login);
        Ok(DemoReply::json(200, &reply))
    }

    /// The page where the user enters the code.
    pub fn device_page(&self, query: &str) -> DemoReply {
        let code = parameter(query.as_bytes(), "user_code").unwrap_or_default();
        let text = "Enter the code that the device shows. Never enter one that somebody else sent you.";
        page(200, "Log in a device", text, Some(("/device", Some(&code))))
    }

    /// The answer of the user.
    pub fn decide_device(&mut self, form: &[u8]) -> DemoReply {
        let code = parameter(form, "user_code").unwrap_or_default().trim().to_uppercase();
        let waiting = self.consents.devices.values_mut();
        let found = waiting.into_iter().find(|login| login.user_code == code && login.decision.is_none());
        let Some(login) = found else {
            return page(400, "This code is unknown", "It may have expired.", None);
        };
        login.decision = Some(decision(form));
        page(200, "Done", "The device goes on by itself. You can close this page.", None)
    }

    /// The grant `authorization_code`, RFC 6749 section 4.1.3: what it is for.
    pub(super) fn redeem_code(
        &mut self,
        now: i64,
        form: &Form,
        client_id: &str,
    ) -> Result<(Granted, Fingerprint), Refused> {
        let no = |description| Err(Refused::new("invalid_grant", description));
        let code = form.secret("code")?;
        let Some(issued) = self.consents.codes.get(&code) else { return no("the code is unknown") };
        if let Some(login) = issued.spent_for {
            // Somebody has copied it: RFC 6749 section 4.1.2.
            self.revoke_family(now, login, RevocationReason::Reuse);
            return no("the code was used before");
        }
        if issued.consent.client_id != client_id {
            return no("the code was issued to another client");
        }
        if now.saturating_sub(issued.issued_at) > millis(CODE_LIFE) {
            return no("the code has expired");
        }
        if form.get("redirect_uri") != Some(&issued.redirect_uri) {
            return no("the redirect_uri is not that of the authorization request");
        }
        if !proves(form, &issued.consent.code_challenge) {
            return no("the code_verifier is wrong");
        }
        let Consent { scope, nonce, client_id, .. } = issued.consent.clone();
        Ok((Granted { client_id, scope, user: issued.user.clone(), nonce }, code))
    }

    pub(super) fn spend_code(&mut self, code: Fingerprint, refresh_token: Fingerprint) {
        if let Some(issued) = self.consents.codes.get_mut(&code) {
            issued.spent_for = Some(refresh_token);
        }
    }

    /// The grant of RFC 8628 section 3.4.
    pub(super) fn redeem_device_code(
        &mut self,
        now: i64,
        form: &Form,
        client_id: &str,
    ) -> Result<Granted, Refused> {
        let no = |error, description| Err(Refused::new(error, description));
        let code = form.secret("device_code")?;
        let (life, interval) = (self.options.device_code_lifetime, self.options.device_interval);
        let Some(login) = self.consents.devices.get_mut(&code) else {
            return no("invalid_grant", "the device_code is unknown");
        };
        let since_poll = now.saturating_sub(std::mem::replace(&mut login.polled_at, now));
        if login.consent.client_id != client_id {
            return no("invalid_grant", "the device_code was issued to another client");
        }
        if now.saturating_sub(login.issued_at) > millis(life) {
            return no("expired_token", "the device_code has expired");
        }
        if since_poll < millis(interval) {
            return no("slow_down", "the device polls too often");
        }
        let user = match &login.decision {
            None => return no("authorization_pending", "the user has not decided yet"),
            Some(Err(())) => return no("access_denied", "the user has denied it"),
            Some(Ok(user)) => user.clone(),
        };
        let Consent { code_challenge, scope, client_id, .. } = login.consent.clone();
        if !code_challenge.is_empty() && !proves(form, &code_challenge) {
            return no("invalid_grant", "the code_verifier is wrong");
        }
        self.consents.devices.remove(&code);
        Ok(Granted { client_id, scope, user, nonce: None })
    }

    /// An ID token without a signature: a client that gets it from the token endpoint needs none.
    pub(super) fn id_token(&self, now: i64, client_id: &str, user: &str, nonce: Option<&str>) -> String {
        let claims = json!({
            "iss": self.options.url,
            "sub": user,
            "aud": client_id,
            "iat": now / 1000,
            "exp": now / 1000 + ID_TOKEN_LIFE,
            "email": format!("{user}@example.com"),
            "nonce": nonce.map_or(Value::Null, Value::from),
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.", part(&json!({ "alg": "none" })), part(&claims))
    }
}

/// RFC 7636 section 4.6.
fn proves(form: &Form, code_challenge: &str) -> bool {
    let verifier = form.get("code_verifier").unwrap_or_default();
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) == code_challenge
}

/// The name of the user who has consented.
fn decision(form: &[u8]) -> Result<String, ()> {
    if parameter(form, "decision").as_deref() != Some("allow") {
        return Err(());
    }
    Ok(parameter(form, "user").filter(|user| !user.is_empty()).unwrap_or_else(|| "alice".into()))
}

/// Eight consonants, RFC 8628 section 6.1.
fn user_code(device_code: &Secret) -> String {
    const LETTERS: &[u8] = b"BCDFGHJKLMNPQRSTVWXZ";
    let digest = Sha256::digest(device_code.expose());
    let letter = |byte: &u8| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]);
    let code: String = digest.iter().take(8).map(letter).collect();
    format!("{}-{}", &code[..4], &code[4..])
}

/// A page, with a form for the decision if it has an action, and in that a field for a user code.
fn page(status: u16, title: &str, text: &str, form: Option<(&str, Option<&str>)>) -> DemoReply {
    let escape = |text: &str| {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    let form = form.map(|(action, code)| {
        let code = code.map(|code| {
            format!("<p><label>Code <input name=\"user_code\" value=\"{}\"></label></p>", escape(code))
        });
        format!(include_str!("form.html"), action = escape(action), code = code.unwrap_or_default())
    });
    let (title, text, form) = (escape(title), escape(text), form.unwrap_or_default());
    let body = format!(include_str!("page.html"), title = title, text = text, form = form);
    DemoReply::new(status, "text/html; charset=utf-8", body)
}
