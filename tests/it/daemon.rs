//! `run`: the supervisor, its signals, and what it outlives.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use zg_tokend::testing::demo::DemoClient;
use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::demo::{Fault, Outage};
use zg_tokend::testing::secret::Secret;

use crate::common::world::{World, read};
use crate::common::{Background, audit, wait_until};

const HOUR: Duration = Duration::from_secs(3600);

fn wait_for_grants(world: &World, count: usize) {
    wait_until(&format!("{count} grants"), || (world.grants() >= count).then_some(()));
}

fn wait_for_live(world: &World, account: &str) {
    wait_until(&format!("a live token of {account}"), || {
        let token = fs::read_to_string(world.token_file_of(account)).ok()?;
        world.server.is_live(&Secret::new(token)).then_some(())
    });
}

/// Reads the token file without a pause until `during` is over; how many reads there were.
/// Each must give a live token.
fn hammer(world: &World, during: impl FnOnce()) -> usize {
    let (over, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert!(world.reads_live(&world.token_file()), "read {}", reads.load(Ordering::Relaxed));
                reads.fetch_add(1, Ordering::Relaxed);
                // Two cores are shared with all the other tests.
                std::thread::yield_now();
            }
        });
        during();
        over.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    reads.into_inner()
}

#[test]
fn an_overdue_token_is_refreshed_before_run_is_ready() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    world.pass_time(HOUR);
    world.fault(Fault { delay_before_commit_ms: 300, ..Fault::default() });
    let path = world.sandbox.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let mut command = world.sandbox.command(["run"]);
    let mut run = Background::start(command.env("NOTIFY_SOCKET", &path), world.sandbox.path("log"));
    let mut message = [0; 1024];
    let length = socket.recv(&mut message).unwrap();
    let message = String::from_utf8_lossy(&message[..length]).into_owned();
    assert!(message.starts_with("READY=1\n"), "{message}");
    assert_eq!(world.posts(), 2);
    world.assert_live();

    run.signal(Signal::HUP);
    let receive = || {
        let mut message = [0; 1024];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    // A look at what it stored itself may have something to say in between.
    let hear = |words: &str| std::iter::repeat_with(receive).find(|message| message.contains(words)).unwrap();
    let reloading = hear("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    hear("READY=1\n");
    assert_eq!(run.stop().code(), Some(0));
    hear("STOPPING=1");
}

#[test]
fn a_start_with_many_accounts_asks_for_time() {
    let world = World::new();
    let seeds = [world.seed(), world.seed()];
    world.configure_accounts(&[("a", &seeds[0]), ("b", &seeds[1])]);
    let path = world.sandbox.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let mut command = world.sandbox.command(["run"]);
    let _run = Background::start(command.env("NOTIFY_SOCKET", &path), world.sandbox.path("log"));
    let mut messages = String::new();
    while !messages.contains("READY=1") {
        let mut message = [0; 1024];
        let length = socket.recv(&mut message).unwrap();
        messages += &String::from_utf8_lossy(&message[..length]);
    }
    assert!(messages.starts_with("EXTEND_TIMEOUT_USEC=180000000\n"), "{messages}");
}

#[test]
fn it_is_ready_when_the_reason_why_not_is_known() {
    let world = World::new();
    world.configure("");
    world.outage(Some(Outage::Closed));
    let mut run = world.run();
    world.outage(None);
    wait_until("the token", || world.token_file().exists().then_some(()));
    world.assert_live();
    assert_eq!(run.stop().code(), Some(0));
}

#[test]
fn the_token_is_live_over_many_rotations() {
    let world = World::in_memory(8);
    world.configure("");
    let mut run = world.run();
    let reads = hammer(&world, || wait_for_grants(&world, 5));
    assert!(reads > 100, "{reads}");
    assert_eq!(run.stop().code(), Some(0));
    audit::assert_one_post_per_epoch(&world.server.audit());
    assert_eq!(world.state()["generation"], world.grants());
}

#[test]
fn an_outage_that_is_shorter_than_the_skew_goes_unnoticed() {
    // Due after 5 s at the latest; the outage of a second begins then.
    let world = World::in_memory(10);
    world.configure("");
    let mut run = world.run();
    world.outage(Some(Outage::Unavailable));
    hammer(&world, || {
        let failed = || (world.state().get("failure").is_some()).then_some(());
        wait_until("a failure", failed);
        world.outage(None);
        wait_for_grants(&world, 2);
    });
    assert_eq!(run.stop().code(), Some(0));
}

#[test]
fn it_stops_cleanly() {
    for signal in [Signal::TERM, Signal::INT] {
        let world = World::new();
        world.configure("");
        let mut run = world.run();
        run.signal(signal);
        assert_eq!(wait_until("the end", || run.ended()).code(), Some(0));
        world.assert_live();
        assert!(world.status().0.get("supervisor").is_none());
    }
}

#[test]
fn a_second_run_names_the_first() {
    let world = World::new();
    world.configure("");
    let run = world.run();
    let second = world.sandbox.run(["run"]);
    assert_eq!(second.code, Some(75), "{second:?}");
    assert!(second.stderr.contains(&format!("process {}", run.id())), "{second:?}");
    assert_eq!(world.posts(), 1);
    assert_eq!(world.status().0["supervisor"]["pid"], run.id());
}

#[test]
fn once_beside_run_shares_its_state() {
    let world = World::new();
    world.configure("");
    let mut run = world.run();
    world.once_gives(0, []);
    assert_eq!(world.posts(), 1);
    world.once_gives(0, ["--force"]);
    run.signal(Signal::USR1);
    wait_for_grants(&world, 3);
    assert_eq!(run.stop().code(), Some(0));
    world.once_gives(0, ["--force"]);
    audit::assert_one_post_per_epoch(&world.server.audit());
    world.assert_live();
}

#[test]
fn usr1_refreshes_now() {
    let world = World::new();
    world.configure("");
    let mut run = world.run();
    for grants in 2..=3 {
        run.signal(Signal::USR1);
        wait_for_grants(&world, grants);
    }
    assert_eq!(run.stop().code(), Some(0));
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn a_wrong_config_changes_nothing() {
    let world = World::in_memory(8);
    let seed = world.configure("");
    let mut run = world.run();
    for wrong in ["nonsense", "[accounts]\n", ""] {
        world.sandbox.write_config(wrong);
        run.signal(Signal::HUP);
        let grants = world.grants();
        wait_for_grants(&world, grants + 1);
        assert_eq!(run.ended(), None);
    }
    fs::remove_file(world.sandbox.config_path()).unwrap();
    run.signal(Signal::HUP);
    let grants = world.grants();
    wait_for_grants(&world, grants + 1);
    world.assert_live();

    let path = world.token_file_of("elsewhere");
    world.configure_seed(&seed, &format!("token_file = \"{}\"", path.display()));
    run.signal(Signal::HUP);
    wait_for_live(&world, "elsewhere");
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn reload_adds_removes_and_renames_accounts() {
    let world = World::new();
    let (a, b, c) = (world.seed(), world.seed(), world.seed());
    world.configure_accounts(&[("a", &a), ("b", &b)]);
    let mut run = world.run();
    world.configure_accounts(&[("b2", &b), ("c", &c)]);
    run.signal(Signal::HUP);
    wait_for_live(&world, "b2");
    wait_for_live(&world, "c");
    assert_eq!(world.posts(), 3, "a renamed account has its token already");
    run.signal(Signal::USR1);
    wait_for_grants(&world, 5);
    audit::assert_one_post_per_epoch(&world.server.audit());
    assert_eq!(run.stop().code(), Some(0));
    assert_eq!(world.state_of("a")["generation"], 1, "an account that is gone is left alone");
    assert_eq!((&world.state_of("b2")["generation"], world.posts()), (&2.into(), 5));
}

#[test]
fn an_account_that_is_removed_in_mid_request_is_finished() {
    let world = World::new();
    let (a, b) = (world.seed(), world.seed());
    world.configure_accounts(&[("a", &a), ("b", &b)]);
    world.once_gives(0, ["--account", "a"]);
    world.fault(Fault { delay_after_commit_ms: 700, ..Fault::default() });
    let mut run = world.start_run();
    wait_for_grants(&world, 2);
    world.configure_accounts(&[("a", &a)]);
    run.signal(Signal::HUP);
    run.wait_for("the new config is in use");
    assert_eq!(run.stop().code(), Some(0), "{}", run.log());
    let state = world.state_of("b");
    assert_eq!(state["generation"], 1);
    assert!(state.get("in_flight").is_none());
    assert!(world.server.is_live(&read(&world.token_file_of("b"))));
}

#[test]
fn an_account_that_comes_back_in_mid_request_follows_the_newest_config() {
    let world = World::new();
    let (a, b) = (world.seed(), world.seed());
    world.configure_accounts(&[("a", &a)]);
    let mut run = world.run();
    world.fault(Fault { delay_after_commit_ms: 700, ..Fault::default() });
    run.signal(Signal::USR1);
    wait_for_grants(&world, 2);
    // Gone, and back with another token file, while its request is under way.
    world.configure_accounts(&[("b", &b)]);
    run.signal(Signal::HUP);
    wait_for_live(&world, "b");
    world.configure_accounts(&[("a", &a), ("b", &b)]);
    let config = fs::read_to_string(world.sandbox.config_path()).unwrap();
    world.sandbox.write_config(&config.replace("a.token", "moved.token"));
    run.signal(Signal::HUP);
    wait_for_live(&world, "moved");
    run.signal(Signal::USR1);
    wait_for_grants(&world, 5);
    assert_eq!(run.stop().code(), Some(0));
    assert_eq!(read(&world.token_file_of("moved")).expose(), world.state_of("a")["access_token"]["value"]);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn supervision_follows_the_state_directory() {
    let world = World::new();
    let seed = world.configure("");
    let mut run = world.run();
    let moved = world.sandbox.path("home/elsewhere");
    world.configure_seed(&seed, &format!("state_dir = \"{}\"", moved.display()));
    run.signal(Signal::HUP);
    // The token file tells of the login in the earlier directory, so that no state begins anew here.
    wait_until("the lock", || moved.join("default/supervisor").exists().then_some(()));
    run.wait_for("the new config is in use");
    // In the background: without supervision it would stay.
    let mut command = world.sandbox.command(["run"]);
    let mut second = Background::start(&mut command, world.sandbox.path("second"));
    assert_eq!(wait_until("the end of the second", || second.ended()).code(), Some(75), "{}", second.log());
    assert_eq!(run.stop().code(), Some(0));
}

#[test]
fn it_stays_up_on_a_dead_login_and_revives_by_a_new_one() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let (now, token) = (world.server.now(), world.refresh_token());
    world.server.issuer(|issuer| issuer.revoke_login(now, &token));
    world.pass_time(HOUR);
    let mut run = world.run();
    assert_eq!(world.posts(), 2);
    for _ in 0..3 {
        run.signal(Signal::USR1);
    }
    run.signal(Signal::HUP);
    assert_eq!((run.ended(), world.status().0["state"].as_str()), (None, Some("needs_login")));
    world.configure("");
    run.signal(Signal::HUP);
    wait_for_grants(&world, 2);
    assert_eq!(world.posts(), 3, "a dead refresh token is sent once");
    assert_eq!(run.stop().code(), Some(0));
    world.assert_live();
}

#[test]
fn fifty_accounts_are_refreshed_at_once() {
    let world = World::new();
    let accounts: Vec<(String, Secret)> =
        (0..50).map(|number| (format!("a{number}"), world.seed())).collect();
    let borrowed: Vec<(&str, &Secret)> = accounts.iter().map(|(name, seed)| (name.as_str(), seed)).collect();
    world.configure_accounts(&borrowed);
    let mut run = world.run();
    assert_eq!(world.posts(), 50);
    for (name, _) in &accounts {
        assert!(world.server.is_live(&read(&world.token_file_of(name))), "{name}");
    }
    run.signal(Signal::USR1);
    wait_for_grants(&world, 100);
    assert_eq!(run.stop().code(), Some(0));
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn the_fullest_log_shows_no_secret() {
    let client_secret = Secret::new("s3cret+/%: &=");
    let client = DemoClient::basic("zg", client_secret.expose());
    let world = World::with(IssuerOptions { clients: vec![client], ..IssuerOptions::default() });
    let seed = world.seed();
    let endpoint = world.server.token_endpoint();
    world.sandbox.write_config(&format!(
        "token_endpoint = \"{endpoint}\"\nclient_id = \"zg\"\nclient_secret = \"{}\"\n\
         refresh_token = \"{}\"\n",
        client_secret.expose(),
        seed.expose()
    ));
    // As it is, and as it travels: form-encoded, and that in base64 (RFC 6749 2.3.1).
    let (encoded, header) = ("s3cret%2B%2F%25%3A+%26%3D", "emc6czNjcmV0JTJCJTJGJTI1JTNBKyUyNiUzRA");
    let mut secrets = vec![seed, client_secret, Secret::new(encoded), Secret::new(header)];
    let mut command = world.sandbox.command(["run"]);
    let mut run = Background::start(command.env("RUST_LOG", "trace"), world.sandbox.path("log"));
    run.wait_for("supervising");
    for grants in 2..=3 {
        secrets.extend([world.token(), world.refresh_token()]);
        run.signal(Signal::USR1);
        wait_for_grants(&world, grants);
    }
    // A server that shows what it was sent, and one that breaks off.
    let echo = secrets.iter().map(Secret::expose).collect::<Vec<_>>().join(" ");
    for fault in [
        Fault::reply(400, format!("{{\"error\":\"x\",\"error_description\":\"{echo}\"}}")),
        Fault::reply(500, echo),
    ] {
        world.fault(fault);
        let posts = world.posts();
        run.signal(Signal::USR1);
        wait_until("a request", || (world.posts() > posts).then_some(()));
        let failed = || world.state().get("failure").is_some().then_some(());
        wait_until("a failure", failed);
        run.wait_for("server");
    }
    secrets.extend([world.token(), world.refresh_token()]);
    run.stop();
    let log = run.log();
    assert!(log.contains("DEBUG"), "{log}");
    let state = world.sandbox.run(["status", "--json"]).stdout;
    for secret in secrets {
        assert!(
            !log.contains(secret.expose()) && !state.contains(secret.expose()),
            "{}\n{log}",
            secret.expose()
        );
    }
}

#[test]
fn the_watchdog_is_answered() {
    let world = World::new();
    world.configure("");
    let path = world.sandbox.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let mut command = world.sandbox.command(["run"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let _run = Background::start(&mut command, world.sandbox.path("log"));
    let mut answers = 0;
    while answers < 3 {
        let mut message = [0; 1024];
        let length = socket.recv(&mut message).unwrap();
        answers += usize::from(message[..length].starts_with(b"WATCHDOG=1"));
    }
}
