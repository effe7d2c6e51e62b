//! Following symlinks by path, to compare two paths to one file and to watch all links of a path.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

/// As many symlinks as the kernel follows (path_resolution(7)).
pub(super) const MAX_LINKS: usize = 40;

/// A file system that has not found a link for so long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(2);

/// Follows links.
pub enum Links {
    /// On the thread that asks.
    Here(RefCell<Directories>),
    /// On a thread of their own, so that a file system that hangs costs the caller no more than
    /// [`HANGS_AFTER`] for each directory.
    Apart(Apart),
}

/// A thread that follows links.
#[derive(Default)]
pub struct Apart {
    follower: RefCell<Option<Follower>>,
    /// The directories of paths that hang.
    hung: RefCell<HashSet<PathBuf>>,
}

/// The thread: it follows one path after the other. It ends when this is dropped.
struct Follower {
    paths: Sender<PathBuf>,
    followed: Receiver<PathBuf>,
}

impl Links {
    pub fn here() -> Self {
        Self::Here(RefCell::default())
    }

    pub fn apart() -> Self {
        Self::Apart(Apart::default())
    }

    /// The path without links. A part that does not exist, or cannot be looked at, stays as it is.
    pub fn follow(&self, path: &Path) -> PathBuf {
        match self {
            Self::Here(directories) => directories.borrow_mut().follow(path),
            Self::Apart(apart) => apart.follow(path),
        }
    }
}

impl Apart {
    fn follow(&self, path: &Path) -> PathBuf {
        let directory = path.parent().unwrap_or(path);
        if self.hung.borrow().contains(directory) {
            return normal(path);
        }
        let Some(follower) = self.follower.take().or_else(Follower::start) else {
            // Late rather than never.
            return Directories::default().follow(path);
        };
        if let Some(followed) = follower.follow(path) {
            self.follower.replace(Some(follower));
            followed
        } else {
            self.hung.borrow_mut().insert(directory.to_owned());
            normal(path)
        }
    }
}

impl Follower {
    /// `None` if there are too many threads.
    fn start() -> Option<Self> {
        let (send_path, receive_path) = mpsc::channel::<PathBuf>();
        let (send_followed, followed) = mpsc::channel();
        let mut directories = Directories::default();
        let follow = move || {
            for path in receive_path {
                if send_followed.send(directories.follow(&path)).is_err() {
                    break;
                }
            }
        };
        std::thread::Builder::new().name("links".into()).spawn(follow).ok()?;
        Some(Self { paths: send_path, followed })
    }

    /// `None` if the file system hangs.
    fn follow(&self, path: &Path) -> Option<PathBuf> {
        self.paths.send(path.to_owned()).ok()?;
        self.followed.recv_timeout(HANGS_AFTER).ok()
    }
}

/// Where directories lead to, each followed once: a thousand accounts share a few.
#[derive(Default)]
pub struct Directories(HashMap<PathBuf, PathBuf>);

impl Directories {
    fn follow(&mut self, path: &Path) -> PathBuf {
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

    fn directory(&mut self, path: &Path) -> PathBuf {
        if let Some(known) = self.0.get(path) {
            return known.clone();
        }
        let found = fs::canonicalize(path).unwrap_or_else(|_| match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => self.directory(parent).join(name),
            _ => normal(path),
        });
        self.0.insert(path.to_owned(), found.clone());
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
