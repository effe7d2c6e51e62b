//! The parts that all accounts of a process share. It knows no feature: a feature that needs to know what happens is
//! an [`Observer`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::http::{HttpEndpoint, HttpOptions};
use crate::message::Message;
use crate::refresh::LOCK_PATIENCE;
use crate::refresh::outcome::Report;

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
    /// The files of an account hang, or answer again.
    Hang {
        /// Name of the account.
        account: &'a str,
        /// Whether they hang now.
        hangs: bool,
        /// The words.
        message: &'a Message,
    },
    /// A feature or the daemon reports something, in its own words.
    Message {
        /// Name of the account, if it is about one.
        account: Option<&'a str>,
        /// The words.
        message: &'a Message,
    },
}

/// The parts that all accounts of a process share.
pub struct Context {
    /// The machine's clocks.
    pub clock: Rc<dyn Clock>,
    observers: Vec<Rc<dyn Observer>>,
    /// The clients of the token endpoints, as long as there is a use for them.
    endpoints: RefCell<HashMap<HttpOptions, Rc<HttpEndpoint>>>,
    active: Cell<usize>,
    stopping: Cell<bool>,
    /// Do file work on the caller's thread: one account has nobody to hold up.
    pub inline: bool,
    /// How long to wait for files that hang; `None` for ever.
    pub hang_patience: Option<Duration>,
}

impl Context {
    /// For one process.
    pub fn new(observer: Rc<dyn Observer>) -> Self {
        Self {
            clock: Rc::new(SystemClock::new()),
            observers: vec![observer],
            endpoints: RefCell::default(),
            active: Cell::new(0),
            stopping: Cell::new(false),
            inline: false,
            hang_patience: None,
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

    /// The client with these options, which accounts share.
    pub fn endpoint(&self, options: HttpOptions) -> Rc<HttpEndpoint> {
        let mut endpoints = self.endpoints.borrow_mut();
        let endpoint =
            endpoints.entry(options.clone()).or_insert_with(|| Rc::new(HttpEndpoint::new(options)));
        Rc::clone(endpoint)
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
