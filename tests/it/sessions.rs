//! Readers that are killed in mid-exchange with their whole process group, as by the time-out of a mail
//! client: the exchange goes on, and its answer is stored. The server forgives nothing.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use zg_tokend::testing::demo::Fault;

use crate::common::world::World;
use crate::common::{feed, wait_until};

/// The answer takes long enough to kill its reader, and is stored long before tests give up.
const ANSWER_MS: u64 = 2_000;

/// Starts the command as the leader of a group, and kills the group when the server has the request.
fn kill_in_mid_exchange(world: &World, command: &mut Command, input: &str) {
    world.fault(Fault { delay_before_commit_ms: ANSWER_MS, ..Fault::default() });
    let posts = world.posts();
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child: Child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    wait_until("the request", || (world.posts() > posts).then_some(()));
    let group = Pid::from_child(&child);
    kill_process_group(group, Signal::KILL).unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success(), "the reader was killed before the answer came: {status:?}");
}

/// The rotated refresh token is stored, and the next pass works.
#[track_caller]
fn assert_not_lost(world: &World, before: &str) {
    wait_until("the stored answer", || {
        let state = world.state();
        let token = state["access_token"]["value"].as_str().unwrap_or_default();
        (state["in_flight"].is_null() && token != before).then_some(())
    });
    wait_until("the token file", || world.reads_live(&world.token_file()).then_some(()));
    let grants = world.grants();
    world.permit_force();
    world.once_gives(0, ["--force"]);
    assert_eq!(world.grants(), grants + 1);
    world.assert_live();
}

/// A world whose token is due, and that token.
fn due() -> (World, String) {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let token = world.token().expose().to_owned();
    world.pass_time(Duration::from_secs(3590));
    (world, token)
}

#[test]
fn a_killed_token_loses_no_login() {
    let (world, token) = due();
    kill_in_mid_exchange(&world, &mut world.sandbox.command(["token"]), "");
    assert_not_lost(&world, &token);
}

#[test]
fn a_killed_credential_helper_of_git_loses_no_login() {
    let (world, token) = due();
    let mut git = world.sandbox.command(["token", "--format", "git", "get"]);
    kill_in_mid_exchange(&world, &mut git, "protocol=https\nhost=git.example.com\n\n");
    assert_not_lost(&world, &token);
}

#[test]
fn a_killed_exec_loses_no_login() {
    let (world, token) = due();
    kill_in_mid_exchange(&world, &mut world.sandbox.command(["exec", "--", "true"]), "");
    assert_not_lost(&world, &token);
}

#[test]
fn a_killed_rejected_loses_no_login() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let token = world.token().expose().to_owned();
    kill_in_mid_exchange(&world, &mut world.sandbox.command(["rejected"]), &token);
    assert_not_lost(&world, &token);
}

/// The copy reports, and its exit code is that of the command.
#[test]
fn the_outcome_of_the_copy_is_that_of_the_command() {
    let (world, _) = due();
    world.fault(Fault::reply(400, r#"{"error":"invalid_grant"}"#));
    let output = world.sandbox.run(["token", "--on-error", "fail"]);
    assert_eq!(output.code, Some(77), "{output:?}");
    assert_eq!(output.stderr.matches("error:").count(), 1, "{output:?}");
    assert_eq!(output.stdout, "");
    let (world, token) = due();
    world.fault(Fault::reply(503, ""));
    let output = world.sandbox.run(["token", "--on-error", "use-existing"]);
    assert_eq!((output.code, output.stdout.trim_end()), (Some(0), token.as_str()), "{output:?}");
    assert!(output.stderr.contains("warning:"), "{output:?}");
}

/// Where `run` has the account in hand, it makes the exchange.
#[test]
fn run_makes_the_exchange_for_a_reader() {
    let world = World::new();
    world.configure("");
    let run = world.run();
    let before = world.token().expose().to_owned();
    // Not due, and too short for this reader.
    world.pass_time(Duration::from_secs(2_000));
    let output = world.sandbox.run(["token", "--min-valid", "30m"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_ne!(output.stdout.trim_end(), before);
    assert_eq!(output.stdout.trim_end(), world.token().expose());
    wait_until("its word", || (run.log().matches("refreshed").count() == 2).then_some(()));
    assert_eq!(world.posts(), 2);
    let token = world.token();
    let output = feed(&mut world.sandbox.command(["rejected"]), token.expose());
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), "default: the token was replaced\n"));
    wait_until("its word", || (run.log().matches("refreshed").count() == 3).then_some(()));
    assert_ne!(world.token().expose(), token.expose());
    assert_eq!(world.posts(), 3);
    // Killed, the reader takes nothing with it.
    world.pass_time(Duration::from_secs(2_000));
    let before = world.token().expose().to_owned();
    kill_in_mid_exchange(&world, &mut world.sandbox.command(["token", "--min-valid", "30m"]), "");
    wait_until("its word", || (run.log().matches("refreshed").count() == 4).then_some(()));
    assert_not_lost(&world, &before);
}

/// A `run` that does not answer holds nobody up for longer than they wait.
#[test]
fn a_reader_helps_itself_where_run_is_stopped() {
    let world = World::new();
    world.configure("");
    let mut run = world.run();
    run.signal(Signal::STOP);
    world.pass_time(Duration::from_secs(3_590));
    let output = world.sandbox.run(["token", "--wait", "2s"]);
    run.signal(Signal::CONT);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(output.stdout.trim_end(), world.token().expose());
    world.assert_live();
}
