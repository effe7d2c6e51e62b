//! What is true now, from config, state, token file and locks alone. Never the network, never a
//! secret's source, and nothing is written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::files::{self, check_owner, state_trouble};
use super::words::{duration, refusal};
use crate::clock::{Clock, SystemClock, Timestamp, millis};
use crate::config::{self, SecretSource, Settings};
use crate::publish::token_file::{Observation, PublishError};
use crate::store::lock::{StateDir, Supervision};
use crate::store::state::{Store, Stored};
use crate::supervisor::record::{AccessToken, Record, Source, VerdictKind};
use crate::supervisor::schedule::{self, Due};
use crate::supervisor::trouble::Trouble;

/// The version of the JSON that `status --json` prints; a change of meaning raises it.
pub const JSON_VERSION: u32 = 1;

/// Cron comes every five minutes, and may skip one: a token that is due no longer than this is
/// nobody's fault yet.
const OVERDUE_GRACE: Duration = Duration::from_secs(10 * 60);

/// How serious it is; the numbers are the exit codes of monitoring plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The token is fresh.
    Ok = 0,
    /// It lives, but something is not as it should be.
    Warning = 1,
    /// Expired, missing, or in need of a login.
    Critical = 2,
    /// It cannot be told.
    Unknown = 3,
}

impl Severity {
    /// The worse of two; a known disaster outweighs what is unknown.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let rank = |severity| match severity {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Unknown => 2,
            Self::Critical => 3,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// The state of an account, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is due.
    Fresh,
    /// A refresh is due.
    Due,
    /// A request is under way.
    Refreshing,
    /// A refresh is due and waits after a failure.
    BackingOff,
    /// Only a new login helps.
    NeedsLogin,
    /// The state cannot be read.
    Unknown,
}

/// One account, as it is.
#[derive(Debug, Clone, Serialize)]
pub struct AccountStatus {
    /// Its name.
    pub account: String,
    /// In one word.
    pub state: State,
    /// For monitoring.
    pub severity: Severity,
    /// What is wrong, in a sentence; absent if nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Where the access token comes from: `file` if this program publishes it there.
    pub source: &'static str,
    /// The token file.
    pub token_file: TokenFileStatus,
    /// The number of the present token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// When it expires, Unix seconds by the wall clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// Seconds of life left; negative when expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<i64>,
    /// When the next refresh, or the next try, is planned; Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_refresh_at: Option<i64>,
    /// The refresh token, or the lack of one.
    pub refresh_token: RefreshTokenStatus,
    /// The last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<AttemptStatus>,
    /// The supervising process; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<SupervisorStatus>,
}

/// The token file, as it is.
#[derive(Debug, Clone, Serialize)]
pub struct TokenFileStatus {
    /// Its configured path.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Whether it is there.
    pub exists: bool,
    /// Whether it holds the newest token; absent if that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<bool>,
    /// When it was last written, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified_at: Option<i64>,
}

/// A path that is no text is shown as well as can be.
fn lossy<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// The refresh token, without the token.
#[derive(Debug, Clone, Serialize)]
pub struct RefreshTokenStatus {
    /// Whether there is one that may be used.
    pub available: bool,
    /// `state`, or where config says it is: `config`, `file`, `env`, `command`, `credential`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<&'static str>,
    /// When the user logged in, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeded_at: Option<i64>,
    /// When the server last replaced it, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<i64>,
}

/// The last attempt to refresh.
#[derive(Debug, Clone, Serialize)]
pub struct AttemptStatus {
    /// When it began, Unix seconds.
    pub at: i64,
    /// `refreshed`, or the kind of failure.
    pub result: String,
    /// What went wrong, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How many failures there were in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
}

/// Who supervises the account.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SupervisorStatus {
    /// Its process id, if it has said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// What one look found.
pub(crate) struct Look {
    pub(crate) stored: Result<Stored, Trouble>,
    pub(crate) file: Observation,
    /// Why the file cannot be replaced, if that can be seen.
    pub(crate) obstacle: Option<PublishError>,
    pub(crate) current: Option<bool>,
    pub(crate) supervision: Supervision,
    /// Somebody holds the refresh lock; asked only where a marker stands.
    pub(crate) lock_held: bool,
}

/// Looks at the accounts; `only` picks one by name.
pub fn status(settings: &Settings, only: Option<&str>) -> Vec<AccountStatus> {
    let now = SystemClock::new().now();
    let accounts = settings.accounts.iter();
    let chosen = accounts.filter(|account| only.is_none_or(|only| account.name.as_str() == only));
    // Walked once for all; if that fails, each account says so for itself.
    let state_dir = StateDir::find(&settings.state_dir).ok().flatten();
    chosen
        .map(|account| {
            let mut store = Store::new(&settings.state_dir, account.name.as_str());
            if let Some(state_dir) = &state_dir {
                store.open_within(state_dir);
            }
            assess(account, &look(settings, store, account), now)
        })
        .collect()
}

