//! A note on a file, kept in an extended attribute (xattr(7)): it goes where the file goes, and no reader
//! of the file sees it. File systems without such attributes keep none.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{XattrFlags, fsetxattr, getxattr};

const NAME: &str = "user.zg-tokend";

/// The longest note, in bytes: ext4 keeps all attributes of a file in one block.
const MAX_LEN: usize = 2048;

/// Best effort: the file is as good without it.
pub(super) fn set(file: impl AsFd, note: &str) {
    let _ = fsetxattr(file, NAME, note.as_bytes(), XattrFlags::empty());
}

/// The note of a file, if there is one.
pub fn of_path(path: &Path) -> Option<String> {
    let mut note = vec![0; MAX_LEN];
    let len = getxattr(path, NAME, &mut note[..]).ok()?;
    note.truncate(len);
    String::from_utf8(note).ok()
}
