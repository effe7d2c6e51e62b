//! The memory of one account between passes, processes and reboots.
//!
//! A [`Record`] is the state file, field by field. It holds the rotated refresh token: losing
//! it is losing the login.
//!
//! A newer program may share a state with an older one, as while a package is upgraded under a
//! supervisor. It may add members within a [`VERSION`] that can be done without: who does not know
//! one ignores it, and leaves it out of what it writes next, since a member that nobody looks after
//! may speak of a token that is gone. A member that must be understood, or must not be lost (a new value of
//! an enum is that as well), raises the version, and then only the newer program goes on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Timestamp, millis};
use crate::problem::Class;
use crate::secret;
use crate::secret::{Fingerprint, Secret};

/// The version this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// So many seeds are remembered. A program that rotates the configured refresh token by itself brings
/// a new one each hour, and the state, which holds each in 75 bytes, must stay small enough to be
/// read. One that was dropped would win again, be sent and be refused: only who puts back a login
/// that is 256 logins old meets that, and the login in force is gone back to.
pub const SEEDS_MAX: usize = 256;

/// The state of one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The format's version, `VERSION`.
    pub version: u32,
    /// The account's name; the state directory is named after it as well.
    pub account: String,
    /// The config file that owns this state.
    pub config: String,
    /// Counts the access tokens that were ever granted to this account.
    pub generation: u64,
    /// The seeds that were taken from config or brought by the user, the latest of them, oldest
    /// first. One that is listed never wins again.
    pub seeds: Vec<Fingerprint>,
    /// A login was brought while the configured seed could not be read: that is the older one, and
    /// is listed, not taken, when it is first read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub config_is_older: bool,
    /// The refresh token to present next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<RefreshToken>,
    /// The refresh token that a newer seed replaced, until the newer one has refreshed once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<RefreshToken>,
    /// How long the login lives, if the server has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_life: Option<LoginLife>,
    /// The last reply had a refresh token that no request could send.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refresh_token_unusable: bool,
    /// The newest access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token: Option<AccessToken>,
    /// Stands from just before a request until its answer is stored. Found by another process,
    /// it says that its writer died in between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<InFlight>,
    /// The run of failures that has not ended yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The server's definite no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The last access token that a resource refused while it should have lived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<Rejection>,
    /// The forced refreshes of the last minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<Forced>,
    /// The last request to the token endpoint, or the last that could not be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<Attempt>,
}

/// A refresh token and its history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshToken {
    /// The token itself.
    #[serde(with = "secret::stored")]
    pub value: Secret,
    /// Where it came from.
    pub source: LoginSource,
    /// When the user's login first reached this program.
    pub seeded_at: Timestamp,
    /// When this very token did; equal to `seeded_at` until the first rotation.
    pub obtained_at: Timestamp,
    /// When it last earned an access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_at: Option<Timestamp>,
    /// How often it was sent since then without a definite answer.
    pub unclear_sends: u32,
}

/// The life of a login, by `refresh_token_expires_in` or its like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginLife {
    /// The clocks before the request.
    pub stated_at: Timestamp,
    /// The life that was left then, in milliseconds.
    pub lifetime_ms: u64,
}

impl LoginLife {
    /// The longest time ahead that the end is worth a warning.
    const NOTICE: Duration = Duration::from_secs(7 * 86_400);

    /// The end, on both clocks.
    pub fn ends_at(&self) -> Timestamp {
        self.stated_at.plus(Duration::from_millis(self.lifetime_ms))
    }

    /// Whether the end is near: a seventh of the life, at most a week.
    pub fn ends_soon(&self, now: Timestamp) -> bool {
        let notice = Self::NOTICE.min(Duration::from_millis(self.lifetime_ms) / 7);
        now.since(self.stated_at) + notice >= Duration::from_millis(self.lifetime_ms)
    }
}

/// Where a refresh token came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginSource {
    /// The refresh_token of the configuration.
    Seed,
    /// The server, which replaced an earlier one (RFC 6749 section 6).
    Rotation,
}

/// An access token and the life it was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    /// The token itself.
    #[serde(with = "secret::stored")]
    pub value: Secret,
    /// Its type, as the server wrote it (RFC 6749 section 7.1).
    pub token_type: String,
    /// The scope that was granted, if the server said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The clocks before the request: its life counts from here, so that we err on the early side.
    pub issued_at: Timestamp,
    /// expires_in, in milliseconds.
    pub lifetime_ms: u64,
    /// How much earlier than the skew demands this one is refreshed, in milliseconds.
    pub jitter_ms: u64,
    /// The server gave out the same token again: it is asked again at half the remaining life.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    /// The user brought it; no refresh earned it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given: bool,
}

impl AccessToken {
    /// The life it was granted.
    pub fn lifetime(&self) -> Duration {
        Duration::from_millis(self.lifetime_ms)
    }

    /// The end of its life, on both clocks.
    pub fn expires_at(&self) -> Timestamp {
        self.issued_at.plus(self.lifetime())
    }

    /// Milliseconds of life left, by whichever clock is the less hopeful; negative when dead.
    pub fn remaining(&self, now: Timestamp) -> i64 {
        millis(self.lifetime()).saturating_sub(age(self.issued_at, now))
    }

    /// True while there is life left.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.remaining(now) > 0
    }
}

