//! The embedded OAuth 2.0 authorization server of `zg-tokend demo`, which the tests use too.
//!
//! [`issuer`] decides and does no I/O: time and randomness come in as arguments, so that it
//! also runs in virtual time. [`server`] puts it on a loopback port, where [`faults`] can be
//! scripted. [`audit`] is the record of what clients did, for assertions.
//!
//! It is a test peer. `/seed`, `/faults` and `/audit` ask for no credentials, and nothing
//! outlives the process: never let it guard anything.

pub mod audit;
pub mod body;
pub mod client;
pub mod code;
pub mod consent;
pub mod faults;
pub mod issuer;
pub mod message;
pub mod server;
