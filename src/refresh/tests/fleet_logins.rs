//! Logins, logouts and readers where several machines share one login.

use crate::problem::Class;
use crate::refresh::fleet::FleetReport;
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::replica::Role;
use crate::refresh::tests::database::Database;
use crate::refresh::tests::fleet::*;
use crate::refresh::tests::world::*;
use crate::secret::Secret;

#[test]
fn a_new_login_on_any_machine_serves_all_and_drops_older_replies() {
    let (mut a, mut b, database) = pair();
    sleep(&mut a, &mut b, seconds(2500));
    a.dies_before = Some("store");
    a.begin();
    a.locked = false;
    sleep(&mut a, &mut b, seconds(60));
    b.set_seed("seed-2");
    assert_eq!(b.sent(), ["seed-2"]);
    a.restart();
    assert!(reported(&a, |report| matches!(report, Report::Fleet(FleetReport::Dropped { .. }))));
    assert_eq!((a.token(), a.refresh_token()), (b.token(), b.refresh_token()));
    assert_eq!(epoch(&database), 4);
}

#[test]
fn a_new_login_with_an_older_token_replaces_no_newer_one() {
    let (mut a, mut b, _) = pair();
    sleep(&mut a, &mut b, seconds(2500));
    a.begin();
    let newer = a.token().map(str::to_owned);
    sleep(&mut a, &mut b, seconds(10));
    // `b` has the token of the first refresh, and somebody logs in there.
    b.answers.push_back(unavailable(None));
    let now = b.now;
    b.disk.as_mut().unwrap().take_login(Secret::new("seed-2"), None, None, now);
    b.begin();
    a.begin_with(LOOK);
    assert_eq!((a.refresh_token(), a.token().map(str::to_owned)), ("seed-2", newer));
}

#[test]
fn a_refusal_after_a_lost_reply_is_in_the_row() {
    let (mut a, mut b, database) = pair();
    sleep(&mut a, &mut b, seconds(2500));
    a.answers.extend([lost(), invalid_grant()]);
    a.begin();
    a.live(seconds(1));
    assert_eq!(a.posts.len(), 2);
    assert!(database.borrow().row.as_ref().unwrap().result.verdict.is_some());
    b.begin();
    b.live(seconds(3600));
    assert!(b.posts.is_empty());
}

#[test]
fn one_seed_on_two_machines_at_the_same_moment_is_one_login() {
    let database = database();
    let (mut a, mut b) = (machine("a", &database, Role::Refresh), machine("b", &database, Role::Refresh));
    b.sleep(seconds(1));
    // `b` has taken the seed, and has not looked at the row yet.
    b.dies_before = Some("read");
    b.begin();
    let mut record = b.policy.new_record();
    record.take_seed(Secret::new("seed-1"), b.now);
    b.disk = Some(record);
    a.begin();
    b.restart();
    assert_eq!((a.posts.len(), b.posts.len()), (1, 0));
    assert_eq!((b.token(), b.refresh_token()), (a.token(), a.refresh_token()));
}

#[test]
fn an_account_of_the_same_name_at_another_server_is_left_alone() {
    let (mut a, _, database) = pair();
    let mut other = machine("c", &database, Role::Refresh);
    other.sleep(seconds(100));
    other.set_client("client of another server");
    other.set_seed("seed-9");
    let Outcome::Failed(problem) = other.last_outcome() else { panic!("{:?}", other.last_outcome()) };
    assert_eq!((problem.kind.as_str(), problem.class), ("fleet_foreign", Class::Config));
    other.live(seconds(3600));
    assert!(other.posts.is_empty() && other.token().is_none());
    a.sleep(seconds(2500));
    assert!(matches!(a.begin(), Outcome::Refreshed { .. }));
}

