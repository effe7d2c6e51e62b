//! Small files beside the state, such as the last run of the hooks. A note that is lost or torn
//! costs a repetition or a line of `status`, so nothing is synced.

use std::fs::File;
use std::io::{self, Read, Seek, Write};

use fs4::FileExt;
use rustix::fs::{Mode, OFlags, fchmod, openat};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::lock::AccountDir;

/// The most that is read of a note, in bytes: a few hundred for each of many push targets.
const NOTE_MAX: u64 = 64 * 1024;

/// The content of one note, as JSON. The default stands for one that is missing or torn.
pub trait Note: Serialize + DeserializeOwned + Default {
    /// The file's name in the account's directory.
    const FILE: &'static str;
}

/// The note, or its default.
pub(super) fn read<N: Note>(account: &AccountDir) -> N {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(account.directory(), N::FILE, flags, Mode::empty())
        .map(|file| parse(&mut File::from(file)).unwrap_or_default())
        .unwrap_or_default()
}

/// Changes the note, and returns what `change` returns. One process at a time.
pub(super) fn update<N: Note, T>(account: &AccountDir, change: impl FnOnce(&mut N) -> T) -> io::Result<T> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(openat(account.directory(), N::FILE, flags, Mode::RUSR | Mode::WUSR)?);
    // Under any umask, the next process must be able to open it.
    fchmod(&file, Mode::RUSR | Mode::WUSR)?;
    // No waiting: a process that is stopped may hold the lock.
    FileExt::try_lock(&file)?;
    let mut note: N = parse(&mut file).unwrap_or_default();
    let before = serde_json::to_vec(&note)?;
    let result = change(&mut note);
    let after = serde_json::to_vec(&note)?;
    if after != before {
        file.rewind()?;
        file.write_all(&after)?;
        file.set_len(after.len() as u64)?;
    }
    Ok(result)
}

fn parse<N: Note>(file: &mut File) -> Option<N> {
    let mut bytes = Vec::new();
    Read::by_ref(file).take(NOTE_MAX).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}
