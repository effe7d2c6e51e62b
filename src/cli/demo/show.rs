//! The real `run` in a thread, the embedded server, and a client that reads the token file.
//!
//! Events scroll by as they happen. Below them a terminal shows what `status` shows, redrawn in
//! place; elsewhere there is a line of it now and then. The cursor stays visible, so that there is
//! nothing to restore.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anstyle::Style;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};

use crate::account::context::{Context, Notice, Observer};
use crate::cli::args::Demo;
use crate::cli::demo::ending::Ending;
use crate::cli::demo::error::DemoError;
use crate::cli::demo::outage::Outages;
use crate::cli::demo::setup::Setup;
use crate::cli::exit::Exit;
use crate::cli::page::{BAD, CARE, FAINT, GOOD, Line, PLAIN, STRONG, TEXT_MAX, hanging};
use crate::cli::status::{short, table};
use crate::cli::terminal::{self, Terminal, wrapped};
use crate::clock::{millis, monotonic};
use crate::config::Settings;
use crate::daemon::{RunError, RunOptions, run};
use crate::demo::faults::Outage;
use crate::message::{Level, Message, local_time, words};
use crate::refresh::outcome::{Outcome, Report};
use crate::status::{Snapshot, status};

/// As often as a busy client, and no burden.
const READ_EVERY: Duration = Duration::from_millis(50);

/// The status is redrawn after so many reads, four times a second.
const READS_PER_FRAME: u64 = 5;

/// Without a terminal, a line of status comes after so many reads (4 s).
const READS_PER_LINE: u64 = 80;

const OPENING: [&str; 2] = [
    "The life of an access token, sped up: it lives 12 s instead of an hour.",
    "An authorization server in this process issues the tokens and accepts each refresh token only once. The \
     supervisor is the real `zg-tokend run`. A client reads the token file 20 times a second and uses the token.",
];

/// Runs the demo to its end. A refused read makes it a failure.
pub(super) async fn show(flags: &Demo, ending: Ending) -> Result<Exit, DemoError> {
    let setup = Setup::new(flags.port)?;
    let (reporter, mut reports) = unbounded_channel();
    let stop = Arc::new(Notify::new());
    let supervisor = supervise(Settings::clone(&setup.settings), reporter, Arc::clone(&stop))?;
    let ends_at = flags.for_.map(millis);
    let mut show = Show {
        setup: &setup,
        started_at: monotonic(),
        ends_at,
        outages: Outages::new(ends_at),
        counts: ShowCounts::default(),
        terminal: Terminal::of_stdout(),
        drawn: Vec::new(),
    };
    let shown = show.play(&mut reports, ending).await;
    stop.notify_one();
    supervisor.join().map_err(|_| DemoError::Crash)??;
    // A reader of stdout that has gone away is no error.
    let _ = shown.and_then(|()| show.draw(&show.counts.summary(), false));
    let refused = show.counts.refused;
    setup.remove()?;
    Ok(if refused == 0 { Exit::Success } else { Exit::Failure })
}

/// `run` in a thread of its own, which sends what it reports. It stops when notified or by a signal.
fn supervise(
    settings: Settings,
    reporter: UnboundedSender<Report>,
    stop: Arc<Notify>,
) -> Result<JoinHandle<Result<(), RunError>>, DemoError> {
    let supervise = move || {
        let options = RunOptions {
            only: None,
            // SIGHUP ends the demo.
            reload: &|| Err(Message::new(Level::Debug, "demo", "the demo has no config to reload")),
            control: None,
            listen: None,
            stop: Box::pin(async move { stop.notified().await }),
        };
        run(settings, Context::new(Rc::new(Reporter(reporter))), options)
    };
    std::thread::Builder::new().name("supervisor".to_owned()).spawn(supervise).map_err(DemoError::Setup)
}

struct Reporter(UnboundedSender<Report>);

impl Observer for Reporter {
    fn notice(&self, notice: &Notice<'_>) {
        if let Notice::Report { report, .. } = notice {
            // The receiver may have ended.
            let _ = self.0.send((*report).clone());
        }
    }
}

struct Show<'a> {
    setup: &'a Setup,
    /// By [`monotonic`].
    started_at: i64,
    /// Milliseconds after the start.
    ends_at: Option<i64>,
    outages: Outages,
    counts: ShowCounts,
    terminal: Terminal,
    /// The widths of the lines above the cursor that are redrawn.
    drawn: Vec<usize>,
}

