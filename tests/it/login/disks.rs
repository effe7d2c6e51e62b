//! Disks that are full or read-only, before and after the user has consented.

use std::fs;

use super::{LoginRun, configure, consent, follow, log_in};
use crate::common::mounts::Mounts;
use crate::common::world::World;

/// The directories of the state and of the token file, below the sandbox.
const DISKS: [&str; 2] = ["state", "config/zerogravity"];

/// A world with a login and with a small disk for each; `None` without root.
fn logged_in() -> Option<World> {
    let mut world = World::new();
    configure(&world, "");
    let mount = |disk: &str| {
        fs::create_dir_all(world.sandbox.path(disk)).unwrap();
        format!("mount -t tmpfs -o size=1m,mode=700 tmpfs {}\n", world.sandbox.path(disk).display())
    };
    let mounts = Mounts::new(&DISKS.map(mount).concat())?;
    world.sandbox.enter(mounts);
    assert_eq!(log_in(&world, "", "alice").0, 0);
    Some(world)
}

/// Leaves no room on a disk, or makes it read-only.
fn spoil(world: &World, disk: &str, is_full: bool) {
    let at = world.sandbox.path(disk);
    let at = at.display();
    world.sandbox.mounts().run(&if is_full {
        format!("used=$(df -B4096 --output=used {at} | tail -n 1)\nmount -o remount,nr_blocks=$((used)) {at}")
    } else {
        format!("mount -o remount,ro {at}")
    });
}

fn mend(world: &World, disk: &str) {
    let at = world.sandbox.path(disk);
    world.sandbox.mounts().run(&format!("mount -o remount,rw,nr_blocks=256 {}", at.display()));
}

#[test]
fn no_code_is_spent_that_cannot_be_stored() {
    // The state's disk is in use by the login itself, so that nobody can make it read-only.
    for (disk, is_full) in [(DISKS[0], true), (DISKS[1], true), (DISKS[1], false)] {
        let Some(world) = logged_in() else { return };
        let words = if is_full { "No space left on device" } else { "Read-only file system" };
        let (token, login) = (world.token(), world.refresh_token());

        // After the consent: the code is not sent, and the page says why.
        let mut run = LoginRun::by_browser(&world, "");
        let redirect = consent(&run.url(), "alice");
        spoil(&world, disk, is_full);
        let posts = world.posts();
        let (_, page) = follow(&redirect);
        assert!(page.body.contains("The login failed") && page.body.contains(words), "{page:?}");
        let shown = run.ends_with(74);
        assert!(shown.contains(words), "{shown}");

        // Before it: the page is not even shown.
        let shown = LoginRun::by_browser(&world, "").ends_with(74);
        assert!(shown.contains(words) && !shown.contains("code_challenge="), "{shown}");
        assert_eq!(world.posts(), posts, "{disk} {words}");
        assert_eq!((world.token(), world.refresh_token()), (token, login));

        mend(&world, disk);
        world.once_gives(0, ["--force"]);
        assert_eq!(log_in(&world, "", "alice").0, 0);
        world.assert_live();
    }
}
