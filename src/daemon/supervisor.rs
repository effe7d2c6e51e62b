//! The accounts that `run` supervises, and the data of its loop.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::account::Account;
use crate::account::context::{Context, Mode, Notice, Observer};
use crate::account::policy::accounts;
use crate::clock::Timestamp;
use crate::config::{AccountName, Settings};
use crate::daemon::control::counts::Counts;
#[cfg(feature = "fleet")]
use crate::daemon::fleet;
use crate::daemon::overview::{Facts, Overview};
use crate::daemon::requests::{LoopRequest, Purpose};
use crate::daemon::slot::{Events, Slot, Wake};
use crate::daemon::watches;
use crate::files::watch::Watch;
use crate::hooks;
use crate::message::{Message, RAISE_LIMITS, local, no_threads, no_timer, no_watch};
use crate::probe::{self, ReportRefusal};
use crate::push::clients::Clients;
use crate::refresh::LOCK_PATIENCE;
use crate::refresh::decide::Trigger;
use crate::store::lock::{LockError, SupervisorLock};
use crate::timer::Timer;
use crate::workers;

/// How often a refusal of the kernel is reported: each wave would repeat it.
const REFUSAL_REPEAT: Duration = Duration::from_secs(3600);

/// Exchanges at the same time with one host that are not slow. Each takes up to 40 KiB, and so many keep the
/// processors and the threads for files busy while the host answers at once.
const QUICK_PLACES: usize = 8;

pub const MODE: Mode = Mode { patient: true, horizon: None, lock_patience: LOCK_PATIENCE };

/// Why `run` could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot supervise account {account}")]
    Supervise { account: String, source: LockError },
    #[error("cannot set up the event loop")]
    Setup(#[from] io::Error),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    /// The process ends while file work hangs.
    #[error("leaving account {account}, since its file system does not answer")]
    Hang { account: String },
}

impl RunError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Supervise { source, .. } => source.hint(),
            Self::Setup(_) => Some(RAISE_LIMITS.into()),
            Self::Listen { .. } => {
                Some("choose an address of this machine and a free port: ss -ltn shows those in use".into())
            }
            Self::Hang { .. } => {
                Some("check the file system of its token file and state: mount, df, dmesg".into())
            }
        }
    }
}

/// The news of a task.
pub enum Progress {
    /// The account's pass takes long, and goes on.
    Slow(AccountName),
    /// The account has finished and comes back.
    Finished(Box<Account>),
}

pub struct Supervisor {
    pub settings: Arc<Settings>,
    /// The only account to supervise; `None` for all.
    pub only: Option<String>,
    pub context: Rc<Context>,
    pub counts: Rc<RefCell<Counts>>,
    /// In boxes: a node of the map has room for eleven.
    pub slots: BTreeMap<AccountName, Box<Slot>>,
    /// The facts about the slots that each round needs.
    pub overview: Overview,
    pub queue: Events,
    /// How many accounts are in tasks.
    pub running: usize,
    /// How many of these wait for files that do not answer.
    pub hanging: usize,
    pub hook_places: Arc<Semaphore>,
    pub push_clients: Rc<Clients>,
    pub probe_places: Rc<Semaphore>,
    pub report_refusal: ReportRefusal,
    pub request_sender: mpsc::UnboundedSender<LoopRequest>,
    pub requests: mpsc::UnboundedReceiver<LoopRequest>,
    pub progress_sender: mpsc::UnboundedSender<Progress>,
    pub progress: mpsc::UnboundedReceiver<Progress>,
    /// Accounts whose files hang, or answer again.
    pub hangs: mpsc::UnboundedReceiver<(String, bool)>,
    pub timer: Timer,
    /// The config, and the files that it takes secrets from.
    pub config_watch: Watch,
    /// The states of accounts that wait for a login or have push targets: another process may
    /// store a login or a token there.
    pub state_watch: Watch<AccountName>,
    #[cfg(feature = "fleet")]
    pub databases: fleet::Listeners,
    /// Every account was checked once.
    pub ready: bool,
    /// The newest config has an error, and an older one is in use.
    pub config_invalid: bool,
    pub stopping: bool,
    /// When each refusal of the kernel was last reported, by event.
    refused_at: BTreeMap<&'static str, Timestamp>,
}

