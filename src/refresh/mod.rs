//! The state machine of one account: it decides, `account` performs.
//!
//! [`Refresher::handle`] takes an instant and an event and returns the next actions as data. It
//! does no I/O, reads no clock and draws no random number, so `run`, `once` and the simulation
//! drive the same code. `pass.rs` opens with the steps of a pass, `decide.rs` with the order of the
//! questions that lead to a refresh.

pub mod cause;
pub mod credentials;
pub mod decide;
pub mod finish;
pub mod fleet;
mod fleet_end;
mod fleet_pass;
mod fleet_words;
pub mod outcome;
pub mod pass;
mod policy;
pub mod record;
pub mod replica;
pub mod response;
pub mod schedule;
pub mod stored;
#[cfg(test)]
pub mod tests;
pub mod view;

use std::fmt::Debug;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::oauth::{Answer, TokenRequest};
use crate::problem::Problem;
use crate::refresh::decide::{FileView, Inputs, Loaded, Trigger};
use crate::refresh::fleet::{Ask, RowReply, RowView};
use crate::refresh::outcome::{Outcome, Report};
pub use crate::refresh::policy::{FleetPolicy, LoginHint, Policy, Terms};
use crate::refresh::record::{AccessToken, Record};
use crate::refresh::replica::Claim;
use crate::secret::Fingerprint;

/// Waiters for the lock give up after this time. It is longer than one holder may need (the
/// request's deadline of 30 s and the files), so a waiter fails only if the holder is stuck.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(45);

/// The first pause before a busy lock is tried again: about as long as one fsync.
const LOCK_POLL_FIRST: Duration = Duration::from_millis(2);

/// The longest such pause: short beside a request.
const LOCK_POLL_MAX: Duration = Duration::from_millis(100);

/// After a longer wait for the lock, secrets and endpoint are read again: the config may have
/// changed, and a refresh token must not be sent with old values. Longer than an ordinary exchange,
/// so that a crowd of waiters does not read them twice.
const INPUTS_FRESH: Duration = Duration::from_secs(5);

/// How long `once` keeps trying to store a rotated refresh token: long enough for a full disk to
/// be freed by a log rotation, short enough for cron.
pub const PERSIST_PATIENCE: Duration = Duration::from_secs(30);

/// An event of the account.
#[derive(Debug)]
pub enum Event {
    /// Begin a pass: at start, on a signal, from the command line.
    Begin(Trigger),
    /// The instant of [`Refresher::next_wakeup`] has come.
    Woke,
    /// Begin nothing new; an exchange under way is finished and stored.
    Stop,
    /// Answers [`Action::Load`].
    Loaded(Result<Box<Loaded>, Problem>),
    /// Answers [`Action::ReadInputs`].
    InputsRead(Result<Inputs, Problem>),
    /// Answers [`Action::Lock`].
    Locked(Result<Box<Loaded>, LockFailure>),
    /// Answers [`Action::TakeOver`]: the state that knows the seed, if there was one.
    TakenOver(Result<Option<Box<Record>>, Problem>),
    /// Answers [`Action::Prepare`].
    Prepared(Result<(), Problem>),
    /// Answers [`Action::Request`].
    Answered(Answer),
    /// Answers [`Action::Persist`].
    Persisted(Result<(), Problem>),
    /// Answers [`Action::Publish`]: the outputs beside the token file that could not be written.
    Published(Result<Vec<Problem>, Problem>),
    /// Answers [`Action::Withdraw`].
    Withdrawn(Result<(), Problem>),
    /// Answers [`Action::Ask`]; an error if the database cannot be asked.
    Replied(Result<RowReply, Problem>),
    /// Answers [`Action::Unlock`].
    Unlocked,
}

/// Why the lock could not be taken.
#[derive(Debug)]
pub enum LockFailure {
    /// Another process holds it, or the directory was replaced meanwhile: try again.
    Busy,
    /// Locking failed, or the state under the lock cannot be read.
    Problem(Problem),
}

