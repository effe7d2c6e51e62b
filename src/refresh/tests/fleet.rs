//! Several machines share one login: a database between simulated worlds.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::refresh::FleetPolicy;
use crate::refresh::decide::Trigger;
use crate::refresh::fleet::{FleetReport, RowAttempt};
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::record::Record;
use crate::refresh::replica::Role;
use crate::refresh::tests::database::Database;
use crate::refresh::tests::world::*;
use crate::refresh::{Event, Refresher};
use crate::secret::{Fingerprint, Secret};

pub const LOOK: Trigger =
    Trigger { force: false, anew: false, retry_dead: false, reread: false, rejected: None, row: true };

pub type Shared = Rc<RefCell<Database>>;

pub fn machine(name: &str, database: &Shared, role: Role) -> World {
    let mut world = World::new();
    world.policy.fleet = Some(FleetPolicy { role, host: name.into(), place: None });
    // So that no two machines draw the same numbers or get the same tokens.
    let seed = name.bytes().map(u64::from).sum();
    world.supervisor = Refresher::new(world.policy.clone(), seed);
    world.granted = 100 * seed as u32;
    world.database = Some(Rc::clone(database));
    if role == Role::Read
        && let Ok(inputs) = &mut world.inputs
    {
        world.policy.inline_seed = None;
        world.supervisor = Refresher::new(world.policy.clone(), seed);
        inputs.seed = None;
    }
    world
}

pub fn database() -> Shared {
    Rc::new(RefCell::new(Database { timeline: 1, ..Database::default() }))
}

/// Two machines after the first refresh, which `a` has made.
pub fn pair() -> (World, World, Shared) {
    let database = database();
    let (mut a, mut b) = (machine("a", &database, Role::Refresh), machine("b", &database, Role::Refresh));
    a.begin();
    b.begin();
    assert_eq!((a.posts.len(), b.posts.len()), (1, 0));
    a.forget();
    b.forget();
    (a, b, database)
}

pub fn sleep(a: &mut World, b: &mut World, duration: Duration) {
    a.sleep(duration);
    b.now = a.now;
}

fn replica(world: &World) -> &crate::refresh::replica::Replica {
    world.disk.as_ref().unwrap().replica.as_deref().unwrap()
}

pub fn epoch(database: &Shared) -> u64 {
    database.borrow().row.as_ref().unwrap().content.epoch
}

pub fn reported(world: &World, wanted: fn(&Report) -> bool) -> bool {
    world.reports.iter().any(wanted)
}

/// A claim in the row by a machine that is not here.
fn claim_of_another(database: &Shared, claimed_at: i64) {
    let mut database = database.borrow_mut();
    let attempt =
        RowAttempt { nonce: "n".into(), host: "c/1".into(), claimed_at, claim_until: claimed_at + 75_000 };
    database.row.as_mut().unwrap().attempt = Some(attempt);
}

#[test]
fn the_first_machine_stores_its_login_claims_and_stores_the_reply() {
    let database = database();
    let mut a = machine("a", &database, Role::Refresh);
    let outcome = a.begin();
    assert!(matches!(outcome, Outcome::Refreshed { .. }), "{outcome:?}");
    let fleet =
        ["read", "found", "claim", "prepare", "request", "persist", "publish", "store", "persist", "unlock"];
    let did: Vec<_> = a.did.iter().skip_while(|did| **did != "found").copied().collect();
    assert_eq!(did, fleet[1..]);
    assert_eq!((epoch(&database), replica(&a).undelivered), (2, None));
}

#[test]
fn the_second_machine_gets_its_token_without_a_request() {
    let (mut a, mut b, database) = pair();
    assert_eq!((a.token(), b.token(), b.refresh_token()), (a.token(), a.token(), a.refresh_token()));
    for turn in 0..4 {
        sleep(&mut a, &mut b, seconds(2500));
        let (first, second) = if turn % 2 == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
        assert!(matches!(first.begin(), Outcome::Refreshed { .. }));
        assert_eq!(second.begin(), Outcome::Republished);
        assert_eq!(second.token(), first.token());
    }
    assert_eq!((a.posts.len(), b.posts.len(), epoch(&database)), (2, 2, 6));
}

#[test]
fn nothing_due_asks_nothing() {
    let (mut a, ..) = pair();
    a.begin();
    assert_eq!(a.did, ["load"]);
}

