//! Outages, refusals, lost answers.

use crate::problem::Class;
use crate::refresh::Event;
use crate::refresh::decide::Trigger;
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::tests::world::{
    World, client_refused, invalid_grant, lost, problem, seconds, unavailable,
};
use crate::secret::Fingerprint;
use std::time::Duration;

const ANEW: Trigger =
    Trigger { force: false, anew: true, retry_dead: false, reread: false, rejected: None, row: false };
const FORCE: Trigger =
    Trigger { force: true, anew: false, retry_dead: false, reread: false, rejected: None, row: false };
const RETRY_DEAD: Trigger =
    Trigger { force: true, anew: false, retry_dead: true, reread: false, rejected: None, row: false };

/// Every request fails from here on.
fn outage(world: &mut World, answer: impl Fn() -> crate::oauth::Answer) {
    world.answers.extend((0..400).map(|_| answer()));
}

fn gaps(world: &World) -> Vec<f64> {
    world.posts.windows(2).map(|pair| (pair[1].0 - pair[0].0) as f64 / 1000.0).collect()
}

fn posts_between(world: &World, from: i64, to: i64) -> usize {
    let start = world.posts[0].0;
    world.posts.iter().filter(|(at, _)| (from..to).contains(&((at - start) / 1000))).count()
}

#[test]
fn the_backoff_doubles_to_a_minute_and_then_to_five() {
    let mut world = World::new();
    outage(&mut world, || unavailable(None));
    world.begin();
    world.live(seconds(5 * 3600));
    let gaps = gaps(&world);
    for (gap, full) in gaps.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]) {
        assert!((full * 0.9..=full).contains(gap), "{gaps:?}");
    }
    assert!(gaps[60..].iter().all(|gap| (270.0..=300.0).contains(gap)), "{gaps:?}");
    assert!(posts_between(&world, 0, 3600) <= 60);
    for hour in 1..5 {
        assert!(posts_between(&world, hour * 3600, (hour + 1) * 3600) <= 16);
    }
}

#[test]
fn an_outage_of_lost_answers_keeps_the_same_budget() {
    let mut world = World::new();
    outage(&mut world, lost);
    world.begin();
    world.live(seconds(3 * 3600));
    let gaps = gaps(&world);
    assert!(gaps[0] < 0.001 && (4.0..=10.0).contains(&gaps[1]), "{gaps:?}");
    assert!(posts_between(&world, 0, 3600) <= 60, "{}", posts_between(&world, 0, 3600));
    assert!(posts_between(&world, 3600, 7200) <= 16);
    assert!(world.sent().iter().all(|token| *token == "seed-1"));
}

#[test]
fn cron_and_restarts_obey_the_same_waits() {
    let mut world = World::new();
    outage(&mut world, || unavailable(None));
    for _ in 0..3600 {
        world.restart();
        world.sleep(seconds(1));
    }
    assert!(world.posts.len() <= 60, "{}", world.posts.len());
    assert!(matches!(world.last_outcome(), Outcome::Held { .. }));
}

#[test]
fn a_live_token_stays_where_it_is_through_an_outage() {
    let mut world = World::refreshed();
    outage(&mut world, || unavailable(None));
    world.live(seconds(3599));
    assert!(world.posts.len() > 20 && world.has_live_token());
    world.live(seconds(3600));
    assert_eq!(world.token(), Some("at-1"), "even dead it is not replaced by nothing");
    world.answers.clear();
    world.live(seconds(300));
    assert!(world.has_live_token());
    assert!(world.disk.as_ref().unwrap().failure.is_none());
}

#[test]
fn an_old_failure_does_not_slow_down_a_new_outage() {
    let mut world = World::refreshed();
    world.answers.push_back(unavailable(None));
    assert!(matches!(world.begin_with(FORCE), Outcome::Failed(_)));
    world.forget();
    outage(&mut world, || unavailable(None));
    world.live(seconds(2400));
    assert!((0.9..=1.0).contains(&gaps(&world)[0]), "{:?}", gaps(&world));
}

