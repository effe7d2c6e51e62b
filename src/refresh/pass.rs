//! One pass, step by step: what each answer of the shell leads to.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::oauth::{Grant, TokenRequest};
use crate::problem::{Class, Problem};
use crate::refresh::decide;
use crate::refresh::decide::{Decision, FileView, Inputs, Loaded, Reason, Trigger};
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::record::{AccessToken, Failure, InFlight, Record, Rejection};
use crate::refresh::view::DecisionView;
use crate::refresh::{
    Action, INPUTS_FRESH, LOCK_POLL_FIRST, LOCK_POLL_MAX, Phase, Refresher, Then, report, schedule,
};
use crate::secret::Secret;

impl Refresher {
    pub(super) fn decide(&mut self, now: Timestamp) -> (Decision, Action) {
        let nothing = Loaded { record: None, garbage: None, file: FileView::Missing };
        let loaded = self.loaded.as_deref().unwrap_or(&nothing);
        let trigger = self.permitted_trigger(now);
        let decision = decide::decide(loaded, &self.policy, self.inputs.as_ref(), trigger, now);
        let facts = Box::new(DecisionView::gather(loaded, &self.policy, self.inputs.as_ref(), now));
        let decided = Report::Decided { decision: decision.clone(), trigger, facts };
        (decision, report(decided))
    }

    /// The trigger, without force if there was too much of that lately.
    fn permitted_trigger(&self, now: Timestamp) -> Trigger {
        match self.wait_forced(now) {
            Some(_) => Trigger { force: false, anew: false, ..self.trigger },
            None => self.trigger,
        }
    }

    /// How long a forced refresh must wait; `None` if none is wanted, or it may be made now.
    fn wait_forced(&self, now: Timestamp) -> Option<Duration> {
        let forced = self.record()?.forced.as_ref().filter(|_| self.trigger.force)?;
        schedule::wait_forced(forced, now)
    }

    /// A look without the lock, which is enough to find that nothing is due.
    pub(super) fn looked(&mut self, now: Timestamp, loaded: Box<Loaded>) -> Vec<Action> {
        self.loaded = Some(loaded);
        let (decision, decided) = self.decide(now);
        let mut actions = vec![decided];
        actions.extend(self.wait_forced(now).map(|wait| report(Report::ForcedTooOften { wait })));
        let unread = self.inputs.is_none() && self.inputs_problem.is_none();
        actions.extend(match decision {
            _ if self.stopping => self.rest(now, Outcome::Stopped),
            _ if self.trigger.reread && unread => self.read_inputs(),
            Decision::Rest(_)
                if self.trigger.reread
                    && let Some(problem) = self.inputs_problem.take() =>
            {
                self.give_up(now, problem)
            }
            Decision::Rest(wait) => {
                let garbage = self.loaded.as_ref().and_then(|loaded| loaded.garbage.clone());
                let said = garbage.map(|why| report(Report::NotUnderstood { why, wait }));
                said.into_iter().chain(self.rest(now, self.fresh(now, wait))).collect()
            }
            Decision::Hold { .. } | Decision::Refused(_)
                if self.unpublished(now).is_some() || self.expired(now).is_some() || self.found_marker() =>
            {
                self.phase = Phase::Locking;
                vec![Action::Lock]
            }
            Decision::Hold { wait, failure, .. } => self.rest(now, held(wait, &failure)),
            Decision::Refused(verdict) => self.rest(now, Outcome::Refused(verdict)),
            Decision::Refresh(_) if unread => self.read_inputs(),
            Decision::Refresh(_) | Decision::Republish => {
                self.phase = Phase::Locking;
                vec![Action::Lock]
            }
        });
        actions
    }

    pub(super) fn inputs_read(&mut self, now: Timestamp, inputs: Result<Inputs, Problem>) -> Vec<Action> {
        let mut actions = Vec::new();
        match inputs {
            Ok(mut inputs) => {
                let seedless = self.record().is_none_or(|record| record.refresh_token.is_none());
                match inputs.seed_problem.take() {
                    Some(problem) if seedless => self.inputs_problem = Some(problem),
                    Some(problem) => actions.push(report(Report::SeedUnreadable(problem))),
                    None => {}
                }
                self.inputs = Some(inputs);
            }
            Err(problem) => {
                if let Some(held) = self.held_without_inputs(now) {
                    return self.rest(now, held);
                }
                self.inputs_problem = Some(problem);
            }
        }
        actions.extend(match self.loaded.take() {
            Some(loaded) => self.looked(now, loaded),
            None => self.load(),
        });
        actions
    }

