//! The log of `run`: one line per decision, and a warning only where something has changed.
//!
//! No entry blocks: see [`Sink`].

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use serde_json::{Map, Value};

use crate::account::context::{Notice, Observer};
use crate::cli::args::LogFormat;
use crate::cli::output::printable;
use crate::cli::terminal::{columns_of, fold};
use crate::clock::{Clock, SystemClock, Timestamp, utc};
use crate::config::AccountName;
use crate::message::{Level, Message, duration, local, local_time, words};
use crate::problem::{Class, Problem, told};
use crate::refresh::fleet::FleetReport;
use crate::refresh::outcome::{Outcome, Report};
use crate::sink::Sink;

/// The environment variable that chooses the levels.
const RUST_LOG: &str = "RUST_LOG";

/// This program's name in `RUST_LOG`.
const TARGET: &str = "zg_tokend";

/// The name of the entries in the journal.
const IDENTIFIER: &str = "zg-tokend";

/// The log of this process, once it is set up.
static LOGGER: OnceLock<Logger> = OnceLock::new();

struct Logger {
    /// Less grave entries are left out; `None` leaves out all.
    level: Option<Level>,
    format: EntryFormat,
    sink: Mutex<Sink>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EntryFormat {
    /// `TIME LEVEL account: text; cause: …; hint: …`
    Text,
    /// The same for a person: cause and hint have lines of their own, no word is broken, and levels have
    /// colours.
    Terminal { colour: bool },
    /// An object for each entry, with account, cause and hint as fields.
    Json,
    /// The journal's fields: `ACCOUNT=`, `EVENT=`, as in `journalctl ACCOUNT=work`. The message is one line
    /// with cause and hint: `journalctl` and `systemctl status` show nothing else.
    Journal,
}

/// Sets the log up, for the journal or for stderr; `RUST_LOG` chooses the levels.
pub(super) fn set_up(format: Option<LogFormat>) {
    let chosen = std::env::var_os(RUST_LOG).filter(|chosen| !chosen.is_empty());
    let level = chosen.as_ref().map(|chosen| chosen.to_str().and_then(level_of));
    let journal = (format.is_none() && is_connected_to_journal(std::io::stderr()))
        .then(|| Sink::journal().ok())
        .flatten();
    let (format, sink) = match (journal, format) {
        (Some(sink), _) => (EntryFormat::Journal, Ok(sink)),
        (None, Some(LogFormat::Json)) => (EntryFormat::Json, Sink::stderr()),
        (None, _) if std::io::stderr().is_terminal() => {
            let colour = AutoStream::choice(&std::io::stderr()) != ColorChoice::Never;
            (EntryFormat::Terminal { colour }, Sink::stderr())
        }
        (None, _) => (EntryFormat::Text, Sink::stderr()),
    };
    // Without stderr there is no log.
    let Ok(sink) = sink else { return };
    let unusable = level == Some(None);
    let level = level.flatten().unwrap_or(Some(Level::Info));
    // Set up twice, the first stays.
    let _ = LOGGER.set(Logger { level, format, sink: Mutex::new(sink) });
    if unusable {
        let chosen = chosen.unwrap_or_default();
        let text = format!("{RUST_LOG}={} is not a log level and is not used", chosen.display());
        let hint =
            "set it to error, warn, info, debug, trace or off, or for this program only: zg_tokend=debug";
        write(None, &Message::new(Level::Warn, "log_levels", text).hint(hint));
    }
}

/// The level that `RUST_LOG` chooses for this program: `LEVEL`, `TARGET=LEVEL` or several of them.
/// The outer `None` stands for a text that chooses none: one word that is no level is read as another
/// program's name, and would silence this one.
#[expect(clippy::option_option, reason = "no level for this program differs from off")]
fn level_of(chosen: &str) -> Option<Option<Level>> {
    let parse = |level: &str| match level.to_ascii_lowercase().as_str() {
        "off" => Some(None),
        "error" => Some(Some(Level::Error)),
        "warn" => Some(Some(Level::Warn)),
        "info" => Some(Some(Level::Info)),
        "debug" | "trace" => Some(Some(Level::Debug)),
        _ => None,
    };
    let (mut general, mut own) = (None, None);
    for part in chosen.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            None if part == TARGET => own = Some(Some(Level::Debug)),
            None => general = parse(part).or(general),
            Some((target, level)) => {
                let level = parse(level)?;
                if target.starts_with(TARGET) {
                    own = Some(level);
                }
            }
        }
    }
    own.or(general)
}

/// Whether a stream is connected to the journal: systemd.exec(5), `$JOURNAL_STREAM`.
fn is_connected_to_journal(stream: impl AsFd) -> bool {
    let Ok(stream) = rustix::fs::fstat(stream) else { return false };
    std::env::var("JOURNAL_STREAM")
        .is_ok_and(|journal| journal == format!("{}:{}", stream.st_dev, stream.st_ino))
}

