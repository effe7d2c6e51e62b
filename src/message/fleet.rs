//! The sentences about a login that several machines share.

use crate::message::{Level, Message};
use crate::refresh::outcome::Report;

/// The message for a report of the fleet.
pub fn words(report: &Report) -> Message {
    match report {
        Report::FromFleet { epoch, dropped: false } => Message::new(
            Level::Info,
            "fleet_received",
            format!("received refresh {epoch} of this login from the database"),
        ),
        Report::FromFleet { epoch, .. } => Message::new(
            Level::Warn,
            "fleet_dropped",
            format!("received refresh {epoch} from the database: the reply that was on this disk alone came too late"),
        )
        .hint("nothing to do: the other machines have gone on; `zg-tokend fleet status` shows the row"),
        Report::Delivered { late: false } => {
            Message::new(Level::Debug, "fleet_delivered", "stored the reply in the database")
        }
        Report::Delivered { .. } => Message::new(
            Level::Info,
            "fleet_delivered",
            "stored a reply in the database that had been on this disk alone",
        ),
        Report::Repaired { epoch } => Message::new(
            Level::Warn,
            "fleet_repaired",
            format!("the database had lost refresh {epoch} of this login; stored it again from this disk"),
        )
        .hint("check that the database replicates synchronously: `zg-tokend check --live`"),
        Report::Founded => {
            Message::new(Level::Info, "fleet_login", "stored the login of this machine in the database, for all machines")
        }
        Report::Undeliverable(problem) => Message::of_problem(
            Level::Warn,
            "fleet_unreachable",
            format!("{}; the token stays, and this machine tries again", problem.message),
            problem,
        ),
        // The other reports are in message.rs.
        _ => Message::new(Level::Debug, "fleet", "the fleet has no words for this"),
    }
}
