//! The proof of a request, read anew for each: keys, certificates, assertions and tokens of
//! others. Nothing is kept: a file may have changed, and a command may make another one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use url::Url;

use crate::account::certificates::read_certificate;
use crate::account::sources::{read, read_text};
use crate::clock::Timestamp;
use crate::config::{AccountConfig, AssertionAudience, SecretSource};
use crate::message::{duration, local};
use crate::oauth::assertion::{AssertionClaims, Header, compact, expires_at, signing_input};
use crate::oauth::{
    AuthMethod, ClientAuthentication, ClientCertificate, Grant, GrantType, TokenClient, TokenExchange,
};
use crate::problem::{Class, Problem};
use crate::refresh::decide::{EvidenceOrigin, Inputs};
use crate::secret::{Fingerprint, Secret};
use crate::signing::certificate::Certificate;
use crate::signing::key::{KeyError, SigningKey};
use crate::workers;

/// The name of what this program has signed.
const SIGNED: &str = "the assertion that private_key has signed";

/// Reads the credentials of one request.
pub(super) struct CredentialReader<'a> {
    pub(super) account: &'a AccountConfig,
    client_id: String,
    now: Timestamp,
    /// Of everything that a verdict is bound to.
    given: Vec<Fingerprint>,
    name: Option<String>,
    origin: EvidenceOrigin,
    /// The key of the config that was read last.
    pub(super) key: &'static str,
    /// The keys that were read, each with a word on what was found.
    pub(super) found: Vec<(&'static str, String)>,
}

impl<'a> CredentialReader<'a> {
    pub(super) fn new(account: &'a AccountConfig, client_id: String, now: Timestamp) -> Self {
        let origin = EvidenceOrigin::Client;
        let (given, found) = (Vec::new(), Vec::new());
        Self { account, client_id, now, given, name: None, origin, key: "client_id", found }
    }

    /// The grant of the config, if it needs no login and is not Google's.
    pub(super) async fn grant(&mut self, token_endpoint: &Url) -> Result<Option<Grant>, Problem> {
        Ok(match self.account.grant.grant_type {
            GrantType::RefreshToken | GrantType::GoogleCredentials => None,
            GrantType::ClientCredentials => Some(Grant::ClientCredentials),
            GrantType::JwtBearer => {
                Some(Grant::JwtBearer { assertion: self.assertion(token_endpoint).await? })
            }
            GrantType::TokenExchange => Some(self.token_exchange().await?),
        })
    }

    /// The inputs of a pass, with everything that was read so far.
    pub(super) fn finish(self, client: TokenClient, grant: Option<Grant>) -> Inputs {
        let mut inputs = Inputs::new(None, None, client);
        inputs.grant = grant;
        inputs.evidence.origin = self.origin;
        inputs.evidence.name = self.name;
        if !self.given.is_empty() {
            let request = inputs.request.to_string();
            let given: Vec<_> = self.given.iter().map(ToString::to_string).collect();
            let parts = given.iter().map(String::as_bytes).chain([request.as_bytes()]);
            inputs.evidence.fingerprint = Fingerprint::of_all(parts);
        }
        inputs
    }

    /// How the client proves who it is, made for one request.
    pub(super) async fn authentication(
        &mut self,
        client_secret: Option<Secret>,
        token_endpoint: &Url,
    ) -> Result<ClientAuthentication, Problem> {
        let (grant, method) = (&self.account.grant, self.account.auth_method);
        Ok(match (method, client_secret) {
            (AuthMethod::PrivateKeyJwt, _) => match (&grant.private_key, &grant.client_assertion) {
                (Some(source), _) => {
                    let (key, header, fingerprint) = self.private_key(source).await?;
                    // The issuer, if it is known.
                    let audience = grant.client_assertion_audience.as_ref();
                    let audience = audience.unwrap_or(&AssertionAudience::Issuer);
                    let audience = self.audience(audience, token_endpoint);
                    let id = &*self.client_id;
                    let assertion = self.sign(&key, header, [id, id, &audience], None)?;
                    self.claim(EvidenceOrigin::SignedHere, SIGNED.into());
                    ClientAuthentication::Assertion { assertion, key: fingerprint }
                }
                (None, Some(source)) => {
                    let assertion = self.given("client_assertion", source).await?;
                    // Another one says nothing new of the client.
                    ClientAuthentication::Assertion { assertion, key: Fingerprint::of([b"given"]) }
                }
                (None, None) => ClientAuthentication::None,
            },
            (AuthMethod::TlsClientAuth | AuthMethod::SelfSignedTlsClientAuth, _) => match &grant.tls {
                Some((certificate, key)) => {
                    let certificate = Arc::new(self.tls(certificate, key).await?);
                    ClientAuthentication::Tls { certificate, method }
                }
                None => ClientAuthentication::None,
            },
            (AuthMethod::None, _) | (_, None) => ClientAuthentication::None,
            (method, Some(client_secret)) => ClientAuthentication::Secret { method, client_secret },
        })
    }

