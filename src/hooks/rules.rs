//! When somebody outside is to be told: the occasions of hooks.

use serde::{Deserialize, Serialize};

use crate::problem::Class;
use crate::refresh::outcome::Outcome;
use crate::refresh::record::VerdictKind;

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

/// The last health for which hooks were run, by whichever process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HookNote {
    /// How the account stands.
    pub health: Health,
    /// The number of the newest token.
    pub generation: u64,
}

/// How an account stands after a pass; `None` if the pass does not say.
pub fn health(outcome: &Outcome) -> Option<Health> {
    match outcome {
        Outcome::Refreshed { .. } | Outcome::Fresh { .. } | Outcome::Republished => Some(Health::Good),
        Outcome::Refused(verdict) if verdict.kind == VerdictKind::RefreshToken => Some(Health::NeedsLogin),
        // Whoever held the lock for so long knows how the account stands, and tells it.
        Outcome::Failed(problem) if problem.class == Class::Busy => None,
        Outcome::Refused(_) | Outcome::Failed(_) | Outcome::NotStored(_) => Some(Health::Failing),
        Outcome::Held { .. } | Outcome::Stopped => None,
    }
}

impl HookNote {
    /// Hears how a pass has ended, which left the token of this number, and gives what there is to
    /// tell, in order. A state that goes on is told once, and a token by whoever sees it first.
    pub fn hear(&mut self, outcome: &Outcome, generation: u64) -> Vec<Occasion> {
        let Some(health) = health(outcome) else { return Vec::new() };
        let mut occasions = Vec::new();
        // A dead login is not told as a failure as well, nor anew when that has passed.
        let still_dead = (self.health, health) == (Health::NeedsLogin, Health::Failing);
        if health != self.health && !still_dead {
            self.health = health;
            occasions.push(match health {
                Health::Good => Occasion::Recovery,
                Health::Failing => Occasion::Failure,
                Health::NeedsLogin => Occasion::NeedsLogin,
            });
        }
        let replaced = match outcome {
            // A state that was lost begins to count anew.
            Outcome::Refreshed { .. } => generation != self.generation,
            Outcome::Republished => true,
            // Another process made it, and told nobody.
            Outcome::Fresh { .. } => generation > self.generation,
            _ => false,
        };
        if replaced {
            self.generation = generation;
            occasions.push(Occasion::Refresh);
        }
        occasions
    }
}
