//! Several machines with one login: a real PostgreSQL, and processes with directories of their own as hosts.

mod pooler;
mod postgres;
mod proxy;
mod rig;
