//! The disk itself: an image of a file system, searched for refresh tokens to the byte.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use zg_tokend::testing::demo::Fault;

use super::{KEY, key_line};
use crate::common::mounts::Mounts;
use crate::common::world::World;
use crate::common::{at_full_size, figure, wait_until};

/// Begins every refresh token of the test.
const MARK: &str = "zgmark-refresh-";

/// How often the refresh token is replaced: at full size 10,000 times (`tests/all/attacks`).
fn rotations() -> u32 {
    if at_full_size() { 10_000 } else { 40 }
}

/// A world whose state is on a disk of its own.
fn world(extra: impl FnOnce(&World) -> String) -> Option<World> {
    let mut world = World::new();
    let state = world.sandbox.path("state");
    let image = world.sandbox.path("data/image");
    let mounts = Mounts::new(&format!(
        "truncate -s 32M {0}\nmkfs.ext4 -q -E lazy_itable_init=0 {0}\nmount -o loop {0} {1}\nchmod 700 {1}\n",
        image.display(),
        state.display()
    ))?;
    let line = extra(&world);
    world.configure(&line);
    world.sandbox.enter(mounts);
    Some(world)
}

/// The next answer of the server.
fn answer(world: &World, number: u32, lifetime: u32) {
    let reply = json!({
        "access_token": format!("at-{number}"),
        "token_type": "Bearer",
        "expires_in": lifetime,
        "refresh_token": format!("{MARK}{number}"),
    });
    world.fault(Fault::reply(200, reply.to_string()));
}

/// How often the image has the mark, in plain and in base64.
fn hits(world: &World) -> usize {
    world.sandbox.mounts().run(&format!("umount {}", world.sandbox.path("state").display()));
    let image = world.sandbox.path("data/image");
    let forms: BTreeSet<_> = crate::secrets::encodings(MARK).into_iter().collect();
    forms.iter().map(|form| count(&image, form.as_bytes())).sum()
}

/// In pieces that overlap: an image is large.
fn count(path: &Path, pattern: &[u8]) -> usize {
    let (mut file, mut window, mut found) = (File::open(path).unwrap(), Vec::new(), 0);
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut piece).unwrap();
        if read == 0 {
            return found;
        }
        window.extend_from_slice(&piece[..read]);
        found += window.windows(pattern.len()).filter(|seen| *seen == pattern).count();
        window.drain(..window.len() - (pattern.len() - 1));
    }
}

#[test]
fn a_disk_that_has_only_seen_sealed_states_has_no_refresh_token() {
    let Some(world) = world(|world| key_line(world, "state_key", KEY)) else { return };
    let count = rotations();
    for number in 0..count {
        answer(&world, number, 3600);
        world.once_gives(0, ["--quiet"]);
        world.pass_time(Duration::from_secs(3600));
    }
    assert!(super::is_sealed(&world));
    assert_eq!(hits(&world), 0, "after {count} rotations");
    figure(format!("sealed: {count} rotations, no refresh token on the disk"));
}

/// The file system keeps some of a plain state, which the program cannot promise to remove. This test tells
/// how much, and shows that the search above finds it.
#[test]
fn a_disk_that_has_seen_plain_states_keeps_some() {
    let Some(world) = world(|_| String::new()) else { return };
    let count = rotations().min(200);
    for number in 0..count {
        // Short-lived: only the program writes to this disk.
        answer(&world, number, 1);
        let posts = world.posts();
        wait_until("the refresh", || {
            world.once(["--quiet"]);
            (world.posts() > posts).then_some(())
        });
    }
    let key = key_line(&world, "state_key", KEY);
    let config = fs::read_to_string(world.sandbox.config_path()).unwrap();
    world.sandbox.write_config(&format!("{key}{config}"));
    assert_eq!(world.sandbox.run(["seal"]).code, Some(0));
    let found = super::found(&world.sandbox.seen("state"), &[MARK.to_owned()]);
    assert_eq!(found, Vec::<String>::new(), "no file has one");
    let hits = hits(&world);
    assert!(hits > 0, "the search finds nothing");
    figure(format!("plain, then sealed: after {count} rotations the free blocks keep {hits} copies"));
}
