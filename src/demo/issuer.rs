//! The authorization server's decisions: clients, families of refresh tokens, access tokens.
//!
//! Nothing here reads a clock or touches a socket. Instants are milliseconds on any one
//! clock; tokens are derived from the random bytes in [`IssuerOptions`], so that equal inputs give
//! equal tokens. Tokens are looked up by fingerprint; only a family's newest is kept whole.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::clock::millis;
use crate::demo::audit::{AuditEntry, AuditEvent, RevocationReason};
use crate::demo::client::{DemoClient, authenticate};
use crate::demo::code::{Consents, Granted, LOGIN_SCOPES};
use crate::demo::message::{DemoReply, DemoRequest, Form, Refused, credentials};
use crate::secret::{Fingerprint, Secret};

/// The expires_in of a token reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpiresIn {
    /// The lifetime in whole seconds, rounded down.
    True,
    /// Nothing: the member is optional (RFC 6749 5.1).
    Omitted,
    /// This instead: a string, zero, a year.
    Claimed(Value),
}

/// The behaviour of an issuer. The default: one public client `demo`, strict rotation, one hour.
#[derive(Debug, Clone)]
pub struct IssuerOptions {
    /// The registered clients.
    pub clients: Vec<DemoClient>,
    /// The scope of every family, space-separated.
    pub scope: String,
    /// Every grant replaces the refresh token.
    pub rotation: bool,
    /// How long after its replacement the previous refresh token still gets the same
    /// successor. Zero: its reuse revokes the family at once.
    pub reuse_grace: Duration,
    /// How long an access token lives.
    pub access_token_lifetime: Duration,
    /// The lifetime that replies claim.
    pub expires_in: ExpiresIn,
    /// How long a family lives after its seed, however busy; `None`: no limit.
    pub family_lifetime: Option<Duration>,
    /// How long a family lives without a grant; `None`: no limit.
    pub idle_limit: Option<Duration>,
    /// The pause that a device must make between two polls.
    pub device_interval: Duration,
    /// How long a device code lives.
    pub device_code_lifetime: Duration,
    /// The issuer's own URL; the server sets it.
    pub url: String,
    /// The source of the tokens: random bytes, or a fixed value in a simulation.
    pub random: [u8; 32],
}

impl Default for IssuerOptions {
    fn default() -> Self {
        Self {
            clients: vec![DemoClient::public("demo")],
            scope: "api".to_owned(),
            rotation: true,
            reuse_grace: Duration::ZERO,
            access_token_lifetime: Duration::from_secs(3600),
            expires_in: ExpiresIn::True,
            family_lifetime: None,
            idle_limit: None,
            device_interval: Duration::from_secs(5),
            device_code_lifetime: Duration::from_secs(600),
            url: "https://demo.invalid".to_owned(),
            random: [0; 32],
        }
    }
}

/// All successors of one seed.
struct Family {
    client_id: String,
    /// Of a login that asked for openid.
    user: Option<String>,
    /// The newest refresh token.
    newest: Secret,
    generation: u64,
    seeded_at: i64,
    granted_at: i64,
    rotated_at: i64,
    revoked: bool,
}

struct IssuedRefreshToken {
    family: u64,
    generation: u64,
}

struct IssuedToken {
    family: u64,
    issued_at: i64,
    expires_at: i64,
    revoked: bool,
}

/// The authorization server without its socket.
pub struct Issuer {
    pub(super) options: IssuerOptions,
    pub(super) consents: Consents,
    families: Vec<Family>,
    refresh_tokens: HashMap<Fingerprint, IssuedRefreshToken>,
    access_tokens: HashMap<Fingerprint, IssuedToken>,
    minted: u64,
    audit: Vec<AuditEntry>,
}

impl Issuer {
    /// An issuer that has granted nothing yet.
    pub fn new(options: IssuerOptions) -> Self {
        Self {
            options,
            consents: Consents::default(),
            families: Vec::new(),
            refresh_tokens: HashMap::new(),
            access_tokens: HashMap::new(),
            minted: 0,
            audit: Vec::new(),
        }
    }