/// The actions that the account performs next, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read state and token file, without the lock (or under it, if it is held).
    Load,
    /// Read the secrets and find the token endpoint.
    ReadInputs,
    /// Try once to take the lock; with it, put an unreadable state aside and load again.
    Lock,
    /// Look for the state of another account that knows this seed.
    TakeOver(Fingerprint),
    /// Reserve room for the answer, then store this record, whose marker says that a request is
    /// under way.
    Prepare(Box<Record>),
    /// Send one POST, without a resend.
    Request(Box<TokenRequest>),
    /// Store this record durably.
    Persist(Box<Record>),
    /// Replace the token file and the other outputs that do not hold this token.
    Publish(Box<AccessToken>),
    /// Remove the token file, which holds this expired token.
    Withdraw(Box<AccessToken>),
    /// Put this question to the database that several machines share.
    Ask(Box<Ask>),
    /// Release the lock and the reserved files.
    Unlock,
    /// Send this to the observers.
    Report(Box<Report>),
}

/// The state machine of one account.
#[derive(Debug)]
pub struct Refresher {
    policy: Policy,
    random: u64,
    phase: Phase,
    /// The trigger that is not served yet.
    trigger: Trigger,
    /// State and token file as last loaded: certain under the lock, perhaps outdated without it.
    loaded: Option<Box<Loaded>>,
    inputs: Option<Box<Inputs>>,
    inputs_problem: Option<Box<Problem>>,
    /// When the lock was first found busy in this pass, and how often since.
    lock_busy: Option<Box<(Timestamp, u32)>>,
    /// Problems of this machine in a row, which cannot be counted on disk: the first, their
    /// number, and the end of the wait after the last one.
    local_problems: Option<Box<(Timestamp, u32)>>,
    local_wait: Option<Box<Timestamp>>,
    /// The outputs that could not be written last, as reported.
    failed_outputs: Vec<Problem>,
    /// The last request got no definite answer and will be sent again within seconds.
    resend_soon: bool,
    /// The present pass, as far as it is about the fleet.
    round: Option<Box<Round>>,
    /// When to look at the row again, and whether it is worth waiting for: another machine is refreshing.
    row_wait: Option<Box<(Timestamp, bool)>>,
    /// Begin another pass when this one is over.
    again: bool,
    stopping: bool,
    wake_at: Option<Timestamp>,
}

/// The event that the account waits for. Small, since thousands of accounts wait for none.
#[derive(Debug)]
enum Phase {
    Idle,
    Loading,
    ReadingInputs,
    Locking,
    LockBusy,
    TakingOver,
    Preparing,
    Requesting { issued_at: Timestamp },
    Rechecking { issued_at: Timestamp, refusal: Box<Answer> },
    Persisting(Persisting),
    PersistFailed(Persisting),
    Publishing { then: Then },
    Withdrawing { then: Then },
    Asking(Asked),
    Unlocking { then: Then },
}

/// The part of a pass that is about the fleet.
#[derive(Debug, Default)]
struct Round {
    /// The row as it was read under the lock, with the changes of this pass.
    view: Option<RowView>,
    rereads: u32,
    /// The record in memory has news that the disk does not have.
    dirty: bool,
    /// The reply was offered to the row in this pass.
    offered: bool,
}

/// The question whose reply the pass waits for.
#[derive(Debug)]
enum Asked {
    Row,
    /// A write, whose content becomes the row.
    Write(Box<Ask>),
    Claim(Box<Claim>),
    /// The row, after a claim whose outcome is unknown.
    ClaimedRow(Box<Claim>),
    /// The row, after the server refused the refresh token.
    RefusedRow {
        issued_at: Timestamp,
        refusal: Box<Answer>,
    },
    /// Before the lock is released.
    Close {
        then: Then,
    },
}

/// The step after the lock is released.
#[derive(Debug)]
enum Then {
    Finish(Box<Outcome>),
    /// Begin another pass at once: the trigger is not served yet, and there is nothing to report.
    Again,
}

