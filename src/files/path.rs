//! Resolves a path to an open directory and a name in it.
//!
//! 1. Make the path absolute, and open `/`.
//! 2. Take the next component. Open it as a directory, relative to the handle of the one before.
//! 3. If it is missing, create it where the rules allow that, durably; else give up.
//! 4. If it is a symlink, check its owner, read its text on the same handle, and put the components
//!    of the text before those that are left. After 40 symlinks, give up.
//! 5. Check owner and mode of the directory, on its handle.
//! 6. When only the file's name is left: if it is a symlink, follow it as in 4; else check that it
//!    is a regular file (or missing), its owner, and that it is no mount point.
//! 7. Open the directory again, so that it can be synced and locked.
//!
//! No path is looked up twice: what was checked cannot be swapped before it is used.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, chmodat, fchmod, fchown, fstat, fsync, mkdirat, openat,
    readlinkat, statat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::files::error::{FileError, FileWarning, PlaceError, Step};
use crate::files::interrupt::uninterrupted;
use crate::files::links::MAX_LINKS;
use crate::files::read::{Contents, irregular};
use crate::files::{mount, owner};

/// How the names of our temporaries begin.
pub(super) const PREFIX: &str = ".zg-tokend-";

/// A directory handle for opening what is below.
const PASSING: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory handle that can be read, synced and locked.
const STAYING: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The rule for directories that do not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Refuse the path.
    Refuse,
    /// Create the last one, 0700 or as the rules say, and give it to the owner in the rules. If one
    /// further up is missing, more likely a disk is not mounted.
    CreateLast,
    /// Create them all, in the same way.
    CreateAll,
}

/// The rules for a path.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The user who may own directories and the file, beside root and the effective user.
    pub owner: Option<u32>,
    /// About missing directories. Those that a symlink leads to are never created.
    pub missing: Missing,
    /// Whether the file is written in place, and may be a mount point.
    pub in_place: bool,
    /// The readers of the file, who must be able to enter the directories that are created for it.
    pub readers: Readers,
}

impl Rules {
    /// For what is ours alone.
    pub fn private(missing: Missing) -> Self {
        Self { owner: None, missing, in_place: false, readers: Readers::default() }
    }
}

/// The users beside the owner who may enter a new directory. Nobody can list it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readers {
    /// Members of the directory's group.
    pub group: bool,
    /// The group; unset, what the system gives.
    pub group_id: Option<u32>,
    /// Everybody.
    pub all: bool,
}

impl Readers {
    fn mode(self) -> Mode {
        let mut mode = Mode::RWXU;
        mode.set(Mode::XGRP, self.group);
        mode.set(Mode::XOTH, self.all);
        mode
    }
}

/// An open directory whose path was checked.
#[derive(Debug)]
pub struct Directory {
    handle: OwnedFd,
    path: PathBuf,
    stat: Stat,
    warnings: Vec<FileWarning>,
}

impl Directory {
    /// Opens a directory, checking each component on the way.
    pub fn open(path: &Path, rules: &Rules) -> Result<Self, PlaceError> {
        let mut walk = Walk::start(path, rules, 0)?;
        while let Some(step) = walk.pending.pop() {
            walk.enter(&step)?;
        }
        walk.finish()
    }

