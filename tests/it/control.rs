//! The control socket: what it answers, whom, and that nobody can hold the refreshes up through it.

mod limits;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use zg_tokend::testing::clock::monotonic;
use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::demo::{Fault, Outage};
use zg_tokend::testing::secret::Secret;

use crate::common::world::World;
use crate::common::{Background, Reply, audit, curl, figure, finish, leave_out, settled, wait_until};
use crate::status::formats::{assert_metrics, world_of_all_sorts};

fn socket(world: &World) -> PathBuf {
    world.sandbox.path("runtime/zg-tokend/control.sock")
}

/// curl is the client.
#[track_caller]
fn ask<const N: usize>(world: &World, path: &str, args: [&str; N]) -> Reply {
    let (socket, url) = (socket(world), format!("http://localhost{path}"));
    curl([&["--unix-socket", socket.to_str().unwrap(), &*url], &args[..]].concat())
}

#[track_caller]
fn post(world: &World, path: &str, body: &Value) -> Reply {
    ask(world, path, ["-H", "content-type: application/json", "-d", &body.to_string()])
}

#[track_caller]
fn assert_reply(reply: &Reply, status: u16, member: &str, value: &str) {
    assert_eq!((reply.status, reply.body[member].as_str()), (status, Some(value)), "{reply:?}");
    if status != 200 {
        assert!(reply.body["error_description"].is_string() && reply.body["hint"].is_string(), "{reply:?}");
    }
}

fn supervised(lifetime: u64) -> (World, Background) {
    let world = World::with_lifetime(lifetime);
    world.configure("");
    let run = world.run();
    (world, run)
}

