//! A pass of an account whose login is shared by several machines, by the rules of fleet.rs.
//!
//! Under the lock, before anything is decided, the row is read: this disk continues with it, or brings it up
//! to date. A claim comes before the marker of a request. A reply goes to this disk and into the token file
//! first, and into the row before the lock is released. Without the database nothing is sent.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::problem::Problem;
use crate::refresh::decide::{self, Decision, FileView};
use crate::refresh::fleet::{
    self, Ask, CLAIM_FRESH, CLAIM_LIFE, FLEET, Fence, FleetReport, Gate, LOOK, LoginRow, RowAttempt,
    RowReply, RowResult, RowStep, RowView,
};
use crate::refresh::fleet_words::{foreign, problem, stale, waiting};
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::record::{Record, VerdictKind};
use crate::refresh::replica::{Claim, Replica, Role};
use crate::refresh::{Action, Asked, Phase, Refresher, Round, Then, report, report_first};
use crate::secret::Fingerprint;

/// How often a row that changes under the questions is read again within one pass.
const REREADS: u32 = 4;

/// How often `once`, which no notification reaches, looks whether another machine has refreshed.
const SOON: Duration = Duration::from_secs(1);

impl Refresher {
    pub(super) fn role(&self) -> Option<Role> {
        self.policy.fleet.as_ref().map(|fleet| fleet.role)
    }

    pub(super) fn only_reads(&self) -> bool {
        self.role() == Some(Role::Read)
    }

    pub(super) fn round(&mut self) -> &mut Round {
        self.round.get_or_insert_default()
    }

    fn is_dirty(&self) -> bool {
        self.round.as_ref().is_some_and(|round| round.dirty)
    }

    pub(super) fn row(&self) -> Option<&LoginRow> {
        self.round.as_ref()?.view.as_ref()?.row.as_deref()
    }

    pub(super) fn replica(&self) -> Option<&Replica> {
        self.record()?.replica.as_deref()
    }

    /// Whether the row must be read: if something is due, is on this disk alone, or has changed elsewhere.
    pub(super) fn wants_row(&self, decision: &Decision) -> bool {
        let Some(role) = self.role() else { return false };
        let has_news = || {
            let Some(record) = self.record() else { return true };
            let Some(replica) = record.replica.as_deref() else { return true };
            let own = record.refresh_token.as_ref().map(|token| token.value.fingerprint());
            role == Role::Refresh && (replica.undelivered.is_some() || replica.held != own)
        };
        !matches!(decision, Decision::Rest(_) | Decision::Republish) || self.trigger.row || has_news()
    }

    /// The first question of a pass under the lock; `None` without a fleet, and if it was put already.
    pub(super) fn read_row(&mut self, found_marker: bool) -> Option<Vec<Action>> {
        let can_ask = self.only_reads() || self.inputs.is_some() || self.inputs_problem.is_some();
        if self.role().is_none() || !can_ask || self.round().view.is_some() {
            return None;
        }
        self.round().dirty |= found_marker;
        Some(self.ask(Asked::Row, Ask::Read))
    }

    pub(super) fn ask(&mut self, asked: Asked, ask: Ask) -> Vec<Action> {
        self.phase = Phase::Asking(asked);
        vec![Action::Ask(Box::new(ask))]
    }

