//! The keys of grants without a login, and of clients that prove themselves by a key or a certificate.

use std::ops::Range;

use url::Url;

use crate::config::grant::{AssertionAudience, GrantConfig};
use crate::config::keys::{RawAccount, raw};
use crate::config::problem::{ConfigProblem, bad_value};
use crate::config::source::SecretSource;
use crate::config::validate::Scope;
use crate::config::values::{Credentials, choice, missing, text};
use crate::oauth::providers::Provider;
use crate::oauth::{AuthMethod, GrantType};

impl Scope<'_> {
    /// Takes the keys of the grant out of an account, and checks them.
    pub(super) fn grant(
        &self,
        raw: &mut RawAccount,
        preset: Option<&'static Provider>,
    ) -> Result<GrantConfig, ConfigProblem> {
        let grant_type = grant_type(raw, preset)?;
        let refresh_token = raw.refresh_token.as_ref().filter(|_| !grant_type.has_login());
        if let Some(span) = refresh_token.map(|raw| raw.span()) {
            let what = format!("does not belong to grant_type {}", grant_type.name());
            return Err(bad_value("refresh_token", span, what, "remove it: no login is needed"));
        }
        let of_secret = |secret: &Option<raw::Secret>| secret.as_ref().map(|raw| raw.span());
        let of_text = |text: &Option<raw::Text>| text.as_ref().map(|raw| raw.span());
        for (key, span, needs) in [
            ("assertion", of_secret(&raw.assertion), GrantType::JwtBearer),
            ("assertion_issuer", of_text(&raw.assertion_issuer), GrantType::JwtBearer),
            ("assertion_subject", of_text(&raw.assertion_subject), GrantType::JwtBearer),
            ("assertion_audience", of_text(&raw.assertion_audience), GrantType::JwtBearer),
            ("subject_token", of_secret(&raw.subject_token), GrantType::TokenExchange),
            ("actor_token", of_secret(&raw.actor_token), GrantType::TokenExchange),
            ("requested_token_type", of_text(&raw.requested_token_type), GrantType::TokenExchange),
        ] {
            if let Some(span) = span.filter(|_| grant_type != needs) {
                let hint = format!("set grant_type = \"{}\", or remove it", needs.name());
                return Err(bad_value(key, span, format!("belongs to grant_type {}", needs.name()), hint));
            }
        }
        if grant_type == GrantType::JwtBearer && raw.assertion.is_none() && raw.private_key.is_none() {
            let span = of_text(&raw.grant_type).unwrap_or_default();
            let hint = "add assertion = { file = \"…\" }, or private_key to sign it here";
            return Err(bad_value("grant_type", span, "needs an assertion", hint));
        }
        if let (Some(certificate), None) = (&raw.certificate, &raw.private_key) {
            let hint = "add private_key; for TLS the keys are tls_certificate and tls_private_key";
            return Err(bad_value("certificate", certificate.span(), "needs a private_key", hint));
        }
        if let (Some(key), Some(_)) = (&raw.private_key, &raw.client_assertion) {
            let hint = "keep private_key to sign here, or client_assertion if somebody else signs";
            return Err(bad_value("private_key", key.span(), "stands beside client_assertion", hint));
        }
        let word = |key: &str, raw: Option<raw::Text>| raw.map(|raw| text(key, raw.into())).transpose();
        let secret = |key: &str, raw: Option<raw::Secret>| raw.map(|raw| self.secret(key, raw)).transpose();
        let pem =
            |key: &str, raw: Option<raw::Secret>| raw.map(|raw| self.secret_or_text(key, raw)).transpose();
        let tls = match (raw.tls_certificate.take(), pem("tls_private_key", raw.tls_private_key.take())?) {
            (Some(path), Some(key)) => Some((self.path("tls_certificate", &path)?, key)),
            (None, None) => None,
            (Some(path), None) => {
                let hint = "add tls_private_key = { file = \"client.key\" }";
                return Err(bad_value("tls_certificate", path.span(), "needs a tls_private_key", hint));
            }
            (None, Some(_)) => return Err(missing("tls_certificate", 0..0, "")),
        };
        let certificate = raw.certificate.take().map(|path| self.path("certificate", &path)).transpose()?;
        let is_entra = preset.is_some_and(|preset| matches!(preset.name, "microsoft" | "entra"));
        let client_audience =
            raw.client_assertion_audience.take().map(|raw| audience("client_assertion_audience", raw));
        // Entra accepts no other.
        let client_audience =
            client_audience.transpose()?.or(is_entra.then_some(AssertionAudience::TokenEndpoint));
        Ok(GrantConfig {
            grant_type,
            private_key: pem("private_key", raw.private_key.take())?,
            key_id: word("key_id", raw.key_id.take())?,
            pss: is_entra && certificate.is_some(),
            certificate,
            client_assertion: secret("client_assertion", raw.client_assertion.take())?,
            client_assertion_audience: client_audience,
            tls,
            assertion: secret("assertion", raw.assertion.take())?,
            assertion_issuer: word("assertion_issuer", raw.assertion_issuer.take())?,
            assertion_subject: word("assertion_subject", raw.assertion_subject.take())?,
            assertion_audience: raw
                .assertion_audience
                .take()
                .map_or(Ok(AssertionAudience::TokenEndpoint), |raw| audience("assertion_audience", raw))?,
            scope_in_assertion: preset.is_some_and(|preset| preset.name == "google-service-account"),
            subject_token: typed(
                "subject_token",
                secret("subject_token", raw.subject_token.take())?,
                "subject_token_type",
                raw.subject_token_type.take(),
                grant_type == GrantType::TokenExchange,
            )?,
            actor_token: typed(
                "actor_token",
                secret("actor_token", raw.actor_token.take())?,
                "actor_token_type",
                raw.actor_token_type.take(),
                false,
            )?,
            requested_token_type: raw
                .requested_token_type
                .take()
                .map(|raw| token_type("requested_token_type", raw))
                .transpose()?,
            google_credentials: raw
                .google_credentials
                .take()
                .map(|path| Ok(SecretSource::File(self.path("google_credentials", &path)?)))
                .transpose()?,
        })
    }

    /// Where Google's files point to, unless they say otherwise.
    pub(super) fn google_endpoint() -> Url {
        const ENDPOINT: &str = "https://oauth2.googleapis.com/token";
        #[expect(clippy::unwrap_used, reason = "a constant that a test parses")]
        ENDPOINT.parse().unwrap()
    }
}

