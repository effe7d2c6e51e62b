//! The files that Google's console and `gcloud` write: `google_credentials`.

use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use url::{Host, Url};

use crate::account::credentials::{CredentialReader, bad_key};
use crate::config::{SecretSource, is_loopback};
use crate::files;
use crate::oauth::assertion::Header;
use crate::oauth::{AuthMethod, ClientAuthentication, Grant, Shape, TokenClient, TokenExchange};
use crate::problem::{Class, Problem};
use crate::refresh::decide::EvidenceOrigin;
use crate::secret::{Fingerprint, Secret};
use crate::signing::key::SigningKey;

const KEY: &str = "google_credentials";

/// Such a file has some KiB.
const MAX_LEN: usize = 64 << 10;

const DOWNLOAD: &str = "download the file again from Google's console, or let gcloud write it";

/// Whatever the service account may do; Google's own programs ask for it, too.
const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

#[derive(Deserialize)]
struct CredentialsType {
    r#type: String,
}

#[derive(Deserialize)]
struct ServiceAccount {
    client_email: String,
    #[serde(deserialize_with = "secret")]
    private_key: Secret,
    private_key_id: Option<String>,
    token_uri: Option<Url>,
}

#[derive(Deserialize)]
struct GoogleUser {
    client_id: String,
    #[serde(deserialize_with = "secret")]
    client_secret: Secret,
    #[serde(deserialize_with = "secret")]
    refresh_token: Secret,
    token_uri: Option<Url>,
}

/// AIP-4117.
#[derive(Deserialize)]
struct ExternalAccount {
    audience: String,
    subject_token_type: String,
    token_url: Url,
    service_account_impersonation_url: Option<Url>,
    credential_source: CredentialSource,
    client_id: Option<String>,
    client_secret: Option<String>,
}

