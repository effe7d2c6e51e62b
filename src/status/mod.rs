//! The present state, from config, state, token file and locks alone. Never the network, never a
//! secret's source, and nothing is written.

pub mod credentials;
pub mod fleet;
pub mod judge;
pub mod metrics;
pub mod watch;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::account::certificates::read_certificate;
use crate::account::context::Mode;
use crate::account::files::{load_state, with_mates};
use crate::account::fleet_note::FleetNote;
use crate::account::origin::observe_mates;
use crate::account::outputs::{Known, matches, other};
use crate::account::plain_copy;
use crate::account::token_file::{Observation, PublishError};
use crate::account::{HangNote, policy};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, AccountConfig, Settings};
use crate::probe::rules::ProbeNote;
use crate::problem::Problem;
use crate::push::PushNote;
use crate::refresh::Policy;
use crate::refresh::decide::{FileView, Loaded};
use crate::refresh::record::Record;
use crate::signing::certificate::Certificate;
use crate::store;
use crate::store::lock;
use crate::store::lock::Supervision;
use crate::store::state::Store;

/// The version of the JSON that `status --json` prints; a change of meaning raises it. Its schema
/// is `packaging/status.schema.json`.
pub const JSON_VERSION: u32 = 1;

/// How serious it is; the numbers are the exit codes of monitoring plugins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The token is fresh.
    #[default]
    Ok = 0,
    /// The token lives, but something is wrong.
    Warning = 1,
    /// Expired, missing, or in need of a login.
    Critical = 2,
    /// The state cannot be read.
    Unknown = 3,
}

impl Severity {
    /// The worse of two. Critical is worse than unknown.
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

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is due.
    #[default]
    Fresh,
    /// A refresh is due.
    Due,
    /// A request is under way.
    Refreshing,
    /// A refresh is due and waits after a failure.
    BackingOff,
    /// The server refuses the client: only a change of the config helps, or of the client at the
    /// provider.
    NeedsConfig,
    /// Only a new login helps.
    NeedsLogin,
    /// The state cannot be read.
    Unknown,
}

impl State {
    /// All, each with its name in JSON and metrics.
    pub const ALL: [(Self, &str); 7] = [
        (Self::Fresh, "fresh"),
        (Self::Due, "due"),
        (Self::Refreshing, "refreshing"),
        (Self::BackingOff, "backing_off"),
        (Self::NeedsConfig, "needs_config"),
        (Self::NeedsLogin, "needs_login"),
        (Self::Unknown, "unknown"),
    ];

    pub fn name(self) -> &'static str {
        // In the order of the enum.
        Self::ALL[self as usize].1
    }
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct AccountStatus {
    pub account: String,
    /// The account whose login it uses; absent if it has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    pub state: State,
    pub severity: Severity,
    /// The problem, in a sentence; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The next step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The source of the access token: `login` (a refresh), `runtime` (`set`), or `file` if the state
    /// does not know the token in the file.
    pub source: &'static str,
    pub token_file: TokenFileStatus,
    /// The other files for the same token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<TokenFileStatus>,
    /// The number of the current token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// When it expires, Unix seconds by the wall clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// Seconds of life left; negative when expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<i64>,
    /// Its whole life, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<i64>,
    /// When the token is due for replacement, which may be in the past; Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_at: Option<i64>,
    /// When the next refresh, or the next try, is planned; Unix seconds. Absent if that is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_refresh_at: Option<i64>,
    /// The kind of grant; absent for a login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant_type: Option<&'static str>,
    /// The thing that a refresh waits for, where nothing can be tried: `key`, or the file of somebody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// The client's certificates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateStatus>,
    /// The refresh token, or the lack of one.
    pub refresh_token: RefreshTokenStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<AttemptStatus>,
    /// The results of the last pushes; absent if there are no targets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub push: Vec<PushStatus>,
    /// The result of the last probe; absent if there is nothing to probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeStatus>,
    /// The login that several machines share; absent if it is this machine's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetStatus>,
    /// The supervising process; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<SupervisorStatus>,
    /// The copy of the config with its secrets in plain, which the next refresh removes; absent if there
    /// is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain_copy: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct TokenFileStatus {
    /// As configured.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    pub exists: bool,
    /// Whether it holds the newest token; absent if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<bool>,
    /// When it was last written, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified_at: Option<i64>,
    /// A variable in the environment of `status` that the reader prefers to the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked_by: Option<&'static str>,
}

