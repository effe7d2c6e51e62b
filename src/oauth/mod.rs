//! RFC 6749 in bytes: the refresh request as it is sent, and what came of it.
//!
//! Pure: no I/O, no clock. [`RefreshRequest`] says what to POST; [`classify()`] turns whatever
//! came back, down to a broken connection, into one [`Answer`].

mod answer;
mod classify;
mod codes;
mod members;
mod reply;
mod request;
mod retry_after;
mod scrub;

#[cfg(test)]
mod tests;

pub use answer::{
    Answer, Defect, Doubt, ErrorReply, ExpiresInSource, Grant, Outage, TokenFault, Unavailable, Unclear,
};
pub use classify::{Context, MAX_TOKEN_BYTES, classify, fault_of, whole_seconds};
pub use reply::{FailureKind, Reply, Sent, TransportFailure};
pub use request::{ClientAuthentication, RefreshRequest};
pub use scrub::scrub;