    pub(super) fn on_reply(
        &mut self,
        now: Timestamp,
        asked: Asked,
        reply: Result<RowReply, Problem>,
    ) -> Vec<Action> {
        match (asked, reply) {
            (Asked::Close { then }, reply) => self.on_closed(now, then, reply),
            (Asked::RefusedRow { issued_at, refusal }, reply) => {
                self.on_refused_row(now, issued_at, &refusal, reply)
            }
            (_, Err(problem)) => self.without_database(now, problem),
            (Asked::ClaimedRow(claim), Ok(RowReply::Row(view))) => {
                let attempt = view.row.as_ref().and_then(|row| row.attempt.clone());
                let ours = attempt.filter(|attempt| attempt.nonce == claim.nonce);
                match ours {
                    Some(attempt) => self.won(now, *claim, attempt.claimed_at),
                    // A database that keeps no claim is not asked without end, under the lock.
                    None if self.round().rereads >= REREADS => {
                        let message = "the database does not keep the claim of a refresh";
                        self.look_later(now, LOOK, problem("fleet_unclaimed", message.into(), None))
                    }
                    None => {
                        self.round().rereads += 1;
                        self.seen(now, view)
                    }
                }
            }
            (_, Ok(RowReply::Row(view))) => self.seen(now, view),
            (Asked::Write(ask), Ok(RowReply::Done { .. })) => self.written(now, *ask),
            (Asked::Claim(claim), Ok(RowReply::Done { at })) => self.won(now, *claim, at),
            (Asked::Claim(claim), Ok(RowReply::Unknown { .. })) => {
                self.ask(Asked::ClaimedRow(claim), Ask::Read)
            }
            // The row has changed since it was read, or nobody knows whether it has.
            (_, Ok(RowReply::Unknown { why })) => self.read_again(now, Some(why)),
            (_, Ok(RowReply::Missed | RowReply::Done { .. })) => self.read_again(now, None),
        }
    }

    /// `why`: the database has not acknowledged a change.
    fn read_again(&mut self, now: Timestamp, why: Option<String>) -> Vec<Action> {
        self.round().rereads += 1;
        if self.round().rereads <= REREADS {
            return self.ask(Asked::Row, Ask::Read);
        }
        let message = match &why {
            Some(_) => "the database acknowledges no change of the row",
            None => "the row of the account changes again and again in the database",
        };
        let problem = Problem { cause: why, ..problem("fleet_changing", message.into(), None) };
        self.look_later(now, LOOK, problem)
    }

    /// The row as it is now: continue with it, or bring it up to date.
    fn seen(&mut self, now: Timestamp, view: RowView) -> Vec<Action> {
        if fleet::is_stale(self.replica(), &view) && !self.trigger.force {
            let known = self.replica().map_or(0, |replica| replica.timeline);
            let problem = stale(view.timeline, known);
            return self.without_database(now, problem);
        }
        let own = self.inputs.as_ref().map(|inputs| fleet::client_of(&inputs.client));
        let own = own.or_else(|| self.replica().and_then(|replica| replica.client));
        if let Some(row) = view.row.as_ref().filter(|_| !self.only_reads()) {
            if own.is_none() {
                // Nobody knows whether it is the login of this account.
                return self.decide_locked(now);
            }
            if fleet::is_foreign(row, own) {
                let problem = foreign(&self.policy.account);
                return self.without_database(now, problem);
            }
        }
        let new_login = self.uuid();
        let mut step = match (self.role(), self.record()) {
            (Some(Role::Read), record) => fleet::after_reader_read(record, &view, now),
            (_, Some(record)) => fleet::after_read(record, &view, now, &new_login),
            (_, None) if view.row.is_some() => RowStep::Adopt,
            (_, None) => RowStep::Agree,
        };
        let mut record = self.record().cloned();
        let (host, place) = (self.host(), self.place());
        if let Some(replica) = record.as_mut().and_then(|record| record.replica.as_mut())
            && replica.host != host
        {
            // The state was copied from another machine, whose claims are not this one's.
            (replica.host, replica.claim, replica.watched) = (host, None, None);
            self.round().dirty = true;
        }
        if let Some(failure) =
            record.as_mut().and_then(|record| record.failure.take_if(|it| it.kind == FLEET))
        {
            drop(failure);
            self.round().dirty = true;
        }
        if let RowStep::Write(ask) = &mut step
            && let Ask::Store { content, .. } | Ask::Repair { content } | Ask::Found { content, .. } =
                &mut **ask
            && let Some(secret) = &mut content.secret
        {
            secret.client = own;
        }
        let mut actions = Vec::new();
        match &step {
            RowStep::Agree => {
                if let Some(record) = &mut record {
                    self.round().dirty |= self.take_result(record, &view);
                    step = self.lost_refusal(record, &view).unwrap_or(RowStep::Agree);
                }
            }
            RowStep::Adopt => {
                if let Some(row) = &view.row {
                    let mut adopted = record.take().unwrap_or_else(|| self.policy.new_record());
                    let token_before = adopted.access_token.as_ref().map(|token| token.value.clone());
                    let earlier = adopted.replica.as_ref();
                    let dropped = earlier.is_some_and(|replica| replica.undelivered.is_some());
                    let host = self.host();
                    adopted.adopt(row, &view, now, &host);
                    self.take_result(&mut adopted, &view);
                    if adopted.access_token.as_ref().map(|token| &token.value) != token_before.as_ref() {
                        self.note_file(FileView::Other { modified_at: now.wall });
                    }
                    let epoch = row.content.epoch;
                    let received = if dropped {
                        FleetReport::Dropped { epoch }
                    } else {
                        FleetReport::Received { epoch }
                    };
                    actions.push(report(Report::Fleet(received)));
                    self.round().dirty = true;
                    record = Some(adopted);
                }
            }
            RowStep::Delivered => {
                if let Some(replica) = record.as_mut().and_then(|record| record.replica.as_mut()) {
                    replica.undelivered = None;
                    self.round().dirty = true;
                }
            }
            RowStep::Write(_) => {}
        }
        if let Some(replica) = record.as_mut().and_then(|record| record.replica.as_mut()) {
            self.round().dirty |= replica.watch(&view, now) || replica.place != place;
            replica.place = place;
        }
        if let Some(record) = record {
            self.remember(record);
        }
        self.round().view = Some(view);
        actions.extend(match step {
            RowStep::Write(ask) => self.ask(Asked::Write(ask.clone()), *ask),
            _ => self.decide_locked(now),
        });
        actions
    }

