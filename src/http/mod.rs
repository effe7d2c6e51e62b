//! The HTTP client: one request, one complete reply or one failure, before a deadline.
//!
//! Nothing is sent twice here. Redirects are not followed, requests are not retried, connections are
//! not kept: the refresh layer, which knows the state of the refresh token, decides what is resent.

pub mod client;
mod connection;
pub mod discovery;
mod encoding;
pub mod failure;
pub mod proxy;
pub mod roots;
#[cfg(test)]
#[path = "../../tests/it/common/tls_server.rs"]
pub mod server;
mod tunnel;
mod verifier;

#[cfg(test)]
mod tests;

use url::Url;

pub use crate::http::client::{HttpEndpoint, HttpOptions};

/// A URL as messages show it: a query may hold a key.
pub fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.into()
}
