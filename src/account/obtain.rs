//! A live access token for a caller that cannot read the token file, or whose token was refused.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::account::Account;
use crate::account::context::{Context, Mode, Observer};
use crate::account::files::Files;
use crate::account::once;
use crate::account::outputs::{matches, render};
use crate::account::policy::accounts;
use crate::account::token_file::Observation;
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

/// The longest token file that is read: tokens have up to 16 KiB, formats a little more.
const TOKEN_FILE_MAX: usize = 64 * 1024;

/// The requirements of a caller.
#[derive(Debug, Clone, Copy)]
pub struct TokenRequirements {
    /// The life that the token must have left.
    pub min_valid: Duration,
    /// Accept any live token if the refresh fails.
    pub use_existing_on_error: bool,
    /// Accept any live token if another process holds the lock for too long.
    pub use_existing_on_busy: bool,
    /// How long to wait for another process that is refreshing.
    pub lock_patience: Duration,
}

#[derive(Debug)]
pub struct LiveToken {
    pub token: AccessToken,
    /// Why the token does not meet the requirements.
    pub problem: Option<Problem>,
    /// The stored token was not enough.
    pub passed: bool,
}

/// The stored token, if it lives for longer than `min_valid`; at most half its lifetime counts, or each
/// call would refresh. Else the life that is asked for.
pub fn stored(
    settings: &config::Settings,
    account: &Arc<config::AccountConfig>,
    min_valid: Duration,
) -> Result<Result<LiveToken, Duration>, Problem> {
    let stored = access_token(settings, account)?;
    let now = SystemClock::new().now();
    let half = stored.as_ref().map_or(min_valid, |token| token.lifetime() / 2);
    let min_valid = min_valid.min(half);
    let is_enough = |token: &AccessToken| token.remaining(now) > crate::clock::millis(min_valid);
    let token = stored.filter(is_enough).ok_or(min_valid);
    Ok(token.map(|token| LiveToken { token, problem: None, passed: false }))
}

/// The stored token while it lives, after another process has made a pass for it.
pub fn passed(
    settings: &config::Settings,
    account: &Arc<config::AccountConfig>,
) -> Result<Option<LiveToken>, Problem> {
    let now = SystemClock::new().now();
    let token = access_token(settings, account)?.filter(|token| token.is_live(now));
    Ok(token.map(|token| LiveToken { token, problem: None, passed: true }))
}

/// The stored token if it meets the requirements, else that of one pass.
pub fn obtain(
    settings: &config::Settings,
    account: &Arc<config::AccountConfig>,
    requirements: TokenRequirements,
    observer: Rc<dyn Observer>,
) -> Result<LiveToken, Problem> {
    let min_valid = match stored(settings, account, requirements.min_valid)? {
        Ok(token) => return Ok(token),
        Err(min_valid) => min_valid,
    };
    let mode =
        Mode { horizon: Some(min_valid), lock_patience: requirements.lock_patience, ..Mode::default() };
    let account = pass(settings, account, mode, Trigger::default(), observer)?;
    let problem = problem(&account);
    let now = SystemClock::new().now();
    let token = match account.outcome() {
        Some(Outcome::Fresh { remaining, .. }) if account.core().is_state_damaged() => {
            presumed_token(account.configured(), *remaining, now)
        }
        _ => account.core().record().and_then(|record| record.access_token.clone()),
    };
    let may_use = |problem: &Problem| match problem.class {
        Class::Busy => requirements.use_existing_on_busy || requirements.use_existing_on_error,
        _ => requirements.use_existing_on_error,
    };
    match (token.filter(|token| token.is_live(now)), problem) {
        (Some(token), problem) if problem.as_ref().is_none_or(may_use) => {
            Ok(LiveToken { token, problem, passed: true })
        }
        (_, Some(problem)) => Err(problem),
        (_, None) if account.core().is_state_damaged() => {
            Err(Problem::of(Class::Io, "state_damaged", "there is no token that can be used")
                .cause("the state file is damaged, and the token cannot be read from the token file")
                .hint(format!("log in again, or wait: {}", way_out(Class::Unavailable, None))))
        }
        (_, None) => Err(Problem::bug("the pass ended without a live token")),
    }
}

/// The token in the token file, while the state is damaged: it is presumed to live for `remaining`.
fn presumed_token(
    account: &config::AccountConfig,
    remaining: Duration,
    now: Timestamp,
) -> Option<AccessToken> {
    let content = files::read::read(&account.token_file.path, TOKEN_FILE_MAX).ok()?;
    let value = account.token_format.parse(std::str::from_utf8(&content.bytes).ok()?)?;
    Some(AccessToken::given(value, now, remaining))
}

/// The result for a token that a resource refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replacement {
    /// Readers had another token already.
    AlreadyReplaced,
    Replaced,
    /// It stays, because another token was replaced just before; the next attempt may come after `wait`.
    TooSoon {
        wait: Duration,
    },
    /// It stays, because the server has granted the same token again.
    Reaffirmed,
}

