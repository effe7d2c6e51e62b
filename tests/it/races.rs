//! Many processes over one account, and a directory that does not stay where it is: whatever
//! they do to each other, each refresh token is sent once.

use std::fs;
use std::io::PipeReader;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use zg_tokend::testing::demo::Fault;

use crate::common::world::World;
use crate::common::{Background, at_full_size, audit, figure, poll_for, under, wait_until};

const HOUR: Duration = Duration::from_secs(3600);

/// How many `once` start at the same instant.
const CROWD: usize = 50;

/// `command`, which begins when the last writer of the gate's pipe is gone.
fn behind(gate: &PipeReader, command: &Command) -> Command {
    let mut gated = under(["sh", "-c", "read -r _; exec \"$0\" \"$@\""], command);
    gated.stdin(gate.try_clone().unwrap());
    gated
}

/// Lets a crowd and a `run` loose on the account at once; all must succeed.
fn race(world: &World) {
    let (gate, opener) = std::io::pipe().unwrap();
    let start = |args: &[&str], log: &str| {
        let command = world.sandbox.command(args.iter().copied());
        Background::start(&mut behind(&gate, &command), world.sandbox.path(log))
    };
    let mut run = start(&["run"], "run.log");
    let mut crowd: Vec<Background> = (0..CROWD).map(|n| start(&["once"], &format!("once-{n}.log"))).collect();
    drop(opener);
    for once in &mut crowd {
        assert_eq!(once.wait().code(), Some(0), "{}", once.log());
    }
    run.wait_for("supervising");
    assert_eq!(run.stop().code(), Some(0), "{}", run.log());
}

#[test]
fn a_crowd_sends_each_refresh_token_once() {
    let world = World::new();
    let rounds = if at_full_size() { 200 } else { 20 };
    let mut expected = 0;
    for round in 0..rounds {
        match round % 4 {
            0 => drop(world.configure("")),
            1 => fs::remove_file(world.token_file()).unwrap(),
            _ => world.pass_time(HOUR),
        }
        expected += usize::from(round % 4 != 1);
        race(&world);
        assert_eq!(world.posts(), expected, "round {round}");
        world.assert_live();
    }
    audit::assert_one_post_per_epoch(&world.server.audit());
    let (posts, processes) = (world.posts(), rounds * (CROWD + 1));
    figure(format!(
        "races: {rounds} rounds, {processes} processes, {expected} epochs, {posts} POSTs, 0 revocations"
    ));
}

/// `once`, whose request the server has just granted and answers in so many milliseconds.
fn holder(world: &World, answer_in: u64) -> Background {
    world.configure("");
    world.once_gives(0, []);
    world.pass_time(HOUR);
    world.fault(Fault { delay_after_commit_ms: answer_in, ..Fault::default() });
    let once = Background::start(&mut world.sandbox.command(["once"]), world.sandbox.path("holder.log"));
    wait_until("the grant", || (world.grants() == 2).then_some(()));
    once
}

#[test]
fn waiters_give_up_on_a_holder_that_stands_still() {
    let world = World::new();
    // Time enough to stop it.
    let mut holder = holder(&world, 8000);
    holder.signal(Signal::STOP);
    let start = |n| {
        Background::start(&mut world.sandbox.command(["once"]), world.sandbox.path(format!("waiter-{n}.log")))
    };
    let mut waiters: Vec<Background> = (0..3).map(start).collect();
    assert_eq!(world.status().0["state"], "refreshing");
    // 45 s, and what a busy machine may add.
    let patience = Duration::from_secs(70);
    for waiter in &mut waiters {
        let ended = poll_for(patience, || waiter.ended()).expect("waiters give up");
        assert_eq!(ended.code(), Some(75), "{}", waiter.log());
        assert!(waiter.log().contains("another process"), "{}", waiter.log());
    }
    assert_eq!(world.posts(), 2, "a waiter never steals");
    holder.signal(Signal::CONT);
    assert_eq!(holder.wait().code(), Some(0), "{}", holder.log());
    world.assert_live();
    world.once_gives(0, ["--force"]);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

/// Does this to the account's state directory while a request is under way. The refresh token
/// must be where the next pass looks for it.
fn disturbed(disturb: impl Fn(&Path)) {
    let world = World::new();
    // Far longer than the disturbance takes.
    let mut holder = holder(&world, 4000);
    disturb(&world.state_path("default", ""));
    assert_eq!(holder.wait().code(), Some(0), "{}", holder.log());
    world.assert_live();
    world.once_gives(0, []);
    world.once_gives(0, ["--force"]);
    assert_eq!(world.posts(), 3);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn a_state_directory_renamed_under_its_holder_does_not_cost_the_login() {
    disturbed(|dir| fs::rename(dir, dir.with_file_name("elsewhere")).unwrap());
    disturbed(|dir| fs::rename(dir.parent().unwrap(), dir.parent().unwrap().with_extension("old")).unwrap());
}

#[test]
fn a_state_directory_removed_under_its_holder_does_not_cost_the_login() {
    disturbed(|dir| fs::remove_dir_all(dir).unwrap());
    disturbed(|dir| fs::remove_dir_all(dir.parent().unwrap()).unwrap());
}

#[test]
fn run_outlives_the_loss_of_its_state_directory() {
    let world = World::new();
    world.configure("");
    world.fault(Fault { delay_after_commit_ms: 4000, ..Fault::default() });
    let mut run = world.start_run();
    wait_until("the grant", || (world.grants() == 1).then_some(()));
    fs::remove_dir_all(world.sandbox.path("state/zg-tokend")).unwrap();
    wait_until("the state", || world.state_path("default", "state").exists().then_some(()));
    run.wait_for("supervising");
    for posts in 2..4 {
        run.signal(Signal::USR1);
        wait_until("another token", || {
            (world.grants() == posts && world.server.is_live(&world.token())).then_some(())
        });
    }
    assert_eq!(run.stop().code(), Some(0), "{}", run.log());
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn the_place_of_a_request_is_not_taken_by_a_link() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let dir = world.sandbox.path("state/zg-tokend/default");
    let aside = world.sandbox.path("state/aside");
    fs::rename(&dir, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &dir).unwrap();
    // Whoever may place a link may lead two processes to two locks.
    let output = world.once_gives(78, ["--force"]);
    assert!(output.stderr.contains("is not a directory"), "{output:?}");
    assert_eq!(world.posts(), 1);
}
