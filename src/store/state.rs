//! The state file of one account: read without a lock, written only under it.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::renameat;
use serde::Deserialize;
use serde_json::error::Category;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::files::{Attributes, FileError, FileWarning, Temporary};
use crate::problem::Class;
use crate::refresh::record::{Record, VERSION};
use crate::secret::Fingerprint;
use crate::store::lock::{AccountDir, Lock, LockError, StateDir, Supervision, SupervisorLock, supervision};
use crate::store::note::{self, Note};

/// The state file's name in the account's directory.
const STATE: &str = "state";

/// A state is a few kilobytes; two tokens of 16 KiB each still leave it far below this.
const STATE_MAX: usize = 1024 * 1024;

/// At least this much room is reserved for the next state before a request is made: two refresh
/// tokens and an access token of 16 KiB each, and the rest.
const RESERVE: u64 = 64 * 1024;

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory, or the lock on it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A newer program has been here.
    #[error("state {} is of version {found}, and this program knows versions up to {VERSION}", path.display())]
    Newer {
        /// The state file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// The record cannot be written as JSON.
    #[error("cannot encode the state of {account}")]
    Encode {
        /// The account.
        account: String,
        /// The error of serde.
        source: serde_json::Error,
    },
    /// So long a state could not be read again.
    #[error("the state of {account} has grown to {bytes} bytes, too many to be read again")]
    TooLong {
        /// The account.
        account: String,
        /// Its length.
        bytes: usize,
    },
    /// Something was asked that needs the lock.
    #[error("the state of {account} is not locked")]
    NotLocked {
        /// The account.
        account: String,
    },
    /// A seed that another account's state knows.
    #[error("the refresh_token of account {account} belongs to account {owner} already")]
    SeedTaken {
        /// The account whose config has it.
        account: String,
        /// The account whose state lists it.
        owner: String,
    },
}

impl StateError {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Lock(error) => error.hint(),
            Self::File(error) => error.hint(),
            Self::Newer { .. } => Some("install the newer zg-tokend again; nothing was changed".into()),
            Self::Encode { .. } | Self::TooLong { .. } | Self::NotLocked { .. } => {
                Some("this is a bug: please report it".into())
            }
            Self::SeedTaken { .. } => {
                Some("log in once more for this account: each needs a refresh token of its own".into())
            }
        }
    }

    /// Its meaning for the exit code.
    pub fn class(&self) -> Class {
        match self {
            Self::Lock(error) => error.class(),
            Self::SeedTaken { .. } => Class::Config,
            // The place of the state is no one's choice: whatever is there cannot be read.
            Self::File(FileError::NotAFile { .. })
            | Self::Newer { .. }
            | Self::Encode { .. }
            | Self::TooLong { .. }
            | Self::NotLocked { .. } => Class::Io,
            Self::File(error) => error.class(),
        }
    }
}

/// The content of the state file.
#[derive(Debug)]
pub enum Stored {
    /// There is none: the first run.
    Nothing,
    /// The state.
    Record(Box<Record>),
    /// Something that is no state, and where it is said to go wrong.
    Garbage(String),
}

/// The state of one account, and the lock on it.
#[derive(Debug)]
pub struct Store {
    state_dir: PathBuf,
    account: String,
    dir: Option<AccountDir>,
    lock: Option<Lock>,
    /// The next state's file, with room reserved.
    next: Option<Temporary>,
    /// The directory of the account that was taken over, locked until its state is retired.
    taken_over: Option<(AccountDir, Lock)>,
}

