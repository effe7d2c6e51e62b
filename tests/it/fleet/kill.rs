//! One host is killed or stopped at a system call of its refresh, from the first statement to the last; then
//! the other one asks, and then it comes back.

use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;

use super::hosts::{DUE, Fleet, Host};
use crate::common::{Background, figure, finish, wait_until};
use crate::faults::kill::ends_in_window;
use crate::faults::trace::{Call, available, parse_threads, traced};
use crate::faults::{in_parallel, sample};

fn fleet() -> Fleet {
    let fleet = Fleet::new(2).unwrap();
    fleet.log_in();
    fleet.pass_time(DUE);
    fleet
}

/// The calls of a clean refresh, from its first statement on.
fn calls() -> Vec<Call> {
    let fleet = fleet();
    let host = &fleet.hosts[0];
    let trace = host.sandbox.path("trace");
    let output = finish(&mut traced(&host.command(["once"]), None, &trace));
    assert_eq!(output.code, Some(0), "{output:?}");
    let calls = parse_threads(&trace);
    let first = calls.iter().find(|call| call.line.contains("connect(")).unwrap().place;
    calls.into_iter().filter(|call| call.place >= first).collect()
}

/// The calls that cannot be undone, and the ones after them.
fn is_fixed(calls: &[Call], call: &Call) -> bool {
    let matters = |call: &Call| {
        call.is_post()
            || call.line.contains("COMMIT")
            || matches!(call.name.as_str(), "renameat" | "renameat2" | "fsync")
    };
    let before = calls.iter().find(|other| other.place + 1 == call.place);
    matters(call) || before.is_some_and(|before| before.is_post() || before.line.contains("COMMIT"))
}

/// Both get there in the end.
fn settle(fleet: &Fleet) {
    for host in &fleet.hosts {
        wait_until("a pass without trouble", || (host.run(["once"]).code == Some(0)).then_some(()));
    }
}

fn has_claimed(fleet: &Fleet, host: &Host) -> bool {
    fleet.row("coalesce(host, '')") == host.name()
}

/// Whether it was killed, and then whether the login was lost.
fn kill_at(call: &Call) -> (bool, bool) {
    let fleet = fleet();
    let [host, other] = &fleet.hosts[..] else { unreachable!() };
    let injection = format!("{}:signal=KILL:when={}", call.name, call.nth);
    let trace = host.sandbox.path("trace");
    let status = traced(&host.command(["once"]), Some(&injection), &trace).output().unwrap().status;
    let killed = status.signal() == Some(9);
    assert!(killed || status.code() == Some(0), "{status:?}");
    // The database notices that the connection is closed, and rolls back what was not committed.
    wait_until("the end of its connections", || {
        (fleet.cluster.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'zg_refresh'") == "0")
            .then_some(())
    });
    let claimed = has_claimed(&fleet, host);
    fleet.end_claims();
    let posts = fleet.posts();
    let output = other.run(["once"]);
    if claimed {
        assert_eq!((output.code, fleet.posts()), (Some(69), posts), "it waits for the owner: {output:?}");
    } else {
        assert_eq!(output.code, Some(0), "{output:?}");
    }
    let back = host.run(["once"]);
    if fleet.is_revoked() {
        let calls = parse_threads(&trace);
        assert!(ends_in_window(&calls), "lost outside of the window: {calls:#?} {back:?}");
        assert_eq!(back.code, Some(77), "{back:?}");
        let posts = fleet.posts();
        other.once_gives(77, []);
        assert_eq!(fleet.posts(), posts, "nobody sends it again");
        return (killed, true);
    }
    settle(&fleet);
    fleet.assert_agreed();
    assert!(fleet.posts() <= 3, "{:#?}", fleet.server.audit());
    (killed, false)
}

#[test]
fn a_host_may_be_killed_at_any_call_of_a_refresh() {
    if !super::postgres::available() || !available() {
        return;
    }
    let calls = calls();
    let what = "kill a host of a fleet";
    let chosen = sample(what, &calls, |call| is_fixed(&calls, call), 2);
    let ends = in_parallel(&chosen, Call::describe, kill_at);
    let killed = ends.iter().filter(|(killed, _)| *killed).count();
    let lost = ends.iter().filter(|(_, lost)| *lost).count();
    figure(format!("{what}: {killed} of {} killed, {lost} logins lost, all in the window", ends.len()));
    assert!(killed > 0, "none of {chosen:?}");
}

/// True if it was stopped.
fn stop_at(call: &Call) -> bool {
    let fleet = fleet();
    let [host, other] = &fleet.hosts[..] else { unreachable!() };
    let injection = format!("{}:signal=STOP:when={}", call.name, call.nth);
    let trace = host.sandbox.path("trace");
    let mut command = traced(&host.command(["once"]), Some(&injection), &trace);
    let mut once = Background::start(&mut command, host.sandbox.path("once.log"));
    let is_stopped = || std::fs::read_to_string(&trace).is_ok_and(|log| log.contains("stopped by SIGSTOP"));
    wait_until("the stop, or the end", || (is_stopped() || once.ended().is_some()).then_some(()));
    let stopped = once.ended().is_none();
    let (claimed, posts) = (has_claimed(&fleet, host), fleet.posts());
    fleet.end_claims();
    let output = other.run(["once"]);
    assert!(matches!(output.code, Some(0 | 69)), "{output:?}");
    if claimed {
        assert_eq!(fleet.posts(), posts, "it waits for the owner: {output:?}");
    }
    once.signal(Signal::CONT);
    let status = once.wait();
    assert!(matches!(status.code(), Some(0 | 69)), "{status:?} {}", once.log());
    settle(&fleet);
    fleet.assert_agreed();
    fleet.assert_one_post_per_epoch();
    stopped
}

#[test]
fn a_host_may_be_stopped_at_any_call_of_a_refresh() {
    if !super::postgres::available() || !available() {
        return;
    }
    let calls = calls();
    let what = "stop a host of a fleet";
    let chosen = sample(what, &calls, |call| call.is_post() || call.line.contains("COMMIT"), 4);
    let ends = in_parallel(&chosen, Call::describe, stop_at);
    let stopped = ends.iter().filter(|stopped| **stopped).count();
    figure(format!("{what}: {stopped} of {} stopped, none lost, one request each", ends.len()));
    assert!(stopped > 0, "none of {chosen:?}");
}
