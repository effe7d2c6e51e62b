//! When: the refresh before expiry, and the waits after failures. Every number is argued here.

use std::time::Duration;

use crate::clock::{Timestamp, millis};
use crate::refresh::record::{AccessToken, Failure, Forced, Rejection, Verdict, age};

/// A refresh happens no later than this share of the lifetime before expiry: a third of an hour's
/// token outlives an outage of 19 minutes.
const SKEW_SHARE: u32 = 3;

/// Even a short token is refreshed this long before its end, where its life allows: a request, a
/// resend and a slow network fit into a minute.
const SKEW_FLOOR: Duration = Duration::from_secs(60);

/// The skew never takes more than half the life, or a short token would always be due.
const SKEW_CEILING_SHARE: u32 = 2;

/// Up to a twentieth of the life earlier, so that machines started together drift apart.
const JITTER_SHARE: u64 = 20;

/// The wall clock may differ by this much from the one that stamped the token (NTP slews, two
/// hosts on one disk) before a token "from the future" counts as due.
const WALL_TOLERANCE: Duration = Duration::from_secs(60);

/// A token that the server repeats is asked for again no sooner than this.
const REPEAT_FLOOR: Duration = Duration::from_secs(1);

/// The first wait after a failure. Most outages are a dropped connection.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// The longest wait while an outage is young: recovery is noticed within a minute.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// From this age on an outage is not going to end within the minute.
const LONG_OUTAGE: Duration = Duration::from_secs(40 * 60);

/// The wait in a long outage: 12 requests an hour are no burden to anybody.
const BACKOFF_LONG: Duration = Duration::from_secs(5 * 60);

/// A run of failures is over if nobody has tried for this long after the wait: three passes of
/// a cron that comes every 5 minutes, so that two lost ones (a full disk) do not begin the hour of
/// 60 requests anew; and well short of [`LONG_OUTAGE`], so that one old failure does not make an
/// outage long before its time.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);

/// In a long outage one attempt is made this long before the token expires, so that the wait does
/// not add to the outage: enough for the request's deadline of 30 s, twice.
const LAST_CHANCE: Duration = Duration::from_secs(60);

/// How far from [`LAST_CHANCE`] an attempt still counts as the last one.
const LAST_CHANCE_WINDOW: Duration = Duration::from_secs(30);

/// The second resend of a request without a definite answer. Servers that replay a rotation do
/// so for some 30 s; the first resend is sent at once.
const SECOND_RESEND: Duration = Duration::from_secs(5);

/// How often a refresh token is sent without a definite answer before the backoff rules.
const QUICK_SENDS: u32 = 3;

/// The longest wait that a server can ask for with Retry-After.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// A refused client is tried this often: the mistake may be on the server's side.
pub const CLIENT_RETRY: Duration = Duration::from_secs(3600);

/// Forced refreshes are counted over this time.
const FORCED_WINDOW: Duration = Duration::from_secs(60);

/// So many forced refreshes are made within [`FORCED_WINDOW`], by whatever commands and signals: a
/// person who tries something needs two or three, a script in a loop would hammer the provider.
const FORCED_MAX: u32 = 4;

/// Rejected tokens are replaced no more often than this: whoever refuses each new token, too, has
/// another reason, and must not become an outage at the provider.
const REJECTION_FLOOR: Duration = Duration::from_secs(60);

/// How long before expiry a token of this lifetime is due, unless `configured` says otherwise;
/// at most half the lifetime in any case.
pub fn skew(lifetime: Duration, configured: Option<Duration>) -> Duration {
    let wanted = configured.unwrap_or_else(|| (lifetime / SKEW_SHARE).max(SKEW_FLOOR));
    wanted.min(lifetime / SKEW_CEILING_SHARE)
}

/// A jitter for a token of this lifetime, in milliseconds; `random` is any number.
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

/// Why, and since when or from when on, something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// In so many milliseconds.
    In(i64),
    /// Overdue for so many milliseconds.
    Since(i64),
    /// The wall clock is before the instant it is counted from: it was set back, or was wrong then.
    ClockSetBack,
}

