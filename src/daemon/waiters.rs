//! Requests that wait for the passes of one account.

use tokio::sync::oneshot;

use crate::account::obtain::Replacement;
use crate::account::{Account, obtain};
use crate::clock::Timestamp;
use crate::daemon::requests::{PassResult, Purpose};
use crate::message::UNSTORED;
use crate::problem::{Class, Problem};
use crate::refresh::decide::Trigger;
use crate::refresh::schedule;

#[derive(Debug, Default)]
pub struct Waiters {
    waiters: Vec<Waiter>,
    /// The number of the newest token that the loop knows.
    generation: u64,
}

#[derive(Debug)]
struct Waiter {
    purpose: Purpose,
    /// A pass has begun since the request arrived, and knows its purpose.
    started: bool,
    reply: oneshot::Sender<PassResult>,
}

// A reply is lost if the requester has disconnected. That needs no handling.
impl Waiters {
    /// The pass that is running may bring what is requested: no more passes are made than needed.
    pub fn add(&mut self, purpose: Purpose, reply: oneshot::Sender<PassResult>) {
        if matches!(purpose, Purpose::Refresh { generation, .. } if generation < self.generation) {
            // The token was refreshed after the requester read the state.
            let _ = reply.send(PassResult { result: Ok(Replacement::AlreadyReplaced), next_in: None });
            return;
        }
        self.waiters.push(Waiter { purpose, started: false, reply });
    }

    /// Whether a request came for which no pass has begun yet.
    pub fn need_pass(&self) -> bool {
        self.waiters.iter().any(|waiter| !waiter.started)
    }

    /// Marks all requests as started, and combines their triggers for the pass that begins now.
    pub fn start(&mut self) -> Trigger {
        let new = self.waiters.iter_mut().filter(|waiter| !waiter.started);
        new.fold(Trigger::default(), |trigger, waiter| {
            waiter.started = true;
            trigger.and(waiter.purpose.trigger())
        })
    }

    /// Replies to every request that the account's last pass concludes.
    pub fn reply(&mut self, account: &Account, now: Timestamp) {
        let record = account.core().record();
        self.generation = record.map_or(self.generation, |record| record.generation);
        if self.waiters.is_empty() || !(account.core().is_idle() || account.core().is_unstored()) {
            return;
        }
        let failure = record.and_then(|record| record.failure.as_ref());
        let next_in = failure
            .and_then(|failure| schedule::wait_after(failure, now))
            .or_else(|| account.next_wakeup().map(|at| at.since(now)));
        for waiter in std::mem::take(&mut self.waiters) {
            match waiter.result(account) {
                Some(result) => drop(waiter.reply.send(PassResult { result, next_in })),
                None => self.waiters.push(waiter),
            }
        }
    }
}

impl Waiter {
    /// The result of the last pass for this request; `None` if it has to wait for the next pass.
    fn result(&self, account: &Account) -> Option<Result<Replacement, Problem>> {
        if account.core().is_unstored() {
            return Some(Err(Problem::of(Class::Io, "not_stored", UNSTORED)
                .hint("see `zg-tokend status`; most often the disk is full")));
        }
        let known = match self.purpose {
            Purpose::Check { login } => {
                return match account.refused_login() {
                    Some((refused, problem)) if Some(*refused) == login => Some(Err(problem.clone())),
                    _ => self.started.then(|| obtain::replaced(account, None)),
                };
            }
            Purpose::Refresh { known, .. } => known,
            Purpose::Replace(token) => Some(token),
        };
        if !self.started && !obtain::holds_other_than(account, known) {
            return None;
        }
        Some(match (self.purpose, obtain::replaced(account, known)) {
            // TooSoon limits reports of rejected tokens, and this is not one.
            (Purpose::Refresh { .. }, Ok(Replacement::TooSoon { .. })) => Ok(Replacement::Reaffirmed),
            (_, result) => result,
        })
    }
}
