//! Grants, which a token endpoint exchanges for access tokens: RFC 6749 section 1.3.

use std::fmt;

use form_urlencoded::Serializer;

use crate::secret::Secret;

/// A new kind of grant is a variant here. account/client.rs obtains it, and the core knows whether it
/// can be lost.
#[derive(Clone, PartialEq, Eq)]
pub enum Grant {
    /// The refresh token of a login, RFC 6749 section 6.
    RefreshToken(Secret),
}

impl Grant {
    pub fn grant_type(&self) -> &'static str {
        match self {
            Self::RefreshToken(_) => "refresh_token",
        }
    }

    /// Appends the parameters, `grant_type` first.
    pub(super) fn append(&self, form: &mut Serializer<'_, String>) {
        form.append_pair("grant_type", self.grant_type());
        match self {
            Self::RefreshToken(token) => form.append_pair("refresh_token", token.expose()),
        };
    }

    /// The secret in the grant, which no message may repeat.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::RefreshToken(token) => token,
        }
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.grant_type())
    }
}
