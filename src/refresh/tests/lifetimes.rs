//! Ordinary refreshes: the first token, the due time, members that a reply may lack.

use crate::oauth::{Answer, Defect, ExpiresInSource};
use crate::refresh::decide::Trigger;
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::tests::world::{World, lost, seconds};
use crate::secret::Secret;
use std::time::Duration;

const DAY: u64 = 86_400;

#[test]
fn the_first_pass_fetches_a_token_in_the_order_of_the_house() {
    let mut world = World::new();
    let outcome = world.begin();
    assert!(matches!(outcome, Outcome::Refreshed { generation: 1, .. }), "{outcome:?}");
    assert_eq!(
        world.did,
        ["load", "inputs", "lock", "take over", "prepare", "request", "persist", "publish", "unlock"]
    );
    assert_eq!((world.sent(), world.token()), (vec!["seed-1"], Some("at-1")));
    assert_eq!(world.refresh_token(), "rt-1");
    assert!(world.has_live_token() && world.supervisor.is_idle());
}

#[test]
fn nothing_due_touches_neither_lock_nor_secrets() {
    let mut world = World::refreshed();
    assert!(matches!(world.begin(), Outcome::Fresh { .. }));
    assert_eq!(world.did, ["load"]);
}

/// The server's lifetime, the configured skew, and after how many seconds the token is due,
/// at the earliest and at the latest.
#[test]
fn refresh_timings() {
    for (lifetime, skew, earliest, latest) in [
        (2, None, 0.9, 1.0),
        (30, None, 13.5, 15.0),
        (60, None, 27.0, 30.0),
        (120, None, 54.0, 60.0),
        (150, None, 82.5, 90.0),
        (3600, None, 2220.0, 2400.0),
        (DAY, None, 53_280.0, 57_600.0),
        (365 * DAY, None, 19_447_200.0, 21_024_000.0),
        (2, Some(60), 0.9, 1.0),
        (30, Some(10), 18.5, 20.0),
        (60, Some(0), 57.0, 60.0),
        (120, Some(3600), 54.0, 60.0),
        (3600, Some(300), 3120.0, 3300.0),
        (DAY, Some(60), 82_020.0, 86_340.0),
        (365 * DAY, Some(3600), 29_955_600.0, 31_532_400.0),
    ] {
        for random in 0..8 {
            let mut world = World::new();
            world.lifetime = seconds(lifetime);
            world.policy.skew = skew.map(seconds);
            world.supervisor = crate::refresh::Refresher::new(world.policy.clone(), random);
            world.begin();
            let due_in = world.wakes_in().unwrap();
            assert!((earliest..=latest).contains(&due_in), "{lifetime} {skew:?}: {due_in}");
            world.sleep(Duration::from_secs_f64(due_in - 0.001));
            assert!(matches!(world.begin(), Outcome::Fresh { .. }), "{lifetime} {skew:?}");
            world.sleep(Duration::from_millis(1));
            assert!(matches!(world.begin(), Outcome::Refreshed { .. }), "{lifetime} {skew:?}");
        }
    }
}

#[test]
fn a_day_of_one_hour_tokens_has_no_gap_and_no_waste() {
    let mut world = World::refreshed();
    for _ in 0..24 * 60 {
        world.live(seconds(60));
        assert!(world.has_live_token());
    }
    assert!((36..=39).contains(&world.posts.len()), "{}", world.posts.len());
    let sent = world.sent();
    assert!(sent.iter().enumerate().all(|(i, token)| *token == format!("rt-{}", i + 1)), "{sent:?}");
}

#[test]
fn tokens_of_two_seconds_are_refreshed_every_second() {
    let mut world = World::new();
    world.lifetime = seconds(2);
    world.latency = Duration::from_millis(200);
    world.begin();
    for _ in 0..600 {
        world.live(Duration::from_millis(100));
        assert!(world.has_live_token());
    }
    let elapsed = (world.now.boot - world.posts[0].0) as usize;
    assert!((elapsed / 1000..=elapsed / 900).contains(&(world.posts.len() - 1)), "{}", world.posts.len());
}

