//! `zg-tokend once`

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_with_macros::skip_serializing_none;

use crate::account::Account;
use crate::account::context::{Context, Mode, Notice, Observer};
use crate::account::once::{self, PassNote};
use crate::account::policy::accounts;
use crate::cli::args::{Args, Once};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::settings::settings;
use crate::clock::Timestamp;
use crate::config::{AccountConfig, Settings};
use crate::hooks::command::Hook;
use crate::hooks::{due, run_all};
use crate::message::{Message, duration, local, way_out, words};
use crate::problem::Class;
use crate::push;
use crate::refresh::decide::Trigger;
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::schedule;
use crate::store::Stores;
use crate::workers;

/// With `--every`, a token must outlive the next pass by this much: cron is punctual to the
/// minute, and the pass needs time itself.
const EVERY_MARGIN: Duration = Duration::from_secs(2 * 60);

/// The version of the JSON that `once --json` prints; a change of meaning raises it.
const JSON_VERSION: u32 = 1;

pub(super) fn execute(args: &Args, flags: &Once) -> Exit {
    let Some(settings) = settings(args) else { return Exit::Config };
    pass(&settings, args.common.account.as_deref(), flags, Rc::new(Warnings))
}

/// One pass with a loaded config; `only` picks an account.
pub(super) fn pass(
    settings: &Settings,
    only: Option<&str>,
    flags: &Once,
    observer: Rc<dyn Observer>,
) -> Exit {
    for warning in &settings.warnings {
        output::warning(warning, warning.hint(&settings.path));
    }
    let horizon = flags.every.map(|every| every.saturating_add(EVERY_MARGIN));
    let mode = Mode { horizon, ..Mode::default() };
    let trigger = Trigger {
        force: flags.force || flags.retry_dead,
        retry_dead: flags.retry_dead,
        ..Trigger::default()
    };
    let context = Context::new(observer);
    let clock = Rc::clone(&context.clock);
    let settings = Arc::new(settings.clone());
    let accounts = match once::once(accounts(&settings, only, mode).collect(), trigger, context) {
        Ok(accounts) => accounts,
        Err(error) => return output::no_event_loop(&error),
    };
    let exit = Exit::worst(accounts.iter().map(exit_of));
    let printed = !flags.json || print_json(&accounts, exit);
    let (mut hooks, mut configured) = (Vec::new(), Vec::new());
    let notes = note_passes(&settings, &accounts, clock.now(), flags.quiet);
    for (mut account, note) in accounts.into_iter().zip(notes) {
        if !flags.json {
            print_line(&account, flags.quiet, &note);
        }
        if account.is_abandoned() {
            continue;
        }
        if let Some(gap) = note.gap.filter(|_| flags.every.is_none() && !flags.quiet) {
            warn_of_gap(&account, gap);
        }
        hooks.extend(due(&mut account));
        configured.push(Arc::clone(account.configured()));
    }
    let sent = send_lacking(&settings, &configured.iter().collect::<Vec<_>>());
    if let Err(exit) = sent.and_then(|()| run_hooks(hooks)) {
        return exit;
    }
    if printed { exit } else { Exit::worst([exit, Exit::Io]) }
}

/// Notes the pass of each account whose files answer. Many are noted on several threads, which share one walk
/// to the state directory.
fn note_passes(settings: &Settings, accounts: &[Account], now: Timestamp, quiet: bool) -> Vec<PassNote> {
    let stores = Stores::new(settings);
    let note = |account: &Account| (Arc::clone(account.configured()), account.outcome().cloned());
    let passes: Vec<_> =
        accounts.iter().map(|account| (!account.is_abandoned()).then(|| note(account))).collect();
    workers::map(&passes, |pass| {
        let noted = pass.as_ref().map(|(configured, outcome)| {
            once::note_pass(&mut stores.open(configured), outcome.as_ref(), now, quiet)
        });
        noted.unwrap_or_default()
    })
}

/// Sends the tokens of accounts to the targets that lack them.
pub(super) fn send_lacking(settings: &Arc<Settings>, accounts: &[&Arc<AccountConfig>]) -> Result<(), Exit> {
    push::send_lacking(settings, accounts, Rc::new(Warnings)).map_err(|error| output::no_event_loop(&error))
}

