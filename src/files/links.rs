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
    Apart(Apart<PathBuf>),
}

/// Asks about paths on another thread, so that a file system that hangs costs the caller no more than
/// [`HANGS_AFTER`] for each directory.
pub struct Apart<T> {
    /// Makes what answers. Each thread has its own.
    make: Box<dyn Fn() -> PathAnswer<T>>,
    thread: RefCell<Option<AnswerThread<T>>>,
    /// The directories of paths that hang.
    hung: RefCell<HashSet<PathBuf>>,
}

/// Answers a question about a path.
pub type PathAnswer<T> = Box<dyn FnMut(&Path) -> T + Send>;

/// It answers for one path after the other, and ends when this is dropped.
struct AnswerThread<T> {
    paths: Sender<PathBuf>,
    answers: Receiver<T>,
}

impl Links {
    pub fn here() -> Self {
        Self::Here(RefCell::default())
    }

    pub fn apart() -> Self {
        Self::Apart(Apart::new(|| {
            let mut directories = Directories::default();
            Box::new(move |path| directories.follow(path))
        }))
    }

    /// Each path without links. A part that does not exist, or cannot be looked at, stays as it is.
    pub fn follow(&self, paths: &[PathBuf]) -> Vec<PathBuf> {
        match self {
            Self::Here(directories) => {
                paths.iter().map(|path| directories.borrow_mut().follow(path)).collect()
            }
            Self::Apart(apart) => {
                let answers = apart.ask_all(paths).into_iter().zip(paths);
                answers.map(|(answer, path)| answer.unwrap_or_else(|| normal(path))).collect()
            }
        }
    }
}

impl<T: Send + 'static> Apart<T> {
    pub fn new(make: impl Fn() -> PathAnswer<T> + 'static) -> Self {
        Self { make: Box::new(make), thread: RefCell::default(), hung: RefCell::default() }
    }

    /// The answer for this path; `None` if its file system hangs.
    pub fn ask(&self, path: &Path) -> Option<T> {
        self.ask_all(&[path.to_owned()]).pop().flatten()
    }

    /// The answer for each path; `None` where its file system hangs. Each question that waits for the answer
    /// to the one before takes two switches between threads: these are asked together.
    pub fn ask_all(&self, paths: &[PathBuf]) -> Vec<Option<T>> {
        let is_hung = |path: &Path| self.hung.borrow().contains(path.parent().unwrap_or(path));
        let mut answers = Vec::with_capacity(paths.len());
        'anew: while let Some(rest @ [first, ..]) = paths.get(answers.len()..) {
            if is_hung(first) {
                answers.push(None);
                continue;
            }
            let Some(thread) = self.thread.take().or_else(|| AnswerThread::start((self.make)())) else {
                // No thread can be had: late rather than never.
                answers.push(Some((self.make)()(first)));
                continue;
            };
            for path in rest.iter().filter(|path| !is_hung(path)) {
                // It ends after this one.
                let _ = thread.paths.send(path.clone());
            }
            for path in rest {
                if is_hung(path) {
                    answers.push(None);
                } else if let Ok(answer) = thread.answers.recv_timeout(HANGS_AFTER) {
                    answers.push(Some(answer));
                } else {
                    // This thread is left behind, and another one gets the rest.
                    self.hung.borrow_mut().insert(path.parent().unwrap_or(path).to_owned());
                    answers.push(None);
                    continue 'anew;
                }
            }
            self.thread.replace(Some(thread));
        }
        answers
    }

    /// Lets the thread end until the next question.
    pub fn rest(&self) {
        self.thread.take();
    }
}

impl<T: Send + 'static> AnswerThread<T> {
    /// `None` if there are too many threads.
    fn start(mut answer: PathAnswer<T>) -> Option<Self> {
        let (paths, receive_path) = mpsc::channel::<PathBuf>();
        let (send_answer, answers) = mpsc::channel();
        let work = move || {
            for path in receive_path {
                if send_answer.send(answer(&path)).is_err() {
                    break;
                }
            }
        };
        std::thread::Builder::new().name("links".into()).spawn(work).ok()?;
        Some(Self { paths, answers })
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
    use std::sync::{Arc, Mutex};

    use crate::files::links::*;

    /// Paths below /hung have no answer until the second is dropped.
    fn hanging() -> (Apart<PathBuf>, Sender<()>) {
        let (release, hang) = mpsc::channel::<()>();
        let hang = Arc::new(Mutex::new(hang));
        let apart = Apart::new(move || {
            let hang = Arc::clone(&hang);
            Box::new(move |path: &Path| {
                if path.starts_with("/hung") {
                    let _ = hang.lock().unwrap().recv();
                }
                path.to_owned()
            })
        });
        (apart, release)
    }

    #[test]
    fn a_path_that_hangs_is_given_up_and_its_directory_is_not_asked_again() {
        let (apart, release) = hanging();
        assert_eq!(apart.ask(Path::new("/hung/one")), None);
        assert_eq!(apart.ask(Path::new("/well/one")), Some("/well/one".into()));
        assert!(apart.hung.borrow().contains(Path::new("/hung")));
        assert_eq!(apart.ask(Path::new("/hung/two")), None);
        let paths = ["/well/a", "/hung/b", "/well/c"].map(PathBuf::from);
        assert_eq!(apart.ask_all(&paths), [Some(paths[0].clone()), None, Some(paths[2].clone())]);
        apart.rest();
        assert_eq!(apart.ask(Path::new("/well/two")), Some("/well/two".into()));
        drop(release);
    }

    #[test]
    fn what_is_asked_after_a_path_that_hangs_is_answered() {
        let (apart, release) = hanging();
        let paths = ["/well/a", "/hung/b", "/well/c", "/hung/d", "/well/e"].map(PathBuf::from);
        let answered = |place: usize| Some(paths[place].clone());
        assert_eq!(apart.ask_all(&paths), [answered(0), None, answered(2), None, answered(4)]);
        assert_eq!(apart.ask_all(&[]), []);
        drop(release);
    }

    #[test]
    fn a_loop_of_links_is_left() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert!(entries(&dir.path().join("a")).len() <= MAX_LINKS);
    }
}
