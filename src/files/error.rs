//! Errors of files: of their place, and of reading and replacing them.

use crate::problem::Class;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::files::owner;

/// About a directory that is used all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileWarning {
    #[error("members of group {} can replace files in {}", owner::group_name(*group), path.display())]
    GroupWritable { path: PathBuf, group: u32 },
    #[error("{} had mode {mode:04o}, so other users could open it; it should be 0700", path.display())]
    NotPrivate { path: PathBuf, mode: u32 },
}

impl FileWarning {
    pub fn hint(&self) -> String {
        match self {
            Self::GroupWritable { path, .. } => format!("chmod g-w {}", path.display()),
            Self::NotPrivate { path, .. } => format!("chmod 700 {}", path.display()),
        }
    }
}

/// Why a file cannot be placed where config wants it.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The path is empty, or ends in `/` or `..`.
    #[error("{} is not the path of a file", path.display())]
    NoFileName { path: PathBuf },
    #[error("directory {} does not exist", path.display())]
    MissingDirectory {
        path: PathBuf,
        /// The directory of the file itself, which is this one or below it.
        whole: PathBuf,
    },
    /// A symlink on the way points to a missing directory. Such a directory is never created.
    #[error("symlink {} points to {}, but directory {} does not exist", link.display(), target.display(), directory.display())]
    DanglingLink { link: PathBuf, target: PathBuf, directory: PathBuf },
    /// Something on the way is not a directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory { path: PathBuf },
    /// Symlinks lead in a circle, or too far.
    #[error("too many symlinks on the way to {}", path.display())]
    TooManyLinks {
        /// Where following them was given up.
        path: PathBuf,
    },
    /// The file exists, and is a directory, a FIFO, a device or a socket.
    #[error("{} is a {kind}, not a regular file", path.display())]
    NotAFile { path: PathBuf, kind: &'static str },
    /// A directory, link or file belongs to a user who could replace it.
    #[error("{} belongs to {}, not to root or the user who runs zg-tokend", path.display(), owner::user_name(*owner))]
    Stranger { path: PathBuf, owner: u32 },
    /// Anybody can replace what is in this directory.
    #[error("directory {} can be written by anybody (mode {mode:04o})", path.display())]
    OthersCanWrite { path: PathBuf, mode: u32 },
    /// The file is itself a mount point: rename(2) answers EBUSY, and readers on the other side of
    /// the mount would never see a new file.
    #[error("{} is a mount point, so it cannot be replaced", path.display())]
    MountPoint { path: PathBuf },
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// The operation, as in "cannot … PATH".
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl PlaceError {
    #[expect(clippy::unnecessary_wraps, reason = "as all hints")]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoFileName { .. } => "write the path of a file, not of a directory".into(),
            Self::MissingDirectory { whole, .. } => {
                format!("mount the disk that it is on, or create it: mkdir -p -m 700 {}", whole.display())
            }
            Self::DanglingLink { link, directory, .. } => format!(
                "mount the disk that it is on, create it (mkdir -p -m 700 {}), or correct the symlink: ls -l {}",
                directory.display(),
                link.display()
            ),
            Self::NotADirectory { .. } | Self::NotAFile { .. } => "remove it, or choose another path".into(),
            Self::TooManyLinks { .. } => "correct the symlinks, or write the path of the file itself".into(),
            Self::Stranger { owner, .. } => {
                let user = owner::user_name(*owner);
                format!(
                    "run as that user (sudo -u '{user}' zg-tokend …), or, for a token file, set token_file_owner = \"{}\"",
                    user.trim_start_matches('#')
                )
            }
            Self::OthersCanWrite { path, .. } => format!(
                "chmod o-w {0}, or chmod +t {0}; in Kubernetes, give the emptyDir medium: Memory",
                path.display()
            ),
            Self::MountPoint { path } => mount_hint(path),
            Self::Io { path, source, .. } => io_hint(source, path),
        })
    }

    pub fn class(&self) -> Class {
        match self {
            // A path that the kernel can never open: too long, or with a NUL in it.
            Self::Io { source, .. } if !is(source, &[Errno::NAMETOOLONG, Errno::INVAL]) => Class::Io,
            _ => Class::Config,
        }
    }
}