#[test]
fn a_database_that_keeps_no_claim_is_not_asked_without_end() {
    let (mut a, _, database) = pair();
    a.sleep(seconds(2500));
    database.borrow_mut().keeps_no_claim = true;
    let outcome = a.begin();
    assert!(
        matches!(&outcome, Outcome::Held { problem, .. } if &*problem.kind == "fleet_unclaimed"),
        "{outcome:?}"
    );
    assert!(a.posts.is_empty() && a.did.iter().filter(|did| **did == "claim").count() <= 6, "{:?}", a.did);
    database.borrow_mut().keeps_no_claim = false;
    a.forget();
    a.sleep(seconds(60));
    assert!(matches!(a.begin(), Outcome::Refreshed { .. }));
}

#[test]
fn a_live_claim_of_another_machine_is_waited_for() {
    let (mut a, _, database) = pair();
    a.sleep(seconds(2500));
    claim_of_another(&database, a.now.boot);
    let outcome = a.begin();
    assert!(matches!(outcome, Outcome::Held { .. }), "{outcome:?}");
    assert!(a.wakes_in().is_some_and(|wait| (75.0..80.0).contains(&wait)), "{:?}", a.wakes_in());
    assert!(a.posts.is_empty());
}

#[test]
fn an_unclear_attempt_is_left_to_its_owner_until_the_last_chance() {
    let (mut a, _, database) = pair();
    a.sleep(seconds(2500));
    claim_of_another(&database, a.now.boot - 80_000);
    a.begin();
    a.live(seconds(3600 - 2500 - 185));
    assert!(a.posts.is_empty() && a.has_live_token());
    a.live(seconds(10));
    assert_eq!(a.posts.len(), 1);
    assert!(a.has_live_token());
}

#[test]
fn even_then_a_database_that_has_just_come_back_has_a_minute_to_hear_the_owner() {
    let (mut a, _, database) = pair();
    a.sleep(seconds(3500));
    claim_of_another(&database, a.now.boot - 80_000);
    a.begin();
    a.live(seconds(50));
    assert!(a.posts.is_empty());
    // Out of sight, it may have changed and changed again.
    database.borrow_mut().is_away = true;
    a.live(seconds(30));
    database.borrow_mut().is_away = false;
    a.begin_with(Trigger { anew: true, ..LOOK });
    a.live(seconds(50));
    assert!(a.posts.is_empty());
    a.live(seconds(40));
    assert_eq!(a.posts.len(), 1);
}

#[test]
fn a_login_that_never_rotates_has_nothing_to_lose() {
    let database = database();
    let mut a = machine("a", &database, Role::Refresh);
    a.rotates = false;
    a.begin();
    a.sleep(seconds(2500));
    a.begin();
    a.sleep(seconds(2500));
    claim_of_another(&database, a.now.boot - 80_000);
    let outcome = a.begin();
    assert!(matches!(outcome, Outcome::Refreshed { .. }), "{outcome:?}");
}

#[test]
fn a_machine_that_died_sends_again_at_once() {
    let (mut a, _, _) = pair();
    a.sleep(seconds(2500));
    a.dies_before = Some("request");
    a.begin();
    let outcome = a.restart();
    assert!(matches!(outcome, Outcome::Refreshed { .. }), "{outcome:?}");
}

#[test]
fn without_the_database_nothing_is_sent_and_the_token_stays() {
    let (mut a, _, database) = pair();
    a.sleep(seconds(2500));
    database.borrow_mut().is_away = true;
    assert!(matches!(a.begin(), Outcome::Failed(_)));
    a.live(seconds(900));
    assert!(a.posts.is_empty() && a.has_live_token());
    database.borrow_mut().is_away = false;
    assert!(matches!(a.begin_with(Trigger { anew: true, ..LOOK }), Outcome::Refreshed { .. }));
}

#[test]
fn a_reply_that_the_database_misses_is_published_and_delivered_later() {
    let (mut a, mut b, database) = pair();
    a.sleep(seconds(2500));
    let rotated = a.refresh_token().to_owned();
    let away = Rc::clone(&database);
    a.dies_before = Some("store");
    a.begin();
    a.locked = false;
    away.borrow_mut().is_away = true;
    assert!(a.has_live_token() && a.refresh_token() != rotated);
    assert!(replica(&a).undelivered.is_some());
    a.restart();
    assert!(reported(&a, |report| matches!(report, Report::Undeliverable(_))));
    a.live(seconds(600));
    away.borrow_mut().is_away = false;
    a.live(seconds(120));
    assert!(reported(&a, |report| matches!(report, Report::Fleet(FleetReport::Delivered))));
    b.now = a.now;
    assert_eq!(b.begin_with(LOOK), Outcome::Republished);
    assert_eq!((a.posts.len(), b.posts.len(), b.token()), (1, 0, a.token()));
}

