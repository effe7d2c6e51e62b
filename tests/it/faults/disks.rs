//! Disks that are full, read-only or slow to take what they are given, and too few descriptors.

use std::fs;
use std::process::Command;
use std::time::Duration;

use zg_tokend::testing::demo::IssuerOptions;

use super::kill::{Before, DUE, world};
use super::trace::{Call, available, parse, traced};
use super::{assert_login_lives, granted, in_parallel, sample};
use crate::common::mounts::Mounts;
use crate::common::world::World;
use crate::common::{Output, figure, finish, under};

/// The directories of the state and of the token file, below the sandbox.
pub const DISKS: [&str; 2] = ["state", "config/zerogravity"];

/// The most room that a refresh can ask of one disk, in pages of 4 KiB: the reserve of 96 KiB, the
/// marker, and a bit.
const ENOUGH: u32 = 28;

/// The two things that can be scarce on a tmpfs: what df(1) calls it, and the mount option that limits it.
const PAGES: (&str, &str) = ("used", "nr_blocks");
const INODES: (&str, &str) = ("iused", "nr_inodes");

/// A world with these mounts, in which a token is due.
fn due(commands: impl FnOnce(&World) -> String) -> Option<World> {
    let world = mounted(commands)?;
    world.once_gives(0, []);
    world.pass_time(DUE);
    Some(world)
}

/// A world with these mounts; `None` without root.
pub fn mounted(commands: impl FnOnce(&World) -> String) -> Option<World> {
    let mut world = World::new();
    world.configure("");
    for disk in DISKS {
        fs::create_dir_all(world.sandbox.path(disk)).unwrap();
    }
    let mounts = Mounts::new(&commands(&world))?;
    world.sandbox.enter(mounts);
    Some(world)
}

/// One tmpfs for the state and one for the token file.
fn two_tmpfs(world: &World) -> String {
    let mount = |disk| {
        format!(
            "mount -t tmpfs -o size=1m,nr_inodes=64,mode=700 tmpfs {}\n",
            world.sandbox.path(disk).display()
        )
    };
    DISKS.map(mount).concat()
}

/// A pass either did all of its work, or it said why not, before a request was made. True if it
/// did.
#[track_caller]
fn all_or_nothing(world: &World, output: &Output, words: &str, disk: &str) -> bool {
    world.assert_live();
    if output.code == Some(0) {
        assert_login_lives(world);
        assert_eq!(world.posts(), 2);
        return true;
    }
    assert_eq!((output.code, world.posts()), (Some(74), 1), "{output:?}");
    let explained = output.stderr.contains(words)
        && output.stderr.contains(&world.sandbox.path(disk).display().to_string());
    assert!(explained, "{output:?}");
    false
}

/// The next pass does what was left to do.
#[track_caller]
fn recovers(world: &World) {
    world.once_gives(0, []);
    assert_login_lives(world);
    assert_eq!(world.posts(), 2);
}

/// Leaves so much free of what `df` counts in `used`, and mounts the tmpfs with `option`.
fn leave_free(world: &World, disk: &str, (used, option): (&str, &str), free: u32) {
    let at = world.sandbox.path(disk);
    let at = at.display();
    world.sandbox.mounts().run(&format!(
        "used=$(df -B4096 --output={used} {at} | tail -n 1)\nmount -o remount,{option}=$((used + {free})) {at}"
    ));
}

/// Tries a pass with so much free on one of the disks, then another with enough. True if the first
/// got through.
fn with_free(disk: &str, of: (&str, &str), free: u32, enough: u32) -> Option<bool> {
    let world = due(two_tmpfs)?;
    leave_free(&world, disk, of, free);
    let done = all_or_nothing(&world, &world.once([]), "No space left on device", disk);
    leave_free(&world, disk, of, enough);
    recovers(&world);
    Some(done)
}

