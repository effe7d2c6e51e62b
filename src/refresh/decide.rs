//! Decides what the loaded state and token file, the config and the clocks require. Pure, and the
//! same for every command. The order of the questions:
//!
//! 1. Is there no state, but a token file whose token is presumed to live? Then nothing is due.
//! 2. Is a refresh due? The first reason counts: a new login in the config, a request without a
//!    definite answer, a verdict, a login that has not refreshed yet, no access token, a clock that
//!    was set back, the margin before expiry, a rejection, force, the horizon.
//! 3. If not: Rest, or Republish if the token file lacks the live token.
//! 4. If so, with the inputs: does the verdict still apply? Refused.
//!    Was its refresh token replaced, by a state that is not here? Lost.
//! 5. Does the wait after a failure still apply? Hold; otherwise Refresh.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{BootId, Timestamp};
use crate::oauth::{Grant, TokenClient};
use crate::problem::Problem;
use crate::refresh::policy::Policy;
use crate::refresh::record::{
    AccessToken, Failure, Record, RefreshToken, STATE_KEY, STATE_KEY_UNREAD, Verdict,
};
use crate::refresh::schedule;
use crate::refresh::schedule::Due;
use crate::secret::{Fingerprint, Secret};

/// The token file, compared with the token in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileView {
    Missing,
    /// It holds exactly the token of the state, and so do all outputs.
    Current,
    /// It holds exactly the token of the state, and another output does not.
    Incomplete,
    /// It holds a newer token than all that the state knows: the state went missing, or back in time.
    Ahead(Origin),
    /// It holds something else.
    Other {
        /// Wall clock, in milliseconds since 1970.
        modified_at: i64,
    },
}

/// The login that the token in a token file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The number of the token.
    pub generation: u64,
    /// The last seed that was in use.
    pub seed: Option<Fingerprint>,
    /// The refresh token that was to be sent next.
    pub refresh_token: Option<Fingerprint>,
}

impl FileView {
    /// Whether the token file holds the token of the state.
    pub fn has_token(self) -> bool {
        matches!(self, Self::Current | Self::Incomplete)
    }
}

/// State and token file, read at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// `None` if there is no state, or a damaged one.
    pub record: Option<Record>,
    /// Why the state is damaged; under the lock, the name it was renamed to.
    pub garbage: Option<String>,
    pub file: FileView,
}

/// A request beyond doing what is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent options, in any combination")]
pub struct Trigger {
    /// Refresh even if nothing is due. Overrides neither a verdict nor a wait.
    pub force: bool,
    /// The backoff begins anew, because of a resume, a clock step or SIGUSR1.
    pub anew: bool,
    /// Send a dead refresh token once more.
    pub retry_dead: bool,
    /// Read the secrets even if nothing is due: they may have changed.
    pub reread: bool,
    /// A resource refused this access token: replace it if it is still the stored one.
    pub rejected: Option<Fingerprint>,
    /// The row in the database may have changed: read it even if nothing is due.
    pub row: bool,
}

impl Trigger {
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            force: self.force || other.force,
            anew: self.anew || other.anew,
            retry_dead: self.retry_dead || other.retry_dead,
            reread: self.reread || other.reread,
            rejected: other.rejected.or(self.rejected),
            row: self.row || other.row,
        }
    }
}

/// Inputs that are read only when something is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    /// The configured refresh_token, if there is one and it can be read.
    pub seed: Option<Secret>,
    /// Why it cannot be read. Fatal only while there is no other refresh token.
    pub seed_problem: Option<Problem>,
    pub client: Arc<TokenClient>,
    /// The client's fingerprint. A wait is bound to it.
    pub request: Fingerprint,
    /// The grant, if no login is needed.
    pub grant: Option<Grant>,
    pub evidence: Evidence,
}

