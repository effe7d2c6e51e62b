//! One pass, step by step: what each answer of the shell leads to.

use std::time::Duration;

use super::decide::{self, Decision, FileView, Inputs, Loaded};
use super::outcome::{Class, Outcome, Report, Trouble};
use super::record::{
    AccessToken, Attempt, Failure, InFlight, Record, RefreshToken, Source, Verdict, VerdictKind,
};
use super::{
    Action, LOCK_PATIENCE, LOCK_POLL_FIRST, LOCK_POLL_MAX, PERSIST_PATIENCE, Persisting, Phase, Supervisor,
    report, schedule,
};
use crate::clock::Timestamp;
use crate::oauth::{Answer, ExpiresInSource, Grant};
use crate::secret::Secret;

impl Supervisor {
    fn decide(&mut self, now: Timestamp) -> (Decision, Action) {
        let nothing = Loaded { record: None, garbage: None, file: FileView::Missing };
        let loaded = self.loaded.as_ref().unwrap_or(&nothing);
        let decision = decide::decide(loaded, &self.policy, self.inputs.as_ref(), self.trigger, now);
        let decided = Report::Decided { decision: decision.clone(), trigger: self.trigger };
        (decision, report(decided))
    }

    /// A look without the lock, which is enough to find that nothing is due.
    pub(super) fn looked(&mut self, now: Timestamp, loaded: Loaded) -> Vec<Action> {
        self.loaded = Some(loaded);
        let (decision, decided) = self.decide(now);
        let mut actions = vec![decided];
        actions.extend(match decision {
            _ if self.stopping => self.rest(now, Outcome::Stopped),
            Decision::Rest(_) => self.rest(now, self.fresh(now)),
            Decision::Hold { wait, failure, .. } => self.rest(now, held(wait, &failure)),
            Decision::Refused(verdict) => self.rest(now, Outcome::Refused(verdict)),
            Decision::Refresh(_) if self.inputs.is_none() && self.inputs_trouble.is_none() => {
                self.phase = Phase::ReadingInputs;
                vec![Action::ReadInputs]
            }
            Decision::Refresh(_) | Decision::Republish => {
                self.phase = Phase::Locking;
                vec![Action::Lock]
            }
        });
        actions
    }

    pub(super) fn inputs_read(&mut self, now: Timestamp, inputs: Result<Inputs, Trouble>) -> Vec<Action> {
        let mut actions = Vec::new();
        match inputs {
            Ok(mut inputs) => {
                let seedless = self.record().is_none_or(|record| record.refresh_token.is_none());
                match inputs.seed_trouble.take() {
                    Some(trouble) if seedless => self.inputs_trouble = Some(trouble),
                    Some(trouble) => actions.push(report(Report::SeedUnreadable(trouble))),
                    None => {}
                }
                self.inputs = Some(inputs);
            }
            Err(trouble) => {
                // Inside a wait this is not another failure.
                let waiting = self.record().and_then(|record| record.failure.clone());
                let wait = waiting.as_ref().and_then(|failure| schedule::wait(failure.not_before, now));
                if let (Some(failure), Some(wait)) = (waiting, wait) {
                    return self.rest(now, held(wait, &failure));
                }
                self.inputs_trouble = Some(trouble);
            }
        }
        actions.extend(match self.loaded.take() {
            Some(loaded) => self.looked(now, loaded),
            None => self.load(),
        });
        actions
    }

    pub(super) fn lock_busy(&mut self, now: Timestamp) -> Vec<Action> {
        let (since, tries) = self.lock_busy.unwrap_or((now, 0));
        if now.since(since) >= LOCK_PATIENCE {
            let trouble = Trouble {
                class: Class::Busy,
                kind: "lock_timeout".into(),
                message: format!(
                    "another process has held the lock of account {} for {} seconds",
                    self.policy.account,
                    LOCK_PATIENCE.as_secs()
                ),
                hint: Some("see who it is with `zg-tokend status`, and stop it if it hangs".into()),
            };
            return self.give_up(now, trouble);
        }
        self.lock_busy = Some((since, tries + 1));
        self.phase = Phase::LockBusy;
        let poll = LOCK_POLL_FIRST.saturating_mul(1 << tries.min(16)).min(LOCK_POLL_MAX);
        self.wake_at = Some(now.plus(poll));
        Vec::new()
    }

