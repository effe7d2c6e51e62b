//! Shells that break a rule on purpose: the judge must catch each.

use zg_tokend::testing::oauth::{Answer, FailureKind, Sent};
use zg_tokend::testing::refresh::Loaded;
use zg_tokend::testing::secret::Secret;

use super::plan::{DAY, HOUR, Incident, MINUTE, Outage, Plan, SECOND};
use super::rules::Rule;
use super::server::no_reply;
use super::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Takes no notice of not_before.
    IgnoresWaits,
    /// Takes no notice of Retry-After.
    IgnoresRetryAfter,
    /// Takes no notice of a verdict.
    ForgetsVerdicts,
    /// Publishes the token before the state is stored.
    PublishesFirst,
    /// Renames, but never fsyncs.
    NeverSyncs,
    /// Takes a refused write for a good one.
    BelievesTheDisk,
    /// Refreshes a second before expiry.
    RefreshesLate,
    /// Sends the refresh token before the present one.
    SendsOlder,
    /// Throws the new refresh token away.
    DropsRotation,
    /// Decides under the lock by what it saw before.
    TrustsFirstLook,
    /// Locks nothing.
    NoLock,
    /// Starts with an empty state.
    ForgetsState,
    /// Has a timer that stands still in suspend, and does not hear of the resume.
    SleepsOn,
    /// Leaves it at one failure for ten minutes.
    GivesUp,
    /// Takes three seconds more after a second token that was dead on arrival.
    Dawdles,
    /// Wakes every millisecond.
    NeverRests,
    /// Empties the file when a refresh fails.
    BlanksFile,
    /// Writes the token before the present one.
    PublishesOlder,
    /// Answers a clock step with two refreshes.
    FearsSteps,
    /// Takes a lost answer for a refusal.
    NeverResends,
}

pub(crate) const ALL: [(Mutant, &[Rule]); 19] = [
    (Mutant::IgnoresWaits, &[Rule::Budget]),
    (Mutant::IgnoresRetryAfter, &[Rule::Wait]),
    (Mutant::ForgetsVerdicts, &[Rule::Verdict]),
    (Mutant::PublishesFirst, &[Rule::Order]),
    (Mutant::NeverSyncs, &[Rule::Order]),
    (Mutant::BelievesTheDisk, &[Rule::Order]),
    (Mutant::RefreshesLate, &[Rule::Late]),
    (Mutant::SendsOlder, &[Rule::Replaced]),
    (Mutant::DropsRotation, &[Rule::Revoked]),
    (Mutant::TrustsFirstLook, &[Rule::Replaced]),
    (Mutant::NoLock, &[Rule::Replaced, Rule::Revoked]),
    (Mutant::ForgetsState, &[Rule::Replaced]),
    (Mutant::SleepsOn, &[Rule::Gap, Rule::Late]),
    (Mutant::GivesUp, &[Rule::Gap, Rule::Late]),
    (Mutant::NeverRests, &[Rule::Loop]),
    (Mutant::BlanksFile, &[Rule::Gap]),
    (Mutant::PublishesOlder, &[Rule::Older, Rule::Order]),
    (Mutant::FearsSteps, &[Rule::Step]),
    (Mutant::NeverResends, &[Rule::Resend]),
];