#[test]
fn in_a_long_outage_one_attempt_is_made_a_minute_before_the_end() {
    for retry_after in [None, Some(5)] {
        let mut world = World::new();
        world.lifetime = seconds(86_400);
        world.begin();
        world.forget();
        outage(&mut world, || unavailable(retry_after));
        world.live(seconds(86_400));
        let expiry = world.disk.as_ref().unwrap().access_token.as_ref().unwrap().expires_at().boot;
        let last: Vec<_> =
            world.posts.iter().map(|(at, _)| (expiry - at) / 1000).filter(|left| *left < 600).collect();
        assert!(last.iter().any(|left| (30..=90).contains(left)), "{retry_after:?} {last:?}");
    }
}

#[test]
fn retry_after_is_honoured_and_clamped() {
    for (asked, waited) in [(0, 1), (120, 120), (3600, 3600), (999_999, 3600)] {
        let mut world = World::new();
        world.answers.push_back(unavailable(Some(asked)));
        world.begin();
        world.live(Duration::from_millis(waited * 899));
        assert_eq!(world.posts.len(), 1, "{asked}");
        for trigger in [Trigger::default(), ANEW, FORCE] {
            if asked >= 120 {
                assert!(matches!(world.begin_with(trigger), Outcome::Held { .. }), "{asked} {trigger:?}");
            }
        }
        assert!(matches!(world.restart(), Outcome::Held { .. }));
        world.live(Duration::from_millis(waited * 101));
        assert_eq!(world.posts.len(), 2, "{asked}");
    }
}

#[test]
fn a_retry_after_shorter_than_the_backoff_is_not_shortened_either() {
    let mut world = World::new();
    outage(&mut world, || unavailable(Some(36)));
    world.begin();
    world.live(seconds(600));
    let posts = world.posts.len();
    while world.posts.len() == posts {
        world.live(seconds(1));
    }
    world.begin_with(ANEW);
    world.live(seconds(34));
    assert_eq!(world.posts.len(), posts + 1);
    world.live(seconds(3));
    assert_eq!(world.posts.len(), posts + 2, "but the backoff above it is");
}

#[test]
fn a_wish_outlives_a_wait_and_is_fulfilled_once() {
    let mut world = World::refreshed();
    world.answers.push_back(unavailable(Some(120)));
    world.begin_with(FORCE);
    assert!(matches!(world.begin_with(FORCE), Outcome::Held { .. }));
    world.live(seconds(121));
    assert_eq!(world.posts.len(), 2);
    assert!(matches!(world.last_outcome(), Outcome::Refreshed { .. }));
    world.live(seconds(600));
    assert_eq!(world.posts.len(), 2);
}

#[test]
fn resume_and_clock_steps_begin_the_backoff_anew() {
    let mut world = World::new();
    outage(&mut world, || unavailable(None));
    world.begin();
    world.live(seconds(3600));
    world.live(seconds(2));
    world.forget();
    world.begin_with(ANEW);
    world.live(seconds(2));
    assert!(world.posts.len() >= 2, "{:?}", world.posts);
    world.live(seconds(100));
    assert!(world.posts.len() <= 9, "{:?}", gaps(&world));
}

#[test]
fn a_changed_client_or_endpoint_ends_a_wait() {
    let mut world = World::new();
    world.answers.push_back(unavailable(Some(3600)));
    world.begin();
    assert!(matches!(world.restart(), Outcome::Held { .. }));
    world.set_client("client 2");
    assert!(matches!(world.restart(), Outcome::Refreshed { .. }));
}