#[test]
fn a_full_disk_costs_no_request() {
    let cases: Vec<(&str, u32)> =
        DISKS.iter().flat_map(|disk| (0..=ENOUGH).map(move |pages| (*disk, pages))).collect();
    let chosen = sample("full tmpfs", &cases, |(_, pages)| [0, ENOUGH].contains(pages), 6);
    let name = |case: &(&str, u32)| format!("{case:?}");
    let done =
        in_parallel(&chosen, name, |&(disk, pages)| Some((pages, with_free(disk, PAGES, pages, ENOUGH)?)));
    figure(format!(
        "full tmpfs: {} tried, {} got through",
        chosen.len(),
        done.iter().flatten().filter(|(_, done)| *done).count()
    ));
    for (pages, done) in done.into_iter().flatten() {
        assert!(done || pages < ENOUGH, "with {pages} pages left");
        assert!(!done || pages > 0, "with no page left");
    }
}

#[test]
fn a_disk_without_inodes_costs_no_request() {
    let cases: Vec<(&str, u32)> =
        DISKS.iter().flat_map(|disk| (0..=2).map(move |inodes| (*disk, inodes))).collect();
    in_parallel(&cases, |case| format!("{case:?}"), |&(disk, inodes)| with_free(disk, INODES, inodes, 8));
}

#[test]
fn a_read_only_disk_costs_no_request() {
    for disk in DISKS {
        let Some(world) = due(two_tmpfs) else { return };
        let path = world.sandbox.path(disk);
        let remount = |how| world.sandbox.mounts().run(&format!("mount -o remount,{how} {}", path.display()));
        remount("ro");
        let output = world.once([]);
        assert!(!all_or_nothing(&world, &output, "Read-only file system", disk));
        assert!(output.stderr.contains("hint: remount it writable"), "{output:?}");
        remount("rw");
        recovers(&world);
    }
}

/// Two FUSE file systems that take `per_write` bytes at a time; each can grow by what the file
/// `room` in the sandbox says.
fn two_fuse(world: &World, per_write: u32) -> String {
    let room = world.sandbox.path("room");
    fs::write(&room, "1000000").unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/faults/short_writes.py");
    let mount = |(nth, disk)| {
        let source = world.sandbox.path(format!("data/{nth}"));
        fs::create_dir(&source).unwrap();
        let (at, source, room) = (world.sandbox.path(disk), source.display(), room.display());
        let at = at.display();
        format!(
            "/usr/bin/python3 {script} {source} {at} {per_write} {room} >/dev/null </dev/null &\nuntil mountpoint -q {at}; do kill -0 $! && sleep 0.02; done\n"
        )
    };
    DISKS.into_iter().enumerate().map(mount).collect()
}

#[test]
fn short_writes_are_continued() {
    for per_write in [100, 4095] {
        let Some(world) = due(|world| two_fuse(world, per_write)) else { return };
        let log = world.sandbox.path("trace");
        let output = finish(&mut traced(&world.sandbox.command(["once"]), None, &log));
        assert_eq!(output.code, Some(0), "{output:?}");
        let writes = parse(&log).iter().filter(|call| call.name == "pwrite64").count();
        assert!(writes > 65536 / per_write as usize, "{writes} writes");
        assert_login_lives(&world);
        assert_eq!(world.posts(), 2);
    }
}

#[test]
fn a_disk_that_fills_up_in_mid_write_costs_no_request() {
    // Two reserves of 64 and 16 KiB, and the marker of about 2 KiB.
    let rooms: Vec<u32> = (0..=84).map(|kib| kib * 1024 + 50).collect();
    let chosen = sample("short writes, then a full disk", &rooms, |_| false, 5);
    in_parallel(
        &chosen,
        |room| format!("{room} bytes"),
        |room| {
            let Some(world) = due(|world| two_fuse(world, 1000)) else { return };
            let file = world.sandbox.path("room");
            fs::write(&file, room.to_string()).unwrap();
            all_or_nothing(&world, &world.once([]), "No space left on device", "");
            fs::write(&file, "1000000").unwrap();
            recovers(&world);
        },
    );
}