    /// The behaviour from the next request on. Tokens already issued keep their lifetime.
    pub fn options_mut(&mut self) -> &mut IssuerOptions {
        &mut self.options
    }

    /// The requests so far, oldest first.
    pub fn audit(&self) -> &[AuditEntry] {
        &self.audit
    }

    /// The default client of tests and the demo: the first registered.
    pub fn first_client(&self) -> Option<&str> {
        self.options.clients.first().map(DemoClient::id)
    }

    /// Mints the first refresh token of a new family, as a login would; `None` if no such
    /// client is registered.
    pub fn seed(&mut self, now: i64, client_id: &str) -> Option<Secret> {
        self.options.clients.iter().find(|client| client.id() == client_id)?;
        let seed = self.mint("rt_");
        let family = self.found(now, client_id, seed.clone());
        self.refresh_tokens.insert(seed.fingerprint(), IssuedRefreshToken { family, generation: 0 });
        self.record(now, Some(seed.fingerprint()), AuditEvent::Seed);
        Some(seed)
    }

    /// A new family; its number.
    fn found(&mut self, now: i64, client_id: &str, newest: Secret) -> u64 {
        self.families.push(Family {
            client_id: client_id.to_owned(),
            user: None,
            newest,
            generation: 0,
            seeded_at: now,
            granted_at: now,
            rotated_at: now,
            revoked: false,
        });
        self.families.len() as u64 - 1
    }

    /// The token endpoint (RFC 6749 3.2): [`receive`](Self::receive), then
    /// [`answer`](Self::answer).
    pub fn token(&mut self, now: i64, request: &DemoRequest) -> DemoReply {
        self.receive(now, request);
        self.answer(now, request)
    }

    /// Records that a POST to the token endpoint arrived. Apart from
    /// [`answer`](Self::answer), for a server that dawdles or breaks down in between.
    pub fn receive(&mut self, now: i64, request: &DemoRequest) {
        self.record(now, request.refresh_token(), AuditEvent::Post);
    }

    /// Records that a connection was closed before anything was read from it.
    pub fn note_hangup(&mut self, now: i64) {
        self.record(now, None, AuditEvent::Hangup);
    }

    /// Records that a scripted fault meets the POST just received.
    pub fn note_fault(&mut self, now: i64, request: &DemoRequest, what: String) {
        self.record(now, request.refresh_token(), AuditEvent::Fault { what });
    }

    /// Grants or refuses, finally: the instant of this call is the commit.
    pub fn answer(&mut self, now: i64, request: &DemoRequest) -> DemoReply {
        self.grant(now, request).unwrap_or_else(|refused| {
            let event = AuditEvent::Refusal { error: refused.error.to_owned() };
            self.record(now, request.refresh_token(), event);
            refused.into()
        })
    }

    fn grant(&mut self, now: i64, request: &DemoRequest) -> Result<DemoReply, Refused> {
        let (form, client_id) = authenticate(&self.options.clients, request)?;
        match form.get("grant_type") {
            Some("refresh_token") => {}
            Some("authorization_code") => {
                let (granted, code) = self.redeem_code(now, &form, &client_id)?;
                let (refresh_token, reply) = self.log_in(now, &granted)?;
                self.spend_code(code, refresh_token);
                return Ok(reply);
            }
            Some("urn:ietf:params:oauth:grant-type:device_code") => {
                let granted = self.redeem_device_code(now, &form, &client_id)?;
                return self.log_in(now, &granted).map(|(_, reply)| reply);
            }
            Some("client_credentials") => return self.serve_client(now, &form, &client_id),
            Some(_) => return Err(Refused::new("unsupported_grant_type", "the grant_type is unknown")),
            None => return Err(Refused::new("invalid_request", "grant_type is missing")),
        }
        let fingerprint = form.secret("refresh_token")?;
        let scope = self.scope(&form)?;
        let replayed = self.admit(now, fingerprint, &client_id)?;
        let family_id = self.refresh_tokens[&fingerprint].family;

        if self.options.rotation && !replayed {
            self.rotate(now, family_id);
        }
        let family = &self.families[family_id as usize];
        let successor = (self.options.rotation || replayed).then(|| family.newest.clone());
        let user = family.user.clone();
        let id_token = user.map(|user| self.id_token(now, &client_id, &user, None));
        let (access_token, body) = self.issue(now, family_id, &scope, successor.as_ref(), id_token);
        let event = AuditEvent::Grant {
            access_token,
            successor: successor.map(|token| token.fingerprint()),
            replayed,
        };
        self.record(now, Some(fingerprint), event);
        Ok(DemoReply::json(200, &body))
    }

