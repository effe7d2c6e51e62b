//! Whether a file is a mount point of its own, as containers make of a single mounted file.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, openat, statx};
use rustix::io;

use crate::files::interrupt::uninterrupted;

/// Whether `name` in `directory` is where something is mounted; a bind mount from the same file
/// system counts. The file must exist.
pub(super) fn is_mount_point(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match uninterrupted(|| statx(directory, name, flags, StatxFlags::empty())) {
        Ok(found) if found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
        }
        Ok(_) | Err(io::Errno::NOSYS) => differs_in_proc(directory, name),
        Err(error) => Err(error),
    }
}

/// The same of whatever a path leads to, for those who only look: nothing on the way is checked.
/// False where the kernel cannot tell (before Linux 5.8), and where there is no file.
pub fn is_mounted(path: &Path) -> bool {
    let found = uninterrupted(|| statx(CWD, path, AtFlags::NO_AUTOMOUNT, StatxFlags::empty()));
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// The same question before Linux 5.8: proc_pid_fdinfo(5) tells the mount of an open file.
/// Without /proc nothing is known, and rename(2) will have the last word.
fn differs_in_proc(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = uninterrupted(|| openat(directory, name, flags, Mode::empty()))?;
    let mount = |fd: i32| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(|id| id.trim().to_owned())
    };
    Ok(mount(directory.as_raw_fd()) != mount(file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use crate::files::mount::*;

    fn both(directory: &str, name: &str) -> (bool, bool) {
        let handle = std::fs::File::open(directory).unwrap();
        let name = OsStr::new(name);
        (is_mount_point(handle.as_fd(), name).unwrap(), differs_in_proc(handle.as_fd(), name).unwrap())
    }

    #[test]
    fn both_ways_of_asking_agree() {
        // /proc is mounted everywhere, and an ordinary file in it is not.
        assert_eq!(both("/", "proc"), (true, true));
        assert_eq!(both("/proc", "version"), (false, false));
    }
}
