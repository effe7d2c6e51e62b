//! The memory of one account between passes, processes and reboots.
//!
//! A [`Record`] is the state file, field by field. It holds the rotated refresh token: losing
//! it is losing the login.
//!
//! During an upgrade, a newer and an older program may share a state. A newer program may add
//! optional members within a [`VERSION`]. An older program ignores them and does not write them
//! again, because a member that is not kept up to date may describe a token that was replaced. A
//! member that must be understood or kept, and a new value of an enum, raises the version: then only
//! the newer program continues.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Timestamp, millis};
use crate::oauth::Identity;
use crate::problem::Class;
use crate::refresh::replica::Replica;
use crate::refresh::stored::StoredSecret;
use crate::secret;
use crate::secret::{Fingerprint, Secret};

/// The newest version that this program reads: it writes it where something is sealed, so that an older
/// program stops instead of taking the state for damaged.
pub const VERSION: u32 = 2;

/// The version of a state in plain.
pub const PLAIN_VERSION: u32 = 1;

/// The number of seeds in the list. Another program may rotate the configured refresh token every
/// hour, and each seed takes 75 bytes of the state. A seed that has left the list counts as new again:
/// it is sent and refused, and the present login is used again. That takes a login that is 256 logins
/// old.
pub const SEEDS_MAX: usize = 256;

/// The state of one account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// See `VERSION`.
    pub version: u32,
    pub account: String,
    /// The config file that owns this state.
    pub config: String,
    /// The number of access tokens that this account was granted so far.
    pub generation: u64,
    /// The latest seeds from the config and from `set`, oldest first. A listed seed is never new.
    pub seeds: Vec<Fingerprint>,
    /// `set` brought a login while the configured seed could not be read: that seed is older, and is
    /// listed, not used, when it is first read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub config_is_older: bool,
    /// The refresh token to send next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<RefreshToken>,
    /// The refresh token that a newer seed replaced, until the newer one has refreshed once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<RefreshToken>,
    /// The user of the login, by its ID token. The first one is the only one who may log in again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// How long the login lives, if the server has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_life: Option<LoginLife>,
    /// The last reply had a refresh token that no request could send.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refresh_token_unusable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token: Option<AccessToken>,
    /// Set from just before a request until its answer is stored. If another process finds it under
    /// the lock, its writer died in between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<InFlight>,
    /// The present run of failures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The server's definite refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The last access token that a resource refused before it expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<Rejection>,
    /// The forced refreshes of the last minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<Forced>,
    /// The last request to the token endpoint, or the last that could not be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<Attempt>,
    /// The proxy and the certificates that the last grant came by, if the environment named them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub came_by: Option<String>,
    /// The last seed when the access token was granted; kept for accounts with `from` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_seed: Option<Fingerprint>,
    /// The row in the database as this machine knows it, where several machines share the login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<Box<Replica>>,
    /// The access tokens that other accounts get for this login (`from`), by account.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tokens: BTreeMap<String, TokenPart>,
}

/// The part of a [`Record`] that is about the access token. The rest is the login's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenPart {
    pub generation: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<AccessToken>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<Rejection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<Forced>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<Attempt>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_seed: Option<Fingerprint>,
}

/// Among the parts of a record that another account sees: the part of the account with the login. No
/// account has this name.
const LOGIN_PART: &str = "";

/// A refresh token and its history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshToken {
    pub value: StoredSecret,
    pub source: LoginSource,
    /// When this program first got the login.
    pub seeded_at: Timestamp,
    /// When it got this token; equal to `seeded_at` until the first rotation.
    pub obtained_at: Timestamp,
    /// When the server last granted an access token for it.
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
    /// The whole life in milliseconds: the longest that was ever left before this end.
    #[serde(default)]
    pub whole_ms: u64,
}

