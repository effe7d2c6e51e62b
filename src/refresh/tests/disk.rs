//! Files that fail, locks that are busy, and requests to stop.

use crate::problem::Class;
use crate::refresh::Event;
use crate::refresh::decide::Trigger;
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::tests::world::{World, client_refused, invalid_grant, lost, seconds, unavailable};

const FORCE: Trigger =
    Trigger { force: true, anew: false, retry_dead: false, reread: false, rejected: None, row: false };

#[test]
fn no_request_without_a_place_for_its_answer() {
    let mut world = World::refreshed();
    world.failing_prepares = 3;
    assert!(matches!(world.begin_with(FORCE), Outcome::Failed(problem) if problem.class == Class::Io));
    assert!(world.posts.is_empty() && world.has_live_token());
    world.live(seconds(3600));
    assert!(world.has_live_token());
}

#[test]
fn a_disk_that_stays_full_is_tried_every_minute() {
    let mut world = World::new();
    world.failing_prepares = u32::MAX;
    world.begin();
    world.live(seconds(3600));
    let tries = world.did.iter().filter(|did| **did == "prepare").count();
    assert!((60..=75).contains(&tries), "{tries}");
    world.failing_prepares = 0;
    world.live(seconds(60));
    assert!(world.has_live_token());
}

#[test]
fn a_full_disk_in_the_middle_of_an_outage_does_not_make_it_young_again() {
    let mut world = World::new();
    world.answers.extend((0..400).map(|_| unavailable(None)));
    world.begin();
    world.live(seconds(1800));
    world.failing_prepares = u32::MAX;
    world.live(seconds(1800));
    world.failing_prepares = 0;
    world.forget();
    world.live(seconds(3600));
    assert!((10..=16).contains(&world.posts.len()), "{}", world.posts.len());
}

#[test]
fn a_full_disk_long_after_an_outage_does_not_call_it_back() {
    let mut world = World::refreshed();
    world.answers.push_back(unavailable(None));
    world.begin_with(FORCE);
    world.sleep(seconds(3000));
    world.forget();
    world.failing_prepares = 3;
    world.answers.extend((0..400).map(|_| unavailable(None)));
    world.begin();
    world.live(seconds(60));
    assert!(world.posts.len() >= 4, "{}", world.posts.len());
}

#[test]
fn an_answer_that_cannot_be_stored_is_published_and_kept_trying() {
    let mut world = World::refreshed();
    world.lifetime = seconds(86_400);
    world.failing_persists = 100;
    world.begin_with(FORCE);
    assert_eq!(world.token(), Some("at-2"), "readers get it at once");
    assert!(world.locked && !world.supervisor.is_idle());
    assert!(world.reports.iter().any(|report| matches!(report, Report::NotYetStored(_))));
    world.live(seconds(3600));
    assert!(world.locked, "run does not give up");
    world.failing_persists = 0;
    world.live(seconds(60));
    assert_eq!((world.refresh_token(), world.locked), ("rt-2", false));
    assert!(matches!(world.last_outcome(), Outcome::Refreshed { .. } | Outcome::Fresh { .. }));
}

#[test]
fn a_signal_makes_it_try_at_once() {
    let mut world = World::refreshed();
    world.failing_persists = 8;
    world.begin_with(FORCE);
    world.live(seconds(100));
    assert!(world.locked);
    world.failing_persists = 0;
    world.begin();
    assert!(!world.locked && world.has_live_token());
}

#[test]
fn once_gives_up_after_thirty_seconds() {
    let mut world = World::refreshed();
    world.policy.patient = false;
    world.restart();
    world.failing_persists = u32::MAX;
    world.begin_with(FORCE);
    let begun = world.now.boot;
    while world.locked {
        world.now = world.supervisor.next_wakeup().unwrap();
        world.send(Event::Woke);
    }
    assert_eq!(world.now.boot - begun, 30_000);
    assert!(matches!(world.last_outcome(), Outcome::NotStored(problem) if problem.class == Class::Io));
    assert_eq!(world.token(), Some("at-2"));
    // The next process finds the marker, and does not put the older token back.
    world.failing_persists = 0;
    world.answers.push_back(unavailable(None));
    world.restart();
    assert_eq!(world.token(), Some("at-2"));
}

