//! Safe paths, and atomic and durable replacement of files.
//!
//! This prevents: a reader that finds the file torn, empty or missing; a file whose mode or
//! owner is wrong for an instant; a replacement that power loss undoes after it was reported;
//! a directory or link swapped between check and use, since a path is resolved once and everything
//! after works on the open directory ([`Target`]).
//!
//! This does not prevent: anything that root or the owner does; a disk that does not sync; and, with
//! [`InPlace`] only, a reader in the middle of the write.

pub mod error;
pub mod in_place;
mod interrupt;
pub mod links;
pub mod mark;
pub mod mount;
pub mod owner;
pub mod path;
pub mod read;
pub mod replace;
pub mod shared;
pub mod watch;

pub use crate::files::error::{FileError, FileWarning, PlaceError, Step};
pub use crate::files::in_place::InPlace;
pub(crate) use crate::files::interrupt::uninterrupted;
pub use crate::files::mount::is_mounted;
pub use crate::files::path::{Directory, Missing, Readers, Rules, Target};
pub use crate::files::read::Contents;
pub use crate::files::replace::{Attributes, Temporary};

#[cfg(test)]
mod tests;
