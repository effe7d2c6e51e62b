//! The time of the refresh before expiry, and the waits after failures. Each constant gives the
//! reason for its value.

use std::time::Duration;

use crate::clock::{Timestamp, millis};
use crate::refresh::record::{AccessToken, Failure, Forced, Rejection, Verdict, age};

/// A token is refreshed at least this share of its lifetime before expiry: with a third, a token of
/// one hour survives an outage of 19 minutes.
const SKEW_SHARE: u32 = 3;

/// A short token is refreshed at least this long before expiry, within the next limit: a request, a
/// resend and a slow network fit into a minute.
const SKEW_FLOOR: Duration = Duration::from_secs(60);

/// The skew is at most half the lifetime, or a short token would always be due.
const SKEW_CEILING_SHARE: u32 = 2;

/// A token is refreshed up to a twentieth of its lifetime earlier, so that machines that started
/// together drift apart.
const JITTER_SHARE: u64 = 20;

/// A token issued in the future by the wall clock is due only if the clocks differ by more than
/// this: NTP slews, and two hosts may share one disk.
const WALL_TOLERANCE: Duration = Duration::from_secs(60);

/// The shortest time to the next request after the server has granted the same token again.
const REPEAT_FLOOR: Duration = Duration::from_secs(1);

/// The first wait after a failure. Most outages are a dropped connection.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// The longest wait while an outage is young: recovery is noticed within a minute.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// An outage of this age is not likely to end within the minute.
const LONG_OUTAGE: Duration = Duration::from_secs(40 * 60);

/// The wait in a long outage: 12 requests an hour are no burden to anybody.
const BACKOFF_LONG: Duration = Duration::from_secs(5 * 60);

/// A run of failures ends if no attempt follows for this long after the wait. Three passes of a cron
/// job that runs every 5 minutes: two lost ones (a full disk) do not begin the hour of 60 requests
/// anew. And well below [`LONG_OUTAGE`], so that one old failure does not make a new outage a long one.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);

/// In a long outage one attempt is made this long before the token expires, whatever the wait: enough
/// for two requests with a deadline of 30 s each.
const LAST_CHANCE: Duration = Duration::from_secs(60);

/// How far from [`LAST_CHANCE`] an attempt still counts as the last one.
const LAST_CHANCE_WINDOW: Duration = Duration::from_secs(30);

/// The wait before the second resend of a request without a definite answer; the first one is sent
/// at once. Servers that repeat a rotation do so for about 30 s.
const SECOND_RESEND: Duration = Duration::from_secs(5);

/// After so many sends without a definite answer the backoff applies.
const QUICK_SENDS: u32 = 3;

/// The longest wait that a server can ask for with Retry-After.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// A refused client is tried again after this time: the mistake may be the server's.
pub const CLIENT_RETRY: Duration = Duration::from_secs(3600);

/// Forced refreshes are counted over this time.
const FORCED_WINDOW: Duration = Duration::from_secs(60);

/// Forced refreshes within [`FORCED_WINDOW`], by commands and signals together: a person who tests
/// something needs two or three, and a script in a loop must not hammer the provider.
const FORCED_MAX: u32 = 4;

/// Rejected tokens are replaced no more often than this: a resource that refuses every new token has
/// another reason, and must not make this program hammer the provider.
const REJECTION_FLOOR: Duration = Duration::from_secs(60);

/// How long before expiry a token of this lifetime is due, unless `configured` says otherwise;
/// at most half the lifetime in any case.
pub fn skew(lifetime: Duration, configured: Option<Duration>) -> Duration {
    let wanted = configured.unwrap_or_else(|| (lifetime / SKEW_SHARE).max(SKEW_FLOOR));
    wanted.min(lifetime / SKEW_CEILING_SHARE)
}

/// The jitter for a token of this lifetime, in milliseconds.
pub fn jitter_ms(lifetime: Duration, random: u64) -> u64 {
    let most = lifetime.as_millis() as u64 / JITTER_SHARE;
    random % (most + 1)
}

/// How long after its issue the token is due.
pub fn due_after(token: &AccessToken, skew_configured: Option<Duration>) -> Duration {
    let lifetime = token.lifetime();
    if token.repeated {
        return (lifetime / 2).max(REPEAT_FLOOR).min(lifetime);
    }
    let latest = lifetime.saturating_sub(skew(lifetime, skew_configured));
    latest.saturating_sub(Duration::from_millis(token.jitter_ms))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    In(Duration),
    /// Overdue for so many milliseconds.
    Since(i64),
    /// The wall clock is before the start: it was set back, or was wrong then.
    ClockSetBack,
}

/// `start` plus `after`, by the clock that reaches it first.
pub fn due(start: Timestamp, after: Duration, now: Timestamp) -> Due {
    if now.wall_since(start) < -millis(WALL_TOLERANCE) {
        return Due::ClockSetBack;
    }
    let left = millis(after).saturating_sub(age(start, now));
    if left > 0 { Due::In(Duration::from_millis(left.cast_unsigned())) } else { Due::Since(-left) }
}

