//! The state machine of one account: it decides, the shell performs.
//!
//! [`Refresher::handle`] takes an instant and an event and gives back what is to be done, as
//! data. It does no I/O, reads no clock and draws no random number, so that `run`, `once` and the
//! simulation drive the very same code. One pass is
//!
//! > load → due? → inputs → lock and load again → still due? → prepare → request → persist →
//! > publish → unlock
//!
//! and ends early wherever there is nothing to do or nothing to be done.

pub mod cause;
pub mod decide;
pub mod finish;
pub mod outcome;
pub mod pass;
pub mod record;
pub mod response;
pub mod schedule;
#[cfg(test)]
pub mod tests;
pub mod view;

use std::time::Duration;

use crate::clock::Timestamp;
use crate::oauth::{Answer, TokenRequest};
use crate::problem::Problem;
use crate::refresh::decide::{Inputs, Loaded, Trigger};
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::record::{AccessToken, Record};
use crate::secret::Fingerprint;

/// Waiters for the lock give up after this: longer than one holder may need (the request's
/// deadline of 30 s and the files), so that a waiter fails only if the holder is stuck.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(45);

/// Between two looks at a busy lock: from the length of one file's fsync ...
const LOCK_POLL_FIRST: Duration = Duration::from_millis(2);

/// ... to one that nobody notices beside a request.
const LOCK_POLL_MAX: Duration = Duration::from_millis(100);

/// After a wait for the lock that is longer than this, secrets and endpoint are read again: config may
/// have changed meanwhile, and a refresh token must not be sent once more with what it was before.
/// Longer than an ordinary exchange, so that a crowd does not read them twice.
const INPUTS_FRESH: Duration = Duration::from_secs(5);

/// How long `once` keeps trying to store a rotated refresh token: long enough for a full disk to
/// be noticed and mended by a log rotation, short enough for cron.
const PERSIST_PATIENCE: Duration = Duration::from_secs(30);

/// The part of the account's configuration that the core needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The account's name.
    pub account: String,
    /// The config file, as it is recorded in the state.
    pub config: String,
    /// The configured skew.
    pub skew: Option<Duration>,
    /// The life of a token whose server does not tell it.
    pub default_lifetime: Duration,
    /// Also refresh what would expire within this time.
    pub horizon: Option<Duration>,
    /// The fingerprint of the refresh_token, where config holds it as a string.
    pub inline_seed: Option<Fingerprint>,
    /// The user's next step for a new login.
    pub login_hint: String,
    /// How often to look at the configured secrets again while only they can help; `None` if they
    /// cannot change unnoticed.
    pub reread_secrets: Option<Duration>,
    /// How long to wait for another process that is refreshing.
    pub lock_patience: Duration,
    /// Remove the token file when its token has expired.
    pub remove_expired: bool,
    /// Never give up on storing a rotated token: true for `run`.
    pub patient: bool,
}

/// An event of the account.
#[derive(Debug)]
pub enum Event {
    /// A pass is wanted: at start, on a signal, from the command line.
    Begin(Trigger),
    /// [`Refresher::next_wakeup`] has come.
    Woke,
    /// Finish what cannot be left undone, and begin nothing.
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
    /// Answers [`Action::Publish`].
    Published(Result<(), Problem>),
    /// Answers [`Action::Withdraw`].
    Withdrawn(Result<(), Problem>),
    /// Answers [`Action::Unlock`].
    Unlocked,
}

