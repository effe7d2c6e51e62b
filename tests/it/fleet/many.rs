//! Many hosts with `run`, through many epochs.

use std::time::Duration;

use rustix::process::Signal;
use zg_tokend::testing::clock::monotonic;

use super::hosts::{Fleet, Host};
use crate::common::{at_full_size, figure, poll_for};

/// Hosts and epochs: of the goal, and of every test run.
fn size() -> (usize, usize) {
    if at_full_size() { (50, 200) } else { (8, 8) }
}

/// As long as all that may take on a machine that is 20 times slower.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);

#[test]
fn many_hosts_make_one_request_for_each_epoch() {
    let (hosts, epochs) = size();
    // Due after some 3 s.
    let Some(fleet) = Fleet::with_lifetime(hosts, 6) else { return };
    fleet.configure(&fleet.hosts[0], &format!("refresh_token = \"{}\"", fleet.seed().expose()));
    fleet.hosts[0].once_gives(0, []);
    let mut runs: Vec<_> = fleet.hosts.iter().map(Host::start_run).collect();
    let began = monotonic();
    let done = poll_for(PATIENCE, || (fleet.posts() >= epochs).then_some(()));
    assert!(done.is_some(), "{} of {epochs} epochs", fleet.posts());
    let took = monotonic() - began;
    for run in &mut runs {
        run.signal(Signal::TERM);
    }
    for run in &mut runs {
        assert_eq!(run.wait().code(), Some(0), "{}", run.log());
    }
    fleet.assert_one_post_per_epoch();
    fleet.assert_row_current();
    // The login itself is an epoch.
    assert_eq!(fleet.row("epoch"), (fleet.posts() + 1).to_string());
    figure(format!(
        "{hosts} hosts, {epochs} epochs of tokens that live 6 s: {} POSTs, 0 revocations, {} s",
        fleet.posts(),
        took / 1000
    ));
}

/// From the commit of a reply to the last token file.
#[test]
fn a_token_is_soon_on_all_hosts() {
    let hosts = if at_full_size() { 50 } else { 8 };
    let Some(fleet) = Fleet::new(hosts) else { return };
    fleet.log_in();
    let runs: Vec<_> = fleet.hosts.iter().map(Host::supervise).collect();
    for host in &fleet.hosts {
        host.proxy.wait_for_statement("LISTEN", 1);
    }
    let mut took = Vec::new();
    for _ in 0..if at_full_size() { 20 } else { 3 } {
        fleet.hosts[0].permit_force();
        fleet.hosts[0].once_gives(0, ["--force"]);
        let stored: i64 =
            fleet.row("(extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000)::bigint").parse().unwrap();
        fleet.wait_for_token();
        took.push(fleet.last_published() - stored);
    }
    took.sort_unstable();
    figure(format!(
        "{hosts} hosts on one machine: the token was on all of them {} ms (median) and {} ms (worst) after the commit",
        took[took.len() / 2],
        took[took.len() - 1]
    ));
    drop(runs);
    fleet.assert_one_post_per_epoch();
}
