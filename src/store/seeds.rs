//! Which states list a seed, for a first pass of many accounts: each of them asks, and must not read
//! every other state for it.
//!
//! 1. The first question in a process reads all states, as a single account does. The second builds the
//!    index: watch each directory, then read its state, so that no change is missed.
//! 2. Each further question first takes the changes that the kernel reports, from this process and
//!    others, and reads those states again.
//! 3. The index only names candidates: the caller reads a state before it believes that it lists the
//!    seed. So an entry that is out of date does no harm.
//!
//! Where a directory cannot be watched there is no index, and every question reads all states.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use serde::Deserialize;

use crate::clock::monotonic;
use crate::secret::Fingerprint;
use crate::store::lock::{AccountDir, RETIRED, STATE, STATE_MAX, StateDir};

/// The seeds that the index holds at most: 10 accounts for each of 10,000, or some 10 MB.
const SEEDS_MAX: usize = 100_000;

/// How old an index may become, in milliseconds. On a network file system the kernel reports only
/// the changes of this machine; those of another one are found after this time.
const AGE_MAX: i64 = 60_000;

/// Changes by which a state, or the right to read it, comes about.
const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::ONLYDIR);

static KNOWLEDGE: Mutex<Knowledge> = Mutex::new(Knowledge::Unasked);

/// The knowledge of this process.
enum Knowledge {
    Unasked,
    /// Of the state directory with this identity.
    AskedOnce((u64, u64)),
    Known(Index),
}

/// The accounts that may have a state which lists the seed, and those of which `account` may have taken
/// the state over. `None` if only reading all states gives the answer.
pub fn candidates(state_dir: &StateDir, seed: Fingerprint, account: &str) -> Option<Vec<String>> {
    let mut knowledge = KNOWLEDGE.lock().unwrap_or_else(PoisonError::into_inner);
    let identity = identity(state_dir);
    *knowledge = match std::mem::replace(&mut *knowledge, Knowledge::Unasked) {
        Knowledge::Known(index) if index.identity == identity => {
            index.refreshed(state_dir).or_else(|| Index::build(state_dir)).map(Knowledge::Known)?
        }
        Knowledge::AskedOnce(before) if before == identity => Knowledge::Known(Index::build(state_dir)?),
        _ => Knowledge::AskedOnce(identity),
    };
    match &*knowledge {
        Knowledge::Known(index) => Some(index.candidates(seed, account)),
        _ => None,
    }
}

/// Frees the memory and the watches. Not while a question is answered: the file system may hang.
pub fn forget() {
    if let Ok(mut knowledge) = KNOWLEDGE.try_lock() {
        *knowledge = Knowledge::Unasked;
    }
}

fn identity(state_dir: &StateDir) -> (u64, u64) {
    let stat = state_dir.directory().stat();
    (stat.st_dev, stat.st_ino)
}

/// The part of a state that matters here.
#[derive(Deserialize)]
struct SeedList {
    seeds: Vec<Fingerprint>,
}

struct Index {
    /// The state directory.
    identity: (u64, u64),
    built_at: i64,
    changes: OwnedFd,
    /// The watch on the state directory: accounts may come.
    parent: i32,
    /// The account of each watch.
    accounts: HashMap<i32, Arc<str>>,
    /// Seeds, each with the account whose state lists it.
    listed: BTreeSet<(Fingerprint, Arc<str>)>,
    /// Accounts that took a state over, each with the account that had it.
    retired: BTreeSet<(String, Arc<str>)>,
}

impl Index {
    /// `None` if there are too many seeds, or if something cannot be watched.
    fn build(state_dir: &StateDir) -> Option<Self> {
        let changes = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
        let mut index = Self {
            identity: identity(state_dir),
            built_at: monotonic(),
            parent: watch(&changes, state_dir.directory())?,
            changes,
            accounts: HashMap::new(),
            listed: BTreeSet::new(),
            retired: BTreeSet::new(),
        };
        state_dir.accounts().ok()?.into_iter().try_for_each(|name| index.enter(state_dir, &name.into()))?;
        Some(index)
    }

    /// Reads the states that have changed. `None` if an index must be built anew.
    fn refreshed(mut self, state_dir: &StateDir) -> Option<Self> {
        if monotonic() - self.built_at > AGE_MAX {
            return None;
        }
        let (mut entered, mut changed) = (HashSet::new(), HashSet::new());
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.changes, &mut buffer);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(_) => return None,
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                return None;
            }
            let Some(name) = event.file_name().and_then(|name| name.to_str().ok()) else { continue };
            if event.wd() == self.parent {
                entered.insert(Arc::from(name));
            } else if let Some(account) = self.accounts.get(&event.wd()) {
                if name == STATE {
                    changed.insert(Arc::clone(account));
                } else if let Some(successor) = name.strip_prefix(RETIRED) {
                    self.retired.insert((successor.to_owned(), Arc::clone(account)));
                }
            }
        }
        for account in entered {
            self.enter(state_dir, &account)?;
        }
        for account in changed {
            if let Ok(Some(dir)) = state_dir.find_account(&account) {
                self.list(&dir, &account)?;
            }
        }
        Some(self)
    }

    /// Watches an account's directory, and reads what is in it.
    fn enter(&mut self, state_dir: &StateDir, account: &Arc<str>) -> Option<()> {
        // One that is no directory, or not ours, has no state; a change of that is an event.
        let Ok(Some(dir)) = state_dir.find_account(account) else { return Some(()) };
        self.accounts.insert(watch(&self.changes, dir.directory())?, Arc::clone(account));
        for name in dir.names().ok()? {
            if let Some(successor) = name.strip_prefix(RETIRED) {
                self.retired.insert((successor.to_owned(), Arc::clone(account)));
            }
        }
        self.list(&dir, account)
    }

    /// Enters the seeds of a state.
    fn list(&mut self, dir: &AccountDir, account: &Arc<str>) -> Option<()> {
        // Another account reports that its state cannot be read.
        if let Ok(Some(contents)) = dir.directory().read(OsStr::new(STATE), STATE_MAX)
            && let Ok(list) = serde_json::from_slice::<SeedList>(&contents.bytes)
        {
            self.listed.extend(list.seeds.into_iter().map(|seed| (seed, Arc::clone(account))));
        }
        (self.listed.len() <= SEEDS_MAX).then_some(())
    }

    fn candidates(&self, seed: Fingerprint, account: &str) -> Vec<String> {
        let lowest: Arc<str> = Arc::from("");
        let listed =
            self.listed.range((seed, Arc::clone(&lowest))..).take_while(|(listed, _)| *listed == seed);
        let retired = self.retired.range((account.to_owned(), lowest)..);
        let retired = retired.take_while(|(successor, _)| successor == account);
        let accounts: BTreeSet<_> =
            listed.map(|(_, account)| account).chain(retired.map(|(_, it)| it)).collect();
        accounts.into_iter().map(ToString::to_string).collect()
    }
}

/// Watches an open directory, whatever its path leads to by now.
fn watch(changes: &OwnedFd, directory: impl AsFd) -> Option<i32> {
    let path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    inotify::add_watch(changes, path, CHANGES).ok()
}

#[cfg(test)]
mod tests;