    /// Opens a directory in this one, never through a symlink; `None` if it does not exist and
    /// is not to be created. A new one is 0700 and durable. Its owner and mode are the caller's
    /// to judge, by [`Directory::stat`].
    pub fn subdirectory(&self, name: &OsStr, create: bool) -> Result<Option<Self>, PlaceError> {
        let path = self.path.join(name);
        let handle = match uninterrupted(|| openat(&self.handle, name, STAYING, Mode::empty())) {
            Err(Errno::NOENT) if create => {
                make_directory(self.handle.as_fd(), name, &path, None, Readers::default())?;
                uninterrupted(|| openat(&self.handle, name, STAYING, Mode::empty()))
            }
            Err(Errno::NOENT) => return Ok(None),
            opened => opened,
        };
        let handle = handle.map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => PlaceError::NotADirectory { path: path.clone() },
            error => failed("open the directory", &path, error),
        })?;
        let stat = stat_of(handle.as_fd(), &path)?;
        Ok(Some(Self { handle, path, stat, warnings: Vec::new() }))
    }

    /// Absolute and without symlinks, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Owner, mode and identity as they were when it was opened.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// About directories on the way to this one.
    pub fn warnings(&self) -> &[FileWarning] {
        &self.warnings
    }

    /// Reads a whole file of at most `max` bytes; `None` if it does not exist.
    pub fn read(&self, name: &OsStr, max: usize) -> Result<Option<Contents>, FileError> {
        Contents::read(self.as_fd(), name, OFlags::NOFOLLOW, &self.path.join(name), max)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// A file's place: an open, checked directory and a name in it. The file need not exist.
#[derive(Debug, Clone)]
pub struct Target {
    pub(super) directory: Arc<Directory>,
    pub(super) name: OsString,
}

impl Target {
    /// Walks `path` and checks it by `rules`. A symlink at its end is followed too: the file
    /// that it points to is the target, even if that does not exist yet.
    pub fn resolve(path: &Path, rules: &Rules) -> Result<Self, PlaceError> {
        let mut walk = Walk::start(path, rules, 1)?;
        let name = loop {
            let Some(step) = walk.pending.pop() else {
                return Err(PlaceError::NoFileName { path: path.to_owned() });
            };
            if !walk.pending.is_empty() || step.name == ".." {
                walk.enter(&step)?;
            } else if walk.check_file(&step.name)? {
                break step.name;
            }
        };
        Ok(Self { directory: Arc::new(walk.finish()?), name })
    }

    /// A file in a directory that is open already. Nothing is checked; `name` has no slash.
    pub fn within(directory: &Arc<Directory>, name: impl Into<OsString>) -> Self {
        Self { directory: Arc::clone(directory), name: name.into() }
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Absolute and without symlinks, for messages.
    pub fn path(&self) -> PathBuf {
        self.directory.path.join(&self.name)
    }

    /// Makes a system call; if it fails, the error names this file.
    pub(super) fn attempt<T>(
        &self,
        step: Step,
        call: impl FnMut() -> rustix::io::Result<T>,
    ) -> Result<T, FileError> {
        uninterrupted(call).map_err(|error| self.failed(step, error))
    }

    pub(super) fn failed(&self, step: Step, source: impl Into<std::io::Error>) -> FileError {
        FileError::Io { step, path: self.path(), source: source.into() }
    }
}

/// One component that is still to be walked.
struct Pending {
    name: OsString,
    /// The symlink that it comes from, and the text of that.
    link: Option<Rc<(PathBuf, PathBuf)>>,
}

/// How far the walk has come.
struct Walk<'a> {
    rules: &'a Rules,
    /// How many of the pending components name no directory: 1 for a file's path, else 0.
    tail: usize,
    at: OwnedFd,
    path: PathBuf,
    /// The next component is the last element.
    pending: Vec<Pending>,
    links: usize,
    warnings: Vec<FileWarning>,
}

impl<'a> Walk<'a> {
    fn start(path: &Path, rules: &'a Rules, tail: usize) -> Result<Self, PlaceError> {
        let absolute =
            std::path::absolute(path).map_err(|_| PlaceError::NoFileName { path: path.to_owned() })?;
        let mut walk = Self {
            rules,
            tail,
            at: open_root()?,
            path: PathBuf::from("/"),
            pending: Vec::new(),
            links: 0,
            warnings: Vec::new(),
        };
        walk.check_directory()?;
        walk.push(&absolute, None);
        Ok(walk)
    }

    fn push(&mut self, path: &Path, link: Option<&Rc<(PathBuf, PathBuf)>>) {
        let names = path.components().rev().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        });
        self.pending.extend(names.map(|name| Pending { name, link: link.cloned() }));
    }

    /// Steps into the next directory, or follows it if it is a symlink.
    fn enter(&mut self, step: &Pending) -> Result<(), PlaceError> {
        let path = self.path.join(&step.name);
        let open = |at: &OwnedFd| uninterrupted(|| openat(at, &step.name, PASSING, Mode::empty()));
        let opened = match open(&self.at) {
            Err(Errno::NOENT) if self.may_create(step) => {
                make_directory(self.at.as_fd(), &step.name, &path, self.rules.owner, self.rules.readers)?;
                open(&self.at)
            }
            opened => opened,
        };
        self.at = match opened {
            Ok(handle) => handle,
            Err(Errno::NOTDIR | Errno::LOOP) => return self.follow(&step.name),
            Err(Errno::NOENT) => {
                if let Some(link) = &step.link {
                    let (link, target) = (**link).clone();
                    return Err(PlaceError::DanglingLink { link, target, directory: path });
                }
                let mut whole = path.clone();
                whole.extend(self.pending[self.tail..].iter().rev().map(|step| &step.name));
                return Err(PlaceError::MissingDirectory { path, whole });
            }
            Err(error) => return Err(failed("open the directory", &path, error)),
        };
        if step.name == ".." {
            self.path.pop();
        } else {
            self.path = path;
        }
        self.check_directory()
    }

    fn may_create(&self, step: &Pending) -> bool {
        step.link.is_none()
            && match self.rules.missing {
                Missing::Refuse => false,
                Missing::CreateLast => self.pending.len() == self.tail,
                Missing::CreateAll => true,
            }
    }

    /// Replaces a symlink by its target.
    fn follow(&mut self, name: &OsStr) -> Result<(), PlaceError> {
        let path = self.path.join(name);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = attempt("open", &path, || openat(&self.at, name, flags, Mode::empty()))?;
        let stat = stat_of(link.as_fd(), &path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Err(PlaceError::NotADirectory { path });
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(PlaceError::TooManyLinks { path });
        }
        self.check_owner(&stat, &path)?;
        let text = attempt("read the symlink", &path, || readlinkat(&link, c"", Vec::new()))?;
        let target = PathBuf::from(OsStr::from_bytes(text.as_bytes()));
        let is_absolute = target.is_absolute();
        let link = Rc::new((path, target));
        self.push(&link.1, Some(&link));
        if is_absolute {
            self.at = open_root()?;
            self.path = PathBuf::from("/");
        }
        Ok(())
    }

    /// Checks the file: true if it can be the target, false if it was a symlink and there is more
    /// to walk.
    fn check_file(&mut self, name: &OsStr) -> Result<bool, PlaceError> {
        let path = self.path.join(name);
        let stat = match uninterrupted(|| statat(&self.at, name, AtFlags::SYMLINK_NOFOLLOW)) {
            Err(Errno::NOENT) => return Ok(true),
            found => found.map_err(|error| failed("look at", &path, error))?,
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return self.follow(name).map(|()| false);
        }
        if let Some(kind) = irregular(&stat) {
            return Err(PlaceError::NotAFile { path, kind });
        }
        // Stricter than for directories: root's file is root's to replace.
        let ours = stat.st_uid == rustix::process::geteuid().as_raw();
        if !ours && Some(stat.st_uid) != self.rules.owner {
            return Err(PlaceError::Stranger { path, owner: stat.st_uid });
        }
        let mounted =
            mount::is_mount_point(self.at.as_fd(), name).map_err(|error| failed("look at", &path, error))?;
        if mounted && !self.rules.in_place {
            return Err(PlaceError::MountPoint { path });
        }
        Ok(true)
    }

    /// Checks the directory that the walk has just entered.
    fn check_directory(&mut self) -> Result<(), PlaceError> {
        let stat = stat_of(self.at.as_fd(), &self.path)?;
        self.check_owner(&stat, &self.path)?;
        // In a sticky directory (/tmp), others cannot replace what is not theirs.
        let mode = Mode::from_raw_mode(stat.st_mode);
        if !mode.contains(Mode::SVTX) {
            if mode.contains(Mode::WOTH) {
                let mode = stat.st_mode & 0o7777;
                return Err(PlaceError::OthersCanWrite { path: self.path.clone(), mode });
            }
            if mode.contains(Mode::WGRP) {
                self.warnings
                    .push(FileWarning::GroupWritable { path: self.path.clone(), group: stat.st_gid });
            }
        }
        Ok(())
    }

    fn check_owner(&self, stat: &Stat, path: &Path) -> Result<(), PlaceError> {
        let id = stat.st_uid;
        let known = id == 0 || id == rustix::process::geteuid().as_raw() || Some(id) == self.rules.owner;
        if known || owner::is_unmapped_root(id) {
            return Ok(());
        }
        Err(PlaceError::Stranger { path: path.to_owned(), owner: id })
    }

    fn finish(self) -> Result<Directory, PlaceError> {
        // The handle of the walk can neither be synced nor locked.
        let handle =
            attempt("open the directory", &self.path, || openat(&self.at, c".", STAYING, Mode::empty()))?;
        let stat = stat_of(handle.as_fd(), &self.path)?;
        Ok(Directory { handle, path: self.path, stat, warnings: self.warnings })
    }
}

