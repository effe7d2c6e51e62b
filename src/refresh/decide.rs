//! Whether: what one look at state, file, config and clocks calls for. Pure, and the same for
//! every command.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{BootId, Timestamp, millis};
use crate::oauth::TokenClient;
use crate::problem::Problem;
use crate::refresh::Policy;
use crate::refresh::record::{AccessToken, Failure, Record, Verdict};
use crate::refresh::schedule;
use crate::refresh::schedule::Due;
use crate::secret::{Fingerprint, Secret};

/// The token file, beside the state that should be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileView {
    /// There is none.
    Missing,
    /// It holds exactly what the state says.
    Current,
    /// It holds something else, last changed at this wall time in milliseconds.
    Other {
        /// Milliseconds since 1970.
        modified_at: i64,
    },
}

/// State and token file, as one look found them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The state; `None` if there is none, or none that can be understood.
    pub record: Option<Record>,
    /// A damaged state is there; under the lock: was put aside, as this.
    pub garbage: Option<String>,
    /// The token file.
    pub file: FileView,
}

/// A request beyond doing what is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent wishes, any of which may be there")]
pub struct Trigger {
    /// Refresh even if nothing is due. Overrides neither a verdict nor a wait.
    pub force: bool,
    /// The world has changed (resume, clock step, SIGUSR1): the backoff begins anew.
    pub anew: bool,
    /// Send a dead refresh token once more.
    pub retry_dead: bool,
    /// Config or secrets may have changed: read them even if nothing seems due.
    pub reread: bool,
    /// This access token was refused by a resource: if it is still the stored one, replace it.
    pub rejected: Option<Fingerprint>,
}

impl Trigger {
    /// Both wishes at once.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            force: self.force || other.force,
            anew: self.anew || other.anew,
            retry_dead: self.retry_dead || other.retry_dead,
            reread: self.reread || other.reread,
            rejected: other.rejected.or(self.rejected),
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
    /// The client that sends the request.
    pub client: Arc<TokenClient>,
    /// The client's fingerprint: what a verdict is bound to besides the refresh token.
    pub request: Fingerprint,
}

impl Inputs {
    /// With the client's fingerprint.
    pub fn new(seed: Option<Secret>, seed_problem: Option<Problem>, client: TokenClient) -> Self {
        Self { seed, seed_problem, request: client.fingerprint(), client: Arc::new(client) }
    }
}

/// The next step of a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, for so long.
    Rest(Duration),
    /// The token is good, but the file does not hold it.
    Republish,
    /// Ask the token endpoint.
    Refresh(Reason),
    /// Something is due, but must wait.
    Hold {
        /// The reason of the refresh.
        reason: Reason,
        /// For how long.
        wait: Duration,
        /// Which failure ordered the wait.
        failure: Box<Failure>,
    },
    /// Something is due, but the answer is known: no.
    Refused(Box<Verdict>),
}

/// Why a refresh is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There is no access token yet.
    FirstToken,
    /// A login that has not earned an access token yet.
    NewLogin,
    /// A request got no definite answer, or its sender died: the server may have rotated.
    Unclear,
    /// The server said no, and it has not been checked yet whether that still applies.
    AfterVerdict,
    /// The skew before expiry has begun, so many milliseconds ago.
    Due(i64),
    /// The wall clock is before the token's issue: it was set back, or was wrong then.
    ClockSetBack,
    /// It would expire before the next pass.
    BeforeNextPass,
    /// A resource refused it.
    Rejected,
    /// Somebody asked.
    Forced,
}

/// Decides. `inputs` is absent until something was found to be due.
pub fn decide(
    loaded: &Loaded,
    policy: &Policy,
    inputs: Option<&Inputs>,
    trigger: Trigger,
    now: Timestamp,
) -> Decision {
    let reason = match whether(loaded, policy, inputs, trigger, now) {
        Whether::Due(reason) => reason,
        Whether::In(left) => {
            return match unpublished(loaded, now) {
                Some(_) => Decision::Republish,
                None => Decision::Rest(Duration::from_millis(left.cast_unsigned())),
            };
        }
    };
    let (Some(record), Some(inputs)) = (&loaded.record, inputs) else {
        return Decision::Refresh(reason);
    };
    let new_login = new_seed(Some(record), policy, Some(inputs)).is_some();
    if !new_login && let Some(verdict) = standing_verdict(record, inputs, trigger, now) {
        return Decision::Refused(Box::new(verdict.clone()));
    }
    // Somebody who logs in again is waiting for it.
    let anew = trigger.anew || new_login;
    if let Some((failure, wait)) = standing_wait(record, inputs, anew, now) {
        return Decision::Hold { reason, wait, failure: Box::new(failure.clone()) };
    }
    Decision::Refresh(reason)
}

enum Whether {
    Due(Reason),
    In(i64),
}