/// Milliseconds since `earlier` by whichever clock says more.
pub(super) fn age(earlier: Timestamp, now: Timestamp) -> i64 {
    let wall = now.wall_since(earlier);
    now.boot_since(earlier).map_or(wall, |boot| boot.max(wall))
}

/// Forced refreshes within one window, see [`crate::refresh::schedule::wait_forced`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forced {
    /// When the first of them was made.
    pub since: Timestamp,
    /// How many there were.
    pub count: u32,
}

/// The marker of a request that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Which refresh token is being sent.
    pub refresh_token: Fingerprint,
    /// Since when.
    pub at: Timestamp,
}

/// A run of failures, each of which left everything as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A short name for machines: `http_503`, `timeout`, `secret`.
    pub kind: String,
    /// The story, for people; without secrets.
    pub message: String,
    /// The next step, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The first failure of the run.
    pub since: Timestamp,
    /// How many there were in a row since the backoff last began anew.
    pub count: u32,
    /// The last one.
    pub last_at: Timestamp,
    /// No request before this instant.
    pub not_before: Timestamp,
    /// The server asked for quiet until then (Retry-After): nothing shortens that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Timestamp>,
    /// The fingerprint of the client: a changed one has not failed yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Fingerprint>,
}

/// A definite refusal, which no repetition will change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The refused thing.
    pub kind: VerdictKind,
    /// Over refresh token and request: any change of them clears the verdict.
    pub binding: Fingerprint,
    /// The server's error code, RFC 6749 section 5.2.
    pub error: String,
    /// The whole refusal in words, the server's own included, scrubbed of secrets.
    pub message: String,
    /// Why a refresh token died, as far as can be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// When it was said.
    pub at: Timestamp,
    /// No further try before this instant; absent where there will be none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

impl Verdict {
    /// Its meaning for the exit code.
    pub fn class(&self) -> Class {
        match self.kind {
            VerdictKind::RefreshToken => Class::NeedsLogin,
            VerdictKind::Client => Class::Config,
        }
    }

    /// The server's words, and the cause as far as it can be known.
    pub fn explanation(&self) -> String {
        match &self.cause {
            Some(cause) => format!("{}; {cause}", self.message),
            None => self.message.clone(),
        }
    }
}

/// The thing that a [`Verdict`] refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// The refresh token: the user must log in again.
    RefreshToken,
    /// The client: its id, secret, scope or permission is wrong. The refresh token may be good.
    Client,
}

/// A report that a resource refused an access token (RFC 6750 section 3.1, invalid_token).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Which token.
    pub token: Fingerprint,
    /// When its replacement was first tried.
    pub at: Timestamp,
    /// The server was asked for another and gave out the same again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answered: bool,
}

/// The last attempt, for status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began.
    pub at: Timestamp,
    /// `refreshed`, or the failure's kind.
    pub result: String,
}

impl Record {
    /// The state of an account that has none yet.
    pub fn new(account: impl Into<String>, config: impl Into<String>) -> Self {
        Self {
            version: VERSION,
            account: account.into(),
            config: config.into(),
            generation: 0,
            seeds: Vec::new(),
            config_is_older: false,
            refresh_token: None,
            previous: None,
            login_life: None,
            refresh_token_unusable: false,
            access_token: None,
            in_flight: None,
            failure: None,
            verdict: None,
            rejection: None,
            forced: None,
            last_attempt: None,
        }
    }

    /// Takes a seed that the record does not list yet: the user has logged in (again).
    pub fn take_seed(&mut self, seed: Secret, now: Timestamp) {
        let dead = self.needs_login();
        let replaced = self.refresh_token.take().filter(|_| !dead);
        // Worth going back to is what has earned a token; if neither has, the newer login.
        let has_worked = |token: &RefreshToken| token.used_at.is_some();
        if let Some(replaced) = replaced
            && (has_worked(&replaced) || !self.previous.as_ref().is_some_and(has_worked))
        {
            self.previous = Some(replaced);
        }
        self.list_seed(seed.fingerprint());
        self.login_life = None;
        self.refresh_token_unusable = false;
        self.config_is_older = false;
        self.refresh_token = Some(RefreshToken {
            value: seed,
            source: LoginSource::Seed,
            seeded_at: now,
            obtained_at: now,
            used_at: None,
            unclear_sends: 0,
        });
        self.verdict = None;
        self.failure = None;
        self.in_flight = None;
    }

    /// Lists a seed that is in force, or configured while another is: as the latest.
    pub fn list_seed(&mut self, seed: Fingerprint) {
        self.seeds.retain(|known| *known != seed);
        self.seeds.push(seed);
        self.seeds.drain(..self.seeds.len().saturating_sub(SEEDS_MAX));
    }

    /// Goes on with the state of an account that is no longer configured. The own login stays as
    /// the one before.
    pub fn take_over(&mut self, other: Self) {
        let own = std::mem::replace(self, other);
        let dead = own.needs_login();
        self.previous = own.refresh_token.filter(|_| !dead).or(self.previous.take());
        self.generation = self.generation.max(own.generation);
        let seeds = std::mem::replace(&mut self.seeds, own.seeds);
        for seed in seeds {
            self.list_seed(seed);
        }
        (self.account, self.config) = (own.account, own.config);
    }

    /// True if the current refresh token is known to be dead.
    pub fn needs_login(&self) -> bool {
        self.verdict.as_ref().is_some_and(|verdict| verdict.kind == VerdictKind::RefreshToken)
    }
}
