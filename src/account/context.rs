//! What all accounts of a process share. It knows no feature: whoever wants to know what happens is
//! an [`Observer`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::account::Account;
use crate::account::client::{Endpoints, REREAD};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config;
use crate::message::{Message, login_hint};
use crate::refresh::outcome::Report;
use crate::refresh::{LOCK_PATIENCE, Policy};

/// How many accounts exchange tokens at the same time: enough to hide the network, few enough to
/// stay small, and polite to a provider.
pub const EXCHANGES: usize = 64;

/// Threads that do file work while a wave of accounts is due together: more of them wait for the
/// same disk.
const FILE_THREADS: usize = 8;

/// Receives what happens to the accounts: the log, the counts, the terminal.
pub trait Observer {
    /// One thing has happened.
    fn notice(&self, notice: &Notice<'_>);
}

/// Something that has happened.
#[derive(Debug)]
pub enum Notice<'a> {
    /// The core reports something.
    Report {
        /// Name of the account.
        account: &'a str,
        /// The report.
        report: &'a Report,
        /// At the end of a pass: when the next one comes, if time alone brings one.
        next_pass: Option<Timestamp>,
        /// The instant of the report.
        now: Timestamp,
    },
    /// A feature or the daemon reports something, in its own words.
    Message {
        /// Name of the account, if it is about one.
        account: Option<&'a str>,
        /// The words.
        message: &'a Message,
    },
}

/// What all accounts of a process share.
pub struct Context {
    /// The machine's clocks.
    pub clock: Rc<dyn Clock>,
    observers: Vec<Rc<dyn Observer>>,
    /// The clients of the token endpoints, as long as there is a use for them.
    pub(super) endpoints: RefCell<Endpoints>,
    file_threads: Arc<Semaphore>,
    active: Cell<usize>,
    stopping: Cell<bool>,
}

impl Context {
    /// For one process.
    pub fn new(observer: Rc<dyn Observer>) -> Self {
        Self {
            clock: Rc::new(SystemClock::new()),
            observers: vec![observer],
            endpoints: RefCell::default(),
            file_threads: Arc::new(Semaphore::new(FILE_THREADS)),
            active: Cell::new(0),
            stopping: Cell::new(false),
        }
    }

    /// Adds an observer.
    pub fn observe(&mut self, observer: Rc<dyn Observer>) {
        self.observers.push(observer);
    }

    /// Tells every observer.
    pub fn notice(&self, notice: &Notice<'_>) {
        self.observers.iter().for_each(|observer| observer.notice(notice));
    }

    /// Tells every observer what a feature has to say about an account.
    pub fn message(&self, account: &str, message: &Message) {
        self.notice(&Notice::Message { account: Some(account), message });
    }

    /// How many accounts are at work. The last to finish takes the clients with it: their
    /// connections, and the certificates they hold.
    pub fn set_active(&self, active: usize) {
        self.active.set(active);
        if active == 0 {
            self.endpoints.take();
        }
    }

    /// From now on accounts at work finish what cannot be left undone, and begin nothing.
    pub fn stop(&self) {
        self.stopping.set(true);
    }

    /// Whether the process is to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// The threads for file work, if enough accounts are at work to need them.
    pub(super) fn wave(&self) -> Option<Arc<Semaphore>> {
        (self.active.get() > 1).then(|| Arc::clone(&self.file_threads))
    }
}

/// How the commands differ.
#[derive(Debug, Clone, Copy)]
pub struct Mode {
    /// Keep trying to store a rotated token for ever.
    pub patient: bool,
    /// Refresh what would expire within this time.
    pub horizon: Option<Duration>,
    /// How long to wait for another process that is refreshing.
    pub lock_patience: Duration,
}

impl Default for Mode {
    fn default() -> Self {
        Self { patient: false, horizon: None, lock_patience: LOCK_PATIENCE }
    }
}

/// The accounts of a config, each ready for its first pass; `only` picks one by name.
pub fn accounts(settings: &Arc<config::Settings>, only: Option<&str>, mode: Mode) -> Vec<Account> {
    let chosen = settings.chosen(only);
    chosen.map(|account| Account::new(settings, account, policy(settings, account, mode))).collect()
}

/// What the core needs to know of an account's configuration.
pub fn policy(settings: &config::Settings, account: &config::AccountConfig, mode: Mode) -> Policy {
    // The fingerprint of a refresh_token that config holds as a string.
    let inline_seed = match &account.refresh_token {
        Some(config::SecretSource::Inline(secret)) => Some(secret.fingerprint()),
        _ => None,
    };
    Policy {
        account: account.name.to_string(),
        config: settings.path.to_string_lossy().into_owned(),
        skew: account.skew,
        default_lifetime: account.default_lifetime,
        horizon: mode.horizon,
        inline_seed,
        login_hint: login_hint(settings, account),
        reread_secrets: inline_seed.is_none().then_some(REREAD),
        lock_patience: mode.lock_patience,
        remove_expired: account.remove_expired,
        patient: mode.patient,
    }
}
