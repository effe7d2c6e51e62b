//! Requests without a definite answer: the reply is lost, cut short, or its asker is killed.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use zg_tokend::testing::demo::Fault;
use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::demo::{AuditEntry, AuditEvent};

use crate::common::world::World;
use crate::common::{Background, audit, wait_until};

/// A server that sends the same successor again for so many seconds.
fn with_grace(seconds: u64) -> World {
    World::with(IssuerOptions { reuse_grace: Duration::from_secs(seconds), ..IssuerOptions::default() })
}

fn revocations(world: &World) -> usize {
    let log: Vec<AuditEntry> = world.server.audit();
    log.iter().filter(|entry| matches!(entry.event, AuditEvent::Revocation { .. })).count()
}

/// `once` in the background, with its request under way.
fn once_in_mid_post(world: &World, delay_ms: u64) -> Background {
    world.fault(Fault { delay_after_commit_ms: delay_ms, ..Fault::default() });
    let posts = world.posts();
    let once = Background::start(&mut world.sandbox.command(["once", "--force"]), world.sandbox.path("log"));
    wait_until("the grant", || (world.posts() > posts && world.grants() > posts).then_some(()));
    once
}

fn ended(child: &mut Background) -> ExitStatus {
    wait_until("the end of the program", || child.ended())
}

#[test]
fn a_lost_reply_is_asked_for_again_at_once() {
    for fault in [Fault::drop_after_commit(), Fault { truncate_after: Some(20), ..Fault::default() }] {
        let world = with_grace(30);
        world.configure("");
        world.once_gives(0, []);
        world.fault(fault);
        world.once_gives(0, ["--force"]);
        assert_eq!((world.posts(), world.grants(), revocations(&world)), (3, 3, 0));
        world.assert_live();
        world.once_gives(0, ["--force"]);
        assert_eq!(revocations(&world), 0);
    }
}

#[test]
fn an_unreadable_200_is_no_definite_answer() {
    for body in ["<html>", "{\"access_token\":\"x\"", "[]", ""] {
        let world = with_grace(30);
        world.configure("");
        world.fault(Fault { commit: true, ..Fault::reply(200, body) });
        world.once_gives(0, []);
        assert_eq!((world.posts(), world.grants(), revocations(&world)), (2, 2, 0), "{body}");
        world.assert_live();
    }
}

#[test]
fn a_refresh_token_in_a_broken_reply_is_kept() {
    let world = World::new();
    let seed = world.configure("");
    let next = world.seed();
    let body = format!("{{\"refresh_token\":\"{}\",\"access_token\":\"x", next.expose());
    world.fault(Fault::reply(200, body));
    world.once_gives(69, []);
    assert_ne!(world.refresh_token(), seed);
    assert_eq!(world.refresh_token(), next);
    assert!(!world.token_file().exists());
    world.pass_time(Duration::from_secs(1));
    world.once_gives(0, []);
    world.assert_live();
}

#[test]
fn a_lost_reply_of_a_strict_server_costs_the_login_and_says_so() {
    let world = with_grace(0);
    world.configure("");
    world.once_gives(0, []);
    let token = world.token();
    world.fault(Fault::drop_after_commit());
    let output = world.once_gives(77, ["--force"]);
    assert!(output.stderr.contains("invalid_grant"), "{output:?}");
    assert_eq!((world.posts(), revocations(&world)), (3, 1));
    assert_eq!(world.token(), token);
    world.once_gives(77, []);
    assert_eq!(world.posts(), 3);
}

#[test]
fn a_pass_that_was_killed_in_mid_request_is_made_up_for() {
    let world = with_grace(30);
    world.configure("");
    world.once_gives(0, []);
    let token = world.token();
    let mut once = once_in_mid_post(&world, 20_000);
    once.signal(Signal::KILL);
    assert_eq!(ended(&mut once).signal(), Some(9));
    assert_eq!(world.token(), token);
    assert_eq!(world.status().0["state"], "due");

    let output = world.once_gives(0, []);
    assert!(output.stderr.contains("a process died"), "{output:?}");
    assert_eq!((world.posts(), revocations(&world)), (3, 0));
    world.assert_live();
    assert!(world.state().get("in_flight").is_none());
    // Nothing is left of the killed pass.
    let names = fs::read_dir(world.state_path("default", "")).unwrap();
    let litter =
        names.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp"));
    assert_eq!(litter.count(), 0);
}

