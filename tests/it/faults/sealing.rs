//! The kill matrix of sealing: killed at each system call, then run again. And power loss, on disks of its
//! own, at the steps between which it makes a difference.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use zg_tokend::testing::demo::IssuerOptions;

use super::kill::{DUE, End, report};
use super::power::{KINDS, Kind, STEPS, lose_power, sync};
use super::trace::{Call, available, parse, traced};
use super::{in_parallel, sample};
use crate::common::mounts::Mounts;
use crate::common::world::World;
use crate::common::{figure, finish};
use crate::seal::{KEY, OTHER_KEY, found, is_sealed, write_private};

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
    /// `seal --secrets`: the secrets of the config move.
    Secrets,
    /// `seal` from one key to another, with secrets in sealed files.
    RotateSecrets,
    /// `seal --secrets --remove`.
    SecretsBack,
}

impl Work {
    fn args(self) -> &'static [&'static str] {
        match self {
            Self::Refresh | Self::FirstSeal => &["once"],
            Self::Seal | Self::Rotate | Self::RotateSecrets => &["seal"],
            Self::SealWithFile => &["seal", "--with", "file"],
            Self::Remove => &["seal", "--remove"],
            Self::Secrets => &["seal", "--secrets", "--yes"],
            Self::SecretsBack => &["seal", "--secrets", "--remove", "--yes"],
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

/// A header of each request, and a secret of the config.
const HEADER: &str = "zgmarkheader";

const SEALED: &str = "state_key = { env = \"ZG_KEY\" }\n";
const ROTATED: &str = "state_key = { env = \"ZG_OTHER_KEY\" }\nstate_key_previous = { env = \"ZG_KEY\" }\n";

/// A world before the work, and the refresh tokens that no file may have in plain after it.
fn world(work: Work) -> (World, Vec<String>) {
    let grace = Duration::from_secs(300);
    let world = World::with(IssuerOptions { reuse_grace: grace, ..IssuerOptions::default() });
    let secrets = prepare(&world, work);
    (world, secrets)
}

fn prepare(world: &World, work: Work) -> Vec<String> {
    let seed = world.seed();
    let mut secrets = vec![seed.expose().to_owned()];
    let starts_plain = matches!(work, Work::FirstSeal | Work::Seal | Work::SealWithFile);
    let write = |key: &str| {
        let (client, seed) = (world.client(), seed.expose());
        let text = format!(
            "{key}{client}refresh_token = \"{seed}\"\nrequest_headers = {{ x-key = \"{HEADER}\" }}\n"
        );
        let path = world.sandbox.seen("config/zg-tokend/config.toml");
        write_private(&path, text.trim_end());
    };
    write(if starts_plain { "" } else { SEALED });
    run(world, &["once"], 0);
    assert_eq!(is_sealed(world), !starts_plain);
    if starts_plain {
        secrets.push(world.refresh_token().expose().to_owned());
    }
    match work {
        Work::FirstSeal | Work::Seal => write(SEALED),
        Work::Rotate => write(ROTATED),
        Work::RotateSecrets | Work::SecretsBack => {
            run(world, &["seal", "--secrets", "--yes"], 0);
            run(world, &["once", "--force"], 0);
            world.permit_force();
            let path = world.sandbox.seen("config/zg-tokend/config.toml");
            let text = fs::read_to_string(&path).unwrap();
            assert!(!text.contains(HEADER) && !path.with_extension("toml.plain").exists());
            if work == Work::RotateSecrets {
                write_private(&path, text.replace(SEALED, ROTATED).trim_end());
            }
        }
        Work::Refresh | Work::SealWithFile | Work::Remove | Work::Secrets => {}
    }
    if work.is_refresh() {
        world.pass_time(DUE);
    }
    secrets
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

    judge(&world, work, was_sealed, &secrets);
    if reached { End::Converged } else { End::NotReached(call.describe()) }
}

/// After the work was broken off: it can be done again, and all works as before.
fn judge(world: &World, work: Work, was_sealed: bool, secrets: &[String]) {
    let directory = world.sandbox.seen("state");
    if was_sealed && work != Work::Remove {
        assert_eq!(found(&directory, secrets), Vec::<String>::new(), "whatever the step");
    }
    let posts = world.posts();
    if matches!(work, Work::Secrets | Work::RotateSecrets | Work::SecretsBack) {
        // The old config or the new one: each works.
        run(world, &["once", "--force"], 0);
        world.permit_force();
        run(world, work.args(), 0);
        assert_secrets_lie_where_they_should(world, work, secrets);
        return;
    }
    // The key file that was made is not replaced: it may be in the config or not.
    let again = finish(&mut command(world, work.args()));
    match work {
        Work::SealWithFile => {
            assert!([Some(0), Some(78)].contains(&again.code), "{again:?}");
            let config = fs::read_to_string(world.sandbox.seen("config/zg-tokend/config.toml")).unwrap();
            if config.contains("state_key") {
                run(world, &["seal"], 0);
                assert!(is_sealed(world));
            } else {
                assert!(!is_sealed(world), "sealed with a key that the config does not name");
            }
        }
        // If all was done, there is nothing left to remove.
        Work::Remove => {
            assert!([Some(0), Some(78)].contains(&again.code), "{again:?}");
            assert!(!is_sealed(world));
        }
        _ => {
            assert_eq!(again.code, Some(0), "{again:?}");
            assert!(is_sealed(world));
            assert_eq!(found(&directory, secrets), Vec::<String>::new());
        }
    }
    if !work.is_refresh() {
        assert_eq!(world.posts(), posts, "sealing sends nothing");
        run(world, &["once", "--force"], 0);
    }
    world.assert_live();
    world.permit_force();
    run(world, &["once", "--force"], 0);
}

/// After the work was done again: the secrets of the config are in it or nowhere in plain, and the copy
/// goes with the next refresh.
fn assert_secrets_lie_where_they_should(world: &World, work: Work, secrets: &[String]) {
    run(world, &["once", "--force"], 0);
    world.assert_live();
    let config = world.sandbox.seen("config/zg-tokend");
    let secrets: Vec<_> = secrets.iter().cloned().chain([HEADER.to_owned()]).collect();
    let places = found(&config, &secrets);
    if work == Work::SecretsBack {
        assert!(
            places.len() == 2 && places.iter().all(|place| place.ends_with("/config.toml")),
            "{places:?}"
        );
    } else {
        assert_eq!(places, Vec::<String>::new());
    }
    if work == Work::RotateSecrets {
        let path = config.join("config.toml");
        let text = fs::read_to_string(&path).unwrap();
        let previous = ROTATED.lines().nth(1).unwrap();
        write_private(&path, text.replace(previous, "").trim_end());
        world.permit_force();
        run(world, &["once", "--force"], 0);
    }
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
fn the_move_of_the_secrets_may_be_killed_at_any_call() {
    matrix(Work::Secrets);
    matrix(Work::SecretsBack);
}

#[test]
fn a_new_key_for_the_secrets_may_be_killed_at_any_call() {
    matrix(Work::RotateSecrets);
}

#[test]
fn unsealing_may_be_killed_at_any_call() {
    matrix(Work::Remove);
}

/// The disks of the state and of the config.
const DISKS: [&str; 2] = ["state", "config"];

/// The same on disks of its own; `None` without root.
fn on_disks(kind: &Kind, work: Work) -> Option<(World, Vec<String>)> {
    let grace = Duration::from_secs(300);
    let mut world = World::with(IssuerOptions { reuse_grace: grace, ..IssuerOptions::default() });
    let mounts = Mounts::new(&kind.make_and_mount(&world, &DISKS))?;
    world.sandbox.enter(mounts);
    let config = world.sandbox.path("config");
    world.sandbox.mounts().run(&format!("mkdir -p {0}/zg-tokend {0}/zerogravity", config.display()));
    let secrets = prepare(&world, work);
    sync(&world, &DISKS);
    Some((world, secrets))
}

fn power_matrix(work: Work) {
    if !available() {
        return;
    }
    for kind in &KINDS {
        let Some((clean, _)) = on_disks(kind, work) else { return };
        let log = clean.sandbox.path("trace");
        let output = finish(&mut traced(&command(&clean, work.args()), None, &log));
        assert_eq!(output.code, Some(0), "{output:?}");
        let is_step = |call: &Call| {
            call.path.as_ref().is_none_or(|path| path.starts_with(clean.sandbox.path("")))
                && STEPS.contains(&call.name.as_str())
        };
        let steps: Vec<Call> = parse(&log).into_iter().filter(is_step).collect();
        assert!(steps.iter().any(|call| call.name == "fsync"), "{steps:?}");
        let what = format!("power loss while sealing, {}, {work:?}", kind.name);
        let chosen = sample(&what, &steps, |_| false, 3);
        let done = in_parallel(&chosen, Call::describe, |call| {
            let (world, secrets) = on_disks(kind, work).unwrap();
            let was_sealed = is_sealed(&world);
            let injection = format!("{}:signal=KILL:when={}", call.name, call.nth);
            finish(&mut traced(
                &command(&world, work.args()),
                Some(&injection),
                &world.sandbox.path("trace"),
            ));
            lose_power(&world, kind, &DISKS);
            judge(&world, work, was_sealed, &secrets);
        });
        figure(format!("{what}: {} steps, {} recovered", chosen.len(), done.len()));
    }
}

#[test]
fn power_may_fail_at_any_step_of_sealing() {
    power_matrix(Work::Seal);
    power_matrix(Work::SealWithFile);
    power_matrix(Work::Remove);
}

#[test]
fn power_may_fail_at_any_step_of_a_new_key() {
    power_matrix(Work::Rotate);
    power_matrix(Work::RotateSecrets);
}

#[test]
fn power_may_fail_at_any_step_of_the_move_of_the_secrets() {
    power_matrix(Work::Secrets);
    power_matrix(Work::SecretsBack);
}
