//! The place of one account in the loop: the account itself comes and goes.

use crate::account::Account;
use crate::clock::Timestamp;
use crate::daemon::waiting::Waiters;
use crate::hooks::Hooks;
use crate::message::{UNSTORED, explanation};
use crate::probe::Probing;
use crate::push::Pushes;
use crate::refresh::decide::Trigger;
use crate::store::lock::SupervisorLock;

/// What the loop knows of one account.
pub(super) struct Slot {
    /// Absent while a task works on it.
    pub(super) account: Option<Box<Account>>,
    pub(super) standing: ConfigState,
    /// It is among those whose turn it is.
    pub(super) queued: bool,
    /// What was asked for while it was away.
    pub(super) asked: Option<Trigger>,
    /// It has completed its first pass.
    pub(super) settled: bool,
    /// Only another login can help it, and its state is watched for one.
    pub(super) waits_for_login: bool,
    /// Who asked for a pass and has no answer yet.
    pub(super) waiting: Waiters,
    pub(super) supervision: SupervisorLock,
    pub(super) features: Features,
}

/// What is done for an account beside its refreshes.
pub(super) struct Features {
    pub(super) hooks: Hooks,
    pub(super) pushes: Pushes,
    pub(super) probing: Probing,
}

impl Features {
    fn new(account: &Account) -> Self {
        let (settings, configured) = (account.settings(), account.configured());
        Self {
            hooks: Hooks::new(settings, configured),
            pushes: Pushes::new(settings, configured),
            probing: Probing::new(account),
        }
    }
}

/// What the newest config makes of an account.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ConfigState {
    /// It was built from it.
    Current,
    /// It is to be built anew as soon as it is at rest.
    Changed,
    /// It goes as soon as it is at rest.
    Gone,
}

impl Slot {
    pub(super) fn new(account: Account, supervision: SupervisorLock) -> Self {
        let features = Features::new(&account);
        let account = Some(Box::new(account));
        Self {
            account,
            standing: ConfigState::Current,
            queued: false,
            asked: None,
            settled: false,
            waits_for_login: false,
            waiting: Waiters::default(),
            supervision,
            features,
        }
    }

    /// Replaces the account by one that is built from another config.
    pub(super) fn replace(&mut self, account: Option<Account>) {
        if let Some(account) = &account {
            self.features = Features::new(account);
        }
        self.account = account.map(Box::new);
    }

    /// Whose turn has come already needs no waking, nor does one that is to begin nothing more: a
    /// deadline that nobody meets would keep the loop from everything else.
    pub(super) fn next_wakeup(&self, stopping: bool) -> Option<Timestamp> {
        let account = self.account.as_ref().filter(|_| !self.queued)?;
        account.next_wakeup().filter(|_| !(stopping && account.core().is_idle()))
    }

    pub(super) fn ask(&mut self, trigger: Trigger) {
        self.asked = Some(self.asked.unwrap_or_default().and(trigger));
    }

    /// Why its token is not fresh; `None` if it is, as far as is known.
    pub(super) fn problem(&self) -> Option<String> {
        let account = self.account.as_ref()?;
        if account.core().is_unstored() {
            return Some(UNSTORED.into());
        }
        account.outcome().and_then(explanation)
    }
}