fn open_root() -> Result<OwnedFd, PlaceError> {
    attempt("open the directory", Path::new("/"), || openat(CWD, c"/", PASSING, Mode::empty()))
}

/// Creates a directory for the `owner` and those who may enter, and makes that durable. Not an error if somebody
/// else was faster.
fn make_directory(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    owner: Option<u32>,
    readers: Readers,
) -> Result<(), PlaceError> {
    let create = || -> rustix::io::Result<()> {
        match uninterrupted(|| mkdirat(parent, name, Mode::RWXU)) {
            Err(Errno::EXIST) => {}
            done => {
                done?;
                own_directory(parent, name, owner, readers)?;
            }
        }
        let parent = uninterrupted(|| openat(parent, c".", STAYING, Mode::empty()))?;
        sync_directory(parent.as_fd())
    };
    create().map_err(|error| failed("create the directory", path, error))
}

/// Gives a new directory its mode, whatever the umask, and its owner. By a handle: whoever may
/// rename in the parent can have put something else in its place, a link even.
fn own_directory(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    owner: Option<u32>,
    readers: Readers,
) -> rustix::io::Result<()> {
    let handle = match uninterrupted(|| openat(parent, name, STAYING, Mode::empty())) {
        // The umask has taken even our own right to open it; so we are not root, and can change
        // nothing but what is ours.
        Err(Errno::ACCESS) => {
            return uninterrupted(|| chmodat(parent, name, readers.mode(), AtFlags::empty()));
        }
        opened => opened?,
    };
    if let Some(group) = readers.group_id.filter(|_| readers.group) {
        // Before the mode: else members of our group could enter in between. Whoever may not give it
        // to the group may not give the file to it either, which is reported.
        let _ = uninterrupted(|| fchown(&handle, None, Some(Gid::from_raw(group))));
    }
    uninterrupted(|| fchmod(&handle, readers.mode()))?;
    let us = rustix::process::geteuid().as_raw();
    let Some(owner) = owner.filter(|owner| *owner != us) else { return Ok(()) };
    // A directory that was put in its place may be ours as well: then it has something in it, or is
    // no loss. Another account's token may be in the making there by now.
    let is_ours = uninterrupted(|| fstat(&handle))?.st_uid == us;
    let is_new = |name: &[u8]| matches!(name, b"." | b"..") || name.starts_with(PREFIX.as_bytes());
    for entry in Dir::read_from(&handle)? {
        if !is_ours || !is_new(entry?.file_name().to_bytes()) {
            return Err(Errno::EXIST);
        }
    }
    uninterrupted(|| fchown(&handle, Some(Uid::from_raw(owner)), None))
}

/// fsync(2) of a directory. Some file systems (CIFS, some FUSE) know no such thing and say so;
/// there is nothing more to do there.
pub(super) fn sync_directory(directory: BorrowedFd<'_>) -> rustix::io::Result<()> {
    match uninterrupted(|| fsync(directory)) {
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        done => done,
    }
}

fn attempt<T>(
    doing: &'static str,
    path: &Path,
    call: impl FnMut() -> rustix::io::Result<T>,
) -> Result<T, PlaceError> {
    uninterrupted(call).map_err(|error| failed(doing, path, error))
}

fn stat_of(handle: BorrowedFd<'_>, path: &Path) -> Result<Stat, PlaceError> {
    attempt("look at", path, || fstat(handle))
}

fn failed(doing: &'static str, path: &Path, error: Errno) -> PlaceError {
    PlaceError::Io { doing, path: path.to_owned(), source: error.into() }
}
