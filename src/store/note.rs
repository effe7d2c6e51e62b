//! Small files beside the state, such as the last run of the hooks. A note that is lost or torn
//! costs a repetition or a line of `status`, so nothing is synced.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::thread;
use std::time::Duration;

use fs4::{FileExt, TryLockError};
use rustix::fs::{Mode, OFlags, fchmod, openat};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::lock::AccountDir;

/// The most that is read of a note, in bytes: a few hundred for each of many push targets.
const NOTE_MAX: u64 = 64 * 1024;

/// The room for a note of the usual length, in bytes.
const NOTE_USUAL: usize = 256;

/// How often a note is tried that another thread or process reads or writes, which takes microseconds ...
const TRIES: u32 = 200;

/// ... and the pause between two tries. No endless wait: a process that is stopped may hold the lock.
const PAUSE: Duration = Duration::from_millis(5);

/// The content of one note, as JSON. The default stands for one that is missing or torn.
pub trait Note: Serialize + DeserializeOwned + Default {
    /// The file's name in the account's directory.
    const FILE: &'static str;
}

/// The note, or its default.
pub(super) fn read<N: Note>(account: &AccountDir) -> N {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(account.directory(), N::FILE, flags, Mode::empty())
        .map(|file| {
            let mut file = File::from(file);
            // Without the lock, half of a note may be read, which stands for none.
            let _ = lock(|| FileExt::try_lock_shared(&file));
            bytes(&mut file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
        })
        .unwrap_or_default()
}

/// Changes the note, and returns what `change` returns. One thread or process at a time: the
/// results of two push targets, say, come in at the same moment.
pub(super) fn update<N: Note, T>(account: &AccountDir, change: impl FnOnce(&mut N) -> T) -> io::Result<T> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(openat(account.directory(), N::FILE, flags, Mode::RUSR | Mode::WUSR)?);
    // Under any umask, the next process must be able to open it.
    fchmod(&file, Mode::RUSR | Mode::WUSR)?;
    lock(|| FileExt::try_lock(&file))?;
    let found = bytes(&mut file)?;
    let mut note: N = serde_json::from_slice(&found).unwrap_or_default();
    let before = serde_json::to_vec(&note)?;
    let result = change(&mut note);
    let after = serde_json::to_vec(&note)?;
    if after != before {
        file.write_all_at(&after, 0)?;
        if after.len() < found.len() {
            file.set_len(after.len() as u64)?;
        }
    }
    Ok(result)
}

fn lock(try_lock: impl Fn() -> Result<(), TryLockError>) -> io::Result<()> {
    let mut tries = 1;
    loop {
        match try_lock() {
            Err(TryLockError::WouldBlock) if tries < TRIES => thread::sleep(PAUSE),
            result => return Ok(result?),
        }
        tries += 1;
    }
}

fn bytes(file: &mut File) -> io::Result<Vec<u8>> {
    // Most fit, and are read with one call.
    let mut bytes = Vec::with_capacity(NOTE_USUAL);
    Read::by_ref(file).take(NOTE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::thread;

    use serde::{Deserialize, Serialize};

    use super::{Note, read, update};
    use crate::files::Missing;
    use crate::store::lock::StateDir;

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Counts(BTreeMap<u32, u32>);

    impl Note for Counts {
        const FILE: &'static str = "counts";
    }

    #[test]
    fn changes_at_the_same_moment_are_all_kept() {
        const EACH: u32 = 50;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        let open = || {
            StateDir::create(&path, Missing::CreateLast).and_then(|dir| dir.create_account("one")).unwrap()
        };
        open();
        thread::scope(|scope| {
            for writer in 0..4 {
                let open = &open;
                scope.spawn(move || {
                    for _ in 0..EACH {
                        update(&open(), |Counts(counts)| *counts.entry(writer).or_default() += 1).unwrap();
                        let Counts(counts) = read(&open());
                        assert!(counts.contains_key(&writer), "half of a note was read");
                    }
                });
            }
        });
        let Counts(counts) = read(&open());
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3].map(|writer| (writer, EACH)));
    }
}
