//! Whether the configured owner and group of a file can get to it: every directory on the way must let
//! them pass.

use std::path::{Path, PathBuf};

use rustix::fs::{Stat, getxattr, stat};

use crate::account::token_file::look_up;
use crate::config::TokenFile;
use crate::files::owner;

/// A directory that a reader of the file cannot enter.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reader} cannot enter {}", directory.display())]
pub struct Barrier {
    directory: PathBuf,
    reader: Reader,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Reader {
    #[error("user {}", owner::user_name(*.0))]
    User(u32),
    #[error("members of group {}", owner::group_name(*.0))]
    Group(u32),
    #[error("other users")]
    Everybody,
}

impl Barrier {
    pub fn hint(&self) -> String {
        let directory = self.directory.display();
        match self.reader {
            Reader::User(_) | Reader::Everybody => format!("chmod o+x {directory}"),
            Reader::Group(group) => {
                let name = owner::group_name(group);
                let name = name.trim_start_matches('#');
                format!("chgrp {name} {directory} && chmod g+x {directory}; or chmod o+x {directory}")
            }
        }
    }
}

/// The first directory on the way to the file that keeps out a reader whom owner, group and mode of the
/// file let in. Directories that do not exist yet will be right.
pub fn barrier(file: &TokenFile) -> Option<Barrier> {
    // A bad name has an error of its own.
    let user = look_up("user", file.owner.as_ref(), owner::user_id).ok().flatten();
    let group = look_up("group", file.group.as_ref(), owner::group_id).ok().flatten();
    let readers = [
        user.filter(|user| *user != 0).map(Reader::User),
        group.filter(|_| file.mode & 0o040 != 0).map(Reader::Group),
        (file.mode & 0o004 != 0).then_some(Reader::Everybody),
    ];
    let mut readers = readers.into_iter().flatten().peekable();
    readers.peek()?;
    // With symlinks resolved, which lead through other directories.
    let directory = file.path.ancestors().skip(1).find_map(|ancestor| ancestor.canonicalize().ok())?;
    let directories: Vec<_> =
        directory.ancestors().filter_map(|directory| Some((directory, stat(directory).ok()?))).collect();
    readers.find_map(|reader| {
        let closed = directories.iter().rev().find(|(path, found)| !lets_in(path, found, reader))?;
        Some(Barrier { directory: closed.0.to_owned(), reader })
    })
}

fn lets_in(path: &Path, found: &Stat, reader: Reader) -> bool {
    let has = |bit| found.st_mode & bit != 0;
    match reader {
        Reader::User(user) if user == found.st_uid => has(0o100),
        // It may be a member of the directory's group.
        Reader::User(_) => has(0o011) || has_acl(path),
        Reader::Group(group) if group == found.st_gid => has(0o010),
        Reader::Group(_) | Reader::Everybody => has(0o001) || has_acl(path),
    }
}

/// A list of users and groups beside the mode (acl(5)), which may let in anybody.
fn has_acl(path: &Path) -> bool {
    getxattr(path, "system.posix_acl_access", &mut [0; 0][..]).is_ok_and(|len| len > 0)
}
