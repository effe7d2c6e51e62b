//! `once`: one pass, one line, one exit code.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::demo::{Fault, Outage};
use zg_tokend::testing::secret::Secret;

use crate::common::world::{World, read};
use crate::common::{Output, audit};

const HOUR: Duration = Duration::from_secs(3600);

fn json(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn the_first_pass_gets_a_token() {
    let world = World::new();
    world.configure("");
    let output = world.once_gives(0, []);
    assert!(output.stdout.starts_with("default: refreshed: token 1 "), "{output:?}");
    assert_eq!(output.stderr, "");
    world.assert_live();
    assert_eq!(world.posts(), 1);
}

#[test]
fn nothing_due_is_no_network() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    // Every connection is seen now, whatever is asked on it.
    world.outage(Some(Outage::Closed));
    let seen = world.server.audit().len();
    let token = world.token();
    let output = world.once_gives(0, []);
    assert!(output.stdout.starts_with("default: fresh"), "{output:?}");
    assert_eq!(world.server.audit().len(), seen);
    assert_eq!(world.token(), token);
}

#[test]
fn a_due_token_is_refreshed() {
    let world = World::new();
    world.configure("skew = \"10m\"");
    world.once_gives(0, []);
    let token = world.token();
    // The jitter may take 5 % of the life.
    world.pass_time(Duration::from_secs(46 * 60));
    world.once_gives(0, []);
    assert_eq!(world.posts(), 1, "a minute before it is due at the earliest");
    world.pass_time(Duration::from_secs(4 * 60));
    world.once_gives(0, []);
    assert_eq!(world.posts(), 2);
    assert_ne!(world.token(), token);
    world.assert_live();
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn force_refreshes_what_is_not_due() {
    let world = World::new();
    world.configure("");
    for posts in 1..=3 {
        world.once_gives(0, ["--force"]);
        assert_eq!(world.posts(), posts);
        world.assert_live();
    }
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn every_refreshes_what_would_expire_before_the_next_pass() {
    let world = World::new();
    world.configure("skew = \"1m\"");
    world.once_gives(0, []);
    // 60 min of life; the next pass comes in 57, and 2 are the margin.
    world.once_gives(0, ["--every", "57m"]);
    assert_eq!(world.posts(), 1);
    world.once_gives(0, ["--every", "1h"]);
    assert_eq!(world.posts(), 2);
}

#[test]
fn passes_too_far_apart_earn_a_warning() {
    let world = World::new();
    world.configure("skew = \"1m\"");
    world.once_gives(0, []);
    let set_back = |seconds: i64| {
        let path = world.state_path("default", "last-pass");
        let mut note: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        note["monotonic_ms"] = (note["monotonic_ms"].as_i64().unwrap() - seconds * 1000).into();
        fs::write(path, note.to_string()).unwrap();
        world.pass_time(HOUR);
    };
    set_back(50);
    assert_eq!(world.once_gives(0, []).stderr, "");
    set_back(29 * 60 + 30);
    let late = world.once_gives(0, []);
    assert!(late.stderr.contains("--every 30m"), "{late:?}");
    set_back(29 * 60 + 30);
    assert_eq!(world.once_gives(0, ["--quiet"]).stderr, "");
    set_back(29 * 60 + 30);
    assert_eq!(world.once_gives(0, ["--every", "30m"]).stderr, "");
}

#[test]
fn quiet_says_nothing_but_failures() {
    let world = World::new();
    world.configure("");
    for args in [["--quiet"].as_slice(), &["--quiet"], &["--quiet", "--force"]] {
        let output = world.once_gives(0, args.iter().copied());
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    }
    world.fault(Fault::reply(503, "{}"));
    let output = world.once_gives(69, ["--quiet", "--force"]);
    assert_eq!(output.stdout, "");
    assert!(output.stderr.starts_with("error: account default: "), "{output:?}");
}

/// Cron makes a mail of each line.
#[test]
fn quiet_tells_a_failure_that_goes_on_once_a_day() {
    let world = World::new();
    world.configure_seed(&Secret::new("wrong"), "");
    let quiet = |code| world.once_gives(code, ["--quiet"]).stderr;
    let first = quiet(77);
    assert!(first.starts_with("error: account default: the server refuses the refresh token"), "{first}");
    assert_eq!((quiet(77), quiet(77)), (String::new(), String::new()));
    // A person who asks is told.
    assert!(world.once_gives(77, []).stderr.starts_with("error: account default: the server refuses"));
    assert_eq!(quiet(77), "");

    let note = world.state_path("default", "last-pass");
    let yesterday = |by: i64| {
        let mut last: Value = serde_json::from_slice(&fs::read(&note).unwrap()).unwrap();
        last["failure"]["told_at"] = (last["failure"]["told_at"].as_i64().unwrap() - by).into();
        fs::write(&note, last.to_string()).unwrap();
    };
    yesterday(86_000_000);
    assert_eq!(quiet(77), "");
    yesterday(400_000);
    let again = quiet(77);
    assert!(again.starts_with("error: account default: still, since 20"), "{again}");
    assert!(
        again.contains(": the server refuses the refresh token") && again.contains("\nhint: "),
        "{again}"
    );
    assert_eq!(quiet(77), "");
    // The clock was a week ahead when it was told.
    yesterday(-7 * 86_400_000);
    assert_ne!(quiet(77), "");

    // Another failure, and the same after a success, are new.
    world.configure("");
    world.fault(Fault::reply(503, "{}"));
    let other = quiet(69);
    assert!(other.starts_with("error: account default: the token endpoint"), "{other}");
    world.pass_time(HOUR);
    quiet(0);
    world.configure_seed(&Secret::new("wrong"), "");
    fs::remove_file(world.state_path("default", "state")).unwrap();
    assert_eq!(quiet(77), first);
}

#[test]
fn quiet_says_what_needs_a_person() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    world.configure_seed(&Secret::new("wrong"), "");
    let output = world.once_gives(0, ["--quiet"]);
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains("the earlier one stays in use"), "{output:?}");

    fs::write(world.state_path("default", "state"), "{").unwrap();
    fs::remove_file(world.token_file()).unwrap();
    world.configure("");
    let output = world.once_gives(0, ["--quiet"]);
    assert!(output.stderr.contains("state.corrupt-1"), "{output:?}");
}

