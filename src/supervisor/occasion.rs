//! When somebody outside is to be told: the occasions of hooks.

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::record::VerdictKind;

/// How an account stands, as far as it was ever told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Nothing is wrong.
    #[default]
    Good,
    /// Refreshes fail.
    Failing,
    /// Only a new login can help.
    NeedsLogin,
}

/// Something worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Occasion {
    /// Refreshes have begun to fail.
    Failure,
    /// The login is dead.
    NeedsLogin,
    /// All is well again.
    Recovery,
    /// The token file was replaced.
    Refresh,
}

/// How an account stands after a pass; `None` if the pass does not say.
pub fn health(outcome: &Outcome) -> Option<Health> {
    match outcome {
        Outcome::Refreshed { .. } | Outcome::Fresh { .. } | Outcome::Republished => Some(Health::Good),
        Outcome::Refused(verdict) if verdict.kind == VerdictKind::RefreshToken => Some(Health::NeedsLogin),
        Outcome::Refused(_) | Outcome::Failed(_) | Outcome::NotStored(_) => Some(Health::Failing),
        Outcome::Held { .. } | Outcome::Stopped => None,
    }
}

/// What a pass gives occasion to tell, in order, when `told` was told before it. A state that
/// goes on is told once; a dead login is never told as a failure as well.
pub fn occasions(told: Health, outcome: &Outcome) -> Vec<Occasion> {
    let mut occasions = Vec::new();
    match health(outcome) {
        Some(Health::Good) if told != Health::Good => occasions.push(Occasion::Recovery),
        Some(Health::Failing) if told == Health::Good => occasions.push(Occasion::Failure),
        Some(Health::NeedsLogin) if told != Health::NeedsLogin => occasions.push(Occasion::NeedsLogin),
        _ => {}
    }
    if matches!(outcome, Outcome::Refreshed { .. } | Outcome::Republished) {
        occasions.push(Occasion::Refresh);
    }
    occasions
}