/// Refreshes once if the stored token is still the refused one. `refused` is the SHA-256 of the access
/// token or of the whole token file. If there was a pass, `passed` gets the account, for its hooks.
pub fn rejected(
    settings: &config::Settings,
    account: &Arc<config::AccountConfig>,
    refused: Fingerprint,
    lock_patience: Duration,
    observer: Rc<dyn Observer>,
    passed: &mut Option<Account>,
) -> Result<Replacement, Problem> {
    let refused = match compare(settings, account, refused)? {
        StoredToken::Refused(token) => Some(token),
        StoredToken::Other => return Ok(Replacement::AlreadyReplaced),
        StoredToken::Missing => None,
    };
    let trigger = Trigger { rejected: refused, ..Trigger::default() };
    let mode = Mode { lock_patience, ..Mode::default() };
    let account = passed.insert(pass(settings, account, mode, trigger, observer)?);
    replaced(account, refused)
}

/// The stored token, compared with a refused one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredToken {
    /// The same; its fingerprint.
    Refused(Fingerprint),
    Other,
    Missing,
}

/// `refused` is as for [`rejected`].
pub fn compare(
    settings: &config::Settings,
    account: &Arc<config::AccountConfig>,
    refused: Fingerprint,
) -> Result<StoredToken, Problem> {
    let Some(token) = access_token(settings, account)? else { return Ok(StoredToken::Missing) };
    let fingerprint = token.value.fingerprint();
    let is_refused = fingerprint == refused || is_content(account, &token, refused);
    Ok(if is_refused { StoredToken::Refused(fingerprint) } else { StoredToken::Other })
}

/// Whether a file of the account would have this SHA-256 with the token. One with the seconds left in
/// it is compared as it is.
fn is_content(account: &config::AccountConfig, token: &AccessToken, refused: Fingerprint) -> bool {
    let files = account.outputs.iter().map(|output| (&output.file, &output.format));
    let mut files = files.chain([(&account.token_file, &account.token_format)]);
    files.any(|(file, format)| {
        if format.is_timed() {
            let seen = file.observe();
            return matches(account, format, token, &seen)
                && matches!(seen, Observation::Holds { fingerprint, .. } if fingerprint == refused);
        }
        render(account, format, token, 0).is_ok_and(|content| content.fingerprint() == refused)
    })
}

/// The result of a pass for the refused token.
pub fn replaced(account: &Account, refused: Option<Fingerprint>) -> Result<Replacement, Problem> {
    if let Some(problem) = problem(account) {
        return Err(problem);
    }
    if holds_other_than(account, refused) {
        return Ok(match account.outcome() {
            Some(Outcome::Refreshed { .. }) => Replacement::Replaced,
            _ => Replacement::AlreadyReplaced,
        });
    }
    let rejection = account.core().record().and_then(|record| record.rejection.as_ref());
    Ok(match rejection.filter(|rejection| Some(rejection.token) != refused) {
        Some(rejection) => Replacement::TooSoon {
            wait: schedule::wait_after_rejection(rejection, SystemClock::new().now()).unwrap_or_default(),
        },
        None => Replacement::Reaffirmed,
    })
}

/// Whether the state, as last loaded, has another token than this.
pub fn holds_other_than(account: &Account, token: Option<Fingerprint>) -> bool {
    let stored = account.core().record().and_then(|record| record.access_token.as_ref());
    stored.is_some_and(|stored| Some(stored.value.fingerprint()) != token)
}

/// The state, if there is one.
pub fn record(
    settings: &config::Settings,
    account: &Arc<config::AccountConfig>,
) -> Result<Option<Record>, Problem> {
    Ok(Files::new(&Arc::new(settings.clone()), account, true).load()?.record)
}

/// The stored token, live or expired.
fn access_token(
    settings: &config::Settings,
    account: &Arc<config::AccountConfig>,
) -> Result<Option<AccessToken>, Problem> {
    Ok(record(settings, account)?.and_then(|record| record.access_token))
}

/// One pass without hooks: `$(zg-tokend token)`, git or kubectl waits for the end of this process, and
/// a hook may take 30 s. The next pass of `run` or `once` finds the changes in the state and runs them.
fn pass(
    settings: &config::Settings,
    account: &Arc<config::AccountConfig>,
    mode: Mode,
    trigger: Trigger,
    observer: Rc<dyn Observer>,
) -> Result<Account, Problem> {
    let settings = Arc::new(settings.clone());
    let accounts = accounts(&settings, Some(account.name.as_str()), mode).collect();
    let finished = once::once(accounts, trigger, Context::new(observer))
        .map_err(|error| Problem::bug(&format!("cannot set up the event loop: {error}")))?;
    finished.into_iter().next().ok_or_else(|| Problem::bug("the account has vanished"))
}

/// Why the pass of an account left no fresh token behind.
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
    Some(Problem { class, kind, message: words.text, cause: words.cause, hint: words.hint })
}
