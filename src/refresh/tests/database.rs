//! A database in memory, which answers the questions of the fleet as PostgreSQL would.

use crate::clock::millis;
use crate::problem::{Class, Problem};
use crate::refresh::fleet::{
    Ask, CLAIM_LIFE, Fence, LoginRow, RowAttempt, RowContent, RowReply, RowResult, RowView,
};
use crate::refresh::tests::world::problem;

#[expect(clippy::struct_excessive_bools, reason = "independent faults")]
#[derive(Debug, Default)]
pub struct Database {
    pub row: Option<LoginRow>,
    pub timeline: u32,
    /// It does not answer.
    pub is_away: bool,
    /// Each claim is lost, and so is the answer to it.
    pub keeps_no_claim: bool,
    /// No reply is stored, although the row is as it was.
    pub misses_stores: bool,
    /// The next write succeeds, and its answer is lost.
    pub loses_answer: bool,
}

impl Database {
    /// `now` is the clock of the database.
    pub fn ask(&mut self, ask: Ask, now: i64) -> Result<RowReply, Problem> {
        if self.is_away {
            return Err(problem(Class::Unavailable, "fleet"));
        }
        if ask == Ask::Read {
            let row = self.row.clone().map(Box::new);
            return Ok(RowReply::Row(RowView { row, server_time: now, timeline: self.timeline }));
        }
        if self.keeps_no_claim && matches!(ask, Ask::Claim { .. }) {
            return Ok(RowReply::Unknown { why: "a warning".into() });
        }
        if self.misses_stores && matches!(ask, Ask::Store { .. }) {
            return Ok(RowReply::Missed);
        }
        let before = self.row.clone();
        if !self.write(ask, now) {
            self.row = before;
            return Ok(RowReply::Missed);
        }
        if std::mem::take(&mut self.loses_answer) {
            return Ok(RowReply::Unknown { why: "a warning".into() });
        }
        Ok(RowReply::Done { at: now })
    }

    fn has(&self, fence: &Fence) -> bool {
        self.row.as_ref().is_some_and(|row| {
            let there = &row.content;
            (&there.login, there.epoch, there.held) == (&fence.login, fence.epoch, fence.held)
        })
    }

    fn write(&mut self, ask: Ask, now: i64) -> bool {
        match ask {
            Ask::Read => true,
            Ask::Claim { fence, seen, nonce, host } => {
                let fits = self.has(&fence);
                let Some(row) = self.row.as_mut().filter(|_| fits) else { return false };
                if row.attempt.as_ref().map(|attempt| attempt.nonce.clone()) != seen {
                    return false;
                }
                let claim_until = now + millis(CLAIM_LIFE);
                row.attempt = Some(RowAttempt { nonce, host, claimed_at: now, claim_until });
                true
            }
            Ask::Store { fence, content } => {
                self.has(&fence) && {
                    self.put(*content);
                    true
                }
            }
            Ask::Repair { content } => {
                let row = self.row.as_ref().map(|row| (row.content.login.clone(), row.content.epoch));
                row.is_some_and(|(login, epoch)| login == content.login && epoch < content.epoch) && {
                    let timeline = self.row.as_ref().map_or(0, |row| row.timeline);
                    self.put(*content);
                    self.row.iter_mut().for_each(|row| row.timeline = timeline);
                    true
                }
            }
            Ask::Found { over, content } => {
                let row = self.row.as_ref().map(|row| (row.content.login.clone(), row.content.epoch));
                row == over && {
                    let is_copy = content.is_copy;
                    self.put(*content);
                    self.row.iter_mut().filter(|_| is_copy).for_each(|row| row.timeline = 0);
                    true
                }
            }
            Ask::Conclude { fence, nonce, result } => {
                let fits = self.has(&fence);
                let Some(row) = self.row.as_mut().filter(|_| fits) else { return false };
                if row.attempt.as_ref().map(|attempt| &attempt.nonce) != nonce.as_ref() {
                    return false;
                }
                row.attempt = None;
                row.result = *result;
                true
            }
        }
    }

    fn put(&mut self, content: RowContent) {
        self.row =
            Some(LoginRow { content, timeline: self.timeline, attempt: None, result: RowResult::default() });
    }
}
