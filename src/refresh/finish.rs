//! The end of a pass: store the record, replace the token file, release the lock, and set the next
//! wake-up.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::problem::Problem;
use crate::refresh::decide;
use crate::refresh::decide::{Decision, FileView, Loaded};
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::record::{AccessToken, Record};
use crate::refresh::{
    Action, PERSIST_PATIENCE, Persisting, Phase, Refresher, Then, report, report_first, schedule,
};

impl Refresher {
    pub(super) fn remember(&mut self, record: Record) -> &mut Record {
        let nothing = || Box::new(Loaded { record: None, garbage: None, file: FileView::Missing });
        self.loaded.get_or_insert_with(nothing).record.insert(record)
    }

    pub(super) fn persist(&mut self, then: impl Into<Then>) -> Vec<Action> {
        self.persist_again(Persisting { has_answer: false, then: then.into(), failures: None })
    }

    /// The trigger is served. The answer must not be lost.
    pub(super) fn persist_answer(&mut self, then: impl Into<Then>) -> Vec<Action> {
        self.trigger = decide::Trigger::default();
        self.persist_again(Persisting { has_answer: true, then: then.into(), failures: None })
    }

    pub(super) fn persist_again(&mut self, persisting: Persisting) -> Vec<Action> {
        let Some(record) = self.record().cloned() else { return self.unlock(persisting.then) };
        self.phase = Phase::Persisting(persisting);
        self.wake_at = None;
        vec![Action::Persist(Box::new(record))]
    }

    /// The marker could be stored, the state cannot. An answer that is only in memory is not given
    /// up: the lock is kept, so that nobody sends a token that was replaced or refused.
    pub(super) fn on_persist_failed(
        &mut self,
        now: Timestamp,
        mut persisting: Persisting,
        problem: Problem,
    ) -> Vec<Action> {
        if !persisting.has_answer {
            // At once, the next pass would fail as well: it comes after the wait.
            self.again = false;
            return self.leave_failed(now, problem);
        }
        let (since, tries) = persisting.failures.as_deref().copied().unwrap_or((now, 0));
        let mut wait = schedule::backoff(tries.saturating_add(1), Duration::ZERO, 0);
        if self.stopping || !self.policy.patient {
            let left = PERSIST_PATIENCE.saturating_sub(now.since(since));
            if left.is_zero() {
                self.note_local_problem(now);
                return self.unlock(Outcome::NotStored(problem.into()));
            }
            wait = wait.min(left);
        }
        persisting.failures = Some(Box::new((since, tries.saturating_add(1))));
        self.wake_at = Some(now.plus(wait));
        self.phase = Phase::PersistFailed(persisting);
        let mut actions = vec![report(Report::NotYetStored(problem))];
        if tries == 0 {
            actions.extend(self.unpublished(now).map(Action::Publish));
        }
        actions
    }

    pub(super) fn unpublished(&self, now: Timestamp) -> Option<Box<AccessToken>> {
        let loaded = self.loaded.as_ref()?;
        decide::unpublished(loaded, &self.policy, now).cloned().map(Box::new)
    }

    pub(super) fn note_file(&mut self, file: FileView) {
        if let Some(loaded) = &mut self.loaded {
            loaded.file = file;
        }
    }

    /// Ends a pass that holds the lock: brings the token file up to date and releases the lock.
    pub(super) fn leave(&mut self, now: Timestamp, then: impl Into<Then>) -> Vec<Action> {
        let then = then.into();
        if let Some(token) = self.unpublished(now) {
            self.phase = Phase::Publishing { then };
            vec![Action::Publish(token)]
        } else if let Some(token) = self.expired(now) {
            self.phase = Phase::Withdrawing { then };
            vec![Action::Withdraw(token)]
        } else {
            self.unlock(then)
        }
    }

    /// The token file holds the token. An output that failed is tried again after the wait for problems
    /// of this machine, and reported once.
    pub(super) fn on_published(&mut self, now: Timestamp, then: Then, failed: Vec<Problem>) -> Vec<Action> {
        let before = self.loaded.as_ref().map(|loaded| loaded.file);
        if failed.is_empty() {
            self.failed_outputs.clear();
            self.note_file(FileView::Current);
            return self.unlock(then);
        }
        self.note_file(FileView::Incomplete);
        self.note_local_problem(now);
        let then = match (then, before) {
            // No file has changed that hooks and logs would have to know of.
            (Then::Finish(outcome), Some(FileView::Incomplete)) if *outcome == Outcome::Republished => {
                Then::Finish(Box::new(self.fresh(now, Duration::ZERO)))
            }
            (then, _) => then,
        };
        let new = failed.iter().filter(|problem| !self.failed_outputs.contains(problem));
        let mut actions: Vec<_> = new.map(|problem| report(Report::OutputFailed(problem.clone()))).collect();
        self.failed_outputs = failed;
        actions.extend(self.unlock(then));
        actions
    }

    pub(super) fn expired(&self, now: Timestamp) -> Option<Box<AccessToken>> {
        let loaded = self.loaded.as_ref()?;
        decide::expired(loaded, &self.policy, now).cloned().map(Box::new)
    }

