//! Reports changes of files: inotify(7) on the directories, since editors and deployment tools
//! replace files rather than write to them.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

use crate::files::links::entries;
use crate::files::look::{Looks, is_shared};
use crate::timer::async_fd;

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

/// Files under watch.
pub struct Watch {
    /// `None` if the kernel refuses one.
    queue: Option<AsyncFd<OwnedFd>>,
    /// Those that are looked at instead.
    looks: Looks,
    /// The watched names, by the watch on their directory.
    names: HashMap<i32, HashSet<OsString>>,
    /// A change that is not reported yet.
    unreported: Cell<Option<Unreported>>,
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
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a Path>) -> io::Result<Self> {
        // The limit is for all processes of a user, and of all containers with that user id.
        let queue = match inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC) {
            Ok(queue) => Some(async_fd(queue)?),
            Err(_) => None,
        };
        let looks = Looks::default();
        let mut watch = Self { queue, looks, names: HashMap::new(), unreported: Cell::new(None) };
        for path in paths {
            watch.add(path);
        }
        Ok(watch)
    }

    /// Watches one more. A directory that does not exist cannot be watched.
    pub fn add(&mut self, path: &Path) {
        let Some(queue) = &self.queue else { return self.looks.add(path) };
        if is_shared(path) {
            self.looks.add(path);
        }
        for (directory, name) in entries(path) {
            match inotify::add_watch(queue.get_ref(), &directory, CHANGES) {
                Ok(id) => drop(self.names.entry(id).or_default().insert(name)),
                // All watches are used up.
                Err(Errno::NOSPC | Errno::NOMEM) => self.looks.add(path),
                Err(_) => {}
            }
        }
    }

    /// The files that are looked at each minute, since no change of them is told.
    pub fn unwatched(&self) -> Vec<PathBuf> {
        self.looks.paths()
    }

    /// Waits until at least one of them has changed, and no more changes come. Can be dropped and
    /// called again at any time: nothing is lost.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            match self.unreported.get() {
                None => {
                    self.next().await?;
                    self.unreported.set(Some(Unreported::now()));
                }
                Some(unreported) => match timeout_at(unreported.quiet_at, self.next()).await {
                    Ok(change) => {
                        change?;
                        let quiet_at = sleep(QUIET).deadline().min(unreported.due_at);
                        self.unreported.set(Some(Unreported { quiet_at, ..unreported }));
                    }
                    Err(_quiet) => {
                        self.unreported.set(None);
                        return Ok(());
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
        self.looks.look() || changed
    }

    /// Takes the place of another watch, with its changes that are not reported yet.
    pub fn succeed(self, before: &Self) -> Self {
        if before.forget() {
            self.unreported.set(Some(Unreported::now()));
        }
        self
    }

    /// Waits until one of them has changed, though more changes may follow at once.
    pub async fn next(&self) -> io::Result<()> {
        tokio::select! {
            told = self.next_told() => told,
            () = self.looks.changed() => Ok(()),
        }
    }

    async fn next_told(&self) -> io::Result<()> {
        let Some(queue) = &self.queue else { return std::future::pending().await };
        while !self.next_change(queue).await? {}
        Ok(())
    }

    /// Waits for some changes in the directories; true if one of them matters.
    async fn next_change(&self, queue: &AsyncFd<OwnedFd>) -> io::Result<bool> {
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
            let watch = Watch::new([path]).unwrap();
            change();
            // All changes are in the queue already when this waits.
            tokio::time::timeout(time, watch.next_change(watch.queue.as_ref().unwrap()))
                .await
                .is_ok_and(|it| it.unwrap())
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
        std::fs::write(&path, "a").unwrap();
        assert!(notices(&path, || std::fs::write(&path, "b").unwrap()), "a write");
        std::fs::write(&other, "c").unwrap();
        assert!(notices(&path, || std::fs::rename(&other, &path).unwrap()), "a replacement");
        assert!(notices(&path, || std::fs::remove_file(&path).unwrap()), "a removal");
        assert!(notices(&path, || std::fs::write(&path, "d").unwrap()), "a creation");
        assert!(
            !notices_within(Duration::from_secs(1), &path, || std::fs::write(&other, "e").unwrap()),
            "another file"
        );
    }

    #[test]
    fn a_wait_that_is_begun_anew_reports_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("config.toml"), dir.path().join("other"));
        runtime().block_on(async {
            let watch = Watch::new([path.as_path()]).unwrap();
            std::fs::write(&path, "a").unwrap();
            for _ in 0..50 {
                if tokio::time::timeout(QUIET / 10, watch.changed()).await.is_ok() {
                    return;
                }
                std::fs::write(&other, "b").unwrap();
            }
            panic!("a wait that is begun anew never ends");
        });
    }

    #[test]
    fn a_successor_reports_the_changes_of_the_watch_before() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("config.toml"), dir.path().join("other"));
        runtime().block_on(async {
            let first = Watch::new([path.as_path()]).unwrap();
            std::fs::write(&other, "a").unwrap();
            let second = Watch::new([path.as_path()]).unwrap().succeed(&first);
            assert!(second.unreported.get().is_none(), "nothing that matters has changed");
            std::fs::write(&path, "b").unwrap();
            let third = Watch::new([path.as_path()]).unwrap().succeed(&second);
            third.changed().await.unwrap();
            assert!(!third.forget(), "it is reported once");
        });
    }

    #[test]
    fn notices_a_link_that_leads_elsewhere() {
        // As Kubernetes deploys: config -> ..data/config, ..data -> v1; then ..data -> v2.
        let dir = tempfile::tempdir().unwrap();
        for version in ["v1", "v2"] {
            std::fs::create_dir(dir.path().join(version)).unwrap();
            std::fs::write(dir.path().join(version).join("config"), version).unwrap();
        }
        symlink("v1", dir.path().join("..data")).unwrap();
        let path = dir.path().join("config");
        symlink("..data/config", &path).unwrap();
        symlink("v2", dir.path().join("..new")).unwrap();
        let swap = || std::fs::rename(dir.path().join("..new"), dir.path().join("..data")).unwrap();
        assert!(notices(&path, swap));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "v2");
        assert!(
            notices(&path, || std::fs::write(dir.path().join("v2/config"), "v3").unwrap()),
            "the last target"
        );
    }
}