#[test]
fn once_finishes_its_request_when_told_to_stop() {
    let world = with_grace(0);
    world.configure("");
    world.once_gives(0, []);
    let mut once = once_in_mid_post(&world, 500);
    once.signal(Signal::TERM);
    assert_eq!(ended(&mut once).code(), Some(0), "{}", once.log());
    assert_eq!(world.posts(), 2);
    world.assert_live();
    world.once_gives(0, ["--force"]);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn run_finishes_its_request_when_told_to_stop() {
    let world = with_grace(0);
    world.configure("");
    world.fault(Fault { delay_after_commit_ms: 500, ..Fault::default() });
    let mut run = world.start_run();
    wait_until("the grant", || (world.grants() == 1).then_some(()));
    assert_eq!(run.stop().code(), Some(0), "{}", run.log());
    world.assert_live();
    world.once_gives(0, ["--force"]);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

/// A directory in place of the state: the rename onto it fails, like a disk that turned bad
/// while the request was under way.
fn break_the_state(world: &World) -> impl FnOnce() {
    let state = world.state_path("default", "state");
    fs::remove_file(&state).unwrap();
    fs::create_dir(&state).unwrap();
    move || fs::remove_dir(&state).unwrap()
}

#[test]
fn a_refresh_token_that_is_only_in_memory_is_not_given_up_for_a_signal() {
    for mut program in [vec!["once", "--force"], vec!["run"]] {
        let world = with_grace(0);
        world.configure("");
        world.once_gives(0, []);
        let before = world.token();
        world.pass_time(Duration::from_secs(3600));
        world.fault(Fault { delay_after_commit_ms: 3000, ..Fault::default() });
        let log = world.sandbox.path("log");
        let mut child = Background::start(&mut world.sandbox.command(program.drain(..)), &log);
        wait_until("the grant", || (world.grants() == 2).then_some(()));
        let mend = break_the_state(&world);
        // The readers have it at least.
        wait_until("the token", || (world.token() != before).then_some(()));
        child.signal(Signal::TERM);
        mend();
        assert_eq!(ended(&mut child).code(), Some(0), "{}", child.log());
        world.once_gives(0, ["--force"]);
        audit::assert_one_post_per_epoch(&world.server.audit());
        world.assert_live();
    }
}

#[test]
fn a_server_that_is_silent_until_the_deadline_is_asked_again() {
    let world = with_grace(30);
    world.configure("timeout = \"5s\"");
    world.fault(Fault { delay_after_commit_ms: 20_000, ..Fault::default() });
    world.once_gives(0, []);
    assert_eq!((world.posts(), world.grants(), revocations(&world)), (2, 2, 0));
    world.assert_live();
}

#[test]
fn a_reply_without_end_is_read_as_far_as_it_makes_sense() {
    let world = with_grace(0);
    world.configure("");
    world.once_gives(0, []);
    world.fault(Fault { endless: true, ..Fault::default() });
    world.once_gives(0, ["--force"]);
    world.once_gives(0, ["--force"]);
    audit::assert_one_post_per_epoch(&world.server.audit());
    world.assert_live();
}

#[test]
fn a_token_that_could_not_be_published_is_published_without_another_request() {
    let world = with_grace(0);
    world.configure("");
    world.once_gives(0, []);
    let mut once = once_in_mid_post(&world, 3000);
    fs::remove_file(world.token_file()).unwrap();
    fs::create_dir(world.token_file()).unwrap();
    assert_eq!(ended(&mut once).code(), Some(78), "{}", once.log());
    assert_eq!((world.posts(), world.status().1), (2, 2));
    fs::remove_dir(world.token_file()).unwrap();
    world.once_gives(0, []);
    assert_eq!(world.posts(), 2);
    world.assert_live();
}
