//! Grants: what is exchanged for an access token, RFC 6749 section 1.3.

use std::fmt;

use form_urlencoded::Serializer;

use crate::secret::Secret;

/// One grant, ready to be sent. A new kind of grant is a variant here; how it is obtained is
/// account/client.rs's, whether it can be lost is the core's.
#[derive(Clone, PartialEq, Eq)]
pub enum Grant {
    /// The refresh token of a login, RFC 6749 section 6.
    RefreshToken(Secret),
}

impl Grant {
    /// The value of `grant_type`.
    pub fn grant_type(&self) -> &'static str {
        match self {
            Self::RefreshToken(_) => "refresh_token",
        }
    }

    /// Appends its parameters, `grant_type` first.
    pub(super) fn append(&self, form: &mut Serializer<'_, String>) {
        form.append_pair("grant_type", self.grant_type());
        match self {
            Self::RefreshToken(token) => form.append_pair("refresh_token", token.expose()),
        };
    }

    /// The secret in it, which no message may repeat.
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
