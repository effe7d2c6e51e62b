//! Clock steps, suspends, reboots, and the arithmetic of `schedule`.

use crate::clock::Timestamp;
use crate::refresh::decide::Trigger;
use crate::refresh::outcome::Outcome;
use crate::refresh::record::{AccessToken, Failure};
use crate::refresh::schedule;
use crate::refresh::schedule::Due;
use crate::refresh::tests::world::{World, seconds, unavailable};
use crate::secret::{Fingerprint, Secret};
use proptest::prelude::*;
use std::time::Duration;

const ANEW: Trigger =
    Trigger { force: false, anew: true, retry_dead: false, reread: false, rejected: None, row: false };
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

#[test]
fn a_step_of_the_wall_clock_costs_at_most_one_request() {
    for step in [-HOUR, -DAY, DAY, -59_000, 59_000, -1_700_000_000_000, 10 * 365 * DAY] {
        let mut world = World::refreshed();
        world.live(seconds(600));
        world.now.wall += step;
        world.begin_with(ANEW);
        assert!(world.posts.len() <= 1, "{step}: {}", world.posts.len());
        let posts = world.posts.len();
        for _ in 0..35 {
            world.live(seconds(60));
            assert!(world.has_live_token(), "{step}");
        }
        assert_eq!(world.posts.len(), posts.max(1), "{step}");
        assert!(world.wakes_in().unwrap() <= 2400.0, "{step}");
    }
}

#[test]
fn a_step_during_a_request_does_not_age_its_token() {
    for step in [-DAY, DAY] {
        let mut world = World::refreshed();
        world.latency = seconds(2);
        world.steps_during_request = step;
        world.begin_with(Trigger { force: true, ..ANEW });
        world.steps_during_request = 0;
        world.begin_with(ANEW);
        assert!(world.has_live_token());
        world.live(seconds(2000));
        assert_eq!(world.posts.len(), 1, "{step}");
    }
}

#[test]
fn a_step_that_nobody_noticed_is_no_long_sleep() {
    let mut world = World::refreshed();
    world.now.wall -= DAY;
    // Woken by the boot clock, as planned.
    world.live(seconds(2400));
    assert_eq!(world.posts.len(), 1);
    assert!(world.has_live_token());
}

#[test]
fn a_reboot_keeps_the_token_and_its_expiry() {
    let mut world = World::refreshed();
    world.now = Timestamp { wall: world.now.wall + 1_000_000, boot: 9, boot_id: Fingerprint::of([b"2"]) };
    world.restart();
    assert!(world.posts.is_empty() && world.has_live_token());
    let left = world.wakes_in().unwrap();
    assert!((1220.0..=1400.0).contains(&left), "{left}");
    world.live(seconds(1400));
    assert_eq!(world.posts.len(), 1);
}

#[test]
fn a_boot_in_1970_refreshes_once_and_the_true_time_once_more() {
    let mut world = World::refreshed();
    world.now = Timestamp { wall: 5000, boot: 9, boot_id: Fingerprint::of([b"2"]) };
    world.restart();
    assert_eq!(world.posts.len(), 1);
    world.live(seconds(60));
    world.now.wall = 1_700_000_000_000 + HOUR;
    world.begin_with(ANEW);
    assert_eq!(world.posts.len(), 2);
    world.live(seconds(2000));
    assert_eq!(world.posts.len(), 2);
}

#[test]
fn a_token_that_ran_out_in_suspend_is_replaced_at_resume() {
    let mut world = World::refreshed();
    world.sleep(seconds(100_000));
    world.begin_with(ANEW);
    assert!(world.has_live_token() && world.posts.len() == 1);
}

#[test]
fn a_stepped_clock_frees_no_wait() {
    let mut world = World::new();
    world.answers.push_back(unavailable(Some(3000)));
    world.begin();
    for step in [-DAY, DAY, 2 * DAY] {
        world.now.wall += step;
        world.begin_with(ANEW);
    }
    world.live(seconds(2900));
    assert_eq!(world.posts.len(), 1);
}

#[test]
fn a_boot_clock_that_ran_ahead_makes_no_wait_longer() {
    let mut world = World::new();
    world.answers.push_back(unavailable(Some(120)));
    world.begin();
    // A guest that was restored to its state of an hour ago, with a corrected wall clock.
    world.now = Timestamp { boot: world.now.boot - 40_000, wall: world.now.wall + 60_000, ..world.now };
    world.restart();
    assert_eq!(world.wakes_in(), Some(60.0));
    // With a wrong wall clock the gap cannot be seen, and one request is no burden.
    world.now.wall -= HOUR;
    assert!(matches!(world.restart(), Outcome::Refreshed { .. }));
}

fn any_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0_u64..200_000).prop_map(Duration::from_millis),
        (0_u64..400 * 86_400).prop_map(Duration::from_secs),
        any::<u64>().prop_map(Duration::from_millis),
        Just(Duration::MAX),
    ]
}

fn any_timestamp() -> impl Strategy<Value = Timestamp> {
    let any_ms =
        || prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -100_000_i64..4_000_000_000_000];
    (any_ms(), any_ms(), 0_u8..2).prop_map(|(wall, boot, id)| Timestamp {
        wall,
        boot,
        boot_id: Fingerprint::of([&[id]]),
    })
}

