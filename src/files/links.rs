//! Following symlinks by path, to compare two paths to one file and to watch all links of a path.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// As many symlinks as the kernel follows (path_resolution(7)).
pub(super) const MAX_LINKS: usize = 40;

/// Follows links, each directory's once: a thousand accounts share a few.
#[derive(Default)]
pub struct Links {
    directories: RefCell<HashMap<PathBuf, PathBuf>>,
}

impl Links {
    /// The path without links. A part that does not exist, or cannot be looked at, stays as it is.
    pub fn follow(&self, path: &Path) -> PathBuf {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { break };
            let parent = self.directory(parent);
            let here = parent.join(name);
            match fs::read_link(&here) {
                Ok(leads_to) => path = parent.join(leads_to),
                Err(_) => return here,
            }
        }
        normal(&path)
    }

    fn directory(&self, path: &Path) -> PathBuf {
        if let Some(known) = self.directories.borrow().get(path) {
            return known.clone();
        }
        let found = fs::canonicalize(path).unwrap_or_else(|_| match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => self.directory(parent).join(name),
            _ => normal(path),
        });
        self.directories.borrow_mut().insert(path.to_owned(), found.clone());
        found
    }
}

/// The path without `.` and `..`, as if there were no links.
pub fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            component => normal.push(component),
        }
    }
    normal
}

/// The directory entries that decide where `path` leads: its own, and those of all links on the way.
pub(super) fn entries(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut entries = Vec::new();
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let link = path.ancestors().filter(|path| path.is_symlink()).last().map(Path::to_owned);
        let entry = link.as_deref().unwrap_or(&path);
        if let (Some(directory), Some(name)) = (entry.parent(), entry.file_name()) {
            entries.push((directory.to_owned(), name.to_owned()));
        }
        let Some(link) = link else { break };
        let (Ok(target), Some(directory), Ok(rest)) =
            (fs::read_link(&link), link.parent(), path.strip_prefix(&link))
        else {
            break;
        };
        path = if rest.as_os_str().is_empty() {
            directory.join(target)
        } else {
            directory.join(target).join(rest)
        };
    }
    entries
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use crate::files::links::*;

    #[test]
    fn a_loop_of_links_is_left() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert!(entries(&dir.path().join("a")).len() <= MAX_LINKS);
    }
}