/// A certificate that the client shows or signs with.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateStatus {
    /// Its key in the config.
    pub key: &'static str,
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Unix seconds; absent if it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<i64>,
}

fn lossy<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// The refresh token, without the token.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RefreshTokenStatus {
    /// Whether there is one that may be used.
    pub available: bool,
    /// `state`, or where config says it is: `config`, `file`, `env`, `command`, `credential`, `sealed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<&'static str>,
    /// How the state keeps it: `plain` (0600 in a 0700 directory) or `sealed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_rest: Option<&'static str>,
    /// When the user logged in, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeded_at: Option<i64>,
    /// When the server last replaced it, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<i64>,
    /// When the login ends, if the server has said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<i64>,
    /// The user of the login, `ISSUER#SUBJECT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
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
    /// In a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// The first of these failures, Unix seconds.
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
#[derive(Debug, Clone, Default, Serialize)]
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

/// The part of this machine in a login that several share, as it last saw the database.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FleetStatus {
    /// `refresh` or `read`.
    pub role: &'static str,
    /// The number of the refresh that this machine has; absent if it has none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Whether the last refresh is on this disk alone.
    pub undelivered: bool,
    /// When the row was last seen, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<i64>,
    /// The machine that had claimed the row then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_by: Option<String>,
    /// Whether notifications of the database arrive; absent where no `run` waits for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listens: Option<bool>,
    /// Why the database could not be asked the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct SupervisorStatus {
    /// Absent until it has written its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// By a signal or a debugger: it refreshes nothing.
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

