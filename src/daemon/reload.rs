//! Changes of the config while `run` is running.

use std::sync::Arc;

use crate::account::context::Notice;
use crate::account::policy::accounts;
use crate::config::{AccountName, Settings};
use crate::daemon::overview::Facts;
use crate::daemon::slot::{ConfigState, Slot, Wake};
use crate::daemon::supervisor::{MODE, Supervisor, supervise};
use crate::daemon::watches;
use crate::message::{Level, Message};
use crate::problem::chain;
use crate::refresh::decide::Trigger;
use crate::store;
use crate::store::lock::LockError;

impl Supervisor {
    /// Loads the config again and uses it; one with an error changes nothing.
    pub fn reload(&mut self, load: &dyn Fn() -> Result<Settings, Message>) {
        self.config_watch.forget();
        let loaded = load();
        self.config_invalid = loaded.is_err();
        let settings = match loaded {
            Ok(settings) => settings,
            Err(message) => {
                self.report(&message);
                return;
            }
        };
        // The new watch reports what has changed since the config was read.
        self.config_watch = watches::inputs(&settings).succeed(&self.config_watch);
        let moved = !store::is_shared(&settings, &self.settings);
        self.settings = Arc::new(settings);
        for slot in self.slots.values_mut() {
            slot.config = ConfigState::Removed;
        }
        let (settings, only) = (Arc::clone(&self.settings), self.only.clone());
        for mut account in accounts(&settings, only.as_deref(), MODE) {
            let name = account.configured().name.clone();
            match self.slots.get_mut(&name) {
                Some(slot) if !moved => slot.config = ConfigState::Changed(Box::new(account)),
                slot => match (supervise(&mut account, self.context.clock.now()), slot) {
                    (Ok(lock), Some(slot)) => {
                        (slot.config, slot.lock) = (ConfigState::Changed(Box::new(account)), lock);
                    }
                    (Ok(lock), None) => {
                        let slot = Box::new(Slot::new(account, lock));
                        slot.enqueue(&name, Wake::Begin(Trigger::default()), &mut self.queue);
                        self.slots.insert(name.clone(), slot);
                        self.note(&name);
                    }
                    // The same directory under another path.
                    (Err(LockError::Supervised { pid, .. }), Some(slot))
                        if pid == Some(std::process::id()) =>
                    {
                        slot.config = ConfigState::Changed(Box::new(account));
                    }
                    (Err(error), _) => {
                        let message =
                            Message::new(Level::Error, "unsupervised", "cannot supervise the account")
                                .cause(Some(&chain(&error)));
                        self.context.message(name.as_str(), &Message { hint: error.hint(), ..message });
                    }
                },
            }
        }
        // Accounts with work left finish it with the old config. The queue rebuilds them then.
        let idle = self.slots.iter().filter(|(_, slot)| {
            let account = slot.account.as_ref().filter(|_| !matches!(slot.config, ConfigState::Current));
            account.is_some_and(|account| account.core().is_idle())
        });
        let names: Vec<AccountName> = idle.map(|(name, _)| name.clone()).collect();
        for name in &names {
            self.rebuild(name);
            self.note(name);
        }
        self.state_watch = watches::states(&self.settings).succeed(&self.state_watch);
        self.listen_to_databases();
        self.report(&Message::new(Level::Info, "reloaded", "the new config is in use"));
    }

    /// Replaces an account by the one that was built from the newest config and queues a pass, or drops
    /// it if the config no longer has it.
    pub fn rebuild(&mut self, name: &AccountName) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        match std::mem::replace(&mut slot.config, ConfigState::Current) {
            ConfigState::Current => {}
            ConfigState::Changed(account) => {
                slot.replace(account);
                let reread = Trigger { reread: true, ..Trigger::default() };
                let trigger =
                    slot.next_trigger.take().map(|trigger| *trigger).unwrap_or_default().and(reread);
                slot.enqueue(name, Wake::Begin(trigger), &mut self.queue);
            }
            ConfigState::Removed => {
                self.overview.change(name, slot.facts, Facts::default());
                self.slots.remove(name);
                self.context.notice(&Notice::Removed { account: name.as_str() });
            }
        }
    }
}
