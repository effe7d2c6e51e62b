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
    /// A JWT that the client has signed, RFC 7523 section 2.2.
    PrivateKeyJwt,
    /// A certificate in TLS, RFC 8705 section 2.1.
    TlsClientAuth,
    /// The same, of a certificate that the client has registered, RFC 8705 section 2.2.
    SelfSignedTlsClientAuth,
}

impl AuthMethod {
    pub const ALL: [Self; 7] = [
        Self::ClientSecretBasic,
        Self::ClientSecretPost,
        Self::None,
        Self::ClientSecretBasicRaw,
        Self::PrivateKeyJwt,
        Self::TlsClientAuth,
        Self::SelfSignedTlsClientAuth,
    ];

    /// The registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretBasicRaw => "client_secret_basic_raw",
            Self::ClientSecretPost => "client_secret_post",
            Self::None => "none",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::TlsClientAuth => "tls_client_auth",
            Self::SelfSignedTlsClientAuth => "self_signed_tls_client_auth",
        }
    }
}