    /// The scope that a request asks for: no more than the issuer's own.
    fn scope(&self, form: &Form) -> Result<String, Refused> {
        let scope = form.get("scope").unwrap_or(&self.options.scope);
        if scope.split(' ').any(|asked| !self.options.scope.split(' ').any(|granted| granted == asked)) {
            return Err(Refused::new("invalid_scope", "the scope exceeds what was granted"));
        }
        Ok(scope.to_owned())
    }

    /// A token for the client itself, and no refresh token: RFC 6749 4.4.
    fn serve_client(&mut self, now: i64, form: &Form, client_id: &str) -> Result<DemoReply, Refused> {
        let is_public = |client: &DemoClient| client.id() == client_id && client.is_public();
        if self.options.clients.iter().any(is_public) {
            return Err(Refused::new("unauthorized_client", "a public client cannot ask for itself"));
        }
        let scope = self.scope(form)?;
        let family = self.found(now, client_id, Secret::new(""));
        let (access_token, body) = self.issue(now, family, &scope, None, None);
        self.record(now, None, AuditEvent::Grant { access_token, successor: None, replayed: false });
        Ok(DemoReply::json(200, &body))
    }

    /// The first tokens of a login; the refresh token's fingerprint, and the reply.
    fn log_in(&mut self, now: i64, granted: &Granted) -> Result<(Fingerprint, DemoReply), Refused> {
        let unknown = Refused::new("invalid_client", "the client is unknown");
        let refresh_token = self.seed(now, &granted.client_id).ok_or(unknown)?;
        let family = self.refresh_tokens[&refresh_token.fingerprint()].family;
        let asks = granted.scope.split(' ').any(|word| word == "openid");
        let user = asks.then(|| granted.user.clone());
        let id_token =
            user.as_ref().map(|user| self.id_token(now, &granted.client_id, user, granted.nonce.as_deref()));
        self.families[family as usize].user = user;
        let scope = if granted.scope.is_empty() { self.options.scope.clone() } else { granted.scope.clone() };
        let (access_token, body) = self.issue(now, family, &scope, Some(&refresh_token), id_token);
        let event = AuditEvent::Grant { access_token, successor: None, replayed: false };
        self.record(now, Some(refresh_token.fingerprint()), event);
        Ok((refresh_token.fingerprint(), DemoReply::json(200, &body)))
    }

    /// Mints an access token; its fingerprint, and the body of the reply.
    fn issue(
        &mut self,
        now: i64,
        family: u64,
        scope: &str,
        refresh_token: Option<&Secret>,
        id_token: Option<String>,
    ) -> (Fingerprint, Value) {
        let access_token = self.mint("at_");
        let expires_at = now.saturating_add(millis(self.options.access_token_lifetime));
        self.access_tokens.insert(
            access_token.fingerprint(),
            IssuedToken { family, issued_at: now, expires_at, revoked: false },
        );
        self.families[family as usize].granted_at = now;
        let mut body =
            json!({ "access_token": access_token.expose(), "token_type": "Bearer", "scope": scope });
        match &self.options.expires_in {
            ExpiresIn::True => body["expires_in"] = self.options.access_token_lifetime.as_secs().into(),
            ExpiresIn::Omitted => {}
            ExpiresIn::Claimed(value) => body["expires_in"] = value.clone(),
        }
        if let Some(refresh_token) = refresh_token {
            body["refresh_token"] = refresh_token.expose().into();
        }
        if let Some(id_token) = id_token {
            body["id_token"] = id_token.into();
        }
        (access_token.fingerprint(), body)
    }

