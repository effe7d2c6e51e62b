//! Programs of different age on one state.

use rustix::process::Signal;
use serde_json::{Value, json};
use zg_tokend::testing::store::{Stored, parse};

use crate::common::world::World;
use crate::common::{audit, wait_until};

/// A newer program of the same version may add members, anywhere.
fn add_members(state: &mut Value) {
    for place in ["", "/refresh_token", "/access_token", "/access_token/issued_at"] {
        state.pointer_mut(place).unwrap()["novelty"] = json!({ "of": "a newer program" });
    }
}

/// A state with every member there is, as version 1 wrote it. It is never edited: who cannot read
/// it takes people's logins from them.
#[test]
fn a_state_of_version_1_is_read_to_the_last_member() {
    let text = include_str!("upgrades/state-1.json");
    let Ok(Stored::Record(record)) = parse(text.as_bytes()) else { panic!("not read") };
    let written = serde_json::to_value(record).unwrap();
    assert_eq!(written, serde_json::from_str::<Value>(text).unwrap());
}

#[test]
fn members_of_a_newer_program_do_no_harm_and_are_dropped() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let mut state = world.state();
    add_members(&mut state);
    world.write_state(&state);
    world.once_gives(0, []);
    assert_eq!((world.posts(), world.state()), (1, state), "what is only read stays");
    world.once_gives(0, ["--force"]);
    assert!(!world.state().to_string().contains("novelty"), "{}", world.state());
    world.assert_live();
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn a_supervisor_and_a_newer_once_work_side_by_side() {
    let world = World::new();
    world.configure("");
    let mut run = world.run();
    for grants in [2, 4] {
        world.once_gives(0, ["--force"]);
        let mut state = world.state();
        add_members(&mut state);
        world.write_state(&state);
        run.signal(Signal::USR1);
        let stored = || (world.state()["generation"] == grants + 1).then_some(());
        wait_until("the supervisor's refresh", stored);
        assert_eq!(world.grants(), grants + 1, "{}", run.log());
    }
    assert_eq!(run.stop().code(), Some(0));
    world.assert_live();
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn a_supervisor_leaves_a_newer_state_alone_until_it_is_replaced() {
    let world = World::new();
    world.configure("");
    let mut run = world.run();
    let (state, token) = (world.state(), world.token());
    let mut newer = state.clone();
    newer["version"] = json!(3);
    add_members(&mut newer);
    world.write_state(&newer);
    run.signal(Signal::USR1);
    run.wait_for("has version 3");
    assert_eq!((world.state(), world.posts(), run.ended()), (newer, 1, None));
    assert_eq!(world.token(), token);

    // The upgrade is undone.
    world.write_state(&state);
    run.signal(Signal::USR1);
    wait_until("a refresh", || (world.state()["generation"] == 2).then_some(()));
    assert_eq!(run.stop().code(), Some(0));
    world.assert_live();
    audit::assert_one_post_per_epoch(&world.server.audit());
}