#[test]
fn a_dead_refresh_token_is_sent_once_for_all() {
    let mut world = World::refreshed();
    outage(&mut world, invalid_grant);
    assert!(matches!(world.begin_with(FORCE), Outcome::Refused(_)));
    assert_eq!(world.supervisor.next_wakeup(), None, "no time will help");
    for _ in 0..50 {
        world.live(seconds(3600));
        for trigger in [Trigger::default(), FORCE, ANEW] {
            assert!(matches!(world.begin_with(trigger), Outcome::Refused(_)));
        }
        assert!(matches!(world.restart(), Outcome::Refused(_)));
    }
    assert_eq!(world.sent(), ["rt-1"]);
    assert_eq!(world.token(), Some("at-1"), "the reader's token stays");
}

#[test]
fn a_new_seed_ends_a_verdict() {
    let mut world = World::refreshed();
    world.answers.push_back(invalid_grant());
    world.begin_with(FORCE);
    world.set_seed("seed-2");
    assert_eq!(world.sent(), ["rt-1", "seed-2"]);
    assert!(world.has_live_token());
}

#[test]
fn a_changed_request_lets_a_dead_refresh_token_be_tried_once_more() {
    let mut world = World::refreshed();
    outage(&mut world, invalid_grant);
    world.begin_with(FORCE);
    world.set_client("client 2");
    for _ in 0..5 {
        assert!(matches!(world.restart(), Outcome::Refused(_)));
    }
    assert_eq!(world.sent(), ["rt-1", "rt-1"]);
}

#[test]
fn retry_dead_makes_exactly_one_request() {
    for answer in [invalid_grant, lost, || unavailable(None)] {
        let mut world = World::refreshed();
        outage(&mut world, invalid_grant);
        world.begin_with(FORCE);
        world.answers.clear();
        outage(&mut world, answer);
        world.begin_with(RETRY_DEAD);
        assert!(!world.supervisor.will_resend_soon());
        world.live(seconds(86_400));
        world.restart();
        assert_eq!(world.posts.len(), 2);
        assert!(matches!(world.last_outcome(), Outcome::Refused(_)));
    }
    let mut world = World::refreshed();
    world.answers.push_back(invalid_grant());
    world.begin_with(FORCE);
    assert!(matches!(world.begin_with(RETRY_DEAD), Outcome::Refreshed { .. }));
    assert!(world.disk.as_ref().unwrap().verdict.is_none());
}

#[test]
fn a_refused_client_tries_once_an_hour() {
    let mut world = World::refreshed();
    outage(&mut world, client_refused);
    world.begin_with(FORCE);
    for _ in 0..24 * 12 {
        world.live(seconds(300));
        world.restart();
    }
    assert!((24..=25).contains(&world.posts.len()), "{}", world.posts.len());
    assert!(matches!(world.begin_with(FORCE), Outcome::Refused(_)), "force overrides no verdict");
    assert_eq!(world.refresh_token(), "rt-1");
    world.answers.clear();
    world.set_client("client 2");
    assert!(matches!(world.restart(), Outcome::Refreshed { .. }));
}

#[test]
fn an_answer_lost_after_the_hour_of_a_refused_client_is_asked_for_again() {
    let mut world = World::refreshed();
    world.answers.extend([client_refused(), lost()]);
    world.begin_with(FORCE);
    world.sleep(seconds(3601));
    world.restart();
    assert!(world.supervisor.will_resend_soon());
}

#[test]
fn secrets_that_can_change_unnoticed_are_looked_at_during_a_verdict() {
    for answer in [invalid_grant, client_refused] {
        let mut world = World::new();
        world.policy.reread_secrets = Some(seconds(30));
        world.answers.push_back(answer());
        world.restart();
        assert_eq!(world.wakes_in(), Some(30.0));
        world.forget();
        world.live(seconds(600));
        assert_eq!((world.posts.len(), world.did.len()), (0, 40), "{:?}", world.did);
    }
}

