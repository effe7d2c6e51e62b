//! zg-tokend keeps an OAuth 2.0 access token fresh in a file.
//!
//! The modules form layers; each uses only lower ones, and siblings do not import each other.
//! `tests/it/layers.rs` enforces this, and docs/DESIGN.md explains it. From high to low:
//!
//! | module | purpose |
//! | --- | --- |
//! | `cli` | arguments, one file a command, terminal output, log, exit codes |
//! | `daemon` | `run`: the loop, systemd, the control socket |
//! | `check`, `status` | the commands of these names |
//! | `hooks`, `login`, `probe`, `push` | features beside the refresh: rules, effects and notes |
//! | `account` | one account: performs the core's actions; its files, its client |
//! | `http`, `message`, `secrets`, `store` | the network, the sentences, the secrets, the state |
//! | `config` | the config file: one table of keys, errors with a caret |
//! | `files`, `refresh` | safe and durable files; the core, which is pure |
//! | `demo`, `oauth`, `process`, `signing`, `timer`, `workers` | the demo server; RFC 6749, pure; children; signatures; timers; threads |
//! | `clock`, `redact`, `runtime`, `signals`, `sink`, `template` | clocks, redaction, event loop, signals, the log's output, templates |
//! | `problem`, `secret` | failures as users meet them; values that are never shown |

#![forbid(unsafe_code)]

mod account;
mod check;
mod cipher;
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
mod login;
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
mod signing;
mod sink;
mod status;
mod store;
mod template;
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
            Answer, ClientAuthentication, FailureKind, Grant, GrantType, MAX_TOKEN_BYTES, Reply,
            ReplyContext, Sent, Shape, TokenClient, TransportFailure, classify,
        };
    }
    pub mod problem {
        pub use crate::problem::{Class, Problem};
    }
    pub mod refresh {
        pub use crate::refresh::decide::{FileView, Inputs, Loaded, Trigger};
        pub use crate::refresh::fleet::{
            Ask, CLAIM_LIFE, Fence, LoginRow, RowAttempt, RowContent, RowReply, RowResult, RowView,
        };
        pub use crate::refresh::outcome::Report;
        pub use crate::refresh::record::Record;
        pub use crate::refresh::replica::{Claim, Replica, Role};
        pub use crate::refresh::{
            Action, Event, FleetPolicy, LOCK_PATIENCE, LockFailure, LoginHint, Policy, Refresher, Terms,
        };
    }
    pub mod secret {
        pub use crate::secret::{Fingerprint, Secret};
    }
    pub mod store {
        pub use crate::store::document::{Stored, parse};
    }
}
