//! When hooks run. Pure.

use serde::{Deserialize, Serialize};

use crate::problem::Class;
use crate::refresh::outcome::Outcome;
use crate::refresh::record::VerdictKind;

/// The state of an account, as far as hooks are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    #[default]
    Good,
    /// Refreshes fail.
    Failing,
    /// Only a new login can help.
    NeedsLogin,
}

/// Something that hooks run for. In the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookEvent {
    /// Refreshes have begun to fail.
    Failure,
    /// The login is dead.
    NeedsLogin,
    /// Refreshes succeed again.
    Recovery,
    /// The token file was replaced.
    Refresh,
}

/// The last health for which hooks were run, by whichever process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HookNote {
    pub health: Health,
    /// The number of the newest token.
    pub generation: u64,
}

/// The state of an account after a pass; `None` if the pass does not show it.
pub fn health(outcome: &Outcome) -> Option<Health> {
    match outcome {
        Outcome::Refreshed { .. } | Outcome::Fresh { .. } | Outcome::Republished => Some(Health::Good),
        Outcome::Refused(verdict) if verdict.kind == VerdictKind::RefreshToken => Some(Health::NeedsLogin),
        // The process that held the lock for so long runs the hooks.
        Outcome::Failed(problem) if problem.class == Class::Busy => None,
        // There is none, as after a logout.
        Outcome::Failed(problem) if problem.class == Class::NeedsLogin => Some(Health::NeedsLogin),
        Outcome::Refused(_) | Outcome::Failed(_) | Outcome::NotStored(_) => Some(Health::Failing),
        Outcome::Held { .. } | Outcome::Stopped => None,
    }
}

impl HookNote {
    /// Notes the outcome of a pass and the number of the newest token. Returns what hooks run for: a
    /// change of health once, and a new token once, in the process that notices it first.
    pub fn update(&mut self, outcome: &Outcome, generation: u64) -> Vec<HookEvent> {
        let Some(health) = health(outcome) else { return Vec::new() };
        let mut events = Vec::new();
        // A dead login is not also a failure, and not again a dead login after that failure.
        let still_dead = (self.health, health) == (Health::NeedsLogin, Health::Failing);
        if health != self.health && !still_dead {
            self.health = health;
            events.push(match health {
                Health::Good => HookEvent::Recovery,
                Health::Failing => HookEvent::Failure,
                Health::NeedsLogin => HookEvent::NeedsLogin,
            });
        }
        let replaced = match outcome {
            // A state that was lost begins to count anew.
            Outcome::Refreshed { .. } => generation != self.generation,
            Outcome::Republished => true,
            // Another process refreshed, without hooks.
            Outcome::Fresh { .. } => generation > self.generation,
            _ => false,
        };
        if replaced {
            self.generation = generation;
            events.push(HookEvent::Refresh);
        }
        events
    }
}
