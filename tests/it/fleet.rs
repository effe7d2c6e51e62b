//! Several machines with one login: a real PostgreSQL, and processes with directories of their own as hosts.

mod commits;
mod failover;
mod hosts;
mod outages;
mod pooler;
mod postgres;
mod proxy;
mod readers;
mod rig;
mod sharing;
