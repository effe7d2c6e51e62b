//! `status --watch`: the page on the alternate screen.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use crate::account::HangNote;
use crate::cli::args::Args;
use crate::cli::output;
use crate::cli::page::{
    BAD, FAINT, Glyphs, Line, PLAIN, STRONG, TEXT_MAX, cause_and_hint, hanging, harmless,
};
use crate::cli::settings::{ConfigFailure, load};
use crate::cli::status::selection::Selection;
use crate::cli::status::table;
use crate::cli::terminal::{self, EchoOff, Terminal};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::Settings;
use crate::files::links::Apart;
use crate::files::watch::Watch;
use crate::probe::rules::ProbeNote;
use crate::push::PushNote;
use crate::runtime::{END, Signals, event_loop};
use crate::status::{AccountStatus, Severity, Snapshot};
use crate::store;
use crate::store::lock::SUPERVISOR;
use crate::store::note::Note;
use crate::timer::Timer;

/// The alternate screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";

/// The previous screen, with a cursor.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// A refresh changes several files within milliseconds: they are shown at once.
const GATHER: Duration = Duration::from_millis(50);

/// Shows the page until Ctrl-C. The exit code is that of the last page.
pub(super) fn show(selection: Selection<'_>, args: &Args, terminal: Terminal) -> Severity {
    if !terminal.live {
        let hint = "leave --watch out";
        output::error("--watch needs a terminal", Some(hint));
        return Severity::Unknown;
    }
    let (drawn, last) = (String::new(), Severity::Unknown);
    let mut screen = Screen { selection, args, terminal, wrong: None, echo_off: None, drawn, last };
    screen.enter();
    let watched = event_loop().and_then(|runtime| runtime.block_on(watch(&mut screen)));
    let last = screen.last;
    drop(screen);
    match watched {
        Ok(()) => last,
        // The terminal has closed.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe) || is_hangup(&error) => last,
        Err(error) => {
            output::error_for(
                "cannot watch the accounts",
                Some(&error.to_string()),
                Some("`zg-tokend status` shows them once"),
            );
            Severity::Unknown
        }
    }
}

fn is_hangup(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

struct Screen<'a> {
    selection: Selection<'a>,
    args: &'a Args,
    terminal: Terminal,
    /// The changed config is wrong.
    wrong: Option<ConfigFailure>,
    echo_off: Option<EchoOff>,
    /// The frame on the screen.
    drawn: String,
    last: Severity,
}

