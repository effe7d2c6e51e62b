//! All accounts, in one thread, for as long as the process lives.

mod signals;
mod slot;
#[cfg(test)]
mod tests;
mod waiting;
mod watched;

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::account::Account;
use super::asks::{Ask, Asks, InForce};
use super::control::{self, ControlError};
use super::systemd::{Notifier, Watchdog};
use super::timer::{Timer, Woken};
use super::trouble::RAISE_LIMITS;
use super::watch::Watch;
use super::words::local;
use super::{Context, EXCHANGES, Mode, accounts};
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::store::lock::{LockError, SupervisorLock};
use crate::supervisor::decide::Trigger;
use crate::supervisor::{Event, LOCK_PATIENCE};
use signals::{Asked, Signals};
use slot::{Slot, Standing};
use watched::{inputs, states};

/// What `run` needs from outside.
pub trait Surroundings {
    /// Reads the configuration again; `None`, and the reason told to whoever listens, if it is
    /// wrong.
    fn reload(&self) -> Option<Settings>;
    /// The configuration was taken over.
    fn reloaded(&self);
    /// Every account that was overdue is fresh, or the reason why not is known.
    fn ready(&self, accounts: usize);
    /// A signal asked to stop, or [`asked_to_stop`](Self::asked_to_stop) did.
    fn stopping(&self);
    /// An account cannot be supervised.
    fn unsupervised(&self, account: &str, error: &LockError);
    /// Where the control socket is to be; by default there is none.
    fn control(&self) -> Option<control::Place> {
        None
    }
    /// The control socket is there, or cannot be.
    fn controlled(&self, _opened: Result<&Path, &ControlError>) {}
    /// Completes when it is time to stop, as at a first SIGTERM. By default it never does.
    fn asked_to_stop(&self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(pending())
    }
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

/// Supervises all accounts until a signal, or [`Surroundings::asked_to_stop`], stops it.
pub fn run(
    settings: Settings,
    only: Option<&str>,
    context: Context,
    surroundings: &dyn Surroundings,
) -> Result<(), RunError> {
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // A thread that looked up a name is not kept waiting for the next hour's refresh.
        .thread_keep_alive(std::time::Duration::from_secs(1))
        .build()?;
    let done = LocalSet::new()
        .block_on(&runtime, async { Runner::new(settings, only, context)?.run(surroundings).await });
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
    slots: BTreeMap<String, Slot>,
    /// Accounts whose turn it is, and why.
    turns: VecDeque<(String, Event)>,
    away: usize,
    /// For those who ask something of the loop: through the control socket, or by a probe.
    ask: mpsc::UnboundedSender<Ask>,
    asks: Asks,
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
    fn new(settings: Settings, only: Option<&str>, context: Context) -> Result<Self, RunError> {
        let (ask, asks) = mpsc::unbounded_channel();
        let (home, returning) = mpsc::unbounded_channel();
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

    async fn run(mut self, surroundings: &dyn Surroundings) -> Result<(), RunError> {
        let mut signals = Signals::new()?;
        let mut asked_to_stop = surroundings.asked_to_stop();
        let mut notifier = Notifier::of_process();
        let mut watchdog = Watchdog::of_process();
        let socket = self.open_socket(surroundings);
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
                surroundings.ready(self.slots.len());
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
                woken = self.timer.woken() => match woken? {
                    Woken::Deadline => self.wake(),
                    Woken::ClockChanged => self.ask_all(Trigger { anew: true, ..Trigger::default() }),
                },
                changed = self.watch.changed() => {
                    changed?;
                    self.reload(surroundings)?;
                }
                changed = self.states.changed() => {
                    changed?;
                    self.look_at_states()?;
                }
                () = watchdog.due() => watchdog.answer(),
                Some(ask) = self.asks.recv() => self.hear(ask),
                () = &mut asked_to_stop, if !self.stopping => self.begin_to_stop(surroundings, &notifier),
                asked = signals.next() => match asked {
                    // Once more changes nothing: what is under way ends within a minute, and to
                    // leave it could cost the login.
                    Asked::Stop if self.stopping => {}
                    Asked::Stop => self.begin_to_stop(surroundings, &notifier),
                    Asked::Reload => {
                        notifier.reloading();
                        self.reload(surroundings)?;
                        notifier.reloaded();
                    }
                    Asked::Refresh => {
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
        account.run_hooks(&self.context);
        account.push(&self.context);
        account.probe(&self.context, &self.ask);
        account.forget();
        let (idle, told) = (account.core().is_idle(), account.told_to_stop());
        slot.account = Some(account);
        if self.stopping {
            if !told {
                self.turns.push_back((name, Event::Stop));
            }
        } else if slot.standing != Standing::Current && idle {
            self.rebuild(&name);
        } else if let Some(trigger) = slot.asked.take() {
            self.turns.push_back((name, Event::Begin(trigger)));
        } else if outdated || slot.waiting.is_unheard() {
            self.turns.push_back((name, Event::Begin(Trigger::default())));
        }
    }

    /// The control socket, as long as it is held.
    fn open_socket(&self, surroundings: &dyn Surroundings) -> Option<control::Socket> {
        let place = surroundings.control()?;
        let opened = control::open(&place, self.ask.clone(), Rc::clone(&self.context));
        surroundings.controlled(opened.as_ref().map(control::Socket::path));
        opened.ok()
    }

    /// Somebody asks something.
    fn hear(&mut self, ask: Ask) {
        match ask {
            Ask::InForce(reply) => {
                let ready = self.ready && !self.stopping;
                // Who has gone needs no answer.
                let _ = reply.send(InForce { settings: Arc::clone(&self.settings), ready });
            }
            Ask::Pass { account, wish, reply } => {
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

    fn begin_to_stop(&mut self, surroundings: &dyn Surroundings, notifier: &Notifier) {
        surroundings.stopping();
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
    fn reload(&mut self, surroundings: &dyn Surroundings) -> io::Result<()> {
        self.watch.forget();
        let settings = surroundings.reload();
        self.outdated = settings.is_none();
        let Some(settings) = settings else { return Ok(()) };
        // What has changed since it was read is read as well.
        self.watch = inputs(&settings)?.succeed(&self.watch);
        let moved = settings.state_dir != self.settings.state_dir;
        self.settings = Arc::new(settings);
        for slot in self.slots.values_mut() {
            slot.standing = Standing::Gone;
        }
        for mut account in accounts(&self.settings, self.only.as_deref(), MODE) {
            let name = account.name().to_owned();
            match self.slots.get_mut(&name) {
                Some(slot) if !moved => slot.standing = Standing::Changed,
                known => match (supervise(&mut account, self.context.clock.now()), known) {
                    (Ok(supervision), Some(slot)) => {
                        (slot.standing, slot.supervision) = (Standing::Changed, supervision);
                    }
                    (Ok(supervision), None) => {
                        self.slots.insert(name.clone(), Slot::new(account, supervision));
                        self.turns.push_back((name, Event::Begin(Trigger::default())));
                    }
                    // The same directory by another path.
                    (Err(LockError::Supervised { pid, .. }), Some(slot))
                        if pid == Some(std::process::id()) =>
                    {
                        slot.standing = Standing::Changed;
                    }
                    (Err(error), _) => surroundings.unsupervised(&name, &error),
                },
            }
        }
        let changed = self.slots.iter().filter(|(_, slot)| slot.standing != Standing::Current);
        let names: Vec<String> = changed.map(|(name, _)| name.clone()).collect();
        for name in names {
            let account = self.slots.get(&name).and_then(|slot| slot.account.as_ref());
            // One that is at work finishes first, by what it knows.
            if account.is_some_and(|account| account.core().is_idle()) {
                self.rebuild(&name);
            }
        }
        self.states = states(&self.settings)?.succeed(&self.states);
        surroundings.reloaded();
        Ok(())
    }

    /// Builds an account from the present configuration, and looks what is due by that; one that
    /// is not in it goes.
    fn rebuild(&mut self, name: &str) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        if slot.standing == Standing::Gone {
            self.slots.remove(name);
            return;
        }
        slot.standing = Standing::Current;
        let reread = Trigger { reread: true, ..Trigger::default() };
        let trigger = slot.asked.take().unwrap_or_default().and(reread);
        slot.account = accounts(&self.settings, Some(name), MODE).pop().map(Box::new);
        self.turns.push_back((name.to_owned(), Event::Begin(trigger)));
    }

    /// One sentence for `systemctl status`. It is told when something has happened, and so it
    /// names instants: durations would be wrong a minute later.
    fn summary(&self) -> String {
        let total = self.slots.len();
        let mut troubled = self.slots.iter().filter_map(|(name, slot)| Some((name, slot.trouble()?)));
        let tokens = match (troubled.next(), total) {
            (None, 1) => "the token is fresh".into(),
            (None, _) => format!("all {total} tokens are fresh"),
            (Some((name, trouble)), 1) => format!("{name}: {trouble}"),
            (Some((name, trouble)), _) => {
                let fresh = total - 1 - troubled.count();
                format!("{fresh} of {total} tokens are fresh; {name}: {trouble}")
            }
        };
        let next = self.next_wakeup().map(|at| format!("; next look at {}", local(at.wall / 1000)));
        let config = if self.outdated { "the new config is wrong, the old one in force; " } else { "" };
        format!("{config}{tokens}{}", next.unwrap_or_default()).replace('\n', " ")
    }
}

fn supervise(account: &mut Account, now: Timestamp) -> Result<SupervisorLock, LockError> {
    account.files().store().supervise(now)
}
