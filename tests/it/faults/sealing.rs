//! The kill matrix of sealing: killed at each system call, then run again.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use zg_tokend::testing::demo::IssuerOptions;

use super::kill::{DUE, End, report};
use super::trace::{Call, available, parse, traced};
use super::{in_parallel, sample};
use crate::common::finish;
use crate::common::world::World;
use crate::seal::{KEY, OTHER_KEY, found, is_sealed};

/// The work that is killed half-way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// `once` with a sealed state and a token that is due.
    Refresh,
    /// `once` with a plain state, a key and a token that is due.
    FirstSeal,
    /// `seal` of a plain state.
    Seal,
    /// `seal --with file`: a key is made, and the config changed.
    SealWithFile,
    /// `seal` from one key to another.
    Rotate,
    /// `seal --remove`.
    Remove,
}

impl Work {
    fn args(self) -> &'static [&'static str] {
        match self {
            Self::Refresh | Self::FirstSeal => &["once"],
            Self::Seal | Self::Rotate => &["seal"],
            Self::SealWithFile => &["seal", "--with", "file"],
            Self::Remove => &["seal", "--remove"],
        }
    }

    fn is_refresh(self) -> bool {
        matches!(self, Self::Refresh | Self::FirstSeal)
    }
}

/// The binary with the keys in its environment: a command would be another thread in the trace.
fn command(world: &World, args: &[&str]) -> Command {
    let mut command = world.sandbox.command(args.iter().copied());
    command.env("ZG_KEY", KEY).env("ZG_OTHER_KEY", OTHER_KEY);
    command
}

#[track_caller]
fn run(world: &World, args: &[&str], code: i32) {
    let output = finish(&mut command(world, args));
    assert_eq!(output.code, Some(code), "{output:?}");
}

/// A world before the work, and the refresh tokens that no file may have in plain after it.
fn world(work: Work) -> (World, Vec<String>) {
    let grace = Duration::from_secs(300);
    let world = World::with(IssuerOptions { reuse_grace: grace, ..IssuerOptions::default() });
    let seed = world.seed();
    let sealed = "state_key = { env = \"ZG_KEY\" }\n";
    let starts_plain = matches!(work, Work::FirstSeal | Work::Seal | Work::SealWithFile);
    world.configure_seed(&seed, if starts_plain { "" } else { sealed });
    run(&world, &["once"], 0);
    assert_eq!(is_sealed(&world), !starts_plain);
    let mut secrets = vec![seed.expose().to_owned()];
    if starts_plain {
        secrets.push(world.refresh_token().expose().to_owned());
    }
    match work {
        Work::FirstSeal | Work::Seal => world.configure_seed(&seed, sealed),
        Work::Rotate => {
            let old = sealed.replace("state_key", "state_key_previous");
            world.configure_seed(&seed, &format!("state_key = {{ env = \"ZG_OTHER_KEY\" }}\n{old}"));
        }
        Work::Refresh | Work::SealWithFile | Work::Remove => {}
    }
    if work.is_refresh() {
        world.pass_time(DUE);
    }
    (world, secrets)
}

fn calls(work: Work) -> Vec<Call> {
    let (world, _) = world(work);
    let log = world.sandbox.path("trace");
    let output = finish(&mut traced(&command(&world, work.args()), None, &log));
    assert_eq!(output.code, Some(0), "{output:?}");
    parse(&log)
}

fn kill_at(call: &Call, work: Work) -> End {
    let (world, secrets) = world(work);
    let was_sealed = is_sealed(&world);
    let injection = format!("{}:signal=KILL:when={}", call.name, call.nth);
    let command = command(&world, work.args());
    let status = traced(&command, Some(&injection), &world.sandbox.path("trace")).output().unwrap().status;
    let reached = status.signal() == Some(9);
    assert!(reached || status.code() == Some(0), "{status:?}");

    let directory = world.sandbox.seen("state");
    if was_sealed && work != Work::Remove {
        assert_eq!(found(&directory, &secrets), Vec::<String>::new(), "whatever the step");
    }
    let posts = world.posts();
    // The key file that was made is not replaced: it may be in the config or not.
    let again = finish(&mut self::command(&world, work.args()));
    match work {
        Work::SealWithFile => {
            assert!([Some(0), Some(78)].contains(&again.code), "{again:?}");
            let config = fs::read_to_string(world.sandbox.config_path()).unwrap();
            if config.contains("state_key") {
                run(&world, &["seal"], 0);
                assert!(is_sealed(&world));
            } else {
                assert!(!is_sealed(&world), "sealed with a key that the config does not name");
            }
        }
        // If all was done, there is nothing left to remove.
        Work::Remove => {
            assert!([Some(0), Some(78)].contains(&again.code), "{again:?}");
            assert!(!is_sealed(&world));
        }
        _ => {
            assert_eq!(again.code, Some(0), "{again:?}");
            assert!(is_sealed(&world));
            assert_eq!(found(&directory, &secrets), Vec::<String>::new());
        }
    }
    if !work.is_refresh() {
        assert_eq!(world.posts(), posts, "sealing sends nothing");
        run(&world, &["once", "--force"], 0);
    }
    world.assert_live();
    world.permit_force();
    run(&world, &["once", "--force"], 0);
    if reached { End::Converged } else { End::NotReached(call.describe()) }
}

fn matrix(work: Work) {
    if !available() {
        return;
    }
    let calls = calls(work);
    let fixed = |call: &Call| {
        matches!(call.name.as_str(), "fsync" | "renameat" | "fallocate" | "flock" | "pwrite64" | "ftruncate")
    };
    let what = format!("kill while sealing, {work:?}");
    let chosen = sample(&what, &calls, fixed, 4);
    let ends = in_parallel(&chosen, Call::describe, |call| kill_at(call, work));
    report(&what, &ends);
}

#[test]
fn a_sealed_refresh_may_be_killed_at_any_call() {
    matrix(Work::Refresh);
}

#[test]
fn the_first_sealing_may_be_killed_at_any_call() {
    matrix(Work::FirstSeal);
    matrix(Work::Seal);
}

#[test]
fn a_new_key_may_be_killed_at_any_call() {
    matrix(Work::SealWithFile);
    matrix(Work::Rotate);
}

#[test]
fn unsealing_may_be_killed_at_any_call() {
    matrix(Work::Remove);
}