#[test]
fn a_failover_that_lost_commits_is_repaired_from_the_disk() {
    let (mut a, mut b, database) = pair();
    let old = database.borrow().row.clone();
    for _ in 0..2 {
        a.sleep(seconds(2500));
        a.begin();
    }
    let token = a.token().map(str::to_owned);
    *database.borrow_mut() = Database { row: old, timeline: 2, ..Database::default() };
    a.begin_with(LOOK);
    assert!(reported(&a, |report| matches!(report, Report::Fleet(FleetReport::Repaired { epoch: 4 }))));
    b.now = a.now;
    b.begin_with(LOOK);
    assert_eq!((b.token(), b.posts.len(), epoch(&database)), (token.as_deref(), 0, 4));
}

#[test]
fn a_repair_by_a_machine_that_is_behind_itself_ends_no_quarantine() {
    for missing in [false, true] {
        let (mut a, mut b, database) = pair();
        let old = database.borrow().row.clone().filter(|_| !missing);
        sleep(&mut a, &mut b, seconds(2500));
        b.begin();
        sleep(&mut a, &mut b, seconds(2450));
        a.begin_with(LOOK);
        // `b` missed the last refresh, and its token has a third of its life left when the row goes back in time.
        sleep(&mut a, &mut b, seconds(10));
        *database.borrow_mut() = Database { row: old, timeline: 2, ..Database::default() };
        b.posts.clear();
        let outcome = b.begin_with(LOOK);
        assert!(b.posts.is_empty(), "{outcome:?}");
        a.begin_with(LOOK);
        b.begin_with(LOOK);
        assert_eq!((b.posts.len(), b.refresh_token()), (0, a.refresh_token()));
    }
}

#[test]
fn a_claim_from_a_clock_that_was_ahead_does_not_block_for_hours() {
    let (mut a, _, database) = pair();
    a.sleep(seconds(2500));
    claim_of_another(&database, a.now.boot + 7_200_000);
    a.begin();
    a.live(seconds(3600 - 2500 - 100));
    assert_eq!(a.posts.len(), 1);
}

#[test]
fn a_failover_gives_the_others_six_minutes_to_repair_first() {
    let (_, mut b, database) = pair();
    b.sleep(seconds(2500));
    database.borrow_mut().timeline = 2;
    let outcome = b.begin();
    assert!(matches!(outcome, Outcome::Held { .. }), "{outcome:?}");
    b.live(seconds(340));
    assert!(b.posts.is_empty());
    b.live(seconds(30));
    assert_eq!(b.posts.len(), 1);
}

#[test]
fn a_stale_primary_is_refused() {
    let (mut a, _, database) = pair();
    database.borrow_mut().timeline = 3;
    a.begin_with(LOOK);
    a.sleep(seconds(2500));
    database.borrow_mut().timeline = 2;
    let Outcome::Failed(problem) = a.begin() else { panic!("{:?}", a.last_outcome()) };
    assert_eq!(problem.kind, "fleet_stale");
    a.live(seconds(900));
    assert!(a.posts.is_empty());
}

#[test]
fn a_full_disk_frees_the_claim() {
    let (mut a, mut b, database) = pair();
    sleep(&mut a, &mut b, seconds(2500));
    a.failing_prepares = 1;
    a.begin();
    assert_eq!((a.posts.len(), &database.borrow().row.as_ref().unwrap().attempt), (0, &None));
    assert!(matches!(b.begin(), Outcome::Refreshed { .. }));
}

#[test]
fn a_copied_state_does_not_own_the_claims_of_the_machine_that_it_came_from() {
    let (mut a, _, database) = pair();
    let mut twin = machine("twin", &database, Role::Refresh);
    twin.disk.clone_from(&a.disk);
    a.sleep(seconds(2500));
    twin.now = a.now;
    a.dies_before = Some("request");
    a.begin();
    twin.sleep(seconds(80));
    twin.begin();
    twin.live(seconds(600));
    assert!(twin.posts.is_empty());
}