/// The kind of grant that the keys state.
fn grant_type(raw: &RawAccount, preset: Option<&'static Provider>) -> Result<GrantType, ConfigProblem> {
    let stated = raw.grant_type.as_ref().map(|raw| choice("grant_type", raw, &GrantType::ALL)).transpose()?;
    match (&raw.google_credentials, &raw.grant_type) {
        (Some(_), Some(raw)) => {
            let hint = "remove it: the file says what is exchanged";
            Err(bad_value("grant_type", raw.span(), "stands beside google_credentials", hint))
        }
        (Some(_), None) => Ok(GrantType::GoogleCredentials),
        (None, _) => {
            Ok(stated.unwrap_or_else(|| preset.map_or(GrantType::default(), |preset| preset.grant_type)))
        }
    }
}

impl GrantConfig {
    pub(super) fn credentials(&self, secret: bool) -> Credentials {
        let signs = self.private_key.is_some() && !self.signs_grant();
        Credentials {
            secret,
            assertion: signs || self.client_assertion.is_some(),
            certificate: self.tls.is_some(),
        }
    }

    /// The rules between the grant and the client.
    pub(super) fn check_client(
        &self,
        method: AuthMethod,
        has_client_id: bool,
        has_body: bool,
        place: Range<usize>,
    ) -> Result<(), ConfigProblem> {
        let problem = |what: &str, hint: &str| Err(ConfigProblem::new(place, what, hint));
        match (self.grant_type, method) {
            // RFC 6749 section 4.4.
            (GrantType::ClientCredentials, AuthMethod::None) => problem(
                "grant_type client_credentials needs a client that proves who it is",
                "add client_secret, private_key, client_assertion or tls_certificate",
            ),
            (_, AuthMethod::PrivateKeyJwt) if has_body => problem(
                "request_body has no place for a client assertion",
                "remove request_body, or use another token_endpoint_auth_method",
            ),
            (_, AuthMethod::None) => Ok(()),
            _ if !has_client_id && self.grant_type != GrantType::GoogleCredentials => {
                problem("missing key `client_id`", "add it: the client has a secret, a key or a certificate")
            }
            _ => Ok(()),
        }
    }
}

fn audience(key: &str, raw: raw::Text) -> Result<AssertionAudience, ConfigProblem> {
    Ok(match text(key, raw.into())?.as_str() {
        "issuer" => AssertionAudience::Issuer,
        "token_endpoint" => AssertionAudience::TokenEndpoint,
        other => AssertionAudience::Text(other.to_owned()),
    })
}

/// A token and its type, which are nothing without each other.
fn typed(
    key: &'static str,
    source: Option<SecretSource>,
    type_key: &'static str,
    kind: Option<raw::Text>,
    required: bool,
) -> Result<Option<(SecretSource, String)>, ConfigProblem> {
    match (source, kind) {
        (Some(source), Some(kind)) => Ok(Some((source, token_type(type_key, kind)?))),
        (Some(_), None) => Err(missing(type_key, 0..0, "")),
        (None, Some(kind)) => {
            Err(bad_value(type_key, kind.span(), format!("needs {key}"), format!("add {key}, or remove it")))
        }
        (None, None) if required => Err(missing(key, 0..0, "")),
        (None, None) => Ok(None),
    }
}

/// RFC 8693 section 3: a URI, or the last word of one that is registered.
fn token_type(key: &str, raw: raw::Text) -> Result<String, ConfigProblem> {
    const WORDS: [&str; 6] = ["access_token", "refresh_token", "id_token", "saml1", "saml2", "jwt"];
    if raw.get_ref().contains(':') {
        return text(key, raw.into());
    }
    let word = choice(key, &raw, &WORDS.map(|word| (word, word)))?;
    Ok(format!("urn:ietf:params:oauth:token-type:{word}"))
}
