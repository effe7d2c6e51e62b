//! The status of an account, as JSON has it.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_with_macros::skip_serializing_none;

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

#[skip_serializing_none]
#[derive(Debug, Clone, Default, Serialize)]
pub struct AccountStatus {
    pub account: String,
    /// The account whose login it uses; absent if it has its own.
    pub from: Option<String>,
    pub state: State,
    pub severity: Severity,
    /// The problem, in a sentence; absent if there is none.
    pub problem: Option<String>,
    /// Why, where the problem does not say it.
    pub cause: Option<String>,
    /// The next step.
    pub hint: Option<String>,
    /// The source of the access token: `login` (a refresh), `runtime` (`set`), or `file` if the state
    /// does not know the token in the file.
    pub source: &'static str,
    pub token_file: TokenFileStatus,
    /// The other files for the same token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<TokenFileStatus>,
    /// The number of the current token.
    pub generation: Option<u64>,
    /// When it expires, Unix seconds by the wall clock.
    pub expires_at: Option<i64>,
    /// Seconds of life left; negative when expired.
    pub expires_in: Option<i64>,
    /// Its whole life, in seconds.
    pub lifetime: Option<i64>,
    /// When the token is due for replacement, which may be in the past; Unix seconds.
    pub refresh_at: Option<i64>,
    /// When the next refresh, or the next try, is planned; Unix seconds. Absent if that is now.
    pub next_refresh_at: Option<i64>,
    /// The kind of grant; absent for a login.
    pub grant_type: Option<&'static str>,
    /// The thing that a refresh waits for, where nothing can be tried: `key`, or the file of somebody else.
    pub waits_for: Option<String>,
    /// The client's certificates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateStatus>,
    /// The refresh token, or the lack of one.
    pub refresh_token: RefreshTokenStatus,
    pub last_attempt: Option<AttemptStatus>,
    /// The results of the last pushes; absent if there are no targets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub push: Vec<PushStatus>,
    /// The result of the last probe; absent if there is nothing to probe.
    pub probe: Option<ProbeStatus>,
    /// The login that several machines share; absent if it is this machine's own.
    pub fleet: Option<FleetStatus>,
    /// The supervising process; absent if there is none.
    pub supervisor: Option<SupervisorStatus>,
    /// The copy of the config with its secrets in plain, which the next refresh removes; absent if there
    /// is none.
    pub plain_copy: Option<String>,
}

#[skip_serializing_none]
#[derive(Debug, Clone, Default, Serialize)]
pub struct TokenFileStatus {
    /// As configured.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    pub exists: bool,
    /// Whether it holds the newest token; absent if that is not known.
    pub current: Option<bool>,
    /// When it was last written, Unix seconds.
    pub modified_at: Option<i64>,
    /// A variable in the environment of `status` that the reader prefers to the file.
    pub masked_by: Option<&'static str>,
}

/// A certificate that the client shows or signs with.
#[skip_serializing_none]
#[derive(Debug, Clone, Serialize)]
pub struct CertificateStatus {
    /// Its key in the config.
    pub key: &'static str,
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Unix seconds; absent if it cannot be read.
    pub ends_at: Option<i64>,
}

fn lossy<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// The refresh token, without the token.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, Serialize)]
pub struct RefreshTokenStatus {
    /// Whether there is one that may be used.
    pub available: bool,
    /// `state`, or where config says it is: `config`, `file`, `env`, `command`, `credential`, `sealed`.
    pub source: Option<&'static str>,
    /// How the state keeps it: `plain` (0600 in a 0700 directory) or `sealed`.
    pub at_rest: Option<&'static str>,
    /// When the user logged in, Unix seconds.
    pub seeded_at: Option<i64>,
    /// When the server last replaced it, Unix seconds.
    pub rotated_at: Option<i64>,
    /// When the login ends, if the server has said so.
    pub ends_at: Option<i64>,
    /// The user of the login, `ISSUER#SUBJECT`.
    pub identity: Option<String>,
    pub email: Option<String>,
}

/// The last attempt to refresh.
#[skip_serializing_none]
#[derive(Debug, Clone, Serialize)]
pub struct AttemptStatus {
    /// When it began, Unix seconds.
    pub at: i64,
    /// `refreshed`, or the kind of failure.
    pub result: String,
    /// The problem, if there was one.
    pub message: Option<String>,
    /// Why, where the message does not say it.
    pub cause: Option<String>,
    /// In a row.
    pub failures: Option<u32>,
    /// The first of these failures, Unix seconds.
    pub failing_since: Option<i64>,
}

/// The result of sending the token to a push target.
#[skip_serializing_none]
#[derive(Debug, Clone, Serialize)]
pub struct PushStatus {
    /// The target, without a query.
    pub url: String,
    /// Whether it has the present token; absent while nothing is known.
    pub current: Option<bool>,
    /// When it was last tried, Unix seconds.
    pub at: Option<i64>,
    /// Why it failed, if it did.
    pub problem: Option<String>,
}

/// The result of asking the resource whether it takes the token.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, Serialize)]
pub struct ProbeStatus {
    /// The URL of the resource, without a query.
    pub url: String,
    /// When it was last asked, Unix seconds; absent, as all that follows, if it never was.
    pub at: Option<i64>,
    /// `accepted`, `refused` (401), `other` if the answer says nothing of the token, `no_answer`.
    pub result: Option<&'static str>,
    /// The status of the answer, if there was one.
    pub http_status: Option<u16>,
    /// Why there was none.
    pub problem: Option<String>,
    /// When it last answered, Unix seconds.
    pub answered_at: Option<i64>,
}

/// The part of this machine in a login that several share, as it last saw the database.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, Serialize)]
pub struct FleetStatus {
    /// `refresh` or `read`.
    pub role: &'static str,
    /// The number of the refresh that this machine has; absent if it has none yet.
    pub epoch: Option<u64>,
    /// Whether the last refresh is on this disk alone.
    pub undelivered: bool,
    /// When the row was last seen, Unix seconds.
    pub seen_at: Option<i64>,
    /// The machine that had claimed the row then.
    pub claimed_by: Option<String>,
    /// Whether notifications of the database arrive; absent where no `run` waits for them.
    pub listens: Option<bool>,
    /// Why the database could not be asked the last time.
    pub problem: Option<String>,
    /// The next step then.
    #[serde(skip)]
    pub hint: Option<String>,
    /// The reason why a refresh that is due waits, and the next step: part of the account's problem.
    #[serde(skip)]
    pub waits: Option<(String, String)>,
}

#[skip_serializing_none]
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SupervisorStatus {
    /// Absent until it has written its file.
    pub pid: Option<u32>,
    /// By a signal or a debugger: it refreshes nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
}