/// A week in which there is something for every mutant to do wrong, and nothing that the core
/// itself could not stand.
pub(crate) fn week() -> Plan {
    let mut plan = Plan::quiet(3600, 7 * DAY);
    plan.incidents = vec![
        (3 * HOUR, Incident::LoseNext { committed: false }),
        (10 * HOUR, Incident::Outage(Outage::Unavailable, 3 * HOUR)),
        (20 * HOUR, Incident::Outage(Outage::Busy(1800), 10 * MINUTE)),
        (20 * HOUR + SECOND, Incident::ForceOnce),
        (30 * HOUR, Incident::Suspend(5 * HOUR)),
        (40 * HOUR, Incident::SetClock(HOUR)),
        (44 * HOUR, Incident::SetClock(0)),
        (50 * HOUR, Incident::DiskFails { state: true, duration: 2 * MINUTE }),
        (60 * HOUR, Incident::Kill(5 * SECOND)),
        (80 * HOUR, Incident::PowerLoss { down: MINUTE, wrong_by: 0 }),
        (100 * HOUR, Incident::Outage(Outage::Refused, 30 * MINUTE)),
        (120 * HOUR, Incident::Revoke),
        (130 * HOUR, Incident::Login { mistyped: false }),
    ];
    // Refreshes although the login is dead.
    for minute in [1, 2, 5, 10, 20, 40] {
        plan.incidents.push((120 * HOUR + minute * MINUTE, Incident::ForceOnce));
    }
    // A disk that fails just between marker and answer.
    for minute in 0..240 {
        let at = 51 * HOUR + minute * MINUTE;
        plan.incidents.push((at, Incident::ForceOnce));
        plan.incidents.push((at + 25, Incident::DiskFails { state: true, duration: 3 * SECOND }));
    }
    // Two passes at the same instant.
    for hour in 0..30 {
        plan.incidents.push((131 * HOUR + hour * HOUR, Incident::ForceOnce));
        plan.incidents.push((131 * HOUR + hour * HOUR, Incident::ForceOnce));
        plan.incidents.push((131 * HOUR + hour * HOUR, Incident::ForceRun));
    }
    plan
}

/// Days on which the machine falls asleep during every other request, often for longer than a token lives:
/// tokens are dead on arrival, and again when they are asked for again. The server is quick, so that the
/// judge allows little for it, and even a second is seen.
pub(crate) fn sleepy_days() -> Plan {
    Plan { rotation: false, sleep_one_in: 2, latency: 1, ..Plan::quiet(120, 3 * DAY) }
}

impl World {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(crate) fn mutate_look(&self, mut loaded: Loaded) -> Loaded {
        let Some(record) = &mut loaded.record else { return loaded };
        if self.is(Mutant::IgnoresWaits) {
            record.failure = None;
        }
        if self.is(Mutant::ForgetsVerdicts) {
            record.verdict = None;
        }
        loaded
    }

    pub(crate) fn mutate_answer(&mut self, mut answer: Answer) -> Answer {
        if self.is(Mutant::BlanksFile) && !matches!(answer, Answer::Granted(_)) {
            self.disk.token = None;
            self.judge.found_file(self.now, None);
        }
        match &mut answer {
            Answer::Granted(grant) if self.is(Mutant::DropsRotation) => grant.refresh_token = None,
            Answer::Ambiguous(_) if self.is(Mutant::NeverResends) => {
                // The judge goes by what the world knows: only the core is deceived.
                self.deceived = Some(no_reply(Sent::NotSent, FailureKind::Connect));
            }
            Answer::Unavailable(unavailable) if self.is(Mutant::IgnoresRetryAfter) => {
                let mut deceiving = unavailable.clone();
                deceiving.retry_after = None;
                self.deceived = Some(Answer::Unavailable(deceiving));
            }
            _ => {}
        }
        answer
    }

    pub(crate) fn mutate_request(&mut self, token: Secret) -> Secret {
        let before = self.sent_before.replace(token.clone());
        match before {
            Some(before) if self.is(Mutant::SendsOlder) && before != token => before,
            _ => token,
        }
    }

    pub(crate) fn mutate_publish(&mut self, token: Secret) -> Secret {
        let before = self.published_before.replace(token.clone());
        before.filter(|_| self.is(Mutant::PublishesOlder)).unwrap_or(token)
    }

    /// When a process really wakes that wanted to at `at`, after a failure of this kind.
    pub(crate) fn mutate_wakeup(&self, at: i64, failure: Option<&str>) -> i64 {
        match self.mutant {
            Some(Mutant::SleepsOn) => at + self.slept,
            Some(Mutant::NeverRests) => at.min(self.now + 1),
            Some(Mutant::GivesUp) if failure.is_some() => at + 10 * MINUTE,
            Some(Mutant::Dawdles) if failure == Some("stale_token") => at + 3 * SECOND,
            _ => at,
        }
    }
}
