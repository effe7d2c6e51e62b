//! What the hooks were told last, so that `once` from cron tells a failure that goes on only
//! once. A note that is lost or torn costs a repetition, so nothing is synced.

use std::fs::File;
use std::io::{self, Read, Seek, Write};

use fs4::FileExt;
use rustix::fs::{Mode, OFlags, openat};

use super::lock::AccountDir;
use crate::supervisor::occasion::Health;

/// The file's name in the account's directory.
const TOLD: &str = "told";

/// The most that is read of it, in bytes; it holds about 12.
const TOLD_MAX: u64 = 64;

/// Notes how the account stands, and tells how it stood by the note before. Of several processes
/// that notice the same change, one gets the answer that makes it a change.
pub fn exchange(account: &AccountDir, health: Health) -> io::Result<Health> {
    let mut flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // Most accounts never have anything to tell.
    if health != Health::Good {
        flags |= OFlags::CREATE;
    }
    let mut file = match openat(account.directory(), TOLD, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(Health::Good),
        Err(error) => return Err(error.into()),
    };
    // Never waited for: a holder that was stopped would stop its neighbours, too.
    FileExt::try_lock(&file)?;
    let mut before = Vec::new();
    Read::by_ref(&mut file).take(TOLD_MAX).read_to_end(&mut before)?;
    let before = serde_json::from_slice(&before).unwrap_or_default();
    if before != health {
        let note = serde_json::to_vec(&health)?;
        file.rewind()?;
        file.write_all(&note)?;
        file.set_len(note.len() as u64)?;
    }
    Ok(before)
}
