//! Counts what has happened to each account since the process started, for `/metrics`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::account::context::{Notice, Observer};
use crate::clock::Timestamp;
use crate::config::AccountName;
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::record::VerdictKind;

/// By account name.
#[derive(Debug, Default)]
pub struct Counts(pub BTreeMap<AccountName, Count>);

/// Small, since most of thousands of accounts have no trouble.
#[derive(Debug, Default)]
pub struct Count {
    pub refreshes: u64,
    /// The sum over all refreshes.
    pub exchange_time: Duration,
    trouble: Option<Box<Trouble>>,
    /// The time without a live token, up to the newest token.
    gaps: Duration,
    /// When the newest token expires, by the boot clock: the process lives in one boot.
    expires_at: Option<i64>,
}

#[derive(Debug, Default)]
struct Trouble {
    /// Failed passes, by the kind of failure.
    failures: BTreeMap<String, u64>,
    /// The server's standing refusal, and its error code.
    verdict: Option<(VerdictKind, String)>,
}

impl Observer for RefCell<Counts> {
    fn notice(&self, notice: &Notice<'_>) {
        let Counts(counts) = &mut *self.borrow_mut();
        match notice {
            Notice::Report { account, report: Report::Finished(outcome), now, .. } => {
                counts.entry((*account).clone()).or_default().note(outcome, *now);
            }
            Notice::Removed { account } => drop(counts.remove(*account)),
            _ => {}
        }
    }
}

impl Count {
    fn note(&mut self, outcome: &Outcome, now: Timestamp) {
        let verdict = match outcome {
            Outcome::Refused(verdict) => Some((verdict.kind, verdict.error.clone())),
            _ => None,
        };
        match outcome {
            Outcome::Refreshed { remaining, took, .. } => {
                self.refreshes += 1;
                self.exchange_time += *took;
                self.start_life(*remaining, now);
            }
            Outcome::Fresh { remaining, .. } => self.start_life(*remaining, now),
            Outcome::Failed(problem) | Outcome::NotStored(problem) => self.fail(&problem.kind),
            // Repeated refusals count once.
            Outcome::Refused(refused) if self.verdict() != verdict.as_ref() => self.fail(&refused.error),
            Outcome::Held { .. } | Outcome::Refused(_) | Outcome::Republished | Outcome::Stopped => {}
        }
        if !matches!(outcome, Outcome::Held { .. } | Outcome::Stopped) {
            self.trouble.iter_mut().for_each(|trouble| trouble.verdict.clone_from(&verdict));
        }
    }

    fn fail(&mut self, kind: &str) {
        *self.trouble.get_or_insert_default().failures.entry(kind.to_owned()).or_default() += 1;
    }

    fn start_life(&mut self, remaining: Duration, now: Timestamp) {
        self.gaps = self.gaps(now);
        self.expires_at = Some(now.plus(remaining).boot);
    }

    /// The time without a live token since the first one.
    pub fn gaps(&self, now: Timestamp) -> Duration {
        let open = self.expires_at.map_or(0, |at| (now.boot - at).max(0));
        self.gaps + Duration::from_millis(open.unsigned_abs())
    }

    /// Failed passes, by the kind of failure.
    pub fn failures(&self) -> impl Iterator<Item = (&str, u64)> {
        let failures = self.trouble.iter().flat_map(|trouble| &trouble.failures);
        failures.map(|(kind, count)| (kind.as_str(), *count))
    }

    /// The server's standing refusal, and its error code.
    pub fn verdict(&self) -> Option<&(VerdictKind, String)> {
        self.trouble.as_ref()?.verdict.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use crate::daemon::control::counts::*;
    use crate::problem::{Class, Problem};
    use crate::refresh::record::Verdict;
    use crate::secret::Fingerprint;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { wall: seconds * 1000, boot: seconds * 1000, boot_id: Fingerprint::of([b"boot"]) }
    }

    fn refreshed() -> Outcome {
        let (remaining, took) = (Duration::from_secs(60), Duration::from_secs(2));
        Outcome::Refreshed { generation: 1, remaining, took }
    }

    #[test]
    fn a_gap_lasts_from_expiry_to_the_next_token() {
        let mut count = Count::default();
        assert_eq!(count.gaps(at(0)), Duration::ZERO, "before the first token nothing is known");
        count.note(&refreshed(), at(0));
        assert_eq!(count.gaps(at(59)), Duration::ZERO);
        assert_eq!(count.gaps(at(65)), Duration::from_secs(5), "it is still open");
        count.note(&refreshed(), at(70));
        assert_eq!(count.gaps(at(120)), Duration::from_secs(10));
        assert_eq!((count.refreshes, count.exchange_time), (2, Duration::from_secs(4)));
    }

    #[test]
    fn a_refusal_counts_once_and_stands_until_a_pass_ends_well() {
        let mut count = Count::default();
        let verdict = Verdict {
            is_of_login: false,
            kind: VerdictKind::RefreshToken,
            binding: Fingerprint::of([b"binding"]),
            error: "invalid_grant".into(),
            message: "gone".into(),
            cause: None,
            hint: None,
            at: at(0),
            not_before: None,
        };
        for _ in 0..3 {
            count.note(&Outcome::Refused(Box::new(verdict.clone())), at(0));
        }
        assert_eq!(count.failures().collect::<Vec<_>>(), [("invalid_grant", 1)]);
        assert!(count.verdict().is_some());
        count.note(&refreshed(), at(1));
        assert_eq!(count.verdict(), None);
    }

    #[test]
    fn failures_count_by_kind() {
        let mut count = Count::default();
        let failed = |kind: &str| {
            let (class, message) = (Class::Unavailable, String::new());
            Outcome::Failed(Problem { class, kind: kind.into(), message, cause: None, hint: None }.into())
        };
        for kind in ["timeout", "http_503", "timeout"] {
            count.note(&failed(kind), at(0));
        }
        assert_eq!(count.failures().collect::<Vec<_>>(), [("http_503", 1), ("timeout", 2)]);
    }
}
