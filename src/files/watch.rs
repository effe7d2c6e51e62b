//! Notices when a file changes, without looking: inotify(7) on the directories, since editors
//! and deployment tools replace files rather than write to them.

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

use crate::timer::watched;

/// A change counts once nothing has happened for this long: an editor takes several steps, and so
/// does who edits two files.
const SETTLED: Duration = Duration::from_secs(1);

/// A file that never comes to rest counts as changed after this long all the same.
const RESTLESS: Duration = Duration::from_secs(10);

/// As many links as the kernel follows, path_resolution(7).
const MAX_LINKS: u32 = 40;

/// Everything that can make another file, or none, of a name; and permissions, which decide
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
    queue: AsyncFd<OwnedFd>,
    /// The names that matter, by the watch on their directory.
    names: HashMap<i32, HashSet<OsString>>,
    /// One of them has changed, and nobody has been told yet.
    untold: Cell<Option<Untold>>,
}

/// A change that is not at rest yet.
#[derive(Clone, Copy)]
struct Untold {
    /// When it counts, if no more changes come.
    settles_at: Instant,
    /// When it counts whatever comes.
    counts_at: Instant,
}

impl Untold {
    fn now() -> Self {
        Self { settles_at: sleep(SETTLED).deadline(), counts_at: sleep(RESTLESS).deadline() }
    }
}

impl Watch {
    /// Watches these files, and every link that leads to them.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a Path>) -> io::Result<Self> {
        let queue = watched(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)?;
        let mut watch = Self { queue, names: HashMap::new(), untold: Cell::new(None) };
        for path in paths {
            watch.add(path);
        }
        Ok(watch)
    }

    /// Watches one more. A directory that does not exist cannot be watched, and is not.
    pub fn add(&mut self, path: &Path) {
        for (directory, name) in steps(path) {
            if let Ok(id) = inotify::add_watch(self.queue.get_ref(), &directory, CHANGES) {
                self.names.entry(id).or_default().insert(name);
            }
        }
    }

    /// Waits until at least one of them has changed, and no more changes come. Dropped before, it
    /// forgets nothing, and goes on where it was: whoever waits for other things as well may call
    /// it many times a second.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            match self.untold.get() {
                None => {
                    self.next().await?;
                    self.untold.set(Some(Untold::now()));
                }
                Some(untold) => match timeout_at(untold.settles_at, self.next()).await {
                    Ok(change) => {
                        change?;
                        let settles_at = sleep(SETTLED).deadline().min(untold.counts_at);
                        self.untold.set(Some(Untold { settles_at, ..untold }));
                    }
                    Err(_at_rest) => {
                        self.untold.set(None);
                        return Ok(());
                    }
                },
            }
        }
    }

    /// Forgets what has changed so far, since it is about to be read; true if anything has.
    pub fn forget(&self) -> bool {
        let mut changed = self.untold.take().is_some();
        while let Ok(matters) = self.read(self.queue.get_ref()) {
            changed |= matters;
        }
        changed
    }

    /// Takes the place of another watch. What that has seen is told by this one.
    pub fn succeed(self, before: &Self) -> Self {
        if before.forget() {
            self.untold.set(Some(Untold::now()));
        }
        self
    }

    /// Waits until one of them has changed, though more changes may follow at once.
    pub async fn next(&self) -> io::Result<()> {
        while !self.next_change().await? {}
        Ok(())
    }

    /// Waits for some changes in the directories; true if one of them matters.
    async fn next_change(&self) -> io::Result<bool> {
        loop {
            let mut ready = self.queue.readable().await?;
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

/// The directory entries that decide what `path` is: its own, and those of all links on the way.
fn steps(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut steps = Vec::new();
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let link = path.ancestors().filter(|step| step.is_symlink()).last().map(Path::to_owned);
        let step = link.as_deref().unwrap_or(&path);
        if let (Some(directory), Some(name)) = (step.parent(), step.file_name()) {
            steps.push((directory.to_owned(), name.to_owned()));
        }
        let Some(link) = link else { break };
        let (Ok(target), Some(directory), Ok(rest)) =
            (std::fs::read_link(&link), link.parent(), path.strip_prefix(&link))
        else {
            break;
        };
        path = if rest.as_os_str().is_empty() {
            directory.join(target)
        } else {
            directory.join(target).join(rest)
        };
    }
    steps
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
    fn tells_a_change_to_one_who_has_other_things_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("config.toml"), dir.path().join("other"));
        runtime().block_on(async {
            let watch = Watch::new([path.as_path()]).unwrap();
            std::fs::write(&path, "a").unwrap();
            for _ in 0..50 {
                if tokio::time::timeout(SETTLED / 10, watch.changed()).await.is_ok() {
                    return;
                }
                std::fs::write(&other, "b").unwrap();
            }
            panic!("a wait that is begun anew never ends");
        });
    }

    #[test]
    fn what_one_watch_has_seen_its_successor_tells() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("config.toml"), dir.path().join("other"));
        runtime().block_on(async {
            let first = Watch::new([path.as_path()]).unwrap();
            std::fs::write(&other, "a").unwrap();
            let second = Watch::new([path.as_path()]).unwrap().succeed(&first);
            assert!(second.untold.get().is_none(), "nothing that matters has changed");
            std::fs::write(&path, "b").unwrap();
            let third = Watch::new([path.as_path()]).unwrap().succeed(&second);
            third.changed().await.unwrap();
            assert!(!third.forget(), "it is told once");
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

    #[test]
    fn a_loop_of_links_is_left() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert!(steps(&dir.path().join("a")).len() <= MAX_LINKS as usize);
    }
}