#[test]
fn a_no_is_kept_trying_like_a_yes() {
    for answer in [invalid_grant, client_refused, || unavailable(Some(600))] {
        let mut world = World::refreshed();
        world.failing_persists = 5;
        world.answers.push_back(answer());
        world.begin_with(FORCE);
        assert!(world.locked);
        world.live(seconds(300));
        assert!(!world.locked);
        world.restart();
        assert_eq!(world.posts.len(), 1);
    }
}

#[test]
fn a_failing_token_file_is_tried_again_without_another_request() {
    let mut world = World::refreshed();
    world.failing_publishes = 5;
    assert!(matches!(world.begin_with(FORCE), Outcome::NotStored(_)));
    world.live(seconds(60));
    assert_eq!((world.posts.len(), world.token()), (1, Some("at-2")));
    assert!(matches!(world.last_outcome(), Outcome::Republished));
}

#[test]
fn a_missing_token_file_is_written_again_whatever_else_is_wrong() {
    let mut world = World::refreshed();
    world.file = None;
    assert!(matches!(world.begin(), Outcome::Republished));
    assert!(world.has_live_token() && world.posts.is_empty());
    for answer in [invalid_grant, client_refused, lost, || unavailable(None)] {
        let mut world = World::refreshed();
        world.answers.push_back(answer());
        world.answers.push_back(unavailable(Some(3600)));
        world.begin_with(FORCE);
        world.restart();
        let before = match world.restart() {
            Outcome::Fresh { .. } => Outcome::Republished,
            before => before,
        };
        let posts = world.posts.len();
        world.file = None;
        let outcome = world.restart();
        assert_eq!(std::mem::discriminant(&outcome), std::mem::discriminant(&before), "{outcome:?}");
        assert!(world.has_live_token(), "{:?}", answer());
        assert_eq!(world.posts.len(), posts);
    }
}

#[test]
fn a_failed_refresh_also_brings_a_missing_file_back() {
    let mut world = World::refreshed();
    world.sleep(seconds(2400));
    world.file = None;
    world.answers.push_back(unavailable(None));
    world.begin();
    assert!(world.has_live_token());
    world.file = None;
    world.failing_prepares = 1;
    world.live(seconds(1));
    assert!(world.has_live_token());
}

#[test]
fn a_busy_lock_is_waited_for_and_then_not_needed_any_more() {
    let mut world = World::refreshed();
    world.sleep(seconds(2400));
    world.lock_is_busy = true;
    world.begin();
    world.live(seconds(5));
    assert!(!world.supervisor.is_idle());
    // The holder has refreshed.
    let mut other = World::refreshed();
    other.now = world.now;
    other.begin_with(FORCE);
    (world.disk, world.file) = (other.disk, other.file);
    world.live(seconds(1));
    assert!(matches!(world.last_outcome(), Outcome::Fresh { .. }));
    assert!(world.posts.is_empty() && world.has_live_token());
}

#[test]
fn who_has_waited_long_for_the_lock_asks_with_the_config_of_now() {
    let mut world = World::refreshed();
    world.sleep(seconds(2400));
    world.lock_is_busy = true;
    world.begin();
    world.live(seconds(20));
    // Meanwhile the client was changed, and the holder was refused with it.
    world.set_client("client 2");
    let mut holder = World::refreshed();
    holder.now = world.now;
    holder.set_client("client 2");
    holder.answers.push_back(invalid_grant());
    holder.begin_with(FORCE);
    world.disk = holder.disk;
    world.lock_is_busy = false;
    world.live(seconds(1));
    assert!(matches!(world.last_outcome(), Outcome::Refused(_)));
    assert!(world.posts.is_empty());
}