/// Writes an entry, if its level is wanted.
pub(super) fn write(account: Option<&str>, message: &Message) {
    let Some(logger) = LOGGER.get() else { return };
    if logger.level.is_none_or(|level| message.level > level) {
        return;
    }
    let lost = |count: u64| {
        let text = format!("{count} log entries were lost: the reader of the log did not keep up");
        let hint = "check where the log goes: a paused terminal, a stopped logger or a hung journal";
        logger.format.entry(None, &Message::new(Level::Warn, "log_entries_lost", text).hint(hint))
    };
    if let Ok(mut sink) = logger.sink.lock() {
        sink.write(&logger.format.entry(account, message), lost);
    }
}

impl EntryFormat {
    fn entry(self, account: Option<&str>, message: &Message) -> Vec<u8> {
        let Message { level, event, text, cause, hint, generation } = message;
        if self == Self::Json {
            let fields = [
                ("time", Some(utc(SystemClock::new().now().wall / 1000).into())),
                ("level", Some(level.name().into())),
                ("event", Some((*event).into())),
                ("account", account.map(Value::from)),
                ("generation", generation.map(Value::from)),
                ("message", Some(text.as_str().into())),
                ("cause", cause.as_deref().map(Value::from)),
                ("hint", hint.as_deref().map(Value::from)),
            ];
            let known = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            return format!("{}\n", Value::Object(known.collect::<Map<_, _>>())).into_bytes();
        }
        let prefix = account.map(|account| format!("{account}: ")).unwrap_or_default();
        if let Self::Terminal { colour } = self {
            return entry_for_terminal(colour, &format!("{prefix}{text}"), message).into_bytes();
        }
        let suffix = hint.as_ref().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
        // On one line: a line break would make two entries of one.
        let line = printable(&format!("{prefix}{}{suffix}", told(text, cause.as_deref())));
        if self == Self::Text {
            let name = level.name().to_ascii_uppercase();
            return format!("{} {name:5} {line}\n", local_time()).into_bytes();
        }
        // systemd.journal-fields(7)
        let priority = match *level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug => 7,
        };
        let mut entry = format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER={IDENTIFIER}\nEVENT={event}\n");
        entry.extend(account.map(|account| format!("ACCOUNT={}\n", printable(account))));
        entry.extend(generation.map(|generation| format!("GENERATION={generation}\n")));
        format!("{entry}MESSAGE={line}\n").into_bytes()
    }
}

/// `text` is that of the message, behind its account.
fn entry_for_terminal(colour: bool, text: &str, message: &Message) -> String {
    let style = match message.level {
        Level::Error => AnsiColor::Red.on_default().bold(),
        Level::Warn => AnsiColor::Yellow.on_default().bold(),
        Level::Info => Style::new(),
        Level::Debug => Style::new().dimmed(),
    };
    let style = if colour { style } else { Style::new() };
    let (width, level) = (columns_of(std::io::stderr()), message.level.name().to_ascii_uppercase());
    let time = local_time();
    let label = time.len() + 1 + 5 + 1;
    let entry = fold(&printable(text), width, label);
    let below = |name: &str, text: &Option<String>| {
        let text = text.as_ref().map(|text| fold(&printable(&format!("{name}: {text}")), width, label));
        text.map(|text| format!("{:label$}{text}\n", "")).unwrap_or_default()
    };
    let (cause, hint) = (below("cause", &message.cause), below("hint", &message.hint));
    format!("{time} {style}{level:5}{style:#} {entry}\n{cause}{hint}")
}

