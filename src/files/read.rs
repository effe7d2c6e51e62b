//! Reading a small file that may hold a secret, and judging who else can get at it.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{FileType, fstat};
use rustix::io::retry_on_intr;
use zeroize::Zeroizing;

/// A file's bytes, owner and permission bits, all from one open handle.
pub(crate) struct SmallFile {
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    pub(crate) uid: u32,
    pub(crate) mode: u32,
}

/// Reads a regular file of at most `limit` bytes. A FIFO or device is refused without waiting
/// for it.
pub(crate) fn read(path: &Path, limit: usize) -> io::Result<SmallFile> {
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    // File::metadata would give up when a signal comes, which FUSE and NFS let it notice.
    let stat = retry_on_intr(|| fstat(&file))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(io::ErrorKind::IsADirectory.into()),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
    // Room for all of it at once: a vector that grows leaves copies behind, unwiped.
    let size = usize::try_from(stat.st_size).unwrap_or(limit).min(limit);
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        let message = format!("longer than {} KiB", limit / 1024);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(SmallFile { bytes, uid: stat.st_uid, mode: stat.st_mode & 0o7777 })
}

/// Whether a file's owner is neither root nor the effective user: somebody who could change
/// it while we trust it.
pub(crate) fn is_stranger(uid: u32, effective_uid: u32) -> bool {
    uid != 0 && uid != effective_uid
}
