//! Whether there is room for the files of a refresh.

use std::collections::HashSet;
use std::path::Path;

use rustix::fs::{StatVfs, stat, statvfs};

use crate::check::finding::{Finding, FindingLevel};

/// A refresh reserves 80 KiB for the next state and 16 KiB for the token; twice that, since a state
/// may be larger.
const NEEDED_BYTES: u64 = 192 << 10;

/// The next state, the marker before it, the token file, and the one beside that.
const NEEDED_FILES: u64 = 4;

/// A log or a download that fills a disk may take this within the hour ...
const SCARCE_BYTES: u64 = 10 << 20;

/// ... and a cache of small files this many.
const SCARCE_FILES: u64 = 1000;

/// More than this share of the whole is not scarce: a file system for the token alone may be small.
const SCARCE_PART: u64 = 10;

/// Checks the file system of a directory, which may not exist yet; each file system once. Nothing is
/// reported if there is room.
pub(super) fn space(subject: &'static str, directory: &Path, known: &mut HashSet<u64>) -> Vec<Finding> {
    let existing = directory.ancestors().find_map(|ancestor| Some((ancestor, stat(ancestor).ok()?)));
    let Some((directory, _)) = existing.filter(|(_, found)| known.insert(found.st_dev)) else {
        return Vec::new();
    };
    statvfs(directory).map(|room| judge(subject, directory, &room)).unwrap_or_default()
}

fn judge(subject: &'static str, directory: &Path, room: &StatVfs) -> Vec<Finding> {
    let directory = directory.display();
    // A part of it is reserved for root.
    let free = if rustix::process::geteuid().is_root() { room.f_bfree } else { room.f_bavail };
    let bytes = free.saturating_mul(room.f_frsize);
    let of_bytes = level(bytes, room.f_blocks.saturating_mul(room.f_frsize), NEEDED_BYTES, SCARCE_BYTES);
    // Some file systems create inodes on demand, and count none.
    let of_files = level(room.f_favail, room.f_files, NEEDED_FILES, SCARCE_FILES);
    let size = if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) };
    let of_bytes = (of_bytes, size, format!("free space there: df {directory}"));
    let files = format!("{} file{} (inodes)", room.f_favail, if room.f_favail == 1 { "" } else { "s" });
    let of_files = (of_files, files, format!("remove files there: df -i {directory}"));
    let scarce = [of_bytes, of_files].into_iter().filter(|(level, ..)| *level != FindingLevel::Ok);
    let findings = scarce.map(|(level, left, hint)| {
        let message = format!("the file system of {directory} has only {left} left");
        Finding::new(level, subject, message, Some(hint))
    });
    findings.collect()
}

fn level(left: u64, whole: u64, needed: u64, scarce: u64) -> FindingLevel {
    match left {
        _ if whole == 0 => FindingLevel::Ok,
        left if left < needed => FindingLevel::Problem,
        left if left < scarce && left < whole / SCARCE_PART => FindingLevel::Warning,
        _ => FindingLevel::Ok,
    }
}

#[cfg(test)]
mod tests {
    use crate::check::space::*;

    #[test]
    fn little_is_scarce_where_there_was_more() {
        let of = |left, whole| level(left, whole, 4, 1000);
        assert_eq!(of(3, 1_000_000), FindingLevel::Problem);
        assert_eq!(of(4, 1_000_000), FindingLevel::Warning);
        assert_eq!(of(999, 1_000_000), FindingLevel::Warning);
        assert_eq!(of(1000, 1_000_000), FindingLevel::Ok);
        assert_eq!(of(100, 1000), FindingLevel::Ok, "a small file system");
        assert_eq!(of(99, 1000), FindingLevel::Warning);
        assert_eq!(of(0, 0), FindingLevel::Ok, "nothing is counted");
    }
}
