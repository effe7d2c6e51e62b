//! `zg-tokend once`

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::args::{Args, Once};
use super::{settings, voice};
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::exit::Exit;
use crate::publish::hooks::{Hook, HookError};
use crate::shell::account::Account;
use crate::shell::hooks::run_all;
use crate::shell::trouble::chain;
use crate::shell::words::{class, duration, way_out, words};
use crate::shell::{Context, Listener, Mode, accounts, once};
use crate::supervisor::decide::Trigger;
use crate::supervisor::outcome::{Outcome, Report};
use crate::supervisor::schedule;
use crate::supervisor::trouble::Class;

/// With `--every`, a token must outlive the next pass by this much: cron is punctual to the
/// minute, and the pass needs time itself.
const EVERY_MARGIN: Duration = Duration::from_secs(2 * 60);

/// The version of the JSON that `once --json` prints; a change of meaning raises it.
const JSON_VERSION: u32 = 1;

/// One pass over the accounts.
pub(super) fn once(args: &Args, flags: &Once) -> Exit {
    let Some(settings) = settings(args) else { return Exit::Config };
    pass(&settings, args.common.account.as_deref(), flags, Box::new(Warnings))
}

/// The same for a config that is loaded already; `only` picks an account, `listener` hears what is
/// met on the way.
pub(super) fn pass(
    settings: &Settings,
    only: Option<&str>,
    flags: &Once,
    listener: Box<dyn Listener>,
) -> Exit {
    for warning in &settings.warnings {
        voice::warning(warning, warning.hint(&settings.path));
    }
    let horizon = flags.every.map(|every| every.saturating_add(EVERY_MARGIN));
    let mode = Mode { horizon, ..Mode::default() };
    let trigger = Trigger { force: flags.force, retry_dead: flags.retry_dead, ..Trigger::default() };
    let mut context = Context::new(listener);
    context.notes_passes = true;
    let accounts = match once::once(accounts(&Arc::new(settings.clone()), only, mode), trigger, context) {
        Ok(accounts) => accounts,
        Err(error) => return voice::no_event_loop(&error),
    };
    let exit = Exit::worst(accounts.iter().map(exit_of));
    let told = !flags.json || print_json(&accounts, exit);
    for account in accounts.iter().filter(|_| !flags.json) {
        print_line(account, flags.quiet);
    }
    let mut hooks = Vec::new();
    for mut account in accounts {
        if flags.every.is_none() && !flags.quiet {
            warn_of_gap(&account);
        }
        hooks.extend(account.take_hooks().into_iter().map(|hook| (account.name().to_owned(), hook)));
    }
    if let Err(error) = run_hooks(hooks) {
        return voice::no_event_loop(&error);
    }
    if told { exit } else { Exit::worst([exit, Exit::Io]) }
}

/// Runs hooks, each with the name of its account, one after the other, and tells of those that
/// failed.
pub(super) fn run_hooks(hooks: Vec<(String, Hook)>) -> io::Result<()> {
    run_all(hooks, |account, error| Warnings.hook_failed(account, error))
}

fn exit_of(account: &Account) -> Exit {
    match account.outcome() {
        Some(outcome) => class(outcome).map_or(Exit::Success, Exit::from),
        // A pass that did not end is no success.
        None => Exit::Failure,
    }
}

fn print_line(account: &Account, quiet: bool) {
    let Some(outcome) = account.outcome() else { return };
    let words = words(&Report::Finished(outcome.clone()));
    if class(outcome).is_some() {
        voice::failure(format!("account {}: {}", account.name(), words.text), words.hint.as_deref());
    } else if !quiet {
        voice::say(format!("{}: {}", account.name(), words.text));
    }
}

/// A token that was refreshed by a pass which came late is a token that will die one day.
fn warn_of_gap(account: &Account) {
    let Some(Outcome::Refreshed { .. }) = account.outcome() else { return };
    let Some(token) = account.core().record().and_then(|record| record.access_token.as_ref()) else { return };
    let skew = schedule::skew(token.lifetime(), account.core().skew());
    if let Some(gap) = account.gap().filter(|gap| *gap > skew) {
        let every = humantime::format_duration(Duration::from_secs(gap.as_secs().next_multiple_of(60)));
        voice::warning(
            format!(
                "account {}: the last pass was {} ago, and this token is due only {} before it expires",
                account.name(),
                duration(gap),
                duration(skew)
            ),
            format!("run it more often, or say so with --every {every}"),
        );
    }
}

/// Speaks up about what a pass met on its way.
pub(super) struct Warnings;

impl Listener for Warnings {
    fn hear(&self, account: &str, report: &Report, _: Option<Timestamp>) {
        let words = words(report);
        let grave = words.level <= tracing::Level::WARN;
        if grave && !matches!(report, Report::Finished(_)) {
            let way_out = way_out(Class::Unexpected, words.hint.as_deref());
            voice::warning(format!("account {account}: {}", words.text), way_out);
        }
    }

    fn hook_failed(&self, account: &str, error: &HookError) {
        voice::warning(format!("account {account}: {}", chain(error)), error.hint());
    }
}

#[derive(Serialize)]
struct Json<'a> {
    version: u32,
    exit_code: u8,
    accounts: Vec<JsonAccount<'a>>,
}

#[derive(Serialize)]
struct JsonAccount<'a> {
    account: &'a str,
    result: &'static str,
    exit_code: u8,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
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
            hint: words.hint,
            generation: record.map(|record| record.generation),
            expires_at: record
                .and_then(|record| record.access_token.as_ref())
                .map(|token| token.expires_at().wall / 1000),
            next_refresh_at: account.next_wakeup().map(|at| at.wall / 1000),
        })
    });
    let json = Json { version: JSON_VERSION, exit_code: exit.code(), accounts: accounts.collect() };
    // Strings and numbers always encode.
    voice::tell(serde_json::to_string(&json).unwrap_or_default())
}
