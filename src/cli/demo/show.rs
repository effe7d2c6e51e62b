//! A token's life, as it happens: the real supervisor, the embedded server, a client that reads.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};

use crate::cli::args::Demo;
use crate::cli::demo::outage::{Change, Outages};
use crate::cli::demo::screen::Screen;
use crate::cli::demo::stage::{LIFETIME, Stage};
use crate::cli::demo::story::{Event, Story};
use crate::cli::demo::view;
use crate::cli::demo::view::Life;
use crate::cli::demo::{DemoError, Ending};
use crate::cli::exit::Exit;
use crate::cli::page::Line;
use crate::clock::{Clock as _, SystemClock, millis, monotonic};
use crate::config::Settings;
use crate::daemon::{RunError, RunOptions, run};
use crate::demo::faults::Outage;
use crate::status::status;

use crate::account::context::{Context, Notice, Observer};
use crate::message::{Level, Message, local_time};
use crate::refresh::outcome::{Outcome, Report};

/// How often the client reads the token file: as often as a busy one, and no burden.
const READ_EVERY: Duration = Duration::from_millis(50);

/// The lines in place are drawn anew after so many reads: a bar that moves smoothly.
const READS_PER_FRAME: u64 = 5;

/// Without a terminal, so many reads (4 s) lie between two sentences on how things stand.
const READS_PER_SENTENCE: u64 = 80;

/// Runs the show to its end. A read that was refused makes it a failure.
pub(super) async fn show(flags: &Demo, ending: Ending) -> Result<Exit, DemoError> {
    let stage = Stage::set(flags.port)?;
    let mut supervision = Supervision::begin(stage.settings.clone())?;
    let ends_at = flags.for_.map(millis);
    let mut show = Show {
        stage: &stage,
        clock: SystemClock::new(),
        started_at: monotonic(),
        ends_at,
        story: Story::default(),
        outages: Outages::new(ends_at),
        life: None,
        screen: Screen::of_stdout(),
    };
    let seen = show.play(&mut supervision, ending).await;
    supervision.end()?;
    if seen.is_ok() {
        let farewell = view::farewell(&show.story, show.screen.width());
        // A reader that has gone away is no error, here and before.
        let _ = show.screen.draw(&farewell, &[]);
    }
    let refused = show.story.refused();
    stage.clear()?;
    Ok(if refused == 0 { Exit::Success } else { Exit::Failure })
}

struct Show<'a> {
    stage: &'a Stage,
    clock: SystemClock,
    /// By [`monotonic`].
    started_at: i64,
    /// After so many milliseconds; `None`: never by itself.
    ends_at: Option<i64>,
    story: Story,
    outages: Outages,
    life: Option<Life>,
    screen: Screen,
}

impl Show<'_> {
    /// Until the ending comes or nobody looks any more. The supervisor, too, ends by a signal only.
    async fn play(&mut self, supervision: &mut Supervision, ending: Ending) -> io::Result<()> {
        let opening = view::opening(self.stage.server.url(), &self.stage.token_file, self.screen.width());
        self.screen.draw(&opening, &[])?;
        let mut ending = pin!(ending.comes());
        let mut ticks = interval(READ_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reads = 0;
        loop {
            tokio::select! {
                () = &mut ending => return Ok(()),
                report = supervision.reports.recv() => match report {
                    Some(report) => {
                        let event = self.hear(&report);
                        self.tell(event)?;
                    }
                    None => return Ok(()),
                },
                _ = ticks.tick() => {
                    reads += 1;
                    let event = self.story.read(self.stage.read());
                    self.tell(event)?;
                    let event = self.turn();
                    self.tell(event)?;
                    self.keep_up(reads)?;
                }
            }
        }
    }

    /// Milliseconds since the start.
    fn now(&self) -> i64 {
        monotonic() - self.started_at
    }

    fn hear(&mut self, report: &Report) -> Option<Event> {
        let now = self.now();
        if matches!(report, Report::Finished(Outcome::Failed(_))) {
            self.outages.failed(now);
        }
        self.story.hear(report, now)
    }

    /// Sends the server down, or lets it come back, when it is time.
    fn turn(&mut self) -> Option<Event> {
        let change = self.outages.turn(self.now())?;
        self.stage.server.faults(|faults| {
            faults.outage = match change {
                Change::Down => Some(Outage::Unavailable),
                Change::Up => None,
            };
        });
        Some(Story::weather(change))
    }

    /// An event is told when it happens.
    fn tell(&mut self, event: Option<Event>) -> io::Result<()> {
        let Some(event) = event else { return Ok(()) };
        let now = local_time();
        let time_of_day = now.rsplit(' ').next().unwrap_or_default();
        let width = self.screen.width();
        self.look();
        self.screen.draw(&view::event(time_of_day, &event, width), &self.block(width))
    }

    /// How things stand is told now and then.
    fn keep_up(&mut self, reads: u64) -> io::Result<()> {
        match self.screen.width() {
            Some(width) if reads.is_multiple_of(READS_PER_FRAME) => {
                self.look();
                self.screen.draw(&[], &self.block(Some(width)))
            }
            None if reads.is_multiple_of(READS_PER_SENTENCE) => {
                self.look();
                self.tell(Some(view::sentence(self.life.as_ref(), &self.story)))
            }
            _ => Ok(()),
        }
    }

    /// Asks what anybody can ask: `status`.
    fn look(&mut self) {
        let accounts = status(&self.stage.settings, None, None).accounts;
        let life = |status| Life::new(status, self.clock.now().wall, self.life.as_ref());
        self.life = accounts.first().and_then(life);
    }

    fn block(&self, width: Option<usize>) -> Vec<Line> {
        let Some(width) = width else { return Vec::new() };
        let left = self.ends_at.map(|end| end - self.now());
        view::block(self.life.as_ref(), &self.story, left, millis(LIFETIME), width)
    }
}

/// The supervisor at work, in a thread of its own.
struct Supervision {
    /// What it says.
    reports: UnboundedReceiver<Report>,
    stop: Arc<Notify>,
    thread: JoinHandle<Result<(), RunError>>,
}

impl Supervision {
    fn begin(settings: Settings) -> Result<Self, DemoError> {
        let (messenger, reports) = unbounded_channel();
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let supervise = move || {
            let options = RunOptions {
                only: None,
                // On SIGHUP the demo ends; there is nothing to read again.
                reload: &|| Err(Message::new(Level::Debug, "demo", "the demo has no config to reload")),
                control: None,
                stop: Box::pin(async move { stopped.notified().await }),
            };
            run(settings, Context::new(Rc::new(Messenger(messenger))), options)
        };
        let thread = std::thread::Builder::new().name("supervisor".to_owned()).spawn(supervise);
        Ok(Self { reports, stop, thread: thread.map_err(DemoError::Setup)? })
    }

    /// Stops it, unless a signal has, and waits for its end.
    fn end(self) -> Result<(), DemoError> {
        self.stop.notify_one();
        Ok(self.thread.join().map_err(|_| DemoError::Crash)??)
    }
}

struct Messenger(UnboundedSender<Report>);

impl Observer for Messenger {
    fn notice(&self, notice: &Notice<'_>) {
        if let Notice::Report { report, .. } = notice {
            // At the end nobody listens any more.
            let _ = self.0.send((*report).clone());
        }
    }
}
