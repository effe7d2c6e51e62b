//! A live access token for somebody who cannot read the token file, or was just refused with it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::account::context::{Context, Mode, Observer};
use crate::account::files::{Files, render};
use crate::account::once;
use crate::account::{Account, accounts};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config;
use crate::files;
use crate::message::{way_out, words};
use crate::problem::{Class, Problem};
use crate::refresh::decide::Trigger;
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::record::{AccessToken, Record};
use crate::refresh::schedule;
use crate::secret::Fingerprint;

/// The most that is read of a token file: tokens have up to 16 KiB, formats a little more.
const TOKEN_FILE_MAX: usize = 64 * 1024;

/// The requirements of a caller.
#[derive(Debug, Clone, Copy)]
pub struct TokenWanted {
    /// The life that the token must have left.
    pub min_valid: Duration,
    /// Be content with a token that lives, should its refresh fail.
    pub use_existing_on_error: bool,
    /// Be content with a token that lives, should another process keep us waiting for too long.
    pub use_existing_on_busy: bool,
    /// How long to wait for another process that is refreshing.
    pub lock_patience: Duration,
}

/// A token, and what went wrong while it was obtained.
#[derive(Debug)]
pub struct Obtained {
    /// It lives.
    pub token: AccessToken,
    /// Why it is not one with the life that was wanted.
    pub problem: Option<Problem>,
}

/// A live token: the stored one if it will do, else that of one pass.
pub fn obtain(
    settings: &config::Settings,
    account: &config::AccountConfig,
    wanted: TokenWanted,
    observer: Rc<dyn Observer>,
) -> Result<Obtained, Problem> {
    let stored = stored(settings, account)?;
    let now = SystemClock::new().now();
    // No token is asked for more than half its life, or each call would be a refresh.
    let half = stored.as_ref().map_or(wanted.min_valid, |token| token.lifetime() / 2);
    let min_valid = wanted.min_valid.min(half);
    let will_do = |token: &AccessToken| token.remaining(now) > crate::clock::millis(min_valid);
    if let Some(token) = stored.filter(will_do) {
        return Ok(Obtained { token, problem: None });
    }
    let mode = Mode { horizon: Some(min_valid), lock_patience: wanted.lock_patience, ..Mode::default() };
    let account = pass(settings, account, mode, Trigger::default(), observer)?;
    let problem = problem(&account);
    let now = SystemClock::new().now();
    let token = match account.outcome() {
        Some(Outcome::Fresh { remaining }) if account.core().is_state_damaged() => {
            presumed_token(account.configured(), *remaining, now)
        }
        _ => account.core().record().and_then(|record| record.access_token.clone()),
    };
    let may_use = |problem: &Problem| match problem.class {
        Class::Busy => wanted.use_existing_on_busy || wanted.use_existing_on_error,
        _ => wanted.use_existing_on_error,
    };
    match (token.filter(|token| token.is_live(now)), problem) {
        (Some(token), problem) if problem.as_ref().is_none_or(may_use) => Ok(Obtained { token, problem }),
        (_, Some(problem)) => Err(problem),
        (_, None) if account.core().is_state_damaged() => Err(Problem {
            class: Class::Io,
            kind: "state_damaged".into(),
            message: "the state file is damaged, and the token cannot be read from the token file".into(),
            hint: Some(format!("log in again, or wait: {}", way_out(Class::Unavailable, None))),
        }),
        (_, None) => Err(Problem::bug("the pass ended without a live token")),
    }
}

/// The token in the token file, while there is no valid state: it is presumed to live for so long.
fn presumed_token(
    account: &config::AccountConfig,
    remaining: Duration,
    now: Timestamp,
) -> Option<AccessToken> {
    let content = files::read::read(&account.token_file.path, TOKEN_FILE_MAX).ok()?;
    let value = account.token_format.parse(std::str::from_utf8(&content.bytes).ok()?)?;
    Some(AccessToken {
        value,
        token_type: "Bearer".into(),
        scope: None,
        issued_at: now,
        lifetime_ms: remaining.as_millis() as u64,
        jitter_ms: 0,
        repeated: false,
        given: true,
    })
}

/// The result of the report that a token was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replacement {
    /// Another token is stored; readers have it.
    AlreadyReplaced,
    /// It was replaced just now.
    Replaced,
    /// It stays: the last one that was refused was replaced so short a time ago.
    TooSoon {
        /// When the next one may be.
        wait: Duration,
    },
    /// It stays: the server has given out the same token again.
    Reaffirmed,
}

