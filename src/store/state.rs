//! The state file of one account: read without a lock, written only under it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::renameat;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::files::{Attributes, FileError, FileWarning, Missing, Temporary};
use crate::problem::Class;
use crate::refresh::record::{Record, VERSION};
use crate::secret::Fingerprint;
use crate::store::document::{Stored, encode, parse};
use crate::store::lock::{
    AccountDir, Lock, LockError, RETIRED, STATE, STATE_MAX, StateDir, Supervision, SupervisorLock,
    supervision,
};
use crate::store::note::{self, Note};
use crate::store::seal::{self, SealError, SealRules, StateKeys};
use crate::store::seeds;

/// The file that is locked while a user logs in. It is empty.
const LOGIN: &str = "login";

/// Reserved for the next state before a request: two refresh tokens and an ID token of 16 KiB each, which
/// take a third more if they are sealed, an access token, and the rest.
const RESERVE: u64 = 96 * 1024;

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    File(#[from] FileError),
    /// A newer program has written it.
    #[error("state file {} has version {found}; this zg-tokend reads versions up to {VERSION}", path.display())]
    Newer { path: PathBuf, found: u64 },
    #[error("cannot encode the state of {account}")]
    Encode { account: String, source: serde_json::Error },
    /// A longer state than is read.
    #[error("the state of {account} has {bytes} bytes, which is too long")]
    TooLong { account: String, bytes: usize },
    #[error("the state of {account} is not locked")]
    NotLocked { account: String },
    /// The secrets cannot be opened, or must not be written.
    #[error("the refresh token in the state of {account} {source}")]
    Seal { account: String, source: SealError },
    /// Another account's state lists the seed.
    #[error("the refresh_token of account {account} belongs to account {owner} already")]
    SeedTaken {
        /// The account whose config has it.
        account: String,
        /// The account whose state lists it.
        owner: String,
    },
}

impl StateError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Lock(error) => error.hint(),
            Self::File(error) => error.hint(),
            Self::Newer { .. } => Some("install the newer zg-tokend again; nothing has changed".into()),
            Self::Encode { .. } | Self::TooLong { .. } | Self::NotLocked { .. } => {
                Some("this is a bug: please report it".into())
            }
            Self::Seal { source, .. } => Some(source.hint().into()),
            Self::SeedTaken { .. } => {
                Some("log in once more for this account: each needs a refresh token of its own".into())
            }
        }
    }

    /// Its meaning for the exit code.
    pub fn class(&self) -> Class {
        match self {
            Self::Lock(error) => error.class(),
            Self::SeedTaken { .. } | Self::Seal { source: SealError::NoKey | SealError::WrongKey, .. } => {
                Class::Config
            }
            // The user does not choose the path of the state file.
            Self::File(FileError::NotAFile { .. })
            | Self::Newer { .. }
            | Self::Encode { .. }
            | Self::TooLong { .. }
            | Self::NotLocked { .. }
            | Self::Seal { .. } => Class::Io,
            Self::File(error) => error.class(),
        }
    }
}

/// The state of one account, and the lock on it.
#[derive(Debug)]
pub struct Store {
    state_dir: PathBuf,
    /// About missing directories on the way to it.
    missing: Missing,
    /// The account with the login: its directory has state and lock.
    account: String,
    dir: Option<AccountDir>,
    /// The account that uses this login, if it is another one, and its own directory, for notes.
    user: Option<Box<(String, Option<AccountDir>)>>,
    lock: Option<Lock>,
    /// The next state's file, with room reserved.
    next: Option<Temporary>,
    /// The keys at hand; without them nothing that is sealed is opened.
    keys: Option<Arc<StateKeys>>,
    rules: SealRules,
    /// The directory of the account that was taken over, locked until its state is retired.
    taken_over: Option<(AccountDir, Lock)>,
}