impl LoginLife {
    /// The longest time ahead that the end is worth a warning.
    const NOTICE: Duration = Duration::from_secs(7 * 86_400);
    /// Two statements of one end differ by what the network and rounding add.
    const SAME_END: Duration = Duration::from_mins(1);

    /// A statement of the server. If a refresh has not moved the end, the life began earlier.
    pub fn stated(at: Timestamp, left: Duration, earlier: Option<&Self>) -> Self {
        let lifetime_ms = left.as_millis() as u64;
        let left_of =
            |life: &Self| Duration::from_millis(life.lifetime_ms).saturating_sub(at.since(life.stated_at));
        let same = earlier.filter(|life| left <= left_of(life) + Self::SAME_END);
        let whole_ms = same.map_or(0, |life| life.whole_ms.max(life.lifetime_ms)).max(lifetime_ms);
        Self { stated_at: at, lifetime_ms, whole_ms }
    }

    /// The end, on both clocks.
    pub fn ends_at(&self) -> Timestamp {
        self.stated_at.plus(Duration::from_millis(self.lifetime_ms))
    }

    /// Whether the end is near: a seventh of the whole life, at most a week.
    pub fn ends_soon(&self, now: Timestamp) -> bool {
        let notice = Self::NOTICE.min(Duration::from_millis(self.whole_ms.max(self.lifetime_ms)) / 7);
        now.since(self.stated_at) + notice >= Duration::from_millis(self.lifetime_ms)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginSource {
    /// The user: the refresh_token of the configuration, `set` or `login`.
    Seed,
    /// The server, which replaced an earlier one (RFC 6749 section 6).
    Rotation,
}

/// An access token and the life it was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    #[serde(with = "secret::stored")]
    pub value: Secret,
    /// As the server wrote it (RFC 6749 section 7.1).
    pub token_type: String,
    /// The granted scope, if the server states it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The clocks before the request. The lifetime counts from here: rather too early than too late.
    pub issued_at: Timestamp,
    pub lifetime_ms: u64,
    /// Refresh it this much earlier than the skew requires.
    pub jitter_ms: u64,
    /// The server granted the same token again: the next request comes at half the remaining life.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    /// The user brought it with `set`, or it was read from the token file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given: bool,
    /// The ID token that came with it, checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_token: Option<StoredSecret>,
}

impl AccessToken {
    /// One that the user brought with `set`, or that was read from the token file.
    pub fn given(value: Secret, issued_at: Timestamp, lifetime: Duration) -> Self {
        Self {
            value,
            token_type: "Bearer".into(),
            scope: None,
            issued_at,
            lifetime_ms: lifetime.as_millis() as u64,
            jitter_ms: 0,
            repeated: false,
            given: true,
            id_token: None,
        }
    }

    pub fn lifetime(&self) -> Duration {
        Duration::from_millis(self.lifetime_ms)
    }

    pub fn expires_at(&self) -> Timestamp {
        self.issued_at.plus(self.lifetime())
    }

    /// Milliseconds to its expiry, by the clock that reaches it first; negative after it.
    pub fn remaining(&self, now: Timestamp) -> i64 {
        millis(self.lifetime()).saturating_sub(age(self.issued_at, now))
    }

    /// The same; zero after the expiry.
    pub fn life_left(&self, now: Timestamp) -> Duration {
        Duration::from_millis(self.remaining(now).max(0).cast_unsigned())
    }

    pub fn is_live(&self, now: Timestamp) -> bool {
        self.remaining(now) > 0
    }
}

/// Milliseconds since `earlier`, by the clock that shows more.
pub(super) fn age(earlier: Timestamp, now: Timestamp) -> i64 {
    let wall = now.wall_since(earlier);
    now.boot_since(earlier).map_or(wall, |boot| boot.max(wall))
}

/// Forced refreshes within one window, see [`crate::refresh::schedule::wait_forced`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forced {
    /// The first of them.
    pub since: Timestamp,
    pub count: u32,
}

