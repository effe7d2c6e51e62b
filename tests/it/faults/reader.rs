//! A reader of the token file who never looks away.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use zg_tokend::testing::demo::AuditEntry;
use zg_tokend::testing::secret::Fingerprint;

use super::granted;

/// Between two looks: much shorter than the fsync that a torn file would have to wait for.
const PAUSE: Duration = Duration::from_micros(100);

pub struct Reader {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Option<Vec<u8>>>>,
}

impl Reader {
    /// Begins to read.
    pub fn watch(path: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, stopped) = (path.to_owned(), Arc::clone(&stop));
        Self { stop, thread: std::thread::spawn(move || read(&path, &stopped)) }
    }

    /// Ends. Panics unless every look found a whole token that the server had granted, none older
    /// than the one before. The file may be missing only as long as it was from the beginning.
    #[track_caller]
    pub fn judge(self, log: &[AuditEntry]) {
        self.stop.store(true, Ordering::Relaxed);
        let found = self.thread.join().unwrap();
        let tokens: Vec<Fingerprint> = granted(log).into_iter().map(|(token, _)| token).collect();
        let mut newest = None;
        for (nth, content) in found.into_iter().enumerate() {
            let Some(content) = content else {
                assert_eq!(nth, 0, "the token file was missing after it had been there");
                continue;
            };
            let place = tokens.iter().position(|token| *token == Fingerprint::of([&content]));
            assert!(place.is_some(), "no token of the server: {:?}", String::from_utf8_lossy(&content));
            assert!(place >= newest, "the token file went back to an earlier token");
            newest = place;
        }
    }
}

/// The contents found, repetitions left out; `None` is a missing file.
fn read(path: &PathBuf, stopped: &AtomicBool) -> Vec<Option<Vec<u8>>> {
    let mut found: Vec<Option<Vec<u8>>> = Vec::new();
    loop {
        let last_look = stopped.load(Ordering::Relaxed);
        let content = match fs::read(path) {
            Ok(content) => Some(content),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        if found.last() != Some(&content) {
            found.push(content);
        }
        if last_look {
            return found;
        }
        std::thread::sleep(PAUSE);
    }
}
