//! The methods of client authentication.

/// By their registered names (RFC 7591 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// HTTP Basic, RFC 6749 section 2.3.1.
    ClientSecretBasic,
    /// HTTP Basic of id and secret as they are, for servers that do not decode what section 2.3.1
    /// has encoded. No registered name.
    ClientSecretBasicRaw,
    /// In the request body, RFC 6749 section 2.3.1.
    ClientSecretPost,
    /// A public client sends its client_id only.
    None,
}

impl AuthMethod {
    pub const ALL: [Self; 4] =
        [Self::ClientSecretBasic, Self::ClientSecretPost, Self::None, Self::ClientSecretBasicRaw];

    /// The registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretBasicRaw => "client_secret_basic_raw",
            Self::ClientSecretPost => "client_secret_post",
            Self::None => "none",
        }
    }
}