/// When something that began at `start` and is due `after` that is due, by both clocks: either
/// may say so.
pub fn due(start: Timestamp, after: Duration, now: Timestamp) -> Due {
    if now.wall_since(start) < -millis(WALL_TOLERANCE) {
        return Due::ClockSetBack;
    }
    let left = millis(after).saturating_sub(age(start, now));
    if left > 0 { Due::In(left) } else { Due::Since(-left) }
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

/// True if, by the time that somebody tried again, the failure was too long ago to count with the
/// next one.
pub fn is_forgotten(failure: &Failure, tried_again_at: Timestamp) -> bool {
    tried_again_at.since(failure.not_before) > FORGOTTEN_AFTER
}

/// Since when the outage counts: from now on if the clocks say that it has not begun yet (the
/// machine was restarted, with a wall clock that is behind), or it would stay young for ever.
pub fn since(failure: &Failure, now: Timestamp) -> Timestamp {
    let is_ahead = now.boot_since(failure.since).is_none() && now.wall_since(failure.since) < 0;
    if is_ahead { now } else { failure.since }
}

/// A wait in a long outage, cut short if it would step over the last minute of the token's life.
pub fn before_expiry(wait: Duration, remaining: Duration) -> Duration {
    let needed = wait > BACKOFF_MAX
        && remaining > LAST_CHANCE + LAST_CHANCE_WINDOW
        && remaining < wait + LAST_CHANCE_WINDOW;
    if needed { remaining.saturating_sub(LAST_CHANCE) } else { wait }
}

/// How long to wait before a refresh token is sent again that got no definite answer `sends`
/// times; `None` once the backoff decides.
pub fn resend(sends: u32) -> Option<Duration> {
    match sends {
        0 | 1 => Some(Duration::ZERO),
        2 => Some(SECOND_RESEND),
        QUICK_SENDS.. => None,
    }
}

/// How long is left of a wait that was ordered at `ordered_at` and ends at `until`; `None` if
/// nothing is, or if it is void.
///
/// Within one boot the boot clock alone decides: a stepped wall clock must neither free a request
/// nor lock it out. After a reboot, or under another boot clock (a time namespace, a restored
/// guest), the wall clock does; if that is before the order, it is wrong, and the wait is void: it
/// must not grow by the error. So is one that is longer than any legal delay.
pub fn wait(ordered_at: Timestamp, until: Timestamp, now: Timestamp) -> Option<Duration> {
    let length = until.boot.saturating_sub(ordered_at.boot);
    let elapsed = now.boot_since(ordered_at).unwrap_or_else(|| now.wall_since(ordered_at));
    if elapsed < -millis(WALL_TOLERANCE) || length > millis(RETRY_AFTER_MAX.max(CLIENT_RETRY)) {
        return None;
    }
    let left = length.saturating_sub(elapsed.max(0));
    (left > 0).then(|| Duration::from_millis(left.cast_unsigned()))
}

/// How long a failure still makes everybody wait.
pub fn wait_after(failure: &Failure, now: Timestamp) -> Option<Duration> {
    wait(failure.last_at, failure.not_before, now)
}

/// How long until a refused client is tried again; `None` if that is now, or never.
pub fn wait_of(verdict: &Verdict, now: Timestamp) -> Option<Duration> {
    wait(verdict.at, verdict.not_before?, now)
}

/// How long until another rejected token may be replaced; `None` if it may be now.
pub fn wait_after_rejection(rejection: &Rejection, now: Timestamp) -> Option<Duration> {
    wait(rejection.at, rejection.at.plus(REJECTION_FLOOR), now)
}

/// How long until another refresh may be forced; `None` if that may be now.
pub fn wait_forced(forced: &Forced, now: Timestamp) -> Option<Duration> {
    let wait = wait(forced.since, forced.since.plus(FORCED_WINDOW), now)?;
    (forced.count >= FORCED_MAX).then_some(wait)
}

/// One more forced refresh.
pub fn count_forced(forced: Option<&Forced>, now: Timestamp) -> Forced {
    match forced {
        Some(Forced { since, count }) if wait(*since, since.plus(FORCED_WINDOW), now).is_some() => {
            Forced { since: *since, count: count.saturating_add(1) }
        }
        _ => Forced { since: now, count: 1 },
    }
}

/// How long to wait if the backoff begins anew: what the server asked for is not ours to shorten.
pub fn wait_anew(failure: &Failure, now: Timestamp) -> Option<Duration> {
    let last_at = failure.last_at;
    let asked = failure.retry_after.and_then(|until| wait(last_at, until, now));
    wait(last_at, last_at.plus(BACKOFF_FIRST), now).max(asked)
}
