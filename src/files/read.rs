//! Reading a small file that may hold a secret, and checking who else can change it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, StatVfsMountFlags, fstat, openat, statfs, statvfs};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::files::error::{FileError, Step};
use crate::files::interrupt::uninterrupted;
use crate::files::mount::is_mounted;

/// A file's bytes and attributes, all from one open handle.
pub struct Contents {
    /// Wiped on drop, as they may be secret.
    pub bytes: Zeroizing<Vec<u8>>,
    pub uid: u32,
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// When it was last written: milliseconds since 1970 by the file system's wall clock.
    pub modified_at: i64,
}

impl Contents {
    /// Reads a path as any reader would: symlinks are followed, and nothing on the way is checked.
    /// `None` if there is no file.
    pub fn of_path(path: &Path, max: usize) -> Result<Option<Self>, FileError> {
        Self::read(CWD, path.as_os_str(), OFlags::empty(), path, max)
    }

    /// Reads a regular file of at most `max` bytes. Anything else is refused without waiting for it.
    pub(super) fn read(
        at: BorrowedFd<'_>,
        name: &OsStr,
        flags: OFlags,
        path: &Path,
        max: usize,
    ) -> Result<Option<Self>, FileError> {
        let failed = |source| FileError::Io { step: Step::Read, path: path.to_owned(), source };
        let Some((handle, stat)) = open(at, name, flags, path)? else { return Ok(None) };
        // Room for all of it at once: a vector that grows leaves unwiped copies behind.
        let size = usize::try_from(stat.st_size).unwrap_or(max).min(max);
        let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
        loop {
            let count = uninterrupted(|| rustix::io::read(&handle, spare_capacity(&mut bytes)))
                .map_err(|error| failed(error.into()))?;
            if bytes.len() > max {
                return Err(FileError::TooLong { path: path.to_owned(), max });
            }
            // There was room for more than the file is long. Only files of the kernel have no length.
            if count == 0 || (bytes.len() == size && size > 0) {
                break;
            }
            bytes.reserve(1);
        }
        let modified_at = stat.st_mtime * 1000 + stat.st_mtime_nsec as i64 / 1_000_000;
        Ok(Some(Self { bytes, uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777, modified_at }))
    }
}

/// Opens a regular file. Anything else is refused without waiting for it.
fn open(
    at: BorrowedFd<'_>,
    name: &OsStr,
    flags: OFlags,
    path: &Path,
) -> Result<Option<(OwnedFd, Stat)>, FileError> {
    let failed =
        |error: Errno| FileError::Io { step: Step::Read, path: path.to_owned(), source: error.into() };
    // Without NONBLOCK, opening a FIFO waits for a writer.
    let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let handle = match uninterrupted(|| openat(at, name, flags, Mode::empty())) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let stat = uninterrupted(|| fstat(&handle)).map_err(failed)?;
    match irregular(&stat) {
        Some(kind) => Err(FileError::NotAFile { path: path.to_owned(), kind }),
        None => Ok(Some((handle, stat))),
    }
}

/// Reads a path that must exist. The error is without the path.
pub fn read(path: &Path, max: usize) -> io::Result<Contents> {
    without_path(Contents::of_path(path, max), max)
}

/// Reads a path that must exist piece by piece: for a large file without secrets.
pub fn read_in_pieces(path: &Path, max: usize) -> io::Result<impl BufRead> {
    let opened = open(CWD, path.as_os_str(), OFlags::empty(), path);
    let (handle, stat) = without_path(opened, max)?;
    if usize::try_from(stat.st_size).is_ok_and(|size| size > max) {
        return without_path(Err(FileError::TooLong { path: path.to_owned(), max }), max);
    }
    Ok(BufReader::new(File::from(handle).take(max as u64)))
}

fn without_path<T>(read: Result<Option<T>, FileError>, max: usize) -> io::Result<T> {
    match read {
        Ok(contents) => contents.ok_or_else(|| Errno::NOENT.into()),
        Err(FileError::Io { source, .. }) => Err(source),
        Err(FileError::NotAFile { kind: "directory", .. }) => Err(Errno::ISDIR.into()),
        Err(FileError::NotAFile { kind, .. }) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is a {kind}, not a regular file")))
        }
        Err(_) => {
            let message = format!("it is longer than {} KiB", max / 1024);
            Err(io::Error::new(io::ErrorKind::FileTooLarge, message))
        }
    }
}

/// The kind of a file that is not a regular file.
pub(super) fn irregular(stat: &Stat) -> Option<&'static str> {
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return None,
        FileType::Directory => "directory",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::Symlink => "symlink",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        FileType::Unknown => "file of unknown kind",
    })
}

/// Whether a file's owner is neither root nor the effective user: somebody who could change the
/// file while we trust it.
pub fn is_stranger(uid: u32, effective_uid: u32) -> bool {
    uid != 0 && uid != effective_uid
}

/// Whether a file with a secret is for us alone, or only for those whom a service manager lets see it:
/// Docker, Podman and Kubernetes mount secrets that everybody in the container can read, and nobody can
/// change. They do so in memory, or mount the single file; a read-only disk such as /nix/store is another
/// thing.
pub fn is_secret_mount(path: &Path) -> bool {
    let Ok(found) = statvfs(path) else { return false };
    let in_memory = || statfs(path).is_ok_and(|found| IN_MEMORY.contains(&found.f_type));
    found.f_flag.contains(StatVfsMountFlags::RDONLY) && (in_memory() || is_mounted(path))
}

/// Where chmod(1) cannot help.
pub fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// How a file with a secret gets another mode.
pub fn private_hint(path: &Path) -> String {
    if is_read_only(path) {
        return "mount it with another mode: mode=0400 (Docker, Podman), defaultMode: 0400 (Kubernetes)"
            .into();
    }
    format!("chmod 600 {}", path.display())
}

/// tmpfs and ramfs, statfs(2).
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