/// Compare and refresh: if the stored token is still the one that was refused, one refresh.
/// `refused` is the SHA-256 of the access token, or of the whole token file. `passed` gets
/// the account if a pass was made, for its hooks.
pub fn rejected(
    settings: &config::Settings,
    account: &config::AccountConfig,
    refused: Fingerprint,
    lock_patience: Duration,
    observer: Rc<dyn Observer>,
    passed: &mut Option<Account>,
) -> Result<Replacement, Problem> {
    let refused = match held(settings, account, refused)? {
        Held::Refused(token) => Some(token),
        Held::Another => return Ok(Replacement::AlreadyReplaced),
        Held::Nothing => None,
    };
    let trigger = Trigger { rejected: refused, ..Trigger::default() };
    let mode = Mode { lock_patience, ..Mode::default() };
    let account = passed.insert(pass(settings, account, mode, trigger, observer)?);
    replaced(account, refused)
}

/// The stored token, compared with one that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// That token: its fingerprint.
    Refused(Fingerprint),
    /// Another one.
    Another,
    /// None at all: any pass is due to bring one.
    Nothing,
}

/// Compares the stored token with the one that was refused; `refused` is as for [`rejected`].
pub fn held(
    settings: &config::Settings,
    account: &config::AccountConfig,
    refused: Fingerprint,
) -> Result<Held, Problem> {
    let Some(token) = stored(settings, account)? else { return Ok(Held::Nothing) };
    let fingerprint = token.value.fingerprint();
    let is_refused = fingerprint == refused || render(&account.token_format, &token).fingerprint() == refused;
    Ok(if is_refused { Held::Refused(fingerprint) } else { Held::Another })
}

/// The result of the pass that has just ended, for the token that was to be replaced.
pub fn replaced(account: &Account, known: Option<Fingerprint>) -> Result<Replacement, Problem> {
    if let Some(problem) = problem(account) {
        return Err(problem);
    }
    if holds_other_than(account, known) {
        return Ok(match account.outcome() {
            Some(Outcome::Refreshed { .. }) => Replacement::Replaced,
            _ => Replacement::AlreadyReplaced,
        });
    }
    let rejection = account.core().record().and_then(|record| record.rejection.as_ref());
    Ok(match rejection.filter(|rejection| Some(rejection.token) != known) {
        Some(rejection) => Replacement::TooSoon {
            wait: schedule::wait_after_rejection(rejection, SystemClock::new().now()).unwrap_or_default(),
        },
        None => Replacement::Reaffirmed,
    })
}

/// Whether another token than this is stored, as the last look found it.
pub fn holds_other_than(account: &Account, known: Option<Fingerprint>) -> bool {
    let stored = account.core().record().and_then(|record| record.access_token.as_ref());
    stored.is_some_and(|token| Some(token.value.fingerprint()) != known)
}

/// The state, if there is one.
pub fn record(
    settings: &config::Settings,
    account: &config::AccountConfig,
) -> Result<Option<Record>, Problem> {
    Ok(Files::new(&Arc::new(settings.clone()), account, true).load()?.record)
}

/// The stored token, dead or alive.
fn stored(
    settings: &config::Settings,
    account: &config::AccountConfig,
) -> Result<Option<AccessToken>, Problem> {
    Ok(record(settings, account)?.and_then(|record| record.access_token))
}

/// One pass, without its hooks: somebody waits for the end of this process, in `$(zg-tokend token)`,
/// git or kubectl, and a hook may take 30 s. The next pass of `run` or `once` finds in the state what
/// is new, and runs them.
fn pass(
    settings: &config::Settings,
    account: &config::AccountConfig,
    mode: Mode,
    trigger: Trigger,
    observer: Rc<dyn Observer>,
) -> Result<Account, Problem> {
    let accounts = accounts(&Arc::new(settings.clone()), Some(account.name.as_str()), mode);
    let finished = once::once(accounts, trigger, Context::new(observer))
        .map_err(|error| Problem::bug(&format!("cannot set up the event loop: {error}")))?;
    finished.into_iter().next().ok_or_else(|| Problem::bug("the account has vanished"))
}

/// Why a pass did not end well.
pub fn problem(account: &Account) -> Option<Problem> {
    let Some(outcome) = account.outcome() else { return Some(Problem::bug("the pass did not end")) };
    let class = outcome.class()?;
    let words = words(&Report::Finished(outcome.clone()));
    let kind = match outcome {
        Outcome::Held { problem, .. } | Outcome::Failed(problem) | Outcome::NotStored(problem) => {
            problem.kind.clone()
        }
        Outcome::Refused(verdict) => verdict.error.clone(),
        _ => words.event.into(),
    };
    Some(Problem { class, kind, message: words.text, hint: words.hint })
}
