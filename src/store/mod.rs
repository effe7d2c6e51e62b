//! What an account keeps on disk.

pub mod discovery;
pub mod last_pass;
pub mod lock;
pub mod probed;
pub mod pushed;
pub mod state;
pub mod told;
