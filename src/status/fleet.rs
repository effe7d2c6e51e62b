//! The judgement of a login that several machines share. From this disk alone.

use crate::account::fleet_note::FleetNote;
use crate::config::AccountConfig;
use crate::refresh::record::Record;
use crate::refresh::replica::Role;
use crate::status::account::{AccountStatus, FleetStatus, Severity};

const UNREACHABLE: &str =
    "`zg-tokend check --live` looks at the database; live tokens stay, and nothing is refreshed without it";

const UNDELIVERED: &str =
    "keep this machine and its state: it stores the refresh by itself as soon as it reaches the database";

impl FleetStatus {
    /// Without the state.
    pub(super) fn of_config(account: &AccountConfig, note: &FleetNote) -> Option<Self> {
        let role = account.fleet.as_ref()?.role;
        Some(Self {
            role: if role == Role::Read { "read" } else { "refresh" },
            seen_at: note.seen_at,
            claimed_by: note.claimed_by.clone(),
            listens: note.listens,
            problem: note.problem.clone(),
            waits: note.waits.clone(),
            ..Self::default()
        })
    }
}

impl AccountStatus {
    pub(super) fn judge_fleet(&mut self, record: &Record) {
        let Some(fleet) = &mut self.fleet else { return };
        if let Some(replica) = &record.replica {
            fleet.epoch = Some(replica.epoch);
            let own = record.refresh_token.as_ref().map(|token| token.value.fingerprint());
            fleet.undelivered =
                replica.undelivered.is_some() || (fleet.role == "refresh" && replica.held != own);
        }
        let (undelivered, problem, waits) = (fleet.undelivered, fleet.problem.clone(), fleet.waits.clone());
        if undelivered {
            let what = "the last refresh is on this disk alone: the database does not have it yet";
            self.find(Severity::Warning, what, UNDELIVERED);
        }
        if let Some((waits, hint)) = waits {
            // It explains a token that is due, or has expired.
            *if self.problem.is_some() { &mut self.cause } else { &mut self.problem } = Some(waits);
            self.hint = Some(hint);
            self.severity = self.severity.or(Severity::Warning);
        }
        if let Some(problem) = problem {
            self.find(Severity::Warning, problem, UNREACHABLE);
        }
    }
}