/// One step in reading or replacing a file; Display completes "cannot … PATH".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Opening or reading it.
    Read,
    /// Opening it for writing.
    Open,
    /// Creating a temporary file beside it.
    Create,
    /// fchown(2), before any byte.
    Own,
    /// fchmod(2), before any byte.
    Chmod,
    /// fallocate(2), before anything irreversible is done.
    Reserve,
    /// Writing or cutting to length.
    Write,
    /// fsync(2) of the file.
    Sync,
    /// rename(2) over the file.
    Replace,
    /// fsync(2) of the directory, after the rename.
    SyncDirectory,
    /// Removing what killed runs left.
    Sweep,
    /// Removing the file itself.
    Remove,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Open => "open",
            Self::Create => "create a temporary file beside",
            Self::Own => "set the owner and group of",
            Self::Chmod => "set the mode of",
            Self::Reserve => "reserve space for",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Replace => "replace",
            Self::SyncDirectory => "sync the directory of",
            Self::Remove => "remove",
            Self::Sweep => "remove leftovers of killed processes from",
        })
    }
}

/// Why a file could not be read or replaced.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot {step} {}", path.display())]
    Io {
        step: Step,
        /// The file that was to be read or replaced (not the temporary beside it).
        path: PathBuf,
        source: io::Error,
    },
    /// The file system took mode and owner without complaint, and has others.
    #[error("{} would get {found} instead of {wanted} as configured", path.display())]
    AttributesLost {
        /// The file that was to be replaced.
        path: PathBuf,
        wanted: String,
        found: String,
    },
    /// Somebody removed the temporary before it could replace the file.
    #[error("another program removed the temporary file beside {}", path.display())]
    Vanished {
        /// The file that was to be replaced.
        path: PathBuf,
    },
    /// A directory, a FIFO, a device or a socket where a file should be.
    #[error("{} is a {kind}, not a regular file", path.display())]
    NotAFile { path: PathBuf, kind: &'static str },
    /// Longer than anything this program writes there.
    #[error("{} is longer than {max} bytes", path.display())]
    TooLong {
        path: PathBuf,
        /// The most that is read, in bytes.
        max: usize,
    },
}

impl FileError {
    #[expect(clippy::unnecessary_wraps, reason = "as all hints")]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Io { step: Step::Own, source, .. } if is(source, &[Errno::PERM, Errno::INVAL]) => {
                "run as root to change the owner, or remove token_file_owner and token_file_group".into()
            }
            Self::Io { step: Step::Replace, path, source } if is(source, &[Errno::BUSY, Errno::XDEV]) => {
                mount_hint(path)
            }
            Self::Io { path, source, .. } => io_hint(source, path),
            Self::AttributesLost { .. } => {
                "place the file on a file system that keeps Unix modes and owners".into()
            }
            Self::Vanished { .. } => "find out which program removes files from that directory".into(),
            Self::NotAFile { .. } => "remove it, or choose another path".into(),
            Self::TooLong { .. } => "move it away, or choose another path".into(),
        })
    }

    pub fn class(&self) -> Class {
        match self {
            Self::AttributesLost { .. } | Self::NotAFile { .. } => Class::Config,
            Self::Io { step: Step::Own | Step::Chmod, source, .. }
                if is(source, &[Errno::PERM, Errno::INVAL, Errno::OPNOTSUPP]) =>
            {
                Class::Config
            }
            Self::Io { step: Step::Replace, source, .. }
                if is(source, &[Errno::BUSY, Errno::XDEV, Errno::ISDIR]) =>
            {
                Class::Config
            }
            _ => Class::Io,
        }
    }
}

/// Whether an error is one of these.
fn is(error: &io::Error, any: &[Errno]) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| any.contains(&errno))
}

fn mount_hint(path: &Path) -> String {
    format!(
        "mount the directory {} instead of the single file, or set write = \"in-place\"",
        directory_of(path).display()
    )
}

fn io_hint(error: &io::Error, path: &Path) -> String {
    let directory = directory_of(path).display();
    match Errno::from_io_error(error).unwrap_or(Errno::IO) {
        Errno::NOSPC => format!("make room on the file system of {directory}: df {directory}"),
        Errno::DQUOT => format!("make room in your quota on the file system of {directory}: quota -s"),
        Errno::ROFS => {
            format!("remount it writable; in a hardened systemd unit, add ReadWritePaths={directory}")
        }
        Errno::ACCESS | Errno::PERM => {
            let user = owner::user_name(rustix::process::geteuid().as_raw());
            format!(
                "zg-tokend runs as {user}: check the owner and mode of {directory} and its files: ls -la {directory}"
            )
        }
        Errno::MFILE | Errno::NFILE => "raise the limit of open files (ulimit -n, LimitNOFILE=)".into(),
        Errno::FBIG => "raise the limit of file sizes (ulimit -f, LimitFSIZE=)".into(),
        Errno::NAMETOOLONG => "choose a shorter name".into(),
        Errno::LOOP => "correct the symlinks, or write the path of the file itself".into(),
        Errno::IO => "the disk may be failing: check the kernel log, dmesg".into(),
        _ => format!("check the file system of {directory}: df {directory}, dmesg"),
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}
