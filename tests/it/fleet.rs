//! Several machines with one login: a real PostgreSQL, and processes with directories of their own as hosts.

mod certified;
mod commits;
mod failover;
mod hosts;
mod kill;
mod many;
mod outages;
mod pooler;
mod pooling;
mod postgres;
mod proxy;
mod readers;
mod resting;
mod rig;
mod sharing;
mod unclear;
