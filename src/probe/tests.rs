//! Which token a probe tries, and what the answers mean.

use std::time::Duration;

use crate::probe::rules::{ProbeMeaning, ProbeNote, candidate, first_wait};
use crate::refresh::decide::Trigger;
use crate::refresh::tests::world::{World, invalid_grant, lost, seconds, unavailable};
use crate::secret::Secret;

const REFUSED_AGAIN: ProbeMeaning = ProbeMeaning::RefusedAgain { first: true };

/// The token that would be tried now.
fn tried(world: &World) -> Option<String> {
    let (token, _) = candidate(world.disk.clone()?, &world.policy, world.now)?;
    Some(token.value.expose().to_owned())
}

#[test]
fn a_live_token_is_tried_and_none_for_which_a_refresh_is_due() {
    let mut world = World::refreshed();
    assert_eq!(tried(&world).as_deref(), Some("at-1"));
    world.sleep(seconds(41 * 60));
    assert_eq!(tried(&world), None, "due");
    world.sleep(seconds(20 * 60));
    assert_eq!(tried(&world), None, "expired");
}

#[test]
fn no_token_is_tried_that_cannot_or_is_about_to_be_replaced() {
    let force = Trigger { force: true, ..Trigger::default() };
    let rejected = Trigger { rejected: Some(Secret::new("at-1").fingerprint()), ..Trigger::default() };
    for (what, trigger, answer, is_tried) in [
        ("only a login can help", force, invalid_grant(), false),
        ("a request is without an answer", force, lost(), false),
        ("it was reported already", rejected, unavailable(None), false),
        ("a refresh that was not needed has failed", force, unavailable(None), true),
    ] {
        let mut world = World::refreshed();
        world.answers.extend([answer.clone(), answer.clone(), answer]);
        world.begin_with(trigger);
        assert_eq!(tried(&world).is_some(), is_tried, "{what}");
    }
    let mut world = World::refreshed();
    world.disk.as_mut().unwrap().refresh_token = None;
    assert_eq!(tried(&world), None, "there is nothing to refresh with");
    let mut world = World::refreshed();
    world.policy.inline_seed = Some(Secret::new("seed-2").fingerprint());
    assert_eq!(tried(&world), None, "a new login has come");
}

/// A resource's answers, about the tokens of these numbers; 0 is none.
fn story<const N: usize>(answers: [(u64, u16); N]) -> [ProbeMeaning; N] {
    let mut last = None;
    answers.map(|(generation, status)| {
        let answer = if status == 0 { Err("down".into()) } else { Ok(status) };
        let (probed, meaning) = ProbeNote::after(last.as_ref(), "u", generation, 1, answer);
        last = Some(probed);
        meaning
    })
}

#[test]
fn only_401_means_anything_and_its_repetition_nothing_more() {
    use ProbeMeaning::{Nothing, Refused, RefusedAgain};
    for status in [0, 200, 204, 302, 400, 403, 404, 407, 429, 500, 503] {
        assert_eq!(story([(1, status), (1, status)]), [Nothing, Nothing], "{status}");
    }
    // The first report may have come too soon after another: the same token is reported again.
    assert_eq!(story([(1, 401), (1, 401)]), [Refused, Refused]);
    let later = RefusedAgain { first: false };
    assert_eq!(
        story([(1, 401), (2, 401), (2, 401), (3, 401), (2, 401)]),
        [Refused, REFUSED_AGAIN, later, REFUSED_AGAIN, REFUSED_AGAIN]
    );
    // Once another answer has come, tokens are told apart again; none is no answer.
    assert_eq!(story([(1, 401), (2, 200), (2, 401)]), [Refused, Nothing, Refused]);
    assert_eq!(story([(1, 401), (2, 403), (3, 401)]), [Refused, Nothing, Refused]);
    assert_eq!(story([(1, 401), (2, 0), (2, 401)]), [Refused, Nothing, REFUSED_AGAIN]);
}

#[test]
fn another_resource_begins_anew() {
    let (probed, _) = ProbeNote::after(None, "u", 1, 10, Ok(401));
    let (probed, _) = ProbeNote::after(Some(&probed), "u", 2, 20, Ok(401));
    assert!(probed.refuses_still(2, false) && !probed.refuses_still(3, false));
    let (down, _) = ProbeNote::after(Some(&probed), "u", 2, 30, Err("down".into()));
    assert_eq!((down.answered_at, down.status, down.refuses_still(2, true)), (Some(20), None, false));
    let (other, meaning) = ProbeNote::after(Some(&probed), "v", 2, 30, Ok(401));
    assert_eq!((meaning, other.refuses_still(2, false)), (ProbeMeaning::Refused, false));
    assert!(other.refuses_still(2, true), "the server stands by it");
}

#[test]
fn those_who_begin_together_drift_apart() {
    let every = Duration::from_secs(300);
    assert_eq!(first_wait(every, 0), Duration::ZERO);
    assert_eq!(first_wait(every, 299_999), Duration::from_millis(299_999));
    assert_eq!(first_wait(every, 300_000 + 1234), Duration::from_millis(1234));
}
