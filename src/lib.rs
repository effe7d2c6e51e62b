//! zg-tokend keeps an OAuth 2.0 access token fresh in a file.
//!
//! The house has layers; each file uses only lower-numbered ones, and siblings do not import
//! each other. Pure layers do no I/O and read no clock.
//!
//! | layer | room | what is in it |
//! | --- | --- | --- |
//! | L0 | [`secret`] | values that are never shown, fingerprints that may be |
//! | L0 | [`clock`] | instants on two clocks; the only reader of a clock |
//! | L4 | [`demo`] | the embedded authorization server, for `demo` and for the tests |

#![forbid(unsafe_code)]

pub mod clock;
pub mod demo;
pub mod secret;
pub mod store;