fn look(settings: &Settings, mut store: Store, account: &config::Account) -> Look {
    let stored = store.load().map_err(|error| state_trouble(&error)).and_then(|stored| {
        if let Stored::Record(record) = &stored {
            check_owner(record, account.name.as_str(), &settings.path.to_string_lossy())?;
        }
        Ok(stored)
    });
    let token_file = files::token_file(&account.token_file);
    let (file, obstacle) = (token_file.observe(), token_file.obstacle());
    let mut lock_held = false;
    let mut current = None;
    if let Ok(Stored::Record(record)) = &stored {
        if let (Some(token), Observation::Holds { fingerprint, .. }) = (&record.access_token, &file) {
            current = Some(files::render(&account.token_file.format, token).fingerprint() == *fingerprint);
        }
        if record.in_flight.is_some() {
            lock_held = store.is_locked().unwrap_or(false);
        }
    }
    let supervision = store.supervision().unwrap_or(Supervision::None);
    Look { stored, file, obstacle, current, supervision, lock_held }
}

/// Draws the conclusions. Pure.
pub(crate) fn assess(account: &config::Account, look: &Look, now: Timestamp) -> AccountStatus {
    let mut status = judge(account, look, now);
    if let Some(error) = &look.obstacle
        && status.state != State::NeedsLogin
    {
        // It is the cause of whatever else is wrong, or will be.
        status.severity = status.severity.or(Severity::Warning);
        status.problem = Some(super::trouble::chain(error));
        status.hint = error.hint();
    }
    status
}

fn judge(account: &config::Account, look: &Look, now: Timestamp) -> AccountStatus {
    let mut status = blank(account, look);
    let record = match &look.stored {
        Ok(Stored::Record(record)) => record,
        Ok(Stored::Nothing) => {
            status.conclude(State::Due, Severity::Critical, "there is no token yet");
            status.hint =
                Some("run `zg-tokend once` to see it refreshed, or `zg-tokend run` to keep it so".into());
            if status.token_file.exists {
                status.conclude(State::Due, Severity::Warning, "nothing is known of the token in the file");
            }
            return status;
        }
        Ok(Stored::Garbage(why)) => {
            status.conclude(
                State::Unknown,
                Severity::Unknown,
                format!("the state cannot be understood: {why}"),
            );
            status.hint = Some("the next refresh begins anew with the configured refresh_token".into());
            return status;
        }
        Err(trouble) => {
            status.conclude(State::Unknown, Severity::Unknown, trouble.message.clone());
            status.hint.clone_from(&trouble.hint);
            return status;
        }
    };
    status.tell(record, now);
    let Some(token) = &record.access_token else {
        status.state = State::Due;
        status.judge_refresh(record, look, now, true);
        status.severity = Severity::Critical;
        // Why there is none says more.
        status.problem.get_or_insert_with(|| "there is no token yet".into());
        return status;
    };
    let skew = schedule::skew(token.lifetime(), account.skew);
    let due = schedule::due(token.issued_at, schedule::due_after(token, account.skew), now);
    status.judge_token(token, due, skew, now);
    status.judge_file(look);
    status.judge_refresh(record, look, now, !matches!(due, Due::In(_)));
    if !status.refresh_token.available && record.verdict.is_none() {
        status.hint = Some("configure a refresh_token, or the token will not be refreshed".into());
        if token.remaining(now) < millis(skew) {
            status.conclude(
                status.state,
                Severity::Warning,
                "refresh unavailable: there is no refresh token",
            );
        }
    }
    status
}

impl AccountStatus {
    /// Adds a finding; the first of the worst is the one that is told.
    fn conclude(&mut self, state: State, severity: Severity, problem: impl Into<String>) {
        let worst = self.severity.or(severity);
        if worst != self.severity || self.problem.is_none() {
            self.problem = Some(problem.into());
        }
        self.severity = worst;
        self.state = state;
    }

    /// The facts of the record.
    fn tell(&mut self, record: &Record, now: Timestamp) {
        self.generation = Some(record.generation);
        if let Some(token) = &record.access_token {
            let remaining = token.remaining(now);
            self.expires_in = Some(remaining.div_euclid(1000));
            self.expires_at = Some(now.wall.saturating_add(remaining) / 1000);
        }
        if let Some(token) = &record.refresh_token {
            self.refresh_token = RefreshTokenStatus {
                available: !record.needs_login(),
                source: Some("state"),
                seeded_at: Some(token.seeded_at.wall / 1000),
                rotated_at: (token.source == Source::Rotation).then_some(token.obtained_at.wall / 1000),
            };
        }
        self.last_attempt = record.last_attempt.as_ref().map(|attempt| AttemptStatus {
            at: attempt.at.wall / 1000,
            result: attempt.result.clone(),
            message: record
                .failure
                .as_ref()
                .map(|failure| failure.message.clone())
                .or_else(|| record.verdict.as_ref().map(refusal)),
            failures: record.failure.as_ref().map(|failure| failure.count),
        });
    }