#[track_caller]
fn assert_stops(run: &mut Background) {
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

#[test]
fn status_is_that_of_the_command_and_names_the_source() {
    let (world, mut run) = supervised(3600);
    let reply = ask(&world, "/v1/token/status", []);
    let (mut told, mut known) = (reply.body, world.status().0);
    for status in [&mut told, &mut known] {
        // It may become one less between two looks.
        assert!(status["expires_in"].take().is_i64());
        status["expires_at"].take();
    }
    assert_eq!((reply.status, &told), (200, &known));
    assert_eq!((&told["source"], &told["refresh_token"]["available"]), (&json!("login"), &json!(true)));
    assert_eq!(told["last_attempt"]["result"], "refreshed");
    assert_reply(&ask(&world, "/healthz", []), 200, "status", "ok");
    assert_reply(&ask(&world, "/readyz", []), 200, "status", "ready");
    assert_stops(&mut run);
    assert!(!socket(&world).exists(), "it goes with its process");
}

#[test]
fn a_crowd_that_refreshes_costs_one_request() {
    let (world, mut run) = supervised(3600);
    world.pass_time(Duration::from_secs(600));
    // Time for all of them to ask before the token is 10 s old.
    world.fault(Fault { delay_before_commit_ms: 8000, ..Fault::default() });
    let before = world.posts();
    let replies = crowd(200, || ask(&world, "/v1/token/refresh", ["-X", "POST"]));
    for reply in &replies {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    assert_eq!(world.posts() - before, 1);
    figure(format!("{} callers of /v1/token/refresh, {} POST", replies.len(), world.posts() - before));
    world.pass_time(Duration::from_secs(30));
    assert_reply(&ask(&world, "/v1/token/refresh", ["-X", "POST"]), 429, "error", "too_soon");
    assert_eq!(world.posts() - before, 1);
    assert_stops(&mut run);
}

#[test]
fn a_crowd_that_is_refused_costs_one_request() {
    let (world, mut run) = supervised(3600);
    world.fault(Fault { delay_before_commit_ms: 300, ..Fault::default() });
    let refused = world.token();
    let body = json!({ "access_token": refused.expose() });
    let replies = crowd(200, || post(&world, "/v1/token/rejected", &body));
    for reply in &replies {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    assert_eq!(world.posts(), 2);
    assert_ne!(world.token(), refused, "who is answered reads another token");
    figure(format!("{} callers of /v1/token/rejected, {} POST", replies.len(), world.posts() - 1));
    // The next one within a minute has to wait, by its fingerprint as well.
    let body = json!({ "sha256": world.token().fingerprint() });
    assert_reply(&post(&world, "/v1/token/rejected", &body), 429, "error", "too_soon");
    world.pass_time(Duration::from_secs(70));
    assert_reply(&post(&world, "/v1/token/rejected", &body), 200, "result", "replaced");
    assert_reply(&post(&world, "/v1/token/rejected", &body), 200, "result", "already_replaced");
    audit::assert_one_post_per_epoch(&world.server.audit());
    assert_stops(&mut run);
}

fn crowd(count: usize, ask: impl Fn() -> Reply + Sync) -> Vec<Reply> {
    thread::scope(|scope| {
        let callers: Vec<_> = (0..count).map(|_| scope.spawn(&ask)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    })
}

#[test]
fn a_report_while_there_is_no_token_at_all_is_no_success() {
    let world = World::new();
    world.configure("");
    world.outage(Some(Outage::Unavailable));
    let mut run = world.run();
    let reply = post(&world, "/v1/token/rejected", &json!({"access_token": "at_unknown"}));
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_stops(&mut run);
}

#[test]
fn a_failure_is_told_with_the_time_of_the_next_try() {
    let (world, mut run) = supervised(3600);
    world.pass_time(Duration::from_secs(600));
    world.fault(Fault::reply(503, "{}"));
    let headers = world.sandbox.path("headers");
    let reply = ask(&world, "/v1/token/refresh", ["-X", "POST", "-D", headers.to_str().unwrap()]);
    assert_reply(&reply, 503, "error", "http_503");
    let headers = fs::read_to_string(headers).unwrap().to_ascii_lowercase();
    assert!(headers.contains("retry-after: 1\r\n"), "{headers}");
    wait_until("the end of the wait", || {
        (ask(&world, "/v1/token/refresh", ["-X", "POST"]).status == 200).then_some(())
    });
    assert_eq!((world.grants(), world.posts()), (2, 3));
    assert_stops(&mut run);
}

#[test]
fn a_dead_login_is_a_conflict_until_another_one_is_given() {
    let (world, mut run) = supervised(3600);
    world.pass_time(Duration::from_secs(600));
    let (now, login) = (world.server.now(), world.refresh_token());
    assert!(world.server.issuer(|issuer| issuer.revoke_login(now, &login)));
    let reply = ask(&world, "/v1/token/refresh", ["-X", "POST"]);
    assert_reply(&reply, 409, "error", "invalid_grant");
    assert!(reply.body["hint"].is_string(), "{reply:?}");
    let metrics = metrics(&world);
    assert!(
        metrics.contains(r#"verdict{account="default",refuses="refresh_token",error="invalid_grant"} 1"#)
    );
    let seed = world.seed();
    assert_reply(
        &post(&world, "/v1/token", &json!({ "refresh_token": seed.expose() })),
        200,
        "result",
        "stored",
    );
    world.assert_live();
    assert_eq!(world.status().0["state"], "fresh");
    assert_stops(&mut run);
}

#[test]
fn a_token_that_is_given_without_refresh_token_is_served_and_status_says_so() {
    let world = World::new();
    world.configure_inputs("");
    let mut run = world.run();
    let body = json!({ "access_token": "given-1", "expires_in": 3000 });
    assert_reply(&post(&world, "/v1/token", &body), 200, "result", "stored");
    assert_eq!(world.token().expose(), "given-1");
    let status = ask(&world, "/v1/token/status", []).body;
    assert_eq!(
        (&status["source"], &status["refresh_token"]["available"]),
        (&json!("runtime"), &json!(false))
    );
    assert_eq!((&status["severity"], &status["state"]), (&json!("ok"), &json!("fresh")));
    assert!(status["hint"].as_str().unwrap().contains("refresh unavailable"), "{status:#}");
    let left = status["expires_in"].as_i64().unwrap();
    assert!((2970..=3000).contains(&left), "{status:#}");
    // As ZeroGravity is told; its life is the default one.
    assert_reply(&post(&world, "/v1/token", &json!({ "token": "given-2" })), 200, "result", "stored");
    assert_eq!(world.token().expose(), "given-2");
    let expires_at = world.server.now() / 1000 + 500;
    let body = json!({ "access_token": "given-3", "expires_at": expires_at });
    assert_reply(&post(&world, "/v1/token", &body), 200, "result", "stored");
    let status = ask(&world, "/v1/token/status", []).body;
    assert!((status["expires_at"].as_i64().unwrap() - expires_at).abs() <= 1, "{status:#}");
    let reply = ask(&world, "/v1/token/refresh", ["-X", "POST"]);
    assert_reply(&reply, 409, "error", "no_refresh_token");
    assert_eq!((world.token().expose(), world.posts()), ("given-3", 0));
    assert_stops(&mut run);
}

#[test]
fn a_login_that_is_given_with_its_token_is_used() {
    let world = World::new();
    world.configure_inputs("");
    let mut run = world.run();
    let login = world.seed();
    let body = json!({
        "access_token": "given", "expires_in": 3000, "refresh_token": login.expose(),
    });
    assert_reply(&post(&world, "/v1/token", &body), 200, "result", "stored");
    world.assert_live();
    assert_eq!((world.posts(), world.state()["generation"].as_u64()), (1, Some(2)));
    assert_reply(
        &post(&world, "/v1/token", &json!({ "refresh_token": login.expose() })),
        200,
        "result",
        "known",
    );
    assert_eq!(world.posts(), 1);
    let wrong = json!({ "refresh_token": "nobody's" });
    let before = world.token();
    // The earlier login goes on; what was asked for has failed.
    assert_reply(&post(&world, "/v1/token", &wrong), 409, "error", "invalid_grant");
    assert_eq!(world.token(), before);
    assert_stops(&mut run);
}

#[test]
fn a_wrong_request_is_answered_with_the_reason() {
    let (world, mut run) = supervised(3600);
    let before = world.state();
    for (body, words) in [
        ("{", "not valid JSON"),
        ("[]", "an array"),
        (r#"["a", "b", 3, 4, "c"]"#, "an array"),
        (r#"{"access_token": "a", "life": 3}"#, "unknown or wrong members"),
        (r#"{"access_token": "a", "expires_at": null}"#, "unknown or wrong members"),
        ("{}", "no token"),
        (r#"{"expires_in": 3}"#, "no access_token"),
        (r#"{"access_token": "a", "token": "b"}"#, "mean the same"),
        (r#"{"access_token": "a", "expires_in": 3, "expires_at": 4}"#, "mean the same"),
        (r#"{"access_token": "a", "expires_in": 0}"#, "expired"),
        (r#"{"access_token": ""}"#, "empty"),
        (r#"{"access_token": "a\nb"}"#, "more than one line"),
        (&format!(r#"{{"access_token": "{}"}}"#, "x".repeat(17 * 1024)), "over 16 KiB"),
    ] {
        let reply = ask(&world, "/v1/token", ["-H", "content-type: application/json", "-d", body]);
        assert_reply(&reply, 400, "error", "invalid_request");
        assert!(reply.body["error_description"].as_str().unwrap().contains(words), "{reply:?}");
        assert!(reply.body["hint"].is_string(), "{reply:?}");
    }
    let body = json!({ "access_token": "a", "expires_at": 1 });
    assert_reply(&post(&world, "/v1/token", &body), 409, "error", "expired");
    for body in [json!({}), json!({ "sha256": "abc" }), json!({ "sha256": "a", "access_token": "b" })] {
        assert_reply(&post(&world, "/v1/token/rejected", &body), 400, "error", "invalid_request");
    }
    assert_reply(&ask(&world, "/v1/token", ["-d", "{}"]), 415, "error", "unsupported_media_type");
    assert_reply(&ask(&world, "/v1/tokens", []), 404, "error", "not_found");
    assert_reply(&ask(&world, "/v1/token/status?account=x", []), 404, "error", "unknown_account");
    let headers = world.sandbox.path("headers");
    let reply = ask(&world, "/v1/token", ["-D", headers.to_str().unwrap()]);
    assert_reply(&reply, 405, "error", "method_not_allowed");
    let headers = fs::read_to_string(headers).unwrap().to_ascii_lowercase();
    assert!(headers.contains("allow: post"), "{headers}");
    assert_eq!((world.state(), world.posts()), (before, 1));
    assert_stops(&mut run);
}

#[test]
fn several_accounts_are_told_apart_by_name() {
    let world = World::new();
    let (a, b) = (world.seed(), world.seed());
    world.configure_accounts(&[("a", &a), ("b", &b)]);
    let mut run = world.run();
    let reply = ask(&world, "/v1/token/status", []);
    assert_reply(&reply, 400, "error", "account_missing");
    assert!(reply.body["hint"].as_str().unwrap().contains("a, b"), "{reply:?}");
    for name in ["a", "b"] {
        let reply = ask(&world, &format!("/v1/token/status?account={name}"), []);
        assert_reply(&reply, 200, "account", name);
    }
    let before = fs::read(world.token_file_of("a")).unwrap();
    let body =
        json!({ "sha256": Secret::new(fs::read_to_string(world.token_file_of("b")).unwrap()).fingerprint() });
    let reply = post(&world, "/v1/token/rejected?account=b", &body);
    assert_reply(&reply, 200, "result", "replaced");
    assert_eq!(fs::read(world.token_file_of("a")).unwrap(), before);
    let metrics = metrics(&world);
    for line in [
        r#"zg_tokend_refreshes_total{account="a"} 1"#,
        r#"zg_tokend_refreshes_total{account="b"} 2"#,
        r#"zg_tokend_token_generation{account="b"} 2"#,
        r#"zg_tokend_refresh_duration_seconds_count{account="b"} 2"#,
        r#"zg_tokend_token_gap_seconds_total{account="a"} 0"#,
        r#"zg_tokend_account_state{account="a",state="fresh"} 1"#,
    ] {
        assert!(metrics.contains(&format!("{line}\n")), "{line}: {metrics}");
    }
    assert_stops(&mut run);
}

fn metrics(world: &World) -> String {
    let socket = socket(world);
    let args = ["-q", "-sS", "--fail", "--unix-socket", socket.to_str().unwrap(), "http://localhost/metrics"];
    let output = finish(Command::new("curl").args(args));
    assert_eq!(output.code, Some(0), "{output:?}");
    output.stdout
}

#[test]
fn metrics_begin_with_what_status_prints() {
    let world = world_of_all_sorts();
    let mut run = world.run();
    // An account may fare better or worse between the two.
    let (served, printed) = wait_until("the same from both", || {
        let served = metrics(&world);
        let printed = world.sandbox.run(["status", "--format", "prometheus"]).stdout;
        served.starts_with(&printed).then_some((served, printed))
    });
    assert_metrics(&served);
    assert!(printed.contains("supervised{account=\"dead\"} 1\n"), "{printed}");
    let counted = &served[printed.len()..];
    assert!(counted.starts_with("# HELP zg_tokend_refreshes_total "), "{counted}");
    assert_stops(&mut run);
}

#[test]
fn failures_are_counted_by_kind() {
    let (world, mut run) = supervised(3600);
    world.pass_time(Duration::from_secs(600));
    world.fault(Fault::reply(503, "{}"));
    assert_eq!(ask(&world, "/v1/token/refresh", ["-X", "POST"]).status, 503);
    let metrics = metrics(&world);
    let line = r#"zg_tokend_refresh_failures_total{account="default",kind="http_503"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
    assert_stops(&mut run);
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let (world, mut run) = supervised(3600);
    assert!(socket(&world).metadata().unwrap().file_type().is_socket());
    assert_eq!(socket(&world).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(socket(&world).parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    run.signal(Signal::KILL);
    run.wait();
    assert!(socket(&world).exists());
    let mut run = world.run();
    assert_reply(&ask(&world, "/healthz", []), 200, "status", "ok");
    // Another run of the same user.
    let other = World::new();
    other.configure("");
    let mut command = other.sandbox.command(["run"]);
    command.env("XDG_RUNTIME_DIR", world.sandbox.path("runtime"));
    let mut second = Background::start(&mut command, other.sandbox.path("run.log"));
    second.wait_for("supervising");
    assert!(second.log().contains("another `zg-tokend run` uses the control socket"), "{}", second.log());
    other.assert_live();
    assert_stops(&mut second);
    let status = ask(&world, "/v1/token/status", []).body;
    assert_eq!(status["token_file"]["path"].as_str(), world.token_file().to_str());
    assert_stops(&mut run);
}

#[test]
fn under_systemd_it_is_in_the_runtime_directory() {
    let world = World::new();
    world.configure("");
    let directory = world.sandbox.path("given");
    fs::create_dir(&directory).unwrap();
    let mut command = world.sandbox.command(["run"]);
    command.env("RUNTIME_DIRECTORY", &directory);
    let mut run = Background::start(&mut command, world.sandbox.path("run.log"));
    run.wait_for("supervising");
    assert!(directory.join("control.sock").exists() && !socket(&world).exists());
    assert_stops(&mut run);
    // Without either there is none, and nothing to complain of.
    let mut command = world.sandbox.command(["run"]);
    command.env_remove("XDG_RUNTIME_DIR").env("RUST_LOG", "debug");
    let mut run = Background::start(&mut command, world.sandbox.path("run.log"));
    run.wait_for("supervising");
    assert!(run.log().contains("there is no control socket"), "{}", run.log());
    assert_stops(&mut run);
}

#[test]
fn a_file_that_is_no_socket_is_not_replaced_by_one() {
    let world = World::new();
    world.configure("");
    let path = socket(&world);
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, "mine").unwrap();
    let mut run = world.run();
    assert!(run.log().contains("exists and is not a socket"), "{}", run.log());
    world.assert_live();
    assert_stops(&mut run);
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn an_account_that_waits_for_its_server_holds_nobody_else_up() {
    let world = World::with(IssuerOptions::default());
    let (a, b) = (world.seed(), world.seed());
    world.configure_accounts(&[("a", &a), ("b", &b)]);
    let mut run = world.run();
    for name in ["a", "b"] {
        world.pass_time_of(name, Duration::from_secs(600));
    }
    world.fault(Fault { delay_before_commit_ms: 15_000, ..Fault::default() });
    thread::scope(|scope| {
        let slow = scope.spawn(|| ask(&world, "/v1/token/refresh?account=a", ["-X", "POST"]));
        wait_until("its request", || (world.posts() == 3).then_some(()));
        assert_reply(&ask(&world, "/v1/token/refresh?account=b", ["-X", "POST"]), 200, "result", "replaced");
        assert_reply(&ask(&world, "/v1/token/status?account=a", []), 200, "state", "refreshing");
        assert!(!slow.is_finished());
        assert_reply(&slow.join().unwrap(), 200, "result", "replaced");
    });
    assert_stops(&mut run);
}

/// Somebody who can replace the socket would receive the tokens that are sent to it.
#[test]
fn a_directory_that_somebody_else_can_write_gets_no_socket() {
    for (mode, who) in [(0o777, "anybody"), (0o1777, "others"), (0o770, "others")] {
        let world = World::new();
        world.configure("");
        let directory = socket(&world).parent().unwrap().to_owned();
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
        assert_no_socket(&world, &format!("can be written by {who} (mode {mode:04o})"));
    }
    let world = World::new();
    world.configure("");
    let runtime = world.sandbox.path("runtime");
    fs::set_permissions(&runtime, Permissions::from_mode(0o777)).unwrap();
    assert_no_socket(&world, "can be written by anybody");
    if !rustix::process::geteuid().is_root() {
        leave_out("a runtime directory of somebody else, which takes root");
        return;
    }
    fs::set_permissions(&runtime, Permissions::from_mode(0o1777)).unwrap();
    let directory = runtime.join("zg-tokend");
    fs::create_dir(&directory).unwrap();
    std::os::unix::fs::chown(&directory, Some(65534), None).unwrap();
    assert_no_socket(&world, "belongs to nobody");
}

#[track_caller]
fn assert_no_socket(world: &World, why: &str) {
    let mut run = world.run();
    world.assert_live();
    assert!(!socket(world).exists() && run.log().contains(why), "{}", run.log());
    assert_stops(&mut run);
}
