//! The rules for several machines that share one login. Pure.
//!
//! Each machine keeps the newest record on its own disk. The row in the database is where they agree: it
//! says who may ask. The fence is (login, epoch, SHA-256 of the refresh token that was spent): a reply is
//! stored over the very token that earned it, so no lease has to be trusted. `fleet_pass.rs` drives a
//! pass by these rules; docs/FLEET.md explains them to users.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Timestamp, millis};
use crate::oauth::{Identity, TokenClient};
use crate::refresh::record::{
    AccessToken, Attempt, Failure, LoginLife, LoginSource, Record, RefreshToken, Verdict,
};
use crate::refresh::replica::{Replica, UnclearClaim};
use crate::refresh::stored::StoredSecret;
use crate::secret::Fingerprint;

/// How long a claim is respected: two tries of 30 s with what is around them.
pub const CLAIM_LIFE: Duration = Duration::from_secs(75);

/// A request is sent within this time of the beginning of its claim, or not at all: a host that was
/// suspended in between may have been given up by the others.
pub const CLAIM_FRESH: Duration = Duration::from_secs(10);

/// A claim whose host does not answer is taken over only after it was seen unchanged for this time: a
/// database that has just come back must let the owner deliver first.
pub const UNCHANGED: Duration = Duration::from_secs(60);

/// After a failover, whoever has a newer copy than the database has this time to bring it.
pub const QUARANTINE: Duration = Duration::from_secs(6 * 60);

/// The last chance: with less life than this left, an unclear attempt is worth the risk ...
const LAST_CHANCE: Duration = Duration::from_secs(3 * 60);

/// ... or with less than this share of the life.
const LAST_CHANCE_SHARE: u32 = 20;

/// The kind of the failure of a database that does not answer.
pub const FLEET: &str = "fleet";

/// How often the row is looked at while something about it must change.
pub const LOOK: Duration = Duration::from_secs(30);

/// The row, and the server that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowView {
    pub row: Option<Box<LoginRow>>,
    /// The clock of the database, in milliseconds since 1970.
    pub server_time: i64,
    /// The present timeline of the database.
    pub timeline: u32,
}

/// The row of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRow {
    pub content: RowContent,
    /// The timeline on which it was stored.
    pub timeline: u32,
    pub attempt: Option<RowAttempt>,
    /// The result of the last attempt, if it was none that stores a reply.
    pub result: RowResult,
}

/// The claim in the row. Times are in milliseconds since 1970 by the clock of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowAttempt {
    pub nonce: String,
    pub host: String,
    pub claimed_at: i64,
    pub claim_until: i64,
}

/// A refusal or a failure, for the other machines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowResult {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Everything of the row that a reply or a login writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowContent {
    pub login: String,
    pub epoch: u64,
    /// `None` after a logout, and for a reader.
    pub held: Option<Fingerprint>,
    /// `None` for a reader, who cannot see it.
    pub secret: Option<Box<LoginPart>>,
    pub token: Option<SharedToken>,
    /// By the clock of the database, in milliseconds since 1970.
    pub issued_at: i64,
    /// Another machine may have a newer copy of the same login: it does not settle the row.
    pub is_copy: bool,
}

/// The login, which is sealed in the row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginPart {
    /// The client and the token endpoint that the login belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Fingerprint>,
    pub login_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<RefreshToken>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<RefreshToken>,
    pub seeds: Vec<Fingerprint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_life: Option<LoginLife>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_token: Option<StoredSecret>,
}

/// The access token, which readers see as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedToken {
    pub generation: u64,
    /// Without an ID token; its `issued_at` is not valid: see [`RowContent::issued_at`].
    pub token: AccessToken,
}

