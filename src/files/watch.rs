//! Reports changes of files: inotify(7) on the directories, since editors and deployment tools
//! replace files rather than write to them.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::files::links::{Apart, entries};
use crate::timer::async_fd;
use crate::workers;

/// A change is reported when nothing has happened for this long: an editor takes several steps, and
/// a person may edit two files.
const QUIET: Duration = Duration::from_secs(1);

/// A file that changes again and again is reported after this long all the same.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// Changes that can put another file, or none, in place of a name; and permissions, which decide
/// whether it can be read.
const CHANGES: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::ONLYDIR);

/// How often files are looked at that the kernel refuses to watch: as often as a person who waits for a
/// new config to be used.
pub const POLL: Duration = Duration::from_secs(10);

/// Files under watch. Where the kernel refuses to watch, they are looked at every [`POLL`].
pub struct Watch {
    /// `None` if no inotify instance is to be had, or if it does not work.
    queue: Option<AsyncFd<OwnedFd>>,
    /// The watched names, by the watch on their directory.
    names: HashMap<i32, HashSet<OsString>>,
    /// Paths may be on a file system that hangs.
    apart: Apart<Result<Vec<(i32, OsString)>, WatchRefusal>>,
    /// The files that are not watched, and what they were like when last looked at.
    polled: RefCell<HashMap<PathBuf, FileMark>>,
    /// When they are looked at again.
    next_look: Cell<Option<Instant>>,
    /// Why the kernel refuses to watch, until [`Watch::take_refusal`].
    refusal: Cell<Option<io::Error>>,
    /// A change that is not reported yet.
    unreported: Cell<Option<Unreported>>,
}

/// The kernel refuses to watch a file.
struct WatchRefusal {
    error: io::Error,
    look: FileMark,
}

/// It differs if a file has changed: device, inode, size, and the times of change.
type FileMark = Option<[i64; 7]>;

fn look_at(path: &Path) -> FileMark {
    let file = fs::metadata(path).ok()?;
    let [device, inode, size] = [file.dev(), file.ino(), file.size()].map(u64::cast_signed);
    Some([device, inode, size, file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()])
}

/// Watches the directories that decide where a path leads.
fn watch_entries(queue: Option<&OwnedFd>, path: &Path) -> Result<Vec<(i32, OsString)>, WatchRefusal> {
    let refused = |error: io::Error| WatchRefusal { error, look: look_at(path) };
    let queue = queue.ok_or_else(|| refused(Errno::MFILE.into()))?;
    let mut watched = Vec::new();
    for (directory, name) in entries(path) {
        match inotify::add_watch(queue, &directory, CHANGES) {
            Ok(id) => watched.push((id, name)),
            Err(error @ (Errno::NOSPC | Errno::NOMEM)) => return Err(refused(error.into())),
            // A directory that does not exist cannot be watched.
            Err(_) => {}
        }
    }
    Ok(watched)
}

/// When a change is reported.
#[derive(Clone, Copy)]
struct Unreported {
    /// If no more changes come.
    quiet_at: Instant,
    /// In any case.
    due_at: Instant,
}

impl Unreported {
    fn now() -> Self {
        Self { quiet_at: sleep(QUIET).deadline(), due_at: sleep(MAX_DELAY).deadline() }
    }
}

