//! What the hooks were told last, so that `once` from cron tells a failure that goes on only
//! once. A note that is lost or torn costs a repetition, so nothing is synced.

use std::fs::File;
use std::io::{self, Read, Seek, Write};

use fs4::FileExt;
use rustix::fs::{Mode, OFlags, openat};

use super::lock::AccountDir;
use crate::supervisor::occasion::Told;

/// The file's name in the account's directory.
const TOLD: &str = "told";

/// The most that is read of it, in bytes; it holds about 40.
const TOLD_MAX: u64 = 128;

/// Changes the note by `hear`, and gives what that gives. Of several processes that notice the
/// same change, one finds it new.
pub fn exchange<T>(account: &AccountDir, hear: impl FnOnce(&mut Told) -> T) -> io::Result<T> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(openat(account.directory(), TOLD, flags, Mode::RUSR | Mode::WUSR)?);
    // Never waited for: a holder that was stopped would stop its neighbours, too.
    FileExt::try_lock(&file)?;
    let mut before = Vec::new();
    Read::by_ref(&mut file).take(TOLD_MAX).read_to_end(&mut before)?;
    let before: Told = serde_json::from_slice(&before).unwrap_or_default();
    let mut told = before;
    let heard = hear(&mut told);
    if told != before {
        let note = serde_json::to_vec(&told)?;
        file.rewind()?;
        file.write_all(&note)?;
        file.set_len(note.len() as u64)?;
    }
    Ok(heard)
}
