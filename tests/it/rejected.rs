//! Compare and refresh: a resource has refused a token that should live. However many callers
//! report it, one refresh answers them all.
//!
//! Covered of sub2api's refresh API, by its names: RefreshIfNeeded_Success, _AlreadyRefreshed,
//! _LockHeld, _RefreshError, LocalMutexSerializesConcurrent, RevalidatesFreshAccountBeforeRefresh
//! here; its policies on errors and held locks in `token`; InvalidGrantRaceRecovered and Genuine
//! in `refusals`; the failures to store in `faults`.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use zg_tokend::demo::faults::Outage;
use zg_tokend::secret::Secret;

use crate::common::world::World;
use crate::common::{Output, audit, figure, finish, wait_until};

/// `rejected` with this token on stdin.
fn rejected(world: &World, token: &Secret) -> Output {
    finish(&mut with_stdin(world, token.expose()))
}

fn with_stdin(world: &World, input: &str) -> Command {
    let path = world.sandbox.path("input");
    std::fs::write(&path, format!("{input}\n")).unwrap();
    let mut command = world.sandbox.command(["rejected"]);
    command.stdin(std::fs::File::open(path).unwrap());
    command
}

/// A minute later another report may count.
fn pass_a_minute(world: &World) {
    world.pass_time(Duration::from_secs(61));
}

#[test]
fn refresh_if_needed_success_then_already_refreshed() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let refused = world.token();
    let output = rejected(&world, &refused);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(0), "default: the token was replaced\n"),
        "{output:?}"
    );
    assert_ne!(world.token(), refused);
    world.assert_live();
    for _ in 0..3 {
        let output = rejected(&world, &refused);
        assert_eq!(output.stdout, "default: another token is stored already\n", "{output:?}");
        assert_eq!(output.code, Some(0));
    }
    assert_eq!(world.posts(), 2);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn the_token_can_be_named_by_its_sha256_or_that_of_the_file() {
    let world = World::new();
    world.configure("token_format = \"Authorization: {token_type} {access_token}\\n\"");
    world.once_gives(0, []);
    let content = std::fs::read_to_string(world.token_file()).unwrap();
    let token = content.trim_end().rsplit(' ').next().unwrap().to_owned();
    for (name, posts) in [(token, 2), (std::fs::read_to_string(world.token_file()).unwrap(), 2)] {
        let output =
            world.sandbox.run(["rejected", "--sha256", &Secret::new(name).fingerprint().to_string()]);
        assert_eq!(output.code, Some(0), "{output:?}");
        assert_eq!(world.posts(), posts);
    }
    pass_a_minute(&world);
    let file = Secret::new(std::fs::read_to_string(world.token_file()).unwrap());
    let output = world.sandbox.run(["rejected", "--sha256", &file.fingerprint().to_string()]);
    assert_eq!((output.code, world.posts()), (Some(0), 3), "{output:?}");
    let output = world.sandbox.run(["rejected", "--sha256", "abc"]);
    assert_eq!(output.code, Some(2), "{output:?}");
}

/// Two hundred at once, with and without a supervisor: one request.
#[test]
fn local_mutex_serializes_concurrent() {
    for supervised in [false, true] {
        let world = World::new();
        world.configure("");
        let run = supervised.then(|| world.run());
        if !supervised {
            world.once_gives(0, []);
        }
        let sha256 = world.token().fingerprint().to_string();
        let posts = world.posts();
        let callers: Vec<_> = (0..200)
            .map(|_| {
                let mut command = world.sandbox.command(["rejected", "--sha256", &sha256]);
                command.stdout(Stdio::null()).spawn().unwrap()
            })
            .collect();
        for mut caller in callers {
            assert_eq!(caller.wait().unwrap().code(), Some(0));
        }
        assert_eq!(world.posts() - posts, 1);
        world.assert_live();
        audit::assert_one_post_per_epoch(&world.server.audit());
        figure(format!("200 callers of `rejected`, supervised: {supervised}: 1 POST"));
        drop(run);
    }
}

/// Whoever refuses each new token is told so, and costs one request a minute.
#[test]
fn a_consumer_in_a_401_loop_is_no_outage_at_the_provider() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    assert_eq!(rejected(&world, &world.token()).code, Some(0));
    for _ in 0..5 {
        let output = rejected(&world, &world.token());
        assert_eq!(output.code, Some(69), "{output:?}");
        assert!(output.stderr.contains("the next can be in"), "{output:?}");
        assert!(output.stderr.contains("hint: see why fresh tokens are refused"), "{output:?}");
    }
    assert_eq!(world.posts(), 2);
    pass_a_minute(&world);
    assert_eq!(rejected(&world, &world.token()).code, Some(0));
    assert_eq!(world.posts(), 3);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn refresh_error_stores_nothing_lets_go_of_the_lock_and_is_remembered() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let refused = world.token();
    world.outage(Some(Outage::Closed));
    let output = rejected(&world, &refused);
    assert_eq!(output.code, Some(69), "{output:?}");
    assert_eq!(world.token(), refused, "the reader's token stays");
    world.outage(None);
    // Nobody has to report it again.
    wait_until("the wait after the failure", || {
        world.once([]);
        (world.token() != refused).then_some(())
    });
    world.assert_live();
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn a_supervisor_takes_the_replacement_as_its_own() {
    let world = World::with_lifetime(4);
    world.configure("");
    let mut run = world.run();
    let refused = world.token();
    assert_eq!(rejected(&world, &refused).code, Some(0));
    wait_until("refreshes after it", || (world.grants() >= 5).then_some(()));
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn a_report_without_a_token_is_a_mistake() {
    let world = World::new();
    world.configure("");
    let output = world.sandbox.run(["rejected"]);
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.stderr.contains("--sha256"), "{output:?}");
    assert_eq!(world.posts(), 0);
}
