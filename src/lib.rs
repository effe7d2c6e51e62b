//! zg-tokend keeps an OAuth 2.0 access token fresh in a file.
//!
//! The house has layers; each file uses only lower-numbered ones, and siblings do not import
//! each other. Pure layers do no I/O and read no clock.
//!
//! | layer | room | what is in it |
//! | --- | --- | --- |
//! | L0 | [`secret`] | values that are never shown, fingerprints that may be |
//! | L0 | [`clock`] | instants on two clocks; the only reader of a clock |
//! | L1 | [`child`] | a command's end and its output, with a deadline |
//! | L1 | [`config`] | the config file: strict keys, validated settings, errors with a caret. Pure but for reading it |
//! | L1 | [`durable`] | files: where one may be placed, atomic and durable replacement |
//! | L1 | [`oauth`] | RFC 6749 bytes in and out: the request, the reply, what it means. Pure |
//! | L2 | [`supervisor`] | the state machine of one account: what is remembered, when, what next. Pure |
//! | L3 | [`publish`] | the token file that readers read |
//! | L3 | [`secrets`] | refresh token and client secret, read from where the config says |
//! | L3 | [`store`] | the state of an account, the locks on it |
//! | L3 | [`transport`] | the token endpoint over HTTPS; discovery |
//! | L4 | [`demo`] | the embedded authorization server of `demo` and the tests |
//! | L4 | [`shell`] | performs what the core decides: `run` and its control socket, `once`, `status` |
//! | L5 | [`cli`], [`exit`] | arguments, the terminal's voice, exit codes |

#![forbid(unsafe_code)]

pub mod child;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod durable;
pub mod exit;
#[cfg(test)]
#[path = "../tests/it/common/golden.rs"]
mod golden;
pub mod oauth;
pub mod publish;
pub mod secret;
pub mod secrets;
pub mod shell;
pub mod store;
pub mod supervisor;
pub mod transport;