    /// A refusal that this machine has met and the row does not have: a failover has lost it.
    fn lost_refusal(&self, record: &Record, view: &RowView) -> Option<RowStep> {
        let row = view.row.as_deref().filter(|_| self.role() == Some(Role::Refresh))?;
        let verdict = record.verdict.as_ref().filter(|_| record.needs_login())?;
        if row.attempt.is_some() || row.result.verdict.is_some() {
            return None;
        }
        let there = &row.content;
        let fence = Fence { login: there.login.clone(), epoch: there.epoch, held: there.held };
        let result = Box::new(RowResult { verdict: Some(verdict.clone()), failure: None });
        Some(RowStep::Write(Box::new(Ask::Conclude { fence, nonce: None, result })))
    }

    /// A refusal or a failure that another machine has met with the same refresh token.
    fn take_result(&self, record: &mut Record, view: &RowView) -> bool {
        let Some(row) = view.row.as_ref() else { return false };
        let before = (record.verdict.clone(), record.failure.clone());
        // A refused client is the matter of the machine whose client it is.
        let verdict = row.result.verdict.as_ref().filter(|it| it.kind == VerdictKind::RefreshToken);
        if let (None, Some(verdict)) = (&record.verdict, verdict) {
            let mut verdict = verdict.clone();
            let token = record.refresh_token.as_ref().and_then(|token| token.value.open());
            if let (VerdictKind::RefreshToken, Some(token), Some(inputs)) =
                (verdict.kind, token, &self.inputs)
            {
                // Nobody sends that token again, whatever else this machine would send with it.
                verdict.binding = decide::binding(token, inputs.evidence.fingerprint);
            }
            record.verdict = Some(verdict);
        }
        if let (None, None, Some(failure)) = (&record.verdict, &record.failure, &row.result.failure) {
            record.failure = Some(failure.clone());
        }
        before != (record.verdict.clone(), record.failure.clone())
    }