/// A question to the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The row, the clock and the timeline.
    Read,
    /// Claim the refresh of this epoch for `nonce`, if the row still has the claim `seen`.
    Claim { fence: Fence, seen: Option<String>, nonce: String, host: String },
    /// Store a reply over the token that earned it.
    Store { fence: Fence, content: Box<RowContent> },
    /// Bring a row that went back in time up to date.
    Repair { content: Box<RowContent> },
    /// Store a new login over the row with this login and epoch, or as the first row.
    Found { over: Option<(String, u64)>, content: Box<RowContent> },
    /// End the claim `nonce`, or note in a row without a claim, a refusal or a failure: the refresh token is not
    /// spent.
    Conclude { fence: Fence, nonce: Option<String>, result: Box<RowResult> },
}

/// A row is changed only if it still has exactly this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    pub login: String,
    pub epoch: u64,
    pub held: Option<Fingerprint>,
}

/// The answer to a question that could be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowReply {
    Row(RowView),
    /// Durable, at this time by the clock of the database.
    Done {
        at: i64,
    },
    /// The row is another one by now: nothing was changed.
    Missed,
    /// COMMIT gave no clean answer: only the row can tell.
    Unknown {
        why: String,
    },
}

/// A change of this disk or of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FleetReport {
    /// Another machine has a newer login or token: this one continues with it.
    Received { epoch: u64 },
    /// The same; the reply that was on this disk alone is not needed any more.
    Dropped { epoch: u64 },
    /// The database has the reply that was on this disk alone.
    Delivered,
    /// The database had gone back in time, and has the login of this disk again.
    Repaired { epoch: u64 },
    /// The database has the login of this machine, for all machines.
    Founded,
}

/// The next step after the row was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowStep {
    /// Disk and row agree, or neither has a login.
    Agree,
    /// The row is newer: continue with it.
    Adopt,
    /// The row has the reply of this disk already.
    Delivered,
    /// Write what this disk has.
    Write(Box<Ask>),
}

/// Compares this disk with the row. `new_login` is a new UUID, for a login that the fleet does not know.
pub fn after_read(record: &Record, view: &RowView, now: Timestamp, new_login: &str) -> RowStep {
    let own = record.refresh_token.as_ref().map(|token| token.value.fingerprint());
    let replica = record.replica.as_deref();
    let Some(row) = view.row.as_deref() else {
        return match own {
            // The table lost its row: the other machines go by login and epoch.
            Some(_) => match replica.filter(|replica| replica.held == own) {
                Some(replica) => {
                    let mut content = content(record, replica);
                    content.is_copy = true;
                    RowStep::Write(Box::new(Ask::Found { over: None, content }))
                }
                None => found(record, None, view, now, new_login),
            },
            None => RowStep::Agree,
        };
    };
    let there = &row.content;
    let Some(replica) = replica.filter(|replica| replica.held == own) else {
        return match own {
            _ if there.held == own => RowStep::Adopt,
            // Another machine has used this login before, and has a newer refresh token of it.
            Some(own) if is_used(row, own) => RowStep::Adopt,
            // A logout here ends the login everywhere, but not one that began elsewhere meanwhile.
            None if replica.is_some_and(|replica| replica.login == there.login) => {
                found(record, Some(row), view, now, new_login)
            }
            // A login that came from elsewhere than the fleet: the newer one wins, and a dead one never.
            Some(_) if !record.needs_login() && began_at(record, view, now) > login_at(row) => {
                found(record, Some(row), view, now, new_login)
            }
            _ => RowStep::Adopt,
        };
    };
    if replica.login != there.login {
        // A failover lost the newer login, or another machine has logged in.
        return if replica.login_at > login_at(row) {
            found(record, Some(row), view, now, &replica.login)
        } else {
            RowStep::Adopt
        };
    }
    match replica.undelivered {
        _ if there.epoch == replica.epoch && there.held == replica.held => {
            if replica.undelivered.is_some() {
                RowStep::Delivered
            } else {
                RowStep::Agree
            }
        }
        Some(spent) if there.epoch + 1 == replica.epoch && there.held == Some(spent) => {
            let fence = Fence { login: there.login.clone(), epoch: there.epoch, held: there.held };
            RowStep::Write(Box::new(Ask::Store { fence, content: content(record, replica) }))
        }
        _ if there.epoch < replica.epoch => {
            RowStep::Write(Box::new(Ask::Repair { content: content(record, replica) }))
        }
        // Also a sibling: another reply to the same token, which was stored first.
        _ => RowStep::Adopt,
    }
}