impl Store {
    /// Opens nothing yet.
    pub fn new(state_dir: &Path, account: &str) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            account: account.to_owned(),
            dir: None,
            lock: None,
            next: None,
            taken_over: None,
        }
    }

    /// Opens the account's directory by way of a state directory that is open already. A fault that is
    /// wrong with it is said when it is used.
    pub fn open_within(&mut self, state_dir: &StateDir) {
        self.dir = state_dir.find_account(&self.account).ok().flatten();
    }

    /// Where the state is, for messages.
    pub fn path(&self) -> PathBuf {
        self.state_dir.join(&self.account).join(STATE)
    }

    /// Reads the state. Changes nothing and creates nothing.
    pub fn load(&mut self) -> Result<Stored, StateError> {
        match self.open()? {
            Some(dir) => read(dir, STATE),
            None => Ok(Stored::Nothing),
        }
    }

    /// Takes the lock, creating the directories if need be; [`LockError::Busy`] if it is taken.
    pub fn try_lock(&mut self) -> Result<(), LockError> {
        let dir = match self.dir.take() {
            Some(dir) => dir,
            None => StateDir::create(&self.state_dir)?.create_account(&self.account)?,
        };
        self.lock = Some(dir.try_lock()?);
        self.dir = Some(dir);
        Ok(())
    }

    /// Whether others could get into the directory; it was made private if it was to be created.
    pub fn warning(&self) -> Option<&FileWarning> {
        self.dir.as_ref().and_then(AccountDir::warning)
    }

    /// Puts a state that is none aside as `state.corrupt-N`.
    pub fn put_aside(&self) -> Result<PathBuf, StateError> {
        let dir = self.locked()?;
        let mut number = 1_u64;
        loop {
            let name = format!("{STATE}.corrupt-{number}");
            if dir.directory().read(OsStr::new(&name), STATE_MAX)?.is_none() {
                return rename(dir, &name);
            }
            number += 1;
        }
    }

    /// Finds the state of another account that lists `seed`, and locks it; failing that, one that
    /// this account has retired without going on. One of which `still_in_use` holds is an error:
    /// [`StateError::SeedTaken`].
    pub fn find_seed(
        &mut self,
        seed: Fingerprint,
        still_in_use: impl Fn(&Record) -> bool,
    ) -> Result<Option<Box<Record>>, StateError> {
        let Some(state_dir) = StateDir::find(&self.state_dir)? else { return Ok(None) };
        let lists_it = |stored| match stored {
            Ok(Stored::Record(record)) if record.seeds.contains(&seed) => Some(record),
            // A state that cannot be read is another account's affair.
            _ => None,
        };
        let mut left_half_way = None;
        for name in state_dir.accounts()? {
            if name == self.account {
                continue;
            }
            let Ok(Some(other)) = state_dir.find_account(&name) else { continue };
            let Some(record) = lists_it(read(&other, STATE)) else {
                left_half_way = left_half_way.or_else(|| lists_it(read(&other, &retired(&self.account))));
                continue;
            };
            if still_in_use(&record) {
                return Err(StateError::SeedTaken { account: self.account.clone(), owner: name });
            }
            let lock = other.try_lock()?;
            let Stored::Record(record) = read(&other, STATE)? else { continue };
            self.taken_over = Some((other, lock));
            return Ok(Some(record));
        }
        Ok(left_half_way)
    }

    /// Makes sure that the next state can be stored, then stores this one durably.
    pub fn prepare(&mut self, record: &Record) -> Result<(), StateError> {
        let dir = self.locked()?;
        // The answer needs room as well.
        let bytes = encode(record, STATE_MAX - RESERVE as usize)?;
        // First the room, then the marker: a marker without a request would be taken for a
        // request without an answer.
        let mut next = Temporary::create(&dir.file(STATE), Attributes::PRIVATE)?;
        next.reserve(RESERVE.max(2 * bytes.len() as u64))?;
        write(dir, &bytes)?;
        self.next = Some(next);
        if let Some(lock) = &self.lock {
            lock.still_there()?;
        }
        Ok(())
    }

    /// Stores the record durably: file, rename, directory. If the directory was moved or removed
    /// meanwhile, the record goes to where others will look for it.
    pub fn persist(&mut self, record: &Record) -> Result<(), StateError> {
        let bytes = encode(record, STATE_MAX)?;
        let written = self.write_next(&bytes);
        match self.lock.as_ref().map(Lock::still_there) {
            Some(Err(LockError::Replaced { .. })) => {
                self.retire_taken_over()?;
                self.move_house(&bytes)
            }
            _ => written,
        }
    }

    fn write_next(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        let mut next = match self.next.take() {
            Some(next) => next,
            None => Temporary::create(&self.locked()?.file(STATE), Attributes::PRIVATE)?,
        };
        next.write_all(bytes)?;
        self.retire_taken_over()?;
        Ok(next.commit()?)
    }

    /// Retires the state that was taken over, when its successor is written and not yet in its
    /// place: of two that are in force, one would send what the other has spent. A process that dies in
    /// between, or cannot go on, leaves what [`Store::find_seed`] finds.
    fn retire_taken_over(&mut self) -> Result<(), StateError> {
        if let Some((other, _lock)) = &self.taken_over {
            rename(other, &retired(&self.account))?;
            self.taken_over = None;
        }
        Ok(())
    }

    /// Stores in the directory that is found by its path now, created and locked anew. One that
    /// has a state already is another's, and is left alone.
    fn move_house(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        let dir = StateDir::create(&self.state_dir)?.create_account(&self.account)?;
        let lock = dir.try_lock()?;
        if !matches!(read(&dir, STATE)?, Stored::Nothing) {
            return Err(LockError::Replaced { path: dir.directory().path().to_owned() }.into());
        }
        write(&dir, bytes)?;
        (self.dir, self.lock) = (Some(dir), Some(lock));
        Ok(())
    }

    /// Removes what killed runs left in the account's directory.
    pub fn sweep(&self) -> Result<usize, StateError> {
        Ok(self.locked()?.directory().sweep(None)?)
    }

    /// Lets go of the lock, of what was prepared, and of the directory, which may be another one
    /// by the next time.
    pub fn unlock(&mut self) {
        self.next = None;
        self.taken_over = None;
        self.lock = None;
        self.dir = None;
    }

    /// The note of a feature, or its default.
    pub fn note<N: Note>(&mut self) -> N {
        self.open().ok().flatten().map(note::read).unwrap_or_default()
    }

    /// Changes the note of a feature, and returns what `change` returns; `None` if the note cannot
    /// be had. Creates no directory.
    pub fn update_note<N: Note, T>(&mut self, change: impl FnOnce(&mut N) -> T) -> Option<T> {
        note::update(self.open().ok()??, change).ok()
    }

    /// Takes the account under supervision, for the life of the value.
    pub fn supervise(&self, now: Timestamp) -> Result<SupervisorLock, LockError> {
        let dir = StateDir::create(&self.state_dir)?.create_account(&self.account)?;
        SupervisorLock::acquire(&dir, now)
    }

    /// Whether a process holds the lock. Changes nothing.
    pub fn is_locked(&mut self) -> Result<bool, StateError> {
        match self.open()?.map(AccountDir::try_lock) {
            Some(Err(LockError::Busy { .. })) => Ok(true),
            Some(Err(error)) => Err(error.into()),
            Some(Ok(_)) | None => Ok(false),
        }
    }

    /// Whether a process supervises the account. Changes nothing.
    pub fn supervision(&mut self) -> Result<Supervision, StateError> {
        Ok(self.open()?.map_or(Ok(Supervision::None), supervision)?)
    }

    /// The account's directory, if there is one.
    fn open(&mut self) -> Result<Option<&AccountDir>, StateError> {
        if self.dir.is_none()
            && let Some(state_dir) = StateDir::find(&self.state_dir)?
        {
            self.dir = state_dir.find_account(&self.account)?;
        }
        Ok(self.dir.as_ref())
    }

    fn locked(&self) -> Result<&AccountDir, StateError> {
        let locked = self.lock.as_ref().and(self.dir.as_ref());
        locked.ok_or_else(|| StateError::NotLocked { account: self.account.clone() })
    }
}

