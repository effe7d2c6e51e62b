//! All accounts, in one thread, for as long as the process lives.

#[cfg(test)]
mod tests;

pub mod control;
mod requests;
mod signals;
mod slot;
mod systemd;
mod waiting;
mod watched;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::LocalSet;

use crate::account::Account;
use crate::account::context::{Context, EXCHANGES, Mode, Notice, Observer, accounts};
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::daemon::control::counts::Counts;
use crate::daemon::requests::{Current, LoopRequest, LoopRequests, Purpose};
use crate::daemon::signals::{SignalAction, Signals};
use crate::daemon::slot::{ConfigState, Slot};
use crate::daemon::systemd::{Notifier, Watchdog};
use crate::daemon::watched::{inputs, states};
use crate::files::watch::Watch;
use crate::hooks;
use crate::message::local;
use crate::message::{Message, RAISE_LIMITS};
use crate::probe::{self, ReportRefusal};
use crate::problem::chain;
use crate::refresh::decide::Trigger;
use crate::refresh::outcome::Outcome;
use crate::refresh::{Event, LOCK_PATIENCE};
use crate::store::lock::{LockError, SupervisorLock};
use crate::timer::{Timer, WakeUp};
use tracing::Level;

/// What `run` needs from the command that starts it.
pub struct RunOptions<'a> {
    /// The account to supervise; `None` for all.
    pub only: Option<&'a str>,
    /// Reads the config again; the error says what is wrong with it.
    pub reload: &'a dyn Fn() -> Result<Settings, Message>,
    /// Where the control socket is to be, if there is one.
    pub control: Option<control::SocketPlace>,
    /// Completes when it is time to stop, as at a first SIGTERM.
    pub stop: Pin<Box<dyn Future<Output = ()> + 'a>>,
}

/// Why `run` could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// One of the accounts cannot be supervised.
    #[error("account {account}")]
    Supervise {
        /// Which one.
        account: String,
        /// Why not.
        source: LockError,
    },
    /// The kernel refused a timer, a signal or the runtime.
    #[error("cannot set up the event loop")]
    Setup(#[from] io::Error),
}

impl RunError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Supervise { source, .. } => source.hint(),
            Self::Setup(_) => Some(RAISE_LIMITS.into()),
        }
    }
}

/// Supervises the accounts until a signal, or [`RunOptions::stop`], stops it.
pub fn run(settings: Settings, context: Context, options: RunOptions<'_>) -> Result<(), RunError> {
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // A thread that looked up a name is not kept waiting for the next hour's refresh.
        .thread_keep_alive(std::time::Duration::from_secs(1))
        .build()?;
    let done = LocalSet::new()
        .block_on(&runtime, async { Runner::new(settings, options.only, context)?.run(options).await });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    done
}

/// Each account's lock is an open file. The soft limit, most often 1024, is there for the sake of
/// select(2), which is not used here; where the hard one is no higher, a lock says what is wrong.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

struct Runner {
    settings: Arc<Settings>,
    only: Option<String>,
    context: Rc<Context>,
    counts: Rc<RefCell<Counts>>,
    hook_places: Arc<Semaphore>,
    probe_places: Rc<Semaphore>,
    report_refusal: ReportRefusal,
    slots: BTreeMap<String, Slot>,
    /// Accounts whose turn it is, and why.
    turns: VecDeque<(String, Event)>,
    away: usize,
    /// For those who ask something of the loop: through the control socket, or by a probe.
    ask: mpsc::UnboundedSender<LoopRequest>,
    asks: LoopRequests,
    home: mpsc::UnboundedSender<Box<Account>>,
    returning: mpsc::UnboundedReceiver<Box<Account>>,
    timer: Timer,
    /// The config, and every file that it takes a secret from.
    watch: Watch,
    /// The states that another process may change to some effect here: of the accounts that wait
    /// for a login, and of those that have push targets.
    states: Watch,
    ready: bool,
    /// The newest config is wrong, and an older one in force.
    outdated: bool,
    stopping: bool,
}

