//! The facts about all accounts that the loop needs in each round. They are kept account by account, when
//! one changes: to look at all accounts in each round would cost a wave of n accounts n² looks.

use std::collections::BTreeSet;

use crate::config::AccountName;

#[derive(Debug, Default)]
pub struct Overview {
    /// The accounts that have a deadline, by the boot clock, in its order.
    deadlines: BTreeSet<(i64, AccountName)>,
    /// The accounts whose token is not fresh.
    troubled: BTreeSet<AccountName>,
    unchecked: usize,
    at_work: usize,
    unreachable: usize,
}

/// The part of one account in it.
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one account")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// By the boot clock.
    pub wake_at: Option<i64>,
    /// The token is not fresh.
    pub is_troubled: bool,
    /// Its first pass has not ended.
    pub is_unchecked: bool,
    /// An exchange is running or something remains to be stored.
    pub is_at_work: bool,
    /// Its last request reached no server.
    pub waits_for_network: bool,
}

impl Overview {
    /// Replaces the facts about an account. An account that is not there yet, or not any more, has the
    /// default.
    pub fn change(&mut self, name: &AccountName, before: Facts, after: Facts) {
        if before.wake_at != after.wake_at {
            before.wake_at.map(|at| self.deadlines.remove(&(at, name.clone())));
            self.deadlines.extend(after.wake_at.map(|at| (at, name.clone())));
        }
        if before.is_troubled && !after.is_troubled {
            self.troubled.remove(name);
        } else if !before.is_troubled && after.is_troubled {
            self.troubled.insert(name.clone());
        }
        let count =
            |count: &mut usize, before, after| *count = *count + usize::from(after) - usize::from(before);
        count(&mut self.unchecked, before.is_unchecked, after.is_unchecked);
        count(&mut self.at_work, before.is_at_work, after.is_at_work);
        count(&mut self.unreachable, before.waits_for_network, after.waits_for_network);
    }

    /// The account with the earliest deadline.
    pub fn first(&self) -> Option<&AccountName> {
        self.deadlines.first().map(|(_, name)| name)
    }

    /// The account with the earliest deadline, if that has passed.
    pub fn due(&self, now: i64) -> Option<&AccountName> {
        self.deadlines.first().filter(|(at, _)| *at <= now).map(|(_, name)| name)
    }

    /// The accounts whose token is not fresh, by name.
    pub fn troubled(&self) -> &BTreeSet<AccountName> {
        &self.troubled
    }

    /// Every account was checked once.
    pub fn is_checked(&self) -> bool {
        self.unchecked == 0
    }

    /// The last request of an account reached no server.
    pub fn waits_for_network(&self) -> bool {
        self.unreachable > 0
    }

    /// No exchange is running, and nothing remains to be stored.
    pub fn is_idle(&self) -> bool {
        self.at_work == 0
    }
}

#[cfg(test)]
mod tests {
    use crate::daemon::overview::*;

    fn waits(wake_at: i64) -> Facts {
        Facts { wake_at: Some(wake_at), ..Facts::default() }
    }

    #[test]
    fn the_earliest_deadline_comes_first() {
        let (mut overview, names) = (Overview::default(), ["a", "b", "c"].map(|name| name.parse().unwrap()));
        for (name, wake_at) in names.iter().zip([30, 10, 20]) {
            overview.change(name, Facts::default(), waits(wake_at));
        }
        assert_eq!((overview.due(9), overview.due(10)), (None, Some(&names[1])));
        overview.change(&names[1], waits(10), waits(40));
        assert_eq!(overview.first(), Some(&names[2]));
        overview.change(&names[2], waits(20), Facts::default());
        assert_eq!(overview.first(), Some(&names[0]));
    }

    #[test]
    fn an_account_that_goes_leaves_nothing_behind() {
        let (mut overview, name) = (Overview::default(), "a".parse().unwrap());
        let facts = Facts {
            wake_at: Some(1),
            is_troubled: true,
            is_unchecked: true,
            is_at_work: true,
            waits_for_network: true,
        };
        overview.change(&name, Facts::default(), facts);
        assert!(!overview.is_checked() && !overview.is_idle() && overview.troubled().contains(&name));
        assert!(overview.waits_for_network());
        overview.change(&name, facts, Facts::default());
        assert!(overview.is_checked() && overview.is_idle() && overview.troubled().is_empty());
        assert!(!overview.waits_for_network());
        assert_eq!(overview.first(), None);
    }
}
