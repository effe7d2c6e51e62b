//! The methods of client authentication.

/// By their registered names (RFC 7591 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// HTTP Basic, RFC 6749 section 2.3.1.
    ClientSecretBasic,
    /// In the request body, RFC 6749 section 2.3.1.
    ClientSecretPost,
    /// A public client sends its client_id only.
    None,
}

impl AuthMethod {
    pub const ALL: [Self; 3] = [Self::ClientSecretBasic, Self::ClientSecretPost, Self::None];

    /// The registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::None => "none",
        }
    }
}
