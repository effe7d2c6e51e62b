//! Every input of a decision, for the log: with it the decision can be repeated.

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::refresh::Policy;
use crate::refresh::decide::{FileView, Inputs, Loaded};
use crate::refresh::schedule;

/// The inputs of one decision. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionView {
    /// The number of the present token; 0 without a state.
    pub generation: u64,
    /// The life it was granted.
    pub lifetime: Option<i64>,
    /// How long ago it was issued by the wall clock; negative if that clock was set back.
    pub age_by_wall: Option<i64>,
    /// The same by the boot clock, where it can tell.
    pub age_by_boot: Option<i64>,
    /// The skew that applies to it.
    pub skew: Option<i64>,
    /// How much earlier than that it is refreshed.
    pub jitter: Option<u64>,
    /// Failures in a row.
    pub failures: u32,
    /// The rest of the wait that they ordered.
    pub wait: Option<i64>,
    /// Sends of the refresh token without a definite answer.
    pub unclear_sends: u32,
    /// A marker stands: a request is under way, or its sender has died.
    pub in_flight: bool,
    /// The error code of a standing refusal.
    pub verdict: Option<String>,
    /// The token file, beside the state.
    pub file: FileView,
    /// Secrets and endpoint were read for it.
    pub inputs_read: bool,
}

impl DecisionView {
    /// Gathers them.
    pub fn gather(loaded: &Loaded, policy: &Policy, inputs: Option<&Inputs>, now: Timestamp) -> Self {
        let record = loaded.record.as_ref();
        let token = record.and_then(|record| record.access_token.as_ref());
        let failure = record.and_then(|record| record.failure.as_ref());
        let ms = |duration: Duration| crate::clock::millis(duration);
        Self {
            generation: record.map_or(0, |record| record.generation),
            lifetime: token.map(|token| ms(token.lifetime())),
            age_by_wall: token.map(|token| now.wall_since(token.issued_at)),
            age_by_boot: token.and_then(|token| now.boot_since(token.issued_at)),
            skew: token.map(|token| ms(schedule::skew(token.lifetime(), policy.skew))),
            jitter: token.map(|token| token.jitter_ms),
            failures: failure.map_or(0, |failure| failure.count),
            wait: failure.and_then(|failure| schedule::wait_after(failure, now)).map(ms),
            unclear_sends: record
                .and_then(|record| record.refresh_token.as_ref())
                .map_or(0, |token| token.unclear_sends),
            in_flight: record.is_some_and(|record| record.in_flight.is_some()),
            verdict: record.and_then(|record| record.verdict.as_ref()).map(|verdict| verdict.error.clone()),
            file: loaded.file,
            inputs_read: inputs.is_some(),
        }
    }
}

/// `key=value` for each that is known.
impl fmt::Display for DecisionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = match self.file {
            FileView::Missing => "missing",
            FileView::Current => "current",
            FileView::Other { .. } => "other",
        };
        write!(f, "generation={} file={file} inputs_read={}", self.generation, self.inputs_read)?;
        for (name, value) in [
            ("lifetime_ms", self.lifetime),
            ("age_by_wall_ms", self.age_by_wall),
            ("age_by_boot_ms", self.age_by_boot),
            ("skew_ms", self.skew),
            ("jitter_ms", self.jitter.map(|jitter| jitter as i64)),
            ("wait_ms", self.wait),
        ] {
            if let Some(value) = value {
                write!(f, " {name}={value}")?;
            }
        }
        write!(
            f,
            " failures={} unclear_sends={} in_flight={}",
            self.failures, self.unclear_sends, self.in_flight
        )?;
        self.verdict.as_ref().map_or(Ok(()), |error| write!(f, " verdict={error}"))
    }
}
