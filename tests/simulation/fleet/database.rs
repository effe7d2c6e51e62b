//! The database: one row, its history for a failover, and the statements as docs/FLEET.md has them.

use zg_tokend::testing::refresh::{
    Ask, CLAIM_LIFE, Fence, LoginRow, RowAttempt, RowContent, RowReply, RowResult, RowView,
};

use super::super::plan::SECOND;
use super::mutants::FleetMutant;

/// The clock of the database is right: 1970 is this long before the simulation.
pub(super) const EPOCH: i64 = 1_700_000_000_000;

/// A failover finds nothing older than this.
const HISTORY: i64 = 10 * SECOND;

#[derive(Clone, Default)]
pub(super) struct Database {
    pub(super) row: Option<LoginRow>,
    /// Every commit of late, and when.
    history: Vec<(i64, Option<LoginRow>)>,
    pub(super) timeline: u32,
    pub(super) down_until: i64,
    pub(super) mutant: Option<FleetMutant>,
    /// It was the primary, and waits for a standby that is none any more: no COMMIT is acknowledged.
    pub(super) waits: bool,
    /// Every statement that changed the row, for the figures.
    pub(super) repairs: u64,
    /// How often a statement replaced a newer login or reply by an older one.
    pub(super) back: u64,
}

impl Database {
    pub(super) fn new(mutant: Option<FleetMutant>) -> Self {
        Self { timeline: 1, history: vec![(0, None)], down_until: -1, mutant, ..Self::default() }
    }

    pub(super) fn is_up(&self, now: i64) -> bool {
        now >= self.down_until
    }

    fn commit(&mut self, now: i64, row: LoginRow) {
        self.row = Some(row);
        self.history.push((now, self.row.clone()));
        // The newest of those that are too old is what the replica had.
        let old = self.history.iter().filter(|(at, _)| *at < now - HISTORY).count();
        self.history.drain(..old.saturating_sub(1));
    }

    /// A standby that is behind by so much becomes the primary. True if a commit is lost.
    pub(super) fn fail_over(&mut self, now: i64, behind: i64, down: i64) -> bool {
        let found = self.history.iter().rev().find(|(at, _)| *at <= now - behind).or(self.history.first());
        let row = found.and_then(|(_, row)| row.clone());
        let lost = row != self.row;
        self.timeline += 1;
        self.history = vec![(now, row.clone())];
        self.row = row;
        self.down_until = self.down_until.max(now + down);
        lost
    }

    pub(super) fn view(&self, now: i64) -> RowView {
        RowView { row: self.row.clone().map(Box::new), server_time: EPOCH + now, timeline: self.timeline }
    }

    fn meets(&self, fence: &Fence) -> bool {
        self.row.as_ref().is_some_and(|row| {
            let row = &row.content;
            row.login == fence.login && row.epoch == fence.epoch && row.held == fence.held
        })
    }

    fn stored(&mut self, now: i64, content: &RowContent, timeline: u32) -> (RowReply, bool) {
        let back = self.row.as_ref().is_some_and(|row| {
            let there = &row.content;
            let began_at = |content: &RowContent| content.secret.as_ref().map(|secret| secret.login_at);
            if there.login == content.login {
                content.epoch <= there.epoch
            } else {
                began_at(content) < began_at(there)
            }
        });
        self.back += u64::from(back);
        let row =
            LoginRow { content: content.clone(), timeline, attempt: None, result: RowResult::default() };
        self.commit(now, row);
        (RowReply::Done { at: EPOCH + now }, true)
    }

    /// The reply, and whether listeners are notified.
    pub(super) fn answer(&mut self, now: i64, ask: &Ask) -> (RowReply, bool) {
        if self.waits && !matches!(ask, Ask::Read) {
            return (RowReply::Unknown { why: "no standby answers".into() }, false);
        }
        match ask {
            Ask::Read => (RowReply::Row(self.view(now)), false),
            Ask::Claim { fence, seen, nonce, host } => {
                let current = self.row.as_ref().and_then(|row| row.attempt.as_ref());
                let is_seen = current.map(|attempt| &attempt.nonce) == seen.as_ref();
                let steals =
                    matches!(self.mutant, Some(FleetMutant::StealsClaims | FleetMutant::TakesOverAtOnce));
                let meets = self.meets(fence) || self.mutant == Some(FleetMutant::ClaimsAnyEpoch);
                if !meets || !(is_seen || steals) {
                    return (RowReply::Missed, false);
                }
                let mut row = self.row.clone().expect("the fence is met");
                row.attempt = Some(RowAttempt {
                    nonce: nonce.clone(),
                    host: host.clone(),
                    claimed_at: EPOCH + now,
                    claim_until: EPOCH + now + CLAIM_LIFE.as_millis() as i64,
                });
                self.commit(now, row);
                (RowReply::Done { at: EPOCH + now }, false)
            }
            Ask::Store { fence, content } => {
                if self.meets(fence) || self.mutant == Some(FleetMutant::StoresWithoutFence) {
                    return self.stored(now, content, self.timeline);
                }
                (RowReply::Missed, false)
            }
            Ask::Repair { content } => {
                let older = self.row.as_ref().is_some_and(|row| {
                    row.content.login == content.login && row.content.epoch < content.epoch
                });
                if older && self.mutant != Some(FleetMutant::NeverRepairs) {
                    self.repairs += 1;
                    // Another host may have a newer copy still.
                    let timeline = self.row.as_ref().map_or(0, |row| row.timeline);
                    return self.stored(now, content, timeline);
                }
                (RowReply::Missed, false)
            }
            Ask::Found { over, content } => {
                let there = self.row.as_ref().map(|row| (row.content.login.clone(), row.content.epoch));
                let timeline = if content.is_copy { 0 } else { self.timeline };
                if there == *over { self.stored(now, content, timeline) } else { (RowReply::Missed, false) }
            }
            Ask::Conclude { fence, nonce, result } => {
                let current = self.row.as_ref().and_then(|row| row.attempt.as_ref());
                let is_seen = current.map(|attempt| &attempt.nonce) == nonce.as_ref();
                if !is_seen || !self.meets(fence) {
                    return (RowReply::Missed, false);
                }
                let mut row = self.row.clone().expect("the fence is met");
                row.attempt = None;
                if self.mutant != Some(FleetMutant::HidesVerdicts) {
                    row.result = (**result).clone();
                }
                self.commit(now, row);
                (RowReply::Done { at: EPOCH + now }, nonce.is_some())
            }
        }
    }
}
