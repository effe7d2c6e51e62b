//! Refusals that are final: the server is asked once, remembered, and forgotten when the cause is gone.

use std::time::Duration;

use zg_tokend::testing::demo::Fault;

use crate::common::world::World;
use crate::common::{Background, wait_until};

const HOUR: Duration = Duration::from_secs(3600);

/// A login that the server has ended, found out by one refresh.
fn dead_login() -> World {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let (now, token) = (world.server.now(), world.refresh_token());
    world.server.issuer(|issuer| issuer.revoke_login(now, &token));
    world.pass_time(HOUR);
    let output = world.once_gives(77, []);
    assert!(output.stderr.contains("invalid_grant") && output.stderr.contains("log in again"), "{output:?}");
    assert_eq!(world.posts(), 2);
    world
}

#[test]
fn a_dead_refresh_token_is_sent_once() {
    let world = dead_login();
    let token = world.token();
    for _ in 0..5 {
        world.once_gives(77, []);
        world.once_gives(77, ["--force"]);
        world.pass_time(HOUR * 24);
    }
    assert_eq!(world.posts(), 2);
    assert_eq!(world.token(), token, "the readers' token stays");
}

#[test]
fn retry_dead_is_one_more_post() {
    let world = dead_login();
    world.once_gives(77, ["--force", "--retry-dead"]);
    assert_eq!(world.posts(), 3);
    world.once_gives(77, ["--force"]);
    assert_eq!(world.posts(), 3);
}

#[test]
fn retry_dead_can_succeed() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    world.fault(Fault::reply(400, r#"{"error":"invalid_grant"}"#));
    world.once_gives(77, ["--force"]);
    world.once_gives(0, ["--force", "--retry-dead"]);
    assert_eq!(world.posts(), 3);
    world.assert_live();
    world.once_gives(0, []);
}

#[test]
fn a_new_login_ends_the_verdict() {
    let world = dead_login();
    world.configure("");
    world.once_gives(0, []);
    assert_eq!(world.posts(), 3);
    world.assert_live();
    assert!(world.state().get("verdict").is_none());
}

#[test]
fn a_refused_client_is_tried_once_an_hour() {
    let world = World::with_secret();
    let seed = world.seed();
    let configure = |secret: &str| {
        let endpoint = world.server.token_endpoint();
        world.sandbox.write_config(&format!(
            "token_endpoint = \"{endpoint}\"\nclient_id = \"zg\"\nclient_secret = \"{secret}\"\n\
             refresh_token = \"{}\"\n",
            seed.expose()
        ));
    };
    configure("wrong");
    let output = world.once_gives(78, []);
    assert!(output.stderr.contains("invalid_client"), "{output:?}");
    world.once_gives(78, []);
    world.once_gives(78, ["--force"]);
    // --retry-dead is for refresh tokens.
    world.once_gives(78, ["--force", "--retry-dead"]);
    assert_eq!(world.posts(), 1);
    world.pass_time(HOUR);
    world.once_gives(78, []);
    assert_eq!(world.posts(), 2);
    configure("right");
    world.once_gives(0, []);
    assert_eq!(world.posts(), 3);
    world.assert_live();
}

/// `once`, whose request is refused after something has happened to the state; its exit code.
fn refused_after(world: &World, meanwhile: impl FnOnce()) -> Option<i32> {
    world.configure("");
    world.once_gives(0, []);
    let refusal = Fault::reply(400, r#"{"error":"invalid_grant"}"#);
    world.fault(Fault { delay_before_commit_ms: 4000, ..refusal });
    let mut command = world.sandbox.command(["once", "--force"]);
    let mut once = Background::start(&mut command, world.sandbox.path("once.log"));
    wait_until("its request", || (world.posts() == 2).then_some(()));
    meanwhile();
    once.wait().code()
}

/// Another holder of the login, who knows no lock, was faster: what it stored is adopted.
#[test]
fn invalid_grant_race_recovered() {
    let world = World::new();
    let code = refused_after(&world, || {
        let mut state = world.state();
        state["refresh_token"]["value"] = world.seed().expose().into();
        world.write_state(&state);
    });
    assert_eq!((code, world.posts()), (Some(0), 3));
    world.assert_live();
    assert!(world.state().get("verdict").is_none());
}

#[test]
fn invalid_grant_whose_state_cannot_be_read_again_is_genuine() {
    let world = World::new();
    let path = world.state_path("default", "state");
    let code = refused_after(&world, || std::fs::write(path, "{").unwrap());
    assert_eq!((code, world.posts()), (Some(77), 2));
    world.once_gives(77, ["--force"]);
    assert_eq!(world.posts(), 2);
}

#[test]
fn a_success_forgets_the_failures() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    world.pass_time(HOUR);
    world.fault(Fault::reply(503, "{}"));
    world.once_gives(69, []);
    assert_eq!(world.state()["failure"]["kind"], "http_503");
    world.pass_time(Duration::from_secs(1));
    world.once_gives(0, []);
    assert!(world.state().get("failure").is_none());
    assert_eq!((world.status().1, &world.status().0["last_attempt"]["result"]), (0, &"refreshed".into()));
}