/// Writes reports to the log. A failure that goes on is reported once as a warning, and then only
/// when the number of repetitions has doubled. A token that another process stored is told as well,
/// so that the last line about an account is true.
#[derive(Default)]
pub(super) struct Log {
    repeated: RefCell<HashMap<String, (&'static str, u32)>>,
    /// The generation of each account's token that was told last.
    told: RefCell<BTreeMap<AccountName, u64>>,
    /// The accounts with a token of another machine, and whether it was told that their file has it.
    received: RefCell<HashMap<String, bool>>,
}

impl Observer for Log {
    fn notice(&self, notice: &Notice<'_>) {
        match notice {
            Notice::Report { account, token_file, report, next_pass, .. } => {
                let mut message = words(report);
                if let Report::Fleet(FleetReport::Received { .. } | FleetReport::Dropped { .. }) = report {
                    self.received.borrow_mut().insert(account.to_string(), false);
                }
                if let Report::Finished(outcome) = report {
                    self.tell_token(account, token_file, outcome, *next_pass, &mut message);
                    self.quieten(account.as_str(), outcome, *next_pass, &mut message);
                }
                write(Some(account.as_str()), &message);
            }
            Notice::Hang { account, message, .. } => write(Some(account), message),
            // Names may come and go as long as `run` lives.
            Notice::Removed { account } => {
                self.repeated.borrow_mut().remove(*account);
                self.told.borrow_mut().remove(*account);
                self.received.borrow_mut().remove(*account);
            }
            Notice::Message { account, message } => write(*account, message),
        }
    }
}

impl Log {
    /// The first token of an account is told with its file, and later ones of other processes and machines too.
    fn tell_token(
        &self,
        account: &AccountName,
        token_file: &Path,
        outcome: &Outcome,
        next_pass: Option<Timestamp>,
        words: &mut Message,
    ) {
        let next = next_pass.map(|next| format!("; next refresh at {}", time_of_day(next)));
        if let (Outcome::Republished, Some(is_told)) =
            (outcome, self.received.borrow_mut().get_mut(account.as_str()))
        {
            *is_told = true;
            words.text =
                format!("the token file has the token of another machine{}", next.unwrap_or_default());
            return;
        }
        let (Outcome::Refreshed { generation, .. } | Outcome::Fresh { generation, .. }) = outcome else {
            return;
        };
        let received = self.received.borrow_mut().remove(account.as_str());
        let earlier = self.told.borrow_mut().insert(account.clone(), *generation);
        if earlier == Some(*generation) || received == Some(true) {
            return;
        }
        if let Outcome::Fresh { remaining, .. } = outcome {
            let lives = duration(*remaining);
            let failed = self.repeated.borrow().get(account.as_str()).map(|(event, _)| *event);
            words.text = match failed {
                Some("needs_login") => format!(
                    "another process renewed the login and stored token {generation}, which lives {lives}"
                ),
                None if earlier.is_none() => format!("token {generation} lives {lives}"),
                _ if received.is_some() => format!("token {generation} of another machine lives {lives}"),
                _ => format!("another process stored token {generation}, which lives {lives}"),
            };
            words.level = Level::Info;
        }
        words.text += &next.unwrap_or_default();
        if earlier.is_none() {
            let _ = write!(words.text, "; token file {}", token_file.display());
        }
    }

    fn quieten(&self, account: &str, outcome: &Outcome, next_pass: Option<Timestamp>, words: &mut Message) {
        let mut repeated = self.repeated.borrow_mut();
        if matches!(outcome, Outcome::Held { .. } | Outcome::Stopped) {
            return;
        }
        let (event, count) = repeated.entry(account.to_owned()).or_insert((words.event, 0));
        if words.level > Level::Warn {
            if *count > 0 {
                // The failure must not be the last word.
                words.level = Level::Info;
            }
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
            words.level = if count.is_power_of_two() { Level::Info } else { Level::Debug };
            let next = next_pass.map(|next| format!(", next at {}", time_of_day(next))).unwrap_or_default();
            words.text = format!("still failing after {count} attempts{next}: {}", words.text);
            words.hint = None;
        }
    }
}

/// When it is tried again, for a failure that only time mends.
fn next_try(outcome: &Outcome, next_pass: Option<Timestamp>) -> Option<String> {
    let Outcome::Failed(problem) = outcome else { return None };
    let Problem { class: Class::Unavailable | Class::Busy, hint: None, .. } = &**problem else { return None };
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::cli::log::*;

    #[test]
    fn an_account_that_the_config_lost_is_forgotten() {
        let log = Log::default();
        let report = Report::Finished(Outcome::Fresh { generation: 1, remaining: Duration::from_secs(60) });
        let now = SystemClock::new().now();
        let (name, account, token_file) = ("a".parse().unwrap(), "a", Path::new("/token"));
        log.notice(&Notice::Report { account: &name, token_file, report: &report, next_pass: None, now });
        log.repeated.borrow_mut().insert(account.to_owned(), ("refused", 1));
        assert_eq!(log.told.borrow().len(), 1);
        log.notice(&Notice::Removed { account });
        assert!(log.told.borrow().is_empty() && log.repeated.borrow().is_empty());
    }

    #[test]
    fn a_token_of_another_machine_is_told_as_such_and_once() {
        let log = Log::default();
        let account = "a";
        let name = account.parse().unwrap();
        let tell = |outcome: &Outcome| {
            let mut message = words(&Report::Finished(outcome.clone()));
            log.tell_token(&name, Path::new("/token"), outcome, None, &mut message);
            (message.level == Level::Debug, message.text)
        };
        let fresh = |generation| Outcome::Fresh { generation, remaining: Duration::from_secs(60) };
        assert_eq!(tell(&fresh(1)), (false, "token 1 lives 1 min; token file /token".into()));
        log.received.borrow_mut().insert(account.to_owned(), false);
        let published = "the token file has the token of another machine";
        assert_eq!(tell(&Outcome::Republished), (false, published.into()));
        assert_eq!(tell(&fresh(2)), (true, "fresh: the token lives 1 min".into()));
        assert_eq!(tell(&Outcome::Republished).1, "the token file has the live token again");
        log.received.borrow_mut().insert(account.to_owned(), false);
        assert_eq!(tell(&fresh(3)), (false, "token 3 of another machine lives 1 min".into()));
        assert_eq!(tell(&fresh(4)), (false, "another process stored token 4, which lives 1 min".into()));
    }
}