    /// The look that counts: nobody else can change the state now.
    pub(super) fn locked(&mut self, now: Timestamp, loaded: Loaded) -> Vec<Action> {
        self.lock_busy = None;
        let mut actions = Vec::new();
        if let Some(path) = &loaded.garbage {
            actions.push(report(Report::PutAside { path: path.clone() }));
        }
        self.loaded = Some(loaded);
        if self.stopping {
            actions.extend(self.unlock(Outcome::Stopped));
            return actions;
        }
        let found_marker = self.resolve_marker(now, &mut actions);
        let (decision, decided) = self.decide(now);
        actions.push(decided);
        actions.extend(match decision {
            Decision::Rest(_) => self.unlock(self.fresh(now)),
            Decision::Republish => self.publish(Outcome::Republished),
            Decision::Hold { wait, failure, .. } if found_marker => self.persist(held(wait, &failure)),
            Decision::Hold { wait, failure, .. } => self.unlock(held(wait, &failure)),
            Decision::Refused(verdict) => self.unlock(Outcome::Refused(verdict)),
            Decision::Refresh(_) => self.refresh(now),
        });
        actions
    }

    /// A marker under the lock: its writer died, and the request may have been granted.
    fn resolve_marker(&mut self, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        let Some(record) = self.loaded.as_ref().and_then(|loaded| loaded.record.clone()) else {
            return false;
        };
        let Some(marker) = record.in_flight.clone() else { return false };
        actions.push(report(Report::FoundMarker { at: marker.at }));
        let trouble = Trouble {
            class: Class::Unavailable,
            kind: "interrupted".into(),
            message: "a process died while its request was under way".into(),
            hint: None,
        };
        let record = self.unclear(now, record, &trouble, None, marker.at);
        self.remember(record);
        true
    }

    fn refresh(&mut self, now: Timestamp) -> Vec<Action> {
        if let Some(trouble) = self.inputs_trouble.take() {
            return self.note_inputs_trouble(now, trouble);
        }
        let Some(inputs) = &self.inputs else {
            // Due only since the look without the lock: begin again, and read the inputs first.
            self.again = true;
            return self.unlock(Outcome::Stopped);
        };
        match decide::new_seed(self.record(), &self.policy, Some(inputs)) {
            Some(seed) => {
                self.phase = Phase::TakingOver;
                vec![Action::TakeOver(seed)]
            }
            None => self.prepare(now),
        }
    }

    /// A secret or the endpoint's address cannot be had: as transient as an endpoint that is down.
    fn note_inputs_trouble(&mut self, now: Timestamp, trouble: Trouble) -> Vec<Action> {
        let Some(record) = self.record().cloned() else {
            // Nothing is known of this account yet, and nothing needs to be.
            self.note_local_trouble(now);
            return self.unlock(Outcome::Failed(trouble));
        };
        let record = self.failed(now, record, &trouble, None, None, now);
        self.remember(record);
        self.persist(Outcome::Failed(trouble))
    }

    pub(super) fn taken_over(&mut self, now: Timestamp, other: Option<Box<Record>>) -> Vec<Action> {
        let own = self.record().cloned();
        let (account, config) = (self.policy.account.clone(), self.policy.config.clone());
        if let Some(other) = other {
            let took_over = report(Report::TookOver { account: other.account.clone() });
            let mut record = Record { account, config, ..*other };
            if let Some(own) = own {
                record.previous = own.refresh_token.filter(|_| own.verdict.is_none());
                record.seeds.extend(own.seeds);
                record.generation = record.generation.max(own.generation);
            }
            self.remember(record);
            self.again = true;
            let mut actions = vec![took_over];
            actions.extend(self.persist(Outcome::Stopped));
            return actions;
        }
        let mut record = own.unwrap_or_else(|| Record::new(account, config));
        let Some(seed) = self.inputs.as_ref().and_then(|inputs| inputs.seed.clone()) else {
            return self.prepare(now);
        };
        let took_seed = report(Report::TookSeed(seed.fingerprint()));
        record.take_seed(seed, now);
        self.remember(record);
        let mut actions = vec![took_seed];
        actions.extend(self.prepare(now));
        actions
    }

