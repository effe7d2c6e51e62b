//! Events for accounts: the queue, the tasks that accounts run in, and requests.

use std::collections::BTreeSet;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::account::Account;
use crate::config::AccountName;
use crate::daemon::requests::{CurrentConfig, LoopRequest};
use crate::daemon::slot::{ConfigState, HeldPlace, Wake};
use crate::daemon::supervisor::{Progress, Supervisor};
use crate::daemon::watches;
use crate::files::watch::Changes;
use crate::refresh::decide::Trigger;
use crate::refresh::outcome::Outcome;

/// A pass that takes longer leaves its place among the quick ones to another: most of the time it waits for the
/// server or the disk.
const SLOW_AFTER: Duration = Duration::from_millis(50);

impl Supervisor {
    /// Hands queued events to their accounts, as long as there are places.
    pub fn handle_queue(&mut self) {
        while let Some((host, (name, mut event))) = self.queue.pop() {
            let Some(slot) = self.slots.get_mut(&name) else {
                self.queue.release(&host, false);
                continue;
            };
            slot.queued = false;
            let Some(mut account) = slot.account.take() else {
                // A task works on it since an earlier event.
                if let Wake::Begin(trigger) = event {
                    slot.add_trigger(trigger);
                }
                self.queue.release(&host, false);
                continue;
            };
            if let Wake::Begin(trigger) = event {
                event = Wake::Begin(trigger.and(slot.waiters.start()));
            }
            if account.start(event.into(), &self.context) {
                slot.place = Some(Box::new(HeldPlace { host, is_slow: false }));
                self.note(&name);
                self.running += 1;
                self.context.set_active(self.running);
                let (context, sender) = (Rc::clone(&self.context), self.progress_sender.clone());
                tokio::task::spawn_local(async move {
                    // The supervisor outlives its tasks.
                    let tell = |progress| drop(sender.send(progress));
                    {
                        let mut finish = pin!(account.finish(&context));
                        if timeout(SLOW_AFTER, &mut finish).await.is_err() {
                            tell(Progress::Slow(name));
                            finish.await;
                        }
                    }
                    tell(Progress::Finished(account));
                });
            } else {
                self.queue.release(&host, false);
                self.update(account);
            }
        }
    }

    /// Lets another account of the same host run beside one that takes long.
    pub fn note_slow(&mut self, name: &AccountName) {
        let place = self.slots.get_mut(name).and_then(|slot| slot.place.as_mut());
        if let Some(place) = place.filter(|place| !place.is_slow) {
            place.is_slow = true;
            self.queue.slow(&place.host);
        }
    }

    /// Takes an account back from its task.
    pub fn accept(&mut self, account: Box<Account>) {
        if let Some(slot) = self.slots.get_mut(account.name()) {
            slot.place.take().iter().for_each(|place| self.queue.release(&place.host, place.is_slow));
        }
        self.running -= 1;
        self.context.set_active(self.running);
        self.update(account);
    }

    /// An account whose files hang gives its place back, and nobody waits for it any more.
    pub fn note_hang(&mut self, name: &str, hangs: bool) {
        let Some(name) = self.slots.get_key_value(name).map(|(name, _)| name.clone()) else { return };
        let Some(slot) = self.slots.get_mut(&name) else { return };
        slot.hangs = hangs;
        slot.checked = true;
        if hangs {
            self.hanging += 1;
            slot.place.take().iter().for_each(|place| self.queue.release(&place.host, place.is_slow));
        } else {
            self.hanging -= 1;
        }
        self.note(&name);
    }

    /// How many accounts are in tasks that will end.
    pub fn busy(&self) -> usize {
        self.running - self.hanging
    }

    /// Puts an account back into its slot: replies to requests, starts hooks, pushes and probes,
    /// and queues what remains to be done.
    fn update(&mut self, account: Box<Account>) {
        let name = account.configured().name.clone();
        self.put_back(&name, account);
        self.note(&name);
    }

