//! on_expired = "remove": the token file is removed when its token expires, and not before.

use crate::refresh::Refresher;
use crate::refresh::decide::Trigger;
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::tests::world::{World, invalid_grant, seconds, unavailable};

const FORCE: Trigger =
    Trigger { force: true, anew: false, retry_dead: false, reread: false, rejected: None, row: false };

/// A world with on_expired = "remove", after its first refresh.
fn removing() -> World {
    let mut world = World::new();
    world.policy.remove_expired = true;
    world.supervisor = Refresher::new(world.policy.clone(), 1);
    world.begin();
    world.forget();
    world
}

#[test]
fn the_file_of_a_dead_login_stays_until_its_token_expires() {
    let mut world = removing();
    world.answers.push_back(invalid_grant());
    assert!(matches!(world.begin_with(FORCE), Outcome::Refused(_)));
    world.live(seconds(3599));
    assert!(world.has_live_token());
    world.live(seconds(2));
    assert_eq!(world.file, None);
    assert!(world.reports.contains(&Report::Withdrawn));
    assert_eq!(world.posts.len(), 1);
    world.live(seconds(86_400));
    assert_eq!(world.posts.len(), 1, "and nothing more is asked or done");
}

#[test]
fn an_outage_takes_the_file_when_the_token_is_over_and_the_next_token_brings_it_back() {
    let mut world = removing();
    for _ in 0..200 {
        world.answers.push_back(unavailable(Some(3600)));
    }
    world.live(seconds(3601));
    assert_eq!(world.file, None, "whatever the server asked us to wait");
    world.answers.clear();
    world.live(seconds(3600));
    assert!(world.has_live_token());
}

#[test]
fn a_token_that_is_replaced_in_time_never_leaves_its_file() {
    let mut world = removing();
    world.live(seconds(10 * 3600));
    assert!(world.has_live_token());
    assert!(!world.did.contains(&"withdraw"));
}

#[test]
fn without_it_the_file_stays() {
    let mut world = World::refreshed();
    world.answers.push_back(invalid_grant());
    world.begin_with(FORCE);
    world.live(seconds(86_400));
    assert!(world.file.is_some());
}
