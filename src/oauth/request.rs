//! The request to a token endpoint: a client (RFC 6749 section 2) and a grant.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use form_urlencoded::{Serializer, byte_serialize};
use url::Url;
use zeroize::Zeroizing;

use crate::oauth::auth_method::AuthMethod;
use crate::oauth::grant::Grant;
use crate::oauth::shape::{BodyTemplate, Shape};
use crate::secret::{Fingerprint, Secret};

/// How the client proves who it is (`token_endpoint_auth_method`, RFC 7591 section 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// `client_secret_basic`, `client_secret_basic_raw` or `client_secret_post`: in the Authorization header or
    /// in the body, RFC 6749 section 2.3.1.
    Secret { method: AuthMethod, client_secret: Secret },
    /// `none`: a public client, which sends its client_id alone.
    None,
    /// `private_key_jwt`: an assertion made for one request, RFC 7523 section 2.2. `key` is what stays:
    /// the fingerprint of the key that signed it.
    Assertion { assertion: Secret, key: Fingerprint },
    /// `tls_client_auth` and `self_signed_tls_client_auth`: in the TLS handshake, RFC 8705.
    Tls { certificate: Arc<ClientCertificate>, method: AuthMethod },
}

/// A certificate and its private key, for TLS. Equal if both are.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// PEM, the client's own first.
    pub chain: String,
    /// PEM.
    pub key: Secret,
}

impl ClientCertificate {
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of([self.chain.as_bytes(), self.key.expose().as_bytes()])
    }
}

impl ClientAuthentication {
    pub fn method(&self) -> AuthMethod {
        match self {
            Self::Secret { method, .. } | Self::Tls { method, .. } => *method,
            Self::None => AuthMethod::None,
            Self::Assertion { .. } => AuthMethod::PrivateKeyJwt,
        }
    }

    pub fn client_secret(&self) -> Option<&Secret> {
        if let Self::Secret { client_secret, .. } = self { Some(client_secret) } else { None }
    }

    /// The certificate to show in TLS.
    pub fn certificate(&self) -> Option<&Arc<ClientCertificate>> {
        match self {
            Self::Tls { certificate, .. } => Some(certificate),
            _ => None,
        }
    }

    /// The secret that the request has for it.
    fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Assertion { assertion, .. } => Some(assertion),
            _ => self.client_secret(),
        }
    }
}

/// RFC 7523 section 2.2.
const CLIENT_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A client of a token endpoint: everything in a request except the grant.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenClient {
    pub token_endpoint: Url,
    pub client_id: String,
    pub client_authentication: ClientAuthentication,
    /// `None` requests the scope that was granted at login.
    pub scope: Option<String>,
    /// Further parameters of the body, in this order: audience, resource (RFC 8707, repeatable) and
    /// the provider's own.
    pub extra_params: Vec<(String, String)>,
    /// The parts that the RFC does not know.
    pub shape: Shape,
}

/// One whole request to a token endpoint, RFC 6749 section 4.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRequest {
    pub client: Arc<TokenClient>,
    pub grant: Grant,
}

impl TokenRequest {
    /// The body, `application/x-www-form-urlencoded` unless the shape has a template.
    pub fn body(&self) -> Secret {
        let client = &self.client;
        if let Some(template) = &client.shape.body {
            let body = template.render(&|name| self.value(name).to_owned());
            return match self.grant {
                Grant::RefreshToken(_) => body,
                _ => template.replace_token(&body, &self.grant.params()),
            };
        }
        let params = self.grant.params();
        let grant_len: usize = params.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        // Room for every byte escaped: a String that grows leaves copies of secrets behind.
        let room = 256 + 3 * (client.client_id.len() + grant_len + client.params_len());
        let mut form = Serializer::new(String::with_capacity(room));
        form.append_pair("grant_type", self.grant.grant_type()).extend_pairs(params);
        client.append_authentication(&mut form);
        client.append_params(&mut form);
        form.extend_pairs(client.shape.secret_params.iter().map(|field| (&field.name, field.value.expose())));
        Secret::new(form.finish())
    }