/// The marker of a request that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    pub refresh_token: Fingerprint,
    pub at: Timestamp,
}

/// A run of failures, none of which changed the login or the access token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A short name for machines: `http_503`, `timeout`, `secret`.
    pub kind: String,
    /// For people, without secrets.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The first failure of the run.
    pub since: Timestamp,
    /// The failures in a row since the backoff last began anew.
    pub count: u32,
    pub last_at: Timestamp,
    /// No request before this instant.
    pub not_before: Timestamp,
    /// The last request reached no server: another one costs nobody anything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_sent: bool,
    /// There was no request: a secret, an assertion or the endpoint could not be had.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_inputs: bool,
    /// The end of the server's Retry-After, which nothing shortens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Timestamp>,
    /// The fingerprint of the client: after a change of it the wait is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Fingerprint>,
}

/// A definite refusal, which no repetition will change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub kind: VerdictKind,
    /// The fingerprint of refresh token and client: any change of them ends the verdict.
    pub binding: Fingerprint,
    /// The server's error code, RFC 6749 section 5.2.
    pub error: String,
    /// For people, with the server's words, without secrets.
    pub message: String,
    /// The probable cause: of a refresh token's death, or what such a refusal means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    pub at: Timestamp,
    /// The next attempt; absent if there will be none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// It is about the request of the account with the login, and this account uses that login.
    #[serde(skip)]
    pub is_of_login: bool,
}

/// The kind of the failure of a state that cannot be opened with the configured key.
pub const STATE_KEY: &str = "state_key";

/// The same where that key cannot be read at present.
pub const STATE_KEY_UNREAD: &str = "state_key_unread";

impl Failure {
    /// Its meaning for the exit code.
    pub fn class(&self) -> Class {
        if self.kind == STATE_KEY { Class::Config } else { Class::Unavailable }
    }
}

impl Verdict {
    pub fn class(&self) -> Class {
        match self.kind {
            VerdictKind::RefreshToken => Class::NeedsLogin,
            VerdictKind::Client => Class::Config,
        }
    }
}

/// The object of a [`Verdict`].
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
    pub token: Fingerprint,
    /// The first attempt to replace the token.
    pub at: Timestamp,
    /// The server has granted the same token again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answered: bool,
}

/// The last attempt, for status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub at: Timestamp,
    /// `refreshed`, or the failure's kind.
    pub result: String,
}

impl Record {
    pub fn new(account: impl Into<String>, config: impl Into<String>) -> Self {
        Self { version: PLAIN_VERSION, account: account.into(), config: config.into(), ..Self::default() }
    }

    /// The record of the login as the account `name`, which uses this login, sees it: with its own access
    /// token.
    pub fn seen_by(&mut self, name: &str) {
        let mut part = self.tokens.remove(name).unwrap_or_default();
        let dead = self.verdict.as_ref().filter(|verdict| verdict.kind == VerdictKind::RefreshToken);
        if let Some(dead) = dead.filter(|_| part.verdict.is_none()) {
            part.verdict = Some(Verdict { is_of_login: true, ..dead.clone() });
        }
        self.swap(&mut part);
        self.tokens.insert(LOGIN_PART.into(), part);
    }

    /// How many access tokens another account of this login was granted; `None` for the one that has the
    /// login.
    pub fn generation_of(&self, user: Option<&str>) -> u64 {
        self.tokens.get(user.unwrap_or(LOGIN_PART)).map_or(0, |part| part.generation)
    }

    /// Undoes [`Record::seen_by`], before the record is stored.
    pub fn unseen_by(&mut self, name: &str) {
        let mut part = self.tokens.remove(LOGIN_PART).unwrap_or_default();
        // A new login, or a grant for this one: it is not dead.
        let is_alive = self.verdict.is_none() && self.failure.is_none();
        part.verdict.take_if(|verdict| is_alive && verdict.kind == VerdictKind::RefreshToken);
        self.verdict.take_if(|verdict| verdict.is_of_login);
        self.swap(&mut part);
        self.tokens.insert(name.into(), part);
    }