    fn prepare(&mut self, now: Timestamp) -> Vec<Action> {
        let Some(mut record) = self.record().cloned() else { return self.no_refresh_token(now) };
        let Some(token) = &record.refresh_token else { return self.no_refresh_token(now) };
        record.in_flight = Some(InFlight { refresh_token: token.value.fingerprint(), at: now });
        record.config.clone_from(&self.policy.config);
        self.remember(record.clone());
        self.phase = Phase::Preparing;
        vec![Action::Prepare(Box::new(record))]
    }

    fn no_refresh_token(&mut self, now: Timestamp) -> Vec<Action> {
        let trouble = Trouble {
            class: Class::Config,
            kind: "no_refresh_token".into(),
            message: format!("account {} has no refresh token", self.policy.account),
            hint: Some(format!("log in once and put the refresh_token into {}", self.policy.config)),
        };
        self.unlock_failed(now, trouble)
    }

    pub(super) fn prepared(&mut self, now: Timestamp) -> Vec<Action> {
        let Some(mut record) = self.record().cloned() else { return self.no_refresh_token(now) };
        if self.stopping {
            record.in_flight = None;
            self.remember(record);
            return self.persist(Outcome::Stopped);
        }
        let Some(token) = record.refresh_token else { return self.no_refresh_token(now) };
        self.phase = Phase::Requesting { issued_at: now };
        vec![Action::Request(token.value)]
    }

    pub(super) fn answered(&mut self, now: Timestamp, issued_at: Timestamp, answer: Answer) -> Vec<Action> {
        let Some(mut record) = self.record().cloned() else { return self.unlock(Outcome::Stopped) };
        record.in_flight = None;
        if let Answer::InvalidGrant(_) = answer {
            self.phase = Phase::Rechecking { issued_at, refusal: answer };
            return vec![Action::Load];
        }
        let trouble = trouble(&answer);
        let outcome = match &answer {
            Answer::Granted(grant) => return self.granted(now, issued_at, record, grant),
            Answer::ClientRefused(reply) => {
                let verdict =
                    self.verdict(&record, VerdictKind::Client, reply.code.as_str(), trouble, issued_at);
                record.failure = None;
                record.verdict = Some(verdict.clone());
                record.last_attempt = Some(Attempt { at: issued_at, result: answer.kind().into() });
                self.remember(record);
                Outcome::Refused(verdict)
            }
            Answer::Ambiguous(_) => {
                let record = self.unclear(now, record, &trouble, answer.retry_after(), issued_at);
                self.remember(record);
                Outcome::Failed(trouble)
            }
            Answer::Defective { refresh_token, .. } => {
                let rotated = refresh_token.is_some();
                rotate(&mut record, refresh_token.as_ref(), issued_at);
                let record = self.failed(now, record, &trouble, None, None, issued_at);
                self.remember(record);
                return self.persist_precious(rotated, None, Outcome::Failed(trouble));
            }
            Answer::Unavailable(_) | Answer::InvalidGrant(_) => {
                let record = self.failed(now, record, &trouble, None, answer.retry_after(), issued_at);
                self.remember(record);
                Outcome::Failed(trouble)
            }
        };
        self.trigger = decide::Trigger::default();
        self.persist(outcome)
    }