    /// The value of a template's placeholder; empty if there is none.
    fn value(&self, name: &str) -> &str {
        let client = &self.client;
        match name {
            "grant_type" => self.grant.grant_type(),
            "refresh_token" => match &self.grant {
                Grant::RefreshToken(token) => token.expose(),
                // Where the parameters of the grant belong.
                _ => BodyTemplate::TOKEN_PLACE,
            },
            "client_id" => &client.client_id,
            "client_secret" => client.client_authentication.client_secret().map_or("", Secret::expose),
            "scope" => client.scope.as_deref().unwrap_or_default(),
            _ => {
                let plain = client.extra_params.iter().map(|(name, value)| (name, value.as_str()));
                let hidden =
                    client.shape.secret_params.iter().map(|field| (&field.name, field.value.expose()));
                plain.chain(hidden).find(|(known, _)| *known == name).map_or("", |(_, value)| value)
            }
        }
    }

    /// Whether the server compares times in it with its clock.
    pub fn has_assertion(&self) -> bool {
        matches!(self.client.client_authentication, ClientAuthentication::Assertion { .. })
            || matches!(self.grant, Grant::JwtBearer { .. } | Grant::TokenExchange(_))
    }

    pub fn content_type(&self) -> &'static str {
        match &self.client.shape.body {
            Some(template) if template.is_json() => "application/json",
            _ => "application/x-www-form-urlencoded",
        }
    }

    /// The secrets in the request, which no message may repeat.
    pub fn secrets(&self) -> Vec<&Secret> {
        let client_secret = self.client.client_authentication.secret();
        let shape = &self.client.shape;
        let hidden = shape.headers.iter().chain(&shape.secret_params).map(|field| &field.value);
        // A short one would blot out innocent words.
        let hidden = hidden.filter(|value| value.expose().len() >= 4);
        let grant = self.grant.secrets().into_iter();
        grant.chain(client_secret.filter(|secret| !secret.is_empty())).chain(hidden).collect()
    }
}

impl TokenClient {
    /// The Authorization header's value, if the method uses one: Basic, of client_id and
    /// client_secret, each form-encoded first (RFC 6749 section 2.3.1).
    pub fn authorization(&self) -> Option<Secret> {
        let method = self.client_authentication.method();
        let client_secret =
            self.client_authentication.client_secret().filter(|_| method != AuthMethod::ClientSecretPost)?;
        let encoded = |text: &str| {
            Zeroizing::new(match method {
                AuthMethod::ClientSecretBasicRaw => text.to_owned(),
                _ => byte_serialize(text.as_bytes()).collect::<String>(),
            })
        };
        let (id, secret) = (encoded(&self.client_id), encoded(client_secret.expose()));
        let pair = Zeroizing::new([id.as_str(), ":", secret.as_str()].concat());
        let base64 = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        Some(Secret::new(["Basic ", base64.as_str()].concat()))
    }

    /// A request of this client to another endpoint of its server, such as revocation: headers and body.
    pub fn form(&self, params: &[(&str, &str)]) -> (Vec<(String, Secret)>, Secret) {
        let mut headers = vec![("content-type".to_owned(), Secret::new("application/x-www-form-urlencoded"))];
        headers.extend(self.authorization().map(|value| ("authorization".to_owned(), value)));
        headers.extend(self.shape.headers.iter().map(|field| (field.name.clone(), field.value.clone())));
        let len: usize = params.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        let mut form = Serializer::new(String::with_capacity(
            256 + 3 * (len + self.client_id.len() + self.params_len()),
        ));
        form.extend_pairs(params);
        self.append_authentication(&mut form);
        (headers, Secret::new(form.finish()))
    }

