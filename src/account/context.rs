//! The parts that all accounts of a process share. They know no feature: a feature that needs to
//! know what happens to an account is an [`Observer`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::AccountName;
use crate::http::{HttpEndpoint, HttpOptions};
use crate::message::Message;
use crate::refresh::LOCK_PATIENCE;
use crate::refresh::outcome::Report;
use crate::store;

/// Receives what happens to the accounts: the log, the counts, the terminal.
pub trait Observer {
    fn notice(&self, notice: &Notice<'_>);
}

#[derive(Debug)]
pub enum Notice<'a> {
    /// A report of the core.
    Report {
        /// Observers that remember accounts share the name.
        account: &'a AccountName,
        token_file: &'a Path,
        report: &'a Report,
        /// At the end of a pass: the next one, if it is scheduled.
        next_pass: Option<Timestamp>,
        now: Timestamp,
    },
    /// The files of an account hang, or do not hang any more.
    Hang { account: &'a str, hangs: bool, message: &'a Message },
    /// The config has no such account any more.
    Removed { account: &'a str },
    /// A message of a feature or the daemon; some are about no account.
    Message { account: Option<&'a str>, message: &'a Message },
}

pub struct Context {
    pub clock: Rc<dyn Clock>,
    observers: Vec<Rc<dyn Observer>>,
    /// The HTTP clients, while any account is active.
    endpoints: RefCell<HashMap<HttpOptions, Arc<HttpEndpoint>>>,
    active: Cell<usize>,
    /// Read by the threads that work on files as well.
    stopping: Arc<AtomicBool>,
    /// Do file work on the caller's thread: there is no other account that it could delay.
    pub inline: bool,
    /// How long to wait for files that hang; `None`: for ever.
    pub hang_patience: Option<Duration>,
}

impl Context {
    pub fn new(observer: Rc<dyn Observer>) -> Self {
        Self {
            clock: Rc::new(SystemClock::new()),
            observers: vec![observer],
            endpoints: RefCell::default(),
            active: Cell::new(0),
            stopping: Arc::default(),
            inline: false,
            hang_patience: None,
        }
    }

    pub fn observe(&mut self, observer: Rc<dyn Observer>) {
        self.observers.push(observer);
    }

    /// Sends a notice to all observers.
    pub fn notice(&self, notice: &Notice<'_>) {
        self.observers.iter().for_each(|observer| observer.notice(notice));
    }

    /// Sends a message about an account to all observers.
    pub fn message(&self, account: &str, message: &Message) {
        self.notice(&Notice::Message { account: Some(account), message });
    }

    /// The HTTP client with these options. Accounts share it.
    pub fn endpoint(&self, options: HttpOptions) -> Arc<HttpEndpoint> {
        let mut endpoints = self.endpoints.borrow_mut();
        let endpoint =
            endpoints.entry(options.clone()).or_insert_with(|| Arc::new(HttpEndpoint::new(options)));
        Arc::clone(endpoint)
    }

    /// Sets the number of active accounts. With none, the HTTP clients are dropped, with their
    /// connections and root certificates, and the index of seeds.
    pub fn set_active(&self, active: usize) {
        self.active.set(active);
        if active == 0 {
            self.endpoints.take();
            store::seeds::forget();
        }
    }

    /// From now on active accounts begin nothing new.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The same, for another thread.
    pub fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopping)
    }
}

/// The differences between the commands.
#[derive(Debug, Clone, Copy)]
pub struct Mode {
    /// See [`Policy`](crate::refresh::Policy).
    pub patient: bool,
    pub horizon: Option<Duration>,
    pub lock_patience: Duration,
}

impl Default for Mode {
    fn default() -> Self {
        Self { patient: false, horizon: None, lock_patience: LOCK_PATIENCE }
    }
}