impl Show<'_> {
    /// Plays until the ending comes or stdout fails.
    async fn play(&mut self, reports: &mut UnboundedReceiver<Report>, ending: Ending) -> io::Result<()> {
        self.open()?;
        let mut ending = pin!(ending.comes());
        let mut ticks = interval(READ_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticked = 0;
        loop {
            tokio::select! {
                () = &mut ending => return Ok(()),
                report = reports.recv() => match report {
                    Some(report) => self.report(&report)?,
                    None => return Ok(()),
                },
                _ = ticks.tick() => {
                    ticked += 1;
                    self.read()?;
                    self.change_outage()?;
                    self.refresh_status(ticked)?;
                }
            }
        }
    }

    fn open(&mut self) -> io::Result<()> {
        let [title, text] = OPENING;
        let mut lines = vec![Line::one(STRONG, title)];
        lines.extend(wrapped(text, self.width()).into_iter().map(Line::plain));
        lines.push(Line::default());
        lines.push(Line::plain(format!("server  {}", self.setup.server.url())));
        lines.push(Line::plain(format!("file    {}", self.setup.token_file.display())));
        lines.push(Line::default());
        self.draw(&lines, false)
    }

    fn report(&mut self, report: &Report) -> io::Result<()> {
        let Message { level, text, .. } = words(report);
        match report {
            Report::Finished(Outcome::Refreshed { .. }) => {
                let recovered = if self.counts.refreshed() { "recovered; " } else { "" };
                self.event(GOOD, &format!("{recovered}{text}"))
            }
            Report::Finished(Outcome::Failed(_)) => {
                self.counts.failures += 1;
                self.outages.failed(self.now());
                let left = self.status().accounts.first().and_then(|status| status.expires_in);
                let left = left.map(|left| format!("; the token lives another {left} s")).unwrap_or_default();
                self.event(CARE, &format!("refresh failed: {text}{left}"))
            }
            _ if level > Level::Info => Ok(()),
            _ => self.event(if level == Level::Info { PLAIN } else { BAD }, &text),
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let read = self.setup.read();
        // Before the first token there is nothing to read.
        if read.is_none() && self.counts.reads == 0 {
            return Ok(());
        }
        let refused = read.unwrap_or(Err("the token file is missing")).err();
        let is_new = refused.is_some() && !self.counts.refusing;
        self.counts.reads += 1;
        self.counts.refused += u64::from(refused.is_some());
        self.counts.refusing = refused.is_some();
        match refused.filter(|_| is_new) {
            Some(why) => self.event(BAD, &format!("a read was refused: {why}")),
            None => Ok(()),
        }
    }

    fn change_outage(&mut self) -> io::Result<()> {
        let Some(down) = self.outages.change(self.now()) else { return Ok(()) };
        self.setup.server.faults(|faults| faults.outage = down.then_some(Outage::Unavailable));
        if down {
            self.event(CARE, "the server is down, on purpose: will the token stay live?")
        } else {
            self.event(PLAIN, "the server is up again; the next try will show it")
        }
    }

    fn refresh_status(&mut self, ticked: u64) -> io::Result<()> {
        if self.terminal.live {
            return if ticked.is_multiple_of(READS_PER_FRAME) { self.draw(&[], true) } else { Ok(()) };
        }
        if !ticked.is_multiple_of(READS_PER_LINE) {
            return Ok(());
        }
        let status = short::line(&self.status());
        self.event(PLAIN, &format!("status: {status}; client: {}", self.counts.reads()))
    }

    fn event(&mut self, style: Style, text: &str) -> io::Result<()> {
        let now = local_time();
        let time = Line::one(FAINT, format!("{}  ", now.rsplit(' ').next().unwrap_or_default()));
        let lines = hanging(time, (style, text), self.width());
        self.draw(&lines, true)
    }

    /// Adds lines that stay, and redraws the status below them.
    fn draw(&mut self, lines: &[Line], with_status: bool) -> io::Result<()> {
        let colour = self.terminal.colour;
        if !self.terminal.live {
            return terminal::write(
                &lines.iter().map(|line| line.text(usize::MAX, colour) + "\n").collect::<String>(),
            );
        }
        let (width, height) = terminal::size();
        let mut block = if with_status { self.block(width) } else { Vec::new() };
        block = block.into_iter().flat_map(|line| line.rows(width)).collect();
        block.truncate(height - 1);
        // A terminal that became narrower has wrapped the old lines.
        let rows: usize = self.drawn.iter().map(|columns| columns.div_ceil(width).max(1)).sum();
        let mut frame = if rows > 0 { format!("\r\x1b[{rows}A") } else { String::new() };
        // Erased first: after a full line some terminals would erase its last character.
        for (line, width) in
            lines.iter().map(|line| (line, usize::MAX)).chain(block.iter().map(|line| (line, width)))
        {
            frame.extend(["\x1b[K", &line.text(width, colour), "\n"]);
        }
        frame += "\x1b[J";
        self.drawn = block.iter().map(|line| line.width().min(width)).collect();
        terminal::write(&frame)
    }

    /// The page of `status`, the client, and the end.
    fn block(&self, width: usize) -> Vec<Line> {
        let mut lines = vec![Line::default()];
        lines.extend(table::lines(&self.status(), width, self.terminal.unicode));
        let style = if self.counts.refused > 0 { BAD } else { PLAIN };
        lines.push(table::detail("client").and(style, self.counts.reads()));
        let left = self.ends_at.map(|end| format!("ends in {} s; ", (end - self.now()).max(0) / 1000));
        lines.push(Line::one(FAINT, format!("  {}Ctrl-C ends the demo", left.unwrap_or_default())));
        lines
    }

    fn status(&self) -> Snapshot {
        status(&self.setup.settings, None, None)
    }

    /// Milliseconds since the start.
    fn now(&self) -> i64 {
        monotonic() - self.started_at
    }

    fn width(&self) -> usize {
        if self.terminal.live { terminal::size().0.min(TEXT_MAX) } else { usize::MAX }
    }
}

#[derive(Default)]
struct ShowCounts {
    refreshes: u64,
    /// Failed refreshes since the last good one.
    failures: u64,
    survived: u64,
    reads: u64,
    refused: u64,
    /// The last read was refused.
    refusing: bool,
}

impl ShowCounts {
    /// ShowCounts a refresh; true if it ended an outage.
    fn refreshed(&mut self) -> bool {
        let recovered = std::mem::take(&mut self.failures) > 0;
        self.refreshes += 1;
        self.survived += u64::from(recovered);
        recovered
    }

    fn reads(&self) -> String {
        format!("{} reads of the token file, {} refused", self.reads, self.refused)
    }

    fn summary(&self) -> Vec<Line> {
        let counted = |count: u64, noun: &str, plural: &str| {
            format!("{count} {noun}{}", if count == 1 { "" } else { plural })
        };
        let outages = match self.survived {
            0 if self.failures > 0 => "1 outage, not over yet".to_owned(),
            0 => "no outage: for one, the demo must run for 12 s or longer".to_owned(),
            survived => counted(survived, "outage", "s") + " survived: the token in the file stayed live",
        };
        let text = |text: String| Line::plain(format!("  {text}"));
        vec![
            Line::default(),
            Line::one(STRONG, "What you have seen:"),
            text(counted(self.refreshes, "refresh", "es")),
            text(outages),
            text(self.reads()),
            Line::default(),
            Line::one(STRONG, "The same for your own token:"),
            text("zg-tokend init     write a config and check it".to_owned()),
            text("zg-tokend login    log in with a browser".to_owned()),
            text("zg-tokend run      keep the token fresh".to_owned()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::demo::show::*;

    #[test]
    fn an_outage_counts_when_it_is_over() {
        let plain = |counts: &ShowCounts| {
            counts.summary()[2..5].iter().map(|line| line.text(usize::MAX, false)).collect::<Vec<_>>()
        };
        let mut counts = ShowCounts::default();
        assert!(!counts.refreshed());
        counts.failures += 1;
        assert_eq!(plain(&counts)[1], "  1 outage, not over yet");
        assert!(counts.refreshed());
        assert_eq!(
            plain(&counts),
            [
                "  2 refreshes",
                "  1 outage survived: the token in the file stayed live",
                "  0 reads of the token file, 0 refused"
            ]
        );
    }
}
