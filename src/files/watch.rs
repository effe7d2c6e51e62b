//! Reports changes of files: inotify(7) on the directories, since editors and deployment tools
//! replace files rather than write to them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::files::links::{Apart, entries};
use crate::files::shared::is_shared;
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

/// Files under watch, each with a key that says what it belongs to. Where the kernel refuses to watch,
/// they are looked at every [`POLL`].
pub struct Watch<K = ()> {
    /// `None` if no inotify instance is to be had, or if it does not work.
    queue: Option<AsyncFd<OwnedFd>>,
    /// The watched names and their keys, by the watch on their directory.
    names: HashMap<i32, HashMap<OsString, BTreeSet<K>>>,
    /// Paths may be on a file system that hangs.
    apart: Apart<Result<WatchedPath, WatchRefusal>>,
    /// The files that are not watched, their keys, and what they were like when last looked at.
    polled: RefCell<HashMap<PathBuf, (FileMark, BTreeSet<K>)>>,
    /// When they are looked at again.
    next_look: Cell<Option<Instant>>,
    /// Why the kernel refuses to watch, until [`Watch::take_refusal`].
    refusal: Cell<Option<io::Error>>,
    /// Changes that are not reported yet.
    unreported: RefCell<Option<Unreported<K>>>,
}

/// A file under watch.
struct WatchedPath {
    /// The watches, each with the name in its directory.
    names: Vec<(i32, OsString)>,
    /// If its file system is shared with other machines: their changes make no event here.
    shared: Option<FileMark>,
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
fn watch_entries(queue: Option<&OwnedFd>, path: &Path) -> Result<WatchedPath, WatchRefusal> {
    let refused = |error: io::Error| WatchRefusal { error, look: look_at(path) };
    let queue = queue.ok_or_else(|| refused(Errno::MFILE.into()))?;
    let mut names = Vec::new();
    for (directory, name) in entries(path) {
        match inotify::add_watch(queue, &directory, CHANGES) {
            Ok(id) => names.push((id, name)),
            Err(error @ (Errno::NOSPC | Errno::NOMEM)) => return Err(refused(error.into())),
            // A directory that does not exist cannot be watched.
            Err(_) => {}
        }
    }
    let shared = is_shared(path).then(|| look_at(path));
    Ok(WatchedPath { names, shared })
}

/// The keys of files that have changed.
#[derive(Debug, Clone)]
pub struct Changes<K> {
    pub keys: BTreeSet<K>,
    /// The kernel had no room for all events: anything may have changed.
    pub are_incomplete: bool,
}

/// Changes, and when they are reported.
struct Unreported<K> {
    changes: Changes<K>,
    /// If no more changes come.
    quiet_at: Instant,
    /// In any case.
    due_at: Instant,
}

impl<K: Ord + Clone> Changes<K> {
    fn none() -> Self {
        Self { keys: BTreeSet::new(), are_incomplete: false }
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.are_incomplete
    }

    fn add(&mut self, more: Self) {
        self.keys.extend(more.keys);
        self.are_incomplete |= more.are_incomplete;
    }
}

impl<K> Unreported<K> {
    fn now(changes: Changes<K>) -> Self {
        Self { changes, quiet_at: sleep(QUIET).deadline(), due_at: sleep(MAX_DELAY).deadline() }
    }
}

impl Watch {
    /// Watches these files, and every link that leads to them.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        Self::keyed(paths.into_iter().map(|path| (path, ())))
    }
}

