//! Performs what the core decides: once, or for as long as the process lives.

pub mod account;
pub mod asks;
pub mod check;
pub mod control;
pub mod files;
pub mod hooks;
pub mod inputs;
pub mod metrics;
pub mod obtain;
pub mod once;
pub mod probe;
pub mod push;
pub mod run;
pub mod set;
pub mod status;
pub mod systemd;
mod timer;
pub mod trouble;
mod watch;
pub mod words;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config;
use crate::publish::hooks::HookError;
use crate::supervisor::outcome::Report;
use crate::supervisor::probe::{Meaning, Probed};
use crate::supervisor::{LOCK_PATIENCE, Policy};
use account::{Account, inline_seed};
use control::counts::Counts;
use inputs::Endpoints;
use push::PushError;

/// So many accounts exchange tokens at the same time: enough to hide the network, few enough to
/// stay small, and polite to a provider.
const EXCHANGES: usize = 64;

/// Threads that do file work while a wave of accounts is due together: more of them wait for the
/// same disk.
const FILE_THREADS: usize = 8;

/// Hooks that run at the same time: they are other people's programs, and may be heavy.
const HOOK_THREADS: usize = 4;

/// Probes at the same time: each holds certificates, and none is urgent.
const PROBE_PLACES: usize = 8;

/// Somebody who wants to know.
pub trait Listener {
    /// Hears everything that the core has to say of an account; at the end of a pass also when
    /// the next one comes, if time alone brings one.
    fn hear(&self, account: &str, report: &Report, next_pass: Option<Timestamp>);
    /// Hears that a hook has failed.
    fn hook_failed(&self, account: &str, error: &HookError);
    /// Hears what came of sending a token to a push target; only `run` sends.
    fn pushed(&self, _account: &str, _target: &str, _result: Result<&(), &PushError>) {}
    /// Hears what came of a probe; only `run` probes.
    fn probed(&self, _account: &str, _probed: &Probed, _meaning: Meaning) {}
}

/// What all accounts of a process share.
pub struct Context {
    /// The machine's clocks.
    pub clock: Rc<dyn Clock>,
    /// Who is told.
    pub listener: Box<dyn Listener>,
    /// The clients of the token endpoints, as long as there is a use for them.
    endpoints: RefCell<Endpoints>,
    file_threads: Arc<Semaphore>,
    hook_threads: Arc<Semaphore>,
    probe_places: Semaphore,
    active: Cell<usize>,
    stopping: Cell<bool>,
    /// Whether each account notes its pass, so that passes which are too far apart can be told.
    pub notes_passes: bool,
    /// What has happened so far, for whoever measures.
    counts: RefCell<Counts>,
}

impl Context {
    /// For one process.
    pub fn new(listener: Box<dyn Listener>) -> Self {
        Self {
            clock: Rc::new(SystemClock::new()),
            listener,
            endpoints: RefCell::default(),
            file_threads: Arc::new(Semaphore::new(FILE_THREADS)),
            hook_threads: Arc::new(Semaphore::new(HOOK_THREADS)),
            probe_places: Semaphore::new(PROBE_PLACES),
            active: Cell::new(0),
            stopping: Cell::new(false),
            notes_passes: false,
            counts: RefCell::default(),
        }
    }

    /// How many accounts are at work. The last to finish takes the clients with it: their
    /// connections, and the certificates they hold.
    fn set_active(&self, active: usize) {
        self.active.set(active);
        if active == 0 {
            self.endpoints.take();
        }
    }

    /// From now on accounts at work finish what cannot be left undone, and begin nothing.
    fn stop(&self) {
        self.stopping.set(true);
    }

    /// The threads for file work, if enough accounts are at work to need them.
    fn wave(&self) -> Option<Arc<Semaphore>> {
        (self.active.get() > 1).then(|| Arc::clone(&self.file_threads))
    }
}

/// What sets the commands apart.
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
    let chosen =
        settings.accounts.iter().filter(|account| only.is_none_or(|only| account.name.as_str() == only));
    chosen.map(|account| Account::new(settings, account, policy(settings, account, mode))).collect()
}

/// What the user has to do with the refresh token of a new login.
fn login_hint(settings: &config::Settings, account: &config::Account) -> String {
    use config::SecretSource::{Command, Credential, Env, File, Inline};
    let name = &account.name;
    match &account.refresh_token {
        None | Some(Inline(_)) => {
            format!(
                "log in again, and put the new refresh_token of account {name} into {}",
                settings.path.display()
            )
        }
        Some(File(path)) => format!("log in again, and put the new refresh token into {}", path.display()),
        Some(Env(variable)) => {
            format!("log in again, put the new refresh token into ${variable}, and restart")
        }
        Some(source @ Command(_)) => {
            format!("log in again, and store the new refresh token where {source} finds it")
        }
        Some(Credential(credential)) => {
            format!(
                "log in again, store the new refresh token as credential {credential}, and restart the unit"
            )
        }
    }
}

/// What the core needs to know of an account's configuration.
pub fn policy(settings: &config::Settings, account: &config::Account, mode: Mode) -> Policy {
    let inline_seed = inline_seed(account);
    Policy {
        account: account.name.to_string(),
        config: settings.path.to_string_lossy().into_owned(),
        skew: account.skew,
        default_lifetime: account.default_lifetime,
        horizon: mode.horizon,
        inline_seed,
        login_hint: login_hint(settings, account),
        reread_secrets: inline_seed.is_none().then_some(inputs::REREAD),
        lock_patience: mode.lock_patience,
        remove_expired: account.token_file.remove_expired,
        patient: mode.patient,
    }
}