    /// A failed removal is repeated with the backoff for problems of this machine.
    pub(super) fn on_withdrawn(
        &mut self,
        now: Timestamp,
        then: Then,
        withdrawn: Result<(), Problem>,
    ) -> Vec<Action> {
        let result = match withdrawn {
            Ok(()) => {
                self.note_file(FileView::Missing);
                Report::Withdrawn
            }
            Err(problem) => {
                self.note_local_problem(now);
                Report::NotWithdrawn(problem)
            }
        };
        report_first(result, self.unlock(then))
    }

    /// When the token in the token file expires, if it must be removed then.
    fn expires_at(&self, now: Timestamp) -> Option<Timestamp> {
        let loaded = self.loaded.as_ref().filter(|loaded| loaded.file.has_token())?;
        let left = loaded.record.as_ref()?.access_token.as_ref()?.life_left(now);
        (self.policy.remove_expired && !left.is_zero()).then(|| now.plus(left))
    }

    pub(super) fn unlock(&mut self, then: impl Into<Then>) -> Vec<Action> {
        let then = then.into();
        if let Some(ask) = self.close_row() {
            return self.ask_to_close(ask, then);
        }
        self.phase = Phase::Unlocking { then };
        self.wake_at = None;
        vec![Action::Unlock]
    }

    /// Ends a pass that holds the lock: a problem of this machine came before the request.
    pub(super) fn leave_failed(&mut self, now: Timestamp, problem: Problem) -> Vec<Action> {
        self.note_local_problem(now);
        self.leave(now, Outcome::Failed(problem.into()))
    }

    /// The same without the lock.
    pub(super) fn give_up(&mut self, now: Timestamp, problem: Problem) -> Vec<Action> {
        self.note_local_problem(now);
        self.rest(now, Outcome::Failed(problem.into()))
    }

    /// Counts a problem that cannot be counted on disk, and sets the wait after it.
    pub(super) fn note_local_problem(&mut self, now: Timestamp) {
        let (since, count) = self.local_problems.as_deref().copied().unwrap_or((now, 0));
        let count = count.saturating_add(1);
        self.local_problems = Some(Box::new((since, count)));
        let wait = schedule::backoff(count, Duration::ZERO, self.next_random());
        self.local_wait = Some(Box::new(now.plus(wait)));
    }

    /// Ends a pass, reports its outcome, and sets the next wake-up or begins the next pass.
    pub(super) fn rest(&mut self, now: Timestamp, then: impl Into<Then>) -> Vec<Action> {
        self.phase = Phase::Idle;
        self.lock_busy = None;
        if self.local_wait.is_none() {
            self.local_problems = None;
        }
        let outcome = match then.into() {
            Then::Finish(outcome) => Some(*outcome),
            Then::Again if self.stopping => Some(Outcome::Stopped),
            Then::Again => None,
        };
        let again = (self.again || outcome.is_none()) && !self.stopping;
        // A wait or a problem leaves the trigger unserved; any other outcome serves it.
        if !self.again && !matches!(outcome, None | Some(Outcome::Held { .. } | Outcome::Failed(_))) {
            self.trigger = decide::Trigger::default();
        }
        let mut actions = Vec::from_iter(outcome.map(|outcome| report(Report::Finished(outcome))));
        if again {
            actions.extend(self.load());
        } else if !self.stopping {
            let expires_at = self.expires_at(now);
            self.wake_at = [self.next_pass(now), expires_at].into_iter().flatten().min_by_key(|at| at.boot);
        }
        actions
    }

    fn next_pass(&mut self, now: Timestamp) -> Option<Timestamp> {
        if let Some(at) = self.local_wait.take() {
            return Some(*at);
        }
        if let Some((at, _)) = self.row_wait.as_deref() {
            return Some(*at);
        }
        let (decision, _) = self.decide(now);
        let has_refresh_token = !self.policy.grant_type.has_login()
            || self.only_reads()
            || self.record().is_some_and(|record| record.refresh_token.is_some())
            || self.inputs.as_ref().is_some_and(|inputs| inputs.seed.is_some());
        let wait = match decision {
            Decision::Rest(wait) | Decision::Hold { wait, .. } => Some(wait),
            // Only a pass shows it, and sets the wait.
            Decision::Lost(_) => None,
            Decision::Refused(verdict) => {
                // The wait of the verdict may end, or a secret may change.
                return [schedule::wait_of(&verdict, now), self.policy.reread_secrets]
                    .into_iter()
                    .flatten()
                    .min()
                    .map(|wait| now.plus(wait));
            }
            Decision::Refresh(_) if !has_refresh_token => {
                return self.policy.reread_secrets.map(|every| now.plus(every));
            }
            Decision::Refresh(_) | Decision::Republish => {
                let failure = self.record().and_then(|record| record.failure.as_ref());
                failure.and_then(|failure| schedule::wait_after(failure, now))
            }
        };
        Some(now.plus(wait.unwrap_or_default()))
    }
}