impl<K: Ord + Clone> Watch<K> {
    /// Watches files, each with its key.
    pub fn keyed(paths: impl IntoIterator<Item = (impl AsRef<Path>, K)>) -> Self {
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
            unreported: RefCell::default(),
        };
        for (path, key) in paths {
            watch.watch(path.as_ref(), &key);
        }
        watch.apart.rest();
        if refusal.is_some() {
            watch.refusal.set(refusal);
        }
        watch
    }

    /// Watches one more. One on a file system that hangs is not watched.
    pub fn add(&mut self, path: &Path, key: &K) {
        self.watch(path, key);
        self.apart.rest();
    }

    fn watch(&mut self, path: &Path, key: &K) {
        let look = match self.apart.ask(path) {
            None => None,
            Some(Ok(WatchedPath { names, shared })) => {
                for (id, name) in names {
                    self.names.entry(id).or_default().entry(name).or_default().insert(key.clone());
                }
                shared
            }
            Some(Err(WatchRefusal { error, look })) => {
                self.refusal.set(Some(error));
                Some(look)
            }
        };
        if let Some(look) = look {
            let mut polled = self.polled.borrow_mut();
            let (mark, keys) = polled.entry(path.to_owned()).or_default();
            *mark = look;
            keys.insert(key.clone());
        }
    }

    /// Watches the files with these keys no longer.
    pub fn remove(&mut self, keys: &BTreeSet<K>) {
        let queue = self.queue.as_ref().map(AsyncFd::get_ref);
        self.names.retain(|id, names| {
            names.retain(|_, of_name| {
                of_name.retain(|key| !keys.contains(key));
                !of_name.is_empty()
            });
            if names.is_empty()
                && let Some(queue) = queue
            {
                // It may have ended with its directory.
                let _ = inotify::remove_watch(queue, *id);
            }
            !names.is_empty()
        });
        self.polled.get_mut().retain(|_, (_, of_path)| {
            of_path.retain(|key| !keys.contains(key));
            !of_path.is_empty()
        });
    }

    /// Why the kernel refuses to watch some of the files, for the log. It is told once.
    pub fn take_refusal(&self) -> Option<io::Error> {
        self.refusal.take()
    }

    /// Waits until at least one of them has changed, and no more changes come. Can be dropped and
    /// called again at any time: nothing is lost.
    pub async fn changed(&self) -> Changes<K> {
        loop {
            let quiet_at = self.unreported.borrow().as_ref().map(|unreported| unreported.quiet_at);
            match quiet_at {
                None => {
                    let changes = self.next().await;
                    self.unreported.replace(Some(Unreported::now(changes)));
                }
                Some(quiet_at) => match timeout_at(quiet_at, self.next()).await {
                    Ok(more) => {
                        if let Some(unreported) = &mut *self.unreported.borrow_mut() {
                            unreported.quiet_at = sleep(QUIET).deadline().min(unreported.due_at);
                            unreported.changes.add(more);
                        }
                    }
                    Err(_quiet) => {
                        let unreported = self.unreported.take();
                        return unreported.map_or_else(Changes::none, |unreported| unreported.changes);
                    }
                },
            }
        }
    }

    /// Drops all changes so far, since the files are about to be read; gives them.
    pub fn forget(&self) -> Changes<K> {
        let mut changes = self.unreported.take().map_or_else(Changes::none, |unreported| unreported.changes);
        if let Some(queue) = &self.queue {
            while let Ok(more) = self.read(queue.get_ref()) {
                changes.add(more);
            }
        }
        changes
    }

    /// Takes the place of another watch, with its changes that are not reported yet.
    pub fn succeed(self, before: &Self) -> Self {
        let changes = before.forget();
        if !changes.is_empty() {
            self.unreported.replace(Some(Unreported::now(changes)));
        }
        self
    }

    /// Waits until one of them has changed, though more changes may follow at once.
    pub async fn next(&self) -> Changes<K> {
        let (watches, polls) = (self.queue.is_some(), !self.polled.borrow().is_empty());
        tokio::select! {
            changes = self.next_event(), if watches => changes,
            changes = self.next_difference(), if polls => changes,
            else => std::future::pending().await,
        }
    }

    async fn next_event(&self) -> Changes<K> {
        loop {
            match self.next_change().await {
                Ok(changes) if !changes.is_empty() => return changes,
                Ok(_) => {}
                Err(error) => {
                    // No kernel is known to do this. A reload makes a new watch.
                    self.refusal.set(Some(error));
                    return std::future::pending().await;
                }
            }
        }
    }

    /// Waits until a file that is not watched looks different.
    async fn next_difference(&self) -> Changes<K> {
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
            let mut changes = Changes::none();
            for (look, path) in looks {
                // It may have been removed meanwhile.
                let Some((mark, keys)) = polled.get_mut(&path) else { continue };
                if std::mem::replace(mark, look) != look {
                    changes.keys.extend(keys.iter().cloned());
                }
            }
            if !changes.is_empty() {
                return changes;
            }
        }
    }

    /// Waits for some changes in the directories; empty if none of them matters.
    async fn next_change(&self) -> io::Result<Changes<K>> {
        let Some(queue) = &self.queue else { return std::future::pending().await };
        loop {
            let mut ready = queue.readable().await?;
            match ready.try_io(|queue| Ok(self.read(queue.get_ref())?)) {
                Ok(changes) => return changes,
                Err(_would_block) => {}
            }
        }
    }

    fn read(&self, queue: &OwnedFd) -> Result<Changes<K>, Errno> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(queue, &mut buffer);
        let mut changes = Changes::none();
        loop {
            let event = events.next()?;
            changes.are_incomplete |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            if let Some(names) = self.names.get(&event.wd()) {
                match event.file_name().map(|name| OsStr::from_bytes(name.to_bytes())) {
                    Some(name) => changes.keys.extend(names.get(name).into_iter().flatten().cloned()),
                    // It is about the directory itself.
                    None => changes.keys.extend(names.values().flatten().cloned()),
                }
            }
            if events.is_buffer_empty() {
                return Ok(changes);
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
            tokio::time::timeout(time, watch.next_change()).await.is_ok_and(|it| !it.unwrap().is_empty())
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
            assert!(second.unreported.borrow().is_none(), "nothing that matters has changed");
            fs::write(&path, "b").unwrap();
            let third = Watch::new([path.as_path()]).succeed(&second);
            third.changed().await;
            assert!(third.forget().is_empty(), "it is reported once");
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
            watch.polled.get_mut().insert(path.clone(), (look, BTreeSet::from([()])));
            watch.polled.get_mut().insert(other, (None, BTreeSet::from([()])));
            fs::write(&path, "longer").unwrap();
            // Begun anew before the time has come, it looks all the same.
            assert!(tokio::time::timeout(POLL / 4, watch.next()).await.is_err());
            watch.next().await;
            assert!(watch.polled.borrow()[&path].0 != look);
        });
    }

    #[test]
    fn a_change_is_reported_with_its_key_until_the_key_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let mut watch = Watch::keyed(std::iter::empty::<(PathBuf, &str)>());
            for key in ["a", "b", "c"] {
                fs::create_dir(dir.path().join(key)).unwrap();
                watch.add(&dir.path().join(key).join("state"), &key);
            }
            for key in ["a", "c"] {
                fs::write(dir.path().join(key).join("state"), key).unwrap();
            }
            let changes = watch.changed().await;
            assert_eq!((changes.keys, changes.are_incomplete), (BTreeSet::from(["a", "c"]), false));
            watch.remove(&BTreeSet::from(["a"]));
            for key in ["a", "b"] {
                fs::write(dir.path().join(key).join("state"), "again").unwrap();
            }
            assert_eq!(watch.forget().keys, BTreeSet::from(["b"]));
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
