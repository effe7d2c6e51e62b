//! The way to the token endpoint: one POST, one complete reply or one failure, before a deadline.
//!
//! Nothing is sent twice here. Redirects are not followed, requests are not retried,
//! connections are not kept: what may be resent is decided where the refresh token's state is
//! known.

mod client;
pub mod discovery;
mod environment;
mod failure;
pub(crate) mod roots;

#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

pub use client::{HttpEndpoint, Options};

use crate::oauth::{RefreshRequest, Reply, TransportFailure};

/// Something that takes a refresh request to its token endpoint.
pub trait TokenEndpoint {
    /// Sends the request once. A reply of any status is `Ok`; the failure tells whether the
    /// server may have seen the request.
    fn post(&self, request: &RefreshRequest) -> impl Future<Output = Result<Reply, TransportFailure>>;
}
