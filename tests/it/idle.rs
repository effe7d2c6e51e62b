//! An idle `run` costs nothing.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::common::world::World;
use crate::common::{Background, settled, wait_until};

/// How long to watch, in seconds: `tests/all/idle` watches longer.
const SECONDS: &str = "ZG_TESTS_IDLE_SECONDS";

/// After a refresh idle threads and a connection are still to end: nothing has happened for so long.
const QUIET: Duration = Duration::from_secs(2);

/// The counters of the kernel for a process of one thread.
#[derive(Debug, PartialEq, Eq)]
struct Usage {
    voluntary: u64,
    involuntary: u64,
    /// In the kernel's ticks of 10 ms: user and system.
    cpu: u64,
}

impl Usage {
    fn of(run: &Background) -> Self {
        let cpu = proc(run, "stat");
        // The second field is a name in parentheses; utime and stime are fields 14 and 15.
        let cpu = cpu.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
        Self {
            voluntary: status(run, "voluntary_ctxt_switches"),
            involuntary: status(run, "nonvoluntary_ctxt_switches"),
            cpu: cpu.map(|ticks| ticks.parse::<u64>().unwrap()).sum(),
        }
    }
}

fn proc(run: &Background, name: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{name}", run.id())).unwrap()
}

fn status(run: &Background, name: &str) -> u64 {
    let status = proc(run, "status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().parse().unwrap()
}

#[track_caller]
pub fn assert_idle(what: &str, run: &Background) {
    wait_until("one thread", || (status(run, "Threads") == 1).then_some(()));
    settled(QUIET, || Usage::of(run));
    let seconds = std::env::var(SECONDS).map_or(3, |seconds| seconds.parse().unwrap());
    // On a busy machine the rest of a refresh may come later than that: what wakes it again and again
    // leaves no such time without a change.
    let after = settled(Duration::from_secs(seconds), || Usage::of(run));
    assert_eq!(status(run, "Threads"), 1);
    println!("{what}, {seconds} s: 1 thread, 0 context switches, 0 ticks of CPU; since the start {after:?}");
}

#[test]
fn an_idle_run_costs_nothing() {
    let fresh = World::new();
    fresh.configure("");
    let mut run = fresh.run();
    let refused = World::new();
    refused.configure("");
    let mut other_run = refused.run();
    let (now, login) = (refused.server.now(), refused.refresh_token());
    assert!(refused.server.issuer(|issuer| issuer.revoke_login(now, &login)));
    other_run.signal(Signal::USR1);
    other_run.wait_for("invalid_grant");
    thread::scope(|scope| {
        scope.spawn(|| assert_idle("while only a login can help", &other_run));
        assert_idle("after the first refresh", &run);
        run.signal(Signal::USR1);
        wait_until("a refresh", || (run.log().matches("refreshed: ").count() == 2).then_some(()));
        assert_idle("after another refresh", &run);
    });
}
