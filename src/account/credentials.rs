//! The proof of a request, read anew for each: keys, certificates, assertions and tokens of
//! others. Nothing is kept: a file may have changed, and a command may make another one.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use url::Url;

use crate::account::sources::{read, read_text};
use crate::clock::Timestamp;
use crate::config::{AccountConfig, AssertionAudience, SecretSource};
use crate::files;
use crate::message::duration;
use crate::oauth::assertion::{AssertionClaims, Header, compact, expires_at, signing_input};
use crate::oauth::{
    AuthMethod, ClientAuthentication, ClientCertificate, Grant, GrantType, TokenClient, TokenExchange,
};
use crate::problem::{Class, Problem};
use crate::refresh::decide::{EvidenceOrigin, Inputs};
use crate::secret::{Fingerprint, Secret};
use crate::signing::certificate::{Certificate, NotACertificate};
use crate::signing::key::{KeyError, SigningKey};
use crate::workers;

/// The longest file of certificates: a chain of a dozen.
const CERTIFICATES_MAX: usize = 256 << 10;

/// Reads the credentials of one request.
pub(super) struct CredentialReader<'a> {
    pub(super) account: &'a AccountConfig,
    client_id: String,
    pub(super) now: Timestamp,
    /// Of everything that a verdict is bound to.
    given: Vec<Fingerprint>,
    name: Option<String>,
    origin: EvidenceOrigin,
}

/// A private key of the config or of a file, and what the server needs to find its public half.
pub(super) struct NamedKey {
    pub(super) key: SigningKey,
    pub(super) header: Header,
    pub(super) pss: bool,
}

