//! Grants, which a token endpoint exchanges for access tokens: RFC 6749 section 1.3.

use std::fmt;

use crate::secret::Secret;

/// The kinds of grants that an account can have; `grant_type` in the config.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GrantType {
    /// The refresh token of a login, RFC 6749 section 6.
    #[default]
    RefreshToken,
    /// The client's own name, RFC 6749 section 4.4.
    ClientCredentials,
    /// A signed assertion, RFC 7523 section 2.1.
    JwtBearer,
    /// Another token, RFC 8693.
    TokenExchange,
    /// Whatever the file of `google_credentials` holds.
    GoogleCredentials,
}

impl GrantType {
    /// The values of the key `grant_type`, and their URNs.
    pub const ALL: [(&str, Self); 6] = [
        ("refresh_token", Self::RefreshToken),
        ("client_credentials", Self::ClientCredentials),
        ("jwt-bearer", Self::JwtBearer),
        ("token-exchange", Self::TokenExchange),
        (JWT_BEARER, Self::JwtBearer),
        (TOKEN_EXCHANGE, Self::TokenExchange),
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::GoogleCredentials => "google_credentials",
            _ => Self::ALL.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name),
        }
    }

    /// Whether a person logs in, so that there is a refresh token that can be lost. All other grants are
    /// made anew for each request.
    pub fn has_login(self) -> bool {
        self == Self::RefreshToken
    }
}

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// A new kind of grant is a variant here. account/client.rs or login/ obtains it, and the core knows
/// whether it can be lost.
#[derive(Clone, PartialEq, Eq)]
pub enum Grant {
    /// The refresh token of a login, RFC 6749 section 6.
    RefreshToken(Secret),
    /// The code that the browser brought, RFC 6749 section 4.1.3 and RFC 7636 section 4.5.
    AuthorizationCode { code: Secret, redirect_uri: String, code_verifier: Secret },
    /// The code that a device polls with, RFC 8628 section 3.4.
    DeviceCode { device_code: Secret, code_verifier: Secret },
    /// The client asks for itself, RFC 6749 section 4.4.2.
    ClientCredentials,
    /// RFC 7523 section 2.1.
    JwtBearer { assertion: Secret },
    /// RFC 8693 section 2.1.
    TokenExchange(Box<TokenExchange>),
}

/// The parameters of a token exchange, RFC 8693 section 2.1. A type is a URN.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenExchange {
    pub subject_token: Secret,
    pub subject_token_type: String,
    /// With its type.
    pub actor_token: Option<(Secret, String)>,
    pub requested_token_type: Option<String>,
}

impl Grant {
    pub fn grant_type(&self) -> &'static str {
        match self {
            Self::RefreshToken(_) => "refresh_token",
            Self::AuthorizationCode { .. } => "authorization_code",
            Self::DeviceCode { .. } => "urn:ietf:params:oauth:grant-type:device_code",
            Self::ClientCredentials => "client_credentials",
            Self::JwtBearer { .. } => JWT_BEARER,
            Self::TokenExchange(_) => TOKEN_EXCHANGE,
        }
    }

    /// The parameters beside `grant_type`.
    pub(super) fn params(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::RefreshToken(token) => vec![("refresh_token", token.expose())],
            Self::AuthorizationCode { code, redirect_uri, code_verifier } => vec![
                ("code", code.expose()),
                ("redirect_uri", redirect_uri),
                ("code_verifier", code_verifier.expose()),
            ],
            Self::DeviceCode { device_code, code_verifier } => {
                vec![("device_code", device_code.expose()), ("code_verifier", code_verifier.expose())]
            }
            Self::ClientCredentials => Vec::new(),
            Self::JwtBearer { assertion } => vec![("assertion", assertion.expose())],
            Self::TokenExchange(exchange) => {
                let mut params = vec![
                    ("subject_token", exchange.subject_token.expose()),
                    ("subject_token_type", &*exchange.subject_token_type),
                ];
                if let Some((token, kind)) = &exchange.actor_token {
                    params.extend([("actor_token", token.expose()), ("actor_token_type", kind)]);
                }
                params
                    .extend(exchange.requested_token_type.as_deref().map(|it| ("requested_token_type", it)));
                params
            }
        }
    }

    /// The secrets in the grant, which no message may repeat.
    pub fn secrets(&self) -> Vec<&Secret> {
        match self {
            Self::RefreshToken(token) => vec![token],
            Self::AuthorizationCode { code, code_verifier, .. } => vec![code, code_verifier],
            Self::DeviceCode { device_code, code_verifier } => vec![device_code, code_verifier],
            Self::ClientCredentials => Vec::new(),
            Self::JwtBearer { assertion } => vec![assertion],
            Self::TokenExchange(exchange) => {
                let actor = exchange.actor_token.as_ref().map(|(token, _)| token);
                std::iter::once(&exchange.subject_token).chain(actor).collect()
            }
        }
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.grant_type())
    }
}
