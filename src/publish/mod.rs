//! Where the access token goes once it is safe.

pub mod hooks;
pub mod info;
pub mod push;
pub mod token_file;
