//! What probes and the control socket ask of the loop of `run`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::account::obtain::Replacement;
use crate::config::Settings;
use crate::problem::Problem;
use crate::secret::Fingerprint;

/// Where the loop hears them. Each connection, and each probe, has one question at a time,
/// so their number is bound.
pub type LoopRequests = mpsc::UnboundedReceiver<LoopRequest>;

/// A question to the loop. It answers the first at once; that it does shows that it is at work.
#[derive(Debug)]
pub enum LoopRequest {
    /// What is in force?
    Current(oneshot::Sender<Current>),
    /// A pass over an account, and what it comes to.
    Pass {
        /// Which one.
        account: String,
        /// What for.
        wish: Purpose,
        /// Dropped unanswered if there is no such account any more.
        reply: oneshot::Sender<PassResult>,
    },
}

/// What is in force.
#[derive(Debug)]
pub struct Current {
    /// The config in force.
    pub settings: Arc<Settings>,
    /// Every account has been looked at, and the end has not begun.
    pub ready: bool,
}

/// What a pass is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The state has changed: there is a token now, or another login.
    Look {
        /// The refresh token of the new login.
        login: Option<Fingerprint>,
    },
    /// Another token than the stored one.
    Refresh {
        /// The stored one, if there is one.
        known: Option<Fingerprint>,
        /// Its number.
        generation: u64,
    },
    /// Another token than this one, which a resource refused.
    Replacement(Fingerprint),
}

/// What a pass came to.
#[derive(Debug)]
pub struct PassResult {
    /// What became of the token, or why not.
    pub result: Result<Replacement, Problem>,
    /// How long until another try may be made, or is.
    pub next_in: Option<Duration>,
}
