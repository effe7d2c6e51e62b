//! `status`: each state as it is, offline, and nothing touched.

pub mod formats;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use zg_tokend::testing::demo::{Fault, Outage};

use crate::common::world::World;
use crate::common::{Background, under, wait_until};

const HOUR: Duration = Duration::from_secs(3600);

fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// State and exit code by the JSON, which the text must not contradict.
#[track_caller]
fn assert_status(world: &World, state: &str, code: i32, text: &str) {
    let (status, exit) = world.status();
    assert_eq!((status["state"].as_str(), exit), (Some(state), code), "{status:#}");
    let severity = ["ok", "warning", "critical", "unknown"][code as usize];
    assert_eq!(status["severity"], severity);
    assert_eq!(status.get("problem").is_some(), code != 0, "{status:#}");
    let output = world.sandbox.run(["status"]);
    assert_eq!((output.code, output.stderr.as_str()), (Some(code), ""));
    let first = output.stdout.lines().next().unwrap();
    assert!(first.starts_with(&format!("default: {}", state.replace('_', " "))), "{output:?}");
    assert!(output.stdout.contains(text), "{output:?}");
}

fn with_token() -> World {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    world
}

#[test]
fn before_the_first_token() {
    let world = World::new();
    world.configure("");
    assert_status(&world, "due", 2, "there is no token yet");
    let (status, _) = world.status();
    assert_eq!(status["refresh_token"], json!({ "available": true, "source": "config" }));
    assert_eq!(status["token_file"]["exists"], false);
}

#[test]
fn a_fresh_token() {
    let world = with_token();
    assert_status(&world, "fresh", 0, "expires in 59 min");
    let (status, _) = world.status();
    let now = world.server.now() / 1000;
    assert!((status["expires_at"].as_i64().unwrap() - now - 3600).abs() < 30, "{status:#}");
    assert!((status["expires_in"].as_i64().unwrap() - 3600).abs() < 30);
    assert!((now + 2000..now + 2430).contains(&status["next_refresh_at"].as_i64().unwrap()));
    assert_eq!((&status["generation"], &status["source"]), (&json!(1), &json!("login")));
    assert_eq!(status["token_file"]["current"], true);
    assert_eq!(status["last_attempt"]["result"], "refreshed");
    assert_eq!(
        (&status["refresh_token"]["available"], &status["refresh_token"]["source"]),
        (&json!(true), &json!("state"))
    );
    assert!(status["refresh_token"]["rotated_at"].is_i64() && status.get("supervisor").is_none());
}

#[test]
fn a_token_grows_due_then_overdue_then_expires() {
    let world = with_token();
    world.pass_time(minutes(41));
    assert_status(&world, "due", 0, "expires in 18 min");
    world.pass_time(minutes(14));
    assert_status(&world, "due", 1, "a refresh is overdue for");
    world.pass_time(minutes(10));
    assert_status(&world, "due", 2, "the token expired 5 min");
    assert!(world.status().0["expires_in"].as_i64().unwrap() < -290);
}

#[test]
fn a_failed_refresh_backs_off() {
    let world = with_token();
    world.pass_time(minutes(41));
    world.fault(Fault::reply(503, "{}"));
    world.once_gives(69, []);
    assert_status(&world, "backing_off", 1, "HTTP 503");
    let (status, _) = world.status();
    assert_eq!(
        (&status["last_attempt"]["result"], &status["last_attempt"]["failures"]),
        (&json!("http_503"), &json!(1))
    );
}

#[test]
fn a_first_refresh_that_failed_names_the_cause() {
    let world = World::new();
    world.configure("");
    world.fault(Fault::reply(503, "{}"));
    world.once_gives(69, []);
    assert_status(&world, "backing_off", 2, "HTTP 503");
    assert!(world.status().0["problem"].as_str().unwrap().contains("HTTP 503"));
}

#[test]
fn a_failed_forced_refresh_of_a_fresh_token_is_named() {
    let world = with_token();
    world.fault(Fault::reply(503, "{}"));
    world.once_gives(69, ["--force"]);
    assert_status(&world, "fresh", 0, "http_503");
}

