//! on_expired: whether a dead token stays in its readers' way.

use std::time::Duration;

use zg_tokend::testing::demo::Outage;

use crate::common::wait_until;
use crate::common::world::World;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn once_removes_an_expired_token() {
    let world = World::new();
    world.configure("on_expired = \"remove\"");
    world.once_gives(0, []);
    world.outage(Some(Outage::Closed));
    world.once_gives(69, ["--force"]);
    world.assert_live();
    world.pass_time(HOUR);
    // The file holds what the state says, so that only its life is over.
    let output = world.once(["--force"]);
    assert!(output.stderr.contains("removed the token file"), "{output:?}");
    assert!(!world.token_file().exists());
    world.outage(None);
    world.pass_time(Duration::from_secs(120));
    world.once_gives(0, []);
    world.assert_live();
}

#[test]
fn a_file_that_holds_something_else_is_not_ours_to_remove() {
    let world = World::new();
    world.configure("on_expired = \"remove\"");
    world.once_gives(0, []);
    world.outage(Some(Outage::Closed));
    world.pass_time(HOUR);
    std::fs::write(world.token_file(), "somebody else's").unwrap();
    world.once_gives(69, ["--force"]);
    assert_eq!(world.token().expose(), "somebody else's");
}

#[test]
fn run_removes_it_at_the_moment_it_expires_and_what_tells_of_it() {
    let world = World::with_lifetime(4);
    world.configure("on_expired = \"remove\"\ntoken_file_info = true");
    let info = world.token_file().with_file_name("token.json");
    let mut run = world.run();
    wait_until("a token", || world.token_file().exists().then_some(()));
    world.outage(Some(Outage::Unavailable));
    wait_until("its end", || (!world.token_file().exists() && !info.exists()).then_some(()));
    world.outage(None);
    wait_until("the next", || (world.token_file().exists() && info.exists()).then_some(()));
    assert_eq!(run.stop().code(), Some(0));
}

#[test]
fn a_mount_point_cannot_be_removed() {
    let world = World::new();
    world.configure("on_expired = \"remove\"\nwrite = \"in-place\"");
    let output = world.once_gives(78, []);
    assert!(output.stderr.contains("on_expired") && output.stderr.contains("hint:"), "{output:?}");
}