#[test]
fn a_reply_without_a_refresh_token_keeps_the_old() {
    let mut world = World::new();
    world.rotates = false;
    world.begin();
    world.live(seconds(7200));
    assert_eq!(world.refresh_token(), "seed-1");
    assert!(world.posts.len() >= 3 && world.sent().iter().all(|token| *token == "seed-1"));
}

#[test]
fn the_same_token_again_is_asked_for_at_half_its_remaining_life() {
    let mut world = World::refreshed();
    world.live(Duration::from_secs_f64(world.wakes_in().unwrap() - 0.001));
    let remaining = world.disk.as_ref().unwrap().access_token.as_ref().unwrap().remaining(world.now) - 1;
    let Answer::Granted(mut grant) = world.grant() else { unreachable!() };
    grant.access_token = Secret::new("at-1");
    grant.expires_in_source = ExpiresInSource::Default;
    world.answers.push_back(Answer::Granted(grant));
    world.live(Duration::from_millis(1));
    assert_eq!(world.posts.len(), 1);
    assert_eq!(world.disk.as_ref().unwrap().generation, 1);
    assert_eq!((world.wakes_in().unwrap() * 2000.0) as i64, remaining);
    assert!(world.has_live_token());
}

#[test]
fn a_server_that_repeats_one_token_for_ever_is_not_hammered() {
    let mut world = World::refreshed();
    for _ in 0..60 {
        let Answer::Granted(mut grant) = world.grant() else { unreachable!() };
        grant.access_token = Secret::new("at-1");
        grant.expires_in_source = ExpiresInSource::Default;
        world.answers.push_back(Answer::Granted(grant));
    }
    world.live(seconds(3600));
    let dead_at = world.now;
    assert!(world.posts.len() <= 13, "{}", world.posts.len());
    assert!(matches!(world.last_outcome(), Outcome::Failed(_) | Outcome::Refreshed { .. }));
    world.live(seconds(600));
    let after = world.posts.iter().filter(|(at, _)| *at > dead_at.boot).count();
    assert!((5..=18).contains(&after), "{after}");
}

#[test]
fn a_token_that_died_on_its_way_is_asked_for_again_at_once() {
    let force = Trigger { force: true, ..Trigger::default() };
    for (trigger, slept_before) in [(Trigger::default(), 3000), (force, 0)] {
        let mut world = World::refreshed();
        world.sleep(seconds(slept_before));
        // The machine sleeps while a request is under way.
        world.latency = seconds(7200);
        world.later_latency = Some(Duration::ZERO);
        assert!(matches!(world.begin_with(trigger), Outcome::Refreshed { .. }), "{trigger:?}");
        assert_eq!(world.sent(), ["rt-1", "rt-2"]);
        assert!(world.has_live_token());
        assert!(!world.reports.iter().any(|report| matches!(report, Report::Finished(Outcome::Failed(_)))));
    }
}

#[test]
fn tokens_that_live_less_long_than_an_exchange_are_a_failure() {
    let mut world = World::new();
    world.lifetime = seconds(2);
    world.latency = seconds(3);
    let outcome = world.begin();
    assert!(matches!(&outcome, Outcome::Failed(problem) if problem.kind == "stale_token"), "{outcome:?}");
    assert_eq!((world.refresh_token(), world.token(), world.posts.len()), ("rt-2", None, 2));
    world.live(seconds(600));
    assert!(world.posts.len() <= 20, "{}", world.posts.len());
    world.restart();
    world.live(seconds(600));
    assert!(world.posts.len() <= 32, "{}", world.posts.len());
    world.latency = Duration::ZERO;
    world.live(seconds(60));
    assert!(world.has_live_token());
}