    /// Checks the refresh token. `Ok(true)`: it was replaced, but within the
    /// grace, so its successor is sent again.
    fn admit(&mut self, now: i64, token: Fingerprint, client_id: &str) -> Result<bool, Refused> {
        let no = |description| Err(Refused::new("invalid_grant", description));
        let Some(&IssuedRefreshToken { family: id, generation }) = self.refresh_tokens.get(&token) else {
            return no("the refresh token is unknown");
        };
        let family = &self.families[id as usize];
        if family.client_id != client_id {
            return no("the refresh token was issued to another client");
        }
        if family.revoked {
            return no("the refresh token was revoked");
        }
        if self.has_expired(now, family) {
            return no("the refresh token has expired");
        }
        if generation == family.generation {
            return Ok(false);
        }
        let previous = generation + 1 == family.generation;
        if previous && now.saturating_sub(family.rotated_at) < millis(self.options.reuse_grace) {
            return Ok(true);
        }
        self.revoke_family(now, token, RevocationReason::Reuse);
        no("the refresh token was used before: all tokens of this login are revoked")
    }

    fn has_expired(&self, now: i64, family: &Family) -> bool {
        let outlived = |limit: Option<Duration>, since: i64| {
            limit.is_some_and(|limit| now.saturating_sub(since) >= millis(limit))
        };
        outlived(self.options.family_lifetime, family.seeded_at)
            || outlived(self.options.idle_limit, family.granted_at)
    }

    fn rotate(&mut self, now: i64, id: u64) {
        let successor = self.mint("rt_");
        let family = &mut self.families[id as usize];
        family.generation += 1;
        family.rotated_at = now;
        self.refresh_tokens.insert(
            successor.fingerprint(),
            IssuedRefreshToken { family: id, generation: family.generation },
        );
        family.newest = successor;
    }

    /// Ends the login that a refresh token belongs to, as its owner would on a settings page.
    /// False if the token is unknown.
    pub fn revoke_login(&mut self, now: i64, refresh_token: &Secret) -> bool {
        self.revoke_family(now, refresh_token.fingerprint(), RevocationReason::Request)
    }

    pub(super) fn revoke_family(&mut self, now: i64, token: Fingerprint, reason: RevocationReason) -> bool {
        let Some(known) = self.refresh_tokens.get(&token) else { return false };
        self.families[known.family as usize].revoked = true;
        self.record(now, Some(token), AuditEvent::Revocation { reason });
        true
    }

    /// The revocation endpoint (RFC 7009). A refresh token takes its family along, an access
    /// token only itself; an unknown token is a success (2.2).
    pub(super) fn revoke(&mut self, now: i64, request: &DemoRequest) -> Result<DemoReply, Refused> {
        let (form, client_id) = authenticate(&self.options.clients, request)?;
        let token = form.secret("token")?;
        if self.family_of(token).is_some_and(|family| family.client_id != client_id) {
            return Err(Refused::new("invalid_request", "the token was issued to another client"));
        }
        if let Some(access_token) = self.access_tokens.get_mut(&token) {
            access_token.revoked = true;
        } else {
            self.revoke_family(now, token, RevocationReason::Request);
        }
        Ok(DemoReply::empty(200))
    }

