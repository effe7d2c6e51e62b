//! Seeds, renamed accounts, and other writers.

use crate::oauth::{Answer, Identity};
use crate::problem::Class;
use crate::refresh::decide::Trigger;
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::record::Record;
use crate::refresh::tests::world::{World, invalid_grant, problem, seconds, unavailable};
use crate::secret::Secret;

const FORCE: Trigger =
    Trigger { force: true, anew: false, retry_dead: false, reread: false, rejected: None, row: false };

#[test]
fn a_seed_that_is_not_listed_wins_and_a_listed_one_never_again() {
    let mut world = World::refreshed();
    world.set_seed("seed-2");
    assert_eq!((world.sent(), world.refresh_token()), (vec!["seed-2"], "rt-2"));
    world.set_seed("seed-1");
    assert_eq!(world.posts.len(), 1, "a listed seed is nothing new");
    world.live(seconds(2400));
    assert_eq!(world.sent(), ["seed-2", "rt-2"]);
}

/// The ID token in the next answer, in the state; its audience is a reader, not our client.
fn kept_id_token(world: &mut World) -> Option<Secret> {
    use base64::Engine;
    let claims = r#"{"iss":"https://as.example","sub":"u","aud":"reader","exp":4000000000}"#;
    let token =
        Secret::new(format!("e30.{}.", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims)));
    let mut answer = world.grant();
    let Answer::Granted(grant) = &mut answer else { panic!("a grant") };
    grant.id_token = Some(token);
    world.answers.push_back(answer);
    world.begin_with(FORCE);
    world.disk.as_ref()?.access_token.as_ref()?.id_token.as_ref()?.open().cloned()
}

#[test]
fn an_id_token_for_a_reader_is_kept_where_no_user_is_pinned() {
    let mut world = World::refreshed();
    assert!(kept_id_token(&mut world).is_some());
    assert!(!world.reports.iter().any(|report| matches!(report, Report::IdTokenUnusable { .. })));

    let mut world = World::refreshed();
    let user = Identity { issuer: "https://as.example".into(), subject: "u".into(), email: None };
    world.disk.as_mut().unwrap().identity = Some(user);
    assert_eq!(kept_id_token(&mut world), None, "of a login with an ID token for us");
    assert!(world.reports.iter().any(|report| matches!(report, Report::IdTokenUnusable { .. })));
}

#[test]
fn a_seed_that_is_refused_gives_way_to_the_login_before() {
    let mut world = World::refreshed();
    world.answers.push_back(invalid_grant());
    world.set_seed("seed-2");
    assert_eq!(world.sent(), ["seed-2"]);
    assert!(world.reports.iter().any(|report| matches!(report, Report::FellBack { .. })));
    assert_eq!(world.refresh_token(), "rt-1");
    assert!(world.has_live_token() && world.wakes_in().is_some());
    world.live(seconds(2400));
    assert_eq!(world.sent(), ["seed-2", "rt-1"]);
    assert!(world.has_live_token());
}

#[test]
fn two_refused_logins_end_in_a_verdict_without_a_third_request() {
    let mut world = World::refreshed();
    world.sleep(seconds(3000));
    world.answers.extend([invalid_grant(), invalid_grant()]);
    world.set_seed("seed-2");
    assert_eq!(world.sent(), ["seed-2", "rt-1"]);
    assert!(matches!(world.last_outcome(), Outcome::Refused(_)));
    world.live(seconds(86_400));
    assert_eq!(world.posts.len(), 2);
}

#[test]
fn the_proven_login_is_kept_when_two_seeds_follow_each_other() {
    let mut world = World::refreshed();
    world.answers.extend([unavailable(None), invalid_grant()]);
    world.set_seed("seed-2");
    world.set_seed("seed-3");
    world.live(seconds(1));
    assert_eq!(world.sent(), ["seed-2", "seed-3"]);
    assert_eq!(world.refresh_token(), "rt-1");
}

#[test]
fn of_two_logins_that_have_proved_nothing_the_newer_is_gone_back_to() {
    let mut world = World::refreshed();
    world.answers.push_back(invalid_grant());
    world.begin_with(FORCE);
    world.forget();
    // The outage hides that the first and the last of these are mistyped.
    world.answers.extend([unavailable(None), unavailable(None), unavailable(None), invalid_grant()]);
    for seed in ["mistyped", "seed-2", "mistyped again"] {
        world.set_seed(seed);
        world.sleep(seconds(2));
    }
    world.live(seconds(10));
    assert_eq!(world.sent(), ["mistyped", "seed-2", "mistyped again", "mistyped again", "seed-2"]);
    assert!(world.has_live_token());
}

