//! The lock of an account: flock(2) on its own state directory.
//!
//! The directory itself is locked: a lock file could be deleted under its holder. The kernel
//! releases the lock when the holder dies.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fs4::{FileExt, TryLockError};
use rustix::fs::{Access, AtFlags, CWD, Dir, Mode, OFlags, accessat, fchmod, ftruncate, openat, statat};
use rustix::io::{Errno, pread, pwrite};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::files::{
    Attributes, Directory, FileError, FileWarning, Missing, PlaceError, Rules, Target, Temporary, owner,
    uninterrupted,
};
use crate::problem::Class;

/// The state file's name in the account's directory.
pub(super) const STATE: &str = "state";

/// The name of a state that another account has taken over, before the name of that account.
pub(super) const RETIRED: &str = "state.taken-over-by-";

/// A state is a few kilobytes; with two tokens of 16 KiB each it is still far below this.
pub(super) const STATE_MAX: usize = 1024 * 1024;

/// The file that names the `run` which supervises the account.
pub const SUPERVISOR: &str = "supervisor";

/// Tries to become the supervisor: a child that another one has just forked has its lock until it runs
/// a program of its own.
const SUPERVISOR_TRIES: u32 = 6;

/// The same while no other supervisor has the lock, but a `status` that looks: it takes microseconds,
/// or seconds on a machine that has no processor for it.
const LOOK_TRIES: u32 = 500;

/// The pause between two tries.
const SUPERVISOR_PAUSE: Duration = Duration::from_millis(20);

/// The most that is read of the supervisor's file, in bytes; it holds about 150.
const SUPERVISOR_MAX: usize = 1024;

/// Why an account's directory cannot be used or locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("state directory {} belongs to {}", path.display(), owner::user_name(*owner))]
    NotOurs { path: PathBuf, owner: u32 },
    #[error("another process is refreshing {}", path.display())]
    Busy { path: PathBuf },
    /// Without locks, two processes could send one refresh token.
    #[error("the file system of {} has no locks", path.display())]
    Unsupported { path: PathBuf, source: io::Error },
    /// The directory was moved or replaced, so that other processes do not see this lock.
    #[error("state directory {} was moved or replaced while in use", path.display())]
    Replaced { path: PathBuf },
    /// A `run` supervises the account already.
    #[error("already supervised by {}", supervisor(*pid, *stopped))]
    Supervised {
        /// `None` until it has written its file.
        pid: Option<u32>,
        /// By a signal, as by Ctrl-Z.
        stopped: bool,
    },
    /// A system call failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// The operation, as in "cannot … PATH".
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl LockError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Place(PlaceError::Stranger { owner, .. }) | Self::NotOurs { owner, .. } => {
                Some(format!("run as its owner: sudo -u '{}' zg-tokend …", owner::user_name(*owner)))
            }
            Self::Place(error) => error.hint(),
            Self::Unsupported { .. } => Some("set state_dir to a directory on a local file system".into()),
            Self::Replaced { .. } => Some("put the directory back, or restart zg-tokend".into()),
            Self::Supervised { pid: Some(pid), stopped: true } => {
                Some(format!("continue it: kill -CONT {pid}; or end it: kill -KILL {pid}"))
            }
            Self::Supervised { pid: Some(pid), .. } => Some(format!("stop it first: kill {pid}")),
            Self::Supervised { pid: None, .. } => {
                Some("find the process and stop it: pgrep -a zg-tokend".into())
            }
            Self::Busy { .. } => Some("wait for it: a refresh takes seconds".into()),
            Self::Io { source, .. } if source.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => {
                Some("raise the limit of open files (ulimit -n, LimitNOFILE=)".into())
            }
            Self::Io { path, source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(format!("let the user who runs zg-tokend write {}, or set state_dir", path.display()))
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                Some("set state_dir to a directory that can be written".into())
            }
            Self::Io { path, .. } => {
                let path = path.display();
                Some(format!("check the file system of {path}: df {path}, dmesg"))
            }
        }
    }

    /// Its meaning for the exit code.
    pub fn class(&self) -> Class {
        match self {
            Self::Place(error) => error.class(),
            Self::NotOurs { .. } | Self::Unsupported { .. } => Class::Config,
            Self::Busy { .. } | Self::Supervised { .. } => Class::Busy,
            Self::Replaced { .. } | Self::Io { .. } => Class::Io,
        }
    }
}

