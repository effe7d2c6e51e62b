//! The outcome of a pass, and the reports on the way.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::problem::{Class, Problem};
use crate::refresh::decide::{Decision, Trigger};
use crate::refresh::record::Verdict;
use crate::refresh::view::DecisionView;
use crate::secret::Fingerprint;

/// How a pass over one account ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A new access token is stored and published.
    Refreshed {
        /// The number of the new token.
        generation: u64,
        /// Its life from now on.
        remaining: Duration,
        /// How long the request took, from the marker to the answer.
        took: Duration,
    },
    /// Nothing was due.
    Fresh {
        /// The life that is left.
        remaining: Duration,
    },
    /// The token file was missing or held something else; it has the live token again.
    Republished,
    /// Something is due, but a wait is in force; no request was made.
    Held {
        /// How much of it is left.
        wait: Duration,
        /// The failure that ordered it.
        problem: Problem,
    },
    /// A definite no from the server, now or earlier.
    Refused(Box<Verdict>),
    /// Nothing was gained and nothing lost.
    Failed(Problem),
    /// The server has answered, but one of the files did not take it.
    NotStored(Problem),
    /// The process was asked to stop before the request was made.
    Stopped,
}

impl Outcome {
    /// The class of the failure; `None` if the pass left a fresh token behind.
    pub fn class(&self) -> Option<Class> {
        match self {
            Self::Refreshed { .. } | Self::Fresh { .. } | Self::Republished => None,
            Self::Refused(verdict) => Some(verdict.class()),
            Self::Held { problem, .. } | Self::Failed(problem) | Self::NotStored(problem) => {
                Some(problem.class)
            }
            Self::Stopped => Some(Class::Unexpected),
        }
    }
}

/// Reports of the core. message.rs has the words and the level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A decision, and what it was made from.
    Decided {
        /// The decision.
        decision: Decision,
        /// The trigger of the pass.
        trigger: Trigger,
        /// The inputs of the decision.
        facts: Box<DecisionView>,
    },
    /// Config held a seed that this account had not seen: a new login.
    TookSeed(Fingerprint),
    /// Config held a seed that this account had not seen, but a login was brought since: it is not used.
    OlderSeed(Fingerprint),
    /// The seed was known to the state of an account that is gone; it is ours now.
    TookOver {
        /// The account's former name.
        account: String,
    },
    /// The new login was refused: the one before it is in use again.
    FellBack {
        /// The refresh token of the new one.
        refused: Fingerprint,
        /// The server's `error`, RFC 6749 5.2.
        error: String,
        /// The server's words.
        message: String,
    },
    /// The refused refresh token had been replaced in the state meanwhile.
    Adopted,
    /// The exchange took longer than the token in its answer lives, as when the machine slept
    /// meanwhile: it is made again at once.
    ArrivedDead {
        /// How long it took.
        took: Duration,
    },
    /// The reply has a refresh token that no request could send: the old one stays, but may be dead.
    RefreshTokenUnusable,
    /// The reply says something of the lifetime that cannot be read.
    LifetimeUnreadable {
        /// The lifetime that is assumed instead.
        assumed: Duration,
    },
    /// Another process died with a request under way.
    FoundMarker {
        /// When it had begun.
        at: Timestamp,
    },
    /// The state is damaged; the token in the file is presumed to live.
    NotUnderstood {
        /// Which state, and where it goes wrong.
        why: String,
        /// How long until something is done about it.
        wait: Duration,
    },
    /// The state could not be understood and was put aside.
    PutAside {
        /// Its new name.
        path: String,
    },
    /// There were too many forced refreshes lately: another one must wait.
    ForcedTooOften {
        /// How long.
        wait: Duration,
    },
    /// The token is refreshed early, since its issue lies in the future by the wall clock.
    ClockSetBack {
        /// When the token was issued.
        issued_at: Timestamp,
    },
    /// The configured seed cannot be read, and is not needed now.
    SeedUnreadable(Problem),
    /// The new refresh token is only in memory so far.
    NotYetStored(Problem),
    /// The token file is gone: its token had expired.
    Withdrawn,
    /// The expired token is still in the file.
    NotWithdrawn(Problem),
    /// An event that the present phase has no use for. A mistake of the shell.
    Ignored {
        /// The phase of the account.
        phase: &'static str,
        /// The event.
        event: &'static str,
    },
    /// The pass is over.
    Finished(Outcome),
}
