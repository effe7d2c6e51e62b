//! A resource refuses a live token: compare and refresh.

use crate::oauth::Answer;
use crate::refresh::decide::Trigger;
use crate::refresh::outcome::Outcome;
use crate::refresh::tests::world::{World, seconds, unavailable};
use crate::secret::{Fingerprint, Secret};

fn rejected(token: &str) -> Trigger {
    Trigger { rejected: Some(Secret::new(token).fingerprint()), ..Trigger::default() }
}

fn rejection(world: &World) -> Option<Fingerprint> {
    world.disk.as_ref()?.rejection.as_ref().map(|rejection| rejection.token)
}

#[test]
fn the_stored_token_is_replaced_and_any_other_is_not() {
    let mut world = World::refreshed();
    assert!(matches!(world.begin_with(rejected("at-0")), Outcome::Fresh { .. }));
    assert_eq!(world.posts.len(), 0, "it was replaced already, or never ours");
    assert!(matches!(world.begin_with(rejected("at-1")), Outcome::Refreshed { generation: 2, .. }));
    assert!(matches!(world.begin_with(rejected("at-1")), Outcome::Fresh { .. }));
    assert_eq!(world.posts.len(), 1);
}

/// A resource that refuses every token has another reason.
#[test]
fn the_next_one_is_replaced_a_minute_later_at_the_earliest() {
    let mut world = World::refreshed();
    world.begin_with(rejected("at-1"));
    for _ in 0..59 {
        assert!(matches!(world.begin_with(rejected("at-2")), Outcome::Fresh { .. }));
        world.sleep(seconds(1));
    }
    assert_eq!(world.posts.len(), 1);
    world.sleep(seconds(1));
    assert!(matches!(world.begin_with(rejected("at-2")), Outcome::Refreshed { generation: 3, .. }));
}

/// The rejection is on disk before the request: the next process continues with it after the backoff,
/// and no second report is needed.
#[test]
fn a_report_outlives_a_failed_refresh_and_its_process() {
    let mut world = World::refreshed();
    world.answers.push_back(unavailable(None));
    assert!(matches!(world.begin_with(rejected("at-1")), Outcome::Failed(_)));
    assert_eq!(rejection(&world), Some(Secret::new("at-1").fingerprint()));
    assert!(matches!(world.restart(), Outcome::Held { .. }));
    assert!(
        matches!(world.begin_with(rejected("at-1")), Outcome::Held { .. }),
        "a report is no way round a wait"
    );
    world.live(seconds(2));
    assert_eq!((world.posts.len(), world.token()), (2, Some("at-2")));
}

#[test]
fn a_server_that_repeats_the_refused_token_is_asked_once() {
    let mut world = World::refreshed();
    let Answer::Granted(mut grant) = world.grant() else { unreachable!() };
    grant.access_token = Secret::new("at-1");
    world.answers.push_back(Answer::Granted(grant));
    assert!(matches!(world.begin_with(rejected("at-1")), Outcome::Refreshed { generation: 1, .. }));
    for _ in 0..10 {
        assert!(matches!(world.begin_with(rejected("at-1")), Outcome::Fresh { .. }));
        world.sleep(seconds(61));
    }
    assert_eq!(world.posts.len(), 1);
}

#[test]
fn a_report_revives_no_dead_login() {
    let mut world = World::refreshed();
    world.answers.push_back(crate::refresh::tests::world::invalid_grant());
    assert!(matches!(world.begin_with(rejected("at-1")), Outcome::Refused(_)));
    for _ in 0..3 {
        world.sleep(seconds(61));
        assert!(matches!(world.begin_with(rejected("at-1")), Outcome::Refused(_)));
    }
    assert_eq!(world.posts.len(), 1);
}
