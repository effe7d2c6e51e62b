//! A temporary file beside its target, and the rename that makes it the target.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use fs4::FileExt;
use rustix::fs::{
    AtFlags, Dir, FallocateFlags, FlockOperation, Gid, Mode, OFlags, Stat, Uid, fallocate, fchmod, fchown,
    flock, fstat, fsync, ftruncate, openat, renameat, unlinkat,
};
use rustix::io::{Errno, pwrite};

use crate::files::error::{FileError, Step};
use crate::files::interrupt::uninterrupted;
use crate::files::mark;
use crate::files::path::{Directory, PREFIX, Target, sync_directory};
use crate::files::read::irregular;

/// The end of the names of temporaries, after [`PREFIX`] and sixteen hexadecimal digits. The name of
/// the target may have 255 bytes, which leaves no room for more.
const SUFFIX: &str = ".tmp";

/// How many names are tried. With 64 random bits a second one is needed only if a sweep runs in the
/// instant of creation.
const MAX_NAMES: u32 = 8;

/// Written where there is no fallocate(2): few calls, little memory.
const ZEROS: [u8; 4096] = [0; 4096];

/// Mode and owner of the finished file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, whatever the umask.
    pub mode: u32,
    /// The owner; unset, the effective user.
    pub owner: Option<u32>,
    /// The group; unset, what the system gives.
    pub group: Option<u32>,
}

impl Attributes {
    /// 0600, ours.
    pub const PRIVATE: Self = Self { mode: 0o600, owner: None, group: None };

    fn matches(&self, stat: &Stat) -> bool {
        stat.st_mode & 0o7777 == self.mode
            && self.owner.is_none_or(|owner| owner == stat.st_uid)
            && self.group.is_none_or(|group| group == stat.st_gid)
    }

    /// Sets them on an open file, and checks that it has them.
    pub(super) fn apply(&self, file: &File, target: &Target) -> Result<Stat, FileError> {
        if self.owner.is_some() || self.group.is_some() {
            // Before the mode: else members of our group could open the file in between, and read it
            // later.
            let (owner, group) = (self.owner.map(Uid::from_raw), self.group.map(Gid::from_raw));
            target.attempt(Step::Own, || fchown(file, owner, group))?;
        }
        target.attempt(Step::Chmod, || fchmod(file, Mode::from_raw_mode(self.mode)))?;
        let stat = target.attempt(Step::Chmod, || fstat(file))?;
        if self.matches(&stat) {
            return Ok(stat);
        }
        let describe = |mode: u32, owner: u32, group: u32| format!("mode {mode:04o}, owner {owner}:{group}");
        Err(FileError::AttributesLost {
            path: target.path(),
            wanted: describe(self.mode, self.owner.unwrap_or(stat.st_uid), self.group.unwrap_or(stat.st_gid)),
            found: describe(stat.st_mode & 0o7777, stat.st_uid, stat.st_gid),
        })
    }

    /// The same, if the file does not have them (any more).
    pub(super) fn ensure(&self, file: &File, target: &Target) -> Result<Stat, FileError> {
        let stat = target.attempt(Step::Chmod, || fstat(file))?;
        if self.matches(&stat) { Ok(stat) } else { self.apply(file, target) }
    }
}

/// A new version of a file. Dropped before [`Temporary::commit`], it is removed,
/// and the target is as it was.
#[derive(Debug)]
pub struct Temporary {
    target: Target,
    attributes: Attributes,
    /// Locked as long as it is open, so that no sweep removes it. Not a process id in the name: it
    /// means nothing in another container.
    file: File,
    name: String,
    /// Its length before anything was written.
    reserved: u64,
    written: u64,
    committed: bool,
}

