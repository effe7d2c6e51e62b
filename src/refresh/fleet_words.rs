//! The words for waits and refusals of a login that several machines share.

use crate::problem::{Class, Problem};
use crate::refresh::fleet::WaitReason;

pub(super) fn stale(timeline: u32, known: u32) -> Problem {
    let message = format!(
        "the database is not the primary any more: it is on timeline {timeline}, and timeline {known} was seen before"
    );
    let hint = "point fleet.url at the present primary; after the database was set up anew, run `zg-tokend once --force`";
    problem("fleet_stale", message, Some(hint.into()))
}

pub(super) fn foreign(account: &str) -> Problem {
    let message =
        format!("the row `{account}` in the database is the login of another client or another server");
    let hint = "give this account another name, the same on all machines of its login; if the client has changed on all of them, docs/FLEET.md shows how to begin anew";
    Problem { class: Class::Config, ..problem("fleet_foreign", message, Some(hint.into())) }
}

pub(super) fn problem(kind: &str, message: String, hint: Option<String>) -> Problem {
    Problem { class: Class::Unavailable, kind: kind.into(), message, cause: None, hint }
}

pub(super) fn waiting(reason: &WaitReason) -> Problem {
    let (kind, message, hint) = match reason {
        WaitReason::Refreshing { host } => ("fleet_refreshing", format!("host {host} is refreshing"), None),
        WaitReason::Unclear(unclear) => (
            "fleet_unclear",
            format!(
                "host {} began to refresh at {} and has not finished: its reply may be on its disk",
                unclear.host,
                crate::clock::utc(unclear.at / 1000)
            ),
            Some(format!("start zg-tokend on {}, if it is stopped", unclear.host)),
        ),
        WaitReason::Failover => (
            "fleet_failover",
            "the database failed over: the other machines may have a newer copy of the login".into(),
            None,
        ),
    };
    problem(kind, message, hint)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use crate::golden::compare;
    use crate::refresh::fleet_words::*;
    use crate::refresh::replica::UnclearClaim;

    #[test]
    fn every_wait_is_told() {
        let unclear = UnclearClaim { host: "a/1".into(), at: 1_800_000_000_000 };
        let waits = [
            WaitReason::Refreshing { host: "a/1".into() },
            WaitReason::Unclear(unclear),
            WaitReason::Failover,
        ];
        let mut text = String::new();
        for problem in waits.iter().map(waiting).chain([stale(1, 2), foreign("work")]) {
            let hint = problem.hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
            let _ = writeln!(text, "# {}\n{}\n{hint}", problem.kind, problem.message);
        }
        compare("fleet-waits", &text);
    }
}