#[test]
fn dead_tokens_between_lost_answers_are_no_hot_loop() {
    let mut world = World::new();
    world.lifetime = seconds(2);
    world.latency = seconds(3);
    for _ in 0..100 {
        world.answers.push_back(lost());
        let grant = world.grant();
        world.answers.push_back(grant);
    }
    world.begin();
    world.live(seconds(3600));
    assert!(world.posts.len() <= 90, "{}", world.posts.len());
}

#[test]
fn force_overrides_not_due_and_nothing_else() {
    let mut world = World::refreshed();
    let force = Trigger { force: true, ..Trigger::default() };
    assert!(matches!(world.begin_with(force), Outcome::Refreshed { generation: 2, .. }));
    // The trigger is served: the next pass does not force.
    assert!(matches!(world.begin(), Outcome::Fresh { .. }));
}

#[test]
fn a_pass_from_cron_also_takes_what_would_expire_before_the_next() {
    let mut world = World::refreshed();
    world.policy.horizon = Some(seconds(3000));
    assert!(matches!(world.restart(), Outcome::Fresh { .. }));
    world.sleep(seconds(601));
    assert!(matches!(world.restart(), Outcome::Refreshed { .. }));
}

#[test]
fn the_refresh_token_of_an_unusable_reply_is_kept_and_tried_again() {
    let mut world = World::new();
    world.answers.push_back(Answer::Defective {
        refresh_token: Some(Secret::new("rt-x")),
        defect: Defect::ExpiresIn("0".into()),
    });
    assert!(matches!(world.begin(), Outcome::Failed(_)));
    assert_eq!((world.refresh_token(), world.token()), ("rt-x", None));
    assert!((0.9..=1.0).contains(&world.wakes_in().unwrap()));
    world.live(seconds(1));
    assert_eq!(world.sent(), ["seed-1", "rt-x"]);
    assert!(world.has_live_token());
}

#[test]
fn a_new_login_whose_first_reply_is_unusable_is_still_due() {
    let mut world = World::refreshed();
    world.answers.push_back(Answer::Defective { refresh_token: None, defect: Defect::Unreadable });
    world.set_seed("seed-2");
    assert_eq!(world.sent(), ["seed-2"]);
    world.live(seconds(2));
    assert_eq!(world.sent(), ["seed-2", "seed-2"]);
}

/// One end is stated again and again; the notice is a seventh of the whole life, not of what was left.
#[test]
fn a_login_with_a_fixed_end_is_told_a_seventh_of_its_life_ahead() {
    let end = Duration::from_secs(7 * DAY);
    let mut world = World::new();
    let begun = world.now;
    let ends_soon = |world: &mut World| {
        world.login_expires_in = Some(end.saturating_sub(world.now.since(begun)));
        world.begin_with(Trigger { force: true, ..Trigger::default() });
        let life = world.disk.as_ref().unwrap().login_life.clone().unwrap();
        assert_eq!(life.ends_at().wall, begun.plus(end).wall);
        life.ends_soon(world.now)
    };
    for (hours, soon) in [(0, false), (1, false), (100, false), (143, false), (145, true), (167, true)] {
        world.now = begun.plus(Duration::from_secs(hours * 3600));
        assert_eq!(ends_soon(&mut world), soon, "{hours} h");
    }
}

/// Each refresh moves the end.
#[test]
fn a_login_that_each_refresh_prolongs_is_told_a_seventh_of_that_life_ahead() {
    let mut world = World::new();
    world.login_expires_in = Some(Duration::from_secs(7 * DAY));
    world.begin();
    world.now = world.now.plus(Duration::from_secs(6 * DAY));
    world.login_expires_in = Some(Duration::from_secs(70 * DAY));
    world.begin();
    let life = world.disk.as_ref().unwrap().login_life.clone().unwrap();
    for (days, soon) in [(0, false), (62, false), (64, true)] {
        assert_eq!(life.ends_soon(world.now.plus(Duration::from_secs(days * DAY))), soon, "{days} d");
    }
}