/// How long to wait after the `count`th failure in a row of an outage that is `outage` old.
/// `random` shortens it by at most a tenth.
pub fn backoff(count: u32, outage: Duration, random: u64) -> Duration {
    let full = if outage >= LONG_OUTAGE {
        BACKOFF_LONG
    } else {
        BACKOFF_FIRST.saturating_mul(1 << count.saturating_sub(1).min(16)).min(BACKOFF_MAX)
    };
    let most = full.as_millis() as u64 / 10;
    full.saturating_sub(Duration::from_millis(random % (most + 1)))
}

/// True if the failure was too long before the next attempt to count as one run with it.
pub fn is_forgotten(failure: &Failure, tried_again_at: Timestamp) -> bool {
    tried_again_at.since(failure.not_before) > FORGOTTEN_AFTER
}

/// The start of the outage. Now, if the clocks show a start in the future (after a reboot with a slow
/// wall clock), or the outage would never become a long one.
pub fn since(failure: &Failure, now: Timestamp) -> Timestamp {
    let is_ahead = now.boot_since(failure.since).is_none() && now.wall_since(failure.since) < 0;
    if is_ahead { now } else { failure.since }
}

/// A wait in a long outage, shortened if it would pass the last minute of the token's life.
pub fn before_expiry(wait: Duration, remaining: Duration) -> Duration {
    let needed = wait > BACKOFF_MAX
        && remaining > LAST_CHANCE + LAST_CHANCE_WINDOW
        && remaining < wait + LAST_CHANCE_WINDOW;
    if needed { remaining.saturating_sub(LAST_CHANCE) } else { wait }
}

/// The wait before a refresh token is sent again after `sends` without a definite answer; `None`
/// where the backoff applies.
pub fn resend(sends: u32) -> Option<Duration> {
    match sends {
        0 | 1 => Some(Duration::ZERO),
        2 => Some(SECOND_RESEND),
        QUICK_SENDS.. => None,
    }
}

/// The rest of a wait from `start` to `until`; `None` if it is over or void.
///
/// Within one boot only the boot clock counts: a step of the wall clock must neither end a wait nor
/// prolong it. After a reboot, or under another boot clock (a time namespace, a restored guest), the
/// wall clock counts; if that is before `start`, it is wrong, and the wait is void, or it would grow
/// by the error. A wait longer than any valid one is void as well.
pub fn wait(start: Timestamp, until: Timestamp, now: Timestamp) -> Option<Duration> {
    let length = until.boot.saturating_sub(start.boot);
    let elapsed = now.boot_since(start).unwrap_or_else(|| now.wall_since(start));
    if elapsed < -millis(WALL_TOLERANCE) || length > millis(RETRY_AFTER_MAX.max(CLIENT_RETRY)) {
        return None;
    }
    let left = length.saturating_sub(elapsed.max(0));
    (left > 0).then(|| Duration::from_millis(left.cast_unsigned()))
}

/// The rest of the wait after a failure.
pub fn wait_after(failure: &Failure, now: Timestamp) -> Option<Duration> {
    wait(failure.last_at, failure.not_before, now)
}

/// The time until a refused client is tried again; `None` if that is now, or never.
pub fn wait_of(verdict: &Verdict, now: Timestamp) -> Option<Duration> {
    wait(verdict.at, verdict.not_before?, now)
}

/// The time until another rejected token may be replaced; `None` if that is now.
pub fn wait_after_rejection(rejection: &Rejection, now: Timestamp) -> Option<Duration> {
    wait(rejection.at, rejection.at.plus(REJECTION_FLOOR), now)
}

/// The time until another refresh may be forced; `None` if that is now.
pub fn wait_forced(forced: &Forced, now: Timestamp) -> Option<Duration> {
    let wait = wait(forced.since, forced.since.plus(FORCED_WINDOW), now)?;
    (forced.count >= FORCED_MAX).then_some(wait)
}

/// Counts one more forced refresh.
pub fn count_forced(forced: Option<&Forced>, now: Timestamp) -> Forced {
    match forced {
        Some(Forced { since, count }) if wait(*since, since.plus(FORCED_WINDOW), now).is_some() => {
            Forced { since: *since, count: count.saturating_add(1) }
        }
        _ => Forced { since: now, count: 1 },
    }
}

/// The wait if the backoff begins anew: a Retry-After is not shortened.
pub fn wait_anew(failure: &Failure, now: Timestamp) -> Option<Duration> {
    let last_at = failure.last_at;
    let retry_after = failure.retry_after.and_then(|until| wait(last_at, until, now));
    wait(last_at, last_at.plus(BACKOFF_FIRST), now).max(retry_after)
}