const MODE: Mode = Mode { patient: true, horizon: None, lock_patience: LOCK_PATIENCE };

impl Runner {
    fn new(settings: Settings, only: Option<&str>, mut context: Context) -> Result<Self, RunError> {
        let (ask, asks) = mpsc::unbounded_channel();
        let (home, returning) = mpsc::unbounded_channel();
        let counts = Rc::new(RefCell::new(Counts::default()));
        context.observe(Rc::clone(&counts) as Rc<dyn Observer>);
        let watch = inputs(&settings)?;
        let mut slots = BTreeMap::new();
        let settings = Arc::new(settings);
        for mut account in accounts(&settings, only, MODE) {
            let name = account.name().to_owned();
            let slot = supervise(&mut account, context.clock.now())
                .map(|supervision| Slot::new(account, supervision))
                .map_err(|source| RunError::Supervise { account: name.clone(), source })?;
            slots.insert(name, slot);
        }
        let states = states(&settings)?;
        let turns = slots.keys().map(|name| (name.clone(), Event::Begin(Trigger::default()))).collect();
        Ok(Self {
            settings,
            only: only.map(str::to_owned),
            context: Rc::new(context),
            counts,
            hook_places: hooks::places(),
            probe_places: probe::places(),
            report_refusal: report_refusal(ask.clone()),
            slots,
            turns,
            away: 0,
            ask,
            asks,
            home,
            returning,
            timer: Timer::new()?,
            watch,
            states,
            ready: false,
            outdated: false,
            stopping: false,
        })
    }

    async fn run(mut self, options: RunOptions<'_>) -> Result<(), RunError> {
        let RunOptions { reload, control, mut stop, .. } = options;
        let mut signals = Signals::new()?;
        let mut notifier = Notifier::of_process();
        let mut watchdog = Watchdog::of_process();
        let socket = self.open_socket(control);
        loop {
            // Whatever is ready already, a deadline that stays in the past even: network, signals,
            // other timers and the accounts at work have their turn in each round.
            tokio::task::yield_now().await;
            self.take_turns();
            if self.stopping && self.is_at_rest() {
                drop(socket);
                return Ok(());
            }
            if self.ready && self.away == 0 && !self.stopping {
                notifier.status(self.summary());
            } else if !self.ready && self.away == 0 && self.slots.values().all(|slot| slot.settled) {
                self.ready = true;
                let accounts = self.slots.len();
                let accounts =
                    if accounts == 1 { "1 account".into() } else { format!("{accounts} accounts") };
                self.say(&Message::new(Level::INFO, "ready", format!("supervising {accounts}")));
                notifier.ready(self.summary());
            }
            self.timer.set(self.next_wakeup())?;
            tokio::select! {
                Some(account) = self.returning.recv() => {
                    self.welcome(account);
                    if !self.ready && self.away > 0 {
                        notifier.starting();
                    }
                }
                woken = self.timer.wait() => match woken? {
                    WakeUp::Deadline => self.wake(),
                    WakeUp::ClockChanged => self.ask_all(Trigger { anew: true, ..Trigger::default() }),
                },
                changed = self.watch.changed() => {
                    changed?;
                    self.reload(reload)?;
                }
                changed = self.states.changed() => {
                    changed?;
                    self.look_at_states()?;
                }
                () = watchdog.due() => watchdog.answer(),
                Some(ask) = self.asks.recv() => self.hear(ask),
                () = &mut stop, if !self.stopping => self.begin_to_stop(&notifier),
                asked = signals.next() => match asked {
                    // Once more changes nothing: what is under way ends within a minute, and to
                    // leave it could cost the login.
                    SignalAction::Stop if self.stopping => {}
                    SignalAction::Stop => self.begin_to_stop(&notifier),
                    SignalAction::Reload => {
                        notifier.reloading();
                        self.reload(reload)?;
                        notifier.reloaded();
                    }
                    SignalAction::Refresh => {
                        self.ask_all(Trigger { force: true, anew: true, ..Trigger::default() });
                    }
                },
            }
        }
    }

