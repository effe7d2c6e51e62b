//! A pass, step by step. Each `on_` function takes the event that answers the action before it.
//! Where nothing is due or something fails, a pass continues with step 8 under the lock, and ends
//! without it.
//!
//! 1. Loading: `on_loaded` decides without the lock, which is enough if nothing is due.
//! 2. ReadingInputs: `on_inputs_read` keeps secrets and endpoint, and decides again with them.
//! 3. Locking: `on_locked` decides again on the state under the lock; `on_lock_busy` waits for it.
//!    A marker that is found under the lock belongs to a process that died.
//! 4. TakingOver: `on_taken_over` adopts a new login, with its state if another account had it.
//! 5. Preparing: room and marker are on disk; `on_prepared` sends the request.
//! 6. Requesting: `on_answered` in response.rs changes the record. After invalid_grant,
//!    Rechecking: `on_rechecked` loads the state once more, since it may hold a newer token.
//! 7. Persisting: the record is on disk, or `on_persist_failed` in finish.rs waits to try again.
//! 8. Publishing, Withdrawing: `leave` in finish.rs replaces or removes the token file.
//! 9. Unlocking: `rest` in finish.rs reports the outcome and sets the next wake-up.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::oauth::{Grant, TokenRequest};
use crate::problem::{Class, Problem};
use crate::refresh::decide;
use crate::refresh::decide::{Decision, FileView, Inputs, Loaded, Origin, Reason, Trigger};
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::record::{Failure, InFlight, Record, Rejection, STATE_KEY, STATE_KEY_UNREAD};
use crate::refresh::{
    Action, INPUTS_FRESH, LOCK_POLL_FIRST, LOCK_POLL_MAX, Phase, Refresher, Then, report, report_first,
    schedule, view,
};
use crate::secret::Secret;

impl Refresher {
    /// The decision, and the report of it.
    pub(super) fn decide(&self, now: Timestamp) -> (Decision, Action) {
        let nothing = Loaded { record: None, garbage: None, file: FileView::Missing };
        let loaded = self.loaded.as_deref().unwrap_or(&nothing);
        let (inputs, trigger) = (self.inputs.as_deref(), self.permitted_trigger(now));
        let decision = decide::decide(loaded, &self.policy, inputs, trigger, now);
        let facts = view::facts(loaded, &self.policy, inputs, now);
        let decided = Report::Decided { decision: decision.clone(), trigger, facts };
        (decision, report(decided))
    }

    /// The trigger, without force after too many forced refreshes.
    fn permitted_trigger(&self, now: Timestamp) -> Trigger {
        match self.wait_forced(now) {
            Some(_) => Trigger { force: false, anew: false, ..self.trigger },
            None => self.trigger,
        }
    }

    /// How long a forced refresh must wait; `None` if it may be made now, or the trigger does not force.
    fn wait_forced(&self, now: Timestamp) -> Option<Duration> {
        let forced = self.record()?.forced.as_ref().filter(|_| self.trigger.force)?;
        schedule::wait_forced(forced, now)
    }

    pub(super) fn on_loaded(&mut self, now: Timestamp, loaded: Box<Loaded>) -> Vec<Action> {
        self.loaded = Some(loaded);
        let (decision, decided) = self.decide(now);
        let mut actions = vec![decided];
        actions.extend(self.wait_forced(now).map(|wait| report(Report::ForcedTooOften { wait })));
        // A machine that only reads the row needs no input.
        let unread = self.inputs.is_none() && self.inputs_problem.is_none() && !self.only_reads();
        let wants_row = self.wants_row(&decision);
        actions.extend(match decision {
            _ if self.stopping => self.rest(now, Outcome::Stopped),
            _ if (self.trigger.reread || wants_row) && unread => self.read_inputs(),
            _ if wants_row => self.lock(),
            Decision::Rest(_)
                if self.trigger.reread
                    && let Some(problem) = self.inputs_problem.take() =>
            {
                self.give_up(now, *problem)
            }
            Decision::Rest(wait) => {
                let garbage = self.loaded.as_ref().and_then(|loaded| loaded.garbage.clone());
                let warning = garbage.map(|why| report(Report::NotUnderstood { why, wait }));
                warning.into_iter().chain(self.rest(now, self.fresh(now, wait))).collect()
            }
            Decision::Hold { .. } | Decision::Refused(_)
                if self.unpublished(now).is_some() || self.expired(now).is_some() || self.found_marker() =>
            {
                self.lock()
            }
            Decision::Hold { wait, failure, .. } => self.rest(now, hold(wait, &failure)),
            Decision::Refused(verdict) => self.rest(now, Outcome::Refused(verdict)),
            Decision::Lost(origin) => {
                let problem = self.lost(origin);
                self.give_up(now, problem)
            }
            Decision::Refresh(_) if unread => self.read_inputs(),
            Decision::Refresh(_) | Decision::Republish => self.lock(),
        });
        actions
    }

