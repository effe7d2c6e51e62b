//! The grant of an account, validated.

use std::path::PathBuf;

use crate::config::source::SecretSource;
use crate::oauth::GrantType;

/// The grant of an account, and the keys of its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantConfig {
    pub grant_type: GrantType,
    /// It signs assertions: for the client, and for jwt-bearer if `assertion` is absent.
    pub private_key: Option<SecretSource>,
    pub key_id: Option<String>,
    /// Of `private_key`.
    pub certificate: Option<PathBuf>,
    /// RSA signs by RSASSA-PSS.
    pub pss: bool,
    /// From somebody else.
    pub client_assertion: Option<SecretSource>,
    pub client_assertion_audience: Option<AssertionAudience>,
    /// Certificate and key for TLS.
    pub tls: Option<(PathBuf, SecretSource)>,
    /// For jwt-bearer, from somebody else.
    pub assertion: Option<SecretSource>,
    pub assertion_issuer: Option<String>,
    pub assertion_subject: Option<String>,
    pub assertion_audience: AssertionAudience,
    /// The scope goes into the assertion as well.
    pub scope_in_assertion: bool,
    /// With its type, a URI.
    pub subject_token: Option<(SecretSource, String)>,
    pub actor_token: Option<(SecretSource, String)>,
    pub requested_token_type: Option<String>,
    pub google_credentials: Option<SecretSource>,
}

/// The aud of an assertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssertionAudience {
    Issuer,
    TokenEndpoint,
    Text(String),
}

impl GrantConfig {
    /// Whether the grant says who asks, so that no client is needed.
    pub(super) fn names_itself(&self) -> bool {
        match self.grant_type {
            GrantType::GoogleCredentials | GrantType::TokenExchange => true,
            GrantType::JwtBearer => self.assertion.is_some() || self.assertion_issuer.is_some(),
            GrantType::RefreshToken | GrantType::ClientCredentials => false,
        }
    }

    /// Whether jwt-bearer's assertion is signed here, which is what private_key is for then.
    pub fn signs_grant(&self) -> bool {
        self.grant_type == GrantType::JwtBearer && self.assertion.is_none()
    }

    /// The key and the source of every secret.
    pub fn secrets(&self) -> impl Iterator<Item = (&'static str, &SecretSource)> {
        [
            ("private_key", self.private_key.as_ref()),
            ("client_assertion", self.client_assertion.as_ref()),
            ("tls_private_key", self.tls.as_ref().map(|(_, key)| key)),
            ("assertion", self.assertion.as_ref()),
            ("subject_token", self.subject_token.as_ref().map(|(source, _)| source)),
            ("actor_token", self.actor_token.as_ref().map(|(source, _)| source)),
            ("google_credentials", self.google_credentials.as_ref()),
        ]
        .into_iter()
        .filter_map(|(key, source)| Some((key, source?)))
    }

    /// The certificates: their key, and the file.
    pub fn certificates(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let tls = self.tls.as_ref().map(|(path, _)| ("tls_certificate", path));
        self.certificate.as_ref().map(|path| ("certificate", path)).into_iter().chain(tls)
    }
}