/// Whether the row knows this refresh token as one that was used up. The login before the present one is not.
fn is_used(row: &LoginRow, own: Fingerprint) -> bool {
    row.content.secret.as_ref().is_some_and(|secret| {
        let is_previous = secret.previous.as_ref().is_some_and(|token| token.value.fingerprint() == own);
        secret.seeds.contains(&own) && !is_previous
    })
}

/// The client and the token endpoint of a login, which a row of this account must have as well.
pub fn client_of(client: &TokenClient) -> Fingerprint {
    let endpoint = &client.token_endpoint;
    let host = endpoint.host_str().unwrap_or_default();
    Fingerprint::of([client.client_id.as_bytes(), host.as_bytes(), endpoint.path().as_bytes()])
}

/// Whether the row is about the login of another client: another account of the same name.
pub fn is_foreign(row: &LoginRow, own: Option<Fingerprint>) -> bool {
    let there = row.content.secret.as_ref().and_then(|secret| secret.client);
    there.zip(own).is_some_and(|(there, own)| there != own)
}

/// The same for a machine that only reads: the row, unless it went back in time while the token lives.
pub fn after_reader_read(record: Option<&Record>, view: &RowView, now: Timestamp) -> RowStep {
    let Some(row) = view.row.as_deref() else { return RowStep::Agree };
    let Some(replica) = record.and_then(|record| record.replica.as_deref()) else { return RowStep::Adopt };
    if record.is_some_and(|record| record.access_token.is_none()) {
        return RowStep::Adopt;
    }
    let lives =
        record.and_then(|record| record.access_token.as_ref()).is_some_and(|token| token.is_live(now));
    let there = &row.content;
    let is_same = there.login == replica.login && there.epoch == replica.epoch;
    let is_newer = there.epoch > replica.epoch || there.issued_at > replica.issued_at;
    if !is_same && (is_newer || !lives) { RowStep::Adopt } else { RowStep::Agree }
}

/// When the login in the record began, by the clock of the database.
fn began_at(record: &Record, view: &RowView, now: Timestamp) -> i64 {
    record
        .refresh_token
        .as_ref()
        .map_or(0, |token| view.server_time.saturating_sub(millis(now.since(token.seeded_at))))
}

fn login_at(row: &LoginRow) -> i64 {
    row.content.secret.as_ref().map_or(0, |secret| secret.login_at)
}

fn found(record: &Record, over: Option<&LoginRow>, view: &RowView, now: Timestamp, login: &str) -> RowStep {
    let replica = record.replica.as_deref();
    let known = replica.filter(|replica| replica.login == login);
    let login_at = match (known, &record.refresh_token) {
        (Some(replica), _) => replica.login_at,
        (None, Some(_)) => began_at(record, view, now),
        (None, None) => view.server_time,
    };
    let after = over.map_or(0, |row| row.content.epoch).max(replica.map_or(0, |replica| replica.epoch));
    let age = record.access_token.as_ref().map_or(0, |token| millis(now.since(token.issued_at)));
    let replica = Replica {
        client: replica.and_then(|replica| replica.client),
        login: login.to_owned(),
        login_at,
        epoch: after + 1,
        held: record.refresh_token.as_ref().map(|token| token.value.fingerprint()),
        issued_at: view.server_time.saturating_sub(age),
        ..Replica::default()
    };
    let over = over.map(|row| (row.content.login.clone(), row.content.epoch));
    let mut content = content(record, &replica);
    content.is_copy = known.is_some();
    RowStep::Write(Box::new(Ask::Found { over, content }))
}