    /// Sends accounts to work, as many as may be at work together.
    fn take_turns(&mut self) {
        while self.away < EXCHANGES {
            let Some((name, event)) = self.turns.pop_front() else { return };
            let Some(slot) = self.slots.get_mut(&name) else { continue };
            slot.queued = false;
            let Some(mut account) = slot.account.take() else {
                // It went to work meanwhile: what was asked for waits for its return.
                if let Event::Begin(trigger) = event {
                    slot.ask(trigger);
                }
                continue;
            };
            let event = match event {
                Event::Begin(trigger) => Event::Begin(trigger.and(slot.waiting.hear())),
                event => event,
            };
            if account.begin(event, &self.context) {
                self.away += 1;
                self.context.set_active(self.away);
                let (context, home) = (Rc::clone(&self.context), self.home.clone());
                tokio::task::spawn_local(async move {
                    account.finish(&context).await;
                    // The runner outlives its tasks.
                    let _ = home.send(account);
                });
            } else {
                self.settle(account);
            }
        }
    }

    /// An account has come back from the network.
    fn welcome(&mut self, account: Box<Account>) {
        self.away -= 1;
        self.context.set_active(self.away);
        self.settle(account);
    }

    /// Puts an account back into its place.
    fn settle(&mut self, mut account: Box<Account>) {
        let name = account.name().to_owned();
        let Some(slot) = self.slots.get_mut(&name) else { return };
        slot.settled |= account.outcome().is_some() || account.core().is_unstored();
        slot.waits_for_login = account.waits_for_login();
        let mut outdated = false;
        if slot.waits_for_login {
            // In this order nothing that happens in between is missed.
            self.states.add(&account.files().store().path());
            outdated = account.is_outdated();
        }
        slot.waiting.answer(&account, self.context.clock.now());
        let features = &mut slot.features;
        let hooks = features.hooks.for_passes(&mut account);
        features.hooks.enqueue(hooks, &self.hook_places, &self.context);
        // A token that could not be published is not sent either.
        if account.core().is_idle() && !matches!(account.outcome(), Some(Outcome::NotStored(_))) {
            features.pushes.send(account.core().record(), &self.context);
        }
        features.probing.begin(&self.probe_places, &self.report_refusal, &self.context);
        account.forget();
        let (idle, told) = (account.core().is_idle(), account.told_to_stop());
        slot.account = Some(account);
        if self.stopping {
            if !told {
                self.turns.push_back((name, Event::Stop));
            }
        } else if slot.standing != ConfigState::Current && idle {
            self.rebuild(&name);
        } else if let Some(trigger) = slot.asked.take() {
            self.turns.push_back((name, Event::Begin(trigger)));
        } else if outdated || slot.waiting.is_unheard() {
            self.turns.push_back((name, Event::Begin(Trigger::default())));
        }
    }

    /// Reports something that is about no account.
    fn say(&self, message: &Message) {
        self.context.notice(&Notice::Message { account: None, message });
    }

    /// The control socket, as long as it is held.
    fn open_socket(&self, place: Option<control::SocketPlace>) -> Option<control::Socket> {
        let place = place?;
        match control::open(&place, self.ask.clone(), Rc::clone(&self.context), Rc::clone(&self.counts)) {
            Ok(socket) => {
                let text = format!("the control socket is {}", socket.path().display());
                self.say(&Message::new(Level::DEBUG, "control", text));
                Some(socket)
            }
            Err(error) => {
                let text = format!("there is no control socket: {}", chain(&error));
                self.say(&Message::new(Level::WARN, "no_control", text).hint(error.hint()));
                None
            }
        }
    }