#[test]
fn a_lost_answer_is_asked_for_again_at_once_and_within_ten_seconds() {
    let mut world = World::refreshed();
    outage(&mut world, lost);
    world.begin_with(FORCE);
    assert!(world.supervisor.will_resend_soon());
    world.live(seconds(5));
    assert!(!world.supervisor.will_resend_soon());
    assert_eq!(world.sent(), ["rt-1"; 3]);
    world.answers.clear();
    world.live(seconds(10));
    assert_eq!(world.sent(), ["rt-1"; 4]);
    assert_eq!(world.disk.as_ref().unwrap().refresh_token.as_ref().unwrap().unclear_sends, 0);
}

#[test]
fn to_begin_anew_never_makes_a_wait_longer() {
    let mut world = World::refreshed();
    world.answers.push_back(lost());
    world.meanwhile = Some(("request", Event::Begin(ANEW)));
    world.begin_with(FORCE);
    assert_eq!(world.sent(), ["rt-1", "rt-1"], "the resend at once comes at once");
    assert!(world.has_live_token());
}

#[test]
fn the_quick_resends_are_counted_across_processes() {
    let mut world = World::refreshed();
    outage(&mut world, lost);
    world.begin_with(FORCE);
    for _ in 0..100 {
        world.restart();
        world.sleep(Duration::from_millis(100));
    }
    assert!(world.posts.len() <= 4, "{:?}", world.posts);
}

#[test]
fn a_gateway_that_asks_for_a_delay_gets_it() {
    let mut world = World::new();
    let crate::oauth::Answer::Ambiguous(mut unclear) = lost() else { unreachable!() };
    unclear.retry_after = Some(seconds(600));
    world.answers.push_back(crate::oauth::Answer::Ambiguous(unclear));
    world.begin();
    assert!(!world.supervisor.will_resend_soon());
    world.live(seconds(599));
    assert_eq!(world.posts.len(), 1);
}

#[test]
fn unclear_then_dead_is_at_most_three_requests() {
    let mut world = World::refreshed();
    world.answers.extend([lost(), lost()]);
    outage(&mut world, invalid_grant);
    world.begin_with(FORCE);
    world.live(seconds(86_400));
    world.restart();
    assert_eq!(world.posts.len(), 3);
    assert!(matches!(world.last_outcome(), Outcome::Refused(_)));
}

#[test]
fn the_marker_of_a_dead_writer_leads_to_a_resend() {
    let mut world = World::refreshed();
    world.dies_before = Some("persist");
    world.begin_with(FORCE);
    assert!(world.disk.as_ref().unwrap().in_flight.is_some());
    assert!(matches!(world.restart(), Outcome::Refreshed { .. }));
    assert_eq!(world.sent(), ["rt-1", "rt-1"]);
    assert!(world.reports.iter().any(|report| matches!(report, Report::FoundMarker { .. })));
    assert!(world.disk.as_ref().unwrap().in_flight.is_none());
}

#[test]
fn a_crash_after_every_request_is_held_back() {
    let mut world = World::new();
    for _ in 0..3600 {
        world.dies_before = Some("persist");
        let trigger = Event::Begin(Trigger::default());
        world.locked = false;
        world.supervisor = crate::refresh::Refresher::new(world.policy.clone(), 9);
        world.send(trigger);
        world.sleep(seconds(1));
    }
    assert!(world.posts.len() <= 60, "{}", world.posts.len());
}

#[test]
fn a_marker_found_during_a_verdict_is_cleared_away() {
    let mut world = World::refreshed();
    world.answers.push_back(invalid_grant());
    world.begin_with(FORCE);
    world.dies_before = Some("request");
    world.send(Event::Begin(RETRY_DEAD));
    assert!(matches!(world.restart(), Outcome::Refused(_)));
    assert!(world.disk.as_ref().unwrap().in_flight.is_none());
}

#[test]
fn inputs_that_cannot_be_read_are_an_outage_like_any_other() {
    let mut world = World::refreshed();
    let inputs = world.inputs.clone();
    world.inputs = Err(problem(Class::Unavailable, "secret"));
    world.live(seconds(3600));
    assert!(world.posts.is_empty());
    assert!(matches!(world.last_outcome(), Outcome::Failed(_)));
    let tries = world.did.iter().filter(|did| **did == "inputs").count();
    assert!((15..=60).contains(&tries), "{tries}");
    world.inputs = inputs;
    world.live(seconds(60));
    assert!(world.has_live_token());
}

