//! OAuth 2.0, RFC 6749: the request to a token endpoint, and the meaning of its answer.
//!
//! Pure: no I/O, no clock. A [`TokenRequest`] is the content of a POST; [`classify()`] turns its result,
//! be it a reply or a broken connection, into one [`Answer`].

pub mod answer;
pub mod assertion;
pub mod auth_method;
pub mod classify;
pub mod extract;
pub mod grant;
pub mod id_token;
pub mod meaning;
pub mod providers;
pub mod reply;
pub mod request;
pub mod retry_after;
pub mod shape;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub use crate::oauth::answer::Defect;
pub use crate::oauth::answer::{
    Answer, Doubt, ErrorReply, ExpiresInSource, ServerFailure, TokenFault, TokenResponse, Unavailable,
    Unclear, other_way,
};
pub use crate::oauth::auth_method::AuthMethod;
pub use crate::oauth::classify::{
    MAX_TOKEN_BYTES, ReplyContext, classify, error_of, fault_of, whole_seconds,
};
pub use crate::oauth::grant::{Grant, GrantType, TokenExchange};
pub use crate::oauth::id_token::{ExpectedClaims, Identity, check_id_token, is_issuer};
pub use crate::oauth::reply::{FailureKind, Reply, Sent, TransportFailure};
pub use crate::oauth::request::{ClientAuthentication, ClientCertificate, TokenClient, TokenRequest};
pub use crate::oauth::shape::{BodyTemplate, Field, Shape};
