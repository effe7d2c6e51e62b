//! The kill matrix of `once`: killed at each system call, then run again.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use zg_tokend::testing::demo::IssuerOptions;

use super::reader::Reader;
use super::trace::{Call, available, parse, traced};
use super::{assert_login_lives, in_parallel, revoked, sample};
use crate::common::world::World;
use crate::common::{figure, finish};

/// Past the time when a token of one hour is due, and before its end.
pub const DUE: Duration = Duration::from_secs(50 * 60);

/// The files at the beginning of the killed pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Nothing: the first pass of all.
    Nothing,
    /// A state, and a token that is due.
    TokenDue,
}

/// How a killed program was made up for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The next run put everything right.
    Converged,
    /// The login was lost; the call at which it was.
    Lost(String),
    /// The call did not come: the program had nothing more to do.
    NotReached(String),
}

/// A world in which a pass has something to do.
pub fn world(before: Before, grace: u64) -> World {
    let world =
        World::with(IssuerOptions { reuse_grace: Duration::from_secs(grace), ..IssuerOptions::default() });
    world.configure("");
    if before == Before::TokenDue {
        world.once_gives(0, []);
        world.pass_time(DUE);
    }
    world
}

/// Every call of a clean `once`.
pub fn calls(before: Before) -> Vec<Call> {
    calls_in(&world(before, 0))
}

/// The same in a world of the caller's.
pub fn calls_in(world: &World) -> Vec<Call> {
    let log = world.sandbox.path("trace");
    let output = finish(&mut traced(&world.sandbox.command(["once"]), None, &log));
    assert_eq!(output.code, Some(0), "{output:?}");
    let calls = parse(&log);
    assert_eq!(calls.iter().filter(|call| call.is_post()).count(), 1);
    calls
}

/// Whether a process that was killed in the middle of the last of its calls was killed where a
/// strict server's login can be lost: the server may have replaced the refresh token, and its
/// successor is not in the state. The first rename after the request must be that of the state.
///
/// Of several threads one may begin a call after the one that is killed: only those that came to
/// their end count.
pub fn ends_in_window(calls: &[Call]) -> bool {
    let Some(post) = calls.iter().find(|call| call.is_post()) else { return false };
    let since = || calls.iter().skip(post.place).filter(|call| call.is_complete());
    post.is_complete() && !since().any(|call| call.name.starts_with("rename"))
}

/// Kills one pass at this call, and runs another.
fn kill_at(call: &Call, before: Before, grace: u64) -> End {
    let world = world(before, grace);
    let reader = Reader::watch(&world.token_file());
    let injection = format!("{}:signal=KILL:when={}", call.name, call.nth);
    let trace = world.sandbox.path("trace");
    let status = traced(&world.sandbox.command(["once"]), Some(&injection), &trace).output().unwrap().status;
    let reached = status.signal() == Some(9);
    assert!(reached || status.code() == Some(0), "{status:?}");

    let output = world.once([]);
    let log = world.server.audit();
    reader.judge(&log);
    if grace == 0 && revoked(&log) {
        // By its own calls: how often it waits for events is not the same each time.
        let calls = parse(&trace);
        assert!(ends_in_window(&calls), "lost outside of the window: {calls:#?} {output:?} {log:#?}");
        assert_eq!(output.code, Some(77), "{output:?}");
        assert_lost_login_is_explained(&world);
        return End::Lost(call.describe());
    }
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_login_lives(&world);
    assert!(world.posts() <= 2 + usize::from(before == Before::TokenDue), "{log:#?}");
    if reached { End::Converged } else { End::NotReached(call.describe()) }
}

/// `status` says why, and nobody asks the server again.
pub fn assert_lost_login_is_explained(world: &World) {
    let posts = world.posts();
    let (account, code) = world.status();
    assert_eq!(code, 2, "{account}");
    assert_eq!(account["state"], "needs_login", "{account}");
    assert!(account.to_string().contains("the answer to an earlier request was lost"), "{account}");
    world.once_gives(77, []);
    assert_eq!(world.posts(), posts);
}

