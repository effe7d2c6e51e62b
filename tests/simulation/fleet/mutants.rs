//! Shells and databases that break a rule of the fleet on purpose: each must be noticed.

use super::figures::{Faults, NONE};

/// The broken rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FleetMutant {
    /// Without the database it refreshes without it.
    RefreshesWithoutIt,
    /// Claims what another host has claimed.
    StealsClaims,
    /// Takes an attempt over as soon as its claim has expired, as a lease.
    TakesOverAtOnce,
    /// Takes it over at the last chance, but does not wait until its owner has had the database back.
    TakesOverUnseen,
    /// Claims although the row has moved on.
    ClaimsAnyEpoch,
    /// Stores a reply over whatever the row has.
    StoresWithoutFence,
    /// Leaves a row alone that has gone back in time.
    NeverRepairs,
    /// Does not wait after a failover.
    NoQuarantine,
    /// Sends, however long ago it began to claim.
    SendsLate,
    /// Takes an unknown COMMIT for a good one.
    BelievesCommits,
    /// Stores into the row first, and on its own disk later.
    StoresRowFirst,
    /// Keeps a refusal to itself.
    HidesVerdicts,
    /// Goes on with an old primary after it has seen the new one.
    TrustsOldPrimaries,
}

/// The faults that a mutant does not stand, in worlds that the core does.
pub(crate) const ALL: [(FleetMutant, Faults); 13] = [
    (FleetMutant::RefreshesWithoutIt, Faults { outage: 500, ..NONE }),
    (FleetMutant::StealsClaims, NONE),
    (FleetMutant::TakesOverAtOnce, Faults { freeze: 500, ..NONE }),
    (FleetMutant::TakesOverUnseen, Faults { outage: 6000, ..NONE }),
    (FleetMutant::ClaimsAnyEpoch, Faults { slow: 300, ..NONE }),
    (FleetMutant::StoresWithoutFence, Faults { freeze: 1000, login: 1000, ..NONE }),
    (FleetMutant::NeverRepairs, Faults { failover: 1000, ..NONE }),
    (FleetMutant::NoQuarantine, Faults { failover: 1000, ..NONE }),
    (FleetMutant::SendsLate, Faults { freeze: 3000, ..NONE }),
    (FleetMutant::BelievesCommits, Faults { unknown: 300, ..NONE }),
    (FleetMutant::StoresRowFirst, Faults { kill: 2000, ..NONE }),
    (FleetMutant::HidesVerdicts, Faults { lose: 300, ..NONE }),
    (FleetMutant::TrustsOldPrimaries, Faults { stale: 1000, ..NONE }),
];