/// The result of one look. Files that hang and notes of features that are not configured are not read.
struct Look {
    loaded: Result<Loaded, Problem>,
    file: Observation,
    /// Why the file cannot be replaced, if that shows.
    obstacle: Option<PublishError>,
    /// The outputs; none if the files hang.
    outputs: Vec<Observation>,
    supervision: Supervision,
    /// When the config was changed last, Unix milliseconds; looked at only after a refusal.
    config_changed_at: Option<i64>,
    /// Since when the supervisor waits for the files, Unix seconds.
    hangs: Option<i64>,
    /// Another process holds the refresh lock; looked at only if a request is under way.
    is_locked: bool,
    /// The certificates, each with its key in the config.
    certificates: Vec<(&'static str, PathBuf, Result<Certificate, Problem>)>,
    pushed: PushNote,
    probed: Option<ProbeNote>,
    fleet: FleetNote,
}

/// How often an account is looked at that seems to be amid a refresh, and the pause in between: a second
/// in all, and a refresh needs milliseconds for what follows its answer.
const LOOKS: u32 = 50;
/// See [`LOOKS`].
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// The status of all accounts, or of one. `masked` is a variable that is set, and the token file whose
/// reader prefers it.
pub fn status(settings: &Settings, only: Option<&str>, masked: Option<(&'static str, &Path)>) -> Snapshot {
    let now = SystemClock::new().now();
    // Most accounts have the same supervisor.
    let mut stopped: Option<(u32, bool)> = None;
    let accounts = store::open_all(settings, only).map(|(account, store)| {
        let policy = policy(settings, account, Mode::default());
        let mut status = judge::judge(account, &policy, &look(settings, &policy, store, account), now);
        if let Some(pid) = status.supervisor.and_then(|supervisor| supervisor.pid) {
            let (_, is_stopped) = match stopped {
                Some(known) if known.0 == pid => known,
                _ => *stopped.insert((pid, lock::is_stopped(pid))),
            };
            if is_stopped {
                status.stop_supervisor(pid);
            }
        }
        if plain_copy::has_sealed_secrets(account) {
            status.plain_copy = plain_copy::find(settings).map(|path| path.to_string_lossy().into_owned());
        }
        status.token_file.masked_by =
            masked.filter(|(_, path)| *path == status.token_file.path).map(|(variable, _)| variable);
        status
    });
    Snapshot { at: now.wall / 1000, accounts: accounts.collect() }
}

/// Looks until what it sees is of one moment. A refresh stores its answer and then publishes it: between
/// the two, or between two reads here, a file that is in order looks stale, and a request that was
/// answered looks lost.
fn look(settings: &Settings, policy: &Policy, mut store: Store, account: &AccountConfig) -> Look {
    let mut seen = look_once(settings, policy, &mut store, account);
    for _ in 0..LOOKS {
        let loaded = match &seen.loaded {
            Ok(loaded) if seen.hangs.is_none() => loaded,
            _ => break,
        };
        let is_in_flight = loaded.record.as_ref().is_some_and(|record| record.in_flight.is_some());
        let outputs = account.outputs.iter().zip(&seen.outputs);
        let token = loaded.record.as_ref().and_then(|record| record.access_token.as_ref());
        let are_current = token.is_none_or(|token| {
            matches!(loaded.file, FileView::Current)
                && outputs.into_iter().all(|(output, seen)| matches(account, &output.format, token, seen))
        });
        let is_of_one_moment = if is_in_flight { seen.is_locked } else { are_current };
        if is_of_one_moment {
            break;
        }
        // A refresh that is at this point ends within the time of some writes.
        let is_locked = store.is_locked().unwrap_or(false);
        if is_locked {
            thread::sleep(LOOK_PAUSE);
        }
        let next = look_once(settings, policy, &mut store, account);
        let record = |look: &Look| look.loaded.as_ref().ok().and_then(|loaded| loaded.record.clone());
        let is_same = !is_locked && record(&next) == record(&seen) && next.file.is_same(&seen.file);
        seen = next;
        if is_same {
            break;
        }
    }
    seen
}

fn look_once(settings: &Settings, policy: &Policy, store: &mut Store, account: &AccountConfig) -> Look {
    let supervision = store.supervision().unwrap_or(Supervision::None);
    let hangs = match &supervision {
        Supervision::Alive(Some(supervisor)) => {
            let note: HangNote = store.note();
            note.since.filter(|_| note.pid == Some(supervisor.pid))
        }
        _ => None,
    };
    // A file that hangs would hang `status` as well.
    let (file, obstacle, outputs) = match hangs {
        Some(_) => (Observation::Missing, None, Vec::new()),
        None => (
            account.token_file.observe(),
            account.token_file.obstacle(),
            account.outputs.iter().map(|output| output.file.observe()).collect(),
        ),
    };
    let mates = if hangs.is_some() { Vec::new() } else { observe_mates(settings, account) };
    let loaded = load_state(store, &policy.account, &policy.config).map(|stored| {
        let (record, garbage) = stored.into_parts();
        let own = view(&file, account, record.as_ref(), garbage.is_some());
        let file = with_mates(&mates, record.as_ref(), garbage.is_some(), own);
        Loaded { record, garbage, file }
    });
    let record = loaded.as_ref().ok().and_then(|loaded| loaded.record.as_ref());
    let is_in_flight = record.is_some_and(|record| record.in_flight.is_some());
    let is_refused = record.is_some_and(|record| record.verdict.is_some());
    Look {
        config_changed_at: is_refused.then(|| config::changed_at(settings)).flatten(),
        is_locked: is_in_flight && store.is_locked().unwrap_or(false),
        certificates: account
            .grant
            .certificates()
            .filter(|_| hangs.is_none())
            .map(|(key, path)| (key, path.clone(), read_certificate(key, path).map(|(_, found)| found)))
            .collect(),
        pushed: if account.push.is_empty() { PushNote::default() } else { store.note() },
        probed: account.probe.as_ref().and_then(|_| store.note()),
        fleet: account.fleet.as_ref().map(|_| store.note()).unwrap_or_default(),
        loaded,
        file,
        obstacle,
        outputs,
        supervision,
        hangs,
    }
}

/// The token file beside the token of the record. Without the info file, which `status` does not judge.
fn view(file: &Observation, account: &AccountConfig, record: Option<&Record>, garbage: bool) -> FileView {
    let token = record.and_then(|record| record.access_token.as_ref());
    let is_current = token.is_some_and(|token| matches(account, &account.token_format, token, file));
    if is_current { FileView::Current } else { other(account, file, Known::of(record, garbage)) }
}