#[test]
fn json_is_one_object_with_a_version() {
    let world = World::new();
    world.configure("");
    for (result, generation) in [("refreshed", 1), ("fresh", 1)] {
        let output = world.once_gives(0, ["--json"]);
        let json = json(&output);
        assert_eq!((&json["version"], &json["exit_code"]), (&1.into(), &0.into()));
        let account = &json["accounts"][0];
        assert_eq!((&account["account"], &account["result"]), (&"default".into(), &result.into()));
        assert_eq!(account["generation"], generation);
        let expires_at = account["expires_at"].as_i64().unwrap();
        assert!((expires_at - world.server.now() / 1000 - 3600).abs() < 60, "{json}");
        assert!(account["next_refresh_at"].as_i64().unwrap() < expires_at - 1000, "{json}");
    }
    world.fault(Fault::reply(503, "{}"));
    let failed = json(&world.once_gives(69, ["--json", "--force"]));
    assert_eq!((&failed["exit_code"], &failed["accounts"][0]["exit_code"]), (&69.into(), &69.into()));
    assert_eq!(failed["accounts"][0]["result"], "failed");
    assert!(failed["accounts"][0]["message"].as_str().unwrap().contains("503"));
}

#[test]
fn account_picks_one() {
    let world = World::new();
    let (a, b) = (world.seed(), world.seed());
    world.configure_accounts(&[("a", &a), ("b", &b)]);
    let output = world.once_gives(0, ["--account", "b"]);
    assert!(output.stdout.starts_with("b: ") && output.stdout.lines().count() == 1, "{output:?}");
    assert!(world.server.is_live(&read(&world.token_file_of("b"))));
    assert!(!world.token_file_of("a").exists() && world.posts() == 1);

    let unknown = world.once_gives(78, ["--account", "c"]);
    assert!(unknown.stderr.contains("accounts in the config: a, b"), "{unknown:?}");
    assert_eq!(world.posts(), 1);
}

