//! Where a path leads to: two paths to one file are compared as one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// As many symlinks as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Follows links, each directory's once: a thousand accounts share a few.
#[derive(Default)]
pub struct Links {
    directories: RefCell<HashMap<PathBuf, PathBuf>>,
}

impl Links {
    /// The path without links. What does not exist, or cannot be looked at, is where it says.
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
