//! Who waits for what the passes of an account come to.

use tokio::sync::oneshot;

use crate::account::Account;
use crate::account::obtain;
use crate::account::obtain::Replacement;
use crate::clock::Timestamp;
use crate::daemon::requests::{PassResult, Purpose};
use crate::message::UNSTORED;
use crate::problem::{Class, Problem};
use crate::refresh::decide::Trigger;
use crate::refresh::schedule;

/// Those who wait for the passes of one account.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    waiters: Vec<Waiter>,
    /// The number of the newest token that the loop has seen.
    generation: u64,
}

#[derive(Debug)]
struct Waiter {
    wish: Purpose,
    /// A pass has begun since, which knows of the wish.
    heard: bool,
    reply: oneshot::Sender<PassResult>,
}

impl Waiters {
    /// One more. A pass that is under way may be what was wished for: nobody is answered by more
    /// passes than it takes.
    pub(super) fn add(&mut self, wish: Purpose, reply: oneshot::Sender<PassResult>) {
        if matches!(wish, Purpose::Refresh { generation, .. } if generation < self.generation) {
            // The wish was on its way when another one was fulfilled. Who has gone needs no answer.
            let _ = reply.send(PassResult { result: Ok(Replacement::AlreadyReplaced), next_in: None });
            return;
        }
        self.waiters.push(Waiter { wish, heard: false, reply });
    }

    /// Whether a pass is to begin for somebody.
    pub(super) fn is_unheard(&self) -> bool {
        self.waiters.iter().any(|waiter| !waiter.heard)
    }

    /// What all of them want together of the pass that begins now.
    pub(super) fn hear(&mut self) -> Trigger {
        let unheard = self.waiters.iter_mut().filter(|waiter| !waiter.heard);
        unheard.fold(Trigger::default(), |wanted, waiter| {
            waiter.heard = true;
            wanted.and(trigger(waiter.wish))
        })
    }

    /// A pass has ended, or cannot: answers whom that answers.
    pub(super) fn answer(&mut self, account: &Account, now: Timestamp) {
        let record = account.core().record();
        self.generation = record.map_or(self.generation, |record| record.generation);
        if self.waiters.is_empty() || !(account.core().is_idle() || account.core().is_unstored()) {
            return;
        }
        let failure = record.and_then(|record| record.failure.as_ref());
        let next_in = failure
            .and_then(|failure| schedule::wait_after(failure, now))
            .or_else(|| account.next_wakeup().map(|at| at.since(now)));
        self.waiters = std::mem::take(&mut self.waiters)
            .into_iter()
            .filter_map(|waiter| match concluded(waiter.wish, account, waiter.heard) {
                Some(result) => {
                    // Who has gone needs no answer.
                    let _ = waiter.reply.send(PassResult { result, next_in });
                    None
                }
                None => Some(waiter),
            })
            .collect();
    }
}

/// What the core is asked for by it.
fn trigger(wish: Purpose) -> Trigger {
    match wish {
        // Somebody has mended something, and waits.
        Purpose::Look { .. } => Trigger { anew: true, ..Trigger::default() },
        Purpose::Refresh { .. } => Trigger { force: true, ..Trigger::default() },
        Purpose::Replacement(token) => Trigger { rejected: Some(token), ..Trigger::default() },
    }
}

/// What the pass that has ended means for it; `None` if that was none of it.
fn concluded(wish: Purpose, account: &Account, heard: bool) -> Option<Result<Replacement, Problem>> {
    if account.core().is_unstored() {
        return Some(Err(unstored()));
    }
    let known = match wish {
        Purpose::Look { login } => {
            return match account.refused_login() {
                Some((refused, problem)) if Some(*refused) == login => Some(Err(problem.clone())),
                _ => heard.then(|| obtain::replaced(account, None)),
            };
        }
        Purpose::Refresh { known, .. } => known,
        Purpose::Replacement(token) => Some(token),
    };
    if !heard && !obtain::holds_other_than(account, known) {
        return None;
    }
    Some(match (wish, obtain::replaced(account, known)) {
        // It is the floor of reports, and this was none.
        (Purpose::Refresh { .. }, Ok(Replacement::TooSoon { .. })) => Ok(Replacement::Reaffirmed),
        (_, result) => result,
    })
}

fn unstored() -> Problem {
    Problem {
        class: Class::Io,
        kind: "not_stored".into(),
        message: UNSTORED.into(),
        hint: Some("see `zg-tokend status`: most often a disk is full".into()),
    }
}
