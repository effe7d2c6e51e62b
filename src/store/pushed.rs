//! What came of sending the token to its push targets, for `status`. A note that is lost or torn
//! costs a line there, so nothing is synced.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};

use rustix::fs::{Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

use super::lock::AccountDir;

/// The file's name in the account's directory.
const PUSHED: &str = "pushed";

/// The most that is read of it, in bytes: a few hundred for each of many targets.
const PUSHED_MAX: u64 = 64 * 1024;

/// What came of the last try, by target.
pub type Pushed = BTreeMap<String, Push>;

/// The last try for one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// The number of the token.
    pub generation: u64,
    /// When, Unix seconds.
    pub at: i64,
    /// Why it failed; absent if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Reads the note; one that is not there is empty.
pub fn read(account: &AccountDir) -> Pushed {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(account.directory(), PUSHED, flags, Mode::empty()) else { return Pushed::new() };
    load(&mut File::from(file)).unwrap_or_default()
}

/// Notes what came of one target.
pub fn note(account: &AccountDir, target: &str, push: Push) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(openat(account.directory(), PUSHED, flags, Mode::RUSR | Mode::WUSR)?);
    let mut pushed = load(&mut file).unwrap_or_default();
    pushed.insert(target.to_owned(), push);
    let note = serde_json::to_vec(&pushed)?;
    file.rewind()?;
    file.write_all(&note)?;
    file.set_len(note.len() as u64)
}

fn load(file: &mut File) -> Option<Pushed> {
    let mut bytes = Vec::new();
    Read::by_ref(file).take(PUSHED_MAX).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}
