//! Power loss on real file systems: shut down without a flush (FS_IOC_SHUTDOWN, as xfstests do it)
//! at each step of a refresh, then mounted again.

use std::fs::{self, File};

use serde_json::Value;
use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::secret::Secret;

use super::disks::{DISKS, mounted};
use super::kill::{Before, DUE};
use super::trace::{Call, parse, traced};
use super::{assert_login_lives, granted, in_parallel, sample};
use crate::common::world::World;
use crate::common::{figure, finish};

/// A kind of file system, how it is made and mounted.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    make: &'static str,
    options: &'static str,
}

/// ext4 without auto_da_alloc, which would forgive a rename without an fsync; xfs never does.
pub const KINDS: [Kind; 2] = [
    Kind {
        name: "ext4",
        make: "truncate -s 32M $image; mkfs.ext4 -q -E lazy_itable_init=0 $image",
        options: "loop,noauto_da_alloc",
    },
    Kind { name: "xfs", make: "truncate -s 320M $image; mkfs.xfs -q $image", options: "loop" },
];

/// The effects of a refresh on disks and on the server: the steps between which power can be lost.
pub const STEPS: [&str; 11] = [
    "openat",
    "mkdirat",
    "flock",
    "fchmod",
    "fallocate",
    "pwrite64",
    "ftruncate",
    "fsync",
    "renameat",
    "writev",
    "recvfrom",
];

impl Kind {
    /// Commands that make a disk for each of these directories of the sandbox, and mount it there.
    pub fn make_and_mount(&self, world: &World, disks: &[&str]) -> String {
        let commands = disks.iter().enumerate().map(|(nth, disk)| {
            let (image, at) = (world.sandbox.path(format!("data/{nth}.img")), world.sandbox.path(disk));
            let (image, at) = (image.display(), at.display());
            format!(
                "image={image}\n{}\nmount -o {} $image {at}\nchmod 700 {at}\nsync\n",
                self.make, self.options
            )
        });
        commands.collect()
    }
}

/// The state on one disk, the token file on another: no journal orders one after the other.
fn world(kind: &Kind, before: Before) -> Option<World> {
    let world = mounted(|world| kind.make_and_mount(world, &DISKS))?;
    world.server.issuer(|issuer| issuer.options_mut().reuse_grace = std::time::Duration::from_secs(300));
    if before == Before::TokenDue {
        world.once_gives(0, []);
        world.pass_time(DUE);
        sync(&world, &DISKS);
    }
    Some(world)
}

/// The files from before are on disk for good.
pub fn sync(world: &World, disks: &[&str]) {
    for disk in disks {
        world.sandbox.mounts().run(&format!("sync -f {}", world.sandbox.path(disk).display()));
    }
}

pub fn lose_power(world: &World, kind: &Kind, disks: &[&str]) {
    let all = |command: &dyn Fn(usize, &str) -> String| {
        let commands = disks
            .iter()
            .enumerate()
            .map(|(nth, disk)| command(nth, &world.sandbox.path(disk).display().to_string()));
        world.sandbox.mounts().run(&commands.collect::<Vec<_>>().join("\n"));
    };
    all(&|_, at| format!("xfs_io -x -c shutdown {at}"));
    all(&|_, at| format!("umount {at}"));
    all(&|nth, at| {
        format!("mount -o {} {} {at}", kind.options, world.sandbox.path(format!("data/{nth}.img")).display())
    });
}

/// The places in a trace after which something must be safe.
struct Durable {
    post: usize,
    state: usize,
    token: usize,
}

fn durable(calls: &[Call]) -> Durable {
    let post = calls.iter().find(|call| call.is_post()).unwrap().place;
    let synced = |name| {
        let renamed =
            calls.iter().find(|call| call.place > post && is_rename_onto(call, name)).unwrap().place;
        calls.iter().find(|call| call.place > renamed && call.name == "fsync").unwrap().place
    };
    Durable { post, state: synced("state"), token: synced("token") }
}

