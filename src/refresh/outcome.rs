//! The outcome of a pass, and the reports on the way.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::problem::{Class, Problem};
use crate::refresh::decide::{Decision, Trigger};
use crate::refresh::fleet::FleetReport;
use crate::refresh::record::Verdict;
use crate::secret::Fingerprint;

/// How a pass over one account ended. Problems are in boxes: each account keeps an outcome, and few have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A new access token is stored and published.
    Refreshed {
        generation: u64,
        remaining: Duration,
        /// From the marker to the answer.
        took: Duration,
    },
    /// Nothing was due.
    Fresh {
        /// 0 if there is no state.
        generation: u64,
        remaining: Duration,
    },
    /// The token file was missing or held something else; it holds the live token again.
    Republished,
    /// A refresh is due, but the wait after `problem` is in force: no request was sent.
    Held { wait: Duration, problem: Box<Problem> },
    /// A definite refusal by the server, now or earlier.
    Refused(Box<Verdict>),
    /// The state is as good as before.
    Failed(Box<Problem>),
    /// The server has answered, but the state or the token file could not be written.
    NotStored(Box<Problem>),
    /// The process was asked to stop before the request was made.
    Stopped,
}

impl Outcome {
    /// The kind of the failure: the server's `error` or that of the problem; `None` if the pass left a
    /// fresh token behind.
    pub fn kind(&self) -> Option<&str> {
        self.failure().map(|(_, kind)| kind)
    }

    /// The class of the failure; `None` if the pass left a fresh token behind.
    pub fn class(&self) -> Option<Class> {
        self.failure().map(|(class, _)| class)
    }

    fn failure(&self) -> Option<(Class, &str)> {
        match self {
            Self::Refreshed { .. } | Self::Fresh { .. } | Self::Republished => None,
            Self::Refused(verdict) => Some((verdict.class(), &verdict.error)),
            Self::Held { problem, .. } | Self::Failed(problem) | Self::NotStored(problem) => {
                Some((problem.class, &problem.kind))
            }
            Self::Stopped => Some((Class::Unexpected, "stopped")),
        }
    }
}

/// Reports of the core; message.rs has their sentences and levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    Decided {
        decision: Decision,
        trigger: Trigger,
        /// The inputs of the decision, from view.rs.
        facts: String,
    },
    /// The config has a seed that is new to this account: a new login.
    TookSeed(Fingerprint),
    /// The config has a seed that is new to this account, but `set` brought a newer login: it is not used.
    OlderSeed(Fingerprint),
    /// The state of a removed account knew the seed; this account continues with that state.
    TookOver {
        /// The name of the removed account.
        account: String,
    },
    /// The new login was refused: the one before it is in use again.
    FellBack {
        /// The refresh token of the new login.
        refused: Fingerprint,
        /// The server's `error`, RFC 6749 section 5.2.
        error: String,
        message: String,
        /// The way to another login.
        hint: String,
    },
    /// The refused refresh token had been replaced in the state meanwhile.
    Adopted,
    /// The exchange took longer than the token in its answer lives, as after a suspend: it is
    /// repeated at once.
    ArrivedDead { took: Duration },
    /// The reply has a refresh token that no request could send: the old one stays, but may be dead.
    RefreshTokenUnusable,
    /// The reply to a grant without a login has a refresh token, which nothing will use.
    RefreshTokenIgnored,
    /// The reply has a lifetime that cannot be read; `assumed` is used instead.
    LifetimeUnreadable { assumed: Duration },
    /// The reply has an ID token that is not this user's, or not for this client.
    IdTokenUnusable { why: String },
    /// The login that several machines share.
    Fleet(FleetReport),
    /// The database does not answer; what is on this disk alone waits.
    Undeliverable(Problem),
    /// Another process died with a request under way.
    FoundMarker {
        /// When the request began.
        at: Timestamp,
    },
    /// The state is damaged; the token in the token file is presumed to live for `wait`.
    NotUnderstood { why: String, wait: Duration },
    /// The damaged state was renamed to `path`.
    PutAside { path: String },
    /// Too many forced refreshes lately: the next one must wait.
    ForcedTooOften { wait: Duration },
    /// The wall clock is before the issue of the token, which is therefore refreshed early.
    ClockSetBack { issued_at: Timestamp },
    /// The configured seed cannot be read, but is not needed now.
    SeedUnreadable(Problem),
    /// The new refresh token is only in memory so far.
    NotYetStored(Problem),
    /// An output beside the token file could not be written.
    OutputFailed(Problem),
    /// The token file is removed, because its token has expired.
    Withdrawn,
    /// The expired token is still in the token file.
    NotWithdrawn(Problem),
    /// An event that does not fit the phase: a bug of the caller.
    Ignored { phase: String, event: String },
    /// The pass is over.
    Finished(Outcome),
}