    fn read_inputs(&mut self) -> Vec<Action> {
        self.phase = Phase::ReadingInputs;
        vec![Action::ReadInputs]
    }

    /// The inputs, and so whether a wait still applies, are not known: assume it does.
    fn held_without_inputs(&self, now: Timestamp) -> Option<Outcome> {
        let failure = self.record()?.failure.as_ref()?;
        let wait = schedule::wait_after(failure, now)?;
        Some(held(wait, failure))
    }

    pub(super) fn lock_busy(&mut self, now: Timestamp) -> Vec<Action> {
        if self.stopping {
            return self.rest(now, Outcome::Stopped);
        }
        let (since, tries) = self.lock_busy.unwrap_or((now, 0));
        if now.since(since) >= self.policy.lock_patience {
            let problem = Problem {
                class: Class::Busy,
                kind: "lock_timeout".into(),
                message: format!(
                    "another process has held the lock of account {} for {} s",
                    self.policy.account,
                    self.policy.lock_patience.as_secs()
                ),
                hint: Some("find it with `zg-tokend status`, and stop it if it hangs".into()),
            };
            return self.give_up(now, problem);
        }
        self.lock_busy = Some((since, tries + 1));
        self.phase = Phase::LockBusy;
        let poll = LOCK_POLL_FIRST.saturating_mul(1 << tries.min(16)).min(LOCK_POLL_MAX);
        self.wake_at = Some(now.plus(poll));
        Vec::new()
    }

    /// The look that counts: nobody else can change the state now.
    pub(super) fn locked(&mut self, now: Timestamp, loaded: Box<Loaded>) -> Vec<Action> {
        if self.lock_busy.take().is_some_and(|(since, _)| now.since(since) > INPUTS_FRESH) {
            self.inputs = None;
            self.inputs_problem = None;
        }
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
        let end = match decision {
            Decision::Rest(wait) => self.fresh(now, wait),
            Decision::Republish => Outcome::Republished,
            Decision::Hold { wait, failure, .. } => held(wait, &failure),
            Decision::Refused(verdict) => Outcome::Refused(verdict),
            Decision::Refresh(reason) => {
                let token = self.record().and_then(|record| record.access_token.as_ref());
                if let (Reason::ClockSetBack, Some(token)) = (reason, token) {
                    actions.push(report(Report::ClockSetBack { issued_at: token.issued_at }));
                }
                actions.extend(self.refresh(now));
                return actions;
            }
        };
        actions.extend(if found_marker { self.persist(end) } else { self.leave(now, end) });
        actions
    }

    /// Without the lock: of a dead writer, or of one that will bring news.
    fn found_marker(&self) -> bool {
        self.record().is_some_and(|record| record.in_flight.is_some())
    }

    /// A marker under the lock: its writer died, and the request may have been granted.
    fn resolve_marker(&mut self, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        let Some(record) = self.loaded.as_ref().and_then(|loaded| loaded.record.clone()) else {
            return false;
        };
        let Some(marker) = record.in_flight.clone() else { return false };
        actions.push(report(Report::FoundMarker { at: marker.at }));
        let problem = Problem {
            class: Class::Unavailable,
            kind: "interrupted".into(),
            message: "a process died while its request was under way".into(),
            hint: None,
        };
        let record = self.unclear(now, record, &problem, None, marker.at);
        self.remember(record);
        true
    }