/// The content that the row should have, by this disk.
pub fn content(record: &Record, replica: &Replica) -> Box<RowContent> {
    let plain = |token: &RefreshToken| {
        let mut token = token.clone();
        token.value.set_sealed(None);
        token
    };
    let id_token = record.access_token.as_ref().and_then(|token| token.id_token.clone());
    let id_token = id_token.filter(|token| token.open().is_some()).map(|mut token| {
        token.set_sealed(None);
        token
    });
    let secret = LoginPart {
        client: replica.client,
        login_at: replica.login_at,
        refresh_token: record.refresh_token.as_ref().map(plain),
        previous: record.previous.as_ref().filter(|token| token.value.open().is_some()).map(plain),
        seeds: record.seeds.clone(),
        identity: record.identity.clone(),
        login_life: record.login_life.clone(),
        id_token,
    };
    let token = record.access_token.clone().map(|token| SharedToken {
        generation: record.generation,
        token: AccessToken { id_token: None, ..token },
    });
    Box::new(RowContent {
        login: replica.login.clone(),
        epoch: replica.epoch,
        held: replica.held,
        secret: Some(Box::new(secret)),
        token,
        issued_at: replica.issued_at,
        is_copy: false,
    })
}

impl Record {
    /// Continues with the row.
    pub fn adopt(&mut self, row: &LoginRow, view: &RowView, now: Timestamp, host: &str) {
        let there = &row.content;
        let age =
            Duration::from_millis(view.server_time.saturating_sub(there.issued_at).max(0).cast_unsigned());
        let issued_at = now.minus(age);
        if let Some(secret) = &there.secret {
            if secret.refresh_token.is_none() {
                self.log_out();
            }
            self.refresh_token.clone_from(&secret.refresh_token);
            self.previous.clone_from(&secret.previous);
            secret.seeds.iter().for_each(|seed| self.list_seed(*seed));
            self.identity.clone_from(&secret.identity);
            self.login_life.clone_from(&secret.login_life);
        }
        // A new login may have brought an older token than the one that readers have here.
        let earlier = self.replica.as_ref().map_or(0, |replica| replica.issued_at);
        let own_is_newer =
            earlier > there.issued_at && self.access_token.as_ref().is_some_and(|token| token.is_live(now));
        if let Some(shared) = there.token.as_ref().filter(|_| !own_is_newer) {
            // The number of a token never goes back on one machine.
            self.generation = self.generation.max(shared.generation);
            let id_token = there.secret.as_ref().and_then(|secret| secret.id_token.clone());
            self.access_token = Some(AccessToken { issued_at, id_token, ..shared.token.clone() });
            self.last_attempt = Some(Attempt { at: issued_at, result: "refreshed".into() });
        }
        self.in_flight = None;
        self.failure = None;
        self.verdict = None;
        let earlier = self.replica.take().map(|replica| *replica).unwrap_or_default();
        self.replica = Some(Box::new(Replica {
            host: host.to_owned(),
            login: there.login.clone(),
            login_at: login_at(row),
            client: there.secret.as_ref().and_then(|secret| secret.client).or(earlier.client),
            epoch: there.epoch,
            held: there.held,
            issued_at: if own_is_newer { earlier.issued_at } else { there.issued_at },
            undelivered: None,
            ..earlier
        }));
    }
}

/// The database is an older copy of itself: another one has become the primary since.
pub fn is_stale(replica: Option<&Replica>, view: &RowView) -> bool {
    replica.is_some_and(|replica| view.timeline < replica.timeline)
}

impl Replica {
    /// Notes what was seen of claims and failovers. True if that must be kept.
    pub fn watch(&mut self, view: &RowView, now: Timestamp) -> bool {
        let before = (self.timeline, self.watched.clone(), self.failover);
        self.timeline = view.timeline;
        let row = view.row.as_deref();
        // A claim that should have ended long ago was made while the clock of the database was ahead.
        let longest = view.server_time + millis(CLAIM_LIFE);
        let attempt = row.and_then(|row| row.attempt.as_ref()).filter(|attempt| {
            let is_odd = attempt.claim_until <= view.server_time || attempt.claim_until > longest;
            is_odd && !self.is_own(attempt)
        });
        self.watched = attempt.map(|attempt| match self.watched.take() {
            Some((nonce, since)) if nonce == attempt.nonce => (nonce, since),
            _ => (attempt.nonce.clone(), now),
        });
        self.failover = row.filter(|row| row.timeline != view.timeline).map(|_| match self.failover {
            Some((timeline, since)) if timeline == view.timeline => (timeline, since),
            _ => (view.timeline, now),
        });
        before != (self.timeline, self.watched.clone(), self.failover)
    }