#[test]
fn wrong_usage_is_2() {
    let world = World::new();
    world.configure("");
    let wrong: [&[&str]; 5] =
        [&["--bogus"], &["--json", "--quiet"], &["--every"], &["--every", "soon"], &["surplus"]];
    for args in wrong {
        let output = world.once(args.iter().copied());
        assert_eq!(output.code, Some(2), "{args:?} {output:?}");
        assert!(output.stderr.starts_with("error:"), "{output:?}");
    }
    assert_eq!(world.sandbox.run([]).code, Some(2));
    assert_eq!(world.posts(), 0);
    for args in [["--help"], ["--version"]] {
        let output = world.sandbox.run(args);
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
    }
}

#[test]
fn a_failure_is_69_and_later_passes_wait() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let token = world.token();
    world.outage(Some(Outage::Unavailable));
    // In an outage that is 42 minutes old it is some five minutes to the next try.
    for minutes in [60, 14, 14, 14] {
        world.pass_time(Duration::from_secs(minutes * 60));
        let output = world.once_gives(69, []);
        assert!(output.stderr.contains("503"), "{output:?}");
    }
    let posts = world.posts();
    world.outage(None);
    for args in [&[][..], &["--force"]] {
        world.once_gives(69, args.iter().copied());
        assert_eq!(world.posts(), posts, "held inside not_before");
    }
    assert_eq!(world.token(), token, "no failure touches the token");
    world.pass_time(Duration::from_secs(300));
    world.once_gives(0, []);
    assert_eq!(world.posts(), posts + 1);
    world.assert_live();
}

#[test]
fn retry_after_is_obeyed_across_passes() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    world.fault(Fault::reply(429, "{}").with_header("retry-after", "120"));
    world.once_gives(69, ["--force"]);
    world.pass_time(Duration::from_secs(100));
    world.once_gives(69, ["--force"]);
    assert_eq!(world.posts(), 2);
    world.pass_time(Duration::from_secs(20));
    world.once_gives(0, ["--force"]);
    assert_eq!(world.posts(), 3);

    // Clamped to an hour, whatever the server wants.
    world.fault(Fault::reply(503, "").with_header("retry-after", "86400"));
    world.once_gives(69, ["--force"]);
    world.pass_time(HOUR);
    world.once_gives(0, []);
}

#[test]
fn a_live_token_that_is_not_due_outlives_a_failed_forced_refresh() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    world.fault(Fault::reply(500, "oops"));
    world.once_gives(69, ["--force"]);
    world.once_gives(0, []);
    world.assert_live();
    assert_eq!(world.posts(), 2);
}

#[test]
fn the_gravest_code_of_several_accounts_is_the_whole_s() {
    let world = World::with(IssuerOptions::default());
    let seeds: Vec<_> = (0..5).map(|_| world.seed()).collect();
    let names = ["fine", "down", "dead", "moved", "broken"];
    let accounts: Vec<_> = names.into_iter().zip(&seeds).collect();
    world.configure_accounts(&accounts);
    world.once_gives(0, []);
    // Each account is made to fail in its own way, the graver the later.
    let now = world.server.now();
    let expect = |code: i32| {
        let output = world.once_gives(code, ["--json"]);
        let json = json(&output);
        assert_eq!(json["exit_code"], code);
        let of = |name: &str| {
            let accounts = json["accounts"].as_array().unwrap();
            accounts.iter().find(|account| account["account"] == name).unwrap()["exit_code"].as_i64()
        };
        assert_eq!(of("fine"), Some(0));
        (of("down"), of("dead"), of("moved"), of("broken"))
    };
    assert_eq!(expect(0), (Some(0), Some(0), Some(0), Some(0)));

    world.pass_time_of("down", HOUR);
    world.fault(Fault::reply(503, "{}"));
    assert_eq!(expect(69).0, Some(69));

    world.server.issuer(|issuer| issuer.revoke_login(now, &seeds[2]));
    world.pass_time_of("dead", HOUR);
    assert_eq!(expect(77).1, Some(77));

    fs::remove_file(world.token_file_of("moved")).unwrap();
    fs::create_dir(world.token_file_of("moved")).unwrap();
    world.pass_time_of("moved", HOUR);
    assert_eq!(expect(78).2, Some(78));

    let state = world.state_path("broken", "state");
    fs::remove_file(&state).unwrap();
    fs::create_dir(&state).unwrap();
    assert_eq!(expect(74).3, Some(74));
    assert!(world.server.is_live(&read(&world.token_file_of("fine"))));
}
