//! An attempt of another host whose outcome nobody knows: it is left to its owner until the last chance.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use zg_tokend::testing::demo::Fault;

use super::commits::STORE;
use super::hosts::{DUE, Fleet, TO_LAST_CHANCE};
use super::proxy::{Cut, Mode};
use crate::common::{Background, finish, leave_out, under, wait_until};

/// Longer than a claim lasts, and than an attempt must have been seen unchanged.
const A_WHILE: Duration = Duration::from_secs(80);

/// The first host has claimed and sent its request, and is killed before the answer. The server has
/// granted it or not.
fn killed(fleet: &Fleet, granted: bool) {
    let host = &fleet.hosts[0];
    let delay = 600_000;
    let fault = if granted {
        Fault { delay_after_commit_ms: delay, ..Fault::default() }
    } else {
        Fault { delay_before_commit_ms: delay, drop: true, ..Fault::default() }
    };
    let posts = fleet.posts();
    fleet.server.faults(|faults| faults.next.push_back(fault));
    let mut once = Background::start(&mut host.command(["once"]), host.sandbox.path("once.log"));
    wait_until("the request", || (fleet.posts() == posts + 1).then_some(()));
    once.signal(Signal::KILL);
    once.wait();
    assert_eq!(fleet.row("host"), host.name(), "its claim stands");
}

#[test]
fn an_unclear_attempt_is_left_to_its_owner() {
    let Some(fleet) = Fleet::new(2) else { return };
    fleet.log_in();
    fleet.pass_time(DUE);
    killed(&fleet, false);
    let [owner, other] = &fleet.hosts[..] else { unreachable!() };
    // While the claim lasts, a pass waits for its host.
    let reads = other.proxy.count("r.claim_until");
    let mut waiting = Background::start(&mut other.command(["once"]), other.sandbox.path("once.log"));
    other.proxy.wait_for_statement("r.claim_until", reads + 1);
    fleet.end_claims();
    assert_eq!(waiting.wait().code(), Some(69), "{}", waiting.log());
    let unclear = waiting.log();
    assert!(unclear.contains(&owner.name()) && unclear.contains("not finished"), "{unclear}");
    fleet.pass_time(A_WHILE);
    other.once_gives(69, []);
    assert_eq!(fleet.posts(), 2);
    // The owner is back.
    owner.once_gives(0, []);
    other.once_gives(0, []);
    assert_eq!(fleet.posts(), 3);
    fleet.assert_not_revoked();
    fleet.assert_agreed();
}

/// A container has another host name at each start.
#[test]
fn an_attempt_from_before_a_start_with_another_host_name_is_its_own() {
    let Some(fleet) = Fleet::new(1) else { return };
    let script = "echo another >/proc/sys/kernel/hostname && exec \"$@\"";
    let renamed = ["unshare", "--map-root-user", "--uts", "sh", "-c", script, "sh"];
    if finish(Command::new(renamed[0]).args(&renamed[1..]).arg("true")).code != Some(0) {
        leave_out("another host name: unshare may not make a namespace for it");
        return;
    }
    fleet.log_in();
    fleet.pass_time(DUE);
    killed(&fleet, false);
    fleet.end_claims();
    let host = &fleet.hosts[0];
    let name = host.name();
    let output = finish(&mut under(renamed, &host.command(["once"])));
    assert_eq!((output.code, fleet.posts()), (Some(0), 3), "{output:?}");
    assert_eq!(host.name(), name, "it keeps its name");
    fleet.assert_not_revoked();
    fleet.assert_agreed();
}

#[test]
fn at_the_last_chance_it_is_taken_over_after_a_minute() {
    let Some(fleet) = Fleet::new(2) else { return };
    fleet.log_in();
    fleet.pass_time(DUE);
    killed(&fleet, false);
    let [owner, other] = &fleet.hosts[..] else { unreachable!() };
    // The database was away: its owner has had no chance to deliver.
    fleet.pass_time(TO_LAST_CHANCE);
    other.once_gives(69, []);
    assert_eq!(fleet.posts(), 2, "it was not seen unchanged for a minute");
    fleet.pass_time(Duration::from_secs(61));
    other.once_gives(0, []);
    assert_eq!(fleet.posts(), 3);
    // Its owner does not send it again: the row has moved on.
    owner.once_gives(0, []);
    assert_eq!(fleet.posts(), 3);
    fleet.assert_not_revoked();
    fleet.assert_agreed();
}

#[test]
fn an_attempt_was_not_seen_while_the_database_was_away() {
    let Some(fleet) = Fleet::new(2) else { return };
    fleet.log_in();
    fleet.pass_time(DUE);
    killed(&fleet, false);
    let other = &fleet.hosts[1];
    fleet.pass_time(TO_LAST_CHANCE);
    other.once_gives(69, []);
    other.proxy.set_mode(Mode::Closed);
    other.once_gives(69, []);
    fleet.pass_time(Duration::from_secs(61));
    other.proxy.set_mode(Mode::Pass);
    // Its owner may have come back with the database, in the same moment.
    other.once_gives(69, []);
    assert_eq!(fleet.posts(), 2);
}

#[test]
fn a_refusal_after_an_unclear_attempt_names_its_host() {
    let Some(fleet) = Fleet::new(3) else { return };
    fleet.log_in();
    fleet.pass_time(DUE);
    killed(&fleet, true);
    let [owner, other, third] = &fleet.hosts[..] else { unreachable!() };
    fleet.pass_time(TO_LAST_CHANCE);
    other.once_gives(69, []);
    fleet.pass_time(Duration::from_secs(61));
    let refused = other.once_gives(77, []);
    assert_eq!(fleet.posts(), 3);
    assert!(refused.stderr.contains(&owner.name()), "{refused:?}");
    // Nobody sends it again, and everybody knows why.
    for host in [other, third] {
        let again = host.once_gives(77, []);
        assert!(again.stderr.contains(&owner.name()), "{again:?}");
        let (status, code) = host.status();
        assert_eq!(code, 2, "{status}");
        assert!(status.to_string().contains(&owner.name()), "{status}");
    }
    owner.once_gives(77, []);
    assert_eq!(fleet.posts(), 3);
    // A new login on any host is for all of them.
    let seed = fleet.seed();
    let set = crate::common::feed(&mut third.command(["set"]), seed.expose());
    assert_eq!(set.code, Some(0), "{set:?}");
    owner.once_gives(0, []);
    other.once_gives(0, []);
    fleet.assert_agreed();
}

/// The host that refreshed was cut off, and stopped: the others keep the old token while it lives.
#[test]
fn an_undelivered_reply_of_a_stopped_host_is_waited_for() {
    let Some(fleet) = Fleet::new(2) else { return };
    fleet.log_in();
    fleet.pass_time(DUE);
    let [owner, other] = &fleet.hosts[..] else { unreachable!() };
    owner.proxy.cut_next(STORE, Cut::BeforeCommitAndAll);
    owner.once_gives(0, []);
    fleet.pass_time(A_WHILE);
    other.once_gives(69, []);
    other.once_gives(69, []);
    assert_eq!(fleet.posts(), 2);
    owner.proxy.set_mode(Mode::Pass);
    owner.once_gives(0, []);
    other.once_gives(0, []);
    assert_eq!(fleet.posts(), 2);
    fleet.assert_agreed();
}