    /// The assertion for jwt-bearer.
    async fn assertion(&mut self, token_endpoint: &Url) -> Result<Secret, Problem> {
        let grant = &self.account.grant;
        if let Some(source) = &grant.assertion {
            return self.given("assertion", source).await;
        }
        let Some(source) = &grant.private_key else {
            return Err(Problem::bug("nothing signs the assertion"));
        };
        let (key, header, fingerprint) = self.private_key(source).await?;
        let issuer = grant.assertion_issuer.as_deref().unwrap_or(&self.client_id);
        let subject = grant.assertion_subject.as_deref().unwrap_or(issuer);
        let audience = self.audience(&grant.assertion_audience, token_endpoint);
        let scope = self.account.scope.as_deref().filter(|_| grant.scope_in_assertion);
        let assertion = self.sign(&key, header, [issuer, subject, &audience], scope)?;
        let claims = Fingerprint::of([issuer.as_bytes(), subject.as_bytes(), audience.as_bytes()]);
        self.bind(fingerprint);
        self.bind(claims);
        self.claim(EvidenceOrigin::SignedHere, SIGNED.into());
        Ok(assertion)
    }

    async fn token_exchange(&mut self) -> Result<Grant, Problem> {
        let grant = &self.account.grant;
        let Some((source, kind)) = &grant.subject_token else {
            return Err(Problem::bug("there is no subject_token"));
        };
        let actor_token = match &grant.actor_token {
            Some((source, kind)) => Some((self.given("actor_token", source).await?, kind.clone())),
            None => None,
        };
        // Last: a message names the token that most often is the cause.
        let subject_token = self.given("subject_token", source).await?;
        self.bind(Fingerprint::of([kind.as_bytes()]));
        Ok(Grant::TokenExchange(Box::new(TokenExchange {
            subject_token,
            subject_token_type: kind.clone(),
            actor_token,
            requested_token_type: grant.requested_token_type.clone(),
        })))
    }

    /// A text of several lines, such as a key in PEM.
    pub(super) async fn text(&mut self, key: &'static str, source: &SecretSource) -> Result<Secret, Problem> {
        self.key = key;
        Ok(read_text(self.account, key, source).await?)
    }

    /// An assertion or token that somebody else writes. One that has expired is not sent.
    pub(super) async fn given(
        &mut self,
        key: &'static str,
        source: &SecretSource,
    ) -> Result<Secret, Problem> {
        self.key = key;
        let secret = read(self.account, key, source).await?;
        self.take_given(key, source, &secret)?;
        Ok(secret)
    }

    /// The same of one that was read already.
    pub(super) fn take_given(
        &mut self,
        key: &'static str,
        source: &SecretSource,
        secret: &Secret,
    ) -> Result<(), Problem> {
        let words = key.replace('_', " ");
        let ends_at = expires_at(secret);
        if let Some(age) = ends_at.map(|at| self.now.wall / 1000 - at).filter(|age| *age >= 0) {
            let ago = duration(Duration::from_secs(age.unsigned_abs()));
            let message = format!("the {words} from {source} expired {ago} ago");
            return Err(Problem::of(Class::Unavailable, "assertion_expired", message)
                .cause("whatever writes it has stopped")
                .hint("start that program again: a new one is used as soon as it is there; or set the clock, if it is wrong"));
        }
        let end = ends_at.map(|at| format!("; it expires {}", local(at))).unwrap_or_default();
        self.found.push((key, format!("read from {source}{end}")));
        self.bind(secret.fingerprint());
        self.claim(EvidenceOrigin::Given, format!("the {words} from {source}"));
        Ok(())
    }

    /// A verdict is bound to this as well.
    pub(super) fn bind(&mut self, fingerprint: Fingerprint) {
        self.given.push(fingerprint);
    }

    pub(super) fn claim(&mut self, origin: EvidenceOrigin, name: String) {
        (self.origin, self.name) = (origin, Some(name));
    }