/// Why the lock was not to be had.
#[derive(Debug)]
pub enum LockFailure {
    /// Somebody else holds it, or the directory was replaced just then: try again.
    Busy,
    /// It cannot be had at all, or the state under it cannot be read.
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
    /// Make sure that the answer can be stored, then store this record, which says that a request
    /// is under way.
    Prepare(Box<Record>),
    /// One POST. No resend.
    Request(Box<TokenRequest>),
    /// Store this record durably.
    Persist(Box<Record>),
    /// Replace the token file.
    Publish(Box<AccessToken>),
    /// Remove the token file, which holds this expired token.
    Withdraw(Box<AccessToken>),
    /// Let go of the lock and of what was prepared.
    Unlock,
    /// Tell whoever listens.
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
    /// The result of the last look: the truth under the lock, a guess without it.
    loaded: Option<Box<Loaded>>,
    inputs: Option<Inputs>,
    /// The inputs cannot be had.
    inputs_problem: Option<Problem>,
    /// When the lock was first found busy in this pass, and how often.
    lock_busy: Option<(Timestamp, u32)>,
    /// Troubles of this machine in a row, which cannot be counted on disk: since when, how many,
    /// and the wait that the last one ordered.
    local_problems: Option<(Timestamp, u32)>,
    local_wait: Option<Timestamp>,
    /// The last request got no definite answer, and is to be sent again within seconds.
    resend_soon: bool,
    /// Begin another pass as soon as this one is over.
    again: bool,
    stopping: bool,
    wake_at: Option<Timestamp>,
}

/// The event that the account waits for.
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
    Rechecking { issued_at: Timestamp, refusal: Answer },
    Persisting(Persisting),
    PersistFailed { persisting: Persisting },
    Publishing { then: Then },
    Withdrawing { then: Then },
    Unlocking { then: Then },
}

/// The step after the pass has let go of everything.
#[derive(Debug)]
enum Then {
    /// The pass is over.
    Finish(Outcome),
    /// Another pass begins at once: what was wanted is not done yet, and there is nothing to report.
    Again,
}

impl From<Outcome> for Then {
    fn from(outcome: Outcome) -> Self {
        Self::Finish(outcome)
    }
}

/// A record on its way to disk.
#[derive(Debug)]
struct Persisting {
    /// It holds the server's answer, which exists nowhere else: a new refresh token, a no, a wait.
    answer: bool,
    then: Then,
    /// Since when the disk refuses it, and how often it has.
    failing: Option<(Timestamp, u32)>,
}

