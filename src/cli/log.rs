//! The log of `run`: one line per decision, and a warning only where something has changed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::shell::Listener;
use crate::shell::words::{Words, words};
use crate::supervisor::outcome::{Outcome, Report};

/// Sets the log up: on stderr, `RUST_LOG` chooses the levels.
pub(super) fn set_up() {
    let levels = std::env::var("RUST_LOG").ok().and_then(|levels| levels.parse::<Targets>().ok());
    let levels = levels.unwrap_or_else(|| {
        Targets::new().with_default(LevelFilter::WARN).with_target("zg_tokend", LevelFilter::INFO)
    });
    let lines = Lines {
        // journald adds the time itself, and reads the level from a prefix, sd-daemon(3).
        journal: std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stderr().is_terminal(),
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(lines);
    // Set up twice, the first stays.
    let _ = tracing_subscriber::registry().with(levels).with(layer).try_init();
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
        match level {
            Level::ERROR => tracing::error!(account, event, hint, "{text}"),
            Level::WARN => tracing::warn!(account, event, hint, "{text}"),
            Level::INFO => tracing::info!(account, event, hint, "{text}"),
            _ => tracing::debug!(account, event, hint, "{text}"),
        }
    }
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

/// `TIME LEVEL account: text; hint: …`
struct Lines {
    journal: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let level = *event.metadata().level();
        if self.journal {
            let priority = match level {
                Level::ERROR => 3,
                Level::WARN => 4,
                Level::INFO => 6,
                _ => 7,
            };
            write!(to, "<{priority}>")?;
        } else {
            write!(to, "{} {level:5} ", crate::shell::words::local_time())?;
        }
        if let Some(account) = parts.account {
            write!(to, "{account}: ")?;
        }
        // A line break would make two entries of one.
        write!(to, "{}", parts.message.replace('\n', " "))?;
        if let Some(hint) = parts.hint {
            write!(to, "; hint: {}", hint.replace('\n', " "))?;
        }
        writeln!(to)
    }
}

#[derive(Default)]
struct Parts {
    account: Option<String>,
    message: String,
    hint: Option<String>,
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "account" => self.account = Some(value.to_owned()),
            "hint" => self.hint = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}
