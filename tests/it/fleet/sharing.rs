//! Several hosts, one login.

use rustix::process::Signal;

use super::hosts::{DUE, Fleet};
use crate::common::{Background, feed, wait_until};
use crate::login::{LoginRun, consent};

#[test]
fn a_login_on_one_host_serves_all() {
    let Some(fleet) = Fleet::new(3) else { return };
    fleet.log_in();
    assert_eq!(fleet.row("epoch"), "2", "the login, and its first reply");
    // The login is sealed in the row, and the token is not.
    let secret = fleet.row("convert_from(secret, 'SQL_ASCII')");
    assert!(!secret.contains(fleet.hosts[0].refresh_token().expose()), "{secret}");
    fleet.pass_time(DUE);
    // The others are told by the row alone that nothing is due any more.
    fleet.hosts[1].once_gives(0, []);
    assert_eq!(fleet.posts(), 2);
    fleet.hosts[0].once_gives(0, []);
    fleet.hosts[2].once_gives(0, []);
    assert_eq!(fleet.posts(), 2);
    fleet.assert_agreed();
    fleet.assert_one_post_per_epoch();
}

#[test]
fn many_passes_on_all_hosts_at_once_are_one_request() {
    let Some(fleet) = Fleet::new(3) else { return };
    fleet.log_in();
    for epoch in 1..=2 {
        fleet.pass_time(DUE);
        let start = |host: usize, pass: usize| {
            let host = &fleet.hosts[host];
            Background::start(&mut host.command(["once"]), host.sandbox.path(format!("once-{pass}.log")))
        };
        let passes: Vec<_> = (0..9).map(|pass| start(pass % 3, pass)).collect();
        for mut pass in passes {
            let status = pass.wait();
            assert_eq!(status.code(), Some(0), "{}", pass.log());
        }
        assert_eq!(fleet.posts(), 1 + epoch);
        fleet.assert_agreed();
    }
    fleet.assert_one_post_per_epoch();
}

#[test]
fn run_on_another_host_publishes_at_once() {
    let Some(fleet) = Fleet::new(2) else { return };
    fleet.log_in();
    let runs: Vec<_> = fleet.hosts.iter().map(super::hosts::Host::supervise).collect();
    for host in [0, 1, 0] {
        let posts = fleet.posts();
        fleet.hosts[host].permit_force();
        fleet.hosts[host].once_gives(0, ["--force"]);
        assert_eq!(fleet.posts(), posts + 1);
        fleet.wait_for_token();
    }
    for mut run in runs {
        run.signal(Signal::TERM);
        assert_eq!(run.wait().code(), Some(0), "{}", run.log());
    }
    fleet.assert_one_post_per_epoch();
}

#[test]
fn a_token_that_is_rejected_on_all_hosts_is_replaced_once() {
    let Some(fleet) = Fleet::new(3) else { return };
    fleet.log_in();
    let rejected = fleet.hosts[0].token();
    for host in &fleet.hosts {
        let output = feed(&mut host.command(["rejected"]), rejected.expose());
        assert_eq!(output.code, Some(0), "{output:?}");
    }
    assert_eq!(fleet.posts(), 2);
    fleet.assert_agreed();
}

#[test]
fn a_newer_login_on_any_host_wins() {
    let Some(fleet) = Fleet::new(3) else { return };
    fleet.log_in();
    let run = fleet.hosts[2].supervise();
    let before = fleet.row("login");
    let new = feed(&mut fleet.hosts[1].command(["set"]), fleet.seed().expose());
    assert_eq!(new.code, Some(0), "{new:?}");
    assert_ne!(fleet.row("login"), before, "a login of its own");
    wait_until("the token of the new login", || {
        (fleet.hosts[2].token() == fleet.hosts[1].token()).then_some(())
    });
    drop(run);
    // The old login is not sent again: the config of the first host still has it.
    fleet.pass_time(DUE);
    for host in &fleet.hosts {
        host.once_gives(0, []);
    }
    assert_eq!(fleet.posts(), 3);
    fleet.assert_one_post_per_epoch();
    fleet.assert_agreed();
}

#[test]
fn a_login_by_browser_on_any_host_serves_all() {
    let Some(fleet) = Fleet::new(2) else { return };
    for host in &fleet.hosts {
        fleet.configure_issuer(host);
    }
    let run = fleet.hosts[1].supervise();
    let mut login = LoginRun::start_in(&fleet.hosts[0].sandbox, "--no-browser", &[]);
    let redirect = consent(&login.url(), "alice");
    let page = std::process::Command::new("curl")
        .args(["-qsSL", "--noproxy", "*", "-o", "/dev/null", &redirect])
        .status();
    assert!(page.unwrap().success());
    login.ends_with(0);
    wait_until("the token of the login on the other host", || {
        let file = fleet.hosts[1].token_file();
        (file.exists() && fleet.hosts[1].token() == fleet.hosts[0].token()).then_some(())
    });
    drop(run);
    fleet.pass_time(DUE);
    fleet.hosts[1].once_gives(0, []);
    fleet.hosts[0].once_gives(0, []);
    fleet.assert_agreed();
    fleet.assert_not_revoked();
}