    fn lock(&mut self) -> Vec<Action> {
        self.phase = Phase::Locking;
        vec![Action::Lock]
    }

    fn read_inputs(&mut self) -> Vec<Action> {
        self.phase = Phase::ReadingInputs;
        vec![Action::ReadInputs]
    }

    pub(super) fn on_inputs_read(&mut self, now: Timestamp, inputs: Result<Inputs, Problem>) -> Vec<Action> {
        let mut actions = Vec::new();
        match inputs {
            Ok(mut inputs) => {
                let seedless = self.record().is_none_or(|record| record.refresh_token.is_none());
                match inputs.seed_problem.take() {
                    Some(problem) if seedless => self.inputs_problem = Some(Box::new(problem)),
                    Some(problem) => actions.push(report(Report::SeedUnreadable(problem))),
                    None => {}
                }
                self.inputs = Some(Box::new(inputs));
            }
            Err(problem) => {
                let held = self.hold_without_inputs(now).filter(|_| self.policy.fleet.is_none());
                if let Some(outcome) = held {
                    return self.rest(now, outcome);
                }
                self.inputs_problem = Some(Box::new(problem));
            }
        }
        actions.extend(match self.loaded.take() {
            Some(loaded) => self.on_loaded(now, loaded),
            None => self.load(),
        });
        actions
    }

    /// A change of the inputs would end a wait. Without them, assume that there is none.
    pub(super) fn hold_without_inputs(&self, now: Timestamp) -> Option<Outcome> {
        let failure = self.record()?.failure.as_ref()?;
        // Nothing was sent, and what cannot be read now is news.
        let is_of_key = matches!(failure.kind.as_str(), STATE_KEY | STATE_KEY_UNREAD);
        if failure.from_inputs && (is_of_key || !self.policy.grant_type.has_login()) {
            return None;
        }
        let wait = schedule::wait_after(failure, now)?;
        Some(hold(wait, failure))
    }

    pub(super) fn on_lock_busy(&mut self, now: Timestamp) -> Vec<Action> {
        if self.stopping {
            return self.rest(now, Outcome::Stopped);
        }
        let (since, tries) = self.lock_busy.as_deref().copied().unwrap_or((now, 0));
        if now.since(since) >= self.policy.lock_patience {
            let message = format!(
                "another process has held the lock of account {} for {} s",
                self.policy.account,
                self.policy.lock_patience.as_secs()
            );
            let problem = Problem::of(Class::Busy, "lock_timeout", message)
                .hint("find it with `zg-tokend status`, and stop it if it hangs");
            return self.give_up(now, problem);
        }
        self.lock_busy = Some(Box::new((since, tries + 1)));
        self.phase = Phase::LockBusy;
        let poll = LOCK_POLL_FIRST.saturating_mul(1 << tries.min(16)).min(LOCK_POLL_MAX);
        self.wake_at = Some(now.plus(poll));
        Vec::new()
    }