    /// The database cannot be reached: its claims have not been seen unchanged since.
    pub fn lose_sight(&mut self) -> bool {
        self.watched.take().is_some()
    }

    fn is_own(&self, attempt: &RowAttempt) -> bool {
        // One that was never sent, or whose owner is here to send it again.
        attempt.host == self.host || self.is_current(attempt)
    }

    /// Whether this is the last claim of this machine.
    pub fn is_current(&self, attempt: &RowAttempt) -> bool {
        self.claim.as_ref().is_some_and(|claim| claim.nonce == attempt.nonce)
    }
}

/// Whether a refresh that is due may be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// Yes; after this attempt of another machine, if there was one.
    Open { after: Option<UnclearClaim> },
    /// Not yet, for this reason: look again after this time at the latest.
    Wait { reason: WaitReason, look_in: Duration },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// Another machine is refreshing.
    Refreshing { host: String },
    /// Another machine began and did not finish: its successor may be on its disk.
    Unclear(UnclearClaim),
    /// The database failed over: another machine may have a newer copy.
    Failover,
}

/// Live claims are respected; an unclear attempt and a failover are waited for until the last chance.
pub fn gate(record: &Record, row: &LoginRow, view: &RowView, now: Timestamp) -> Gate {
    let Some(replica) = record.replica.as_deref() else { return Gate::Open { after: None } };
    let (left, life) = record
        .access_token
        .as_ref()
        .map_or((Duration::ZERO, Duration::ZERO), |token| (token.life_left(now), token.lifetime()));
    let last_chance = LAST_CHANCE.max(life / LAST_CHANCE_SHARE);
    let is_last_chance = left <= last_chance;
    let until_last_chance = left.saturating_sub(last_chance);
    let mut after = None;
    if let Some(attempt) = row.attempt.as_ref().filter(|attempt| !replica.is_current(attempt)) {
        let seen_for = replica.watched.as_ref().map_or(Duration::ZERO, |(_, since)| now.since(*since));
        let claim_left = attempt.claim_until.saturating_sub(view.server_time).min(millis(CLAIM_LIFE));
        if claim_left > 0 && seen_for < CLAIM_LIFE {
            let reason = WaitReason::Refreshing { host: attempt.host.clone() };
            return Gate::Wait { reason, look_in: Duration::from_millis(claim_left.cast_unsigned()) };
        }
        if !replica.is_own(attempt) {
            let unclear = UnclearClaim { host: attempt.host.clone(), at: attempt.claimed_at };
            if !never_rotates(record) && (!is_last_chance || seen_for < UNCHANGED) {
                let look_in = until_last_chance.max(UNCHANGED.saturating_sub(seen_for)).min(LOOK);
                return Gate::Wait { reason: WaitReason::Unclear(unclear), look_in };
            }
            after = Some(unclear);
        }
    }
    if let Some((_, since)) = replica.failover {
        let waited = now.since(since);
        if waited < QUARANTINE && !is_last_chance {
            let look_in = QUARANTINE.saturating_sub(waited).min(until_last_chance).min(LOOK);
            return Gate::Wait { reason: WaitReason::Failover, look_in };
        }
    }
    Gate::Open { after }
}

/// A login whose refresh token has been used since it came and was not replaced: an attempt cannot have spent it.
fn never_rotates(record: &Record) -> bool {
    let is_kept = |token: &RefreshToken| {
        let used = token.used_at.is_some_and(|used| used.wall > token.obtained_at.wall);
        token.source == LoginSource::Seed && used
    };
    record.refresh_token.as_ref().is_some_and(is_kept)
}
