//! File work of an account on another thread: a file system that hangs must stop this account alone.
//!
//! Each trip to a thread and back is two switches between threads. So the thread takes the core along and
//! goes on with the actions that follow, until one needs the network or the pass ends: a refresh makes three
//! trips, not seven.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::account::files::Files;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::refresh::outcome::Report;
use crate::refresh::{Action, Event, Refresher};

/// The parts of an account that go to a thread.
pub struct Trip {
    pub files: Box<Files>,
    pub core: Refresher,
    pub queue: VecDeque<Action>,
    /// The reports on the way.
    pub told: Vec<Told>,
    pub clock: SystemClock,
    /// The process begins nothing new: the account must know before its next action.
    pub stopping: Arc<AtomicBool>,
    /// Alive while the account waits for the end. A thread whose files hung for too long begins nothing more:
    /// the mark of a request that nobody sends would look like one whose reply was lost.
    pub awaited: Weak<()>,
}

/// A report, and what was true when the core made it.
pub struct Told {
    pub report: Report,
    pub next_pass: Option<Timestamp>,
    pub now: Timestamp,
}

impl Trip {
    /// Performs this action, and those that follow from it.
    #[must_use]
    pub fn done(mut self, action: Action) -> Self {
        let mut next = Some(action);
        while let Some(action) = next {
            let event = perform(&mut self.files, action);
            let now = self.clock.now();
            if let Some(event) = event {
                self.queue.extend(self.core.handle(now, event));
            }
            next = self.next(now);
        }
        self
    }

    /// The next action on files; the reports before it are kept.
    fn next(&mut self, now: Timestamp) -> Option<Action> {
        loop {
            let may_go_on = !self.stopping.load(Ordering::Relaxed) && self.awaited.strong_count() > 0;
            let action = self.queue.pop_front_if(|action| {
                matches!(action, Action::Report(_)) || may_go_on && !needs_network(action)
            })?;
            let Action::Report(report) = action else { return Some(action) };
            let is_end = matches!(*report, Report::Finished(_));
            self.told.push(Told { report: *report, next_pass: self.core.next_wakeup(), now });
            if is_end {
                return None;
            }
        }
    }
}

pub fn needs_network(action: &Action) -> bool {
    matches!(action, Action::ReadInputs | Action::Request(_) | Action::Ask(_))
}

/// Performs an action on files; `None` for another one.
pub fn perform(files: &mut Files, action: Action) -> Option<Event> {
    Some(match action {
        Action::Load => Event::Loaded(files.load()),
        Action::Lock => Event::Locked(files.lock()),
        Action::TakeOver(seed) => Event::TakenOver(files.take_over(seed)),
        Action::Prepare(record) => Event::Prepared(files.prepare(&record)),
        Action::Persist(record) => Event::Persisted(files.persist(&record)),
        Action::Publish(token) => Event::Published(files.publish(&token)),
        Action::Withdraw(token) => Event::Withdrawn(files.withdraw(&token)),
        Action::Unlock => {
            files.unlock();
            Event::Unlocked
        }
        Action::Report(_) | Action::ReadInputs | Action::Request(_) | Action::Ask(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::account::Account;
    use crate::account::context::Mode;
    use crate::account::policy::policy;
    use crate::account::trip::*;
    use crate::config;
    use crate::config::Environment;

    #[test]
    fn a_thread_that_nobody_waits_for_begins_nothing_more() {
        let text = "token_endpoint = \"http://127.0.0.1/\"\nclient_id = \"c\"\nrefresh_token = \"seed\"\n\
                    token_file = \"/nowhere/token\"\nstate_dir = \"/nowhere/state\"\n";
        let settings = config::parse(text, "/nowhere/config.toml".as_ref(), &Environment::default());
        let settings = Arc::new(settings.unwrap());
        let configured = &settings.accounts[0];
        let mut account = Account::new(&settings, configured, policy(&settings, configured, Mode::default()));
        account.files();
        let waits = Arc::new(());
        let mut trip = Trip {
            files: account.files.take().unwrap(),
            core: account.core,
            queue: VecDeque::from([Action::Lock, Action::Unlock]),
            told: Vec::new(),
            clock: SystemClock::new(),
            stopping: Arc::default(),
            awaited: Arc::downgrade(&waits),
        };
        let now = trip.clock.now();
        assert!(matches!(trip.next(now), Some(Action::Lock)));
        drop(waits);
        assert!(trip.next(now).is_none());
        assert_eq!(trip.queue.len(), 1);
    }
}
