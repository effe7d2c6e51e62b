//! One line for a prompt or a status bar: what is wrong, worst first, then how many are fresh.

use std::time::Duration;

use crate::cli::status::words::word;
use crate::message::duration;
use crate::status::{Severity, Snapshot};

/// More names than these are counted.
const NAMES_MAX: usize = 3;

/// `fresh, 43 min left`; `mail needs login; 4 fresh, 43 min left`. Without colour: a prompt has
/// its own.
pub(in crate::cli) fn line(snapshot: &Snapshot) -> String {
    let mut groups: Vec<((Severity, &'static str), Vec<&str>)> = Vec::new();
    for status in &snapshot.accounts {
        let key = (status.severity, word(status));
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, names)) => names.push(&status.account),
            None => groups.push((key, vec![&status.account])),
        }
    }
    groups.sort_by_key(|((severity, _), _)| std::cmp::Reverse(severity.rank()));
    let alone = snapshot.accounts.len() == 1;
    let group = |((severity, word), names): &((Severity, &'static str), Vec<&str>)| match names.len() {
        _ if alone => (*word).to_owned(),
        count if *severity == Severity::Ok || count > NAMES_MAX => format!("{count} {word}"),
        _ => format!("{} {word}", names.join(", ")),
    };
    let groups: Vec<_> = groups.iter().map(group).collect();
    // Accounts that are dead, or are never refreshed, are named above: the time is that of the rest.
    let well = snapshot.accounts.iter().filter(|status| alone || status.severity != Severity::Critical);
    let left = well.filter_map(|status| status.expires_in).filter(|left| *left > 0);
    let left =
        left.min().map(|left| format!(", {} left", duration(Duration::from_secs(left.unsigned_abs()))));
    format!("{}{}", groups.join("; "), left.unwrap_or_default())
}
