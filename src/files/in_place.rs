//! Writing into the file that is there, for a file that is a mount point of its own.

use std::fs::File;

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, fstat, fsync, ftruncate, openat};
use rustix::io::Errno;

use crate::files::error::{FileError, Step};
use crate::files::interrupt::uninterrupted;
use crate::files::mark;
use crate::files::path::Target;
use crate::files::read::irregular;
use crate::files::replace::{Attributes, write_all_at};

/// An existing file, open to be overwritten.
///
/// A reader in the middle of the write sees new bytes and then old ones, and a crash can leave the
/// file so. That is why it needs `write = "in-place"`.
#[derive(Debug)]
pub struct InPlace {
    target: Target,
    file: File,
}

impl InPlace {
    /// Opens the file, gives it its mode and owner, and reserves room for `len` bytes where the
    /// file system can. `None` if there is no file yet: a [`Temporary`](crate::files::Temporary) can create it.
    pub fn open(target: Target, attributes: Attributes, len: u64) -> Result<Option<Self>, FileError> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match uninterrupted(|| openat(target.directory(), target.name(), flags, Mode::empty())) {
            Err(Errno::NOENT) => return Ok(None),
            opened => File::from(opened.map_err(|error| target.failed(Step::Open, error))?),
        };
        // Before anything is changed: a device or FIFO may have taken the file's place.
        let stat = target.attempt(Step::Open, || fstat(&file))?;
        if let Some(kind) = irregular(&stat) {
            return Err(FileError::NotAFile { path: target.path(), kind });
        }
        attributes.ensure(&file, &target)?;
        match uninterrupted(|| fallocate(&file, FallocateFlags::KEEP_SIZE, 0, len)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            done => done.map_err(|error| target.failed(Step::Reserve, error))?,
        }
        Ok(Some(Self { target, file }))
    }

    /// Notes something on it, where the file system can.
    pub fn mark(&self, note: &str) {
        mark::set(&self.file, note);
    }

    /// Overwrites the file with `bytes`: one write, then the cut to length, then fsync(2).
    pub fn write(self, bytes: &[u8]) -> Result<(), FileError> {
        let len = bytes.len() as u64;
        write_all_at(&self.file, bytes, 0).map_err(|error| self.target.failed(Step::Write, error))?;
        // Always: it also gives back what was reserved beyond the end.
        self.target.attempt(Step::Write, || ftruncate(&self.file, len))?;
        self.target.attempt(Step::Sync, || fsync(&self.file))
    }
}