    /// The token endpoint, if the issuer is not known.
    fn audience(&self, audience: &AssertionAudience, token_endpoint: &Url) -> String {
        match (audience, &self.account.issuer) {
            (AssertionAudience::Text(text), _) => text.clone(),
            (AssertionAudience::Issuer, Some(issuer)) => issuer.clone(),
            (AssertionAudience::Issuer | AssertionAudience::TokenEndpoint, _) => token_endpoint.to_string(),
        }
    }

    /// The key of the config, the header of what it signs, and the fingerprint of both.
    async fn private_key(
        &mut self,
        source: &SecretSource,
    ) -> Result<(SigningKey, Header, Fingerprint), Problem> {
        let grant = &self.account.grant;
        let pem = self.text("private_key", source).await?;
        let key = SigningKey::from_pem(&pem).map_err(|error| bad_key("private_key", source, error))?;
        let algorithm = key.algorithm(grant.pss);
        self.found.push(("private_key", format!("read from {source}; it signs by {algorithm}")));
        let mut header = Header::new();
        header.insert("alg".into(), algorithm.into());
        if let Some(key_id) = &grant.key_id {
            header.insert("kid".into(), key_id.clone().into());
        }
        if let Some(path) = &grant.certificate {
            let (_, certificate) = self.certificate("certificate", path).await?;
            if !key.is_of(&certificate) {
                return Err(not_a_pair("private_key", path));
            }
            header.insert("x5t".into(), certificate.x5t().into());
            header.insert("x5t#S256".into(), certificate.x5t_s256().into());
        }
        let text = serde_json::Value::Object(header.clone()).to_string();
        let fingerprint = Fingerprint::of([pem.expose().as_bytes(), text.as_bytes()]);
        Ok((key, header, fingerprint))
    }

    /// Signs an assertion of this issuer, subject and audience. An empty subject is left out.
    pub(super) fn sign(
        &self,
        key: &SigningKey,
        header: Header,
        [issuer, subject, audience]: [&str; 3],
        scope: Option<&str>,
    ) -> Result<Secret, Problem> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| Problem::no_random())?;
        let subject = Some(subject).filter(|subject| !subject.is_empty());
        let claims = AssertionClaims { issuer, subject, audience, scope, now: self.now.wall / 1000, id };
        let input = signing_input(header, &claims);
        let signature = key.sign(input.as_bytes(), self.account.grant.pss);
        let signature = signature.map_err(|error| Problem::new(&error, Class::Unexpected, "key", None))?;
        Ok(compact(&input, &signature))
    }

    async fn tls(&mut self, path: &Path, source: &SecretSource) -> Result<ClientCertificate, Problem> {
        let (chain, _) = self.certificate("tls_certificate", path).await?;
        let key = self.text("tls_private_key", source).await?;
        let bad_key = |error| bad_key("tls_private_key", source, error);
        if key.expose().contains("ENCRYPTED") {
            return Err(bad_key(KeyError::Encrypted));
        }
        let der = PrivateKeyDer::from_pem_slice(key.expose().as_bytes());
        let der = der.map_err(|_| bad_key(KeyError::NotAKey))?;
        let certificates = CertificateDer::pem_slice_iter(chain.as_bytes()).flatten().collect();
        CertifiedKey::from_der(certificates, der, &ring::default_provider()).map_err(
            |error| match error {
                rustls::Error::InconsistentKeys(_) => not_a_pair("tls_private_key", path),
                _ => bad_key(KeyError::Kind),
            },
        )?;
        self.found.push(("tls_private_key", format!("read from {source}")));
        Ok(ClientCertificate { chain, key })
    }

    /// A certificate's file: its text, and the first certificate in it. It is no secret.
    async fn certificate(
        &mut self,
        key: &'static str,
        path: &Path,
    ) -> Result<(String, Certificate), Problem> {
        self.key = key;
        let path = path.to_owned();
        workers::run(move || read_certificate(key, &path)).await
    }
}

fn not_a_pair(key: &str, path: &Path) -> Problem {
    Problem::of(Class::Config, "key", format!("{key} is not the key of the certificate {}", path.display()))
        .hint("renew both, or name the pair that belongs together")
}

/// The fault of a key, with the way to a better one.
pub(super) fn bad_key(key: &str, source: &SecretSource, error: KeyError) -> Problem {
    let file = match source {
        SecretSource::File(path) => Some(path.display().to_string()),
        _ => None,
    };
    Problem::of(Class::Config, "key", format!("{key} from {source} {error}"))
        .hint(error.hint(file.as_deref()))
}