impl Screen<'_> {
    /// A whole frame; counts the lines that do not fit.
    fn frame(&self, snapshot: &Snapshot) -> String {
        let (width, height) = terminal::size();
        let rows = |lines: Vec<Line>| lines.into_iter().flat_map(|line| line.rows(width));
        let mut lines: Vec<_> = rows(table::lines(snapshot, width, self.terminal.unicode)).collect();
        lines.push(Line::default());
        let foot: Vec<_> = rows(self.foot(width)).collect();
        let room = height.saturating_sub(foot.len());
        if lines.len() > room {
            let hidden = lines.len() - room.saturating_sub(1);
            lines.truncate(room.saturating_sub(1));
            lines.push(Line::one(
                FAINT,
                format!("  {hidden} more lines below: `zg-tokend status` shows them"),
            ));
        }
        // Erased first: after a full line some terminals would erase its last character.
        let lines = lines.iter().chain(&foot);
        let lines = lines.map(|line| format!("\x1b[K{}", line.text(width, self.terminal.colour)));
        format!("\x1b[H{}\x1b[J", lines.collect::<Vec<_>>().join("\r\n"))
    }

    /// The lines at the bottom, however many accounts there are.
    fn foot(&self, width: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        if let Some(ConfigFailure { problem, cause, excerpt, hint, .. }) = &self.wrong {
            let (unicode, glyphs) = (self.terminal.unicode, Glyphs::of(self.terminal.unicode));
            let width = width.min(TEXT_MAX);
            let head =
                [(BAD, format!("{} ", glyphs.marks[2])), (STRONG, "the changed config is not used".into())];
            lines.push(Line::new(head));
            for text in std::iter::once(problem).chain(cause) {
                lines.extend(hanging(Line::plain("  "), (PLAIN, &harmless(text, unicode)), width));
            }
            // Its carets must stay where they are.
            let excerpt = excerpt.iter().flat_map(|excerpt| excerpt.lines());
            lines.extend(excerpt.map(|line| Line::one(FAINT, format!("  {}", harmless(line, unicode)))));
            lines.extend(cause_and_hint("  ", (None, hint.as_deref()), width, unicode));
            lines.push(Line::default());
        }
        lines.push(Line::one(FAINT, "  Ctrl-C ends this"));
        lines
    }

    /// Reads the config again. An error in it is shown, and changes nothing else.
    fn reload(&mut self) {
        self.wrong = match load(self.args) {
            Ok(settings) => {
                self.selection.settings = Arc::new(settings);
                None
            }
            Err(wrong) => Some(wrong),
        };
    }

    /// Shows the status. Returns the second, Unix time, at which time alone changes it; `None` for
    /// never. An error ends the watch.
    fn show(&mut self) -> io::Result<Option<i64>> {
        let snapshot = self.selection.snapshot();
        self.last = snapshot.severity();
        let frame = self.frame(&snapshot);
        if frame != self.drawn {
            terminal::write(&frame)?;
            self.drawn = frame;
        }
        Ok(changes_at(&snapshot))
    }

    /// Restores the screen while the process is stopped from the keyboard.
    fn leave(&mut self) {
        let _ = terminal::write(LEAVE);
        self.echo_off = None;
    }

    fn enter(&mut self) {
        self.echo_off = EchoOff::lines();
        self.drawn.clear();
        let _ = terminal::write(ENTER);
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Shows the page again when a file has changed, the config among them, or when time alone changes it, until
/// SIGINT, SIGTERM, SIGHUP or SIGQUIT. In between nothing runs.
async fn watch(screen: &mut Screen<'_>) -> io::Result<()> {
    let only = screen.selection.only;
    let clock = SystemClock::new();
    let timer = Timer::new();
    let mut signals = Signals::new(&[&END[..], &[Signal::QUIT, Signal::TSTP, Signal::WINCH]].concat())?;
    let missing = MissingDirectories::new();
    let mut config = watch_all(&missing.with(&screen.selection.settings.path));
    let mut files = watch_all(&paths(&screen.selection.settings, only, &missing));
    loop {
        let changes_at = screen.show()?;
        timer.set(changes_at.map(|second| when(second, clock.now())));
        tokio::select! {
            _ = config.changed() => {
                config = watch_all(&missing.with(&screen.selection.settings.path));
                screen.reload();
                files = watch_all(&paths(&screen.selection.settings, only, &missing));
            }
            _ = files.next() => {
                tokio::time::sleep(GATHER).await;
                // Directories may have come. Later changes are noticed by the new watch.
                files = watch_all(&paths(&screen.selection.settings, only, &missing));
            }
            _ = timer.wait() => {}
            signal = signals.next() => match signal {
                // The size of the terminal has changed.
                Signal::WINCH => {}
                Signal::TSTP => {
                    screen.leave();
                    kill_process(getpid(), Signal::STOP)?;
                    screen.enter();
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

/// The second at which the page changes because time passes.
pub(super) fn changes_at(snapshot: &Snapshot) -> Option<i64> {
    let shown = |status: &AccountStatus| [status.expires_at, status.next_refresh_at, status.refresh_at];
    let instants = snapshot.accounts.iter().flat_map(shown).flatten();
    instants.map(|at| snapshot.at + until_next_unit(at - snapshot.at)).min()
}

/// In how many seconds the text of a span changes: [`crate::message::duration`] shows seconds below
/// 10 minutes, minutes below a day, then hours.
fn until_next_unit(span: i64) -> i64 {
    let unit = match span.abs() {
        ..600 => 1,
        600..86_400 => 60,
        _ => 3600,
    };
    if span > 0 { span % unit + 1 } else { unit - span.abs() % unit }
}