#[derive(Deserialize)]
struct CredentialSource {
    file: Option<PathBuf>,
    format: Option<SourceFormat>,
    executable: Option<IgnoredAny>,
    environment_id: Option<IgnoredAny>,
    url: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct SourceFormat {
    r#type: String,
    subject_token_field_name: Option<String>,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

/// Reads the file, and turns the client into what it says.
pub(super) async fn grant(
    reader: &mut CredentialReader<'_>,
    client: &mut TokenClient,
) -> Result<Grant, Problem> {
    let Some(source) = &reader.account.grant.google_credentials else {
        return Err(Problem::bug("there are no google_credentials"));
    };
    let text = reader.text(KEY, source).await?;
    client.client_authentication = ClientAuthentication::None;
    client.client_id = String::new();
    // Google follows the RFCs.
    client.shape = Shape::default();
    reader.bind(text.fingerprint());
    let kind: CredentialsType = parse(&text, source)?;
    let grant = match &*kind.r#type {
        "service_account" => service_account(reader, client, &parse(&text, source)?, source),
        "authorized_user" => {
            let user: GoogleUser = parse(&text, source)?;
            if let Some(endpoint) = &user.token_uri {
                client.token_endpoint = confirmed(reader, endpoint, "token_uri")?;
            }
            client.client_id = user.client_id;
            client.client_authentication = ClientAuthentication::Secret {
                method: AuthMethod::ClientSecretPost,
                client_secret: user.client_secret,
            };
            reader.claim(EvidenceOrigin::Given, format!("the refresh token from {source}"));
            Ok(Grant::RefreshToken(user.refresh_token))
        }
        "external_account" => external_account(reader, client, parse(&text, source)?, source).await,
        other => {
            let shown: String = other.chars().filter(char::is_ascii_graphic).take(40).collect();
            Err(problem(
                format!("{KEY} from {source} is of the type {shown}, which is not supported"),
                "use a file of type service_account, authorized_user or external_account",
            ))
        }
    }?;
    let found = format!("{} from {source}; its token endpoint is {}", kind.r#type, client.token_endpoint);
    reader.found.push((KEY, found));
    Ok(grant)
}

fn service_account(
    reader: &mut CredentialReader<'_>,
    client: &mut TokenClient,
    account: &ServiceAccount,
    source: &SecretSource,
) -> Result<Grant, Problem> {
    if let Some(endpoint) = &account.token_uri {
        client.token_endpoint = confirmed(reader, endpoint, "token_uri")?;
    }
    let key =
        SigningKey::from_pem(&account.private_key).map_err(|error| bad_key("private_key", source, error))?;
    let mut header = Header::new();
    header.insert("alg".into(), key.algorithm(false).into());
    if let Some(key_id) = &account.private_key_id {
        header.insert("kid".into(), key_id.clone().into());
    }
    // Google wants the scope in the assertion.
    let scope = client.scope.take().unwrap_or_else(|| CLOUD_PLATFORM.into());
    reader.bind(Fingerprint::of([scope.as_bytes()]));
    let claims = [&*account.client_email, "", client.token_endpoint.as_str()];
    let assertion = reader.sign(&key, header, claims, Some(&scope))?;
    reader.claim(EvidenceOrigin::SignedHere, format!("the assertion that the key from {source} has signed"));
    Ok(Grant::JwtBearer { assertion })
}

async fn external_account(
    reader: &mut CredentialReader<'_>,
    client: &mut TokenClient,
    account: ExternalAccount,
    source: &SecretSource,
) -> Result<Grant, Problem> {
    let unsupported = |what: &str| {
        Err(problem(
            format!("{KEY} from {source} takes its token from {what}, which is not supported"),
            "have the platform write the token into a file, and name it in credential_source; or use grant_type = \"token-exchange\" with a command",
        ))
    };
    let CredentialSource { file, format, executable, environment_id, url } = account.credential_source;
    let file = match (file, executable, environment_id, url) {
        (Some(file), ..) => file,
        (None, Some(_), ..) => return unsupported("an executable"),
        (None, None, Some(_), _) => return unsupported("AWS"),
        (None, None, None, _) => return unsupported("a URL"),
    };
    client.token_endpoint = confirmed(reader, &account.token_url, "token_url")?;
    client.extra_params.push(("audience".into(), account.audience));
    if let Some(id) = account.client_id {
        client.client_id = id;
    }
    if let Some(client_secret) = account.client_secret.map(Secret::new) {
        client.client_authentication =
            ClientAuthentication::Secret { method: AuthMethod::ClientSecretBasic, client_secret };
    }
    let scope = client.scope.take().unwrap_or_else(|| CLOUD_PLATFORM.into());
    client.scope = Some(match account.service_account_impersonation_url {
        Some(url) => {
            let url = confirmed(reader, &url, "service_account_impersonation_url")?;
            client.shape.impersonation = Some((url, scope.split(' ').map(str::to_owned).collect()));
            CLOUD_PLATFORM.into()
        }
        None => scope,
    });
    let subject_token = subject_token(reader, &file, format.as_ref()).await?;
    Ok(Grant::TokenExchange(Box::new(TokenExchange {
        subject_token,
        subject_token_type: account.subject_token_type,
        actor_token: None,
        requested_token_type: Some("urn:ietf:params:oauth:token-type:access_token".into()),
    })))
}

/// The token in the file, which may be a member of a JSON object.
async fn subject_token(
    reader: &mut CredentialReader<'_>,
    file: &Path,
    format: Option<&SourceFormat>,
) -> Result<Secret, Problem> {
    let source = SecretSource::File(file.to_owned());
    let Some(format) = format.filter(|format| format.r#type == "json") else {
        return reader.given("subject_token", &source).await;
    };
    let name = format.subject_token_field_name.as_deref().unwrap_or("access_token");
    let text = reader.text("subject_token", &source).await?;
    let object: serde_json::Value = serde_json::from_str(text.expose()).unwrap_or_default();
    let Some(token) = object.get(name).and_then(serde_json::Value::as_str) else {
        let shown: String = name.chars().filter(char::is_ascii_graphic).take(40).collect();
        return Err(problem(
            format!("the subject token from {source} is missing: there is no text {shown} in it"),
            "correct subject_token_field_name in the credentials, or whatever writes the file",
        ));
    };
    let token = Secret::new(token.trim());
    reader.take_given("subject_token", &source, &token)?;
    Ok(token)
}

/// The file with the platform's token, if these are the credentials of an external account that has one.
pub fn platform_file(credentials: &Path) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct External {
        credential_source: CredentialSource,
    }
    let contents = files::read::read(credentials, MAX_LEN).ok()?;
    serde_json::from_slice::<External>(&contents.bytes).ok()?.credential_source.file
}

/// A URL in the file decides who gets assertions and tokens.
fn confirmed(reader: &CredentialReader<'_>, url: &Url, member: &str) -> Result<Url, Problem> {
    let host = match url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        host => host.map(|host| host.to_string()).unwrap_or_default(),
    };
    if url.scheme() != "https" && !is_loopback(url) && !reader.account.allow_http {
        return Err(problem(format!("the {member} in {KEY} is not https"), DOWNLOAD));
    }
    let is_google = host == "googleapis.com" || host.ends_with(".googleapis.com");
    if is_google || reader.account.confirmed_endpoint_host.as_deref() == Some(&*host) {
        return Ok(url.clone());
    }
    Err(Problem {
        hint: Some(format!(
            "if the file is from somebody you trust, set confirmed_endpoint_host = \"{host}\""
        )),
        ..problem(format!("the {member} in {KEY} leads to {host}, which is not Google's"), "")
    })
}

fn parse<'de, T: Deserialize<'de>>(text: &'de Secret, source: &SecretSource) -> Result<T, Problem> {
    // Serde's message may quote a value.
    serde_json::from_str(text.expose()).map_err(|error| {
        problem(
            format!("{KEY} from {source} cannot be read: line {} is not as expected", error.line()),
            DOWNLOAD,
        )
    })
}

fn problem(message: String, hint: &str) -> Problem {
    Problem::of(Class::Config, "google_credentials", message).hint(hint)
}