impl Supervisor {
    pub fn new(settings: Settings, only: Option<&str>, mut context: Context) -> Result<Self, RunError> {
        let (request_sender, requests) = mpsc::unbounded_channel();
        let (progress_sender, progress) = mpsc::unbounded_channel();
        let counts = Rc::new(RefCell::new(Counts::default()));
        context.observe(Rc::clone(&counts) as Rc<dyn Observer>);
        let (hang_sender, hangs) = mpsc::unbounded_channel();
        context.observe(Rc::new(HangObserver(hang_sender)));
        // Before the accounts read these files, so that no change is missed.
        let config_watch = watches::inputs(&settings);
        let settings = Arc::new(settings);
        let slot = |mut account: Account| {
            let name = account.configured().name.clone();
            match supervise(&mut account, context.clock.now()) {
                Ok(lock) => Ok((name, Box::new(Slot::new(account, lock)))),
                Err(source) => Err(RunError::Supervise { account: name.to_string(), source }),
            }
        };
        // One by one: a list of them all would be the largest piece of memory that is ever given back, and
        // glibc keeps free memory of twice that size.
        let (mut slots, mut queue, mut overview) =
            (BTreeMap::new(), Events::new(QUICK_PLACES), Overview::default());
        for account in accounts(&settings, only, MODE) {
            let (name, mut slot) = slot(account)?;
            slot.enqueue(&name, Wake::Begin(Trigger::default()), &mut queue);
            slot.facts = slot.facts(false);
            overview.change(&name, Facts::default(), slot.facts);
            slots.insert(name, slot);
        }
        Ok(Self {
            only: only.map(str::to_owned),
            context: Rc::new(context),
            counts,
            queue,
            slots,
            overview,
            running: 0,
            hanging: 0,
            hangs,
            hook_places: hooks::places(),
            push_clients: Rc::default(),
            probe_places: probe::places(),
            report_refusal: report_refusal(request_sender.clone()),
            request_sender,
            requests,
            progress_sender,
            progress,
            timer: Timer::new(),
            config_watch,
            state_watch: watches::states(&settings),
            settings,
            #[cfg(feature = "fleet")]
            databases: fleet::Listeners::default(),
            ready: false,
            config_invalid: false,
            stopping: false,
            refused_at: BTreeMap::new(),
        })
    }

    /// Reports refusals of the kernel. The work is done in another way, which is slower: somebody should
    /// know.
    pub fn report_refusals(&mut self) {
        let watch = self.config_watch.take_refusal().or_else(|| self.state_watch.take_refusal());
        let refusals = [
            workers::take_refusal().map(|error| no_threads(&error)),
            self.timer.take_refusal().map(|error| no_timer(&error)),
            watch.map(|error| no_watch(&error)),
        ];
        let now = self.context.clock.now();
        for message in refusals.into_iter().flatten() {
            let last = self.refused_at.get(message.event);
            if last.is_none_or(|at| now.since(*at) >= REFUSAL_REPEAT) {
                self.refused_at.insert(message.event, now);
                self.report(&message);
            }
        }
    }

    /// Reports a message that is about no account.
    pub fn report(&self, message: &Message) {
        self.context.notice(&Notice::Message { account: None, message });
    }

    /// Enters the facts about an account, after each change of its slot.
    pub fn note(&mut self, name: &AccountName) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        let before = slot.facts;
        slot.facts = slot.facts(self.stopping);
        self.overview.change(name, before, slot.facts);
    }

    /// Whether no change of a slot was forgotten. Looks at all of them.
    pub fn is_noted(&self) -> bool {
        self.slots.values().all(|slot| slot.facts == slot.facts(self.stopping))
    }

    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.slots.get(self.overview.first()?)?.next_wakeup(self.stopping)
    }

    pub fn waits_for_network(&self) -> bool {
        !self.stopping && self.overview.waits_for_network()
    }

    /// The network has changed: those that could not reach their server try at once.
    pub fn try_network(&mut self) {
        for (name, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.waits_for_network()) {
            slot.request_pass(name, Trigger { anew: true, ..Trigger::default() }, &mut self.queue);
        }
    }

    /// True when no exchange is running and nothing remains to be stored, but for accounts whose
    /// files hang.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.overview.is_idle()
    }

    /// One sentence for `systemctl status`. It is sent only when something happens, so it names
    /// times of day: a duration would be wrong a minute later.
    pub fn summary(&self) -> String {
        let total = self.slots.len();
        let troubled = self.overview.troubled();
        let first = troubled.first().and_then(|name| Some((name, self.slots.get(name)?.problem()?)));
        let tokens = match (first, total) {
            (None, 1) => "the token is fresh".into(),
            (None, _) => format!("all {total} tokens are fresh"),
            (Some((name, problem)), 1) => format!("{name}: {problem}"),
            (Some((name, problem)), _) => {
                let fresh = total - troubled.len();
                format!("{fresh} of {total} tokens are fresh; {name}: {problem}")
            }
        };
        let next = self.next_wakeup().map(|at| format!("; next check at {}", local(at.wall / 1000)));
        let config =
            if self.config_invalid { "the new config is wrong, the old one stays in use; " } else { "" };
        format!("{config}{tokens}{}", next.unwrap_or_default()).replace('\n', " ")
    }
}

/// Takes the lock that keeps another `run` away from the account.
pub fn supervise(account: &mut Account, now: Timestamp) -> Result<SupervisorLock, LockError> {
    let lock = account.files().store().supervise(now);
    // The paths of all accounts at once would be a third of the memory of `run`, and leave holes behind.
    account.forget();
    lock
}

/// Turns a refusal that a probe got into a request, as if a user had reported it.
fn report_refusal(requests: mpsc::UnboundedSender<LoopRequest>) -> ReportRefusal {
    Rc::new(move |account, token| {
        let (reply, result) = oneshot::channel();
        let (account, purpose) = (account.clone(), Purpose::Replace(token));
        // The loop outlives its tasks, and the pass reports its own result.
        let _ = requests.send(LoopRequest::Pass { account, purpose, reply });
        Box::pin(async {
            let _ = result.await;
        })
    })
}

struct HangObserver(mpsc::UnboundedSender<(String, bool)>);

impl Observer for HangObserver {
    fn notice(&self, notice: &Notice<'_>) {
        if let Notice::Hang { account, hangs, .. } = notice {
            // The supervisor outlives its accounts.
            let _ = self.0.send(((*account).to_owned(), *hangs));
        }
    }
}
