//! What came of the last probe, for the next one and for `status`. A note that is lost or torn
//! costs one refresh at most, so nothing is synced.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::fs::{Mode, OFlags, openat};

use super::lock::AccountDir;
use crate::supervisor::probe::Probed;

/// The file's name in the account's directory.
const PROBED: &str = "probed";

/// The most that is read of it, in bytes: a URL and a few words.
const PROBED_MAX: u64 = 64 * 1024;

/// Reads the note, if there is one.
pub fn read(account: &AccountDir) -> Option<Probed> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(account.directory(), PROBED, flags, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    File::from(file).take(PROBED_MAX).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Writes it.
pub fn note(account: &AccountDir, probed: &Probed) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(openat(account.directory(), PROBED, flags, Mode::RUSR | Mode::WUSR)?);
    let note = serde_json::to_vec(probed)?;
    file.write_all(&note)?;
    file.set_len(note.len() as u64)
}