    fn granted(
        &mut self,
        now: Timestamp,
        issued_at: Timestamp,
        mut record: Record,
        grant: &Grant,
    ) -> Vec<Action> {
        rotate(&mut record, grant.refresh_token.as_ref(), issued_at);
        let earlier = record.access_token.take().filter(|earlier| earlier.value == grant.access_token);
        let lifetime = match &earlier {
            // The same token again, and not a word about its life: it has what it had.
            Some(earlier) if grant.expires_in_source != ExpiresInSource::Stated => {
                Duration::from_millis(earlier.remaining(issued_at).max(0).cast_unsigned())
            }
            _ => grant.expires_in,
        };
        if lifetime.is_zero() {
            let trouble = Trouble {
                class: Class::Unavailable,
                kind: "stale_token".into(),
                message: "the token endpoint answered with the same access token, which has expired".into(),
                hint: Some("ask the operator of the token endpoint why it repeats dead tokens".into()),
            };
            record.access_token = earlier;
            let rotated = grant.refresh_token.is_some();
            let record = self.failed(now, record, &trouble, None, None, issued_at);
            self.remember(record);
            return self.persist_precious(rotated, None, Outcome::Failed(trouble));
        }
        record.generation += u64::from(earlier.is_none());
        let token = AccessToken {
            value: grant.access_token.clone(),
            token_type: grant.token_type.clone(),
            scope: grant.scope.clone().or(earlier.as_ref().and_then(|earlier| earlier.scope.clone())),
            issued_at,
            lifetime_ms: lifetime.as_millis() as u64,
            jitter_ms: schedule::jitter_ms(lifetime, self.next_random()),
            repeated: earlier.is_some(),
        };
        record.access_token = Some(token.clone());
        record.previous = None;
        record.failure = None;
        record.verdict = None;
        record.last_attempt = Some(Attempt { at: issued_at, result: "refreshed".into() });
        let outcome = Outcome::Refreshed {
            generation: record.generation,
            remaining: Duration::from_millis(token.remaining(now).max(0).cast_unsigned()),
            took: now.since(issued_at),
        };
        self.remember(record);
        self.trigger = decide::Trigger::default();
        self.persist_precious(true, Some(Box::new(token)), outcome)
    }

    /// After invalid_grant: another writer may have replaced the refresh token after all.
    pub(super) fn rechecked(
        &mut self,
        now: Timestamp,
        issued_at: Timestamp,
        refusal: &Answer,
        on_disk: Option<Loaded>,
    ) -> Vec<Action> {
        let Some(mut record) = self.record().cloned() else { return self.unlock(Outcome::Stopped) };
        let sent = record.refresh_token.as_ref().map(|token| token.value.fingerprint());
        let stored = on_disk.and_then(|loaded| loaded.record);
        let stored_token = stored.as_ref().and_then(|record| record.refresh_token.as_ref());
        if stored_token.is_some_and(|token| Some(token.value.fingerprint()) != sent) {
            self.again = true;
            let mut actions = vec![report(Report::Adopted)];
            actions.extend(self.unlock(Outcome::Stopped));
            return actions;
        }
        let trouble = trouble(refusal);
        record.in_flight = None;
        record.last_attempt = Some(Attempt { at: issued_at, result: trouble.kind.clone() });
        self.trigger = decide::Trigger::default();
        if let Some(previous) = record.previous.take() {
            record.refresh_token = Some(previous);
            record.failure = None;
            self.remember(record);
            self.again = true;
            let mut actions = vec![report(Report::FellBack { message: trouble.message })];
            actions.extend(self.persist(Outcome::Stopped));
            return actions;
        }
        let error = trouble.kind.clone();
        let verdict = self.verdict(&record, VerdictKind::RefreshToken, &error, trouble, now);
        record.failure = None;
        record.verdict = Some(verdict.clone());
        self.remember(record);
        self.persist(Outcome::Refused(verdict))
    }

    fn verdict(
        &self,
        record: &Record,
        kind: VerdictKind,
        error: &str,
        trouble: Trouble,
        at: Timestamp,
    ) -> Verdict {
        let empty = Secret::new("");
        let token = record.refresh_token.as_ref().map_or(&empty, |token| &token.value);
        let request = self.inputs.as_ref().map_or(empty.fingerprint(), |inputs| inputs.request);
        Verdict {
            kind,
            binding: decide::binding(token, request),
            error: error.into(),
            message: trouble.message,
            at,
            not_before: (kind == VerdictKind::Client).then(|| at.plus(schedule::CLIENT_RETRY)),
        }
    }

    /// Counts one more send without a definite answer.
    fn unclear(
        &mut self,
        now: Timestamp,
        mut record: Record,
        trouble: &Trouble,
        retry_after: Option<Duration>,
        issued_at: Timestamp,
    ) -> Record {
        record.in_flight = None;
        let resend = record.refresh_token.as_mut().and_then(|token| {
            token.unclear_sends += 1;
            schedule::resend(token.unclear_sends)
        });
        self.failed(now, record, trouble, resend, retry_after, issued_at)
    }

