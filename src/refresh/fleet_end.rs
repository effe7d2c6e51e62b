//! The end of a request of an account whose login is shared by several machines: its reply, its refusal, and
//! the end of its claim.

use crate::clock::Timestamp;
use crate::oauth::Answer;
use crate::problem::Problem;
use crate::refresh::fleet::{self, Ask, FLEET, Fence, RowReply, RowResult, RowStep};
use crate::refresh::outcome::Report;
use crate::refresh::record::Record;
use crate::refresh::replica::{Role, UnclearClaim};
use crate::refresh::{Action, Asked, Refresher, Then, report_first};

impl Refresher {
    /// Nothing was sent: the claim ends without a result.
    pub(super) fn drop_marker(&mut self) {
        if let (Some(mut record), Some(_)) = (self.record().cloned(), self.role()) {
            record.in_flight = None;
            self.remember(record);
        }
    }

    /// A reply makes the next epoch, which the row does not have yet. `always`: also if the refresh token
    /// stays the same.
    pub(super) fn note_reply(&self, record: &mut Record, always: bool) {
        let held = record.refresh_token.as_ref().map(|token| token.value.fingerprint());
        let Some(replica) = record.replica.as_deref_mut().filter(|_| self.policy.fleet.is_some()) else {
            return;
        };
        if !always && held == replica.held {
            return;
        }
        replica.undelivered = replica.held;
        replica.held = held;
        replica.epoch += 1;
        replica.issued_at = replica.claim.as_ref().map_or(replica.issued_at, |claim| claim.claimed_at);
    }

    /// After invalid_grant: another machine may have replaced the refresh token.
    pub(super) fn ask_about_refusal(
        &mut self,
        issued_at: Timestamp,
        refusal: &Answer,
    ) -> Option<Vec<Action>> {
        self.role()?;
        let refusal = Box::new(refusal.clone());
        Some(self.ask(Asked::RefusedRow { issued_at, refusal }, Ask::Read))
    }

    pub(super) fn on_refused_row(
        &mut self,
        now: Timestamp,
        issued_at: Timestamp,
        refusal: &Answer,
        reply: Result<RowReply, Problem>,
    ) -> Vec<Action> {
        let record = self.record().cloned();
        if let (Ok(RowReply::Row(view)), Some(mut record)) = (reply, record)
            && let Some(row) = view.row.as_deref()
            && fleet::after_read(&record, &view, now, "") == RowStep::Adopt
        {
            let host = record.replica.as_ref().map_or_else(String::new, |replica| replica.host.clone());
            record.adopt(row, &view, now, &host);
            self.remember(record);
            self.round().view = Some(view);
            return report_first(Report::Adopted, self.persist(Then::Again));
        }
        self.refuse(now, issued_at, refusal)
    }

    /// The attempt of another machine that this request came after, if that explains a refusal.
    pub(super) fn spent_by(&self) -> Option<&UnclearClaim> {
        self.replica()?.claim.as_ref()?.after.as_ref()
    }

    /// The last question before the lock is released: a reply that the row does not have, or the end of a
    /// claim.
    pub(super) fn close_row(&mut self) -> Option<Ask> {
        if self.role() != Some(Role::Refresh) {
            return None;
        }
        let record = self.record()?;
        let (replica, row) = (record.replica.as_deref()?, self.row()?);
        if let Some(spent) = replica.undelivered {
            if self.round.as_ref().is_some_and(|round| round.offered) {
                return None;
            }
            let fence = Fence { login: replica.login.clone(), epoch: replica.epoch - 1, held: Some(spent) };
            let ask = Ask::Store { fence, content: fleet::content(record, replica) };
            self.round().offered = true;
            return Some(ask);
        }
        let nonce = row.attempt.as_ref().filter(|attempt| replica.is_current(attempt))?.nonce.clone();
        let token = record.refresh_token.as_ref()?;
        // An attempt whose outcome nobody knows stays in the row, unless the server has refused the token since.
        let is_unclear = record.in_flight.is_some() || token.unclear_sends > 0;
        if is_unclear && record.verdict.is_none() {
            return None;
        }
        let failure = record.failure.clone().filter(|failure| failure.kind != FLEET);
        let result = RowResult { verdict: record.verdict.clone(), failure };
        let fence = Fence {
            login: replica.login.clone(),
            epoch: replica.epoch,
            held: Some(token.value.fingerprint()),
        };
        if let Some(row) = self.round().view.as_mut().and_then(|view| view.row.as_mut()) {
            row.attempt = None;
        }
        Some(Ask::Conclude { fence, nonce: Some(nonce), result: Box::new(result) })
    }

    pub(super) fn ask_to_close(&mut self, ask: Ask, then: Then) -> Vec<Action> {
        self.ask(Asked::Close { then }, ask)
    }

    pub(super) fn on_closed(
        &mut self,
        now: Timestamp,
        then: Then,
        reply: Result<RowReply, Problem>,
    ) -> Vec<Action> {
        let undelivered = self.replica().is_some_and(|replica| replica.undelivered.is_some());
        match reply {
            Ok(RowReply::Done { .. }) if undelivered => {
                if let Some(mut record) = self.record().cloned() {
                    if let Some(replica) = &mut record.replica {
                        replica.undelivered = None;
                    }
                    self.remember(record);
                }
                if let Some(row) = self.round().view.as_mut().and_then(|view| view.row.as_mut()) {
                    row.attempt = None;
                }
                self.persist(then)
            }
            Err(problem) if undelivered => {
                self.note_local_problem(now);
                report_first(Report::Undeliverable(problem), self.unlock(then))
            }
            // The row tells, in the next pass.
            Ok(RowReply::Missed | RowReply::Unknown { .. }) => {
                self.note_local_problem(now);
                self.unlock(then)
            }
            _ => self.unlock(then),
        }
    }
}
