//! The limit of forced refreshes.

use crate::refresh::decide::Trigger;
use crate::refresh::outcome::Outcome;
use crate::refresh::tests::world::{World, seconds, unavailable};

const FORCE: Trigger =
    Trigger { force: true, anew: true, retry_dead: false, reread: false, rejected: None, row: false };

#[test]
fn a_storm_of_forced_refreshes_is_a_few_requests() {
    let mut world = World::refreshed();
    let posts = world.posts.len();
    for _ in 0..100 {
        world.begin_with(FORCE);
    }
    assert_eq!(world.posts.len() - posts, 4);
    assert!(matches!(world.begin_with(FORCE), Outcome::Fresh { .. }));
    world.sleep(seconds(61));
    assert!(matches!(world.begin_with(FORCE), Outcome::Refreshed { .. }));
}

#[test]
fn a_storm_during_an_outage_is_a_few_requests_too() {
    let mut world = World::refreshed();
    world.sleep(seconds(50 * 60));
    let posts = world.posts.len();
    for _ in 0..100 {
        world.answers.push_back(unavailable(None));
    }
    for _ in 0..100 {
        world.begin_with(FORCE);
        world.sleep(seconds(1) / 10);
    }
    assert!(world.posts.len() - posts <= 12, "{}", world.posts.len() - posts);
}