    /// With Basic nothing: some servers refuse two kinds of authentication (RFC 6749 section 2.3).
    fn append_authentication(&self, form: &mut Serializer<'_, String>) {
        match &self.client_authentication {
            ClientAuthentication::Secret { method: AuthMethod::ClientSecretPost, client_secret } => {
                form.append_pair("client_id", &self.client_id);
                form.append_pair("client_secret", client_secret.expose());
            }
            ClientAuthentication::Secret { .. } => {}
            // RFC 8705 section 2 wants the client_id as well.
            ClientAuthentication::None | ClientAuthentication::Tls { .. } => {
                // A grant that names its subject itself needs no client.
                if !self.client_id.is_empty() {
                    form.append_pair("client_id", &self.client_id);
                }
            }
            ClientAuthentication::Assertion { assertion, .. } => {
                form.append_pair("client_id", &self.client_id);
                form.append_pair("client_assertion_type", CLIENT_ASSERTION_TYPE);
                form.append_pair("client_assertion", assertion.expose());
            }
        }
    }

    /// A verdict is bound to this besides the grant: a change of endpoint, client_id,
    /// client_secret, method, scope or further parameters gives another fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut params = Serializer::new(String::new());
        self.append_params(&mut params);
        let params = params.finish();
        // An assertion differs from request to request; its key and a certificate do not.
        let lasting = match &self.client_authentication {
            ClientAuthentication::Assertion { key, .. } => key.to_string(),
            ClientAuthentication::Tls { certificate, .. } => certificate.fingerprint().to_string(),
            _ => String::new(),
        };
        let secret = self.client_authentication.client_secret().map(|secret| secret.expose().as_bytes());
        let parts: [&[u8]; 5] = [
            self.token_endpoint.as_str().as_bytes(),
            self.client_id.as_bytes(),
            secret.unwrap_or(lasting.as_bytes()),
            self.client_authentication.method().as_str().as_bytes(),
            params.as_bytes(),
        ];
        Fingerprint::of_all(parts.into_iter().chain(self.shape.parts()))
    }

    fn append_params(&self, form: &mut Serializer<'_, String>) {
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        form.extend_pairs(&self.extra_params);
    }

    fn params_len(&self) -> usize {
        let extra: usize = self.extra_params.iter().map(|(key, value)| key.len() + value.len() + 2).sum();
        let secret = self.client_authentication.secret().map_or(0, |secret| secret.expose().len() + 128);
        let hidden =
            self.shape.secret_params.iter().map(|field| field.name.len() + field.value.expose().len() + 2);
        extra + hidden.sum::<usize>() + secret + self.scope.as_ref().map_or(0, String::len)
    }
}

impl fmt::Debug for TokenClient {
    /// Without the parameters and the URL's query, which may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenClient")
            .field("host", &self.token_endpoint.host_str())
            .field("client_id", &self.client_id)
            .field("method", &self.client_authentication.method().as_str())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::oauth::request::*;

    fn client(client_authentication: ClientAuthentication) -> TokenClient {
        TokenClient {
            token_endpoint: "https://as.example/token".parse().unwrap(),
            client_id: "a b:c".to_owned(),
            client_authentication,
            scope: None,
            extra_params: Vec::new(),
            shape: Shape::default(),
        }
    }

    fn request(client: TokenClient) -> TokenRequest {
        TokenRequest { client: Arc::new(client), grant: Grant::RefreshToken(Secret::new("1//r&t")) }
    }

    fn secret() -> Secret {
        Secret::new("p%w ü")
    }

    #[test]
    fn a_public_client_sends_its_id() {
        let request = request(client(ClientAuthentication::None));
        let body = request.body();
        assert_eq!(body.expose(), "grant_type=refresh_token&refresh_token=1%2F%2Fr%26t&client_id=a+b%3Ac");
        assert_eq!(request.client.authorization(), None);
    }

    #[test]
    fn post_sends_id_and_secret_and_the_parameters_in_order() {
        let mut client = client(ClientAuthentication::Secret {
            method: AuthMethod::ClientSecretPost,
            client_secret: secret(),
        });
        client.scope = Some("openid mail".to_owned());
        client.extra_params =
            [("resource", "https://a"), ("resource", "https://b"), ("audience", "x")].map(pair).to_vec();
        let request = request(client);
        assert_eq!(
            request.body().expose(),
            "grant_type=refresh_token&refresh_token=1%2F%2Fr%26t&client_id=a+b%3Ac&client_secret=p%25w+%C3%BC\
             &scope=openid+mail&resource=https%3A%2F%2Fa&resource=https%3A%2F%2Fb&audience=x"
        );
        assert_eq!(request.client.authorization(), None);
    }

