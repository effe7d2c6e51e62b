//! The files that an account keeps on disk.

pub mod discovery;
pub mod lock;
pub mod note;
pub mod state;
