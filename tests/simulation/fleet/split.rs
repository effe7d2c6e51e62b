//! Two primaries at once: after a failover the old one goes on, and some hosts reach it.

use super::super::plan::{MINUTE, SECOND};
use super::database::Database;
use super::world::{FleetWorld, Incident};

impl FleetWorld {
    /// A failover whose old primary goes on. `at_once`: each host reaches the old one or the new one for a while.
    /// Later each reaches the old one again, as through a name that was changed back.
    pub(super) fn split(&mut self, at_once: bool) {
        let mut old = self.database.clone();
        // Its standby is the new primary now.
        old.waits = self.faults.sync;
        let before = old.down_until;
        self.fail_over();
        old.down_until = before;
        self.old_primary = Some(old);
        let until = self.now + self.random.pick(&[10, 60, 200, 900, 3000]) * SECOND;
        for place in 0..self.hosts.len() {
            if at_once && self.random.one_in(2) {
                self.stray(place, until);
            }
            let again = until + self.random.between(MINUTE, 60 * MINUTE);
            self.plan(again, Incident::Stray(place, again + 20 * MINUTE));
        }
    }

    /// This host reaches the old primary until then, and reads the row whenever it is connected anew.
    pub(super) fn stray(&mut self, place: usize, until: i64) {
        self.hosts[place].astray_until = until;
        for connected in [self.now, until] {
            let at = connected + self.random.between(100, 5000);
            self.plan(at, Incident::Row(place));
        }
    }

    pub(super) fn is_astray(&self, place: usize) -> bool {
        self.old_primary.is_some() && self.now < self.hosts[place].astray_until
    }

    /// The database that this host reaches.
    pub(super) fn database_of(&mut self, place: usize) -> &mut Database {
        let astray = self.is_astray(place);
        self.old_primary.as_mut().filter(|_| astray).unwrap_or(&mut self.database)
    }
}
