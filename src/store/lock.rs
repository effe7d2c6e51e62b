//! The lock of an account: flock(2) on its own state directory.
//!
//! The directory itself is locked, as there is then no lock file that somebody could delete
//! under its holder. The kernel lets go when the holder dies, however it dies.

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
use crate::files::{Directory, FileWarning, Missing, PlaceError, Rules, Target, owner, uninterrupted};
use crate::problem::Class;

/// Says which `run` supervises the account, for the life of that `run`.
const SUPERVISOR: &str = "supervisor";

/// A `status` that looks at that very instant holds the supervisor's lock too, for microseconds:
/// so many tries, so far apart, outlast any crowd of them and are still no noticeable wait.
const SUPERVISOR_TRIES: u32 = 6;
/// See [`SUPERVISOR_TRIES`].
const SUPERVISOR_PAUSE: Duration = Duration::from_millis(20);

/// The most that is read of the supervisor's file, in bytes; it holds about 150.
const SUPERVISOR_MAX: usize = 1024;

/// Why an account's directory cannot be used or locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The state directory will not do.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The account's directory belongs to another user.
    #[error("state directory {} belongs to {}", path.display(), owner::user_name(*owner))]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
    },
    /// Another process holds the lock.
    #[error("another process is refreshing {}", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The file system has no locks, so nothing would keep two processes from one refresh token.
    #[error("the file system of {} has no locks", path.display())]
    Unsupported {
        /// The directory.
        path: PathBuf,
        /// The error of flock(2).
        source: io::Error,
    },
    /// The directory was moved or replaced, so that others no longer meet this lock.
    #[error("state directory {} was moved or replaced while in use", path.display())]
    Replaced {
        /// The directory.
        path: PathBuf,
    },
    /// A `run` supervises the account already.
    #[error("already supervised by {}", by(*pid, *stopped))]
    Supervised {
        /// The process, unless it has not said so yet.
        pid: Option<u32>,
        /// A signal has stopped it, as Ctrl-Z does.
        stopped: bool,
    },
    /// A system call failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// The operation, as in "cannot … PATH".
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
}

