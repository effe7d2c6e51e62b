//! The judgement of a login that several machines share. From this disk alone.

use crate::account::fleet_note::FleetNote;
use crate::config::AccountConfig;
use crate::refresh::record::Record;
use crate::refresh::replica::Role;
use crate::status::account::{AccountStatus, FleetStatus, Severity, State};

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
            hint: note.hint.clone(),
            waits: note.waits.clone(),
            ..Self::default()
        })
    }
}

impl AccountStatus {
    /// Of a machine that has no login yet: true if it could not read the row, which may have one.
    pub(super) fn judge_fleet_unseen(&mut self) -> bool {
        let Some(fleet) = &mut self.fleet else { return false };
        let Some(problem) = fleet.problem.clone() else { return false };
        self.hint = fleet.hint.take().or_else(|| Some(UNREACHABLE.to_owned()));
        (self.state, self.cause) = (State::Due, Some(problem));
        self.severity = self.severity.or(Severity::Critical);
        self.problem = Some("there is no token yet".to_owned());
        true
    }

    pub(super) fn judge_fleet(&mut self, record: &Record) {
        if record.replica.is_none() && record.refresh_token.is_none() && self.judge_fleet_unseen() {
            return;
        }
        let Some(fleet) = &mut self.fleet else { return };
        if let Some(replica) = &record.replica {
            fleet.epoch = Some(replica.epoch);
            let own = record.refresh_token.as_ref().map(|token| token.value.fingerprint());
            fleet.undelivered =
                replica.undelivered.is_some() || (fleet.role == "refresh" && replica.held != own);
        }
        let (undelivered, problem, waits) = (fleet.undelivered, fleet.problem.clone(), fleet.waits.clone());
        let hint = fleet.hint.take().unwrap_or_else(|| UNREACHABLE.to_owned());
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
            self.find(Severity::Warning, problem, hint);
        }
    }
}