impl Temporary {
    /// Creates an empty file beside the target, with its final mode and owner.
    pub fn create(target: &Target, attributes: Attributes) -> Result<Self, FileError> {
        // RDWR, as flock(2) over NFS wants it.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..MAX_NAMES {
            let random = getrandom::u64()
                .map_err(|error| target.failed(Step::Create, std::io::Error::other(error)))?;
            let name = format!("{PREFIX}{random:016x}{SUFFIX}");
            let mode = Mode::RUSR | Mode::WUSR;
            let file = match uninterrupted(|| openat(target.directory(), &name, flags, mode)) {
                Err(Errno::EXIST) => continue,
                opened => opened.map_err(|error| target.failed(Step::Create, error))?,
            };
            let temporary = Self {
                target: target.clone(),
                attributes,
                file: file.into(),
                name,
                reserved: 0,
                written: 0,
                committed: false,
            };
            // A sweep may find it before it is locked, or even remove it: then another name.
            let swept = match uninterrupted(|| flock(&temporary.file, FlockOperation::NonBlockingLockShared))
            {
                // A file system without locks is never swept.
                Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => false,
                Err(Errno::WOULDBLOCK) => true,
                // Unlocked, the next sweep could remove it after the request was made.
                Err(error) => return Err(target.failed(Step::Create, error)),
            };
            let stat = attributes.apply(&temporary.file, target)?;
            if !swept && stat.st_nlink > 0 {
                return Ok(temporary);
            }
        }
        Err(target.failed(Step::Create, Errno::EXIST))
    }

    /// Makes sure that `len` bytes can be written; to be called before any byte is.
    pub fn reserve(&mut self, len: u64) -> Result<(), FileError> {
        match uninterrupted(|| fallocate(&self.file, FallocateFlags::empty(), 0, len)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let mut done = 0;
                while done < len {
                    let zeros = &ZEROS[..ZEROS.len().min((len - done) as usize)];
                    self.write_at(zeros, done, Step::Reserve)?;
                    done += zeros.len() as u64;
                }
            }
            done => done.map_err(|error| self.target.failed(Step::Reserve, error))?,
        }
        self.reserved = len;
        Ok(())
    }

    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.write_at(bytes, self.written, Step::Write)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Notes something on it, where the file system can.
    pub fn mark(&self, note: &str) {
        mark::set(&self.file, note);
    }

    fn write_at(&self, bytes: &[u8], offset: u64, step: Step) -> Result<(), FileError> {
        write_all_at(&self.file, bytes, offset).map_err(|error| self.target.failed(step, error))
    }

    /// Makes it the target, durably. On an error the target is as it was, unless only the fsync(2)
    /// of the directory failed.
    pub fn commit(mut self) -> Result<(), FileError> {
        let target = &self.target;
        if self.reserved > self.written {
            target.attempt(Step::Write, || ftruncate(&self.file, self.written))?;
        }
        let stat = self.attributes.ensure(&self.file, target)?;
        if stat.st_nlink == 0 {
            return Err(FileError::Vanished { path: target.path() });
        }
        target.attempt(Step::Sync, || fsync(&self.file))?;
        let directory = target.directory();
        target.attempt(Step::Replace, || renameat(directory, &self.name, directory, target.name()))?;
        self.committed = true;
        sync_directory(directory.as_fd()).map_err(|error| self.target.failed(Step::SyncDirectory, error))
    }
}

impl Target {
    /// Removes the file, durably. No file is no error.
    pub fn remove(&self) -> Result<(), FileError> {
        match uninterrupted(|| unlinkat(self.directory(), self.name(), AtFlags::empty())) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(self.failed(Step::Remove, error)),
        }
        sync_directory(self.directory().as_fd()).map_err(|error| self.failed(Step::SyncDirectory, error))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.committed {
            // If this fails, a later sweep removes it.
            let _ = uninterrupted(|| unlinkat(self.target.directory(), &self.name, AtFlags::empty()));
        }
    }
}

/// pwrite(2) until everything is written.
pub(super) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let count = uninterrupted(|| pwrite(file, bytes, offset))?;
        if count == 0 {
            return Err(Errno::IO);
        }
        bytes = &bytes[count..];
        offset += count as u64;
    }
    Ok(())
}

impl Directory {
    /// Removes temporaries that killed processes left here, and returns their number. Only those of
    /// the effective user or of `owner` that no process has open: so it is safe beside other writers.
    /// One that cannot be removed stays.
    pub fn sweep(&self, owner: Option<u32>) -> Result<usize, FileError> {
        let failed = |error: Errno| FileError::Io {
            step: Step::Sweep,
            path: self.path().to_owned(),
            source: error.into(),
        };
        let mut removed = 0;
        for entry in Dir::read_from(self).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name.starts_with(PREFIX.as_bytes()) && name.ends_with(SUFFIX.as_bytes()) {
                removed += usize::from(self.sweep_one(OsStr::from_bytes(name), owner).is_some());
            }
        }
        Ok(removed)
    }

    fn sweep_one(&self, name: &OsStr, owner: Option<u32>) -> Option<()> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = |access| uninterrupted(|| openat(self, name, flags | access, Mode::empty()));
        // RDWR, as flock(2) over NFS wants it; a file of mode 0440 can still be opened to read.
        let file = File::from(open(OFlags::RDWR).or_else(|_| open(OFlags::RDONLY)).ok()?);
        let stat = uninterrupted(|| fstat(&file)).ok()?;
        let ours = stat.st_uid == rustix::process::geteuid().as_raw() || Some(stat.st_uid) == owner;
        if !ours || irregular(&stat).is_some() {
            return None;
        }
        FileExt::try_lock(&file).ok()?;
        uninterrupted(|| unlinkat(self, name, AtFlags::empty())).ok()
    }
}
