//! The kill matrix of `run`, around its second refresh.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rustix::process::Signal;
use zg_tokend::testing::demo::IssuerOptions;

use super::kill::{End, assert_lost_login_is_explained, ends_in_window, report};
use super::reader::Reader;
use super::trace::{Call, attached, available, parse_threads, traced};
use super::{assert_login_lives, granted, in_parallel, revoked, sample};
use crate::common::world::World;
use crate::common::{Background, leave_out, wait_until};

/// A `run` that has refreshed once and has strace at its heels; calls count from here on.
struct Traced {
    run: Background,
    strace: Background,
}

impl Traced {
    fn start(world: &World, injection: Option<&str>) -> Self {
        let run = world.run();
        world.assert_live();
        let log = world.sandbox.path("strace.log");
        let mut command = attached(run.id(), injection, &world.sandbox.path("trace"));
        let strace = Background::start(&mut command, log);
        wait_until("strace", || strace.log().contains("attached").then_some(()));
        Self { run, strace }
    }

    /// Asks for a refresh, and when that is done for the end; true if something killed it first.
    fn refresh_and_stop(mut self) -> bool {
        self.run.signal(Signal::USR1);
        let refreshed = |log: &str| log.matches("refreshed: ").count() == 2;
        wait_until("the second refresh", || {
            (self.run.ended().is_some() || refreshed(&self.run.log())).then_some(())
        });
        self.run.signal(Signal::TERM);
        let status = self.run.wait();
        self.strace.wait();
        assert!(status.signal() == Some(9) || status.code() == Some(0), "{status:?}: {}", self.run.log());
        status.signal() == Some(9)
    }
}

fn world(grace: u64) -> World {
    let world =
        World::with(IssuerOptions { reuse_grace: Duration::from_secs(grace), ..IssuerOptions::default() });
    world.configure("");
    world
}

fn kill_at(call: &Call, grace: u64) -> End {
    let world = world(grace);
    let injection = format!("{}:signal=KILL:when={}", call.name, call.nth);
    let traced = Traced::start(&world, Some(&injection));
    let reader = Reader::watch(&world.token_file());
    let reached = traced.refresh_and_stop();

    let mut run = world.run();
    let log = world.server.audit();
    let end = if grace == 0 && revoked(&log) {
        // By its own calls: how often it waits for events is not the same each time.
        let calls = parse_threads(&world.sandbox.path("trace"));
        assert!(ends_in_window(&calls), "lost outside of the window: {calls:#?} {} {log:#?}", run.log());
        assert_lost_login_is_explained(&world);
        End::Lost(call.describe())
    } else {
        assert_login_lives(&world);
        assert!(granted(&log).len() <= 3, "{log:#?}");
        if reached { End::Converged } else { End::NotReached(call.describe()) }
    };
    assert_eq!(run.stop().code(), Some(0), "{}", run.log());
    reader.judge(&log);
    end
}

#[test]
fn a_supervisor_may_be_killed_at_any_call_of_a_refresh() {
    if !available() {
        return;
    }
    let traceable = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    if !rustix::process::geteuid().is_root() && traceable.is_ok_and(|scope| scope.trim() != "0") {
        return leave_out("killing run: strace may not attach to a process");
    }
    let clean = world(0);
    assert!(!Traced::start(&clean, None).refresh_and_stop());
    let calls = parse_threads(&clean.sandbox.path("trace"));
    for grace in [30, 0] {
        let what = format!("kill run, grace {grace} s");
        let fixed = |call: &Call| call.is_post() || matches!(call.name.as_str(), "fsync" | "renameat");
        let chosen = sample(&what, &calls, fixed, 3);
        let ends = in_parallel(&chosen, Call::describe, |call| kill_at(call, grace));
        report(&what, &ends);
    }
}

#[test]
fn a_supervisor_is_ready_while_the_disk_refuses_the_first_answer() {
    if !available() {
        return;
    }
    // A service manager that waits for it to be ready would kill it in the end, and with it the
    // refresh token that is only in memory. The first of the calls puts the marker in its place.
    let world = world(0);
    let injection = "renameat:error=EIO:when=2+";
    let command = world.sandbox.command(["run"]);
    let mut command = traced(&command, Some(injection), &world.sandbox.path("trace"));
    let mut run = Background::start(&mut command, world.sandbox.path("run.log"));
    run.wait_for("supervising");
    assert!(run.log().contains("only in memory; retrying"), "{}", run.log());
    assert_eq!(world.grants(), 1);
    run.signal(Signal::KILL);
}