impl Watch {
    /// Watches these files, and every link that leads to them.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let created = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(io::Error::from);
        let created = created.and_then(|queue| Ok((queue.try_clone()?, async_fd(queue)?)));
        let (queue, on_thread, refusal) = match created {
            Ok((on_thread, queue)) => (Some(queue), Some(Arc::new(on_thread)), None),
            Err(error) => (None, None, Some(error)),
        };
        let apart = Apart::new(move || {
            let queue = on_thread.clone();
            Box::new(move |path| watch_entries(queue.as_deref(), path))
        });
        let mut watch = Self {
            queue,
            names: HashMap::new(),
            apart,
            polled: RefCell::default(),
            next_look: Cell::new(None),
            refusal: Cell::new(None),
            unreported: Cell::new(None),
        };
        for path in paths {
            watch.watch(path);
        }
        watch.apart.rest();
        if refusal.is_some() {
            watch.refusal.set(refusal);
        }
        watch
    }

    /// Watches one more. One on a file system that hangs is not watched.
    pub fn add(&mut self, path: &Path) {
        self.watch(path);
        self.apart.rest();
    }

    fn watch(&mut self, path: &Path) {
        match self.apart.ask(path) {
            None => {}
            Some(Ok(watched)) => {
                for (id, name) in watched {
                    self.names.entry(id).or_default().insert(name);
                }
            }
            Some(Err(WatchRefusal { error, look })) => {
                self.refusal.set(Some(error));
                self.polled.borrow_mut().insert(path.to_owned(), look);
            }
        }
    }

    /// Why the kernel refuses to watch some of the files, for the log. It is told once.
    pub fn take_refusal(&self) -> Option<io::Error> {
        self.refusal.take()
    }

    /// Waits until at least one of them has changed, and no more changes come. Can be dropped and
    /// called again at any time: nothing is lost.
    pub async fn changed(&self) {
        loop {
            match self.unreported.get() {
                None => {
                    self.next().await;
                    self.unreported.set(Some(Unreported::now()));
                }
                Some(unreported) => match timeout_at(unreported.quiet_at, self.next()).await {
                    Ok(()) => {
                        let quiet_at = sleep(QUIET).deadline().min(unreported.due_at);
                        self.unreported.set(Some(Unreported { quiet_at, ..unreported }));
                    }
                    Err(_quiet) => {
                        self.unreported.set(None);
                        return;
                    }
                },
            }
        }
    }

    /// Drops all changes so far, since the files are about to be read; true if there were any.
    pub fn forget(&self) -> bool {
        let mut changed = self.unreported.take().is_some();
        if let Some(queue) = &self.queue {
            while let Ok(matters) = self.read(queue.get_ref()) {
                changed |= matters;
            }
        }
        changed
    }

    /// Takes the place of another watch, with its changes that are not reported yet.
    pub fn succeed(self, before: &Self) -> Self {
        if before.forget() {
            self.unreported.set(Some(Unreported::now()));
        }
        self
    }

    /// Waits until one of them has changed, though more changes may follow at once.
    pub async fn next(&self) {
        let (watches, polls) = (self.queue.is_some(), !self.polled.borrow().is_empty());
        tokio::select! {
            () = self.next_event(), if watches => {}
            () = self.next_difference(), if polls => {}
            else => std::future::pending().await,
        }
    }

    async fn next_event(&self) {
        loop {
            match self.next_change().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    // No kernel is known to do this. A reload makes a new watch.
                    self.refusal.set(Some(error));
                    return std::future::pending().await;
                }
            }
        }
    }

    /// Waits until a file that is not watched looks different.
    async fn next_difference(&self) {
        loop {
            let next = self.next_look.get().unwrap_or_else(|| sleep(POLL).deadline());
            self.next_look.set(Some(next));
            sleep_until(next).await;
            let paths: Vec<PathBuf> = self.polled.borrow().keys().cloned().collect();
            let looks = workers::run(move || {
                paths.into_iter().map(|path| (look_at(&path), path)).collect::<Vec<_>>()
            });
            let looks = looks.await;
            self.next_look.set(None);
            let mut polled = self.polled.borrow_mut();
            let mut differs = false;
            for (look, path) in looks {
                differs |= polled.insert(path, look).is_some_and(|before| before != look);
            }
            if differs {
                return;
            }
        }
    }

    /// Waits for some changes in the directories; true if one of them matters.
    async fn next_change(&self) -> io::Result<bool> {
        let Some(queue) = &self.queue else { return std::future::pending().await };
        loop {
            let mut ready = queue.readable().await?;
            match ready.try_io(|queue| Ok(self.read(queue.get_ref())?)) {
                Ok(matters) => return matters,
                Err(_would_block) => {}
            }
        }
    }

    fn read(&self, queue: &OwnedFd) -> Result<bool, Errno> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(queue, &mut buffer);
        let mut matters = false;
        loop {
            let event = events.next()?;
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            // An event without a name is about the directory itself, or says that events were lost.
            let names = self.names.get(&event.wd());
            matters |= name.is_none_or(|name| names.is_some_and(|names| names.contains(name)));
            if events.is_buffer_empty() {
                return Ok(matters);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::files::watch::*;
    use std::os::unix::fs::symlink;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Whether `change` is noticed by a watch on `path` within this time.
    fn notices_within(time: Duration, path: &Path, change: impl FnOnce()) -> bool {
        runtime().block_on(async {
            let watch = Watch::new([path]);
            change();
            // All changes are in the queue already when this waits.
            tokio::time::timeout(time, watch.next_change()).await.is_ok_and(|it| it.unwrap())
        })
    }

    /// The same, however slow the machine is.
    fn notices(path: &Path, change: impl FnOnce()) -> bool {
        notices_within(Duration::from_secs(60), path, change)
    }

    #[test]
    fn notices_writes_and_replacements_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("config.toml"), dir.path().join("other"));
        fs::write(&path, "a").unwrap();
        assert!(notices(&path, || fs::write(&path, "b").unwrap()), "a write");
        fs::write(&other, "c").unwrap();
        assert!(notices(&path, || fs::rename(&other, &path).unwrap()), "a replacement");
        assert!(notices(&path, || fs::remove_file(&path).unwrap()), "a removal");
        assert!(notices(&path, || fs::write(&path, "d").unwrap()), "a creation");
        assert!(
            !notices_within(Duration::from_secs(1), &path, || fs::write(&other, "e").unwrap()),
            "another file"
        );
    }

    #[test]
    fn a_wait_that_is_begun_anew_reports_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("config.toml"), dir.path().join("other"));
        runtime().block_on(async {
            let watch = Watch::new([path.as_path()]);
            fs::write(&path, "a").unwrap();
            for _ in 0..50 {
                if tokio::time::timeout(QUIET / 10, watch.changed()).await.is_ok() {
                    return;
                }
                fs::write(&other, "b").unwrap();
            }
            panic!("a wait that is begun anew never ends");
        });
    }

    #[test]
    fn a_successor_reports_the_changes_of_the_watch_before() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("config.toml"), dir.path().join("other"));
        runtime().block_on(async {
            let first = Watch::new([path.as_path()]);
            fs::write(&other, "a").unwrap();
            let second = Watch::new([path.as_path()]).succeed(&first);
            assert!(second.unreported.get().is_none(), "nothing that matters has changed");
            fs::write(&path, "b").unwrap();
            let third = Watch::new([path.as_path()]).succeed(&second);
            third.changed().await;
            assert!(!third.forget(), "it is reported once");
        });
    }

    #[test]
    fn a_file_that_the_kernel_refuses_to_watch_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("config.toml"), dir.path().join("other"));
        fs::write(&path, "a").unwrap();
        runtime().block_on(async {
            let mut watch = Watch::new([]);
            let look = look_at(&path);
            watch.polled.get_mut().insert(path.clone(), look);
            watch.polled.get_mut().insert(other, None);
            fs::write(&path, "longer").unwrap();
            // Begun anew before the time has come, it looks all the same.
            assert!(tokio::time::timeout(POLL / 4, watch.next()).await.is_err());
            watch.next().await;
            assert!(watch.polled.borrow()[&path] != look);
        });
    }

    #[test]
    fn notices_a_link_that_leads_elsewhere() {
        // As Kubernetes deploys: config -> ..data/config, ..data -> v1; then ..data -> v2.
        let dir = tempfile::tempdir().unwrap();
        for version in ["v1", "v2"] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("config"), version).unwrap();
        }
        symlink("v1", dir.path().join("..data")).unwrap();
        let path = dir.path().join("config");
        symlink("..data/config", &path).unwrap();
        symlink("v2", dir.path().join("..new")).unwrap();
        let swap = || fs::rename(dir.path().join("..new"), dir.path().join("..data")).unwrap();
        assert!(notices(&path, swap));
        assert_eq!(fs::read_to_string(&path).unwrap(), "v2");
        assert!(notices(&path, || fs::write(dir.path().join("v2/config"), "v3").unwrap()), "the last target");
    }
}
