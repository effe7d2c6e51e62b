//! Several machines with one login: a real PostgreSQL, and processes with directories of their own as hosts.

mod certified;
mod changed;
mod commits;
mod failover;
mod hosts;
mod kill;
mod listening;
mod many;
mod outages;
mod pooler;
mod pooling;
mod postgres;
mod protected;
mod proxy;
mod readers;
mod resting;
mod rig;
mod sharing;
mod unclear;
