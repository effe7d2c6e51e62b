//! The present state, from config, state, token file and locks alone. Never the network, never a
//! secret's source, and nothing is written.

pub mod account;
pub mod credentials;
pub mod fleet;
pub mod judge;
mod look;
pub mod metrics;

use std::path::Path;
use std::sync::Arc;

use crate::account::context::Mode;
use crate::account::plain_copy;
use crate::account::policy::policy;
use crate::clock::{Clock, SystemClock};
use crate::config::Settings;
pub use crate::status::account::{
    AccountStatus, FleetStatus, ProbeStatus, PushStatus, Severity, State, TokenFileStatus,
};
use crate::status::look::look;
use crate::store::{Stores, lock};
use crate::workers;

/// The version of the JSON that `status --json` prints; a change of meaning raises it. Its schema
/// is `packaging/status.schema.json`.
pub const JSON_VERSION: u32 = 1;

/// The state of all accounts at one instant.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The instant, Unix seconds by the wall clock.
    pub at: i64,
    /// The accounts, in the config's order.
    pub accounts: Vec<AccountStatus>,
}

impl Snapshot {
    /// The worst of all.
    pub fn severity(&self) -> Severity {
        self.accounts.iter().fold(Severity::Ok, |worst, account| worst.or(account.severity))
    }
}

/// The status of all accounts, or of one. `masked` is a variable that is set, and the token file whose
/// reader prefers it.
pub fn status(
    settings: &Arc<Settings>,
    only: Option<&str>,
    masked: Option<(&'static str, &Path)>,
) -> Snapshot {
    let now = SystemClock::new().now();
    let stores = Stores::new(settings);
    let chosen: Vec<_> = settings.chosen(only).collect();
    let mut accounts = workers::map(&chosen, |account| {
        let policy = policy(settings, account, Mode::default());
        let mut status =
            judge::judge(account, &policy, &look(settings, &policy, stores.open(account), account), now);
        if plain_copy::has_sealed_secrets(account) {
            status.plain_copy = plain_copy::find(settings).map(|path| path.to_string_lossy().into_owned());
        }
        status.token_file.masked_by =
            masked.filter(|(_, path)| *path == status.token_file.path).map(|(variable, _)| variable);
        status
    });
    // Most accounts have the same supervisor.
    let mut stopped: Option<(u32, bool)> = None;
    for status in &mut accounts {
        let Some(pid) = status.supervisor.and_then(|supervisor| supervisor.pid) else { continue };
        let (_, is_stopped) = match stopped {
            Some(known) if known.0 == pid => known,
            _ => *stopped.insert((pid, lock::is_stopped(pid))),
        };
        if is_stopped {
            status.stop_supervisor(pid);
        }
    }
    Snapshot { at: now.wall / 1000, accounts }
}