impl LockError {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Place(PlaceError::Stranger { owner, .. }) | Self::NotOurs { owner, .. } => {
                Some(format!("run as its owner: sudo -u '{}' zg-tokend …", owner::user_name(*owner)))
            }
            Self::Place(error) => error.hint(),
            Self::Unsupported { .. } => Some("set state_dir to a directory on a local file system".into()),
            Self::Replaced { .. } => Some("put the directory back, or restart zg-tokend".into()),
            Self::Supervised { pid: Some(pid), stopped: true } => {
                Some(format!("let it go on: kill -CONT {pid}; to end it instead: kill -KILL {pid}"))
            }
            Self::Supervised { pid: Some(pid), .. } => Some(format!("stop it first: kill {pid}")),
            Self::Supervised { pid: None, .. } => {
                Some("see which process it is: pgrep -a zg-tokend; and stop it first".into())
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
                Some(format!("see whether the file system of {path} is well: df {path}, dmesg"))
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
fn by(pid: Option<u32>, stopped: bool) -> String {
    let who = pid.map_or("another process".into(), |pid| format!("process {pid}"));
    if stopped { format!("{who}, which stands still") } else { who }
}

/// The directory that all accounts of one config live in.
#[derive(Debug)]
pub struct StateDir {
    directory: Directory,
    configured: PathBuf,
}

impl StateDir {
    /// Opens it, created 0700 with its parents if need be.
    pub fn create(path: &Path) -> Result<Self, LockError> {
        Self::open(path, Missing::CreateAll)
    }

    /// Opens it; `None` if it does not exist. Creates nothing.
    pub fn find(path: &Path) -> Result<Option<Self>, LockError> {
        match Self::open(path, Missing::Refuse) {
            Err(LockError::Place(PlaceError::MissingDirectory { .. })) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Whether states can be kept at `path`: looks at owners and permissions, and whether the file
    /// system has locks. Changes nothing; of a path that does not exist yet, it judges and gives
    /// the directory that the rest will be created in.
    pub fn check(path: &Path) -> Result<Self, LockError> {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let existing = absolute.ancestors().find_map(|ancestor| Self::find(ancestor).transpose());
        let found = existing.unwrap_or_else(|| Self::open(path, Missing::Refuse))?;
        let (directory, path) = (&found.directory, found.directory.path());
        match accessat(directory, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
            // Before Linux 5.8 only the real user can be asked about, which proves nothing.
            Ok(()) | Err(Errno::NOSYS) => {}
            Err(error) => return Err(failed("write into", path, error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = uninterrupted(|| openat(directory, c".", flags, Mode::empty()))
            .map_err(|error| failed("open", path, error))?;
        let handle = File::from(handle);
        match try_flock(path, || FileExt::try_lock_shared(&handle)) {
            // Whoever has it, has shown that it can be had.
            Ok(()) | Err(LockError::Busy { .. }) => Ok(found),
            Err(error) => Err(error),
        }
    }

    fn open(path: &Path, missing: Missing) -> Result<Self, LockError> {
        let rules = Rules { owner: None, missing, in_place: false };
        let directory = Directory::open(path, &rules)?;
        let configured = std::path::absolute(path).unwrap_or_else(|_| directory.path().to_owned());
        Ok(Self { directory, configured })
    }

    /// The open directory.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Opens an account's directory, created 0700 if need be; one that others may enter is made
    /// private.
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
        let list = || -> rustix::io::Result<Vec<Option<String>>> {
            let entries = Dir::read_from(&self.directory)?;
            entries.map(|entry| Ok(entry?.file_name().to_str().ok().map(str::to_owned))).collect()
        };
        let names = uninterrupted(list).map_err(|error| failed("list", self.directory.path(), error))?;
        Ok(names.into_iter().flatten().filter(|name| !name.starts_with('.')).collect())
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
    /// As others come to it: state_dir as configured, and the account's name.
    configured: PathBuf,
    warning: Option<FileWarning>,
}

impl AccountDir {
    /// The open directory.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> Target {
        Target::within(&self.directory, name)
    }

    /// Set if others could enter it when it was opened.
    pub fn warning(&self) -> Option<&FileWarning> {
        self.warning.as_ref()
    }

    /// Takes the lock, or says at once why not. Whoever waits asks again. The lock ends when it
    /// is dropped, and with the process.
    pub fn try_lock(&self) -> Result<Lock, LockError> {
        // Opened anew: flock(2) belongs to an open file, and two locks must be two of them.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = uninterrupted(|| openat(self.directory.as_fd(), c".", flags, Mode::empty()))
            .map_err(|error| failed("open", self.directory.path(), error))?;
        let handle = File::from(handle);
        try_flock(self.directory.path(), || FileExt::try_lock(&handle))?;
        self.still_there()?;
        Ok(Lock { account: self.clone(), _handle: handle })
    }

    /// Whether whoever comes by the path meets this very directory.
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
    /// Whether the lock still means something: to be asked before the request is sent, and
    /// after. [`LockError::Replaced`] if others would now lock another directory.
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

/// Says that this process supervises an account, until it is dropped. No protection: that is
/// the [`Lock`]'s; only an answer for `status` and for a second `run`.
#[derive(Debug)]
pub struct SupervisorLock {
    /// Closing it unlocks.
    _handle: File,
}

impl SupervisorLock {
    /// Takes the account under supervision; [`LockError::Supervised`] if another process has it.
    /// Waits up to 100 ms for a `status` to look away.
    pub fn acquire(account: &AccountDir, now: Timestamp) -> Result<Self, LockError> {
        let target = account.file(SUPERVISOR);
        let path = target.path();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = uninterrupted(|| openat(target.directory(), SUPERVISOR, flags, Mode::RUSR | Mode::WUSR));
        let handle = File::from(opened.map_err(|error| failed("open", &path, error))?);
        // Whatever the umask says, the next `run` must be able to open it.
        fchmod(&handle, Mode::RUSR | Mode::WUSR).map_err(|error| failed("set the mode of", &path, error))?;
        let mut tries = 1;
        while let Err(error) = try_flock(&path, || FileExt::try_lock(&handle)) {
            match error {
                LockError::Busy { .. } if tries < SUPERVISOR_TRIES => std::thread::sleep(SUPERVISOR_PAUSE),
                LockError::Busy { .. } => {
                    let pid = read_supervisor(&handle).map(|other| other.pid);
                    return Err(LockError::Supervised { pid, stopped: pid.is_some_and(is_stopped) });
                }
                error => return Err(error),
            }
            tries += 1;
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
    /// One does; which, unless it has not said so yet.
    Alive(Option<SupervisorFile>),
}

/// Looks whether a process supervises the account, and changes nothing.
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

/// Whether a process of this program stands still: proc_pid_stat(5). The pid is as that process
/// sees itself, so one of another name is another one, seen from another namespace.
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

/// flock(2) without waiting, and what its answers mean.
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