/// The supervisor, in words.
fn supervisor(pid: Option<u32>, stopped: bool) -> String {
    let who = pid.map_or("another process".into(), |pid| format!("process {pid}"));
    if stopped { format!("{who}, stopped by a signal") } else { who }
}

/// The directory that all accounts of one config live in.
#[derive(Debug)]
pub struct StateDir {
    directory: Directory,
    configured: PathBuf,
}

impl StateDir {
    /// Opens it; `None` if it does not exist. Creates nothing.
    pub fn find(path: &Path) -> Result<Option<Self>, LockError> {
        match Self::create(path, Missing::Refuse) {
            Err(LockError::Place(PlaceError::MissingDirectory { .. })) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Whether states can be kept at `path`: checks owners, permissions and locks, and changes
    /// nothing. If the path does not exist yet, checks and returns the directory that it will be
    /// created in.
    pub fn check(path: &Path, missing: Missing) -> Result<Self, LockError> {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let parent = absolute.parent().unwrap_or(&absolute);
        if missing == Missing::CreateLast && !absolute.exists() && Self::find(parent)?.is_none() {
            // As a refresh would report it.
            Self::create(path, Missing::Refuse)?;
        }
        let existing = absolute.ancestors().find_map(|ancestor| Self::find(ancestor).transpose());
        let found = existing.unwrap_or_else(|| Self::create(path, Missing::Refuse))?;
        let (directory, path) = (&found.directory, found.directory.path());
        match accessat(directory, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
            // Before Linux 5.8 the answer is about the real user, which proves nothing.
            Ok(()) | Err(Errno::NOSYS) => {}
            Err(error) => return Err(failed("write into", path, error)),
        }
        let handle = open_again(directory)?;
        match try_flock(path, || FileExt::try_lock_shared(&handle)) {
            // A lock that another process holds shows that locks work.
            Ok(()) | Err(LockError::Busy { .. }) => Ok(found),
            Err(error) => Err(error),
        }
    }

    /// Opens it, created 0700 as far as the rule permits.
    pub fn create(path: &Path, missing: Missing) -> Result<Self, LockError> {
        let directory = Directory::open(path, &Rules::private(missing))?;
        let configured = std::path::absolute(path).unwrap_or_else(|_| directory.path().to_owned());
        Ok(Self { directory, configured })
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Opens an account's directory, created 0700 if need be. A directory that other users can enter
    /// is made private.
    pub fn create_account(&self, account: &str) -> Result<AccountDir, LockError> {
        let opened = self.account(account, true)?;
        let opened = opened.ok_or_else(|| LockError::Replaced { path: self.configured.join(account) })?;
        if opened.warning.is_some() {
            uninterrupted(|| fchmod(opened.directory.as_fd(), Mode::RWXU))
                .map_err(|error| failed("set the mode of", opened.directory.path(), error))?;
        }
        Ok(opened)
    }

    /// Opens an account's directory; `None` if it does not exist. Changes nothing.
    pub fn find_account(&self, account: &str) -> Result<Option<AccountDir>, LockError> {
        self.account(account, false)
    }

    /// The names of all accounts that have a directory here, configured or not.
    pub fn accounts(&self) -> Result<Vec<String>, LockError> {
        names(&self.directory)
    }

    fn account(&self, account: &str, create: bool) -> Result<Option<AccountDir>, LockError> {
        let Some(directory) = self.directory.subdirectory(account.as_ref(), create)? else {
            return Ok(None);
        };
        let (owner, mode) = (directory.stat().st_uid, directory.stat().st_mode & 0o7777);
        let path = directory.path().to_owned();
        if owner != rustix::process::geteuid().as_raw() {
            return Err(LockError::NotOurs { path, owner });
        }
        let warning = (mode & 0o077 != 0).then_some(FileWarning::NotPrivate { path, mode });
        let configured = self.configured.join(account);
        Ok(Some(AccountDir { directory: Arc::new(directory), configured, warning }))
    }
}

/// An account's own directory, open and ours.
#[derive(Debug, Clone)]
pub struct AccountDir {
    directory: Arc<Directory>,
    /// The path without symlinks resolved, which other processes use.
    configured: PathBuf,
    warning: Option<FileWarning>,
}

impl AccountDir {
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    pub fn file(&self, name: &str) -> Target {
        Target::within(&self.directory, name)
    }

    /// The names of the files in it.
    pub(super) fn names(&self) -> Result<Vec<String>, LockError> {
        names(&self.directory)
    }

    /// Replaces a file in it, durably.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let mut temporary = Temporary::create(&self.file(name), Attributes::PRIVATE)?;
        temporary.write_all(bytes)?;
        temporary.commit()
    }

    /// Set if other users could enter it when it was opened.
    pub fn warning(&self) -> Option<&FileWarning> {
        self.warning.as_ref()
    }

    /// Takes the lock, or fails at once. The lock ends when it is dropped, and with the process.
    pub fn try_lock(&self) -> Result<Lock, LockError> {
        let handle = open_again(&self.directory)?;
        try_flock(self.directory.path(), || FileExt::try_lock(&handle))?;
        self.still_there()?;
        Ok(Lock { account: self.clone(), _handle: handle })
    }

    /// Whether a process holds the lock. Two that look at the same time do not see each other.
    pub fn is_locked(&self) -> Result<bool, LockError> {
        let handle = open_again(&self.directory)?;
        match try_flock(self.directory.path(), || FileExt::try_lock_shared(&handle)) {
            Ok(()) => Ok(false),
            Err(LockError::Busy { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Opens a file in it, created if need be, and locks it for the life of the value.
    pub fn hold(&self, name: &str) -> Result<File, LockError> {
        let (handle, path) = self.open_lock_file(name)?;
        try_flock(&path, || FileExt::try_lock(&handle))?;
        Ok(handle)
    }

    fn open_lock_file(&self, name: &str) -> Result<(File, PathBuf), LockError> {
        let target = self.file(name);
        let path = target.path();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = uninterrupted(|| openat(target.directory(), name, flags, Mode::RUSR | Mode::WUSR));
        let handle = File::from(opened.map_err(|error| failed("open", &path, error))?);
        // Whatever the umask says, the next process must be able to open it.
        fchmod(&handle, Mode::RUSR | Mode::WUSR).map_err(|error| failed("set the mode of", &path, error))?;
        Ok((handle, path))
    }

    /// Whether the path leads to this directory.
    fn still_there(&self) -> Result<(), LockError> {
        let ours = self.directory.stat();
        match uninterrupted(|| statat(CWD, &self.configured, AtFlags::SYMLINK_NOFOLLOW)) {
            Ok(found) if (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino) => Ok(()),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                Err(LockError::Replaced { path: self.configured.clone() })
            }
            Err(error) => Err(failed("look at", &self.configured, error)),
        }
    }
}

/// The right to refresh an account, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    account: AccountDir,
    /// Closing it unlocks.
    _handle: File,
}

impl Lock {
    /// [`LockError::Replaced`] if other processes would now lock another directory. Checked before
    /// and after a request.
    pub fn still_there(&self) -> Result<(), LockError> {
        self.account.still_there()
    }
}

/// The process that supervises an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorFile {
    /// Its process id, as it sees itself.
    pub pid: u32,
    /// When it began to supervise.
    pub started_at: Timestamp,
}

/// Shows, until it is dropped, that this process supervises an account. It protects nothing, as
/// [`Lock`] does: `status` and a second `run` read it.
#[derive(Debug)]
pub struct SupervisorLock {
    /// Closing it unlocks.
    _handle: File,
}

impl SupervisorLock {
    /// Takes the account under supervision; [`LockError::Supervised`] if another process has it.
    /// Waits up to 100 ms for it, and up to 10 s for a `status` that looks.
    pub fn acquire(account: &AccountDir, now: Timestamp) -> Result<Self, LockError> {
        let (handle, path) = account.open_lock_file(SUPERVISOR)?;
        let (mut supervisors, mut looks) = (1, 1);
        while let Err(error) = try_flock(&path, || FileExt::try_lock(&handle)) {
            let LockError::Busy { .. } = error else { return Err(error) };
            // One that only looks has a shared lock.
            let is_look = try_flock(&path, || FileExt::try_lock_shared(&handle)).is_ok();
            let (tries, most) =
                if is_look { (&mut looks, LOOK_TRIES) } else { (&mut supervisors, SUPERVISOR_TRIES) };
            if *tries >= most {
                let pid = read_supervisor(&handle).map(|other| other.pid);
                return Err(LockError::Supervised { pid, stopped: pid.is_some_and(is_stopped) });
            }
            *tries += 1;
            if is_look {
                FileExt::unlock(&handle).map_err(|source| LockError::Io {
                    doing: "unlock",
                    path: path.clone(),
                    source,
                })?;
            }
            std::thread::sleep(SUPERVISOR_PAUSE);
        }
        let text = serde_json::to_vec(&SupervisorFile { pid: std::process::id(), started_at: now });
        text.map_err(io::Error::from)
            .and_then(|text| {
                uninterrupted(|| ftruncate(&handle, 0))?;
                Ok(uninterrupted(|| pwrite(&handle, &text, 0))?)
            })
            .map_err(|source| LockError::Io { doing: "write", path, source })?;
        Ok(Self { _handle: handle })
    }
}

/// The facts about an account's supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supervision {
    /// No process supervises it.
    None,
    /// One does; `None` until it has written its file.
    Alive(Option<SupervisorFile>),
}

/// Changes nothing.
pub fn supervision(account: &AccountDir) -> Result<Supervision, LockError> {
    let path = account.directory().path().join(SUPERVISOR);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let handle = match uninterrupted(|| openat(account.directory(), SUPERVISOR, flags, Mode::empty())) {
        Err(Errno::NOENT) => return Ok(Supervision::None),
        opened => File::from(opened.map_err(|error| failed("open", &path, error))?),
    };
    match try_flock(&path, || FileExt::try_lock_shared(&handle)) {
        Ok(()) => Ok(Supervision::None),
        Err(LockError::Busy { .. }) => Ok(Supervision::Alive(read_supervisor(&handle))),
        Err(error) => Err(error),
    }
}

/// Whether a process of this program is stopped by a signal: proc_pid_stat(5). The pid may be of
/// another namespace: a process with another name is not counted.
pub fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((head, rest)) = stat.rsplit_once(") ") else { return false };
    head.ends_with("(zg-tokend") && rest.starts_with(['T', 't'])
}

fn read_supervisor(handle: &File) -> Option<SupervisorFile> {
    let mut buffer = [0; SUPERVISOR_MAX];
    let count = uninterrupted(|| pread(handle, &mut buffer, 0)).ok()?;
    serde_json::from_slice(&buffer[..count]).ok()
}

/// The names of a directory's entries, but for hidden ones.
fn names(directory: &Directory) -> Result<Vec<String>, LockError> {
    let list = || -> rustix::io::Result<Vec<Option<String>>> {
        let entries = Dir::read_from(directory)?;
        entries.map(|entry| Ok(entry?.file_name().to_str().ok().map(str::to_owned))).collect()
    };
    let names = uninterrupted(list).map_err(|error| failed("list", directory.path(), error))?;
    Ok(names.into_iter().flatten().filter(|name| !name.starts_with('.')).collect())
}

/// flock(2) belongs to an open file: two locks on one directory must be two of them.
fn open_again(directory: &Directory) -> Result<File, LockError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = uninterrupted(|| openat(directory, c".", flags, Mode::empty()));
    opened.map(File::from).map_err(|error| failed("open", directory.path(), error))
}

/// flock(2) without waiting.
fn try_flock(path: &Path, flock: impl Fn() -> Result<(), TryLockError>) -> Result<(), LockError> {
    let attempt = uninterrupted(|| match flock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Errno::WOULDBLOCK),
        Err(TryLockError::Error(error)) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    });
    let path = path.to_owned();
    attempt.map_err(|error| match error {
        Errno::WOULDBLOCK => LockError::Busy { path },
        Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => {
            LockError::Unsupported { path, source: error.into() }
        }
        error => LockError::Io { doing: "lock", path, source: error.into() },
    })
}

fn failed(doing: &'static str, path: &Path, error: Errno) -> LockError {
    LockError::Io { doing, path: path.to_owned(), source: error.into() }
}

#[cfg(test)]
mod tests;
