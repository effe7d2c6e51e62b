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
