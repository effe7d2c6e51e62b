//! The present state, from config, state, token file and locks alone. Never the network, never a
//! secret's source, and nothing is written.

pub mod judge;
pub mod metrics;
pub mod watch;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::account::HangNote;
use crate::account::files;
use crate::account::files::{check_owner, state_problem};
use crate::account::token_file::{Observation, PublishError};
use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::config::Settings;
use crate::probe::rules::Probed;
use crate::problem::Problem;
use crate::push::PushNote;
use crate::store::lock;
use crate::store::lock::{StateDir, Supervision};
use crate::store::state::{Store, Stored};

/// The version of the JSON that `status --json` prints; a change of meaning raises it. Its schema
/// is `packaging/status.schema.json`.
pub const JSON_VERSION: u32 = 1;

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
        if other.rank() > self.rank() { other } else { self }
    }

    /// How bad it is, for comparison.
    pub fn rank(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Unknown => 2,
            Self::Critical => 3,
        }
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
    /// The problem, in a sentence; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The next step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Where the access token comes from: `login` if a refresh earned it, `runtime` if it was brought
    /// from outside, and `file` if nothing is known of what the token file holds.
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
    /// The life that it was granted, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<i64>,
    /// When this token is to be replaced, though that instant may have passed; Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_at: Option<i64>,
    /// When the next refresh, or the next try, is planned; Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_refresh_at: Option<i64>,
    /// The refresh token, or the lack of one.
    pub refresh_token: RefreshTokenStatus,
    /// The last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<AttemptStatus>,
    /// The results of the last pushes; absent if there are no targets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub push: Vec<PushStatus>,
    /// The result of the last probe; absent if there is nothing to probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeStatus>,
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
    /// The environment variable, set where status runs, that its reader prefers to the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked_by: Option<&'static str>,
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
    /// When the login ends, if the server has said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<i64>,
}

/// The last attempt to refresh.
#[derive(Debug, Clone, Serialize)]
pub struct AttemptStatus {
    /// When it began, Unix seconds.
    pub at: i64,
    /// `refreshed`, or the kind of failure.
    pub result: String,
    /// The problem, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How many failures there were in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// The first of them, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<i64>,
}

/// The result of sending the token to a push target.
#[derive(Debug, Clone, Serialize)]
pub struct PushStatus {
    /// The target, without a query.
    pub url: String,
    /// Whether it has the present token; absent while nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<bool>,
    /// When it was last tried, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<i64>,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The result of asking the resource whether it takes the token.
#[derive(Debug, Clone, Serialize)]
pub struct ProbeStatus {
    /// The URL of the resource, without a query.
    pub url: String,
    /// When it was last asked, Unix seconds; absent, as all that follows, if it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<i64>,
    /// `accepted`, `refused` (401), `other` if the answer says nothing of the token, `no_answer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<&'static str>,
    /// The status of the answer, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Why there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When it last answered, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<i64>,
}

/// The supervisor of the account.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SupervisorStatus {
    /// Its process id, if it has said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// It stands still (SIGSTOP, a debugger), and refreshes nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
}

/// The state of all accounts at one instant.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The instant, Unix seconds by the wall clock.
    pub at: i64,
    /// The accounts, in the config's order.
    pub accounts: Vec<AccountStatus>,
}

impl Snapshot {
    /// The worst of all.
    pub fn severity(&self) -> Severity {
        self.accounts.iter().fold(Severity::Ok, |worst, account| worst.or(account.severity))
    }
}

/// The result of one look.
struct Look {
    stored: Result<Stored, Problem>,
    file: Observation,
    /// Why the file cannot be replaced, if that can be seen.
    obstacle: Option<PublishError>,
    current: Option<bool>,
    supervision: Supervision,
    /// Since when its supervisor waits for its files, Unix seconds.
    hangs: Option<i64>,
    /// Somebody holds the refresh lock; asked only where a marker stands.
    lock_held: bool,
    /// Read only where there are targets.
    pushed: PushNote,
    /// Read only where there is something to probe.
    probed: Option<Probed>,
}

/// Looks at the accounts; `only` picks one by name. `masked` names a token file whose reader is
/// known to prefer an environment variable, which is set.
pub fn status(settings: &Settings, only: Option<&str>, masked: Option<(&'static str, &Path)>) -> Snapshot {
    let now = SystemClock::new().now();
    // Walked once for all; if that fails, each account says so for itself.
    let state_dir = StateDir::find(&settings.state_dir).ok().flatten();
    // Most accounts have the same supervisor: each is looked at once.
    let mut stopped: Option<(u32, bool)> = None;
    let accounts = settings.chosen(only).map(|account| {
        let mut store = Store::new(&settings.state_dir, account.name.as_str());
        if let Some(state_dir) = &state_dir {
            store.open_within(state_dir);
        }
        let mut status = judge::assess(account, &look(settings, store, account), now);
        if let Some(pid) = status.supervisor.and_then(|supervisor| supervisor.pid) {
            let (_, is_stopped) = match stopped {
                Some(known) if known.0 == pid => known,
                _ => *stopped.insert((pid, lock::is_stopped(pid))),
            };
            if is_stopped {
                status.note_stopped(pid);
            }
        }
        status.token_file.masked_by =
            masked.filter(|(_, path)| *path == status.token_file.path).map(|(variable, _)| variable);
        status
    });
    Snapshot { at: now.wall / 1000, accounts: accounts.collect() }
}

fn look(settings: &Settings, mut store: Store, account: &config::AccountConfig) -> Look {
    let stored = store.load().map_err(|error| state_problem(&error)).and_then(|stored| {
        if let Stored::Record(record) = &stored {
            check_owner(record, account.name.as_str(), &settings.path.to_string_lossy())?;
        }
        Ok(stored)
    });
    let supervision = store.supervision().unwrap_or(Supervision::None);
    let hangs = match &supervision {
        Supervision::Alive(Some(supervisor)) => {
            let note: HangNote = store.note();
            note.since.filter(|_| note.pid == Some(supervisor.pid))
        }
        _ => None,
    };
    // A file that hangs would hang `status` as well.
    let (file, obstacle) = match hangs {
        Some(_) => (Observation::Missing, None),
        None => (account.token_file.observe(), account.token_file.obstacle()),
    };
    let mut lock_held = false;
    let mut current = None;
    if let Ok(Stored::Record(record)) = &stored {
        if let (Some(token), Observation::Holds { fingerprint, .. }) = (&record.access_token, &file) {
            current = Some(files::render(&account.token_format, token).fingerprint() == *fingerprint);
        }
        if record.in_flight.is_some() {
            lock_held = store.is_locked().unwrap_or(false);
        }
    }
    let pushed = if account.push.is_empty() { PushNote::default() } else { store.note() };
    let probed = account.probe.as_ref().and_then(|_| store.note());
    Look { stored, file, obstacle, current, supervision, hangs, lock_held, pushed, probed }
}