#[test]
fn too_few_descriptors_cost_no_request() {
    // With three the dynamic loader cannot load a library.
    let limits: Vec<u32> = (4..=24).collect();
    let ends = in_parallel(
        &limits,
        |limit| format!("{limit} descriptors"),
        |limit| {
            let world = world(Before::TokenDue, 0);
            let program = world.sandbox.command(["once"]);
            let mut limited = Command::new("prlimit");
            limited
                .arg(format!("--nofile={limit}"))
                .arg(program.get_program())
                .args(program.get_args())
                .env_clear();
            limited.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let output = finish(&mut limited);
            let done = output.code == Some(0);
            assert!(done || output.stderr.contains("Too many open files"), "{output:?}");
            world.assert_live();
            assert_eq!(world.posts(), 1 + usize::from(done), "{output:?}");
            recovers(&world);
            done
        },
    );
    assert!(ends.contains(&true) && ends.contains(&false));
}

#[test]
fn a_limit_of_the_size_of_files_costs_no_request() {
    // Up to more than the 80 KiB that are reserved for the state.
    let limits = [0, 1, 1000, 10_000, 20_000, 60_000, 100_000];
    let ends = in_parallel(
        &limits,
        |limit| format!("files of {limit} bytes"),
        |limit| {
            let world = world(Before::TokenDue, 0);
            let wrapper = ["prlimit", &format!("--fsize={limit}")];
            let output = finish(&mut under(wrapper, &world.sandbox.command(["once"])));
            let done = output.code == Some(0);
            assert!(done || output.stderr.contains("File too large"), "{output:?}");
            world.assert_live();
            assert_eq!(world.posts(), 1 + usize::from(done), "{output:?}");
            recovers(&world);
            done
        },
    );
    assert!(ends.contains(&true) && ends.contains(&false));
}

/// The calls after the request that store its answer, each failing from then on.
fn storing_calls() -> Vec<Call> {
    let calls = super::kill::calls(Before::TokenDue);
    let post = calls.iter().position(Call::is_post).unwrap();
    let storing =
        |call: &&Call| matches!(call.name.as_str(), "pwrite64" | "ftruncate" | "fsync" | "renameat");
    calls[post..].iter().filter(storing).take(5).cloned().collect()
}

#[test]
fn a_disk_that_stays_broken_after_the_request_is_given_half_a_minute() {
    if !available() {
        return;
    }
    let calls = storing_calls();
    let chosen = sample("a lasting failure after the request", &calls, |call| call.name == "renameat", 0);
    in_parallel(&chosen, Call::describe, |call| {
        // The token is in nobody's hands when the pass gives up: only a server that forgives
        // helps then.
        let grace = Duration::from_secs(300);
        let world = World::with(IssuerOptions { reuse_grace: grace, ..IssuerOptions::default() });
        world.configure("");
        world.once_gives(0, []);
        world.pass_time(DUE);
        let log = world.sandbox.path("trace");
        let injection = format!("{}:error=EIO:when={}+", call.name, call.nth);
        let output = finish(&mut traced(&world.sandbox.command(["once"]), Some(&injection), &log));
        assert_eq!(output.code, Some(74), "{output:?}");
        assert!(
            output.stderr.contains("Input/output error") && output.stderr.contains("/state"),
            "{output:?}"
        );
        assert_eq!(world.posts(), 2);
        world.assert_live();
        world.once_gives(0, []);
        assert_login_lives(&world);
        assert_eq!(granted(&world.server.audit()).len(), world.posts());
    });
}

#[test]
fn a_full_stdout_is_no_failure_of_the_refresh() {
    let world = world(Before::TokenDue, 0);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = world.sandbox.command(["once"]).stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_login_lives(&world);
}