    fn judge_token(&mut self, token: &AccessToken, due: Due, skew: Duration, now: Timestamp) {
        let remaining = token.remaining(now);
        match due {
            Due::In(left) => self.next_refresh_at = Some(now.wall.saturating_add(left) / 1000),
            Due::Since(late) => {
                self.state = State::Due;
                if late > millis(OVERDUE_GRACE.min(skew / 2)) {
                    let late = duration(Duration::from_millis(late.cast_unsigned()));
                    self.conclude(State::Due, Severity::Warning, format!("a refresh is overdue for {late}"));
                    self.hint = Some("run `zg-tokend run`, or `zg-tokend once` from cron or a timer".into());
                }
            }
            Due::ClockSetBack => {
                self.conclude(State::Due, Severity::Warning, "the wall clock is before the token's issue");
                self.hint = Some("set the clock: date, timedatectl".into());
            }
        }
        if remaining <= 0 {
            let ago = duration(Duration::from_secs(remaining.div_euclid(1000).unsigned_abs()));
            self.conclude(State::Due, Severity::Critical, format!("the token expired {ago} ago"));
        }
    }

    fn judge_file(&mut self, look: &Look) {
        let path = self.token_file.path.display().to_string();
        match (&look.file, look.current) {
            (Observation::Missing, _) => {
                self.conclude(self.state, Severity::Critical, format!("the token file {path} is missing"));
                self.hint = Some("run `zg-tokend once`: it writes the live token again".into());
            }
            (Observation::Unreadable(error), _) => {
                self.conclude(self.state, Severity::Critical, super::trouble::chain(error));
                self.hint = error.hint();
            }
            (Observation::Holds { .. }, Some(false)) => {
                self.conclude(
                    self.state,
                    Severity::Warning,
                    format!("the token file {path} holds something else than the newest token"),
                );
                self.hint = Some("run `zg-tokend once`: it writes the live token again".into());
            }
            (Observation::Holds { .. }, _) => {}
        }
    }

    fn judge_refresh(&mut self, record: &Record, look: &Look, now: Timestamp, due: bool) {
        if let Some(verdict) = &record.verdict {
            let (state, severity) = match verdict.kind {
                VerdictKind::RefreshToken => (State::NeedsLogin, Severity::Critical),
                VerdictKind::Client => (State::BackingOff, Severity::Warning),
            };
            self.conclude(state, severity, refusal(verdict));
            self.hint.clone_from(&verdict.hint);
            self.next_refresh_at = verdict.not_before.map(|at| at.wall / 1000);
        }
        if let Some(failure) = &record.failure
            && due
        {
            self.conclude(State::BackingOff, Severity::Warning, failure.message.clone());
            self.hint = failure.hint.clone().or_else(|| Some("it is tried again by itself".into()));
            let wait = schedule::wait_after(failure, now).unwrap_or_default();
            self.next_refresh_at = Some((now.wall + millis(wait)) / 1000);
        }
        if record.in_flight.is_some() {
            if look.lock_held {
                self.state = State::Refreshing;
            } else {
                let problem = "a process died while its request was under way";
                self.conclude(State::Due, Severity::Warning, problem);
                self.hint = Some("run `zg-tokend once`: it asks again".into());
            }
        }
    }
}

/// Before anything is known.
fn blank(account: &config::Account, look: &Look) -> AccountStatus {
    let (exists, modified_at) = match &look.file {
        Observation::Missing => (false, None),
        Observation::Holds { modified_at, .. } => (true, Some(modified_at / 1000)),
        Observation::Unreadable(_) => (true, None),
    };
    AccountStatus {
        account: account.name.to_string(),
        state: State::Fresh,
        severity: Severity::Ok,
        problem: None,
        hint: None,
        source: "file",
        token_file: TokenFileStatus {
            path: account.token_file.path.clone(),
            exists,
            current: look.current,
            modified_at,
        },
        generation: None,
        expires_at: None,
        expires_in: None,
        next_refresh_at: None,
        refresh_token: RefreshTokenStatus {
            available: account.refresh_token.is_some(),
            source: account.refresh_token.as_ref().map(source),
            seeded_at: None,
            rotated_at: None,
        },
        last_attempt: None,
        supervisor: match look.supervision {
            Supervision::None => None,
            Supervision::Alive(supervisor) => {
                Some(SupervisorStatus { pid: supervisor.map(|supervisor| supervisor.pid) })
            }
        },
    }
}

fn source(source: &SecretSource) -> &'static str {
    match source {
        SecretSource::Inline(_) => "config",
        SecretSource::File(_) => "file",
        SecretSource::Env(_) => "env",
        SecretSource::Command(_) => "command",
        SecretSource::Credential(_) => "credential",
    }
}
