//! The log of `run`: one line per decision, and a warning only where something has changed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::os::fd::AsFd;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::publish::hooks::HookError;
use crate::shell::Listener;
use crate::shell::trouble::chain;
use crate::shell::words::{Words, words};
use crate::supervisor::outcome::{Outcome, Report};

/// Sets the log up, for the journal or for stderr; `RUST_LOG` chooses the levels.
pub(super) fn set_up() {
    let levels = std::env::var("RUST_LOG").ok().and_then(|levels| levels.parse::<Targets>().ok());
    let levels = levels.unwrap_or_else(|| {
        Targets::new().with_default(LevelFilter::WARN).with_target("zg_tokend", LevelFilter::INFO)
    });
    // Without a prefix the fields are ACCOUNT= and EVENT=, as in `journalctl ACCOUNT=work`.
    let journal = goes_to_journal(std::io::stderr())
        .then(|| tracing_journald::layer().ok())
        .flatten()
        .map(|layer| layer.with_field_prefix(None));
    let lines = journal
        .is_none()
        .then(|| tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(Lines));
    // Set up twice, the first stays.
    let _ = tracing_subscriber::registry().with(levels).with(journal).with(lines).try_init();
}

/// Whether a stream is connected to the journal: systemd.exec(5), `$JOURNAL_STREAM`.
fn goes_to_journal(stream: impl AsFd) -> bool {
    let Ok(stream) = rustix::fs::fstat(stream) else { return false };
    std::env::var("JOURNAL_STREAM")
        .is_ok_and(|journal| journal == format!("{}:{}", stream.st_dev, stream.st_ino))
}

/// Writes reports to the log. A failure that goes on is said once as a warning, and then only
/// when the number of repetitions has doubled.
#[derive(Default)]
pub(super) struct Log {
    repeated: RefCell<HashMap<String, (&'static str, u32)>>,
}

impl Listener for Log {
    fn hear(&self, account: &str, report: &Report) {
        let mut words = words(report);
        if let Report::Finished(outcome) = report {
            self.quieten(account, outcome, &mut words);
        }
        let Words { level, event, text, hint } = words;
        let line = line(Some(account), &text, hint.as_deref());
        match level {
            Level::ERROR => tracing::error!(account, event, "{line}"),
            Level::WARN => tracing::warn!(account, event, "{line}"),
            Level::INFO => tracing::info!(account, event, "{line}"),
            _ => tracing::debug!(account, event, "{line}"),
        }
    }

    fn hook_failed(&self, account: &str, error: &HookError) {
        let line = line(Some(account), &chain(error), Some(&error.hint()));
        tracing::warn!(account, event = "hook_failed", "{line}");
    }
}

/// `account: text; hint: …`, on one line: a line break would make two entries of one.
pub(super) fn line(account: Option<&str>, text: &str, hint: Option<&str>) -> String {
    let account = account.map(|account| format!("{account}: ")).unwrap_or_default();
    let hint = hint.map(|hint| format!("; hint: {hint}")).unwrap_or_default();
    format!("{account}{text}{hint}").replace('\n', " ")
}

impl Log {
    fn quieten(&self, account: &str, outcome: &Outcome, words: &mut Words) {
        let mut repeated = self.repeated.borrow_mut();
        if matches!(outcome, Outcome::Held { .. } | Outcome::Stopped) {
            return;
        }
        let (event, count) = repeated.entry(account.to_owned()).or_insert((words.event, 0));
        if words.level > Level::WARN {
            if *count > 1 {
                words.text = format!("{} (after {count} failures)", words.text);
            }
            repeated.remove(account);
            return;
        }
        if *event != words.event {
            (*event, *count) = (words.event, 0);
        }
        *count += 1;
        if *count > 1 {
            words.level = if count.is_power_of_two() { Level::INFO } else { Level::DEBUG };
            words.text = format!("{} ({count} times now)", words.text);
            words.hint = None;
        }
    }
}

/// `TIME LEVEL message`
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut message = Message::default();
        event.record(&mut message);
        let level = event.metadata().level();
        writeln!(to, "{} {level:5} {}", crate::shell::words::local_time(), message.0)
    }
}

/// The message alone: the fields beside it are for the journal, and said in it as well.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