fn token(issued_at: Timestamp, lifetime: Duration, random: u64, repeated: bool) -> AccessToken {
    AccessToken {
        value: Secret::new("at"),
        token_type: "Bearer".into(),
        scope: None,
        issued_at,
        lifetime_ms: lifetime.as_millis() as u64,
        jitter_ms: schedule::jitter_ms(lifetime, random),
        repeated,
        given: false,
        id_token: None,
    }
}

fn failure(last_at: Timestamp, not_before: Timestamp, count: u32) -> Failure {
    Failure {
        kind: "http_503".into(),
        message: String::new(),
        cause: None,
        hint: None,
        since: last_at,
        count,
        last_at,
        not_before,
        not_sent: false,
        from_inputs: false,
        retry_after: None,
        request: None,
    }
}

proptest! {
    #![proptest_config(crate::regressions::cases(256))]
    #[test]
    fn the_skew_takes_at_most_half_a_life(lifetime in any_duration(), configured in proptest::option::of(any_duration())) {
        let skew = schedule::skew(lifetime, configured);
        prop_assert!(skew <= lifetime / 2);
        if let Some(configured) = configured {
            prop_assert!(skew <= configured);
        }
    }

    #[test]
    fn a_refresh_is_never_later_than_expiry_minus_skew(
        ms in 0_u64..400 * 86_400_000,
        configured in proptest::option::of(any_duration()),
        random: u64,
    ) {
        let lifetime = Duration::from_millis(ms);
        let start = Timestamp { wall: 0, boot: 0, boot_id: Fingerprint::of([b"a"]) };
        let after = schedule::due_after(&token(start, lifetime, random, false), configured);
        prop_assert!(after + schedule::skew(lifetime, configured) <= lifetime);
        // Nor is a token due before 45 % of its life is over.
        prop_assert!(after.as_millis() * 100 >= lifetime.as_millis() * 45);
    }

    #[test]
    fn no_number_is_too_strange(
        start in any_timestamp(), now in any_timestamp(), lifetime in any_duration(),
        configured in proptest::option::of(any_duration()), random: u64, count: u32, repeated: bool,
    ) {
        let token = token(start, lifetime, random, repeated);
        let _ = schedule::due(start, lifetime, now);
        let _ = schedule::due(start, schedule::due_after(&token, configured), now);
        let _ = (token.remaining(now), token.is_live(now), token.expires_at());
        let _ = (schedule::wait(start, now, now), schedule::wait(now, start, now));
        let _ = schedule::backoff(count, lifetime, random);
        let _ = schedule::resend(count);
        let failure = failure(start, now, count);
        let _ = (schedule::wait_anew(&failure, now), schedule::is_forgotten(&failure, now));
        let _ = schedule::before_expiry(seconds(300), lifetime);
    }

    #[test]
    fn a_wait_is_never_longer_than_ordered(
        ordered_at in any_timestamp(), until in any_timestamp(), now in any_timestamp(), ms in 0_u64..7_200_000,
    ) {
        if let Some(wait) = schedule::wait(ordered_at, until, now) {
            prop_assert!(wait > Duration::ZERO && wait <= seconds(3600));
        }
        let ordered = Duration::from_millis(ms);
        let left = schedule::wait(ordered_at, ordered_at.plus(ordered), now).unwrap_or_default();
        prop_assert!(left <= ordered.min(seconds(3600)));
    }

    #[test]
    fn a_wait_that_was_just_ordered_stands(ms in 1_u64..=3_600_000, wall: u32, boot: u32) {
        let now = Timestamp { wall: wall.into(), boot: boot.into(), boot_id: Fingerprint::of([b"a"]) };
        let wait = Duration::from_millis(ms);
        prop_assert_eq!(schedule::wait(now, now.plus(wait), now), Some(wait));
        prop_assert_eq!(schedule::wait(now, now.plus(wait), now.plus(wait)), None);
    }

    #[test]
    fn the_backoff_stays_within_its_bounds(count: u32, outage in any_duration(), random: u64) {
        let wait = schedule::backoff(count, outage, random);
        prop_assert!(wait >= Duration::from_millis(900) && wait <= seconds(300));
        // The end of an outage is noticed within the length of the outage plus a second, at most a
        // minute.
        let young = schedule::backoff(count, Duration::ZERO, random);
        prop_assert!(young <= seconds(60));
    }

    #[test]
    fn either_clock_makes_due(after_ms in 1_i64..4_000_000, wall in 0_i64..8_000_000, boot in 0_i64..8_000_000) {
        let id = Fingerprint::of([b"a"]);
        let start = Timestamp { wall: 1000, boot: 1000, boot_id: id };
        let now = Timestamp { wall: 1000 + wall, boot: 1000 + boot, boot_id: id };
        let due = schedule::due(start, Duration::from_millis(after_ms.cast_unsigned()), now);
        prop_assert_eq!(matches!(due, Due::Since(_)), wall >= after_ms || boot >= after_ms);
    }
}