fn matrix(before: Before, grace: u64) {
    if !available() {
        return;
    }
    let calls = calls(before);
    let post = calls.iter().find(|call| call.is_post()).unwrap().place;
    // Around what cannot be undone, and wherever something is made durable.
    let fixed = |call: &Call| {
        call.is_post()
            || call.place == post + 1
            || matches!(call.name.as_str(), "fsync" | "renameat" | "fallocate" | "flock")
    };
    let what = format!("kill once, {before:?}, grace {grace} s");
    let chosen = sample(&what, &calls, fixed, 6);
    let ends = in_parallel(&chosen, Call::describe, |call| kill_at(call, before, grace));
    report(&what, &ends);
}

/// Prints the figures. A call that did not come is a hole in the matrix, so it may be none.
pub fn report(what: &str, ends: &[End]) {
    let lost: Vec<&String> =
        ends.iter().filter_map(|end| if let End::Lost(at) = end { Some(at) } else { None }).collect();
    let missed: Vec<&String> =
        ends.iter().filter_map(|end| if let End::NotReached(at) = end { Some(at) } else { None }).collect();
    let (killed, lost_count) = (ends.len() - missed.len(), lost.len());
    figure(format!("{what}: {killed} killed, {} converged, {lost_count} lost {lost:?}", killed - lost_count));
    println!("{what}: not reached: {missed:?}");
    // Only calls that wait for the other side come in numbers that vary.
    assert!(
        missed.iter().all(|call| call.starts_with("epoll_wait") || call.starts_with("recvfrom")),
        "{missed:?}"
    );
}

/// Signals that must not end an exchange, of each kind: handled, for others, and without a use.
const SIGNALS: [&str; 8] = ["TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "ALRM", "PWR"];

/// Sends a signal to one pass at this call, and runs another. The server takes each refresh token once:
/// an answer that the first pass did not store would cost the login.
fn interrupt_at(call: &Call, signal: &str) -> End {
    let world = world(Before::TokenDue, 0);
    let injection = format!("{}:signal={signal}:when={}", call.name, call.nth);
    let trace = world.sandbox.path("trace");
    let status = traced(&world.sandbox.command(["once"]), Some(&injection), &trace).output().unwrap().status;
    let reached = std::fs::read_to_string(&trace).unwrap().contains(&format!("--- SIG{signal} "));
    let output = world.once([]);
    assert_eq!(output.code, Some(0), "after {status:?}: {output:?}");
    assert_login_lives(&world);
    // The first one has stored its answer, or it has sent nothing.
    assert_eq!(world.posts(), 2, "after {status:?}: {output:?}");
    // A blocked signal is not delivered, and strace does not show it.
    let blocked = !["TERM", "INT", "QUIT", "HUP"].contains(&signal);
    if reached || blocked { End::Converged } else { End::NotReached(call.describe()) }
}

#[test]
fn a_refresh_may_get_any_signal_at_any_call() {
    if !available() {
        return;
    }
    let calls = calls(Before::TokenDue);
    let post = calls.iter().find(|call| call.is_post()).unwrap().place;
    let cases: Vec<(Call, &str)> = calls.into_iter().zip(SIGNALS.into_iter().cycle()).collect();
    let fixed = |(call, _): &(Call, &str)| {
        call.place >= post && matches!(call.name.as_str(), "epoll_wait" | "recvfrom" | "fsync" | "renameat")
    };
    let what = "signals to once";
    let chosen = sample(what, &cases, |case| case.0.is_post() || fixed(case), 10);
    let name = |(call, signal): &(Call, &str)| format!("{signal} at {}", call.describe());
    let ends = in_parallel(&chosen, name, |(call, signal)| interrupt_at(call, signal));
    report(what, &ends);
}

#[test]
fn a_first_pass_may_be_killed_at_any_call() {
    matrix(Before::Nothing, 30);
    matrix(Before::Nothing, 0);
}

#[test]
fn a_refresh_may_be_killed_at_any_call() {
    matrix(Before::TokenDue, 30);
    matrix(Before::TokenDue, 0);
}
