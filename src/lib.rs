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
//! | L5 | [`cli`], [`exit`] | arguments, terminal output, exit codes |

#![forbid(unsafe_code)]

mod account;
mod check;
pub mod cli;
mod clock;
mod config;
mod daemon;
mod demo;
mod files;
#[cfg(test)]
#[path = "../tests/it/common/golden.rs"]
mod golden;
mod hooks;
mod http;
mod message;
mod oauth;
mod probe;
mod problem;
mod process;
mod push;
mod redact;
mod refresh;
#[cfg(test)]
#[path = "../tests/it/common/regressions.rs"]
mod regressions;
mod runtime;
mod secret;
mod secrets;
mod signals;
mod sink;
mod status;
mod store;
mod timer;
mod workers;

/// The door for tests, benches and fuzz targets. Not an interface for anybody else.
#[doc(hidden)]
pub mod testing {
    pub mod account {
        pub use crate::config::{TokenFile, WriteMode};
    }
    pub mod clock {
        pub use crate::clock::{BootId, Clock, SystemClock, Timestamp, millis, monotonic};
    }
    pub mod config {
        pub use crate::config::{Environment, parse};
    }
    pub mod demo {
        pub use crate::demo::audit::{AuditEntry, AuditEvent, RevocationReason};
        pub use crate::demo::client::DemoClient;
        pub use crate::demo::faults::{Fault, Outage};
        pub use crate::demo::issuer::{ExpiresIn, Issuer, IssuerOptions};
        pub use crate::demo::message::DemoRequest;
        pub use crate::demo::server::{Plain, Server, Transport};
    }
    pub mod files {
        pub use crate::files::Missing;
    }
    pub mod oauth {
        pub use crate::oauth::{
            Answer, ClientAuthentication, FailureKind, Grant, MAX_TOKEN_BYTES, Reply, ReplyContext, Sent,
            TokenClient, TransportFailure, classify,
        };
    }
    pub mod problem {
        pub use crate::problem::{Class, Problem};
    }
    pub mod refresh {
        pub use crate::refresh::decide::{FileView, Inputs, Loaded, Trigger};
        pub use crate::refresh::outcome::Report;
        pub use crate::refresh::record::Record;
        pub use crate::refresh::{Action, Event, LOCK_PATIENCE, LockFailure, Policy, Refresher};
    }
    pub mod secret {
        pub use crate::secret::{Fingerprint, Secret};
    }
    pub mod store {
        pub use crate::store::state::{Stored, parse};
    }
}
