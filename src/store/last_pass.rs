//! When the last `once` came by, so that passes that are too far apart can be told.
//!
//! Counted by the monotonic clock, which stands still while the machine sleeps: a night's sleep
//! is no missed pass. A note that is lost or torn costs a warning, so nothing is synced.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

use super::lock::AccountDir;
use crate::clock::BootId;

/// The file's name in the account's directory.
const LAST_PASS: &str = "last-pass";

/// The most that is read of it, in bytes; it holds about 110.
const LAST_PASS_MAX: u64 = 1024;

#[derive(Serialize, Deserialize)]
struct Note {
    monotonic_ms: i64,
    boot_id: BootId,
}

/// Notes a pass, and tells how long ago the one before it was; `None` if that is not known.
/// `monotonic` is in milliseconds.
pub fn note(account: &AccountDir, boot_id: BootId, monotonic: i64) -> Option<Duration> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(openat(account.directory(), LAST_PASS, flags, Mode::RUSR | Mode::WUSR).ok()?);
    let mut before = Vec::new();
    Read::by_ref(&mut file).take(LAST_PASS_MAX).read_to_end(&mut before).ok()?;
    let note = serde_json::to_vec(&Note { monotonic_ms: monotonic, boot_id }).ok()?;
    file.rewind().ok()?;
    file.write_all(&note).ok()?;
    file.set_len(note.len() as u64).ok()?;
    let before: Note = serde_json::from_slice(&before).ok()?;
    let gap = monotonic.checked_sub(before.monotonic_ms)?;
    (before.boot_id == boot_id).then(|| Duration::from_millis(gap.max(0).cast_unsigned()))
}
