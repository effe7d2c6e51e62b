//! What the handlers ask of the loop, and who waits for what a pass comes to.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::clock::Timestamp;
use crate::config::Settings;
use crate::secret::Fingerprint;
use crate::shell::account::Account;
use crate::shell::obtain::{self, Rejected};
use crate::supervisor::decide::Trigger;
use crate::supervisor::schedule;
use crate::supervisor::trouble::{Class, Trouble};

/// Where the loop hears them. Each connection, and each probe, has one question at a time,
/// so their number is bound.
pub type Asks = mpsc::UnboundedReceiver<Ask>;

/// A question to the loop. It answers the first at once; that it does shows that it is at work.
#[derive(Debug)]
pub enum Ask {
    /// What is in force?
    Standing(oneshot::Sender<Standing>),
    /// A pass over an account, and what it comes to.
    Pass {
        /// Which one.
        account: String,
        /// What for.
        wish: Wish,
        /// Dropped unanswered if there is no such account any more.
        reply: oneshot::Sender<Ended>,
    },
}

/// How the loop stands.
#[derive(Debug)]
pub struct Standing {
    /// The config in force.
    pub settings: Arc<Settings>,
    /// Every account has been looked at, and the end has not begun.
    pub ready: bool,
}

/// What a pass is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The state has changed.
    Look,
    /// Another token than the stored one.
    Refresh {
        /// The stored one, if there is one.
        known: Option<Fingerprint>,
        /// Its number.
        generation: u64,
    },
    /// Another token than this one, which a resource refused.
    Rejected(Fingerprint),
}

/// What a pass came to.
#[derive(Debug)]
pub struct Ended {
    /// What became of the token, or why not.
    pub result: Result<Rejected, Trouble>,
    /// How long until another try may be made, or is.
    pub next_in: Option<Duration>,
}

/// Those who wait for the passes of one account.
#[derive(Debug, Default)]
pub struct Waiting {
    waiters: Vec<Waiter>,
    /// The number of the newest token that the loop has seen.
    generation: u64,
}

#[derive(Debug)]
struct Waiter {
    wish: Wish,
    /// A pass has begun since, which knows of the wish.
    heard: bool,
    reply: oneshot::Sender<Ended>,
}

impl Waiting {
    /// One more. A pass that is under way may be what was wished for: nobody is answered by more
    /// passes than it takes.
    pub fn add(&mut self, wish: Wish, reply: oneshot::Sender<Ended>) {
        if matches!(wish, Wish::Refresh { generation, .. } if generation < self.generation) {
            // The wish was on its way when another one was fulfilled. Who has gone needs no answer.
            let _ = reply.send(Ended { result: Ok(Rejected::AlreadyReplaced), next_in: None });
            return;
        }
        self.waiters.push(Waiter { wish, heard: false, reply });
    }

    /// Whether a pass is to begin for somebody.
    pub fn is_unheard(&self) -> bool {
        self.waiters.iter().any(|waiter| !waiter.heard)
    }

    /// What all of them want together of the pass that begins now.
    pub fn hear(&mut self) -> Trigger {
        let unheard = self.waiters.iter_mut().filter(|waiter| !waiter.heard);
        unheard.fold(Trigger::default(), |wanted, waiter| {
            waiter.heard = true;
            wanted.and(waiter.wish.trigger())
        })
    }

    /// A pass has ended, or cannot: answers whom that answers.
    pub fn answer(&mut self, account: &Account, now: Timestamp) {
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
            .filter_map(|waiter| match waiter.wish.concluded(account, waiter.heard) {
                Some(result) => {
                    // Who has gone needs no answer.
                    let _ = waiter.reply.send(Ended { result, next_in });
                    None
                }
                None => Some(waiter),
            })
            .collect();
    }
}

impl Wish {
    fn trigger(self) -> Trigger {
        match self {
            // Somebody has mended something, and waits.
            Self::Look => Trigger { anew: true, ..Trigger::default() },
            Self::Refresh { .. } => Trigger { force: true, ..Trigger::default() },
            Self::Rejected(token) => Trigger { rejected: Some(token), ..Trigger::default() },
        }
    }

    /// What the pass that has ended means for it; `None` if that was none of it.
    fn concluded(self, account: &Account, heard: bool) -> Option<Result<Rejected, Trouble>> {
        if account.core().is_unstored() {
            return Some(Err(unstored()));
        }
        let known = match self {
            Self::Look => return heard.then(|| obtain::replaced(account, None)),
            Self::Refresh { known, .. } => known,
            Self::Rejected(token) => Some(token),
        };
        if !heard && !obtain::holds_other_than(account, known) {
            return None;
        }
        Some(match (self, obtain::replaced(account, known)) {
            // It is the floor of reports, and this was none.
            (Self::Refresh { .. }, Ok(Rejected::TooSoon { .. })) => Ok(Rejected::Reaffirmed),
            (_, result) => result,
        })
    }
}

fn unstored() -> Trouble {
    Trouble {
        class: Class::Io,
        kind: "not_stored".into(),
        message: "the new refresh token is only in memory so far, and storing it is tried again".into(),
        hint: Some("see `zg-tokend status`: most often a disk is full".into()),
    }
}