/// Runs hooks, each with the name of its account, one after the other, and warns of failures.
pub(super) fn run_hooks(hooks: Vec<(String, Hook)>) -> Result<(), Exit> {
    let done = run_all(hooks, |account, error| warn(account, &error.message()));
    done.map_err(|error| output::no_event_loop(&error))
}

fn exit_of(account: &Account) -> Exit {
    match account.outcome() {
        Some(outcome) => outcome.class().map_or(Exit::Success, Exit::from),
        // The pass did not end.
        None => Exit::Failure,
    }
}

/// Cron makes a mail of each line: a failure that goes on is told once a day.
fn print_line(account: &Account, quiet: bool, note: &PassNote) {
    let Some(outcome) = account.outcome() else { return };
    let words = words(&Report::Finished(outcome.clone()));
    if outcome.class().is_some() {
        if note.is_told {
            return;
        }
        let since = note.fails_since.map(|since| format!("still, since {}: ", local(since / 1000)));
        let text = format!("account {}: {}{}", account.name(), since.unwrap_or_default(), words.text);
        output::error_for(text, words.cause.as_deref(), words.hint.as_deref());
    } else if !quiet {
        output::print_line(format!("{}: {}", account.name(), words.text));
    }
}

/// A token that a late pass refreshed will expire one day before a pass comes.
fn warn_of_gap(account: &Account, gap: Duration) {
    let Some(Outcome::Refreshed { .. }) = account.outcome() else { return };
    let Some(token) = account.core().record().and_then(|record| record.access_token.as_ref()) else { return };
    let skew = schedule::skew(token.lifetime(), account.core().policy().skew);
    if gap > skew {
        let every = humantime::format_duration(Duration::from_secs(gap.as_secs().next_multiple_of(60)));
        output::warning(
            format!(
                "account {}: the last pass was {} ago, and this token is due only {} before it expires",
                account.name(),
                duration(gap),
                duration(skew)
            ),
            format!("run it more often, or pass --every {every}"),
        );
    }
}

/// Prints the warnings of a pass.
pub(super) struct Warnings;

impl Observer for Warnings {
    fn notice(&self, notice: &Notice<'_>) {
        match notice {
            Notice::Report { report: Report::Finished(_), .. } | Notice::Removed { .. } => {}
            Notice::Report { account, report, .. } => warn(account.as_str(), &words(report)),
            Notice::Hang { account, message, .. } | Notice::Message { account: Some(account), message } => {
                warn(account, message);
            }
            Notice::Message { account: None, message } => warn_of("", message),
        }
    }
}

pub(super) fn warn(account: &str, message: &Message) {
    warn_of(&format!("account {account}: "), message);
}

/// `subject` is the beginning of the text: the account, or nothing.
fn warn_of(subject: &str, message: &Message) {
    if message.level <= crate::message::Level::Warn {
        let hint = way_out(Class::Unexpected, message.hint.as_deref());
        output::warning_at_once(format!("{subject}{}", message.text), message.cause.as_deref(), hint);
    }
}

#[derive(Serialize)]
struct OnceJson<'a> {
    version: u32,
    exit_code: u8,
    accounts: Vec<JsonAccount<'a>>,
}

#[skip_serializing_none]
#[derive(Serialize)]
struct JsonAccount<'a> {
    account: &'a str,
    result: &'static str,
    exit_code: u8,
    message: String,
    cause: Option<String>,
    hint: Option<String>,
    generation: Option<u64>,
    expires_at: Option<i64>,
    next_refresh_at: Option<i64>,
}

/// False if stdout did not take it.
fn print_json(accounts: &[Account], exit: Exit) -> bool {
    let accounts = accounts.iter().filter_map(|account| {
        let words = words(&Report::Finished(account.outcome()?.clone()));
        let record = account.core().record();
        Some(JsonAccount {
            account: account.name(),
            result: words.event,
            exit_code: exit_of(account).code(),
            message: words.text,
            cause: words.cause,
            hint: words.hint,
            generation: record.map(|record| record.generation),
            expires_at: record
                .and_then(|record| record.access_token.as_ref())
                .map(|token| token.expires_at().wall / 1000),
            next_refresh_at: account.next_wakeup().map(|at| at.wall / 1000),
        })
    });
    let json = OnceJson { version: JSON_VERSION, exit_code: exit.code(), accounts: accounts.collect() };
    // Strings and numbers always encode.
    output::print(serde_json::to_string(&json).unwrap_or_default())
}