    fn swap(&mut self, part: &mut TokenPart) {
        use std::mem::swap;
        swap(&mut self.generation, &mut part.generation);
        swap(&mut self.access_token, &mut part.access_token);
        swap(&mut self.failure, &mut part.failure);
        swap(&mut self.verdict, &mut part.verdict);
        swap(&mut self.rejection, &mut part.rejection);
        swap(&mut self.forced, &mut part.forced);
        swap(&mut self.last_attempt, &mut part.last_attempt);
        swap(&mut self.token_seed, &mut part.token_seed);
    }

    /// Adopts a seed that is not listed: the user has logged in (again).
    pub fn take_seed(&mut self, seed: Secret, now: Timestamp) {
        let dead = self.needs_login();
        let replaced = self.refresh_token.take().filter(|_| !dead);
        // The login to go back to is one that has worked; if none has, the newer one.
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
            value: seed.into(),
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

    /// Adopts a login that the server granted to this program itself. `token` is its first access token.
    /// The earlier login stays as `previous` until this one has refreshed once.
    pub fn take_login(
        &mut self,
        refresh_token: Secret,
        token: Option<AccessToken>,
        identity: Option<Identity>,
        now: Timestamp,
    ) {
        // Some servers give the same refresh token to each login of a user.
        let is_other = |previous: &RefreshToken| previous.value != refresh_token;
        self.refresh_token = self.refresh_token.take().filter(is_other);
        self.previous = self.previous.take().filter(is_other);
        self.take_seed(refresh_token, now);
        self.identity = identity.or(self.identity.take());
        let Some(token) = token else { return };
        if let Some(refresh_token) = &mut self.refresh_token {
            refresh_token.used_at = Some(token.issued_at);
        }
        self.last_attempt = Some(Attempt { at: token.issued_at, result: "refreshed".into() });
        self.generation = self.generation.saturating_add(1);
        self.access_token = Some(token);
    }

    /// Forgets the login and its tokens. Its seeds stay listed, so that none of them is sent again.
    pub fn log_out(&mut self) {
        let listed = [self.refresh_token.take(), self.previous.take()];
        for token in listed.into_iter().flatten() {
            self.list_seed(token.value.fingerprint());
        }
        self.identity = None;
        self.login_life = None;
        self.refresh_token_unusable = false;
        self.access_token = None;
        self.in_flight = None;
        self.failure = None;
        self.verdict = None;
        self.rejection = None;
        for part in self.tokens.values_mut() {
            // The number is not given twice.
            *part = TokenPart { generation: part.generation, ..TokenPart::default() };
        }
    }

    /// Lists a seed as the latest, so that it is not new any more.
    pub fn list_seed(&mut self, seed: Fingerprint) {
        self.seeds.retain(|listed| *listed != seed);
        self.seeds.push(seed);
        self.seeds.drain(..self.seeds.len().saturating_sub(SEEDS_MAX));
    }

    /// Continues with the state of an account that is no longer configured. The own login becomes
    /// `previous`.
    pub fn take_over(&mut self, other: Self) {
        let own = std::mem::replace(self, other);
        let dead = own.needs_login();
        self.previous = own.refresh_token.filter(|_| !dead).or(self.previous.take());
        self.generation = self.generation.max(own.generation);
        for (name, part) in own.tokens {
            self.tokens.entry(name).or_insert(part);
        }
        let seeds = std::mem::replace(&mut self.seeds, own.seeds);
        for seed in seeds {
            self.list_seed(seed);
        }
        (self.account, self.config) = (own.account, own.config);
        self.replica = own.replica;
    }

    /// True if the current refresh token is known to be dead.
    pub fn needs_login(&self) -> bool {
        self.verdict.as_ref().is_some_and(|verdict| verdict.kind == VerdictKind::RefreshToken)
    }
}