    /// Counts one more failure, and says when the next request may be made.
    fn failed(
        &mut self,
        now: Timestamp,
        mut record: Record,
        trouble: &Trouble,
        resend: Option<Duration>,
        retry_after: Option<Duration>,
        issued_at: Timestamp,
    ) -> Record {
        let request = self.inputs.as_ref().map(|inputs| inputs.request);
        let anew = self.trigger.anew;
        let run = record.failure.take().filter(|failure| !anew && failure.request == request);
        let (since, count) = run.map_or((now, 1), |run| (run.since, run.count.saturating_add(1)));
        let backoff = schedule::backoff(count, now.since(since), self.next_random());
        let asked = retry_after.map(|wait| wait.min(schedule::RETRY_AFTER_MAX));
        let wait = asked.map_or(resend.unwrap_or(backoff), |asked| asked.max(backoff));
        record.last_attempt = Some(Attempt { at: issued_at, result: trouble.kind.clone() });
        record.failure = Some(Failure {
            kind: trouble.kind.clone(),
            message: trouble.message.clone(),
            hint: trouble.hint.clone(),
            since,
            count,
            last_at: now,
            not_before: now.plus(wait),
            retry_after: asked.is_some_and(|asked| asked > backoff),
            request,
        });
        record
    }

    fn remember(&mut self, record: Record) {
        match &mut self.loaded {
            Some(loaded) => loaded.record = Some(record),
            None => {
                self.loaded = Some(Loaded { record: Some(record), garbage: None, file: FileView::Missing });
            }
        }
    }

    fn persist(&mut self, then: Outcome) -> Vec<Action> {
        self.persist_precious(false, None, then)
    }

    fn persist_precious(
        &mut self,
        precious: bool,
        publish: Option<Box<AccessToken>>,
        then: Outcome,
    ) -> Vec<Action> {
        self.persist_again(Persisting { precious, publish, then, failing: None })
    }

    fn persist_again(&mut self, persisting: Persisting) -> Vec<Action> {
        let Some(record) = self.record().cloned() else { return self.unlock(persisting.then) };
        self.phase = Phase::Persisting(persisting);
        self.wake_at = None;
        vec![Action::Persist(Box::new(record))]
    }

    pub(super) fn persisted(&mut self, persisting: Persisting) -> Vec<Action> {
        self.local_troubles = 0;
        match persisting.publish {
            Some(token) => {
                self.phase = Phase::Publishing { then: persisting.then };
                vec![Action::Publish(token)]
            }
            None => self.unlock(persisting.then),
        }
    }

    /// The disk took the marker and then refused the state. What only memory holds is not given
    /// up: the lock is kept, so that nobody sends the token that has been replaced.
    pub(super) fn persist_failed(
        &mut self,
        now: Timestamp,
        mut persisting: Persisting,
        trouble: Trouble,
    ) -> Vec<Action> {
        if !persisting.precious {
            self.note_local_trouble(now);
            return self.unlock(Outcome::Failed(trouble));
        }
        let (since, tries) = persisting.failing.unwrap_or((now, 0));
        persisting.failing = Some((since, tries + 1));
        let mut actions = vec![report(Report::NotYetStored(trouble.clone()))];
        if tries == 0 {
            actions.extend(persisting.publish.clone().map(Action::Publish));
        }
        let wait = schedule::backoff(tries + 1, Duration::ZERO, 0);
        self.wake_at = Some(now.plus(wait));
        self.phase = Phase::PersistFailed { persisting, trouble };
        actions
    }

    pub(super) fn retry_persist(
        &mut self,
        now: Timestamp,
        persisting: Persisting,
        trouble: Trouble,
    ) -> Vec<Action> {
        let since = persisting.failing.map_or(now, |(since, _)| since);
        let patient = self.policy.patient && !self.stopping;
        if !patient && now.since(since) >= PERSIST_PATIENCE {
            self.note_local_trouble(now);
            return self.unlock(Outcome::NotStored(trouble));
        }
        self.persist_again(persisting)
    }

    fn publish(&mut self, then: Outcome) -> Vec<Action> {
        let Some(token) = self.record().and_then(|record| record.access_token.clone()) else {
            return self.unlock(then);
        };
        self.phase = Phase::Publishing { then };
        vec![Action::Publish(Box::new(token))]
    }

    pub(super) fn published(&mut self, then: Outcome) -> Vec<Action> {
        self.local_troubles = 0;
        if let Some(loaded) = &mut self.loaded {
            loaded.file = FileView::Current;
        }
        self.unlock(then)
    }

