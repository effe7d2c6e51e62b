//! RFC 6749 in bytes: the request to a token endpoint, and what its answer means.
//!
//! Pure: no I/O, no clock. [`TokenRequest`] says what to POST; [`classify()`] turns whatever
//! came back, down to a broken connection, into one [`Answer`].

pub mod answer;
pub mod auth_method;
pub mod classify;
pub mod extract;
pub mod grant;
pub mod meaning;
pub mod providers;
pub mod reply;
pub mod request;
pub mod retry_after;
pub mod shape;

#[cfg(test)]
mod tests;

pub use crate::oauth::answer::{Answer, ErrorReply, ExpiresInSource, TokenFault, TokenResponse};
#[cfg(test)]
pub use crate::oauth::answer::{Defect, Doubt, ServerFailure, Unavailable, Unclear};
pub use crate::oauth::auth_method::AuthMethod;
pub use crate::oauth::classify::{MAX_TOKEN_BYTES, ReplyContext, classify, fault_of, whole_seconds};
pub use crate::oauth::grant::Grant;
pub use crate::oauth::reply::{FailureKind, Reply, Sent, TransportFailure};
pub use crate::oauth::request::{ClientAuthentication, TokenClient, TokenRequest};
pub use crate::oauth::shape::{BodyTemplate, Field, Shape};
