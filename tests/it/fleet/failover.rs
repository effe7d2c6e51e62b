//! A standby becomes the primary, with or without the last commits.

use super::hosts::{DUE, Fleet};
use super::postgres::Cluster;
use super::proxy::Proxy;
use crate::common::{Background, wait_until};

/// Past the time that hosts have to bring newer copies after a failover.
const QUARANTINE: std::time::Duration = std::time::Duration::from_secs(7 * 60);

struct Pair {
    standby: Cluster,
    link: Proxy,
}

fn pair(fleet: &Fleet) -> Pair {
    let link = Proxy::new(&fleet.cluster.socket());
    let standby = fleet.cluster.standby(&link);
    fleet.cluster.wait_for_replay(&standby);
    Pair { standby, link }
}

#[test]
fn a_row_that_lost_a_commit_is_repaired() {
    let Some(mut fleet) = Fleet::new(3) else { return };
    fleet.log_in();
    let Pair { mut standby, link } = pair(&fleet);
    link.hold(true);
    fleet.pass_time(DUE);
    fleet.hosts[0].once_gives(0, []);
    fleet.hosts[1].once_gives(0, []);
    assert_eq!(fleet.row("epoch"), "3");
    standby.promote();
    fleet.cluster.kill();
    std::mem::swap(&mut fleet.cluster, &mut standby);
    fleet.lead_to(&fleet.cluster);
    assert_eq!(fleet.row("epoch"), "2", "the commit is lost");
    // The third host has not seen the newest token. Its own token is due, and spent.
    fleet.pass_time(std::time::Duration::from_secs(5 * 60));
    fleet.hosts[2].once_gives(69, []);
    assert_eq!(fleet.posts(), 2, "it waits for those who may have a newer copy");
    let repair = fleet.hosts[1].supervise();
    fleet.wait_for_epoch(3);
    drop(repair);
    for host in &fleet.hosts {
        host.once_gives(0, []);
    }
    assert_eq!(fleet.posts(), 2);
    fleet.assert_agreed();
    fleet.assert_one_post_per_epoch();
}

#[test]
fn after_a_failover_without_loss_it_goes_on() {
    let Some(mut fleet) = Fleet::new(2) else { return };
    fleet.log_in();
    let Pair { mut standby, link: _link } = pair(&fleet);
    standby.promote();
    fleet.cluster.kill();
    std::mem::swap(&mut fleet.cluster, &mut standby);
    fleet.lead_to(&fleet.cluster);
    fleet.pass_time(DUE);
    fleet.hosts[0].once_gives(69, []);
    assert_eq!(fleet.posts(), 1);
    fleet.pass_time(QUARANTINE);
    fleet.hosts[0].once_gives(0, []);
    fleet.hosts[1].once_gives(0, []);
    assert_eq!(fleet.posts(), 2);
    fleet.assert_agreed();
}

#[test]
fn a_stale_primary_is_refused() {
    let Some(fleet) = Fleet::new(2) else { return };
    fleet.log_in();
    let Pair { standby, link: _link } = pair(&fleet);
    standby.promote();
    // One host sees the new primary, and later the old one, which still takes everything.
    let host = &fleet.hosts[0];
    host.proxy.lead_to(&standby.socket());
    fleet.pass_time(DUE);
    host.once_gives(69, []);
    host.proxy.lead_to(&fleet.cluster.socket());
    fleet.pass_time(QUARANTINE);
    let output = host.once_gives(69, []);
    assert!(output.stderr.contains("not the primary"), "{output:?}");
    assert_eq!(fleet.posts(), 1);
    assert_eq!(fleet.row("epoch"), "2");
    assert_eq!(fleet.row("attempt IS NULL"), "t", "it claims nothing there");
}

#[test]
fn a_standby_is_no_place_to_claim() {
    let Some(fleet) = Fleet::new(1) else { return };
    fleet.log_in();
    let Pair { standby, link: _link } = pair(&fleet);
    fleet.pass_time(DUE);
    fleet.hosts[0].proxy.lead_to(&standby.socket());
    let output = fleet.hosts[0].once_gives(69, []);
    assert!(output.stderr.contains("primary") || output.stderr.contains("standby"), "{output:?}");
    assert_eq!(fleet.posts(), 1);
}

/// With a standby that must acknowledge, an isolated primary acknowledges no claim.
#[test]
fn an_isolated_primary_with_synchronous_replication_lets_nobody_send() {
    let Some(fleet) = Fleet::new(1) else { return };
    fleet.log_in();
    let Pair { standby, link } = pair(&fleet);
    fleet.cluster.require_standby("standby");
    fleet.pass_time(DUE);
    link.hold(true);
    let host = &fleet.hosts[0];
    let reads = host.proxy.count("r.claim_until");
    let mut once = Background::start(&mut host.command(["once"]), host.sandbox.path("once.log"));
    // Its COMMIT has no answer, and the row shows no claim.
    host.proxy.wait_for_statement("r.claim_until", reads + 2);
    assert_eq!(fleet.posts(), 1, "{}", once.log());
    link.hold(false);
    fleet.cluster.wait_for_replay(&standby);
    // The claim that nobody acknowledged is in the row now; it need not be waited for here.
    fleet.end_claims();
    once.wait();
    wait_until("the pass", || (fleet.hosts[0].run(["once"]).code == Some(0)).then_some(()));
    fleet.assert_one_post_per_epoch();
    fleet.assert_agreed();
}