    #[test]
    fn basic_encodes_both_halves_and_keeps_them_out_of_the_body() {
        let request = request(client(ClientAuthentication::Secret {
            method: AuthMethod::ClientSecretBasic,
            client_secret: secret(),
        }));
        assert_eq!(request.body().expose(), "grant_type=refresh_token&refresh_token=1%2F%2Fr%26t");
        let header = request.client.authorization().unwrap();
        let pair = STANDARD.decode(header.expose().strip_prefix("Basic ").unwrap()).unwrap();
        assert_eq!(String::from_utf8(pair).unwrap(), "a+b%3Ac:p%25w+%C3%BC");
    }

    #[test]
    fn other_grants_have_their_own_parameters() {
        let grant = Grant::AuthorizationCode {
            code: Secret::new("c&1"),
            redirect_uri: "http://127.0.0.1:9/".into(),
            code_verifier: Secret::new("v"),
        };
        let mut client = client(ClientAuthentication::Secret {
            method: AuthMethod::ClientSecretPost,
            client_secret: secret(),
        });
        client.client_id = "id".to_owned();
        let body = |template: Option<&str>| {
            let mut client = client.clone();
            client.shape.body = template.map(|text| BodyTemplate::parse(text, &[]).unwrap());
            let request = TokenRequest { client: Arc::new(client), grant: grant.clone() };
            assert_eq!(request.secrets().len(), 3);
            request.body().expose().to_owned()
        };
        let params = "code=c%261&redirect_uri=http%3A%2F%2F127.0.0.1%3A9%2F&code_verifier=v";
        assert_eq!(
            body(None),
            format!("grant_type=authorization_code&{params}&client_id=id&client_secret=p%25w+%C3%BC")
        );
        assert_eq!(
            body(Some("grant_type={grant_type}&token={refresh_token}&client_key={client_id}")),
            format!("grant_type=authorization_code&client_key=id&{params}")
        );
        let json = r#"{{"grant_type": "{grant_type}", "refresh_token": "{refresh_token}"}}"#;
        let json: serde_json::Value = serde_json::from_str(&body(Some(json))).unwrap();
        let expected = serde_json::json!({
            "grant_type": "authorization_code", "code": "c&1", "redirect_uri": "http://127.0.0.1:9/",
            "code_verifier": "v",
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn each_setting_changes_the_fingerprint() {
        let base = client(ClientAuthentication::Secret {
            method: AuthMethod::ClientSecretBasic,
            client_secret: secret(),
        });
        let changes: [fn(&mut TokenClient); 6] = [
            |r| r.token_endpoint.set_path("/other"),
            |r| r.client_id.push('x'),
            |r| {
                r.client_authentication = ClientAuthentication::Secret {
                    method: AuthMethod::ClientSecretBasic,
                    client_secret: Secret::new("new"),
                }
            },
            |r| {
                r.client_authentication = ClientAuthentication::Secret {
                    method: AuthMethod::ClientSecretPost,
                    client_secret: secret(),
                }
            },
            |r| r.scope = Some(String::new()),
            |r| r.extra_params.push(pair(("audience", "x"))),
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut other = base.clone();
            change(&mut other);
            assert_ne!(other.fingerprint(), base.fingerprint(), "change {at}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut client = client(ClientAuthentication::Secret {
            method: AuthMethod::ClientSecretPost,
            client_secret: Secret::new("hidden"),
        });
        client.token_endpoint.set_query(Some("key=hidden"));
        client.extra_params.push(pair(("assertion", "hidden")));
        let text = format!("{:?}", request(client));
        assert!(!text.contains("hidden") && !text.contains("1//"), "{text}");
    }

    fn pair((key, value): (&str, &str)) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }
}