#[test]
fn a_failover_cannot_lose_a_new_login() {
    let (_, mut b, database) = pair();
    let old = database.borrow().row.clone();
    b.sleep(seconds(100));
    b.set_seed("seed-2");
    let token = b.refresh_token().to_owned();
    *database.borrow_mut() = Database { row: old, timeline: 2, ..Database::default() };
    b.begin_with(LOOK);
    assert_eq!(b.refresh_token(), token);
    let held = database.borrow().row.as_ref().unwrap().content.held;
    assert_eq!(held, Some(Secret::new(token).fingerprint()));
}

#[test]
fn a_logout_reaches_the_others() {
    let (mut a, mut b, _) = pair();
    sleep(&mut a, &mut b, seconds(10));
    a.disk.as_mut().unwrap().log_out();
    a.begin();
    b.begin_with(LOOK);
    assert!(b.disk.as_ref().unwrap().refresh_token.is_none());
    sleep(&mut a, &mut b, seconds(10));
    b.set_seed("seed-2");
    a.begin_with(LOOK);
    assert_eq!((a.refresh_token(), a.token()), (b.refresh_token(), b.token()));
}

#[test]
fn a_reader_publishes_and_never_sends() {
    let (mut a, _, database) = pair();
    let mut reader = machine("r", &database, Role::Read);
    assert_eq!(reader.begin(), Outcome::Republished);
    assert_eq!(reader.token(), a.token());
    reader.sleep(seconds(2500));
    a.now = reader.now;
    assert!(matches!(reader.begin(), Outcome::Held { .. }));
    a.begin();
    assert_eq!(reader.begin_with(LOOK), Outcome::Republished);
    assert_eq!((reader.token(), reader.posts.len()), (a.token(), 0));
    // Nobody refreshes any more.
    reader.live(seconds(7200));
    assert!(matches!(reader.last_outcome(), Outcome::Failed(_)) && reader.posts.is_empty());
}

#[test]
fn a_failure_is_known_to_all_and_frees_the_claim() {
    let (mut a, mut b, _) = pair();
    sleep(&mut a, &mut b, seconds(2500));
    a.answers.push_back(unavailable(Some(600)));
    a.begin();
    let outcome = b.begin();
    assert!(matches!(outcome, Outcome::Held { .. }), "{outcome:?}");
    b.live(seconds(599));
    assert!(b.posts.is_empty());
    b.live(seconds(10));
    assert_eq!(b.posts.len(), 1);
}

#[test]
fn a_refusal_that_a_failover_lost_comes_back_into_the_row() {
    let (mut a, mut b, database) = pair();
    sleep(&mut a, &mut b, seconds(2500));
    let before = database.borrow().row.clone();
    a.answers.push_back(invalid_grant());
    assert!(matches!(a.begin(), Outcome::Refused(_)));
    *database.borrow_mut() = Database { row: before, timeline: 2, ..Database::default() };
    a.begin_with(LOOK);
    assert!(database.borrow().row.as_ref().unwrap().result.verdict.is_some());
    b.live(seconds(3600));
    assert_eq!((a.posts.len(), b.posts.len()), (1, 0));
    assert!(matches!(b.last_outcome(), Outcome::Refused(_)), "{:?}", b.last_outcome());
}

#[test]
fn a_database_that_misses_each_store_is_asked_less_and_less() {
    let (mut a, mut b, database) = pair();
    sleep(&mut a, &mut b, seconds(2500));
    database.borrow_mut().misses_stores = true;
    a.begin();
    assert!(a.has_live_token());
    a.did.clear();
    a.live(seconds(600));
    let stores = a.did.iter().filter(|did| **did == "store").count();
    assert!((3..120).contains(&stores), "{stores}");
    database.borrow_mut().misses_stores = false;
    a.live(seconds(120));
    assert!(reported(&a, |report| matches!(report, Report::Fleet(FleetReport::Delivered))));
    b.now = a.now;
    b.begin_with(LOOK);
    assert_eq!((a.posts.len(), b.posts.len(), b.token()), (1, 0, a.token()));
}
