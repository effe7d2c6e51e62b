//! `status` in each of its forms: what a schema, promtool, a pipe and a script see.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use zg_tokend::testing::demo::Fault;

use crate::common::world::World;
use crate::common::{feed, wait_until};

/// Holds a text against a schema in packaging/, by python3-jsonschema.
#[track_caller]
pub fn assert_schema(schema: &str, text: &str) {
    const VALIDATE: &str = "import json, sys, jsonschema\n\
        schema = json.load(open(sys.argv[1]))\n\
        validator = jsonschema.validators.validator_for(schema)\n\
        validator.check_schema(schema)\n\
        validator(schema).validate(json.load(sys.stdin))";
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(schema);
    let output = feed(Command::new("python3").args(["-c", VALIDATE]).arg(schema), text);
    assert_eq!(output.code, Some(0), "{text}\n{}", output.stderr);
}

/// Has promtool judge metrics: it has nothing to say of good ones.
#[track_caller]
pub fn assert_metrics(text: &str) {
    let judged = feed(Command::new("promtool").args(["check", "metrics"]), text);
    let said = (judged.code, judged.stdout.as_str(), judged.stderr.as_str());
    assert_eq!(said, (Some(0), "", ""), "{text}");
}

/// Accounts in every state, one of each.
pub fn world_of_all_sorts() -> World {
    let world = World::new();
    let names = ["fresh", "due", "failing", "dead", "client", "newer", "none", "missing", "expired"];
    let seeds: Vec<_> = names.iter().map(|_| world.seed()).collect();
    world.configure_accounts(&names.iter().copied().zip(&seeds).collect::<Vec<_>>());
    let refresh = |name, code, fault: Option<Fault>| {
        if let Some(fault) = fault {
            world.fault(fault);
        }
        world.once_gives(code, ["--force", "--account", name]);
    };
    for name in names.into_iter().filter(|name| *name != "none") {
        refresh(name, 0, None);
    }
    for (name, minutes) in [("due", 41), ("failing", 45), ("expired", 70)] {
        world.pass_time_of(name, Duration::from_secs(minutes * 60));
    }
    refresh("failing", 69, Some(Fault::reply(503, "{}")));
    refresh("dead", 77, Some(Fault::reply(400, r#"{"error":"invalid_grant"}"#)));
    refresh("client", 78, Some(Fault::reply(401, r#"{"error":"invalid_client"}"#)));
    fs::write(world.state_path("newer", "state"), r#"{"version":7}"#).unwrap();
    fs::remove_file(world.token_file_of("missing")).unwrap();
    world
}

#[test]
fn the_json_is_what_its_schema_says() {
    let world = world_of_all_sorts();
    let whole = world.sandbox.run(["status", "--json"]);
    assert_eq!(whole.code, Some(2));
    assert_schema("status.schema.json", &whole.stdout);
    let same = world.sandbox.run(["status", "--format", "json"]);
    assert_schema("status.schema.json", &same.stdout);
    let mut run = world.run();
    assert_schema("status.schema.json", &world.sandbox.run(["status", "--json"]).stdout);
    run.signal(Signal::STOP);
    let stopped = world.sandbox.command(["status", "--json"]).env("ZEROGRAVITY_TOKEN", "x").output().unwrap();
    assert_schema("status.schema.json", &String::from_utf8_lossy(&stopped.stdout));
    run.signal(Signal::CONT);
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let to = |place: &Path, command: &str| {
        let stdout = fs::File::options().write(true).open(place).unwrap();
        let output = world.sandbox.command(command.split(' ')).stdout(stdout).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (command, code) in [
        ("status", 3),
        ("status --json", 3),
        ("status --format prometheus", 3),
        ("check --json", 74),
        ("man", 74),
        ("completions bash", 74),
    ] {
        let (found, said) = to(Path::new("/dev/full"), command);
        assert_eq!(found, Some(code), "{command}: {said}");
        assert!(said.starts_with("error: cannot write to stdout\ncause: No space left on device"), "{said}");
        assert!(said.contains("\nhint: "), "{said}");
        assert_eq!(to(Path::new("/dev/null"), command), (Some(0), String::new()), "{command}");
    }
}

#[test]
fn prometheus_takes_the_metrics() {
    let world = world_of_all_sorts();
    let output = world.sandbox.run(["status", "--format", "prometheus"]);
    assert_eq!((output.code, output.stderr.as_str()), (Some(2), ""));
    assert_metrics(&output.stdout);
    let has = |line: &str| assert!(output.stdout.lines().any(|found| found == line), "{line}: {output:?}");
    has(r#"zg_tokend_account_state{account="failing",state="backing_off"} 1"#);
    has(r#"zg_tokend_account_state{account="failing",state="fresh"} 0"#);
    has(r#"zg_tokend_account_severity{account="dead"} 2"#);
    has(r#"zg_tokend_consecutive_failures{account="failing"} 1"#);
    has(r#"zg_tokend_consecutive_failures{account="fresh"} 0"#);
    has(r#"zg_tokend_token_file_current{account="missing"} 0"#);
    has(r#"zg_tokend_refresh_token_available{account="dead"} 0"#);
    has(r#"zg_tokend_supervised{account="fresh"} 0"#);
    let expires_at =
        world.state_of("fresh")["access_token"]["issued_at"]["wall_ms"].as_i64().unwrap() / 1000 + 3600;
    let near = (expires_at - 1..=expires_at + 1)
        .map(|at| format!(r#"zg_tokend_token_expiry_timestamp_seconds{{account="fresh"}} {at}"#));
    assert!(near.into_iter().any(|line| output.stdout.contains(&line)), "{output:?}");
    // A figure that is not known has no sample.
    assert!(!output.stdout.contains(r#"expiry_timestamp_seconds{account="newer"}"#));
}

#[test]
fn one_line_for_a_prompt() {
    let world = world_of_all_sorts();
    let output = world.sandbox.run(["status", "--short"]);
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (
            Some(2),
            "dead needs login; none no token; missing not in file; expired expired; newer unreadable; \
             failing backing off; client needs config; 1 fresh; 1 due, 14 min left\n",
            ""
        )
    );
    let fresh = world.sandbox.run(["status", "--format=short", "--account", "fresh"]);
    assert_eq!((fresh.code, fresh.stdout.as_str()), (Some(0), "fresh, 59 min left\n"));
}

#[test]
fn the_forms_exclude_each_other() {
    let world = World::new();
    world.configure("");
    for args in ["--json --short", "--json --watch", "--short --format json", "--format yaml"] {
        let output = world.sandbox.run(["status"].into_iter().chain(args.split(' ')));
        assert_eq!((output.code, output.stdout.as_str()), (Some(3), ""), "{args}: {output:?}");
    }
    let output = world.sandbox.run(["status", "--watch"]);
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (
            Some(3),
            "",
            "error: --watch needs a terminal\n\
             hint: leave --watch out\n"
        )
    );
}

#[test]
fn a_pipe_gets_stable_lines_without_colour() {
    let world = world_of_all_sorts();
    for variables in [&[][..], &[("CLICOLOR_FORCE", "1")], &[("TERM", "xterm-256color"), ("LANG", "C")]] {
        let output = world.sandbox.command(["status"]).envs(variables.iter().copied()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            !text.contains('\u{1b}') && text.contains("failing: backing off, expires in 14 min"),
            "{text}"
        );
        assert_eq!(text.lines().filter(|line| !line.starts_with("  ")).count(), 9, "{text}");
    }
}

#[test]
fn a_failed_first_refresh_tells_its_cause() {
    let world = World::new();
    world.configure("");
    world.fault(Fault::reply(503, r#"{"error":"temporarily_unavailable"}"#));
    world.once_gives(69, []);
    let (status, code) = world.status();
    assert_eq!((&status["state"], code), (&json!("backing_off"), 2), "{status:#}");
    let problem = status["problem"].as_str().unwrap();
    assert!(problem.contains("HTTP 503: temporarily_unavailable"), "{problem}");
    assert_eq!(status["hint"], "the next `zg-tokend once` tries again");
}

#[test]
fn a_token_that_died_of_an_outage_tells_of_the_outage() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    world.pass_time(Duration::from_secs(3700));
    assert!(world.status().0["cause"] == "no supervisor is running");
    world.fault(Fault::reply(503, "{}"));
    world.once_gives(69, []);
    let (status, code) = world.status();
    assert_eq!(code, 2);
    assert!(status["problem"].as_str().unwrap().contains("HTTP 503"), "{status:#}");
    assert!(status["expires_in"].as_i64().unwrap() < 0);
}

#[test]
fn a_supervisor_that_stands_still_is_told() {
    let world = World::new();
    world.configure("");
    let mut run = world.run();
    assert_eq!(world.status().1, 0);
    run.signal(Signal::STOP);
    let pid = run.id();
    let (status, code) = wait_until("the stop", || Some(world.status()).filter(|(_, code)| *code != 0));
    assert_eq!((&status["state"], code), (&json!("fresh"), 1), "{status:#}");
    let problem = format!("the supervisor, process {pid}, is stopped and refreshes nothing");
    assert_eq!(status["problem"], *problem);
    assert_eq!(status["hint"], *format!("continue it: kill -CONT {pid}"));
    assert_eq!(status["supervisor"], json!({ "pid": pid, "stopped": true }));
    run.signal(Signal::CONT);
    wait_until("its going on", || (world.status().1 == 0).then_some(()));
}

#[test]
fn it_answers_while_a_stopped_supervisor_holds_the_lock() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    world.pass_time(Duration::from_secs(41 * 60));
    world.fault(Fault { delay_before_commit_ms: 60_000, ..Fault::default() });
    let mut run = world.start_run();
    wait_until("the request", || (world.posts() == 2).then_some(()));
    run.signal(Signal::STOP);
    let (status, code) = wait_until("the stop", || Some(world.status()).filter(|(_, code)| *code != 0));
    assert_eq!((&status["state"], code), (&json!("refreshing"), 1), "{status:#}");
    assert!(status["problem"].as_str().unwrap().contains("is stopped"), "{status:#}");
    run.signal(Signal::KILL);
}

#[test]
fn a_variable_that_masks_the_file_is_told() {
    let world = World::new();
    let status = |value: &str| {
        let output = world.sandbox.command(["status"]).env("ZEROGRAVITY_TOKEN", value).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    world.configure("");
    world.once_gives(0, []);
    let (code, text) = status("ya29.SECRET");
    assert_eq!(code, Some(0), "the file itself is in order");
    assert!(text.contains("  masked by     ZEROGRAVITY_TOKEN, which is set in this environment"), "{text}");
    assert!(!text.contains("SECRET"));
    assert!(!status("").1.contains("ZEROGRAVITY_TOKEN"), "empty is unset");
    // A file of another name is no concern of ZeroGravity's.
    world.configure(&format!("token_file = \"{}\"", world.token_file_of("other").display()));
    assert!(!status("x").1.contains("ZEROGRAVITY_TOKEN"));
}