fn whether(
    loaded: &Loaded,
    policy: &Policy,
    inputs: Option<&Inputs>,
    trigger: Trigger,
    now: Timestamp,
) -> Whether {
    let Some(record) = &loaded.record else {
        return match presumed(loaded, policy, now) {
            Some(left) if !trigger.force => Whether::In(left),
            _ => Whether::Due(Reason::FirstToken),
        };
    };
    if new_seed(Some(record), policy, inputs).is_some() {
        return Whether::Due(Reason::NewLogin);
    }
    if is_unclear(record) {
        return Whether::Due(Reason::Unclear);
    }
    if record.verdict.is_some() {
        return Whether::Due(Reason::AfterVerdict);
    }
    if record.refresh_token.as_ref().is_some_and(|token| token.used_at.is_none()) {
        return Whether::Due(Reason::NewLogin);
    }
    let Some(token) = &record.access_token else {
        return Whether::Due(Reason::FirstToken);
    };
    match schedule::due(token.issued_at, schedule::due_after(token, policy.skew), now) {
        Due::ClockSetBack => Whether::Due(Reason::ClockSetBack),
        Due::Since(late) => Whether::Due(Reason::Due(late)),
        Due::In(_) if is_rejected(record, token, trigger.rejected, now) => Whether::Due(Reason::Rejected),
        Due::In(_) if trigger.force => Whether::Due(Reason::Forced),
        Due::In(_) if policy.horizon.is_some_and(|horizon| token.remaining(now) <= millis(horizon)) => {
            Whether::Due(Reason::BeforeNextPass)
        }
        Due::In(left) => Whether::In(left),
    }
}

/// True if a resource refused this token, and it has not been asked yet what the server makes of
/// it. One report is one refresh: until that has succeeded, in other passes as well.
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

/// The live token that the file should hold and does not.
pub(super) fn unpublished(loaded: &Loaded, now: Timestamp) -> Option<&AccessToken> {
    let record = loaded.record.as_ref()?;
    let wanting = match loaded.file {
        FileView::Current => false,
        FileView::Missing => true,
        // The answer that could not be stored may have been published: never go back.
        FileView::Other { .. } => !is_unclear(record),
    };
    record.access_token.as_ref().filter(|token| wanting && token.is_live(now))
}

/// The token in the file, if it has expired and is not to stay.
pub(super) fn expired<'a>(loaded: &'a Loaded, policy: &Policy, now: Timestamp) -> Option<&'a AccessToken> {
    let token = loaded.record.as_ref()?.access_token.as_ref()?;
    (policy.remove_expired && loaded.file == FileView::Current && !token.is_live(now)).then_some(token)
}

/// True if a request is without an answer.
fn is_unclear(record: &Record) -> bool {
    record.in_flight.is_some() || record.refresh_token.as_ref().is_some_and(|token| token.unclear_sends > 0)
}

/// The configured seed, if this account has never used it.
pub(super) fn new_seed(
    record: Option<&Record>,
    policy: &Policy,
    inputs: Option<&Inputs>,
) -> Option<Fingerprint> {
    let seed = inputs.map_or(policy.inline_seed, |inputs| inputs.seed.as_ref().map(Secret::fingerprint));
    // A seed in the config file could always be read.
    let is_older = |record: &Record| record.config_is_older && policy.inline_seed.is_none();
    seed.filter(|seed| record.is_none_or(|record| !is_older(record) && !record.seeds.contains(seed)))
}

/// For a damaged state: how long the token in the file is believed to live. The
/// seed may be one that was rotated away, and presenting it could end the life of that token too.
fn presumed(loaded: &Loaded, policy: &Policy, now: Timestamp) -> Option<i64> {
    let (Some(_), FileView::Other { modified_at }) = (&loaded.garbage, loaded.file) else {
        return None;
    };
    let lifetime = policy.default_lifetime;
    let written = Timestamp { wall: modified_at, boot: 0, boot_id: BootId::of([b"unknown"]) };
    let after = lifetime.saturating_sub(schedule::skew(lifetime, policy.skew));
    match schedule::due(written, after, now) {
        Due::In(left) => Some(left),
        Due::Since(_) | Due::ClockSetBack => None,
    }
}

/// Over the refresh token and everything it is sent with: what a verdict is bound to.
pub(super) fn binding(refresh_token: &Secret, request: Fingerprint) -> Fingerprint {
    Fingerprint::of([refresh_token.expose().as_bytes(), request.to_string().as_bytes()])
}

fn standing_verdict<'a>(
    record: &'a Record,
    inputs: &Inputs,
    trigger: Trigger,
    now: Timestamp,
) -> Option<&'a Verdict> {
    let token = &record.refresh_token.as_ref()?.value;
    let verdict = record.verdict.as_ref()?;
    let stands = match verdict.not_before {
        Some(_) => schedule::wait_of(verdict, now).is_some(),
        None => !trigger.retry_dead,
    };
    (stands && verdict.binding == binding(token, inputs.request)).then_some(verdict)
}

fn standing_wait<'a>(
    record: &'a Record,
    inputs: &Inputs,
    anew: bool,
    now: Timestamp,
) -> Option<(&'a Failure, Duration)> {
    let failure = record.failure.as_ref()?;
    if failure.request.is_some_and(|request| request != inputs.request) {
        return None;
    }
    let wait = schedule::wait_after(failure, now)?;
    let wait = if anew { wait.min(schedule::wait_anew(failure, now)?) } else { wait };
    Some((failure, wait))
}