/// The name of a state that `account` has taken over.
fn retired(account: &str) -> String {
    format!("{STATE}.taken-over-by-{account}")
}

fn read(dir: &AccountDir, name: &str) -> Result<Stored, StateError> {
    let Some(contents) = dir.directory().read(OsStr::new(name), STATE_MAX)? else {
        return Ok(Stored::Nothing);
    };
    parse(&contents.bytes)
        .map_err(|found| StateError::Newer { path: dir.directory().path().join(name), found })
}

/// Reads a state's bytes; the error is the version of a state that is too new.
pub fn parse(bytes: &[u8]) -> Result<Stored, u64> {
    #[derive(Deserialize)]
    struct Head {
        version: u64,
    }
    // An error of serde about a wrong value shows the value, which may be a token: only the place.
    let garbage = |error: serde_json::Error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Stored::Garbage(match error.classify() {
            _ if bytes.trim_ascii().is_empty() => "is empty".into(),
            Category::Eof => format!("breaks off in {place}"),
            Category::Data => format!("is not a state of zg-tokend ({place})"),
            _ => format!("is not valid JSON ({place})"),
        })
    };
    match serde_json::from_slice::<Box<Record>>(bytes) {
        Ok(record) if record.version <= VERSION => Ok(Stored::Record(record)),
        Ok(record) => Err(record.version.into()),
        // It may be no state at all, or one with members that this program does not know.
        Err(error) => match serde_json::from_slice::<Head>(bytes) {
            Ok(head) if head.version > u64::from(VERSION) => Err(head.version),
            _ => Ok(garbage(error)),
        },
    }
}

fn encode(record: &Record, max: usize) -> Result<Zeroizing<Vec<u8>>, StateError> {
    // Room for all of it at once: a vector that grows leaves unwiped copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(RESERVE as usize));
    serde_json::to_writer_pretty(&mut *bytes, record)
        .map_err(|source| StateError::Encode { account: record.account.clone(), source })?;
    bytes.push(b'\n');
    if bytes.len() > max {
        return Err(StateError::TooLong { account: record.account.clone(), bytes: bytes.len() });
    }
    Ok(bytes)
}

fn write(dir: &AccountDir, bytes: &[u8]) -> Result<(), FileError> {
    let mut temporary = Temporary::create(&dir.file(STATE), Attributes::PRIVATE)?;
    temporary.write_all(bytes)?;
    temporary.commit()
}

fn rename(dir: &AccountDir, to: &str) -> Result<PathBuf, StateError> {
    let path = dir.directory().path().join(to);
    let directory = dir.directory();
    renameat(directory, STATE, directory, to).and_then(|()| rustix::fs::fsync(directory)).map_err(
        |error| LockError::Io {
            doing: "put aside the state as",
            path: path.clone(),
            source: io::Error::from(error),
        },
    )?;
    Ok(path)
}