    /// Somebody asks something.
    fn hear(&mut self, ask: LoopRequest) {
        match ask {
            LoopRequest::Current(reply) => {
                let ready = self.ready && !self.stopping;
                // Who has gone needs no answer.
                let _ = reply.send(Current { settings: Arc::clone(&self.settings), ready });
            }
            LoopRequest::Pass { account, wish, reply } => {
                let Some(slot) = self.slots.get_mut(&account).filter(|_| !self.stopping) else { return };
                // One turn hears all that came before it; after a pass under way there is another.
                let turn = slot.account.is_some() && !slot.waiting.is_unheard();
                slot.waiting.add(wish, reply);
                if turn {
                    self.turns.push_back((account, Event::Begin(Trigger::default())));
                }
            }
        }
    }

    /// The state of an account has changed that waited for a login, or has push targets: another
    /// process may have put a login or a token there.
    fn look_at_states(&mut self) -> io::Result<()> {
        self.states = states(&self.settings)?;
        for account in &self.settings.accounts {
            let Some(slot) = self.slots.get_mut(account.name.as_str()) else { continue };
            let (pushes, looks) = (!account.push.is_empty(), Trigger::default());
            if slot.account.is_some() && (pushes || slot.waits_for_login) {
                self.turns.push_back((account.name.to_string(), Event::Begin(looks)));
            } else if pushes {
                // What is under way may have read the state before.
                slot.ask(looks);
            }
        }
        Ok(())
    }

    fn next_wakeup(&self) -> Option<Timestamp> {
        self.slots.values().filter_map(|slot| slot.next_wakeup(self.stopping)).min_by_key(|at| at.boot)
    }

    /// The deadline of at least one account has come.
    fn wake(&mut self) {
        let now = self.context.clock.now();
        for (name, slot) in &mut self.slots {
            if slot.next_wakeup(self.stopping).is_some_and(|at| at.boot <= now.boot) {
                slot.queued = true;
                self.turns.push_back((name.clone(), Event::Woke));
            }
        }
    }

    /// Asks something of every account; those at work hear it when they come back.
    fn ask_all(&mut self, trigger: Trigger) {
        for (name, slot) in &mut self.slots {
            if slot.account.is_some() {
                self.turns.push_back((name.clone(), Event::Begin(trigger)));
            } else {
                slot.ask(trigger);
            }
        }
    }

    fn begin_to_stop(&mut self, notifier: &Notifier) {
        self.say(&Message::new(Level::INFO, "stopping", "stopping: what is under way is finished first"));
        if self.is_at_rest() {
            notifier.stopping();
        } else {
            notifier.finishing();
        }
        self.stopping = true;
        self.context.stop();
        let home = self.slots.iter().filter(|(_, slot)| slot.account.is_some());
        self.turns = home.map(|(name, _)| (name.clone(), Event::Stop)).collect();
    }

    /// True when no exchange is under way and nothing waits to be stored.
    fn is_at_rest(&self) -> bool {
        let mut accounts = self.slots.values().map(|slot| slot.account.as_ref());
        self.turns.is_empty()
            && accounts.all(|account| account.is_some_and(|account| account.core().is_idle()))
    }