    /// The database has what this disk has.
    fn written(&mut self, now: Timestamp, ask: Ask) -> Vec<Action> {
        let (content, done) = match ask {
            Ask::Store { content, .. } => (content, FleetReport::Delivered),
            Ask::Repair { content } => {
                let done = FleetReport::Repaired { epoch: content.epoch };
                (content, done)
            }
            Ask::Found { content, .. } => (content, FleetReport::Founded),
            Ask::Conclude { result, .. } => {
                if let Some(row) = self.round().view.as_mut().and_then(|view| view.row.as_mut()) {
                    row.result = *result;
                }
                return self.decide_locked(now);
            }
            _ => return self.read_again(now, None),
        };
        let host = self.host();
        let view = self.round().view.as_ref();
        let timeline = view.map_or(0, |view| view.timeline);
        let before = view.and_then(|view| view.row.as_ref()).map_or(0, |row| row.timeline);
        let row_timeline = match done {
            FleetReport::Repaired { .. } => before,
            FleetReport::Founded if content.is_copy => 0,
            _ => timeline,
        };
        let mut record = self.record().cloned().unwrap_or_else(|| self.policy.new_record());
        let earlier = record.replica.take().map(|replica| *replica).unwrap_or_default();
        record.replica = Some(Box::new(Replica {
            host,
            place: self.place(),
            login: content.login.clone(),
            login_at: content.secret.as_ref().map_or(0, |secret| secret.login_at),
            client: content.secret.as_ref().and_then(|secret| secret.client),
            epoch: content.epoch,
            held: content.held,
            issued_at: content.issued_at,
            undelivered: None,
            ..earlier
        }));
        let row = LoginRow {
            content: *content,
            timeline: row_timeline,
            attempt: None,
            result: RowResult::default(),
        };
        if let Some(view) = &mut self.round().view {
            view.row = Some(Box::new(row));
        }
        if let (Some(replica), Some(view)) = (&mut record.replica, self.round().view.clone()) {
            replica.watch(&view, now);
        }
        self.remember(record);
        self.round().dirty = true;
        report_first(Report::Fleet(done), self.decide_locked(now))
    }

    /// The database does not answer: nothing is sent, and what is only on this disk waits.
    fn without_database(&mut self, now: Timestamp, problem: Problem) -> Vec<Action> {
        if let Some(mut record) = self.record().cloned()
            && record.replica.as_mut().is_some_and(|replica| replica.lose_sight())
        {
            self.remember(record);
            self.round().dirty = true;
        }
        let (decision, decided) = self.decide(now);
        let actions = match decision {
            // It was asked just now: what it says counts, not what was wrong before.
            Decision::Refresh(_) | Decision::Hold { .. } if self.hold_without_inputs(now).is_some() => {
                if let Some(mut record) = self.record().cloned()
                    && let Some(failure) = &mut record.failure
                    && (failure.message != problem.message || failure.cause != problem.cause)
                {
                    failure.kind.clone_from(&problem.kind);
                    failure.message.clone_from(&problem.message);
                    failure.cause.clone_from(&problem.cause);
                    failure.hint.clone_from(&problem.hint);
                    self.remember(record);
                    self.round().dirty = true;
                }
                self.store(now, Outcome::Failed(problem.into()))
            }
            Decision::Refresh(_) | Decision::Hold { .. } => {
                let mut actions = self.note_inputs_problem(now, problem);
                // Another try costs the token endpoint nothing.
                for action in &mut actions {
                    if let Action::Persist(record) = action
                        && let Some(failure) = &mut record.failure
                    {
                        failure.not_sent = true;
                    }
                }
                actions
            }
            Decision::Refused(verdict) => self.leave(now, Outcome::Refused(verdict)),
            Decision::Lost(_) => self.leave_failed(now, problem),
            Decision::Rest(wait) => {
                self.note_local_problem(now);
                let outcome = self.fresh(now, wait);
                report_first(Report::Undeliverable(problem), self.store(now, outcome))
            }
            Decision::Republish => {
                self.note_local_problem(now);
                report_first(Report::Undeliverable(problem), self.store(now, Outcome::Republished))
            }
        };
        std::iter::once(decided).chain(actions).collect()
    }

    /// Ends a pass under the lock, with the news for the disk.
    pub(super) fn store(&mut self, now: Timestamp, then: impl Into<Then>) -> Vec<Action> {
        if self.is_dirty() {
            self.round().dirty = false;
            return self.persist(then);
        }
        self.leave(now, then)
    }

    /// The refresh that is due is not made now: the row is looked at again after this time.
    fn look_later(&mut self, now: Timestamp, wait: Duration, problem: Problem) -> Vec<Action> {
        let spread = Duration::from_millis(self.next_random() % 2000);
        let is_soon = !self.policy.patient && &*problem.kind == "fleet_refreshing";
        let wait = if is_soon { wait.min(SOON) } else { wait + spread };
        self.row_wait = Some(Box::new((now.plus(wait), is_soon)));
        self.store(now, Outcome::Held { wait, problem: problem.into() })
    }

