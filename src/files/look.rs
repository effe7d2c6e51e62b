//! Files that tell of no change: their file system is another machine's, or the kernel has no more watches.
//! They are looked at each minute.

use std::cell::{Cell, RefCell};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::statfs;
use tokio::time::{Instant, sleep, sleep_until};

/// A person who has just logged in waits no longer, and the look costs little.
const INTERVAL: Duration = Duration::from_secs(60);

/// File systems that others can change without an event here: NFS, SMB, CIFS, FUSE (and virtiofs), 9P,
/// Ceph, AFS, and those of VirtualBox, VMware and Parallels; statfs(2).
const SHARED: [i64; 10] = [
    0x6969,
    0xfe53_4d42,
    0xff53_4d42,
    0x6573_5546,
    0x0102_1997,
    0x00c3_6400,
    0x5346_414f,
    0x786f_4256,
    0xbacb_acbc,
    0x7c7c_6673,
];

/// The size, times and identity of a file; `None` if there is none.
type Stamp = Option<(u64, u64, i64, i64, i64, i64)>;

/// Nothing, or some files.
#[derive(Debug, Default)]
pub(super) struct Looks {
    files: RefCell<Vec<(PathBuf, Stamp)>>,
    next_at: Cell<Option<Instant>>,
}

impl Looks {
    pub(super) fn add(&mut self, path: &Path) {
        let known = self.files.get_mut();
        if !known.iter().any(|(file, _)| file == path) {
            known.push((path.to_owned(), stamp(path)));
        }
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.files.borrow().iter().map(|(path, _)| path.clone()).collect()
    }

    /// Whether one has changed since the last look.
    pub(super) fn look(&self) -> bool {
        let mut changed = false;
        for (path, last) in self.files.borrow_mut().iter_mut() {
            let now = stamp(path);
            changed |= std::mem::replace(last, now) != now;
        }
        changed
    }

    /// Waits until one has changed; for ever if there are none. Can be dropped and called again.
    pub(super) async fn changed(&self) {
        if self.files.borrow().is_empty() {
            return std::future::pending().await;
        }
        loop {
            let at = self.next_at.get().unwrap_or_else(|| sleep(INTERVAL).deadline());
            self.next_at.set(Some(at));
            sleep_until(at).await;
            self.next_at.set(None);
            if self.look() {
                return;
            }
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()))
}

/// Whether changes on this file system may go without an event.
pub(super) fn is_shared(path: &Path) -> bool {
    let existing = path.ancestors().find_map(|ancestor| statfs(ancestor).ok());
    existing.is_some_and(|found| SHARED.contains(&found.f_type))
}