    pub(super) fn unlock(&mut self, outcome: Outcome) -> Vec<Action> {
        self.phase = Phase::Unlocking { outcome };
        self.wake_at = None;
        vec![Action::Unlock]
    }

    /// A trouble of this machine ends the pass before anything was sent.
    pub(super) fn unlock_failed(&mut self, now: Timestamp, trouble: Trouble) -> Vec<Action> {
        self.note_local_trouble(now);
        self.unlock(Outcome::Failed(trouble))
    }

    pub(super) fn give_up(&mut self, now: Timestamp, trouble: Trouble) -> Vec<Action> {
        self.note_local_trouble(now);
        self.rest(now, Outcome::Failed(trouble))
    }

    /// Counts a trouble that cannot be counted on disk, and waits accordingly.
    pub(super) fn note_local_trouble(&mut self, now: Timestamp) {
        self.local_troubles = self.local_troubles.saturating_add(1);
        let wait = schedule::backoff(self.local_troubles, Duration::ZERO, self.next_random());
        self.local_wait = Some(now.plus(wait));
    }

    /// Ends a pass, and says when the next one begins.
    pub(super) fn rest(&mut self, now: Timestamp, outcome: Outcome) -> Vec<Action> {
        self.phase = Phase::Idle;
        self.lock_busy = None;
        // A wait postpones a wish, it does not cancel it.
        if !matches!(outcome, Outcome::Held { .. }) && !self.again {
            self.trigger = decide::Trigger::default();
        }
        let silent = self.again && outcome == Outcome::Stopped;
        let mut actions = if silent { Vec::new() } else { vec![report(Report::Finished(outcome))] };
        if self.again && !self.stopping {
            actions.extend(self.load());
        } else {
            self.wake_at = self.next_pass(now);
        }
        actions
    }

    fn next_pass(&mut self, now: Timestamp) -> Option<Timestamp> {
        if let Some(at) = self.local_wait.take() {
            return Some(at);
        }
        let failure = self.record().and_then(|record| record.failure.clone());
        let (decision, _) = self.decide(now);
        let wait = match decision {
            Decision::Rest(wait) | Decision::Hold { wait, .. } => Some(wait),
            Decision::Refused(verdict) => match verdict.not_before {
                Some(not_before) => schedule::wait(not_before, now),
                None => return self.policy.reread_secrets.map(|every| now.plus(every)),
            },
            Decision::Refresh(_) | Decision::Republish => {
                failure.and_then(|failure| schedule::wait(failure.not_before, now))
            }
        };
        Some(now.plus(wait.unwrap_or_default()))
    }

    fn fresh(&self, now: Timestamp) -> Outcome {
        let token = self.record().and_then(|record| record.access_token.as_ref());
        let remaining = token.map_or(0, |token| token.remaining(now).max(0));
        Outcome::Fresh { remaining: Duration::from_millis(remaining.cast_unsigned()) }
    }
}

/// Puts the refresh token of a reply in place; a reply without one keeps the old (RFC 6749
/// section 6). Either way the answer was definite.
fn rotate(record: &mut Record, rotated: Option<&Secret>, at: Timestamp) {
    let Some(token) = &mut record.refresh_token else { return };
    if let Some(value) = rotated.filter(|value| **value != token.value) {
        *token = RefreshToken {
            value: value.clone(),
            source: Source::Rotation,
            seeded_at: token.seeded_at,
            obtained_at: at,
            used_at: Some(at),
            unclear_sends: 0,
        };
    }
    token.used_at = Some(at);
    token.unclear_sends = 0;
}

fn trouble(answer: &Answer) -> Trouble {
    Trouble {
        class: match answer {
            Answer::InvalidGrant(_) => Class::NeedsLogin,
            Answer::ClientRefused(_) => Class::Config,
            _ => Class::Unavailable,
        },
        kind: answer.kind().into(),
        message: answer.to_string(),
        hint: answer.hint(),
    }
}

fn held(wait: Duration, failure: &Failure) -> Outcome {
    let trouble = Trouble {
        class: Class::Unavailable,
        kind: failure.kind.clone(),
        message: failure.message.clone(),
        hint: failure.hint.clone(),
    };
    Outcome::Held { wait, trouble }
}