#[test]
fn a_dead_login_is_critical_though_the_token_lives() {
    let world = with_token();
    world.fault(Fault::reply(400, r#"{"error":"invalid_grant","error_description":"gone for good"}"#));
    world.once_gives(77, ["--force"]);
    assert_status(&world, "needs_login", 2, "gone for good");
    let (status, _) = world.status();
    assert_eq!(status["refresh_token"]["available"], false);
    assert!(status["hint"].as_str().unwrap().contains("log in again"));
}

#[test]
fn a_refused_client_is_a_warning_while_the_token_lives() {
    let world = with_token();
    world.fault(Fault::reply(401, r#"{"error":"invalid_client"}"#));
    world.once_gives(78, ["--force"]);
    assert_status(&world, "needs_config", 1, "invalid_client");
    world.pass_time(HOUR);
    assert_status(&world, "needs_config", 2, "expired");
}

#[test]
fn the_supervisor_is_named_while_it_lives() {
    let world = World::new();
    world.configure("");
    let mut run = world.run();
    assert_status(&world, "fresh", 0, &format!("process {}", run.id()));
    run.signal(Signal::KILL);
    wait_until("its end", || run.ended());
    assert_status(&world, "fresh", 0, "supervisor    none");
}

#[test]
fn a_request_under_way_is_no_failure() {
    let world = with_token();
    world.fault(Fault { delay_before_commit_ms: 30_000, ..Fault::default() });
    let mut command = world.sandbox.command(["once", "--force"]);
    let mut once = Background::start(&mut command, world.sandbox.path("log"));
    wait_until("the request", || (world.posts() == 2).then_some(()));
    assert_status(&world, "refreshing", 0, "expires in");
    once.signal(Signal::KILL);
    wait_until("its end", || once.ended());
    assert_status(&world, "due", 1, "a process died while its request was under way");
}

/// A refresh stores the token and then publishes it. A monitor that looks in between reports nothing.
#[test]
fn a_token_that_is_being_published_is_no_problem() {
    let world = with_token();
    let delay = "inject=renameat:delay_enter=300000";
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=renameat", "-e", delay, "--"];
    let mut command = under(strace, &world.sandbox.command(["once", "--force"]));
    let mut once = Background::start(&mut command, world.sandbox.path("log"));
    let ended = wait_until("the end of the pass", || {
        let (status, code) = world.status();
        assert_eq!(code, 0, "{status:#}");
        once.ended()
    });
    assert_eq!((ended.code(), world.posts()), (Some(0), 2), "{}", once.log());
}

#[test]
fn the_token_file_is_looked_at() {
    let world = with_token();
    fs::write(world.token_file(), "something else").unwrap();
    assert_status(&world, "fresh", 1, "holds something else than the newest token");
    fs::remove_file(world.token_file()).unwrap();
    assert_status(&world, "fresh", 2, "is missing");
    fs::create_dir(world.token_file()).unwrap();
    assert_status(&world, "fresh", 2, "is a directory");
}

#[test]
fn a_state_that_cannot_be_used_is_unknown() {
    let world = with_token();
    let state = world.state();
    world.write_state(&json!({ "version": 7 }));
    assert_status(&world, "unknown", 3, "version 7");
    fs::write(world.state_path("default", "state"), "garbage").unwrap();
    assert_status(&world, "unknown", 3, "is not valid JSON");
    world.write_state(&state);
    assert_status(&world, "fresh", 0, "");
}

#[test]
fn a_wall_clock_that_was_set_back_is_named() {
    let world = with_token();
    let mut state = world.state();
    let issued = &mut state["access_token"]["issued_at"];
    issued["wall_ms"] = (issued["wall_ms"].as_i64().unwrap() + 3_600_000).into();
    world.write_state(&state);
    assert_status(&world, "due", 1, "the wall clock is before the token's issue");
}

#[test]
fn the_worst_account_speaks_for_all() {
    let world = World::new();
    let (a, b) = (world.seed(), world.seed());
    world.configure_accounts(&[("a", &a), ("b", &b)]);
    world.once_gives(0, ["--account", "a"]);
    assert_eq!(world.sandbox.run(["status"]).code, Some(2));
    assert_eq!(world.sandbox.run(["status", "--account", "a"]).code, Some(0));
    let output = world.sandbox.run(["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&json["version"], &json["severity"]), (&json!(1), &json!("critical")));
    assert_eq!(json["config"], world.sandbox.config_path().to_str().unwrap());
    assert_eq!(json["accounts"].as_array().unwrap().len(), 2);
}

#[test]
fn wrong_usage_and_wrong_config_are_unknown_to_monitoring() {
    let world = World::new();
    assert_eq!(world.sandbox.run(["status"]).code, Some(3), "no config");
    world.configure("");
    let bogus = world.sandbox.run(["--account", "status", "once", "--bogus"]);
    assert_eq!(bogus.code, Some(2), "no mistake of status: {bogus:?}");
    for args in [
        &["status", "--bogus"][..],
        &["--account", "default", "status", "--bogus"],
        &["status", "--account", "nobody"],
        &["status", "surplus"],
    ] {
        let output = world.sandbox.run(args.iter().copied());
        assert_eq!((output.code, output.stdout.as_str()), (Some(3), ""), "{output:?}");
    }
    world.sandbox.write_config("nonsense");
    assert_eq!(world.sandbox.run(["status"]).code, Some(3));
}

/// Everything below a directory, and when it last changed in any way.
fn tree(directory: &Path, found: &mut BTreeMap<PathBuf, [i64; 5]>) {
    let record = |path: &Path| {
        let stat = fs::symlink_metadata(path).unwrap();
        let number = |value: u64| i64::try_from(value).unwrap();
        let changed = [stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec()];
        [changed[0], changed[1], changed[2], changed[3], number(stat.ino())]
    };
    found.insert(directory.to_owned(), record(directory));
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tree(&path, found);
        } else {
            found.insert(path.clone(), record(&path));
        }
    }
}

#[test]
fn it_writes_nothing_and_asks_nobody() {
    let world = World::new();
    world.configure("");
    world.outage(Some(Outage::Closed));
    let look = || {
        let mut before = BTreeMap::new();
        tree(&world.sandbox.path(""), &mut before);
        for args in [&["status"][..], &["status", "--json"], &["check"]] {
            world.sandbox.run(args.iter().copied());
        }
        let mut after = BTreeMap::new();
        tree(&world.sandbox.path(""), &mut after);
        assert_eq!(before, after);
    };
    look();
    world.outage(None);
    world.once_gives(0, []);
    world.outage(Some(Outage::Closed));
    let seen = world.server.audit().len();
    look();
    world.pass_time(HOUR);
    look();
    let mut state = world.state();
    let refresh_token = world.refresh_token().fingerprint().to_string();
    state["in_flight"] = json!({ "refresh_token": refresh_token, "at": state["access_token"]["issued_at"] });
    world.write_state(&state);
    look();
    fs::write(world.state_path("default", "state"), "garbage").unwrap();
    look();
    assert_eq!(world.server.audit().len(), seen);
}
