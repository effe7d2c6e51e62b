//! A COMMIT without a clean answer: its outcome is unknown, and only the row can tell.

use super::hosts::{DUE, Fleet, Host};
use super::proxy::Cut;
use crate::common::{Background, wait_until};

/// Words of the statement that claims, and of the one that stores a reply.
const CLAIM: &str = "claim_until = ";
/// Of the one that reads the row.
const READ: &str = "r.claim_until";
pub const STORE: &str = "AND epoch = $9 AND held";

fn fleet() -> Option<Fleet> {
    let fleet = Fleet::new(2)?;
    fleet.log_in();
    fleet.pass_time(DUE);
    Some(fleet)
}

/// After a claim whose outcome is unknown the row was read before a reply was stored, and so before anything was
/// sent: `from` is where the pass begins in the statements.
fn assert_row_read_after_claim(host: &Host, from: usize) {
    let statements = host.proxy.statements();
    let mut rest = statements[from..].iter().skip_while(|sql| !sql.contains(CLAIM)).skip(1);
    let next = rest.find(|sql| sql.contains(READ) || sql.contains(STORE));
    assert!(next.is_some_and(|sql| sql.contains(READ)), "{:#?}", &statements[from..]);
}

/// Cuts the connection of the first host there, and lets both go on.
fn cut(statement: &str, cut: Cut) {
    let Some(fleet) = fleet() else { return };
    let [first, second] = &fleet.hosts[..] else { unreachable!() };
    let from = first.proxy.statements().len();
    first.proxy.cut_next(statement, cut);
    let output = first.run(["once"]);
    assert_eq!(first.proxy.cuts(), 1, "{output:?}");
    // Whatever the first one has made of it, both get there.
    wait_until("the pass of the first host", || (first.run(["once"]).code == Some(0)).then_some(()));
    wait_until("the pass of the second host", || (second.run(["once"]).code == Some(0)).then_some(()));
    assert_eq!(fleet.posts(), 2, "{output:?}");
    fleet.assert_agreed();
    fleet.assert_one_post_per_epoch();
    if statement == CLAIM {
        assert_row_read_after_claim(first, from);
    }
}

#[test]
fn a_claim_is_cut_before_its_commit() {
    cut(CLAIM, Cut::BeforeCommit);
}

#[test]
fn a_claim_is_cut_after_its_commit() {
    cut(CLAIM, Cut::AfterCommit);
}

#[test]
fn a_reply_is_cut_before_its_commit() {
    cut(STORE, Cut::BeforeCommit);
}

#[test]
fn a_reply_is_cut_after_its_commit() {
    cut(STORE, Cut::AfterCommit);
}

/// The wait for a standby is cancelled: COMMIT succeeds with a warning, and is not replicated. The claim
/// counts only because the row shows it.
#[test]
fn a_commit_with_a_warning_is_unknown() {
    let Some(fleet) = fleet() else { return };
    let host = &fleet.hosts[0];
    fleet.cluster.require_standby("nobody");
    let from = host.proxy.statements().len();
    let mut once = Background::start(&mut host.command(["once"]), host.sandbox.path("once.log"));
    fleet.cluster.cancel_wait_for_standby();
    wait_until("the end of the pass", || {
        fleet.cluster.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
        once.ended()
    });
    fleet.cluster.require_standby("");
    wait_until("the passes of both hosts", || {
        fleet.hosts.iter().all(|host| host.run(["once"]).code == Some(0)).then_some(())
    });
    assert_row_read_after_claim(host, from);
    assert_eq!(fleet.posts(), 2, "{}", once.log());
    fleet.assert_agreed();
    fleet.assert_one_post_per_epoch();
}