impl<'a> CredentialReader<'a> {
    pub(super) fn new(account: &'a AccountConfig, client_id: String, now: Timestamp) -> Self {
        Self { account, client_id, now, given: Vec::new(), name: None, origin: EvidenceOrigin::Client }
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
        let grant = &self.account.grant;
        let method = self.account.auth_method;
        Ok(match (method, client_secret) {
            (AuthMethod::ClientSecretBasic, Some(client_secret)) => {
                ClientAuthentication::Basic { client_secret }
            }
            (AuthMethod::ClientSecretBasicRaw, Some(client_secret)) => {
                ClientAuthentication::BasicRaw { client_secret }
            }
            (AuthMethod::ClientSecretPost, Some(client_secret)) => {
                ClientAuthentication::Post { client_secret }
            }
            (AuthMethod::PrivateKeyJwt, _) => match (&grant.private_key, &grant.client_assertion) {
                (Some(source), _) => {
                    let (named, key) = self.private_key(source).await?;
                    let known = self.account.issuer.is_some();
                    let default =
                        if known { AssertionAudience::Issuer } else { AssertionAudience::TokenEndpoint };
                    let audience = grant.client_assertion_audience.as_ref().unwrap_or(&default);
                    let id = &self.client_id.clone();
                    let audience = self.audience(audience, token_endpoint);
                    let assertion = self.sign(&named, id, Some(id), &audience, None)?;
                    self.claim(
                        EvidenceOrigin::SignedHere,
                        "the assertion that private_key has signed".into(),
                    );
                    ClientAuthentication::Assertion { assertion, key }
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
            _ => ClientAuthentication::None,
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
        let (named, key) = self.private_key(source).await?;
        let issuer = &grant.assertion_issuer.clone().unwrap_or_else(|| self.client_id.clone());
        let subject = grant.assertion_subject.as_ref().unwrap_or(issuer);
        let audience = self.audience(&grant.assertion_audience, token_endpoint);
        let scope = self.account.scope.as_deref().filter(|_| grant.scope_in_assertion);
        let assertion = self.sign(&named, issuer, Some(subject), &audience, scope)?;
        self.bind(key);
        self.bind(Fingerprint::of([issuer.as_bytes(), subject.as_bytes(), audience.as_bytes()]));
        self.claim(EvidenceOrigin::SignedHere, "the assertion that private_key has signed".into());
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

    /// An assertion or token that somebody else writes. One that has expired is not sent.
    pub(super) async fn given(
        &mut self,
        key: &'static str,
        source: &SecretSource,
    ) -> Result<Secret, Problem> {
        let secret = read(self.account, key, source).await?;
        self.take_given(key, &source.to_string(), &secret)?;
        Ok(secret)
    }

    /// The same of one that was read already.
    pub(super) fn take_given(&mut self, key: &str, place: &str, secret: &Secret) -> Result<(), Problem> {
        let words = key.replace('_', " ");
        let age = expires_at(secret).map(|at| self.now.wall / 1000 - at).filter(|age| *age >= 0);
        if let Some(age) = age {
            let ago = duration(std::time::Duration::from_secs(age.unsigned_abs()));
            return Err(Problem {
                class: Class::Unavailable,
                kind: "assertion_expired".into(),
                message: format!("the {words} from {place} expired {ago} ago"),
                cause: Some("whatever writes it has stopped".into()),
                hint: Some(
                    "start that program again: a new one is used as soon as it is there; or set the clock, if it is wrong"
                        .into(),
                ),
            });
        }
        self.bind(secret.fingerprint());
        self.claim(EvidenceOrigin::Given, format!("the {words} from {place}"));
        Ok(())
    }

    /// A verdict is bound to this as well.
    pub(super) fn bind(&mut self, fingerprint: Fingerprint) {
        self.given.push(fingerprint);
    }

    pub(super) fn claim(&mut self, origin: EvidenceOrigin, name: String) {
        (self.origin, self.name) = (origin, Some(name));
    }

    fn audience(&self, audience: &AssertionAudience, token_endpoint: &Url) -> String {
        match (audience, &self.account.issuer) {
            (AssertionAudience::Text(text), _) => text.clone(),
            (AssertionAudience::Issuer, Some(issuer)) => issuer.clone(),
            (AssertionAudience::Issuer | AssertionAudience::TokenEndpoint, _) => token_endpoint.to_string(),
        }
    }

    /// The key of the config, and its fingerprint with everything else that is in the header.
    async fn private_key(&self, source: &SecretSource) -> Result<(NamedKey, Fingerprint), Problem> {
        let grant = &self.account.grant;
        let pem = read_text(self.account, "private_key", source).await?;
        let key = SigningKey::from_pem(&pem).map_err(|error| bad_key("private_key", source, error))?;
        let mut header = Header::new();
        header.insert("alg".into(), key.algorithm(grant.pss).into());
        if let Some(key_id) = &grant.key_id {
            header.insert("kid".into(), key_id.clone().into());
        }
        if let Some(path) = &grant.certificate {
            let certificate = certificate("certificate", path).await?.1;
            if !key.is_of(&certificate) {
                return Err(Problem {
                    class: Class::Config,
                    kind: "key".into(),
                    message: format!("private_key is not the key of the certificate {}", path.display()),
                    cause: None,
                    hint: Some("renew both, or name the pair that belongs together".into()),
                });
            }
            header.insert("x5t".into(), certificate.x5t().into());
            header.insert("x5t#S256".into(), certificate.x5t_s256().into());
        }
        let text = serde_json::Value::Object(header.clone()).to_string();
        let fingerprint = Fingerprint::of([pem.expose().as_bytes(), text.as_bytes()]);
        Ok((NamedKey { key, header, pss: grant.pss }, fingerprint))
    }

    pub(super) fn sign(
        &self,
        named: &NamedKey,
        issuer: &str,
        subject: Option<&str>,
        audience: &str,
        scope: Option<&str>,
    ) -> Result<Secret, Problem> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| Problem {
            class: Class::Unexpected,
            kind: "random".into(),
            message: "the kernel gives no random bytes".into(),
            cause: Some(error.to_string()),
            hint: Some("allow getrandom(2) in the sandbox".into()),
        })?;
        let claims = AssertionClaims { issuer, subject, audience, scope, now: self.now.wall / 1000, id };
        let input = signing_input(named.header.clone(), &claims);
        let signature = named.key.sign(input.as_bytes(), named.pss);
        let signature = signature.map_err(|error| Problem::new(&error, Class::Unexpected, "key", None))?;
        Ok(compact(&input, &signature))
    }

    async fn tls(&self, path: &Path, source: &SecretSource) -> Result<ClientCertificate, Problem> {
        let (chain, _) = certificate("tls_certificate", path).await?;
        let key = read_text(self.account, "tls_private_key", source).await?;
        if key.expose().contains("ENCRYPTED") {
            return Err(bad_key("tls_private_key", source, KeyError::Encrypted));
        }
        if PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).is_err() {
            return Err(bad_key("tls_private_key", source, KeyError::NotAKey));
        }
        Ok(ClientCertificate { chain, key })
    }
}

/// The fault of a key, with the way to a better one.
pub(super) fn bad_key(key: &str, source: &SecretSource, error: KeyError) -> Problem {
    let file = match source {
        SecretSource::File(path) => Some(path.display().to_string()),
        _ => None,
    };
    Problem {
        class: Class::Config,
        kind: "key".into(),
        message: format!("{key} from {source} {error}"),
        cause: None,
        hint: Some(error.hint(file.as_deref())),
    }
}

/// A certificate's file: its text, and the first certificate in it. It is no secret.
pub(super) async fn certificate(key: &'static str, path: &Path) -> Result<(String, Certificate), Problem> {
    let file = path.to_owned();
    workers::run(move || read_certificate(key, &file)).await
}

/// The same on this thread.
pub fn read_certificate(key: &str, path: &Path) -> Result<(String, Certificate), Problem> {
    let problem = |class, message: String, hint: String| Problem {
        class,
        kind: "certificate".into(),
        message,
        cause: None,
        hint: Some(hint),
    };
    let contents = files::read::read(path, CERTIFICATES_MAX).map_err(|error| {
        let hint = format!("check that `cat {}` can read it", path.display());
        let problem = problem(Class::Unavailable, format!("cannot read {key} {}", path.display()), hint);
        Problem { cause: Some(error.to_string()), ..problem }
    })?;
    let found = Certificate::from_pem(&contents.bytes).map_err(|error| {
        let message = format!("{key} {} {error}", path.display());
        problem(Class::Config, message, NotACertificate::HINT.into())
    })?;
    Ok((String::from_utf8_lossy(&contents.bytes).into_owned(), found))
}
