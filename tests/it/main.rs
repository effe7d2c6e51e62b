//! Black-box tests of the built binary, and of the peers and the harness they rely on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![expect(unreachable_pub, reason = "pub marks what the harness offers to the tests")]

mod accounts;
mod ambiguity;
mod answers;
mod audiences;
mod booted;
mod certified;
mod check;
mod clocks;
mod common;
mod config;
mod containers;
mod control;
mod daemon;
mod demo;
mod expired;
mod faults;
#[cfg(feature = "fleet")]
mod fleet;
mod formats;
mod fuzz;
mod grants;
mod growth;
mod harness;
mod hooks;
mod hostile;
mod idle;
mod info;
mod init;
mod inputs;
mod layers;
mod lifetimes;
mod log;
mod login;
mod logins;
mod lost;
mod many;
mod messages;
mod monitoring;
mod network;
mod once;
mod outputs;
mod placement;
mod probe;
mod proxies;
mod push;
mod races;
mod readme;
mod refusals;
mod rejected;
mod seal;
mod secrets;
mod seeds;
mod servers;
mod sessions;
mod soak;
mod standby;
mod status;
mod suspend;
mod terminal;
mod threats;
mod token;
mod torture;
mod upgrades;
