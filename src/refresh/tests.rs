//! Tests of one account in a simulated world: a clock, a disk, a token file and scripted answers.

mod database;
mod disk;
mod events;
mod expiry;
mod failures;
mod fleet;
mod fleet_logins;
mod forced;
mod lifetimes;
mod logins;
mod machines;
mod rejections;
mod times;
pub mod world;
