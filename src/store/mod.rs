//! What an account keeps on disk.

pub mod lock;
