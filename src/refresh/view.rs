//! Every input of a decision, for the log: with them the decision can be repeated.

use std::fmt::Write;

use crate::clock::{Timestamp, millis};
use crate::refresh::decide::{FileView, Inputs, Loaded};
use crate::refresh::policy::Policy;
use crate::refresh::schedule;

/// `key=value` for each that is known.
pub fn facts(loaded: &Loaded, policy: &Policy, inputs: Option<&Inputs>, now: Timestamp) -> String {
    let record = loaded.record.as_ref();
    let token = record.and_then(|record| record.access_token.as_ref());
    let failure = record.and_then(|record| record.failure.as_ref());
    let refresh_token = record.and_then(|record| record.refresh_token.as_ref());
    let wait = failure.and_then(|failure| schedule::wait_after(failure, now));
    let file = match loaded.file {
        FileView::Missing => "missing",
        FileView::Current => "current",
        FileView::Incomplete => "incomplete",
        FileView::Ahead(_) => "ahead",
        FileView::Other { .. } => "other",
    };
    let mut facts = format!(
        "generation={} file={file} inputs_read={}",
        record.map_or(0, |record| record.generation),
        inputs.is_some()
    );
    // Writing to a String does not fail.
    for (name, value) in [
        ("lifetime_ms", token.map(|token| millis(token.lifetime()))),
        ("age_by_wall_ms", token.map(|token| now.wall_since(token.issued_at))),
        ("age_by_boot_ms", token.and_then(|token| now.boot_since(token.issued_at))),
        ("skew_ms", token.map(|token| millis(schedule::skew(token.lifetime(), policy.skew)))),
        ("jitter_ms", token.map(|token| token.jitter_ms.cast_signed())),
        ("wait_ms", wait.map(millis)),
    ] {
        if let Some(value) = value {
            let _ = write!(facts, " {name}={value}");
        }
    }
    let _ = write!(
        facts,
        " failures={} unclear_sends={} in_flight={}",
        failure.map_or(0, |failure| failure.count),
        refresh_token.map_or(0, |token| token.unclear_sends),
        record.is_some_and(|record| record.in_flight.is_some())
    );
    if let Some(verdict) = record.and_then(|record| record.verdict.as_ref()) {
        let _ = write!(facts, " verdict={}", verdict.error);
    }
    facts
}
