//! The log of `run`: one line per decision, and a warning only where something changed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::account::context::{Notice, Observer};
use crate::cli::args::LogFormat;
use crate::cli::output::printable;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::message::{Message, local, local_time, utc, words};
use crate::problem::{Class, Problem};
use crate::refresh::outcome::{Outcome, Report};

/// True for JSON entries: account and hint are then fields only.
static JSON: OnceLock<bool> = OnceLock::new();

/// The environment variable with the levels.
const RUST_LOG: &str = "RUST_LOG";

/// Where the entries come from, for `RUST_LOG`.
const TARGET: &str = "zg_tokend";

pub(super) fn set_up(format: Option<LogFormat>) {
    let chosen = std::env::var_os(RUST_LOG).filter(|chosen| !chosen.is_empty());
    let levels = chosen.as_ref().map(|chosen| chosen.to_str().and_then(levels));
    let usual = Targets::new().with_default(LevelFilter::WARN).with_target(TARGET, LevelFilter::INFO);
    let unusable = levels == Some(None);
    let levels = levels.flatten().unwrap_or(usual);
    let json = *JSON.get_or_init(|| format == Some(LogFormat::Json));
    // Without a prefix the fields are ACCOUNT= and EVENT=, as in `journalctl ACCOUNT=work`.
    let journal = (format.is_none() && goes_to_journal(std::io::stderr()))
        .then(|| tracing_journald::layer().ok())
        .flatten()
        .map(|layer| layer.with_field_prefix(None));
    let lines = journal
        .is_none()
        .then(|| tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(Lines { json }));
    // Set up twice, the first stays.
    let _ = tracing_subscriber::registry().with(levels).with(journal).with(lines).try_init();
    if unusable {
        let text =
            format!("{RUST_LOG}={} is not a log level and is not used", chosen.unwrap_or_default().display());
        let hint =
            "set it to error, warn, info, debug, trace or off, or for this program only: zg_tokend=debug";
        write(None, &Message::new(Level::WARN, "log_levels", text).hint(hint));
    }
}

/// `None` if they name no level for this program: a word that is not a level is parsed as another
/// program's name, and would silence this one.
fn levels(chosen: &str) -> Option<Targets> {
    let levels: Targets = chosen.parse().ok()?;
    let names_us = levels.iter().any(|(target, _)| target.starts_with(TARGET));
    (names_us || levels.default_level().is_some()).then_some(levels)
}

/// True if a stream is connected to the journal: systemd.exec(5), `$JOURNAL_STREAM`.
fn goes_to_journal(stream: impl AsFd) -> bool {
    let Ok(stream) = rustix::fs::fstat(stream) else { return false };
    std::env::var("JOURNAL_STREAM")
        .is_ok_and(|journal| journal == format!("{}:{}", stream.st_dev, stream.st_ino))
}

/// Writes an entry: `account: text; hint: …`, on one line, as a line break would make two of one.
/// JSON has account and hint as fields alone.
pub(super) fn write(about: Option<&str>, message: &Message) {
    let Message { level, event, text, hint, generation } = message;
    let (account, hint) = (about, hint.as_deref());
    let json = JSON.get().copied().unwrap_or_default();
    let line = if json {
        text.clone()
    } else {
        let account = account.map(|account| format!("{account}: ")).unwrap_or_default();
        let hint = hint.map(|hint| format!("; hint: {hint}")).unwrap_or_default();
        printable(&format!("{account}{text}{hint}"))
    };
    // In the line already; beside it the journal would show it twice.
    let hint = hint.filter(|_| json);
    match *level {
        Level::ERROR => tracing::error!(account, event, generation, hint, "{line}"),
        Level::WARN => tracing::warn!(account, event, generation, hint, "{line}"),
        Level::INFO => tracing::info!(account, event, generation, hint, "{line}"),
        _ => tracing::debug!(account, event, generation, hint, "{line}"),
    }
}

/// Writes reports to the log. A repeated failure is a warning once, and an INFO line whenever the
/// number of repetitions has doubled.
#[derive(Default)]
pub(super) struct Log {
    repeated: RefCell<HashMap<String, (&'static str, u32)>>,
}

impl Observer for Log {
    fn notice(&self, notice: &Notice<'_>) {
        match notice {
            Notice::Report { account, report, next_pass, .. } => {
                let mut message = words(report);
                if let Report::Finished(outcome) = report {
                    self.quieten(account, outcome, *next_pass, &mut message);
                }
                write(Some(account), &message);
            }
            Notice::Message { account, message } => write(*account, message),
        }
    }
}

impl Log {
    fn quieten(&self, account: &str, outcome: &Outcome, next_pass: Option<Timestamp>, words: &mut Message) {
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
        if *count == 1 {
            words.hint = next_try(outcome, next_pass).or(words.hint.take());
        } else {
            words.level = if count.is_power_of_two() { Level::INFO } else { Level::DEBUG };
            let next = next_pass.map(|next| format!(", next at {}", time_of_day(next))).unwrap_or_default();
            words.text = format!("still failing after {count} attempts{next}: {}", words.text);
            words.hint = None;
        }
    }
}

/// When the next try comes, for a failure without a hint.
fn next_try(outcome: &Outcome, next_pass: Option<Timestamp>) -> Option<String> {
    let Outcome::Failed(Problem { class: Class::Unavailable | Class::Busy, hint: None, .. }) = outcome else {
        return None;
    };
    Some(format!("wait: it is tried again at {}", time_of_day(next_pass?)))
}

/// `12:40:05`, since an entry has its own date; with the date if that is another one.
fn time_of_day(at: Timestamp) -> String {
    let (at, now) = (local(at.wall / 1000), local_time());
    match at.split_once(' ') {
        Some((date, time)) if now.starts_with(date) => time.to_owned(),
        _ => at,
    }
}

/// `TIME LEVEL message`, or a JSON object.
struct Lines {
    json: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = event.metadata().level();
        let now = SystemClock::new().now().wall / 1000;
        if self.json {
            fields.0.insert("time".into(), utc(now).into());
            fields.0.insert("level".into(), level.as_str().to_ascii_lowercase().into());
            return writeln!(to, "{}", Value::Object(fields.0));
        }
        let message = fields.0.get("message").and_then(Value::as_str).unwrap_or_default();
        writeln!(to, "{} {level:5} {message}", local(now))
    }
}

/// The fields of an event; the message of a text line holds them already.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }
}
