//! Grants, which a token endpoint exchanges for access tokens: RFC 6749 section 1.3.

use std::fmt;

use crate::secret::Secret;

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
}

impl Grant {
    pub fn grant_type(&self) -> &'static str {
        match self {
            Self::RefreshToken(_) => "refresh_token",
            Self::AuthorizationCode { .. } => "authorization_code",
            Self::DeviceCode { .. } => "urn:ietf:params:oauth:grant-type:device_code",
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
        }
    }

    /// The secrets in the grant, which no message may repeat.
    pub fn secrets(&self) -> Vec<&Secret> {
        match self {
            Self::RefreshToken(token) => vec![token],
            Self::AuthorizationCode { code, code_verifier, .. } => vec![code, code_verifier],
            Self::DeviceCode { device_code, code_verifier } => vec![device_code, code_verifier],
        }
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.grant_type())
    }
}