fn lose_power_at(call: &Call, kind: &Kind, before: Before, durable: &Durable) {
    let world = world(kind, before).unwrap();
    let injection = format!("{}:signal=KILL:when={}", call.name, call.nth);
    let log = world.sandbox.path("trace");
    finish(&mut traced(&world.sandbox.command(["once"]), Some(&injection), &log));
    lose_power(&world, kind, &DISKS);

    let granted_now = granted(&world.server.audit());
    let place = |token: &Secret| granted_now.iter().position(|(granted, _)| *granted == token.fingerprint());
    let in_file = fs::read_to_string(world.token_file()).ok().map(|text| {
        assert!(world.server.is_live(&Secret::new(text.clone())), "the token file holds {text:?}");
        place(&Secret::new(text))
    });
    let state = fs::read(world.state_path("default", "state")).ok();
    let state: Value =
        state.map(|bytes| serde_json::from_slice(&bytes).expect("a whole state")).unwrap_or_default();
    let in_state = state["access_token"]["value"].as_str().map(|token| place(&Secret::new(token)));
    assert!(in_state >= in_file, "the state is older than the token file: {in_state:?} {in_file:?}");
    if before == Before::TokenDue {
        assert!(in_file.is_some(), "the token file is there");
    }
    let newest = Some(granted_now.len().checked_sub(1));
    if call.place > durable.post {
        assert!(in_state == newest || state.get("in_flight").is_some(), "nobody knows of the request");
    }
    if call.place > durable.state {
        assert_eq!(in_state, newest, "the state was reported as stored");
    }
    if call.place > durable.token {
        assert_eq!(in_file, newest, "the token file was reported as stored");
    }
    world.once_gives(0, []);
    assert_login_lives(&world);
}

fn matrix(before: Before, random: usize) {
    for kind in &KINDS {
        let Some(clean) = world(kind, before) else { return };
        let log = clean.sandbox.path("trace");
        let output = finish(&mut traced(&clean.sandbox.command(["once"]), None, &log));
        assert_eq!(output.code, Some(0), "{output:?}");
        let calls = parse(&log);
        let durable = durable(&calls);
        let locked = calls.iter().position(|call| call.name == "flock").unwrap();
        let first = if before == Before::Nothing { 0 } else { locked };
        let is_step = |call: &&Call| {
            call.path.as_ref().is_none_or(|path| path.starts_with(clean.sandbox.path("")))
                && STEPS.contains(&call.name.as_str())
        };
        let steps: Vec<Call> = calls[first..].iter().filter(is_step).cloned().collect();
        let what = format!("power loss, {}, {before:?}", kind.name);
        let fixed = |call: &Call| {
            before == Before::TokenDue
                && call.place > durable.post
                && ["fsync", "openat"].contains(&call.name.as_str())
        };
        let chosen = sample(&what, &steps, fixed, random);
        let done = in_parallel(&chosen, Call::describe, |call| lose_power_at(call, kind, before, &durable));
        figure(format!("{what}: {} steps, {} recovered", chosen.len(), done.len()));
    }
}

#[test]
fn power_may_fail_at_any_step_of_a_refresh() {
    matrix(Before::TokenDue, 2);
}

#[test]
fn power_may_fail_at_any_step_of_a_first_pass() {
    matrix(Before::Nothing, 2);
}

/// The content of a file that was not synced, after power loss: nothing, zeros, a part.
fn spoil(state: &[u8]) -> [Vec<u8>; 3] {
    [Vec::new(), vec![0; state.len()], state[..state.len() / 2].to_vec()]
}

#[test]
fn a_spoiled_state_is_put_aside_and_the_seed_tried_once() {
    for nth in 0..3 {
        for rotation in [true, false] {
            let world = World::with(IssuerOptions { rotation, ..IssuerOptions::default() });
            world.configure("");
            world.once_gives(0, []);
            let path = world.state_path("default", "state");
            let spoiled = spoil(&fs::read(&path).unwrap())[nth].clone();
            fs::write(&path, &spoiled).unwrap();

            // As long as the token in the file may live, it is not put at risk.
            let problem = world.status();
            assert!(problem.1 == 3 && problem.0.to_string().contains("the state file "), "{problem:?}");
            let output = world.once_gives(0, []);
            let warned =
                output.stderr.contains("state file ") && output.stderr.contains("; trying the configured");
            assert!(warned && !output.stdout.contains("0 s"), "{output:?}");
            assert_eq!(world.posts(), 1);
            world.assert_live();

            let long_ago = std::time::SystemTime::UNIX_EPOCH;
            File::options().write(true).open(world.token_file()).unwrap().set_modified(long_ago).unwrap();
            if rotation {
                // A server that does not rotate takes the seed again; this one does not.
                let output = world.once_gives(77, []);
                assert!(output.stderr.contains("state.corrupt-1"), "{output:?}");
                assert!(output.stderr.contains("log in again"), "{output:?}");
                world.once_gives(77, []);
                let mut run = world.run();
                assert!(run.ended().is_none());
                assert_eq!(run.stop().code(), Some(0));
            } else {
                let output = world.once_gives(0, []);
                assert!(output.stderr.contains("state.corrupt-1"), "{output:?}");
                world.assert_live();
            }
            assert_eq!(world.posts(), 2);
            assert_eq!(fs::read(world.state_path("default", "state.corrupt-1")).unwrap(), spoiled);
        }
    }
}

fn is_rename_onto(call: &Call, name: &str) -> bool {
    call.name.starts_with("rename") && call.path.as_ref().is_some_and(|path| path.ends_with(name))
}
