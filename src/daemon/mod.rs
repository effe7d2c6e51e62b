//! `run`: supervises all accounts in one thread until the process is stopped.

#[cfg(test)]
mod tests;

pub mod control;
#[cfg(feature = "fleet")]
mod fleet;
mod network;
mod overview;
mod queue;
mod reload;
mod requests;
mod slot;
pub mod standby;
mod supervisor;
mod systemd;
mod waiters;
mod watches;

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::account::context::Context;
use crate::config::Settings;
use crate::daemon::control::answer::Service;
use crate::daemon::network::NetworkChanges;
pub use crate::daemon::supervisor::RunError;
use crate::daemon::supervisor::{Progress, Supervisor};
use crate::daemon::systemd::{Notifier, Watchdog};
use crate::message::{Level, Message};
use crate::problem::chain;
use crate::refresh::decide::Trigger;
use crate::runtime::{Signals, event_loop};
use crate::signals;
use crate::timer::WakeUp;

/// How long a process that is to end waits for files that hang: as long as for a disk that refuses
/// an answer.
const HANG_PATIENCE: Duration = Duration::from_secs(30);

/// How soon a service manager that does not read is tried again.
const NOTIFY_AGAIN: Duration = Duration::from_secs(1);

/// Longer than any process lives.
const FAR: Duration = Duration::from_secs(3600 * 24 * 365 * 20);

pub struct RunOptions<'a> {
    /// The only account to supervise; `None` for all.
    pub only: Option<&'a str>,
    /// Reads the config again; the error says what is wrong with it.
    pub reload: &'a dyn Fn() -> Result<Settings, Message>,
    pub control: Option<control::SocketPlace>,
    /// Where to serve probes and metrics by TCP.
    pub listen: Option<SocketAddr>,
    /// Completes when it is time to stop, like a first SIGTERM.
    pub stop: Pin<Box<dyn Future<Output = ()> + 'a>>,
}

pub fn run(settings: Settings, context: Context, options: RunOptions<'_>) -> Result<(), RunError> {
    // The lock of each account is an open file. The soft limit, usually 1024, exists for select(2),
    // which is not used here. If the hard limit is no higher, the failing lock is reported.
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let runtime = event_loop()?;
    let result = LocalSet::new()
        .block_on(&runtime, async { Supervisor::new(settings, options.only, context)?.run(options).await });
    // Do not wait for threads that are still resolving a name.
    runtime.shutdown_background();
    result
}