impl From<Outcome> for Then {
    fn from(outcome: Outcome) -> Self {
        Self::Finish(Box::new(outcome))
    }
}

/// A record on its way to disk.
#[derive(Debug)]
struct Persisting {
    /// The record holds the server's answer, which exists nowhere else.
    has_answer: bool,
    then: Then,
    /// The first failure to store it, and the number of failures.
    failures: Option<Box<(Timestamp, u32)>>,
}

impl Refresher {
    /// `random` seeds the jitter.
    pub fn new(policy: Policy, random: u64) -> Self {
        Self {
            policy,
            random,
            phase: Phase::Idle,
            trigger: Trigger::default(),
            loaded: None,
            inputs: None,
            inputs_problem: None,
            lock_busy: None,
            local_problems: None,
            local_wait: None,
            failed_outputs: Vec::new(),
            resend_soon: false,
            round: None,
            row_wait: None,
            again: false,
            stopping: false,
            wake_at: None,
        }
    }

    /// When to send [`Event::Woke`] if nothing happens before: as soon as either clock reaches it.
    /// `None` while an action is under way, and where waiting does not help.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.wake_at
    }

    /// True between passes: the process may end.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// True while the server's answer is only in memory, because it could not be stored.
    pub fn is_unstored(&self) -> bool {
        matches!(self.phase, Phase::PersistFailed(_))
    }

    /// True if a request got no definite answer and will be sent again within seconds, or another machine
    /// is refreshing: `once` should wait for that.
    pub fn will_resend_soon(&self) -> bool {
        self.resend_soon || self.row_wait.as_ref().is_some_and(|wait| wait.1)
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// True if there is a state file that is not valid: the token in the token file is presumed to live.
    pub fn is_state_damaged(&self) -> bool {
        self.loaded.as_ref().is_some_and(|loaded| loaded.garbage.is_some() && loaded.record.is_none())
    }

    /// The state as last loaded.
    pub fn record(&self) -> Option<&Record> {
        self.loaded.as_ref()?.record.as_ref()
    }

    /// Drops the loaded state with its tokens. Only between passes: each pass loads it again.
    pub fn forget(&mut self) {
        self.loaded = None;
        self.inputs = None;
    }

    /// Takes one event and returns the next actions. An event that does not fit the phase is
    /// reported and changes nothing.
    pub fn handle(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        match event {
            Event::Begin(trigger) => self.begin(trigger),
            Event::Stop => self.stop(now),
            Event::Woke => self.woke(),
            event => self.step(now, event),
        }
    }

    fn begin(&mut self, trigger: Trigger) -> Vec<Action> {
        self.trigger = self.trigger.and(trigger);
        if self.stopping {
            return Vec::new();
        }
        if self.is_idle() {
            return self.load();
        }
        // The pass under way may have loaded the state too early: begin another one after it.
        self.again = true;
        if matches!(self.phase, Phase::PersistFailed(_)) { self.woke() } else { Vec::new() }
    }

    fn stop(&mut self, now: Timestamp) -> Vec<Action> {
        if std::mem::replace(&mut self.stopping, true) {
            return Vec::new();
        }
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => {
                self.wake_at = None;
                Vec::new()
            }
            Phase::LockBusy => self.rest(now, Outcome::Stopped),
            // PERSIST_PATIENCE begins now.
            Phase::Persisting(persisting) => {
                self.phase = Phase::Persisting(persisting.failing_since(now));
                Vec::new()
            }
            Phase::PersistFailed(persisting) => self.persist_again(persisting.failing_since(now)),
            phase => {
                self.phase = phase;
                Vec::new()
            }
        }
    }

    fn load(&mut self) -> Vec<Action> {
        self.phase = Phase::Loading;
        self.wake_at = None;
        self.again = false;
        self.local_wait = None;
        self.row_wait = None;
        self.round = None;
        self.inputs = None;
        self.inputs_problem = None;
        vec![Action::Load]
    }

    fn woke(&mut self) -> Vec<Action> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle if self.stopping => Vec::new(),
            Phase::Idle => self.load(),
            Phase::LockBusy => {
                self.phase = Phase::Loading;
                self.wake_at = None;
                vec![Action::Load]
            }
            Phase::PersistFailed(persisting) => self.persist_again(persisting),
            phase => {
                // An event came before the wake-up.
                self.phase = phase;
                Vec::new()
            }
        }
    }

    fn step(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        match (std::mem::replace(&mut self.phase, Phase::Idle), event) {
            (Phase::Loading, Event::Loaded(Ok(loaded))) => self.on_loaded(now, loaded),
            (Phase::Loading, Event::Loaded(Err(problem)))
            | (Phase::Locking, Event::Locked(Err(LockFailure::Problem(problem)))) => {
                self.give_up(now, problem)
            }
            (Phase::ReadingInputs, Event::InputsRead(inputs)) => self.on_inputs_read(now, inputs),
            (Phase::Locking, Event::Locked(Ok(loaded))) => self.on_locked(now, loaded),
            (Phase::Locking, Event::Locked(Err(LockFailure::Busy))) => self.on_lock_busy(now),
            (Phase::TakingOver, Event::TakenOver(Ok(record))) => self.on_taken_over(now, record),
            (Phase::Preparing, Event::Prepared(Ok(()))) => self.on_prepared(now),
            (Phase::Preparing, Event::Prepared(Err(problem))) => {
                self.drop_marker();
                self.leave_failed(now, problem)
            }
            (Phase::TakingOver, Event::TakenOver(Err(problem))) => self.leave_failed(now, problem),
            (Phase::Requesting { issued_at }, Event::Answered(answer)) => {
                self.on_answered(now, issued_at, &answer)
            }
            (Phase::Rechecking { issued_at, refusal }, Event::Loaded(loaded)) => {
                self.on_rechecked(now, issued_at, &refusal, loaded.ok())
            }
            (Phase::Persisting(persisting), Event::Persisted(Ok(()))) => self.leave(now, persisting.then),
            (Phase::Persisting(persisting), Event::Persisted(Err(problem))) => {
                self.on_persist_failed(now, persisting, problem)
            }
            (Phase::PersistFailed(persisting), Event::Published(published)) => {
                // If this failed as well, it is tried again when the state is stored.
                if published.is_ok() {
                    self.note_file(FileView::Current);
                }
                self.phase = Phase::PersistFailed(persisting);
                Vec::new()
            }
            (Phase::Publishing { then }, Event::Published(Ok(failed))) => {
                self.on_published(now, then, failed)
            }
            (Phase::Publishing { .. }, Event::Published(Err(problem))) => {
                self.note_local_problem(now);
                self.unlock(Outcome::NotStored(problem.into()))
            }
            (Phase::Withdrawing { then }, Event::Withdrawn(withdrawn)) => {
                self.on_withdrawn(now, then, withdrawn)
            }
            (Phase::Asking(asked), Event::Replied(reply)) => self.on_reply(now, asked, reply),
            (Phase::Unlocking { then }, Event::Unlocked) => self.rest(now, then),
            (phase, event) => {
                let ignored = Report::Ignored { phase: variant_name(&phase), event: variant_name(&event) };
                self.phase = phase;
                vec![report(ignored)]
            }
        }
    }

    /// One step of splitmix64: random enough to spread machines, and the same in each replay.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn report(report: Report) -> Action {
    Action::Report(Box::new(report))
}

/// The actions with a report before them.
fn report_first(first: Report, mut actions: Vec<Action>) -> Vec<Action> {
    actions.insert(0, report(first));
    actions
}

/// The name of an enum's variant without its content, which may hold tokens.
fn variant_name(value: &impl Debug) -> String {
    format!("{value:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

impl Persisting {
    fn failing_since(self, now: Timestamp) -> Self {
        Self { failures: self.failures.map(|failures| Box::new((now, failures.1))), ..self }
    }
}
