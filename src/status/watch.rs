//! Shows the status again when a file has changed, the config among them, or when time alone
//! changes it. In between nothing runs.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use crate::account::HangNote;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::Settings;
use crate::files::links::Apart;
use crate::files::watch::Watch;
use crate::probe::rules::ProbeNote;
use crate::push::PushNote;
use crate::runtime::{END, Signals, event_loop};
use crate::store;
use crate::store::lock::SUPERVISOR;
use crate::store::note::Note;
use crate::timer::Timer;

/// A refresh changes several files within milliseconds: they are shown at once.
const GATHER: Duration = Duration::from_millis(50);

pub trait Viewer {
    /// The last config that was valid.
    fn settings(&self) -> &Settings;

    /// Reads the config again. An error in it is shown, and changes nothing else.
    fn reload(&mut self);

    /// Shows the status. Returns the second, Unix time, at which time alone changes it; `None` for
    /// never. An error ends the watch.
    fn show(&mut self) -> io::Result<Option<i64>>;

    /// Restores the screen while the process is stopped from the keyboard.
    fn leave(&mut self);

    fn enter(&mut self);
}

/// Shows, until SIGINT, SIGTERM, SIGHUP or SIGQUIT; `only` picks an account by name.
pub fn watch(only: Option<&str>, viewer: &mut impl Viewer) -> io::Result<()> {
    event_loop()?.block_on(until_ended(only, viewer))
}

async fn until_ended(only: Option<&str>, viewer: &mut impl Viewer) -> io::Result<()> {
    let clock = SystemClock::new();
    let timer = Timer::new();
    let mut signals = Signals::new(&[&END[..], &[Signal::QUIT, Signal::TSTP, Signal::WINCH]].concat())?;
    let missing = MissingDirectories::new();
    let mut config = watch_all(&missing.with(&viewer.settings().path));
    let mut files = watch_all(&paths(viewer.settings(), only, &missing));
    loop {
        let changes_at = viewer.show()?;
        timer.set(changes_at.map(|second| when(second, clock.now())));
        tokio::select! {
            _ = config.changed() => {
                config = watch_all(&missing.with(&viewer.settings().path));
                viewer.reload();
                files = watch_all(&paths(viewer.settings(), only, &missing));
            }
            _ = files.next() => {
                tokio::time::sleep(GATHER).await;
                // Directories may have come. Later changes are noticed by the new watch.
                files = watch_all(&paths(viewer.settings(), only, &missing));
            }
            _ = timer.wait() => {}
            signal = signals.next() => match signal {
                // The size of the terminal has changed.
                Signal::WINCH => {}
                Signal::TSTP => {
                    viewer.leave();
                    kill_process(getpid(), Signal::STOP)?;
                    viewer.enter();
                }
                _ => return Ok(()),
            },
        }
    }
}

fn watch_all(paths: &[PathBuf]) -> Watch {
    Watch::new(paths.iter().map(PathBuf::as_path))
}

/// A second of the wall clock, on both clocks.
fn when(second: i64, now: Timestamp) -> Timestamp {
    let wait = second.saturating_mul(1000).saturating_sub(now.wall).max(0);
    now.plus(Duration::from_millis(wait.cast_unsigned()))
}

/// Every file that `status` reads. A supervisor that ends closes its file, which is a change.
fn paths(settings: &Settings, only: Option<&str>, missing: &MissingDirectories) -> Vec<PathBuf> {
    let notes = [SUPERVISOR, PushNote::FILE, Option::<ProbeNote>::FILE, HangNote::FILE];
    let files = settings.chosen(only).flat_map(|account| {
        let state = store::open(settings, account).watched(&notes);
        let outputs = account.outputs.iter().map(|output| output.file.path.clone());
        state.into_iter().chain([account.token_file.path.clone()]).chain(outputs)
    });
    let paths = files.flat_map(|file| missing.with(&file)).collect();
    missing.0.rest();
    paths
}

/// The directories that are missing on the way to a file. Not those that exist: a busy one, such as /tmp,
/// would wake us for nothing.
struct MissingDirectories(Apart<Vec<PathBuf>>);

impl MissingDirectories {
    fn new() -> Self {
        let missing = |path: &Path| {
            let missing = path.ancestors().skip(1).take_while(|ancestor| !ancestor.exists());
            missing.map(Path::to_owned).collect()
        };
        Self(Apart::new(move || Box::new(missing)))
    }

    /// The file and these directories. The file alone where its file system hangs.
    fn with(&self, file: &Path) -> Vec<PathBuf> {
        let mut paths = self.0.ask(file).unwrap_or_default();
        paths.push(file.to_owned());
        paths
    }
}