/// The proof of a request beside a refresh token and a client_secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Of the client, and of each assertion or token that somebody else has written. A verdict is bound to
    /// it and to the refresh token: other content may be accepted.
    pub fingerprint: Fingerprint,
    /// In words: "the assertion that private_key has signed".
    pub name: Option<String>,
    pub origin: EvidenceOrigin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvidenceOrigin {
    /// There is none but the client's secret.
    Client,
    /// This program has signed it.
    SignedHere,
    /// Somebody else writes it.
    Given,
}

impl Inputs {
    pub fn new(seed: Option<Secret>, seed_problem: Option<Problem>, client: TokenClient) -> Self {
        let request = client.fingerprint();
        let evidence = Evidence { fingerprint: request, name: None, origin: EvidenceOrigin::Client };
        Self { seed, seed_problem, request, client: Arc::new(client), grant: None, evidence }
    }
}

/// The next step of a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is due for this time.
    Rest(Duration),
    /// The token lives, but the token file does not hold it.
    Republish,
    /// Send a request to the token endpoint.
    Refresh(Reason),
    /// A refresh is due, but the wait after this failure is in force.
    Hold { reason: Reason, wait: Duration, failure: Box<Failure> },
    /// A refresh is due, but the server has refused it before.
    Refused(Box<Verdict>),
    /// A refresh is due, and the refresh token for it was replaced, by a state that is not here.
    Lost(Origin),
}

/// Why a refresh is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    FirstToken,
    /// The login has not refreshed yet.
    NewLogin,
    /// A request got no definite answer, or its sender died: the server may have rotated.
    Unclear,
    /// The server has refused; the inputs show whether the refusal still applies.
    AfterVerdict,
    /// Overdue for so many milliseconds.
    Due(i64),
    /// The wall clock is before the token's issue: it was set back, or was wrong then.
    ClockSetBack,
    /// The token would expire before the next pass.
    BeforeNextPass,
    /// A resource refused the token.
    Rejected,
    Forced,
}

/// `inputs` are not read, and absent, before a refresh is due.
pub fn decide(
    loaded: &Loaded,
    policy: &Policy,
    inputs: Option<&Inputs>,
    trigger: Trigger,
    now: Timestamp,
) -> Decision {
    let reason = match refresh_or_rest(loaded, policy, inputs, trigger, now) {
        Decision::Refresh(reason) => reason,
        Decision::Rest(_) if unpublished(loaded, policy, now).is_some() => return Decision::Republish,
        decision => return decision,
    };
    let lost = lost(loaded, policy, inputs, trigger);
    // A verdict may be about this refresh token, which the inputs show.
    let has_verdict = loaded.record.as_ref().is_some_and(|record| record.verdict.is_some());
    let (Some(record), Some(inputs)) = (&loaded.record, inputs) else {
        return lost.filter(|_| !has_verdict).map_or(Decision::Refresh(reason), Decision::Lost);
    };
    let new_login = new_seed(Some(record), policy, Some(inputs)).is_some();
    if !new_login && let Some(verdict) = current_verdict(record, policy, inputs, trigger, now) {
        return Decision::Refused(Box::new(verdict.clone()));
    }
    if let Some(origin) = lost {
        return Decision::Lost(origin);
    }
    // A person who has just logged in waits for the result.
    let anew = trigger.anew || new_login;
    if let Some((failure, wait)) = current_wait(record, policy, inputs, anew, now) {
        return Decision::Hold { reason, wait, failure: Box::new(failure.clone()) };
    }
    Decision::Refresh(reason)
}