impl Supervisor {
    /// Each round of the loop
    ///
    /// 1. yields once, so that tasks, signals and sockets progress even if a deadline stays in the
    ///    past;
    /// 2. hands queued events to their accounts. An account that needs the network moves into a
    ///    task until it has finished. Accounts start only here, so only so many run together;
    /// 3. returns, if the process is stopping and no account has anything left to finish;
    /// 4. sends systemd "ready" once every account was checked, then each new status text. It
    ///    waits until no task is running, so that the text does not change with every account;
    /// 5. sets the timer to the earliest deadline of all accounts;
    /// 6. waits until one thing happens: a task ends, a deadline passes, a clock, file or state
    ///    changes, a request or a signal arrives. Most of these only put events into the queue.
    async fn run(mut self, options: RunOptions<'_>) -> Result<(), RunError> {
        let RunOptions { reload, control, listen, mut stop, .. } = options;
        if let Some(address) = listen {
            self.listen(address).await?;
        }
        let mut received =
            Signals::new(&[Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP, Signal::USR1])?;
        signals::unblock_refresh();
        let mut notifier = Notifier::of_process();
        let mut watchdog = Watchdog::of_process();
        let network = NetworkChanges::new();
        let socket = self.open_socket(control);
        self.listen_to_databases();
        // From the stop on, files that hang are waited for this long.
        let mut leave = Box::pin(sleep(FAR));
        loop {
            tokio::task::yield_now().await;
            self.handle_queue();
            self.report_refusals();
            debug_assert!(self.is_noted());
            if self.stopping && self.is_idle() && self.hanging == 0 {
                drop(socket);
                return Ok(());
            }
            if self.ready && self.busy() == 0 && !self.stopping {
                notifier.status(self.summary());
            } else if !self.ready && self.busy() == 0 && self.overview.is_checked() {
                self.ready = true;
                let text = match self.slots.len() {
                    1 => "supervising 1 account".into(),
                    accounts => format!("supervising {accounts} accounts"),
                };
                self.report(&Message::new(Level::Info, "ready", text));
                notifier.ready(self.summary());
            }
            self.timer.set(self.next_wakeup());
            tokio::select! {
                Some(progress) = self.progress.recv() => match progress {
                    Progress::Slow(name) => self.note_slow(&name),
                    Progress::Finished(account) => {
                        self.accept(account);
                        if !self.ready && self.busy() > 0 {
                            notifier.starting();
                        }
                    }
                },
                Some((name, hangs)) = self.hangs.recv() => self.note_hang(&name, hangs),
                () = &mut leave, if self.stopping && self.is_idle() => {
                    let hung = self.slots.iter().find(|(_, slot)| slot.hangs);
                    let account = hung.map(|(name, _)| name.to_string()).unwrap_or_default();
                    return Err(RunError::Hang { account });
                }
                woken = self.timer.wait() => match woken {
                    WakeUp::Deadline => self.wake(),
                    WakeUp::ClockChanged => {
                        self.request_passes(Trigger { anew: true, ..Trigger::default() });
                    }
                },
                _ = self.config_watch.changed() => self.reload(reload),
                changes = self.state_watch.changed() => self.check_states(&changes),
                // Not while all is well: an idle process is not to wake.
                () = network.next(), if self.waits_for_network() => self.try_network(),
                () = watchdog.due() => notifier.alive(),
                () = sleep(NOTIFY_AGAIN), if notifier.is_pending() => notifier.flush(),
                Some(request) = self.requests.recv() => self.answer(request),
                () = &mut stop, if !self.stopping => {
                    leave = Box::pin(sleep(HANG_PATIENCE));
                    self.begin_stop(&mut notifier);
                }
                signal = received.next() => match signal {
                    Signal::HUP => {
                        notifier.reloading();
                        self.reload(reload);
                        notifier.reloaded();
                    }
                    Signal::USR1 => {
                        self.request_passes(Trigger { force: true, anew: true, ..Trigger::default() });
                    }
                    // A second signal changes nothing: the exchanges end within a minute, and to
                    // break one off could lose the login.
                    _ if self.stopping => {}
                    _ => {
                        leave = Box::pin(sleep(HANG_PATIENCE));
                        self.begin_stop(&mut notifier);
                    }
                },
            }
        }
    }

    /// Notices what other machines store.
    #[cfg(feature = "fleet")]
    pub(crate) fn listen_to_databases(&mut self) {
        let only = self.only.as_deref();
        self.databases.set(&self.settings, only, &self.request_sender, &self.context);
    }

    #[cfg(not(feature = "fleet"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(crate) fn listen_to_databases(&mut self) {}

    async fn listen(&self, address: SocketAddr) -> Result<(), RunError> {
        let listen = |source| RunError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        // A port 0 is any free port.
        let address = listener.local_addr().map_err(listen)?;
        control::listen(listener, self.service());
        let text = format!("serving /healthz, /readyz and /metrics on {address}");
        self.report(&Message::new(Level::Info, "listening", text));
        Ok(())
    }

    fn begin_stop(&mut self, notifier: &mut Notifier) {
        let text = "stopping; refreshes in progress are completed first";
        self.report(&Message::new(Level::Info, "stopping", text));
        if self.is_idle() {
            notifier.stopping();
        } else {
            notifier.finishing();
        }
        self.stop();
    }

    fn service(&self) -> Service {
        Service::new(self.request_sender.clone(), Rc::clone(&self.context), Rc::clone(&self.counts))
    }

    /// `run` works without its control socket, so that an error is only a warning.
    fn open_socket(&self, place: Option<control::SocketPlace>) -> Option<control::Socket> {
        match control::open(&place?, self.service()) {
            Ok(socket) => {
                let text = format!("the control socket is {}", socket.path().display());
                self.report(&Message::new(Level::Debug, "control", text));
                Some(socket)
            }
            Err(error) => {
                let message = Message::new(Level::Warn, "no_control", "cannot open the control socket");
                self.report(&message.cause(Some(&chain(&error))).hint(error.hint()));
                None
            }
        }
    }
}