    /// The refresh is due, and the row was read: claims it, if it may be claimed.
    pub(super) fn claim(&mut self, now: Timestamp) -> Vec<Action> {
        let (Some(record), Some(view)) = (self.record(), self.round.as_ref().and_then(|it| it.view.as_ref()))
        else {
            return self.no_refresh_token(now);
        };
        let (Some(row), Some(_), Some(replica)) =
            (view.row.as_deref(), &record.refresh_token, &record.replica)
        else {
            return self.no_refresh_token(now);
        };
        match fleet::gate(record, row, view, now) {
            Gate::Wait { reason, look_in } => {
                let problem = waiting(&reason);
                self.look_later(now, look_in, problem)
            }
            Gate::Open { after } => {
                let content = &row.content;
                let fence = Fence { login: content.login.clone(), epoch: content.epoch, held: content.held };
                let (seen, host) =
                    (row.attempt.as_ref().map(|attempt| attempt.nonce.clone()), replica.host.clone());
                let nonce = self.uuid();
                let claim = Claim { nonce: nonce.clone(), at: now, claimed_at: 0, after };
                self.ask(Asked::Claim(Box::new(claim)), Ask::Claim { fence, seen, nonce, host })
            }
        }
    }

    fn won(&mut self, now: Timestamp, mut claim: Claim, claimed_at: i64) -> Vec<Action> {
        claim.claimed_at = claimed_at;
        let nonce = claim.nonce.clone();
        let Some(mut record) = self.record().cloned() else { return self.no_refresh_token(now) };
        let mut host = String::new();
        if let Some(replica) = &mut record.replica {
            replica.claim = Some(claim);
            host.clone_from(&replica.host);
        }
        self.remember(record);
        if let Some(row) = self.round().view.as_mut().and_then(|view| view.row.as_mut()) {
            let claim_until = claimed_at + crate::clock::millis(CLAIM_LIFE);
            row.attempt = Some(RowAttempt { nonce, host, claimed_at, claim_until });
        }
        self.prepare(now)
    }

    /// Whether the claim for this request has become too old to send it: true for a request without one.
    pub(super) fn is_claim_old(&self, now: Timestamp) -> bool {
        let claim = self.replica().and_then(|replica| replica.claim.as_ref());
        self.role().is_some() && claim.is_none_or(|claim| now.since(claim.at) > CLAIM_FRESH)
    }

    /// A machine that only reads waits for the others.
    pub(super) fn wait_for_others(&mut self, now: Timestamp) -> Vec<Action> {
        let token = self.record().and_then(|record| record.access_token.as_ref());
        let lives = token.is_some_and(|token| token.is_live(now));
        let (message, hint) = match (self.row(), token) {
            (None, _) => (
                "the database has no row for this account yet",
                "run `zg-tokend login` on a machine that refreshes",
            ),
            (_, None) => ("nobody is logged in", "run `zg-tokend login` on a machine that refreshes"),
            _ => (
                "the other machines have not refreshed the token",
                "run `zg-tokend status` on the machines that refresh",
            ),
        };
        let problem = problem("fleet_waiting", message.into(), Some(hint.into()));
        self.row_wait = Some(Box::new((now.plus(LOOK), false)));
        if lives {
            return self.store(now, Outcome::Held { wait: LOOK, problem: problem.into() });
        }
        self.store(now, Outcome::Failed(problem.into()))
    }

    /// The name of this machine in the row. A container that starts again keeps the one that it had.
    fn host(&self) -> String {
        let known = self.replica().filter(|replica| replica.place.is_some() && replica.place == self.place());
        let host = known.map(|replica| &*replica.host);
        let host = host.or_else(|| self.policy.fleet.as_ref().map(|fleet| &*fleet.host));
        host.unwrap_or_default().to_owned()
    }

    fn place(&self) -> Option<Fingerprint> {
        self.policy.fleet.as_ref()?.place
    }

    /// A random UUID, version 4 of RFC 9562.
    fn uuid(&mut self) -> String {
        let (high, low) = (self.next_random(), self.next_random());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | ((low >> 48) & 0x3fff),
            low & 0xffff_ffff_ffff
        )
    }
}
