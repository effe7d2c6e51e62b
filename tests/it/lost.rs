//! A state that went missing, or back in time: no old refresh token is sent, and the live token stays.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use zg_tokend::testing::demo::IssuerOptions;

use crate::common::world::World;
use crate::common::{finish, leave_out, under, wait_until};

/// A refreshed account, whose state is on a "disk": a directory that can be taken away.
fn on_a_disk(world: &World) -> PathBuf {
    let disk = world.sandbox.path("disk");
    fs::create_dir_all(disk.join("data")).unwrap();
    world.configure(&format!("state_dir = \"{}\"", disk.join("data/state").display()));
    world.once_gives(0, []);
    disk
}

fn state_dir(world: &World) -> PathBuf {
    world.sandbox.path("state/zg-tokend")
}

#[test]
fn a_disk_that_is_not_mounted_is_no_first_run() {
    let world = World::new();
    let disk = on_a_disk(&world);
    fs::rename(disk.join("data"), world.sandbox.path("elsewhere")).unwrap();
    let output = world.once_gives(74, []);
    assert!(output.stderr.contains("the state is missing"), "{output:?}");
    let output = world.once_gives(78, ["--force"]);
    assert!(output.stderr.contains("mount the disk that it is on"), "{output:?}");
    let check = world.sandbox.run(["check"]);
    assert!(check.code == Some(78) && check.stdout.contains("state_dir: directory "), "{check:?}");
    world.assert_live();
    fs::rename(world.sandbox.path("elsewhere"), disk.join("data")).unwrap();
    world.once_gives(0, []);
    assert_eq!(world.posts(), 1);
}

#[test]
fn a_lost_container_layer_costs_no_login() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let kept = world.sandbox.path("kept");
    fs::rename(state_dir(&world), &kept).unwrap();
    let output = world.once_gives(74, []);
    assert!(output.stderr.contains("the state is missing: the token file has token 1"), "{output:?}");
    assert_eq!(world.sandbox.run(["token"]).code, Some(74));
    let (status, code) = world.status();
    assert_eq!(code, 2, "{status:#}");
    assert!(status["problem"].as_str().unwrap().contains("the state is missing"), "{status:#}");
    world.assert_live();
    assert!(!state_dir(&world).exists(), "nothing is made in its place");
    fs::rename(&kept, state_dir(&world)).unwrap();
    world.once_gives(0, ["--force"]);
    world.assert_live();
    assert_eq!(world.posts(), 2);
}

#[test]
fn run_goes_on_when_the_state_is_back() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let kept = world.sandbox.path("kept");
    fs::rename(state_dir(&world), &kept).unwrap();
    let name = "default";
    // `run` supervises by a lock in the account's directory, which it creates.
    let mut run = world.start_run();
    run.wait_for("the state is missing");
    assert_eq!(world.posts(), 1);
    // At once: `run` looks as soon as there is a file.
    fs::rename(kept.join(name).join("state"), state_dir(&world).join(name).join("state")).unwrap();
    wait_until("all is well", || (world.status().1 == 0).then_some(()));
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
    assert_eq!(world.posts(), 1);
}

#[test]
fn an_old_refresh_token_is_sent_only_by_force_and_a_new_login_at_once() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    fs::remove_dir_all(state_dir(&world)).unwrap();
    world.once_gives(74, []);
    assert_eq!(world.posts(), 1);
    let output = world.once_gives(77, ["--force"]);
    assert!(output.stderr.contains("a state that is missing now"), "{output:?}");
    assert_eq!(world.posts(), 2);
    let output = world.once_gives(77, []);
    assert!(output.stderr.contains("invalid_grant"), "the verdict stays: {output:?}");
    fs::remove_dir_all(state_dir(&world)).unwrap();
    world.configure("");
    world.once_gives(0, []);
    world.assert_live();
    assert_eq!(world.posts(), 3);
}

#[test]
fn a_restored_state_sends_nothing_old_and_takes_no_newer_token_away() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let snapshot = world.state();
    for _ in 0..2 {
        world.once_gives(0, ["--force"]);
    }
    let newest = world.token();
    world.write_state(&snapshot);
    world.once([]);
    assert_eq!(world.token().expose(), newest.expose(), "the file keeps the newer token");
    world.pass_time(Duration::from_secs(50 * 60));
    let output = world.once_gives(74, []);
    assert!(
        output.stderr.contains("restored from an earlier time, of token 1: the token file has token 3"),
        "{output:?}"
    );
    let (status, _) = world.status();
    assert!(status["problem"].as_str().unwrap().contains("restored"), "{status:#}");
    world.assert_live();
    assert_eq!(world.posts(), 3);
}

#[test]
fn a_login_that_does_not_rotate_loses_nothing() {
    let world = World::with(IssuerOptions { rotation: false, ..IssuerOptions::default() });
    world.configure("");
    world.once_gives(0, []);
    fs::remove_dir_all(state_dir(&world)).unwrap();
    world.once_gives(0, []);
    assert_eq!(world.posts(), 2);
}

#[test]
fn a_token_of_another_program_stops_no_first_run() {
    let world = World::new();
    world.configure("");
    fs::create_dir_all(world.token_file().parent().unwrap()).unwrap();
    fs::write(world.token_file(), "another's").unwrap();
    world.once_gives(0, []);
    // Written into the file of a lost state, in place: the note on it is about another content.
    fs::write(world.token_file(), "another's").unwrap();
    fs::remove_dir_all(state_dir(&world)).unwrap();
    world.configure("");
    world.once_gives(0, []);
}

/// A clone of a disk, or a backup that is used elsewhere.
#[test]
fn a_state_of_another_machine_is_told_before_it_is_used() {
    if !rustix::process::geteuid().is_root() {
        return leave_out("the state of another machine: it needs root");
    }
    let world = World::new();
    world.configure("");
    let once_on = |id: &str| {
        let file = world.sandbox.path("machine-id");
        fs::write(&file, format!("{id}\n")).unwrap();
        if world.state_path("default", "state").exists() {
            world.permit_force();
        }
        let script = format!("mount --bind {} /etc/machine-id && exec \"$@\"", file.display());
        let mut once =
            under(["unshare", "-m", "sh", "-c", &script, "sh"], &world.sandbox.command(["once", "--force"]));
        let output = finish(&mut once);
        assert_eq!(output.code, Some(0), "{output:?}");
        output.stderr
    };
    let (one, other) = ("1".repeat(32), "2".repeat(32));
    assert_eq!(once_on(&one), "");
    assert_eq!(once_on(&one), "");
    let said = once_on(&other);
    assert!(said.contains("was used on another machine before"), "{said}");
    assert_eq!(once_on(&other), "");
    // In a container there may be none.
    assert_eq!(once_on("uninitialized"), "");
}