/// The decision without regard to the token file, verdicts and waits.
fn refresh_or_rest(
    loaded: &Loaded,
    policy: &Policy,
    inputs: Option<&Inputs>,
    trigger: Trigger,
    now: Timestamp,
) -> Decision {
    let Some(record) = &loaded.record else {
        return match presumed(loaded, policy, now) {
            Some(left) if !trigger.force => Decision::Rest(left),
            _ => Decision::Refresh(Reason::FirstToken),
        };
    };
    if new_seed(Some(record), policy, inputs).is_some() {
        return Decision::Refresh(Reason::NewLogin);
    }
    if is_unclear(record, policy) {
        return Decision::Refresh(Reason::Unclear);
    }
    if record.verdict.is_some() {
        return Decision::Refresh(Reason::AfterVerdict);
    }
    let is_unused = |token: &RefreshToken| policy.grant_type.has_login() && token.used_at.is_none();
    if record.refresh_token.as_ref().is_some_and(is_unused) {
        return Decision::Refresh(Reason::NewLogin);
    }
    let Some(token) = &record.access_token else {
        return Decision::Refresh(Reason::FirstToken);
    };
    if policy.from.is_some() && record.token_seed != record.seeds.last().copied() {
        return Decision::Refresh(Reason::NewLogin);
    }
    Decision::Refresh(match schedule::due(token.issued_at, schedule::due_after(token, policy.skew), now) {
        Due::ClockSetBack => Reason::ClockSetBack,
        Due::Since(late) => Reason::Due(late),
        Due::In(_) if is_rejected(record, token, trigger.rejected, now) => Reason::Rejected,
        Due::In(_) if trigger.force => Reason::Forced,
        Due::In(_) if policy.horizon.is_some_and(|horizon| token.life_left(now) <= horizon) => {
            Reason::BeforeNextPass
        }
        Due::In(left) => return Decision::Rest(left),
    })
}

/// The origin of the token in the token file, if the refresh token at hand was replaced before that: the
/// server may take it for stolen, and end the login. A new login is at hand if its seed is another one.
fn lost(loaded: &Loaded, policy: &Policy, inputs: Option<&Inputs>, trigger: Trigger) -> Option<Origin> {
    let FileView::Ahead(origin) = loaded.file else { return None };
    if !policy.grant_type.has_login() {
        return None;
    }
    let record = loaded.record.as_ref();
    let seed = new_seed(record, policy, inputs);
    let stored = || record?.refresh_token.as_ref().map(|token| token.value.fingerprint());
    let is_old = match seed {
        Some(_) => seed == origin.seed && seed != origin.refresh_token,
        None => stored().is_some_and(|stored| Some(stored) != origin.refresh_token),
    };
    (is_old && !trigger.force).then_some(origin)
}

/// True if a resource refused this token and no refresh has followed. One rejection causes one
/// refresh, which other passes repeat until it succeeds.
fn is_rejected(record: &Record, token: &AccessToken, reported: Option<Fingerprint>, now: Timestamp) -> bool {
    let token = token.value.fingerprint();
    match &record.rejection {
        Some(rejection) if rejection.token == token => !rejection.answered,
        earlier => {
            let too_soon = earlier
                .as_ref()
                .is_some_and(|earlier| schedule::wait_after_rejection(earlier, now).is_some());
            reported == Some(token) && !too_soon
        }
    }
}

/// The live token that the token file should hold and does not.
pub(super) fn unpublished<'a>(
    loaded: &'a Loaded,
    policy: &Policy,
    now: Timestamp,
) -> Option<&'a AccessToken> {
    let record = loaded.record.as_ref()?;
    let is_lacking = match loaded.file {
        FileView::Current | FileView::Ahead(_) => false,
        FileView::Missing | FileView::Incomplete => true,
        // The file may hold the newer token of an answer that could not be stored: never go back.
        FileView::Other { .. } => !is_unclear(record, policy),
    };
    record.access_token.as_ref().filter(|token| is_lacking && token.is_live(now))
}

/// The token in the token file, if it has expired and must be removed.
pub(super) fn expired<'a>(loaded: &'a Loaded, policy: &Policy, now: Timestamp) -> Option<&'a AccessToken> {
    let token = loaded.record.as_ref()?.access_token.as_ref()?;
    (policy.remove_expired && loaded.file.has_token() && !token.is_live(now)).then_some(token)
}