    fn put_back(&mut self, name: &AccountName, mut account: Box<Account>) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        slot.checked |= account.outcome().is_some() || account.core().is_unstored();
        // A process that ends waits for nothing: to watch and to read all states would be most of a stop.
        slot.waits_for_login = !self.stopping && account.waits_for_login();
        let mut outdated = false;
        if slot.waits_for_login {
            // Watch first, then compare: no change is missed in between.
            let login = account.configured().login_account();
            watches::add_state(&mut self.state_watch, &self.settings, name, login);
            outdated = account.is_outdated();
        }
        slot.ends_at = account.ends_at();
        slot.waiters.reply(&account, self.context.clock.now());
        let features = &mut slot.features;
        match &features.hooks {
            Some(hooks) => hooks.begin(&mut account, &self.hook_places, &self.context),
            None => drop(account.take_finished()),
        }
        // A token that could not be published is not sent either.
        if let Some(pushes) = &mut features.pushes
            && account.core().is_idle()
            && !matches!(account.outcome(), Some(Outcome::NotStored(_)))
        {
            pushes.send(account.core().record(), &self.push_clients, &self.context);
        }
        if let Some(probes) = &mut features.probes {
            probes.begin(&self.probe_places, &self.report_refusal, &self.context);
        }
        account.forget();
        let (idle, stopped) = (account.core().is_idle(), account.is_stopping());
        slot.account = Some(account);
        if self.stopping {
            if !stopped {
                slot.enqueue(name, Wake::Stop, &mut self.queue);
            }
        } else if idle && !matches!(slot.config, ConfigState::Current) {
            self.rebuild(name);
        } else if let Some(trigger) = slot.next_trigger.take() {
            slot.enqueue(name, Wake::Begin(*trigger), &mut self.queue);
        } else if outdated || slot.waiters.need_pass() {
            slot.enqueue(name, Wake::Begin(Trigger::default()), &mut self.queue);
        }
    }

    pub fn answer(&mut self, request: LoopRequest) {
        match request {
            LoopRequest::CurrentConfig(reply) => {
                let ready = self.ready && !self.stopping;
                // The requester may have disconnected.
                let _ = reply.send(CurrentConfig { settings: Arc::clone(&self.settings), ready });
            }
            #[cfg(feature = "fleet")]
            LoopRequest::Row { account, trigger } => {
                if let Some(slot) = self.slots.get_mut(&account).filter(|_| !self.stopping) {
                    slot.request_pass(&account, trigger, &mut self.queue);
                }
            }
            LoopRequest::Pass { account, purpose, reply } => {
                let Some(slot) = self.slots.get_mut(&account).filter(|_| !self.stopping) else { return };
                // One pass serves all requests that came before it. Requests that come while a
                // pass is running get another one when the account comes back.
                let queue = slot.account.is_some() && !slot.waiters.need_pass();
                slot.waiters.add(purpose, reply);
                if queue {
                    slot.enqueue(&account, Wake::Begin(Trigger::default()), &mut self.queue);
                }
            }
        }
    }

    /// Queues a pass for each account whose state another process may have changed.
    pub fn check_states(&mut self, changes: &Changes<AccountName>) {
        let names: Vec<AccountName> = if changes.are_incomplete {
            self.state_watch = watches::states(&self.settings);
            self.slots.keys().cloned().collect()
        } else {
            changes.keys.iter().cloned().collect()
        };
        let mut unneeded = BTreeSet::new();
        for name in names {
            let Some(slot) = self.slots.get_mut(&name) else { continue };
            let is_watched = slot.features.pushes.is_some() || slot.features.login.is_some();
            if is_watched {
                // Its directory may be another one by now.
                let login = slot.features.login.as_ref().unwrap_or(&name);
                watches::add_state(&mut self.state_watch, &self.settings, &name, login);
            }
            // A running pass may have read the state before it changed. An account that waits for
            // a login compares the state again when it comes back.
            if is_watched || (slot.account.is_some() && slot.waits_for_login) {
                slot.request_pass(&name, Trigger::default(), &mut self.queue);
            } else if slot.account.is_some() {
                unneeded.insert(name);
            }
        }
        if !unneeded.is_empty() {
            self.state_watch.remove(&unneeded);
        }
    }

    /// Queues the accounts whose deadline has passed.
    pub fn wake(&mut self) {
        let now = self.context.clock.now();
        while let Some(name) = self.overview.due(now.boot).cloned() {
            // Every account with a deadline has a slot.
            let Some(slot) = self.slots.get_mut(&name) else { break };
            slot.queued = true;
            slot.enqueue(&name, Wake::Woke, &mut self.queue);
            self.note(&name);
        }
    }

    /// Queues a pass of every account.
    pub fn request_passes(&mut self, trigger: Trigger) {
        for (name, slot) in &mut self.slots {
            slot.request_pass(name, trigger, &mut self.queue);
        }
    }

    /// Stops all accounts. The running ones are stopped when they come back.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.context.stop();
        self.queue.drain();
        let names: Vec<AccountName> = self.slots.keys().cloned().collect();
        for name in &names {
            if let Some(slot) = self.slots.get(name).filter(|slot| slot.account.is_some()) {
                slot.enqueue(name, Wake::Stop, &mut self.queue);
            }
            self.note(name);
        }
    }
}