    /// The introspection endpoint (RFC 7662), for any client that authenticates.
    pub(super) fn introspect(&self, now: i64, request: &DemoRequest) -> Result<DemoReply, Refused> {
        let (form, _) = authenticate(&self.options.clients, request)?;
        let token = form.secret("token")?;
        let mut body = json!({ "active": false });
        if let (Some(family), true) = (self.family_of(token), self.is_active(now, token)) {
            body = json!({ "active": true, "client_id": family.client_id, "scope": self.options.scope });
            if let Some(access_token) = self.access_tokens.get(&token) {
                body["token_type"] = "Bearer".into();
                body["iat"] = (access_token.issued_at / 1000).into();
                body["exp"] = (access_token.expires_at / 1000).into();
            }
        }
        Ok(DemoReply::json(200, &body))
    }

    /// A protected resource: 200 for a live access token in the Authorization header, else 401
    /// as RFC 6750 3 has it.
    pub fn resource(&self, now: i64, authorization: Option<&str>) -> DemoReply {
        let challenge = r#"Bearer realm="zg-tokend demo""#;
        let Some(token) = authorization.and_then(|header| credentials(header, "Bearer")) else {
            return DemoReply::empty(401).with_header("www-authenticate", challenge);
        };
        if self.is_live(now, &Secret::new(token)) {
            DemoReply::json(200, &json!({ "ok": true }))
        } else {
            let challenge = format!(
                r#"{challenge}, error="invalid_token", error_description="expired, revoked or never issued""#
            );
            DemoReply::json(401, &json!({ "error": "invalid_token" }))
                .with_header("www-authenticate", &challenge)
        }
    }

    /// True for an access token that the resource accepts.
    pub fn is_live(&self, now: i64, access_token: &Secret) -> bool {
        let token = access_token.fingerprint();
        self.access_tokens.contains_key(&token) && self.is_active(now, token)
    }

    /// The metadata of RFC 8414 and OpenID Connect Discovery for an issuer at this URL.
    pub fn metadata(&self, issuer: &str) -> DemoReply {
        DemoReply::json(
            200,
            &json!({
                "issuer": issuer,
                "token_endpoint": format!("{issuer}/token"),
                "revocation_endpoint": format!("{issuer}/revoke"),
                "introspection_endpoint": format!("{issuer}/introspect"),
                "authorization_endpoint": format!("{issuer}/authorize"),
                "device_authorization_endpoint": format!("{issuer}/device_authorization"),
                "grant_types_supported": [
                    "authorization_code",
                    "refresh_token",
                    "client_credentials",
                    "urn:ietf:params:oauth:grant-type:device_code",
                ],
                "response_types_supported": ["code"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": true,
                "scopes_supported": self.options.scope.split(' ').chain(LOGIN_SCOPES).collect::<Vec<_>>(),
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            }),
        )
    }

    fn family_of(&self, token: Fingerprint) -> Option<&Family> {
        let refresh = self.refresh_tokens.get(&token).map(|token| token.family);
        let id = refresh.or_else(|| self.access_tokens.get(&token).map(|token| token.family))?;
        self.families.get(id as usize)
    }

    fn is_active(&self, now: i64, token: Fingerprint) -> bool {
        let Some(family) = self.family_of(token).filter(|family| !family.revoked) else { return false };
        match self.access_tokens.get(&token) {
            Some(access_token) => !access_token.revoked && now < access_token.expires_at,
            None => family.newest.fingerprint() == token && !self.has_expired(now, family),
        }
    }

    pub(super) fn mint(&mut self, prefix: &str) -> Secret {
        self.minted += 1;
        let digest = Sha256::new()
            .chain_update(self.options.random)
            .chain_update(self.minted.to_be_bytes())
            .finalize();
        Secret::new(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(digest)))
    }

    fn record(&mut self, now: i64, refresh_token: Option<Fingerprint>, event: AuditEvent) {
        let known = refresh_token.and_then(|token| self.refresh_tokens.get(&token));
        self.audit.push(AuditEntry {
            seq: self.audit.len() as u64,
            at: now,
            refresh_token,
            family: known.map(|token| token.family),
            generation: known.map(|token| token.generation),
            event,
        });
    }
}

#[cfg(test)]
mod tests;