    /// Under the lock nobody else can change the state, so this decision counts.
    pub(super) fn on_locked(&mut self, now: Timestamp, loaded: Box<Loaded>) -> Vec<Action> {
        if self.lock_busy.take().is_some_and(|busy| now.since(busy.0) > INPUTS_FRESH) {
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
        actions.extend(match self.read_row(found_marker) {
            Some(asking) => asking,
            None => self.decide_loaded(now, found_marker),
        });
        actions
    }

    /// With the row of the fleet.
    pub(super) fn decide_locked(&mut self, now: Timestamp) -> Vec<Action> {
        self.decide_loaded(now, false)
    }

    fn decide_loaded(&mut self, now: Timestamp, found_marker: bool) -> Vec<Action> {
        let (decision, decided) = self.decide(now);
        let mut actions = vec![decided];
        let outcome = match decision {
            Decision::Rest(wait) => self.fresh(now, wait),
            Decision::Republish => Outcome::Republished,
            Decision::Hold { wait, failure, .. } => hold(wait, &failure),
            Decision::Refused(verdict) => Outcome::Refused(verdict),
            Decision::Lost(origin) => {
                let problem = self.lost(origin);
                actions.extend(self.leave_failed(now, problem));
                return actions;
            }
            Decision::Refresh(reason) => {
                let token = self.record().and_then(|record| record.access_token.as_ref());
                if let (Reason::ClockSetBack, Some(token)) = (reason, token) {
                    actions.push(report(Report::ClockSetBack { issued_at: token.issued_at }));
                }
                actions.extend(self.refresh(now));
                return actions;
            }
        };
        actions.extend(if found_marker { self.persist(outcome) } else { self.store(now, outcome) });
        actions
    }

    fn lost(&self, origin: Origin) -> Problem {
        let Origin { generation, .. } = origin;
        let file = format!("the token file has token {generation} of this login");
        let what = match self.record() {
            None => format!("the state is missing: {file}"),
            // Each account of a login counts its own tokens.
            Some(record) if record.generation >= generation => {
                "the state was restored from an earlier time: the token file of another account of this login is newer"
                    .to_owned()
            }
            Some(record) => {
                format!("the state was restored from an earlier time, of token {}: {file}", record.generation)
            }
        };
        let message = format!("{what}, so no request is sent");
        Problem::of(Class::Io, "state_lost", message)
            .cause("the refresh token at hand was replaced since, and the server may end the login for it")
            .hint("mount or restore state_dir, or log in again; `zg-tokend once --force` tries the old refresh token")
    }

    /// Without the lock, the writer of the marker may be dead or at work: the lock shows which.
    fn found_marker(&self) -> bool {
        self.record().is_some_and(|record| record.in_flight.is_some())
    }

    /// The writer of a marker under the lock is dead, and the server may have granted its request.
    fn resolve_marker(&mut self, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        let Some(record) = self.loaded.as_ref().and_then(|loaded| loaded.record.clone()) else {
            return false;
        };
        let Some(marker) = record.in_flight.clone() else { return false };
        actions.push(report(Report::FoundMarker { at: marker.at }));
        let problem =
            Problem::of(Class::Unavailable, "interrupted", "a process died while its request was under way");
        self.unclear(now, record, &problem, None, marker.at);
        true
    }

    fn refresh(&mut self, now: Timestamp) -> Vec<Action> {
        if self.only_reads() {
            return self.wait_for_others(now);
        }
        if let Some(problem) = self.inputs_problem.take() {
            return self.note_inputs_problem(now, *problem);
        }
        let Some(inputs) = &self.inputs else {
            // Nothing was due before the lock was taken, or the wait for it was long: begin again
            // with the inputs.
            return self.unlock(Then::Again);
        };
        match (decide::new_seed(self.record(), &self.policy, Some(inputs)), &self.policy.fleet) {
            (Some(seed), _) => {
                self.phase = Phase::TakingOver;
                vec![Action::TakeOver(seed)]
            }
            (None, Some(_)) => self.claim(now),
            (None, None) => self.prepare(now),
        }
    }

    /// A secret or endpoint that cannot be read counts like an endpoint that is down.
    pub(super) fn note_inputs_problem(&mut self, now: Timestamp, problem: Problem) -> Vec<Action> {
        let record = self.record().cloned().unwrap_or_else(|| self.policy.new_record());
        if let Some(outcome) = self.hold_without_inputs(now) {
            // Another process has recorded this failure, or another one, meanwhile.
            return self.leave(now, outcome);
        }
        self.failed(now, record, &problem, None, None, now).from_inputs = true;
        self.persist(Outcome::Failed(problem.into()))
    }

    pub(super) fn on_taken_over(&mut self, now: Timestamp, other: Option<Box<Record>>) -> Vec<Action> {
        let mut record = self.record().cloned().unwrap_or_else(|| self.policy.new_record());
        if let Some(other) = other {
            let took_over = Report::TookOver { account: other.account.clone() };
            record.take_over(*other);
            self.remember(record);
            return report_first(took_over, self.persist(Then::Again));
        }
        let Some(seed) = self.inputs.as_ref().and_then(|inputs| inputs.seed.clone()) else {
            return self.unlock(Then::Again);
        };
        let took_seed = Report::TookSeed(seed.fingerprint());
        record.take_seed(seed, now);
        self.remember(record);
        if self.policy.fleet.is_some() {
            // First the login goes into the row.
            return report_first(took_seed, self.persist(Then::Again));
        }
        report_first(took_seed, self.prepare(now))
    }

    pub(super) fn prepare(&mut self, now: Timestamp) -> Vec<Action> {
        let mut record = self.record().cloned().unwrap_or_else(|| self.policy.new_record());
        // A request that cannot lose anything needs no marker.
        if self.policy.grant_type.has_login() {
            let Some(token) = &record.refresh_token else { return self.no_refresh_token(now) };
            record.in_flight = Some(InFlight { refresh_token: token.value.fingerprint(), at: now });
        }
        record.config = self.policy.config.to_string();
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

    /// One refresh serves one rejection, whatever comes of the request.
    fn note_rejection(&self, now: Timestamp, record: &mut Record) {
        let stored = record.access_token.as_ref().map(|token| token.value.fingerprint());
        let noted = record.rejection.as_ref().map(|rejection| rejection.token);
        if let Some(token) =
            self.trigger.rejected.filter(|token| Some(*token) == stored && Some(*token) != noted)
        {
            record.rejection = Some(Rejection { token, at: now, answered: false });
        }
    }

    pub(super) fn no_refresh_token(&mut self, now: Timestamp) -> Vec<Action> {
        let problem = Problem::of(Class::NeedsLogin, "no_refresh_token", "there is no refresh token")
            .hint(self.policy.login_hint());
        self.store(now, Outcome::Failed(problem.into()))
    }

    pub(super) fn on_prepared(&mut self, now: Timestamp) -> Vec<Action> {
        let Some(mut record) = self.record().cloned() else { return self.no_refresh_token(now) };
        if self.stopping || self.is_claim_old(now) {
            record.in_flight = None;
            self.remember(record);
            return self.persist(if self.stopping { Outcome::Stopped.into() } else { Then::Again });
        }
        let Some(inputs) = &self.inputs else { return self.no_refresh_token(now) };
        let grant = match &record.refresh_token {
            _ if !self.policy.grant_type.has_login() => inputs.grant.clone(),
            None => None,
            Some(token) => match token.value.open() {
                Some(value) => Some(Grant::RefreshToken(value.clone())),
                // Under the lock it is open: else the state could not be loaded.
                None => return self.leave_failed(now, Problem::bug("the refresh token is sealed")),
            },
        };
        let Some(grant) = grant else { return self.no_refresh_token(now) };
        let client = Arc::clone(&inputs.client);
        self.phase = Phase::Requesting { issued_at: now };
        vec![Action::Request(Box::new(TokenRequest { client, grant }))]
    }

    /// `wait`, until the next refresh is due, is all that is known of a token without a state.
    pub(super) fn fresh(&self, now: Timestamp, wait: Duration) -> Outcome {
        let token = self.record().and_then(|record| record.access_token.as_ref());
        Outcome::Fresh {
            generation: self.record().map_or(0, |record| record.generation),
            remaining: token.map_or(wait, |token| token.life_left(now)),
        }
    }
}

fn hold(wait: Duration, failure: &Failure) -> Outcome {
    let problem = Problem {
        class: failure.class(),
        kind: failure.kind.clone(),
        message: failure.message.clone(),
        cause: failure.cause.clone(),
        hint: failure.hint.clone(),
    };
    Outcome::Held { wait, problem: problem.into() }
}
