//! `login`, `set` and `logout` where the state is sealed.

use std::fs;

use serde_json::Value;

use super::logout::{logout_gives, revocations};
use super::{configure, log_in};
use crate::common::world::World;
use crate::common::{audit, feed, wait_until};
use crate::seal::{KEY, OTHER_KEY, found, is_sealed, key_line, write_key};

/// Logged in as alice, sealed.
fn world() -> World {
    let world = World::new();
    configure(&world, &key_line(&world, "state_key", KEY));
    assert_eq!(log_in(&world, "", "alice").0, 0);
    assert!(is_sealed(&world));
    world
}

/// No file below the state has a refresh token in plain.
#[track_caller]
fn assert_sealed(world: &World) {
    assert!(is_sealed(world));
    let text = world.state().to_string();
    assert!(!text.contains("rt_"), "{text}");
}

#[test]
fn a_login_on_a_sealed_state_is_sealed_with_the_one_before() {
    let world = world();
    world.once_gives(0, ["--force"]);
    assert_eq!(log_in(&world, "", "alice").0, 0);
    assert_sealed(&world);
    assert!(world.state()["previous"]["value"]["sealed"].is_string(), "{}", world.state());
    world.once_gives(0, ["--force"]);
    world.assert_live();
    // Without the key nobody is asked to log in.
    fs::remove_file(world.sandbox.path("key")).unwrap();
    let mut login = super::LoginRun::by_browser(&world, "");
    let shown = login.ends_with(69);
    assert!(shown.contains("state_key") && !shown.contains("code_challenge="), "{shown}");
    world.assert_live();
}

#[test]
fn a_sealed_login_is_revoked_with_its_key_and_forgotten_without() {
    let world = world();
    let token = world.token();
    fs::remove_file(world.sandbox.path("key")).unwrap();
    let before = world.state();
    let shown = logout_gives(&world, 69, &[]);
    assert!(shown.contains("state_key"), "{shown}");
    assert_eq!(world.state(), before);
    write_key(&world, OTHER_KEY);
    let shown = logout_gives(&world, 78, &[]);
    assert!(shown.contains("sealed with another key"), "{shown}");
    assert_eq!((world.state(), revocations(&world)), (before, 0));
    write_key(&world, KEY);
    logout_gives(&world, 0, &[]);
    assert_eq!(revocations(&world), 1);
    assert!(!world.server.is_live(&token) && !world.token_file().exists());

    assert_eq!(log_in(&world, "", "alice").0, 0);
    fs::remove_file(world.sandbox.path("key")).unwrap();
    let shown = logout_gives(&world, 0, &["--local"]);
    assert!(shown.contains("the server was not told"), "{shown}");
    assert!(!world.token_file().exists());
    write_key(&world, KEY);
    world.once_gives(77, []);
}

#[test]
fn a_login_leads_on_where_the_key_is_lost() {
    let world = world();
    let sealed = world.state()["refresh_token"].clone();
    let mut run = world.run();
    write_key(&world, OTHER_KEY);
    let output = world.once_gives(78, ["--force"]);
    assert!(output.stderr.contains("if that key is lost, log in again"), "{output:?}");
    let posts = world.posts();

    let (code, shown) = log_in(&world, "", "alice");
    assert_eq!(code, 0, "{shown}");
    let copy = world.state_path("default", "state.sealed-1");
    assert!(shown.contains("it was not revoked") && shown.contains("state.sealed-1"), "{shown}");
    let kept: Value = serde_json::from_slice(&fs::read(&copy).unwrap()).unwrap();
    assert_eq!(kept["refresh_token"], sealed, "nothing is lost");
    assert_sealed(&world);
    assert!(world.state()["previous"].is_null(), "{}", world.state());
    world.assert_live();
    world.permit_force();
    world.once_gives(0, ["--force"]);
    assert_eq!(world.posts(), posts + 2, "the code and one refresh");
    assert_eq!(run.stop().code(), Some(0));
    // The key turns up again: the copy is as good as it was.
    fs::copy(&copy, world.state_path("default", "state")).unwrap();
    write_key(&world, KEY);
    world.once_gives(0, ["--force"]);
    assert_sealed(&world);
}

#[test]
fn an_aborted_login_leaves_the_state_with_the_lost_key() {
    let world = world();
    let state = world.state();
    write_key(&world, OTHER_KEY);
    for _ in 0..2 {
        let login = super::LoginRun::by_browser(&world, "");
        login.url();
        drop(login);
    }
    // The old key is there again.
    write_key(&world, KEY);
    assert_eq!(world.state(), state);
    world.once_gives(0, ["--force"]);
    assert!(!world.state_path("default", "state.sealed-2").exists(), "one copy is enough");
}

#[test]
fn set_leads_on_where_the_key_is_lost() {
    let world = World::new();
    let seed = world.configure(&key_line(&world, "state_key", KEY));
    world.once_gives(0, []);
    let old = world.state()["refresh_token"]["value"]["sha256"].clone();
    write_key(&world, OTHER_KEY);
    let new = world.seed();
    let output = feed(&mut world.sandbox.command(["set"]), new.expose());
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stderr.contains("state.sealed-1"), "{output:?}");
    let copy = fs::read_to_string(world.state_path("default", "state.sealed-1")).unwrap();
    assert!(copy.contains(old.as_str().unwrap()), "{copy}");
    assert_sealed(&world);
    let planted = [new.expose().to_owned(), seed.expose().to_owned()];
    assert_eq!(found(&world.sandbox.path("state"), &planted), Vec::<String>::new());
    // The seed of the config has been used: it does not become new.
    world.once_gives(0, ["--force"]);
    wait_until("the request", || (world.posts() == 3).then_some(()));
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn a_new_key_and_a_login_lead_on_where_the_key_and_its_line_are_gone() {
    let world = world();
    configure(&world, "");
    let output = world.once_gives(78, ["--force"]);
    assert!(output.stderr.contains("make another one with `zg-tokend seal --with`"), "{output:?}");
    // A login would be stored in plain.
    let shown = super::LoginRun::by_browser(&world, "").ends_with(78);
    assert!(shown.contains("the key is not at hand") && !shown.contains("code_challenge="), "{shown}");
    let output = world.sandbox.run(["seal", "--with", "file"]);
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stderr.contains("if that key is lost, log in again"), "{output:?}");
    assert_eq!(log_in(&world, "", "alice").0, 0);
    assert_sealed(&world);
    world.once_gives(0, ["--force"]);
    world.assert_live();
}