    /// Takes a new configuration over; a wrong one changes nothing.
    fn reload(&mut self, reload: &dyn Fn() -> Result<Settings, Message>) -> io::Result<()> {
        self.watch.forget();
        let settings = reload();
        self.outdated = settings.is_err();
        let settings = match settings {
            Ok(settings) => settings,
            Err(message) => {
                self.say(&message);
                return Ok(());
            }
        };
        // What has changed since it was read is read as well.
        self.watch = inputs(&settings)?.succeed(&self.watch);
        let moved = settings.state_dir != self.settings.state_dir;
        self.settings = Arc::new(settings);
        for slot in self.slots.values_mut() {
            slot.standing = ConfigState::Gone;
        }
        for mut account in accounts(&self.settings, self.only.as_deref(), MODE) {
            let name = account.name().to_owned();
            match self.slots.get_mut(&name) {
                Some(slot) if !moved => slot.standing = ConfigState::Changed,
                known => match (supervise(&mut account, self.context.clock.now()), known) {
                    (Ok(supervision), Some(slot)) => {
                        (slot.standing, slot.supervision) = (ConfigState::Changed, supervision);
                    }
                    (Ok(supervision), None) => {
                        self.slots.insert(name.clone(), Slot::new(account, supervision));
                        self.turns.push_back((name, Event::Begin(Trigger::default())));
                    }
                    // The same directory by another path.
                    (Err(LockError::Supervised { pid, .. }), Some(slot))
                        if pid == Some(std::process::id()) =>
                    {
                        slot.standing = ConfigState::Changed;
                    }
                    (Err(error), _) => {
                        let text = format!("cannot supervise it: {}", chain(&error));
                        let message = Message::new(Level::ERROR, "unsupervised", text);
                        self.context.message(&name, &Message { hint: error.hint(), ..message });
                    }
                },
            }
        }
        let changed = self.slots.iter().filter(|(_, slot)| slot.standing != ConfigState::Current);
        let names: Vec<String> = changed.map(|(name, _)| name.clone()).collect();
        for name in names {
            let account = self.slots.get(&name).and_then(|slot| slot.account.as_ref());
            // One that is at work finishes first, by what it knows.
            if account.is_some_and(|account| account.core().is_idle()) {
                self.rebuild(&name);
            }
        }
        self.states = states(&self.settings)?.succeed(&self.states);
        self.say(&Message::new(Level::INFO, "reloaded", "the new config is in force"));
        Ok(())
    }

    /// Builds an account from the present configuration, and looks what is due by that; one that
    /// is not in it goes.
    fn rebuild(&mut self, name: &str) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        if slot.standing == ConfigState::Gone {
            self.slots.remove(name);
            return;
        }
        slot.standing = ConfigState::Current;
        let reread = Trigger { reread: true, ..Trigger::default() };
        let trigger = slot.asked.take().unwrap_or_default().and(reread);
        slot.replace(accounts(&self.settings, Some(name), MODE).pop());
        self.turns.push_back((name.to_owned(), Event::Begin(trigger)));
    }

    /// One sentence for `systemctl status`. It is told when something has happened, and so it
    /// names instants: durations would be wrong a minute later.
    fn summary(&self) -> String {
        let total = self.slots.len();
        let mut troubled = self.slots.iter().filter_map(|(name, slot)| Some((name, slot.problem()?)));
        let tokens = match (troubled.next(), total) {
            (None, 1) => "the token is fresh".into(),
            (None, _) => format!("all {total} tokens are fresh"),
            (Some((name, problem)), 1) => format!("{name}: {problem}"),
            (Some((name, problem)), _) => {
                let fresh = total - 1 - troubled.count();
                format!("{fresh} of {total} tokens are fresh; {name}: {problem}")
            }
        };
        let next = self.next_wakeup().map(|at| format!("; next look at {}", local(at.wall / 1000)));
        let config = if self.outdated { "the new config is wrong, the old one in force; " } else { "" };
        format!("{config}{tokens}{}", next.unwrap_or_default()).replace('\n', " ")
    }
}

/// Hands a refusal that a probe met to the loop, as if somebody had reported it.
fn report_refusal(requests: mpsc::UnboundedSender<LoopRequest>) -> ReportRefusal {
    Rc::new(move |account, token| {
        let (reply, ended) = oneshot::channel();
        // The loop outlives its tasks. The pass itself reports its result.
        let _ = requests.send(LoopRequest::Pass {
            account: account.to_owned(),
            wish: Purpose::Replacement(token),
            reply,
        });
        Box::pin(async {
            let _ = ended.await;
        })
    })
}

fn supervise(account: &mut Account, now: Timestamp) -> Result<SupervisorLock, LockError> {
    account.files().store().supervise(now)
}
