//! Times that the server gives: how long a token lives, and how long to wait.

use std::fs::File;
use std::process::Command;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::json;
use zg_tokend::testing::clock::monotonic;
use zg_tokend::testing::demo::AuditEvent;
use zg_tokend::testing::demo::Fault;
use zg_tokend::testing::demo::{ExpiresIn, IssuerOptions};

use crate::common::world::World;
use crate::common::{finish, wait_until};

/// When each request came, on the server's clock.
fn requests(world: &World) -> Vec<i64> {
    let log = world.server.audit();
    log.iter().filter(|entry| entry.event == AuditEvent::Post).map(|entry| entry.at).collect()
}

/// Whatever the server said with its 429, nothing is sent before `not_before`, and then it is.
#[track_caller]
fn assert_waits(retry_after: impl FnOnce(&World) -> (String, i64)) {
    let world = World::new();
    world.configure("");
    let (header, not_before) = retry_after(&world);
    world.fault(Fault::reply(429, "{}").with_header("retry-after", &header));
    let mut run = world.start_run();
    wait_until("the first request", || (world.posts() == 1).then_some(()));
    // Nobody's impatience shortens it.
    run.signal(Signal::USR1);
    run.signal(Signal::HUP);
    wait_until("a token", || (world.grants() == 1).then_some(()));
    let requests = requests(&world);
    assert_eq!(requests.len(), 2);
    assert!(requests[1] >= not_before, "{requests:?}, not before {not_before}");
}

#[test]
fn retry_after_in_seconds_is_obeyed() {
    assert_waits(|world| ("3".into(), world.server.now() + 3000));
}

#[test]
fn retry_after_as_a_date_is_obeyed() {
    assert_waits(|world| {
        // Whole seconds: at least three from now.
        let date = world.server.now() / 1000 + 4;
        let at = UNIX_EPOCH + Duration::from_secs(date.cast_unsigned());
        (httpdate::fmt_http_date(at), date * 1000)
    });
}

#[test]
fn tokens_of_two_seconds_never_fail_a_reader() {
    let world = World::in_memory(2);
    world.configure("");
    let _run = world.run();
    let probe = world.sandbox.path("probe");
    let (begun, until) = (world.server.now(), monotonic() + 8_000);
    let mut excused_until = begun;
    while monotonic() < until {
        // A second is all there is between refresh and end, and a busy machine may take it: what
        // takes us so long may have stopped `run` as well.
        let before = monotonic();
        File::create(&probe).unwrap().sync_all().unwrap();
        // Another process has its turn several times in a refresh, as it has in this.
        finish(&mut Command::new("true"));
        thread::sleep(Duration::from_millis(10));
        if monotonic() - before > 100 {
            excused_until = world.server.now() + 2000;
        }
        let is_live = world.reads_live(&world.token_file());
        assert!(is_live || world.server.now() < excused_until, "a dead token was read");
    }
    // Half the life less 5 %, and the one before; fewer where the machine stood still.
    let most = (world.server.now() - begun) as usize / 900 + 2;
    let least = if excused_until > begun { 2 } else { 5 };
    assert!((least..=most).contains(&world.posts()), "{} requests", world.posts());
}

#[test]
fn tokens_of_a_year_and_more_are_left_alone() {
    let worlds = [365 * 86_400, 10 * 365 * 86_400, i64::MAX].map(|seconds| {
        let world = World::with(IssuerOptions {
            access_token_lifetime: Duration::from_secs(365 * 86_400),
            expires_in: ExpiresIn::Claimed(json!(seconds)),
            ..IssuerOptions::default()
        });
        world.configure("");
        let run = world.run();
        (world, run)
    });
    thread::sleep(Duration::from_secs(1));
    for (world, run) in worlds {
        world.assert_live();
        assert_eq!(world.posts(), 1, "{}", run.log());
    }
}

/// The same reply to every request: how many are made, and in how many times five seconds.
fn requests_answered_by(body: &serde_json::Value) -> (usize, usize) {
    let world = World::new();
    world.configure("");
    world.server.faults(|faults| faults.standing = Some(Fault::reply(200, body.to_string())));
    let _run = world.start_run();
    wait_until("the first request", || (world.posts() > 0).then_some(()));
    let begun = monotonic();
    thread::sleep(Duration::from_secs(5));
    wait_until("another request", || (world.posts() > 1).then_some(()));
    let requests = world.posts();
    (requests, 1 + (monotonic() - begun) as usize / 6000)
}

#[test]
fn a_repeated_or_dead_token_is_no_loop() {
    let token =
        |member: &str, value: i64| json!({"access_token": "at_same", "token_type": "Bearer", member: value});
    thread::scope(|scope| {
        // At half its life, and never twice a second; else by the backoff: 1, 2, 4 seconds.
        for (body, most) in [
            (token("expires_in", 2), 7),
            (token("expires_in", 1), 7),
            (token("expires_in", 0), 4),
            (token("expires_in", -1), 4),
        ] {
            scope.spawn(move || {
                let (requests, times) = requests_answered_by(&body);
                assert!(requests <= most * times, "{requests} requests for {body}");
            });
        }
    });
}
