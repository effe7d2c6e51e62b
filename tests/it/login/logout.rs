//! `zg-tokend logout`.

use zg_tokend::testing::demo::{AuditEvent, Outage};

use super::{configure, log_in};
use crate::common::wait_until;
use crate::common::world::World;

pub fn revocations(world: &World) -> usize {
    let log = world.server.audit();
    log.iter().filter(|entry| matches!(entry.event, AuditEvent::Revocation { .. })).count()
}

#[track_caller]
pub fn logout_gives(world: &World, code: i32, args: &[&str]) -> String {
    let output = world.sandbox.run(["logout"].into_iter().chain(args.iter().copied()));
    assert_eq!(output.code, Some(code), "{output:?}");
    format!("{}{}", output.stdout, output.stderr)
}

#[test]
fn a_logout_revokes_and_forgets() {
    let world = World::new();
    configure(&world, "token_file_info = true\n");
    assert_eq!(log_in(&world, "", "alice").0, 0);
    let (token, run) = (world.token(), world.run());
    let shown = logout_gives(&world, 0, &[]);
    assert!(shown.contains("the login is revoked and forgotten"), "{shown}");
    assert_eq!(revocations(&world), 1);
    assert!(!world.server.is_live(&token), "the access token is revoked as well");
    assert!(!world.token_file().exists() && !world.token_file().with_extension("json").exists());
    let state = world.state().to_string();
    assert!(!state.contains("rt_") && !state.contains("at_") && !state.contains("eyJ"), "{state}");
    let posts = world.posts();
    let output = world.once_gives(77, []);
    assert!(output.stderr.contains("zg-tokend login"), "{output:?}");
    let (status, code) = world.status();
    assert_eq!((&status["state"], code), (&"needs_login".into(), 2), "{status}");
    assert_eq!(world.posts(), posts);
    // Once more: there is nothing to do.
    assert!(logout_gives(&world, 0, &[]).contains("there was no login"));
    drop(run);
    // Somebody else may log in now.
    assert_eq!(log_in(&world, "", "bob").0, 0);
    world.assert_live();
}

#[test]
fn a_server_out_of_reach_changes_nothing() {
    let world = World::new();
    let revocation = format!("revocation_endpoint = \"{}/revoke\"\n", world.server.url());
    configure(&world, &revocation);
    assert_eq!(log_in(&world, "", "alice").0, 0);
    let (token, login) = (world.token(), world.refresh_token());
    world.outage(Some(Outage::Unavailable));
    let shown = logout_gives(&world, 69, &[]);
    assert!(shown.contains("HTTP 503") && shown.contains("--local"), "{shown}");
    assert_eq!((world.token(), world.refresh_token()), (token, login));

    let shown = logout_gives(&world, 0, &["--local"]);
    assert!(shown.contains("the refresh token works until somebody revokes it"), "{shown}");
    assert!(shown.contains("the access token works until 20"), "{shown}");
    assert!(!world.token_file().exists());
    world.outage(None);
    assert_eq!(revocations(&world), 0);
    world.once_gives(77, []);
}

#[test]
fn a_configured_login_is_not_used_after_a_logout() {
    let world = World::new();
    for use_it_first in [true, false] {
        let seed = world.seed();
        configure(&world, &format!("refresh_token = \"{}\"\n", seed.expose()));
        if use_it_first {
            world.once_gives(0, []);
        }
        let before = revocations(&world);
        logout_gives(&world, 0, &[]);
        assert_eq!(revocations(&world), before + 1, "used first: {use_it_first}");
        let posts = world.posts();
        world.once_gives(77, []);
        world.once_gives(77, ["--force"]);
        assert_eq!(world.posts(), posts);
        assert!(!world.token_file().exists());
    }
}

#[test]
fn a_server_that_revokes_nothing_asks_for_local() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let shown = logout_gives(&world, 78, &[]);
    assert!(shown.contains("names a revocation_endpoint") && shown.contains("--local"), "{shown}");
    world.assert_live();
    logout_gives(&world, 0, &["--local"]);
    assert!(!world.token_file().exists());
}

#[test]
fn a_supervisor_waits_without_a_request_after_a_logout() {
    let world = World::in_memory(8);
    configure(&world, "");
    assert_eq!(log_in(&world, "", "alice").0, 0);
    let run = world.run();
    wait_until("a refresh", || (world.posts() > 1).then_some(()));
    logout_gives(&world, 0, &[]);
    let posts = world.posts();
    run.wait_for("there is no refresh token");
    assert_eq!(world.posts(), posts);
    assert_eq!(log_in(&world, "", "alice").0, 0);
    wait_until("a refresh of the new login", || (world.posts() > posts + 1).then_some(()));
    world.assert_live();
}
