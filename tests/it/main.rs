//! Black-box tests of the built binary, and of the peers and the harness they rely on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![expect(unreachable_pub, reason = "pub marks what the harness offers to the tests")]

mod ambiguity;
mod booted;
mod certified;
mod changes;
mod check;
mod clocks;
mod common;
mod config;
mod control;
mod demo;
mod expired;
mod faults;
mod fuzz;
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
mod many;
mod monitoring;
mod network;
mod once;
mod peers;
mod placement;
mod probe;
mod push;
mod races;
mod readme;
mod refusals;
mod rejected;
mod run;
mod secrets;
mod seeds;
mod soak;
mod status;
mod suspend;
mod terminal;
mod token;
mod torture;
mod upgrades;
mod views;
mod voice;
