//! The sentences about a login that several machines share.

use crate::refresh::fleet::FleetReport;

/// The name of the event, its sentence, and the next step of a warning.
pub fn sentence(report: FleetReport) -> (&'static str, String, Option<&'static str>) {
    match report {
        FleetReport::Received { epoch } => {
            ("fleet_received", format!("received refresh {epoch} of this login from the database"), None)
        }
        FleetReport::Dropped { epoch } => (
            "fleet_dropped",
            format!(
                "received refresh {epoch} from the database; the reply on this disk came too late for it"
            ),
            Some("nothing to do: the other machines have gone on; `zg-tokend fleet status` shows the row"),
        ),
        FleetReport::Delivered => {
            ("fleet_delivered", "stored a reply in the database that was on this disk alone".into(), None)
        }
        FleetReport::Repaired { epoch } => (
            "fleet_repaired",
            format!("the database had lost refresh {epoch} of this login; stored it again from this disk"),
            Some("check how the database replicates: `zg-tokend check --live`"),
        ),
        FleetReport::Founded => {
            ("fleet_login", "stored this login in the database, for all machines".into(), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use crate::golden::compare;
    use crate::message::fleet::*;

    #[test]
    fn every_change_is_told_and_every_warning_has_a_way_out() {
        let mut text = String::new();
        for report in [
            FleetReport::Received { epoch: 12 },
            FleetReport::Dropped { epoch: 12 },
            FleetReport::Delivered,
            FleetReport::Repaired { epoch: 12 },
            FleetReport::Founded,
        ] {
            let (event, sentence, hint) = sentence(report);
            let hint = hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
            let _ = writeln!(text, "# {event}\n{sentence}\n{hint}");
        }
        compare("fleet", &text);
    }
}
