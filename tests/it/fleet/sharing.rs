//! Several hosts, one login.

use std::time::Duration;

use rustix::process::Signal;
use zg_tokend::testing::demo::AuditEvent;

use super::hosts::{DUE, Fleet};
use super::proxy::Mode;
use crate::common::{Background, feed, wait_until};
use crate::login::{LoginRun, consent, device};

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

/// Somebody logs in on the first host while the second one runs: it has the token soon, and either can refresh.
fn log_in_on_the_first(log_in: impl FnOnce(&Fleet)) {
    let Some(fleet) = Fleet::new(2) else { return };
    for host in &fleet.hosts {
        fleet.configure_issuer(host);
    }
    let run = fleet.hosts[1].supervise();
    log_in(&fleet);
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

#[test]
fn a_login_by_browser_on_any_host_serves_all() {
    log_in_on_the_first(|fleet| {
        let mut login = LoginRun::start_in(&fleet.hosts[0].sandbox, "--no-browser", &[]);
        let redirect = consent(&login.url(), "alice");
        let page = std::process::Command::new("curl")
            .args(["-qsSL", "--noproxy", "*", "-o", "/dev/null", &redirect])
            .status();
        assert!(page.unwrap().success());
        login.ends_with(0);
    });
}

#[test]
fn a_login_by_device_code_on_any_host_serves_all() {
    log_in_on_the_first(|fleet| {
        let mut login = device::start_json(&fleet.hosts[0].sandbox);
        device::decide(&device::code(&login), "allow");
        assert_eq!(login.wait().code(), Some(0), "{}", login.log());
    });
}

#[test]
fn a_logout_on_a_host_with_an_old_copy_ends_the_newest_login() {
    let Some(fleet) = Fleet::new(2) else { return };
    fleet.log_in();
    for host in &fleet.hosts {
        fleet.configure_issuer(host);
    }
    let [first, second] = &fleet.hosts[..] else { unreachable!() };
    first.permit_force();
    first.once_gives(0, ["--force"]);
    let (newest, token) = (first.refresh_token(), first.token());
    assert_ne!(second.refresh_token().expose(), newest.expose(), "the copy of the second is old");
    // Without the database nobody knows the newest one.
    second.proxy.set_mode(Mode::Closed);
    let output = second.run(["logout"]);
    assert_eq!(output.code, Some(69), "{output:?}");
    assert!(fleet.server.is_live(&token) && !fleet.is_revoked());
    second.proxy.set_mode(Mode::Pass);
    let output = second.run(["logout"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let audit = fleet.server.audit();
    let revoked = audit.iter().find(|entry| matches!(entry.event, AuditEvent::Revocation { .. }));
    assert_eq!(revoked.and_then(|entry| entry.refresh_token), Some(newest.fingerprint()), "{audit:#?}");
    assert!(!fleet.server.is_live(&token));
    // A pass reads the row when something is due.
    fleet.pass_time(DUE);
    first.once_gives(77, []);
    assert_eq!(fleet.posts(), 2);
}

#[test]
fn a_notification_about_no_account_is_nothing() {
    let Some(fleet) = Fleet::new(1) else { return };
    fleet.log_in();
    let host = &fleet.hosts[0];
    let _run = host.supervise();
    let read = "FROM (SELECT 1) AS one";
    let notify = |text: &str| fleet.cluster.sql(&format!("SELECT pg_notify('zg_tokend', '{text}')"));
    // It listens from here on.
    let before = host.proxy.count(read);
    wait_until("the first notification", || {
        notify("default 1");
        (host.proxy.count(read) > before).then_some(())
    });
    let mut quiet = host.proxy.count(read);
    wait_until("an end of the passes", || {
        let earlier = std::mem::replace(&mut quiet, host.proxy.count(read));
        std::thread::sleep(Duration::from_millis(500));
        (earlier == host.proxy.count(read)).then_some(())
    });
    let before = host.proxy.count(read);
    for text in ["", "echo-1", "nonsense", "other 7", "two words 7", "default"] {
        notify(text);
    }
    notify("default 1");
    host.proxy.wait_for_statement(read, before + 1);
    assert_eq!(host.proxy.count(read), before + 1);
}