#[test]
fn a_stuck_lock_is_given_up_after_45_seconds_and_tried_again() {
    let mut world = World::new();
    world.lock_is_busy = true;
    world.begin();
    world.live(seconds(44));
    assert_eq!(world.last_outcome(), Outcome::Stopped, "nothing reported yet");
    world.live(seconds(2));
    assert!(matches!(world.last_outcome(), Outcome::Failed(problem) if problem.class == Class::Busy));
    world.live(seconds(600));
    assert!(world.posts.is_empty());
    world.lock_is_busy = false;
    world.live(seconds(60));
    assert!(world.has_live_token());
}

#[test]
fn a_state_that_cannot_be_read_means_no_request() {
    let mut world = World::refreshed();
    world.failing_loads = u32::MAX;
    world.sleep(seconds(3000));
    assert!(matches!(world.begin(), Outcome::Failed(problem) if problem.class == Class::Io));
    world.live(seconds(3600));
    assert!(world.posts.is_empty());
    assert!(world.did.len() < 80, "{}", world.did.len());
    world.failing_loads = 0;
    world.live(seconds(60));
    assert!(world.has_live_token());
    // Its problems are over: the next one begins with a short wait again.
    world.failing_loads = 1;
    world.begin();
    assert!(world.wakes_in().unwrap() <= 1.0);
}

#[test]
fn told_to_stop_it_finishes_what_it_has_begun_and_nothing_else() {
    let cases = ["load", "inputs", "lock", "take over", "prepare", "request", "persist", "publish", "unlock"];
    for at in cases {
        let mut world = World::new();
        world.meanwhile = Some((at, Event::Stop));
        world.begin();
        assert!(world.supervisor.is_idle() && !world.locked, "{at}");
        assert!(world.supervisor.next_wakeup().is_none(), "{at}");
        let finished = world.reports.iter().any(|report| matches!(report, Report::Finished(_)));
        assert!(finished, "{at}");
        let requested = ["request", "persist", "publish", "unlock"].contains(&at);
        assert_eq!(world.posts.len(), usize::from(requested), "{at}");
        assert_eq!(world.has_live_token(), requested, "{at}");
        let marker = world.disk.as_ref().and_then(|record| record.in_flight.as_ref());
        assert_eq!(marker, None, "{at}");
    }
}

#[test]
fn told_to_stop_it_does_not_wait_for_a_busy_lock() {
    let mut world = World::new();
    world.lock_is_busy = true;
    world.begin();
    world.send(Event::Stop);
    assert!(world.supervisor.is_idle());
    let mut world = World::new();
    world.lock_is_busy = true;
    world.meanwhile = Some(("lock", Event::Stop));
    world.begin();
    assert!(world.supervisor.is_idle());
}

#[test]
fn told_to_stop_it_tries_for_thirty_seconds_more_to_store_an_answer() {
    let mut world = World::refreshed();
    world.failing_persists = u32::MAX;
    world.begin_with(FORCE);
    world.live(seconds(3600));
    world.send(Event::Stop);
    assert!(world.locked);
    world.live(seconds(29));
    // A second request to stop brings neither a longer patience nor a busy loop.
    world.send(Event::Stop);
    assert!(world.locked);
    world.live(seconds(2));
    assert!(!world.locked && world.supervisor.is_idle());
    let mut world = World::refreshed();
    world.failing_persists = 3;
    world.begin_with(FORCE);
    world.send(Event::Stop);
    world.live(seconds(30));
    assert!(!world.locked && world.refresh_token() == "rt-2");
}

#[test]
fn a_second_wish_during_a_pass_is_not_lost() {
    let mut world = World::refreshed();
    world.meanwhile = Some(("load", Event::Begin(FORCE)));
    world.begin();
    assert_eq!(world.posts.len(), 1);
}
