//! Files that outlive crashes: where one may be placed, and how it is replaced.
//!
//! What this prevents: a reader that finds the file torn, empty or missing; a file whose mode or
//! owner is wrong for an instant; a replacement that power loss undoes after it was reported;
//! a directory or link swapped between the check and the use, since a path is walked once and
//! everything after works on the open directory ([`Target`]).
//!
//! What it does not prevent: anything root or the owner does; a lying disk; and, with
//! [`InPlace`] only, a reader that looks in the middle of the write.

pub mod error;
pub mod in_place;
pub mod links;
pub mod mount;
pub mod owner;
pub mod path;
pub mod read;
pub mod replace;
pub mod watch;

use rustix::io::Errno;

pub use crate::files::error::{FileError, FileWarning, PlaceError, Step};
pub use crate::files::in_place::InPlace;
pub use crate::files::mount::is_mounted;
pub use crate::files::path::{Contents, Directory, Missing, Rules, Target};
pub use crate::files::replace::{Attributes, Temporary};

/// How often a call is made again that a signal interrupted. Signals come singly; a call that is
/// interrupted a hundred times running is broken, and an endless loop would hide that.
const MAX_INTERRUPTIONS: u32 = 100;

/// Makes a system call again when a signal interrupted it.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    for _ in 0..MAX_INTERRUPTIONS {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
    Err(Errno::INTR)
}

#[cfg(test)]
mod tests;
