//! `run --wait`: a second `run` that stands by, and takes over.

use std::process::Command;
use std::time::Duration;

use crate::common::world::World;
use crate::common::{Background, finish, wait_until};

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

fn answer(address: &str, path: &str) -> String {
    let url = format!("http://{address}{path}");
    let args = ["-q", "-s", "-o", "/dev/null", "--noproxy", "*", "-w", "%{http_code}", &url];
    finish(Command::new("curl").args(args)).stdout
}

/// An address of this machine that nobody else uses: each test process has a part of 127.0.0.0/8.
fn unused(number: u32) -> String {
    let place = std::process::id() * 4 + number;
    format!("127.{}.{}.{}:9464", 64 + (place >> 16) % 64, (place >> 8) % 256, place % 256)
}

fn start(world: &World, listen: &str, log: &str) -> Background {
    let mut command = world.sandbox.command(["run", "--wait", "--listen", listen]);
    Background::start(&mut command, world.sandbox.path(log))
}

/// On one machine both are told the same address; the standby gets it with the account.
#[test]
fn a_standby_takes_the_port_of_the_other_over() {
    let world = World::new();
    world.configure("");
    let address = unused(0);
    let mut first = start(&world, &address, "first.log");
    wait_until("its readiness", || (answer(&address, "/readyz") == "200").then_some(()));
    let mut second = start(&world, &address, "second.log");
    second.wait_for("standing by");
    assert_eq!(first.stop().code(), Some(0));
    second.wait_for("supervising");
    wait_until("the readiness of the other", || (answer(&address, "/readyz") == "200").then_some(()));
    assert_eq!(second.stop().code(), Some(0));
    assert_eq!(world.posts(), 1);
}

/// A program that is no `run` has the port: the start says so, in place of a standby that waits for ever.
#[test]
fn a_standby_whose_port_stays_taken_says_so() {
    let world = World::new();
    world.configure("");
    let address = unused(3);
    let _taken = std::net::TcpListener::bind(&address).unwrap();
    let mut run = world.run();
    let mut standby = start(&world, &address, "standby.log");
    standby.wait_for("standing by");
    run.stop();
    assert_ne!(standby.wait().code(), Some(0));
    assert!(standby.log().contains(&address), "{}", standby.log());
}

/// In a container of its own it has the port from the start: it is healthy, and not ready.
#[test]
fn a_standby_answers_probes() {
    let world = World::new();
    world.configure("");
    let (one, other) = (unused(1), unused(2));
    let mut first = start(&world, &one, "first.log");
    wait_until("its readiness", || (answer(&one, "/readyz") == "200").then_some(()));
    let mut second = start(&world, &other, "second.log");
    wait_until("its health", || (answer(&other, "/healthz") == "200").then_some(()));
    second.wait_for("standing by");
    assert_eq!(answer(&other, "/readyz"), "503");
    first.stop();
    wait_until("its readiness", || {
        assert!(second.ended().is_none(), "{}", second.log());
        (answer(&other, "/readyz") == "200").then_some(())
    });
    assert_eq!(world.posts(), 1);
}
