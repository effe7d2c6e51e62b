//! `run --wait`: a second `run` that stands by, and takes over.

use std::time::Duration;

use crate::common::Background;
use crate::common::world::World;

fn standby(world: &World) -> Background {
    let mut command = world.sandbox.command(["run", "--wait"]);
    let standby = Background::start(&mut command, world.sandbox.path("standby.log"));
    standby.wait_for("standing by");
    standby
}

#[test]
fn a_standby_takes_over_when_the_other_ends() {
    let world = World::new();
    world.configure("");
    let mut run = world.run();
    let standby = standby(&world);
    assert_eq!(world.posts(), 1);
    run.signal(rustix::process::Signal::KILL);
    run.wait();
    standby.wait_for("supervising");
    world.pass_time(Duration::from_secs(3590));
    world.once_gives(0, []);
    world.assert_live();
}

#[test]
fn a_standby_ends_when_it_is_told_to() {
    let world = World::new();
    world.configure("");
    let mut run = world.run();
    let mut standby = standby(&world);
    assert_eq!(standby.stop().code(), Some(0));
    assert!(run.ended().is_none());
    assert_eq!(run.stop().code(), Some(0));
}