impl Store {
    /// `user`: the account that uses the login of `account`, if it is another one.
    pub(super) fn new(state_dir: &Path, missing: Missing, account: &str, user: Option<&str>) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            missing,
            account: account.to_owned(),
            user: user.map(|user| Box::new((user.to_owned(), None))),
            dir: None,
            lock: None,
            next: None,
            keys: None,
            rules: SealRules::default(),
            taken_over: None,
        }
    }

    /// From now on states are opened and sealed with these keys, if any, and by these rules.
    pub fn set_keys(&mut self, keys: Option<Arc<StateKeys>>, rules: SealRules) {
        (self.keys, self.rules) = (keys, rules);
    }

    /// The record as the account of this store sees it; its secrets are open, if keys are at hand.
    fn opened(&self, mut record: Box<Record>) -> Result<Box<Record>, StateError> {
        if let Some(keys) = &self.keys {
            seal::open(&mut record, keys)
                .map_err(|source| StateError::Seal { account: record.account.clone(), source })?;
        }
        if let Some(user) = &self.user {
            record.seen_by(&user.0);
        }
        Ok(record)
    }

    /// The bytes of the state file, with its secrets sealed as the rules want it.
    fn encode(&self, record: &Record, max: usize) -> Result<Zeroizing<Vec<u8>>, StateError> {
        let mut record = record.clone();
        if let Some(user) = &self.user {
            record.unseen_by(&user.0);
        }
        seal::close(&mut record, self.keys.as_deref(), self.rules)
            .map_err(|source| StateError::Seal { account: record.account.clone(), source })?;
        let account = || record.account.clone();
        let bytes = encode(&record).map_err(|source| StateError::Encode { account: account(), source })?;
        if bytes.len() > max {
            return Err(StateError::TooLong { account: account(), bytes: bytes.len() });
        }
        Ok(bytes)
    }

    /// Opens the account's directory in a state directory that is open already. An error is
    /// reported when the store is used.
    pub(super) fn open_within(&mut self, state_dir: &StateDir) {
        self.dir = state_dir.find_account(&self.account).ok().flatten();
    }

    /// Where the state is, for messages.
    pub fn path(&self) -> PathBuf {
        self.state_dir.join(&self.account).join(STATE)
    }

    /// The files to watch for a new state, and for changes of these others beside it.
    pub fn watched(&self, others: &[&str]) -> Vec<PathBuf> {
        let own = self.state_dir.join(self.user.as_ref().map_or(&self.account, |user| &user.0));
        others.iter().map(|other| own.join(other)).chain([self.path()]).collect()
    }

    /// Reads the state, and changes nothing.
    pub fn load(&mut self) -> Result<Stored, StateError> {
        let stored = match self.open()? {
            Some(dir) => read(dir, STATE)?,
            None => Stored::Nothing,
        };
        match stored {
            Stored::Record(record) => Ok(Stored::Record(self.opened(record)?)),
            other => Ok(other),
        }
    }

    /// Takes the lock, creating the directories if need be; [`LockError::Busy`] if it is taken.
    pub fn try_lock(&mut self) -> Result<(), LockError> {
        let dir = match self.dir.take() {
            Some(dir) => dir,
            None => self.create()?,
        };
        self.lock = Some(dir.try_lock()?);
        self.dir = Some(dir);
        if let Some((user, own @ None)) = self.user.as_deref_mut() {
            // Only notes are lost without it.
            *own =
                StateDir::create(&self.state_dir, self.missing).and_then(|dir| dir.create_account(user)).ok();
        }
        Ok(())
    }

    /// Set if other users could enter the directory. [`Store::try_lock`] makes it private.
    pub fn warning(&self) -> Option<&FileWarning> {
        self.dir.as_ref().and_then(AccountDir::warning)
    }

    /// Renames a state that cannot be read to `state.corrupt-N`.
    pub fn put_aside(&self) -> Result<PathBuf, StateError> {
        let dir = self.locked()?;
        rename(dir, &numbered(dir, "corrupt", &[])?)
    }

    /// Keeps a copy of the state as `state.sealed-N`: the key that opens it may turn up again.
    pub fn keep_copy(&self) -> Result<PathBuf, StateError> {
        let dir = self.locked()?;
        let state = dir.directory().read(OsStr::new(STATE), STATE_MAX)?.map(|state| state.bytes);
        let state = state.unwrap_or_default();
        let name = numbered(dir, "sealed", &state)?;
        dir.write(&name, &state)?;
        Ok(dir.directory().path().join(name))
    }

    /// Finds the state of another account that lists `seed`, and locks it; failing that, a state
    /// that this account took over without getting further. A state that is `still_in_use` is an
    /// error: [`StateError::SeedTaken`].
    pub fn find_seed(
        &mut self,
        seed: Fingerprint,
        still_in_use: impl Fn(&Record) -> bool,
    ) -> Result<Option<Box<Record>>, StateError> {
        let Some(state_dir) = StateDir::find(&self.state_dir)? else { return Ok(None) };
        let lists_it = |stored| match stored {
            Ok(Stored::Record(record)) if record.seeds.contains(&seed) => Some(record),
            // Another account reports that its state cannot be read.
            _ => None,
        };
        let mut left_half_way = None;
        let names = seeds::candidates(&state_dir, seed, &self.account);
        for name in names.map_or_else(|| state_dir.accounts(), Ok)? {
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
            return self.opened(record).map(Some);
        }
        left_half_way.map(|record| self.opened(record)).transpose()
    }

    /// The account's own directory, for notes: that of the state, unless the login is another account's.
    fn own(&mut self) -> Result<Option<&AccountDir>, StateError> {
        if self.user.is_none() {
            return self.open();
        }
        let Some((user, own)) = self.user.as_deref_mut() else { return Ok(None) };
        if own.is_none()
            && let Some(state_dir) = StateDir::find(&self.state_dir)?
        {
            *own = state_dir.find_account(user)?;
        }
        Ok(own.as_ref())
    }

    /// Makes sure that the next state can be stored, then stores this one durably.
    pub fn prepare(&mut self, record: &Record) -> Result<(), StateError> {
        let dir = self.locked()?;
        // The answer needs room as well.
        let bytes = self.encode(record, STATE_MAX - RESERVE as usize)?;
        // The marker comes last: without a request it would be mistaken for a request without an
        // answer.
        let next = reserve(dir, RESERVE.max(2 * bytes.len() as u64))?;
        dir.write(STATE, &bytes)?;
        self.next = Some(next);
        if let Some(lock) = &self.lock {
            lock.still_there()?;
        }
        Ok(())
    }

    /// Makes sure that the next state can be stored, and stores nothing.
    pub fn reserve(&mut self) -> Result<(), StateError> {
        // Room for the list of seeds as well.
        self.next = Some(reserve(self.locked()?, 2 * RESERVE)?);
        Ok(())
    }

    /// Shows, until the value is dropped, that a user is logging in. [`LockError::Busy`] if another
    /// process shows that.
    pub fn lock_login(&self) -> Result<File, LockError> {
        self.create()?.hold(LOGIN)
    }

    /// Stores the record durably: file, rename, directory. If the directory was moved or removed
    /// meanwhile, the record goes to the directory that the path leads to now.
    pub fn persist(&mut self, record: &Record) -> Result<(), StateError> {
        let bytes = self.encode(record, STATE_MAX)?;
        let written = self.write_next(&bytes);
        match self.lock.as_ref().map(Lock::still_there) {
            Some(Err(LockError::Replaced { .. })) => {
                self.retire_taken_over()?;
                self.change_directory(&bytes)
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

    /// Retires the state that was taken over, after its successor is written and before that is
    /// renamed: of two states in use, one would send a token that the other has spent. If the
    /// process dies in between, [`Store::find_seed`] finds the retired state.
    fn retire_taken_over(&mut self) -> Result<(), StateError> {
        if let Some((other, _lock)) = &self.taken_over {
            rename(other, &retired(&self.account))?;
            self.taken_over = None;
        }
        Ok(())
    }

    /// Stores in the directory that the path leads to now, created and locked anew. If that has a
    /// state already, another process uses it, and nothing is changed.
    fn change_directory(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        let dir = self.create()?;
        let lock = dir.try_lock()?;
        if !matches!(read(&dir, STATE)?, Stored::Nothing) {
            return Err(LockError::Replaced { path: dir.directory().path().to_owned() }.into());
        }
        dir.write(STATE, bytes)?;
        (self.dir, self.lock) = (Some(dir), Some(lock));
        Ok(())
    }

    /// Removes the temporary files of killed processes.
    pub fn sweep(&self) -> Result<usize, StateError> {
        Ok(self.locked()?.directory().sweep(None)?)
    }

    /// Releases the lock, the prepared file, and the directory, which may be another one next time.
    pub fn unlock(&mut self) {
        self.next = None;
        self.taken_over = None;
        self.lock = None;
        self.dir = None;
        self.user.iter_mut().for_each(|user| user.1 = None);
    }

    /// The note of a feature, or its default.
    pub fn note<N: Note>(&mut self) -> N {
        self.own().ok().flatten().map(note::read).unwrap_or_default()
    }

    /// Changes the note of a feature, and returns what `change` returns; `None` if the note cannot
    /// be read or written. Creates no directory.
    pub fn update_note<N: Note, T>(&mut self, change: impl FnOnce(&mut N) -> T) -> Option<T> {
        note::update(self.own().ok()??, change).ok()
    }

    /// Takes the account under supervision, for the life of the value.
    pub fn supervise(&self, now: Timestamp) -> Result<SupervisorLock, LockError> {
        let account = self.user.as_ref().map_or(&self.account, |user| &user.0);
        let own = StateDir::create(&self.state_dir, self.missing)?.create_account(account)?;
        SupervisorLock::acquire(&own, now)
    }

    /// Whether a process holds the lock. Changes nothing.
    pub fn is_locked(&mut self) -> Result<bool, StateError> {
        Ok(self.open()?.map(AccountDir::is_locked).transpose()?.unwrap_or(false))
    }

    /// Whether a process supervises the account. Changes nothing.
    pub fn supervision(&mut self) -> Result<Supervision, StateError> {
        Ok(self.own()?.map_or(Ok(Supervision::None), supervision)?)
    }

    /// The account's directory, created with its parents if need be.
    pub(super) fn create(&self) -> Result<AccountDir, LockError> {
        StateDir::create(&self.state_dir, self.missing)?.create_account(&self.account)
    }

    /// The account's directory, if there is one.
    pub(super) fn open(&mut self) -> Result<Option<&AccountDir>, StateError> {
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

/// The file of the next state, with this room.
fn reserve(dir: &AccountDir, room: u64) -> Result<Temporary, StateError> {
    let mut next = Temporary::create(&dir.file(STATE), Attributes::PRIVATE)?;
    next.reserve(room)?;
    Ok(next)
}

/// The name of a state that `account` has taken over.
fn retired(account: &str) -> String {
    format!("{RETIRED}{account}")
}

fn read(dir: &AccountDir, name: &str) -> Result<Stored, StateError> {
    let Some(contents) = dir.directory().read(OsStr::new(name), STATE_MAX)? else {
        return Ok(Stored::Nothing);
    };
    parse(&contents.bytes)
        .map_err(|found| StateError::Newer { path: dir.directory().path().join(name), found })
}

/// Whether the file has a refresh token in plain, or nothing that can be read.
pub(super) fn is_plain(dir: &AccountDir, name: &str) -> bool {
    match read(dir, name) {
        Ok(Stored::Record(mut record)) => {
            seal::secrets(&mut record).any(|(_, secret)| secret.was_read_plain())
        }
        Ok(Stored::Nothing) => false,
        Ok(Stored::Garbage(_)) | Err(_) => true,
    }
}

/// The first name `state.KIND-N` of no file, or of one that has these bytes already.
fn numbered(dir: &AccountDir, kind: &str, bytes: &[u8]) -> Result<String, FileError> {
    let mut number = 1_u64;
    loop {
        let name = format!("{STATE}.{kind}-{number}");
        let found = dir.directory().read(OsStr::new(&name), STATE_MAX)?;
        if found.is_none_or(|found| !bytes.is_empty() && *found.bytes == *bytes) {
            return Ok(name);
        }
        number += 1;
    }
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