    fn refresh(&mut self, now: Timestamp) -> Vec<Action> {
        if let Some(problem) = self.inputs_problem.take() {
            return self.note_inputs_problem(now, problem);
        }
        let Some(inputs) = &self.inputs else {
            // Due only since the look without the lock, or long waited for: begin again, and read
            // the inputs first.
            return self.unlock(Then::Again);
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
    fn note_inputs_problem(&mut self, now: Timestamp, problem: Problem) -> Vec<Action> {
        let Some(record) = self.record().cloned() else {
            // Nothing is known of this account yet, and nothing needs to be.
            return self.leave_failed(now, problem);
        };
        if let Some(held) = self.held_without_inputs(now) {
            // Another process has met the problem first, or one that weighs more.
            return self.leave(now, held);
        }
        let record = self.failed(now, record, &problem, None, None, now);
        self.remember(record);
        self.persist(Outcome::Failed(problem))
    }

    pub(super) fn taken_over(&mut self, now: Timestamp, other: Option<Box<Record>>) -> Vec<Action> {
        let own = self.record().cloned();
        let (account, config) = (self.policy.account.clone(), self.policy.config.clone());
        if let Some(other) = other {
            let took_over = report(Report::TookOver { account: other.account.clone() });
            let mut record = own.unwrap_or_else(|| Record::new(account, config));
            record.take_over(*other);
            self.remember(record);
            let mut actions = vec![took_over];
            actions.extend(self.persist(Then::Again));
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
        self.note_rejection(now, &mut record);
        if self.permitted_trigger(now).force {
            record.forced = Some(schedule::count_forced(record.forced.as_ref(), now));
        }
        let older = self.inputs.as_ref().and_then(|inputs| inputs.seed.as_ref()).map(Secret::fingerprint);
        let older = older.filter(|_| std::mem::take(&mut record.config_is_older));
        let mut actions = Vec::new();
        if let Some(seed) = older {
            if !record.seeds.contains(&seed) {
                actions.push(report(Report::OlderSeed(seed)));
            }
            record.list_seed(seed);
        }
        self.remember(record.clone());
        self.phase = Phase::Preparing;
        actions.push(Action::Prepare(Box::new(record)));
        actions
    }

    /// From here on the report counts as heard, whatever becomes of the request.
    fn note_rejection(&self, now: Timestamp, record: &mut Record) {
        let stored = record.access_token.as_ref().map(|token| token.value.fingerprint());
        let known = record.rejection.as_ref().map(|rejection| rejection.token);
        if let Some(token) =
            self.trigger.rejected.filter(|token| Some(*token) == stored && Some(*token) != known)
        {
            record.rejection = Some(Rejection { token, at: now, answered: false });
        }
    }

    fn no_refresh_token(&mut self, now: Timestamp) -> Vec<Action> {
        let problem = Problem {
            class: Class::Config,
            kind: "no_refresh_token".into(),
            message: format!("account {} has no refresh token", self.policy.account),
            hint: Some(self.policy.login_hint.clone()),
        };
        self.leave(now, Outcome::Failed(problem))
    }

    pub(super) fn prepared(&mut self, now: Timestamp) -> Vec<Action> {
        let Some(mut record) = self.record().cloned() else { return self.no_refresh_token(now) };
        if self.stopping {
            record.in_flight = None;
            self.remember(record);
            return self.persist(Outcome::Stopped);
        }
        let (Some(token), Some(inputs)) = (record.refresh_token, &self.inputs) else {
            return self.no_refresh_token(now);
        };
        let (client, grant) = (Arc::clone(&inputs.client), Grant::RefreshToken(token.value));
        self.phase = Phase::Requesting { issued_at: now };
        vec![Action::Request(Box::new(TokenRequest { client, grant }))]
    }

    /// `wait` is how long nothing is due: of a token that nothing else is known of, all there is to say.
    fn fresh(&self, now: Timestamp, wait: Duration) -> Outcome {
        let token = self.record().and_then(|record| record.access_token.as_ref());
        let left = |token: &AccessToken| Duration::from_millis(token.remaining(now).max(0).cast_unsigned());
        Outcome::Fresh { remaining: token.map_or(wait, left) }
    }
}

fn held(wait: Duration, failure: &Failure) -> Outcome {
    let problem = Problem {
        class: Class::Unavailable,
        kind: failure.kind.clone(),
        message: failure.message.clone(),
        hint: failure.hint.clone(),
    };
    Outcome::Held { wait, problem }
}