/// True if a request has no definite answer, and a refresh token may be lost with it.
fn is_unclear(record: &Record, policy: &Policy) -> bool {
    let sends = record.refresh_token.as_ref().map_or(0, |token| token.unclear_sends);
    policy.grant_type.has_login() && (record.in_flight.is_some() || sends > 0)
}

/// The configured seed, if this account has never used it.
pub(super) fn new_seed(
    record: Option<&Record>,
    policy: &Policy,
    inputs: Option<&Inputs>,
) -> Option<Fingerprint> {
    let seed = inputs.map_or(policy.inline_seed, |inputs| inputs.seed.as_ref().map(Secret::fingerprint));
    // A seed in the config itself was never unreadable, so it is not the older one.
    let is_older = |record: &Record| record.config_is_older && policy.inline_seed.is_none();
    seed.filter(|seed| record.is_none_or(|record| !is_older(record) && !record.seeds.contains(seed)))
}

/// With a damaged state: how long the token in the token file is presumed to live. The configured
/// seed may have been rotated since, and sending it could revoke that token as well.
fn presumed(loaded: &Loaded, policy: &Policy, now: Timestamp) -> Option<Duration> {
    let (Some(_), FileView::Other { modified_at }) = (&loaded.garbage, loaded.file) else {
        return None;
    };
    if !policy.grant_type.has_login() {
        return None;
    }
    let lifetime = policy.default_lifetime;
    let written = Timestamp { wall: modified_at, boot: 0, boot_id: BootId::of([b"unknown"]) };
    let after = lifetime.saturating_sub(schedule::skew(lifetime, policy.skew));
    match schedule::due(written, after, now) {
        Due::In(left) => Some(left),
        Due::Since(_) | Due::ClockSetBack => None,
    }
}

/// A verdict is bound to the refresh token and everything that is sent with it.
pub(super) fn binding(refresh_token: &Secret, request: Fingerprint) -> Fingerprint {
    Fingerprint::of([refresh_token.expose().as_bytes(), request.to_string().as_bytes()])
}

fn current_verdict<'a>(
    record: &'a Record,
    policy: &Policy,
    inputs: &Inputs,
    trigger: Trigger,
    now: Timestamp,
) -> Option<&'a Verdict> {
    let no_token = Secret::new("");
    let token = if policy.grant_type.has_login() {
        // While it is sealed, the verdict may apply or not: it is open under the lock, where the decision counts.
        record.refresh_token.as_ref()?.value.open()?
    } else {
        &no_token
    };
    let verdict = record.verdict.as_ref()?;
    let applies = match verdict.not_before {
        Some(_) => schedule::wait_of(verdict, now).is_some(),
        None => !trigger.retry_dead,
    };
    let is_same = verdict.is_of_login || verdict.binding == binding(token, inputs.evidence.fingerprint);
    (applies && is_same).then_some(verdict)
}

fn current_wait<'a>(
    record: &'a Record,
    policy: &Policy,
    inputs: &Inputs,
    anew: bool,
    now: Timestamp,
) -> Option<(&'a Failure, Duration)> {
    let failure = record.failure.as_ref()?;
    if failure.request.is_some_and(|request| request != inputs.request) {
        return None;
    }
    // Only the inputs can have failed before the first login, and they could be read now.
    let failed_here = failure.from_inputs && !policy.grant_type.has_login();
    if failed_here || (record.refresh_token.is_none() && inputs.seed.is_some()) {
        return None;
    }
    let wait = schedule::wait_after(failure, now)?;
    // The inputs are here, so that the key is, too.
    if matches!(failure.kind.as_str(), STATE_KEY | STATE_KEY_UNREAD) {
        return None;
    }
    // `once` and `token` ask for it, and the network may be back.
    if failure.not_sent && !policy.patient && now.since(failure.last_at) >= schedule::BACKOFF_FIRST {
        return None;
    }
    let wait = if anew { wait.min(schedule::wait_anew(failure, now)?) } else { wait };
    Some((failure, wait))
}