#[test]
fn a_secret_that_comes_and_goes_does_not_multiply_requests() {
    let mut world = World::refreshed();
    outage(&mut world, || unavailable(None));
    world.sleep(seconds(2400));
    let inputs = world.inputs.clone();
    for i in 0..36_000 {
        world.inputs = if i % 2 == 0 { inputs.clone() } else { Err(problem(Class::Unavailable, "secret")) };
        if i == 0 {
            world.begin();
        }
        world.live(Duration::from_millis(100));
    }
    assert!(world.posts.len() <= 60, "{}", world.posts.len());
}

#[test]
fn unreadable_inputs_do_not_shorten_a_retry_after_found_under_the_lock() {
    let mut world = World::refreshed();
    world.sleep(seconds(2400));
    world.inputs = Err(problem(Class::Unavailable, "secret"));
    // Another process gets a Retry-After before this one has the lock.
    world.lock_is_busy = true;
    world.begin();
    let mut other = World::refreshed();
    other.now = world.now;
    other.disk.clone_from(&world.disk);
    other.answers.push_back(unavailable(Some(3600)));
    other.restart();
    world.lock_is_busy = false;
    let loaded = world.disk.clone();
    world.disk = other.disk.clone();
    assert_ne!(loaded, world.disk);
    world.live(seconds(1));
    assert!(matches!(world.last_outcome(), Outcome::Held { .. }), "{:?}", world.last_outcome());
    assert_eq!(world.disk, other.disk);
}

#[test]
fn an_unreadable_seed_is_only_a_warning_once_there_is_a_refresh_token() {
    let mut world = World::refreshed();
    world.policy.inline_seed = None;
    if let Ok(inputs) = &mut world.inputs {
        inputs.seed = None;
        inputs.seed_problem = Some(problem(Class::Unavailable, "secret"));
    }
    world.sleep(seconds(3000));
    assert!(matches!(world.restart(), Outcome::Refreshed { .. }));
    assert!(world.reports.iter().any(|report| matches!(report, Report::SeedUnreadable(_))));
    world.disk = None;
    assert!(matches!(world.restart(), Outcome::Failed(problem) if problem.kind == "secret"));
}

#[test]
fn no_refresh_token_at_all_waits_for_config_and_does_not_poll() {
    let mut world = World::new();
    world.policy.inline_seed = None;
    if let Ok(inputs) = &mut world.inputs {
        inputs.seed = None;
    }
    assert!(matches!(world.restart(), Outcome::Failed(problem) if problem.kind == "no_refresh_token"));
    assert_eq!(world.supervisor.next_wakeup(), None);
    world.set_seed("seed-1");
    assert!(world.has_live_token());
}

#[test]
fn an_outage_grows_old_even_if_the_machine_forgot_the_year() {
    let mut world = World::new();
    outage(&mut world, || unavailable(None));
    world.begin();
    world.now.wall = 0;
    world.now.boot = 10_000;
    world.now.boot_id = Fingerprint::of([b"second boot"]);
    world.restart();
    world.live(seconds(3600));
    world.forget();
    world.live(seconds(3600));
    assert!(world.posts.len() <= 16, "{}", world.posts.len());
}

#[test]
fn a_wait_further_off_than_any_legal_one_is_void() {
    let mut world = World::new();
    world.answers.push_back(unavailable(Some(3600)));
    world.begin();
    // The machine was restarted, with a wall clock of 1970.
    world.now.wall = 0;
    world.now.boot = 10_000;
    world.now.boot_id = Fingerprint::of([b"second boot"]);
    assert!(matches!(world.restart(), Outcome::Refreshed { .. }));
}