#[test]
fn who_logs_in_during_an_outage_need_not_wait_for_the_backoff() {
    let mut world = World::refreshed();
    world.answers.extend((0..200).map(|_| unavailable(None)));
    world.live(seconds(3600 * 2));
    world.answers.clear();
    world.forget();
    world.sleep(seconds(2));
    world.set_seed("seed-2");
    assert_eq!(world.sent(), ["seed-2"]);
}

#[test]
fn but_a_retry_after_holds_for_a_new_login_too() {
    let mut world = World::refreshed();
    world.answers.push_back(unavailable(Some(600)));
    world.begin_with(FORCE);
    world.set_seed("seed-2");
    assert_eq!(world.posts.len(), 1);
    world.live(seconds(601));
    assert_eq!(world.sent(), ["rt-1", "seed-2"]);
}

#[test]
fn a_login_seen_in_a_file_is_not_forgotten_over_a_problem() {
    let reread = Trigger { reread: true, ..Trigger::default() };
    let login = |world: &mut World| {
        world.policy.inline_seed = None;
        world.restart();
        if let Ok(inputs) = &mut world.inputs {
            inputs.seed = Some(Secret::new("seed-2"));
        }
    };
    // The disk is full just then, ...
    let mut world = World::refreshed();
    login(&mut world);
    world.failing_prepares = 3;
    world.begin_with(reread);
    world.live(seconds(60));
    assert_eq!(world.sent(), ["seed-2"]);
    // ... or the secrets cannot be read.
    let mut world = World::refreshed();
    login(&mut world);
    let inputs = std::mem::replace(&mut world.inputs, Err(problem(Class::Unavailable, "secret")));
    assert!(matches!(world.begin_with(reread), Outcome::Failed(_)));
    world.live(seconds(30));
    world.inputs = inputs;
    world.live(seconds(60));
    assert_eq!(world.sent(), ["seed-2"]);
}

#[test]
fn the_first_grant_ends_the_fallback() {
    let mut world = World::refreshed();
    world.set_seed("seed-2");
    assert!(world.disk.as_ref().unwrap().previous.is_none());
    world.answers.push_back(invalid_grant());
    assert!(matches!(world.begin_with(FORCE), Outcome::Refused(_)));
    assert_eq!(world.sent(), ["seed-2", "rt-2"]);
}

#[test]
fn a_refused_refresh_token_that_was_replaced_meanwhile_is_not_dead() {
    let mut world = World::refreshed();
    let mut other = world.disk.clone().unwrap();
    other.refresh_token.as_mut().unwrap().value = Secret::new("rt-other").into();
    // During the request, a writer that ignores the lock replaces the state.
    world.answers.push_back(invalid_grant());
    world.written_during_request = Some(other);
    world.begin_with(FORCE);
    assert!(world.reports.iter().any(|report| matches!(report, Report::Adopted)));
    assert_eq!(world.sent(), ["rt-1", "rt-other"]);
    assert!(world.has_live_token());
}

#[test]
fn a_renamed_account_takes_its_state_along() {
    let mut world = World::refreshed();
    world.other = Some(Record { account: "old-name".into(), ..world.disk.take().unwrap() });
    let outcome = world.restart();
    assert!(matches!(outcome, Outcome::Fresh { .. }), "{outcome:?}");
    assert_eq!((world.posts.len(), world.refresh_token()), (0, "rt-1"));
    assert_eq!(world.disk.as_ref().unwrap().account, "default");
    assert!(world.reports.iter().any(|report| matches!(report, Report::TookOver { .. })));
}

#[test]
fn a_garbage_state_waits_while_the_token_in_the_file_is_presumed_live() {
    let mut world = World::refreshed();
    world.garbage = true;
    assert!(matches!(world.restart(), Outcome::Fresh { .. }));
    assert_eq!(world.wakes_in(), Some(2400.0));
    world.live(seconds(2399));
    assert!(world.posts.is_empty());
    world.live(seconds(1));
    assert_eq!(world.sent(), ["seed-1"]);
    assert!(world.reports.iter().any(|report| matches!(report, Report::PutAside { .. })));
}

#[test]
fn a_garbage_state_does_not_wait_without_a_token_in_the_file() {
    let mut world = World::refreshed();
    world.garbage = true;
    world.file = None;
    assert!(matches!(world.restart(), Outcome::Refreshed { .. }));
    let mut world = World::refreshed();
    world.garbage = true;
    world.begin_with(FORCE);
    assert_eq!(world.sent(), ["seed-1"]);
}
