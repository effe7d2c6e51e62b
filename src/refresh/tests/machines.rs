//! Grants without a login: nothing can be lost, so nothing of a login's care applies.

use crate::oauth::{Grant, GrantType};
use crate::problem::Class;
use crate::refresh::Refresher;
use crate::refresh::decide::{Evidence, EvidenceOrigin, Inputs};
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::record::VerdictKind;
use crate::refresh::tests::world::{World, client, invalid_grant, lost, problem, seconds};
use crate::secret::Fingerprint;

/// An account with client credentials, whose evidence is `proof`.
fn machine(proof: &str) -> World {
    let mut world = World::new();
    world.policy.grant_type = GrantType::ClientCredentials;
    world.policy.inline_seed = None;
    world.supervisor = Refresher::new(world.policy.clone(), 1);
    prove(&mut world, proof);
    world
}

fn prove(world: &mut World, proof: &str) {
    let mut inputs = Inputs::new(None, None, client("client 1"));
    inputs.grant = Some(Grant::ClientCredentials);
    inputs.evidence = Evidence {
        fingerprint: Fingerprint::of([proof.as_bytes()]),
        name: Some(format!("the assertion {proof}")),
        origin: EvidenceOrigin::Given,
    };
    world.inputs = Ok(inputs);
}

#[test]
fn a_token_comes_without_a_marker_and_a_refresh_token_is_ignored_once() {
    let mut world = machine("a");
    assert!(matches!(world.begin(), Outcome::Refreshed { generation: 1, .. }));
    let ignored =
        |world: &World| world.reports.iter().filter(|it| **it == Report::RefreshTokenIgnored).count();
    assert_eq!(ignored(&world), 1);
    let record = world.disk.clone().unwrap();
    assert_eq!((record.refresh_token, record.in_flight, record.seeds.len()), (None, None, 0));
    world.live(seconds(3 * 3600));
    assert!(world.posts.len() > 3);
    assert_eq!(ignored(&world), 1, "said once");
}

#[test]
fn an_unclear_answer_is_a_failure_like_any_other() {
    let mut world = machine("a");
    world.answers.extend([lost(), lost(), lost(), lost()]);
    world.begin();
    assert!(!world.supervisor.will_resend_soon());
    world.live(seconds(60));
    assert_eq!(world.posts.len(), 5, "the backoff, and no resend");
    assert!(world.has_live_token());
}

#[test]
fn a_refusal_is_no_call_for_a_login_and_ends_with_another_proof() {
    let mut world = machine("a");
    world.answers.push_back(invalid_grant());
    let Outcome::Refused(verdict) = world.begin() else { panic!("{:?}", world.last_outcome()) };
    assert_eq!((verdict.kind, verdict.class()), (VerdictKind::Client, Class::Config));
    assert!(verdict.message.starts_with("the server refuses the assertion a: "), "{}", verdict.message);
    assert!(!format!("{verdict:?}").contains("log in"));
    assert!(matches!(world.begin(), Outcome::Refused(_)));
    assert_eq!(world.posts.len(), 1);
    prove(&mut world, "b");
    assert!(matches!(world.begin(), Outcome::Refreshed { .. }));
    // The same one is tried again after an hour.
    let mut world = machine("a");
    world.answers.push_back(invalid_grant());
    world.begin();
    world.live(seconds(3700));
    assert!(world.has_live_token());
    assert_eq!(world.posts.len(), 2);
}

#[test]
fn what_can_be_read_again_is_used_without_a_wait() {
    let mut world = machine("a");
    let Ok(inputs) = world.inputs.clone() else { unreachable!() };
    world.inputs = Err(problem(Class::Unavailable, "assertion_expired"));
    for _ in 0..8 {
        assert!(matches!(world.begin(), Outcome::Failed(_)), "each pass says what is missing");
    }
    assert!(world.wakes_in().is_some_and(|wait| wait > 30.0));
    world.inputs = Ok(inputs);
    assert!(matches!(world.begin(), Outcome::Refreshed { .. }));
}

#[test]
fn a_login_in_the_state_is_neither_used_nor_lost() {
    let mut world = World::refreshed();
    let login = world.refresh_token().to_owned();
    world.policy.grant_type = GrantType::ClientCredentials;
    world.policy.inline_seed = None;
    prove(&mut world, "a");
    world.sleep(seconds(3600));
    world.restart();
    assert_eq!(world.posts.last().map(|(_, sent)| &**sent), Some("client_credentials"));
    assert_eq!(world.refresh_token(), login);
}
