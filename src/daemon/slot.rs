//! The loop's data about one account. The account itself moves into a task while it uses the
//! network, and comes back when it has finished.

use crate::account::Account;
use crate::account::queue::Queue;
use crate::clock::Timestamp;
use crate::config::AccountName;
use crate::daemon::overview::Facts;
use crate::daemon::waiters::Waiters;
use crate::hooks::Hooks;
use crate::message::{UNSTORED, explanation};
use crate::probe::Probes;
use crate::push::Pushes;
use crate::refresh::Event;
use crate::refresh::decide::Trigger;
use crate::refresh::outcome::Outcome;
use crate::store::lock::SupervisorLock;

/// Kinds of failures that a change of the network may end: no address, no route, no proxy.
const LOCAL: [&str; 3] = ["dns", "connect", "proxy"];

/// Events for accounts, each with the account's name.
pub type Events = Queue<(AccountName, Wake)>;

/// An event that begins something. Small, since every account may have one in the queue at the same time:
/// with the events that answer actions the queue would take half a kilobyte for each.
#[derive(Debug, Clone, Copy)]
pub enum Wake {
    Begin(Trigger),
    Woke,
    Stop,
}

impl From<Wake> for Event {
    fn from(wake: Wake) -> Self {
        match wake {
            Wake::Begin(trigger) => Self::Begin(trigger),
            Wake::Woke => Self::Woke,
            Wake::Stop => Self::Stop,
        }
    }
}

#[expect(clippy::struct_excessive_bools, reason = "independent facts about one account")]
pub struct Slot {
    /// `None` while a task works on it.
    pub account: Option<Box<Account>>,
    pub config: ConfigState,
    /// As the loop knows them; see [`Slot::facts`].
    pub facts: Facts,
    /// The place that it runs in.
    pub place: Option<Box<HeldPlace>>,
    /// When its token ends, by the boot clock.
    pub ends_at: i64,
    /// Its files do not answer.
    pub hangs: bool,
    /// Its wake-up is in the queue.
    pub queued: bool,
    /// For the pass after the one that is running.
    pub next_trigger: Option<Box<Trigger>>,
    /// Its first pass has ended.
    pub checked: bool,
    /// Only a new login can help it. Its state is watched for one.
    pub waits_for_login: bool,
    pub waiters: Waiters,
    pub lock: SupervisorLock,
    pub features: Features,
}

/// A place of the queue.
pub struct HeldPlace {
    pub host: String,
    /// It was told to the queue as slow.
    pub is_slow: bool,
}

/// The features that are configured.
pub struct Features {
    pub hooks: Option<Box<Hooks>>,
    pub pushes: Option<Box<Pushes>>,
    pub probes: Option<Box<Probes>>,
    /// The account whose login it uses, if that is another one.
    pub login: Option<AccountName>,
}

impl Features {
    fn new(account: &Account) -> Self {
        let (settings, configured) = (account.settings(), account.configured());
        Self {
            hooks: Hooks::new(settings, configured).map(Box::new),
            pushes: Pushes::new(settings, configured),
            probes: Probes::new(account).map(Box::new),
            login: configured.from.clone(),
        }
    }
}

/// How an account relates to the newest config.
pub enum ConfigState {
    /// The account was built from it.
    Current,
    /// This account, which was built from it, takes its place when it is idle.
    Changed(Box<Account>),
    /// The account is not in it, and is dropped when it is idle.
    Removed,
}

impl Slot {
    pub fn new(account: Account, lock: SupervisorLock) -> Self {
        Self {
            config: ConfigState::Current,
            facts: Facts::default(),
            place: None,
            ends_at: 0,
            hangs: false,
            queued: false,
            next_trigger: None,
            checked: false,
            waits_for_login: false,
            waiters: Waiters::default(),
            lock,
            features: Features::new(&account),
            account: Some(Box::new(account)),
        }
    }

    /// Replaces the account by one that was built from another config.
    pub fn replace(&mut self, account: Box<Account>) {
        self.features = Features::new(&account);
        self.account = Some(account);
    }

    /// `None` if the wake-up is queued already, or if nothing is begun any more: a deadline that
    /// nobody handles would wake the loop without end.
    pub fn next_wakeup(&self, stopping: bool) -> Option<Timestamp> {
        let account = self.account.as_ref().filter(|_| !self.queued)?;
        account.next_wakeup().filter(|_| !(stopping && account.core().is_idle()))
    }

    /// Queues a pass; if one is running, another one follows it.
    pub fn request_pass(&mut self, name: &AccountName, trigger: Trigger, queue: &mut Events) {
        if self.account.is_some() {
            self.enqueue(name, Wake::Begin(trigger), queue);
        } else {
            self.add_trigger(trigger);
        }
    }

    /// Queues an event for an account that is here.
    pub fn enqueue(&self, name: &AccountName, event: Wake, queue: &mut Events) {
        let host = self.account.as_ref().map_or("", |account| account.host());
        queue.push(host, self.ends_at, (name.clone(), event));
    }

    pub fn add_trigger(&mut self, trigger: Trigger) {
        let earlier = self.next_trigger.take().map(|earlier| *earlier).unwrap_or_default();
        self.next_trigger = Some(Box::new(earlier.and(trigger)));
    }

    /// Whether its last request reached no server.
    pub fn waits_for_network(&self) -> bool {
        let outcome = self.account.as_ref().and_then(|account| account.outcome());
        matches!(outcome, Some(Outcome::Failed(problem) | Outcome::Held { problem, .. }) if LOCAL.contains(&&*problem.kind))
    }

    /// The facts as they are now. They change only where the slot does; then
    /// [`Supervisor::note`](crate::daemon::supervisor::Supervisor::note) enters them.
    pub fn facts(&self, stopping: bool) -> Facts {
        Facts {
            wake_at: self.next_wakeup(stopping).map(|at| at.boot),
            is_troubled: self.problem().is_some(),
            is_unchecked: !self.checked,
            is_at_work: match &self.account {
                Some(account) => !account.core().is_idle(),
                None => !self.hangs,
            },
            waits_for_network: self.waits_for_network(),
        }
    }

    /// Why the token is not fresh; `None` if it is, as far as is known.
    pub fn problem(&self) -> Option<String> {
        if self.hangs {
            return Some("the file system of its files does not answer".into());
        }
        let account = self.account.as_ref()?;
        if account.core().is_unstored() {
            return Some(UNSTORED.into());
        }
        account.outcome().and_then(explanation)
    }
}
