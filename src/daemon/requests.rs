//! Requests to the loop of `run`, from the control socket and from probes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::account::obtain::Replacement;
use crate::config::{AccountName, Settings};
use crate::problem::Problem;
use crate::refresh::decide::Trigger;
use crate::secret::Fingerprint;

/// Each connection and each probe sends one request at a time, which bounds their number.
#[derive(Debug)]
pub enum LoopRequest {
    /// Answered at once. The reply proves that the loop is alive.
    CurrentConfig(oneshot::Sender<CurrentConfig>),
    /// The row of the account may have changed in the database.
    #[cfg(feature = "fleet")]
    Row { account: AccountName, trigger: Trigger },
    Pass {
        account: AccountName,
        purpose: Purpose,
        /// Dropped without a reply if the account no longer exists.
        reply: oneshot::Sender<PassResult>,
    },
}

#[derive(Debug)]
pub struct CurrentConfig {
    pub settings: Arc<Settings>,
    /// Every account was checked once, and the process is not stopping.
    pub ready: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The state was changed: it has a new token or a new login.
    Check {
        /// The refresh token of the new login.
        login: Option<Fingerprint>,
    },
    /// Replace the stored token.
    Refresh {
        /// The stored token and its number, if there is one.
        known: Option<Fingerprint>,
        generation: u64,
    },
    /// Replace this token, which a resource refused.
    Replace(Fingerprint),
}

impl Purpose {
    pub fn trigger(self) -> Trigger {
        match self {
            // A user has fixed something and waits for the result: the backoff begins anew.
            Self::Check { .. } => Trigger { anew: true, ..Trigger::default() },
            Self::Refresh { .. } => Trigger { force: true, ..Trigger::default() },
            Self::Replace(token) => Trigger { rejected: Some(token), ..Trigger::default() },
        }
    }
}

#[derive(Debug)]
pub struct PassResult {
    pub result: Result<Replacement, Problem>,
    /// The time until the next attempt.
    pub next_in: Option<Duration>,
}
