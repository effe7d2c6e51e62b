//! The database is away, or does not answer: nothing is sent, the live token stays, and what is on one disk
//! alone is delivered later.

use super::commits::STORE;
use super::hosts::{DUE, Fleet, Host};
use super::proxy::{Cut, Mode};
use crate::common::wait_until;

/// Something is due on all hosts, and none can ask the database.
fn assert_waits(fleet: &Fleet, problem: &str) {
    let (posts, token) = (fleet.posts(), fleet.hosts[0].token());
    for host in &fleet.hosts {
        let output = host.once_gives(69, []);
        assert!(output.stderr.contains(problem), "{output:?}");
        assert!(fleet.server.is_live(&host.token()), "the live token stays");
        let (status, code) = host.status();
        assert_eq!(code, 1, "{status}");
    }
    assert_eq!(fleet.posts(), posts, "nothing is sent without the database");
    assert_eq!(fleet.hosts[0].token(), token);
}

#[test]
fn without_the_database_the_live_token_stays_and_nothing_is_sent() {
    let Some(mut fleet) = Fleet::new(2) else { return };
    fleet.log_in();
    fleet.pass_time(DUE);
    fleet.cluster.stop();
    assert_waits(&fleet, "database");
    fleet.cluster.start();
    for host in &fleet.hosts {
        host.once_gives(0, []);
    }
    assert_eq!(fleet.posts(), 2);
    fleet.assert_agreed();
}

#[test]
fn a_database_that_does_not_answer_is_given_up() {
    let Some(fleet) = Fleet::new(1) else { return };
    fleet.log_in();
    fleet.pass_time(DUE);
    fleet.hosts[0].proxy.set_mode(Mode::Silent);
    assert_waits(&fleet, "database");
    fleet.hosts[0].proxy.set_mode(Mode::Pass);
    fleet.cluster.freeze();
    assert_waits(&fleet, "database");
    fleet.cluster.thaw();
}

/// The first host has a reply that the row does not have.
fn undelivered(fleet: &Fleet) {
    let host = &fleet.hosts[0];
    host.proxy.cut_next(STORE, Cut::BeforeCommitAndAll);
    let output = host.once_gives(0, []);
    assert_eq!(host.proxy.cuts(), 1, "{output:?}");
    assert!(!host.replica()["undelivered"].is_null(), "{}", host.state());
    assert!(fleet.server.is_live(&host.token()), "it is published on this host");
    assert_ne!(host.token(), fleet.hosts[1].token());
    let (status, code) = host.status();
    assert_eq!(code, 1, "a warning: {status}");
}

#[test]
fn a_reply_that_could_not_be_delivered_is_delivered_by_itself() {
    let Some(fleet) = Fleet::new(2) else { return };
    fleet.log_in();
    fleet.pass_time(DUE);
    undelivered(&fleet);
    // Nothing asks for a refresh: run brings it, and the other host hears of it.
    fleet.hosts[0].proxy.set_mode(Mode::Pass);
    let other = fleet.hosts[1].supervise();
    let run = fleet.hosts[0].supervise();
    fleet.wait_for_token();
    wait_until("the delivery", || fleet.hosts[0].replica()["undelivered"].is_null().then_some(()));
    assert_eq!(fleet.posts(), 2);
    drop((run, other));
    fleet.assert_agreed();
    fleet.assert_one_post_per_epoch();
}

#[test]
fn run_delivers_when_the_database_is_back() {
    let Some(mut fleet) = Fleet::new(2) else { return };
    fleet.log_in();
    let runs: Vec<_> = fleet.hosts.iter().map(Host::supervise).collect();
    let tries = fleet.hosts[0].proxy.connections();
    fleet.cluster.kill();
    // It notices.
    wait_until("another connection", || (fleet.hosts[0].proxy.connections() > tries).then_some(()));
    fleet.cluster.start();
    // It listens again: a refresh on one host is seen on the other.
    fleet.hosts[0].once_gives(0, ["--force"]);
    fleet.wait_for_token();
    assert_eq!(fleet.posts(), 2);
    drop(runs);
    fleet.assert_agreed();
}