#[test]
fn a_container_with_a_new_name_at_each_start_goes_on_with_its_claim() {
    for (place, posts) in [("here", 1), ("elsewhere", 0)] {
        let database = database();
        let container = |name: &str, place: &str| {
            let mut world = machine(name, &database, Role::Refresh);
            if let Some(fleet) = &mut world.policy.fleet {
                fleet.place = Some(Fingerprint::of([place.as_bytes()]));
            }
            world.supervisor = Refresher::new(world.policy.clone(), 7);
            world
        };
        let mut before = container("before", "here");
        before.begin();
        before.sleep(seconds(2500));
        before.dies_before = Some("request");
        before.begin();
        let mut after = container("after", place);
        after.disk.clone_from(&before.disk);
        after.now = before.now;
        after.sleep(seconds(80));
        after.begin();
        after.live(seconds(600));
        assert_eq!(after.posts.len(), posts, "{place}");
    }
}

#[test]
fn a_claim_that_became_old_is_not_sent() {
    let (mut a, _, database) = pair();
    a.sleep(seconds(2500));
    a.dies_before = Some("prepare");
    a.begin();
    a.dies_before = None;
    // The machine slept between claim and marker.
    a.sleep(seconds(30));
    let record = Record { in_flight: None, ..a.disk.clone().unwrap() };
    a.disk = Some(record);
    a.prepared = true;
    a.did.clear();
    a.send(Event::Prepared(Ok(())));
    assert_eq!(
        a.did.iter().position(|did| *did == "request").map(|at| a.did[..at].contains(&"claim")),
        Some(true)
    );
    assert!(a.did.contains(&"conclude"), "{:?}", a.did);
    assert_eq!((a.posts.len(), epoch(&database)), (1, 3));
}

#[test]
fn an_answer_of_the_database_that_is_lost_costs_no_second_request() {
    // Of the claim ...
    let (mut a, _, database) = pair();
    a.sleep(seconds(2500));
    database.borrow_mut().loses_answer = true;
    let outcome = a.begin();
    assert!(matches!(outcome, Outcome::Refreshed { .. }), "{outcome:?}");
    assert_eq!((a.posts.len(), epoch(&database)), (1, 3));
    // ... and of the reply.
    a.sleep(seconds(2500));
    a.dies_before = Some("store");
    a.begin();
    a.locked = false;
    database.borrow_mut().loses_answer = true;
    a.restart();
    assert_eq!((a.posts.len(), epoch(&database), replica(&a).undelivered), (2, 4, None));
}

#[test]
fn a_refused_refresh_token_that_another_machine_replaced_is_not_dead() {
    let (mut a, mut b, database) = pair();
    sleep(&mut a, &mut b, seconds(2500));
    // The row at the claim, as if another one had stored during the request.
    a.begin();
    let newer = database.borrow().row.clone();
    let mut older = newer.clone().unwrap();
    older.content.epoch -= 1;
    older.content.held = Some(Secret::new(b.refresh_token()).fingerprint());
    database.borrow_mut().row = Some(older);
    b.answers.push_back(invalid_grant());
    b.meanwhile_row = newer;
    b.begin();
    assert!(reported(&b, |report| matches!(report, Report::Adopted)), "{:?}", b.reports);
    assert_eq!((b.token(), b.posts.len()), (a.token(), 1));
}

#[test]
fn a_dead_login_is_dead_on_every_machine() {
    let (mut a, mut b, _) = pair();
    sleep(&mut a, &mut b, seconds(2500));
    a.answers.push_back(invalid_grant());
    assert!(matches!(a.begin(), Outcome::Refused(_)));
    assert!(matches!(b.begin(), Outcome::Refused(_)), "{:?}", b.last_outcome());
    b.set_client("client 2");
    b.live(seconds(3600));
    assert_eq!((a.posts.len(), b.posts.len()), (1, 0));
}

#[test]
fn a_token_that_an_unclear_attempt_spent_is_not_called_dead_and_its_owner_mends_it() {
    let (mut a, mut b, database) = pair();
    sleep(&mut a, &mut b, seconds(2500));
    // `a` has the reply, and is stopped.
    a.dies_before = Some("store");
    a.begin();
    a.locked = false;
    b.begin();
    b.answers.push_back(invalid_grant());
    b.live(seconds(1100));
    let Outcome::Refused(verdict) = b.last_outcome() else { panic!("{:?}", b.last_outcome()) };
    let cause = verdict.cause.unwrap();
    assert!(cause.contains("host a ") && cause.contains("spent it"), "{cause}");
    a.now = b.now;
    a.restart();
    assert!(b.posts.len() == 1 && epoch(&database) >= 3);
    assert_eq!(b.begin_with(LOOK), Outcome::Republished);
    assert_eq!(b.refresh_token(), a.refresh_token());
}
