//! Behind a pooler in transaction mode, which swallows LISTEN.

use rustix::process::Signal;

use super::hosts::{DUE, Fleet, Host};
use super::pooler::Pooler;
use crate::common::wait_until;

#[test]
fn behind_a_pooler_run_polls_and_says_so() {
    let Some(fleet) = Fleet::new(2) else { return };
    let Some(pooler) = Pooler::start(&fleet.cluster) else { return };
    for host in &fleet.hosts {
        host.proxy.lead_to(&pooler.socket());
    }
    fleet.log_in();
    // Passes work as without it: no statement of one connection is missed on another.
    for posts in 2..5 {
        fleet.pass_time(DUE);
        for host in &fleet.hosts {
            host.once_gives(0, []);
        }
        assert_eq!(fleet.posts(), posts);
    }
    let mut run = fleet.hosts[1].supervise();
    run.wait_for("every 30 s instead");
    fleet.hosts[0].once_gives(0, ["--force"]);
    fleet.wait_for_token();
    let (status, _) = fleet.hosts[1].status();
    assert_eq!(status["fleet"]["listens"], false, "{status}");
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
    fleet.assert_agreed();
    fleet.assert_one_post_per_epoch();
}

#[test]
fn without_a_pooler_it_listens_and_does_not_poll() {
    let Some(fleet) = Fleet::new(2) else { return };
    fleet.log_in();
    let runs: Vec<_> = fleet.hosts.iter().map(Host::supervise).collect();
    for host in &fleet.hosts {
        host.proxy.wait_for_statement("LISTEN", 1);
    }
    fleet.hosts[0].once_gives(0, ["--force"]);
    fleet.wait_for_token();
    for run in &runs {
        assert!(!run.log().contains("every 30 s instead"), "{}", run.log());
    }
    wait_until("listening", || {
        fleet.hosts.iter().all(|host| host.status().0["fleet"]["listens"] == true).then_some(())
    });
}