impl Refresher {
    /// A supervisor that has not looked at anything yet. `random` seeds its jitter.
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
            resend_soon: false,
            again: false,
            stopping: false,
            wake_at: None,
        }
    }

    /// When to send [`Event::Woke`], if nothing else happens before; reached when either clock
    /// has reached it. `None` while an action is under way, and where no time will help.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.wake_at
    }

    /// True when nothing is under way: the shell may leave.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// True while the server's answer is only in memory, since the disk refuses it.
    pub fn is_unstored(&self) -> bool {
        matches!(self.phase, Phase::PersistFailed { .. })
    }

    /// True if a request got no definite answer and is to be sent again within seconds: who has
    /// come this far should stay.
    pub fn will_resend_soon(&self) -> bool {
        self.resend_soon
    }

    /// The account's policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether a state is there that is not valid: the token in the file is presumed to live.
    pub fn is_state_damaged(&self) -> bool {
        self.loaded.as_ref().is_some_and(|loaded| loaded.garbage.is_some() && loaded.record.is_none())
    }

    /// The state, as the last look found it.
    pub fn record(&self) -> Option<&Record> {
        self.loaded.as_ref()?.record.as_ref()
    }

    /// Drops what the last look found, its tokens included. Only between passes: each looks anew.
    pub fn forget(&mut self) {
        self.loaded = None;
        self.inputs = None;
    }

    /// Takes one event and says what to do next. An event that does not fit is reported and
    /// changes nothing.
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
        // The pass under way may have looked too early: look again when it is over.
        self.again = true;
        if matches!(self.phase, Phase::PersistFailed { .. }) { self.woke() } else { Vec::new() }
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
            // From now on there is an end to patience, but not at once.
            Phase::Persisting(mut persisting) => {
                persisting.be_patient_from(now);
                self.phase = Phase::Persisting(persisting);
                Vec::new()
            }
            Phase::PersistFailed { mut persisting, .. } => {
                persisting.be_patient_from(now);
                self.persist_again(persisting)
            }
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
            Phase::PersistFailed { persisting } => self.persist_again(persisting),
            phase => {
                // A wake-up that was overtaken by an event.
                self.phase = phase;
                Vec::new()
            }
        }
    }

    fn step(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        match (std::mem::replace(&mut self.phase, Phase::Idle), event) {
            (Phase::Loading, Event::Loaded(Ok(loaded))) => self.looked(now, loaded),
            (Phase::Loading, Event::Loaded(Err(problem)))
            | (Phase::Locking, Event::Locked(Err(LockFailure::Problem(problem)))) => {
                self.give_up(now, problem)
            }
            (Phase::ReadingInputs, Event::InputsRead(inputs)) => self.inputs_read(now, inputs),
            (Phase::Locking, Event::Locked(Ok(loaded))) => self.locked(now, loaded),
            (Phase::Locking, Event::Locked(Err(LockFailure::Busy))) => self.lock_busy(now),
            (Phase::TakingOver, Event::TakenOver(Ok(record))) => self.taken_over(now, record),
            (Phase::Preparing, Event::Prepared(Ok(()))) => self.prepared(now),
            (Phase::TakingOver, Event::TakenOver(Err(problem)))
            | (Phase::Preparing, Event::Prepared(Err(problem))) => self.leave_failed(now, problem),
            (Phase::Requesting { issued_at }, Event::Answered(answer)) => {
                self.answered(now, issued_at, answer)
            }
            (Phase::Rechecking { issued_at, refusal }, Event::Loaded(loaded)) => {
                self.rechecked(now, issued_at, &refusal, loaded.ok().map(|loaded| *loaded))
            }
            (Phase::Persisting(persisting), Event::Persisted(Ok(()))) => self.leave(now, persisting.then),
            (Phase::Persisting(persisting), Event::Persisted(Err(problem))) => {
                self.persist_failed(now, persisting, problem)
            }
            (Phase::PersistFailed { persisting }, Event::Published(published)) => {
                // If this failed, too, there is another chance when the state is stored.
                if published.is_ok() {
                    self.note_published();
                }
                self.phase = Phase::PersistFailed { persisting };
                Vec::new()
            }
            (Phase::Publishing { then }, Event::Published(Ok(()))) => {
                self.note_published();
                self.unlock(then)
            }
            (Phase::Publishing { .. }, Event::Published(Err(problem))) => {
                self.note_local_problem(now);
                self.unlock(Outcome::NotStored(problem))
            }
            (Phase::Withdrawing { then }, Event::Withdrawn(withdrawn)) => {
                self.withdrawn(now, then, withdrawn)
            }
            (Phase::Unlocking { then }, Event::Unlocked) => self.rest(now, then),
            (phase, event) => {
                let ignored = Report::Ignored { phase: phase.name(), event: event.name() };
                self.phase = phase;
                vec![report(ignored)]
            }
        }
    }

    /// A step of a small generator (splitmix64): good enough to spread machines, and replayable.
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

impl Persisting {
    /// Counts the patience with a failing disk from now on.
    fn be_patient_from(&mut self, now: Timestamp) {
        self.failing = self.failing.map(|(_, tries)| (now, tries));
    }
}

impl Phase {
    fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Loading => "loading",
            Self::ReadingInputs => "reading inputs",
            Self::Locking => "locking",
            Self::LockBusy => "waiting for the lock",
            Self::TakingOver => "taking over",
            Self::Preparing => "preparing",
            Self::Requesting { .. } => "requesting",
            Self::Rechecking { .. } => "rechecking",
            Self::Persisting(_) => "persisting",
            Self::PersistFailed { .. } => "waiting to persist",
            Self::Publishing { .. } => "publishing",
            Self::Withdrawing { .. } => "withdrawing",
            Self::Unlocking { .. } => "unlocking",
        }
    }
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Begin(_) => "begin",
            Self::Woke => "woke",
            Self::Stop => "stop",
            Self::Loaded(_) => "loaded",
            Self::InputsRead(_) => "inputs read",
            Self::Locked(_) => "locked",
            Self::TakenOver(_) => "taken over",
            Self::Prepared(_) => "prepared",
            Self::Answered(_) => "answered",
            Self::Persisted(_) => "persisted",
            Self::Published(_) => "published",
            Self::Withdrawn(_) => "withdrawn",
            Self::Unlocked => "unlocked",
        }
    }
}
