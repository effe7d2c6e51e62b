//! `token` and `exec`: a live token for those who cannot read it from the file.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use zg_tokend::testing::demo::{Fault, Outage};

use crate::common::world::World;
use crate::common::{Background, Output, audit, feed, wait_until};

fn token<'a>(world: &World, args: impl IntoIterator<Item = &'a str>) -> Output {
    world.sandbox.run(["token"].into_iter().chain(args))
}

fn git(world: &World, operation: &str, input: &str) -> Output {
    let mut command = world.sandbox.command(["token", "--format", "git", operation]);
    feed(&mut command, input)
}

#[test]
fn the_first_call_fetches_a_token_and_the_next_ones_print_it() {
    let world = World::new();
    world.configure("");
    let first = token(&world, []);
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""), "{first:?}");
    assert_eq!(first.stdout, format!("{}\n", world.token().expose()));
    world.outage(Some(Outage::Closed));
    assert_eq!(token(&world, []).stdout, first.stdout);
    assert_eq!(world.posts(), 1);
}

#[test]
fn formats_of_the_ecosystem() {
    let world = World::new();
    world.configure("");
    let plain = token(&world, []).stdout.trim_end().to_owned();
    let header = token(&world, ["--format", "header"]);
    assert_eq!(header.stdout, format!("Authorization: Bearer {plain}\n"));
    let json: Value = serde_json::from_str(&token(&world, ["--format", "json"]).stdout).unwrap();
    assert_eq!((json["access_token"].as_str(), json["token_type"].as_str()), (Some(&*plain), Some("Bearer")));
    let expires_at = json["expires_at"].as_i64().unwrap();
    let kubernetes: Value = serde_json::from_str(&token(&world, ["--format", "kubernetes"]).stdout).unwrap();
    assert_eq!(kubernetes["kind"], "ExecCredential");
    assert_eq!(kubernetes["apiVersion"], "client.authentication.k8s.io/v1");
    assert_eq!(kubernetes["status"]["token"], *plain);
    let time: jiff::Timestamp =
        kubernetes["status"]["expirationTimestamp"].as_str().unwrap().parse().unwrap();
    assert_eq!(time.as_second(), expires_at);

    let answer = git(&world, "get", "protocol=https\nhost=example.com\n\n");
    assert_eq!(
        answer.stdout,
        format!("username=oauth2\npassword={plain}\npassword_expiry_utc={expires_at}\n"),
        "{answer:?}"
    );
    let answer = git(&world, "get", "protocol=https\nhost=example.com\nusername=me\n\n");
    assert!(answer.stdout.starts_with("username=me\n"), "{answer:?}");
    assert_eq!(git(&world, "store", "password=x\n\n").code, Some(0));
    assert_eq!(world.posts(), 1);
    assert_eq!(git(&world, "erase", &format!("password={plain}\n\n")).code, Some(0));
    assert_eq!(world.posts(), 2);
    assert_ne!(token(&world, []).stdout.trim_end(), plain);
}

#[test]
fn too_little_life_is_refreshed_first() {
    let world = World::new();
    world.configure("skew = \"1m\"");
    token(&world, []);
    world.pass_time(Duration::from_secs(50 * 60));
    token(&world, []);
    assert_eq!(world.posts(), 1, "ten minutes are enough by default");
    let output = token(&world, ["--min-valid", "15min"]);
    assert_eq!((output.code, world.posts()), (Some(0), 2), "{output:?}");
    world.assert_live();
    audit::assert_one_post_per_epoch(&world.server.audit());
}

/// The default of `--min-valid` is a minute, whatever the refreshes have as their reserve.
#[test]
fn a_token_of_less_than_a_minute_is_refreshed_first_by_default() {
    for (left, posts) in [(76, 1), (44, 2)] {
        let world = World::new();
        world.configure("");
        world.once_gives(0, []);
        world.pass_time(Duration::from_secs(3600 - left));
        let output = token(&world, []);
        assert_eq!((output.code, world.posts()), (Some(0), posts), "{left} s: {output:?}");
    }
}

#[test]
fn a_token_that_never_lives_so_long_is_not_refreshed_at_each_call() {
    let world = World::with_lifetime(50);
    world.configure("");
    for _ in 0..5 {
        assert_eq!(token(&world, []).code, Some(0));
    }
    assert_eq!(world.posts(), 1);
}

/// Policies as sub2api has them: use the existing token while it lives, or fail.
#[test]
fn on_refresh_error() {
    let world = World::new();
    world.configure("");
    let first = token(&world, []);
    // Less than half of its life is left, and it is not due.
    world.pass_time(Duration::from_secs(35 * 60));
    world.outage(Some(Outage::Closed));
    let output = token(&world, ["--min-valid", "2h"]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), first.stdout.as_str()), "{output:?}");
    assert!(output.stderr.starts_with("warning: account default: "), "{output:?}");
    let output = token(&world, ["--min-valid", "2h", "--on-error", "fail"]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(69), ""), "{output:?}");
    world.pass_time(Duration::from_secs(3600));
    let output = token(&world, []);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(69), ""),
        "a dead token is never given: {output:?}"
    );
}

#[test]
fn on_lock_held() {
    let world = World::new();
    world.configure("");
    let first = token(&world, []);
    world.pass_time(Duration::from_secs(35 * 60));
    // A holder that stands still with its request under way.
    world.fault(Fault { delay_after_commit_ms: 3000, ..Fault::default() });
    let mut holder =
        Background::start(&mut world.sandbox.command(["once", "--force"]), world.sandbox.path("holder.log"));
    wait_until("a request", || (world.posts() == 2).then_some(()));
    holder.signal(Signal::STOP);
    for flags in [["--on-busy", "use-existing"], ["--wait", "1s"]] {
        let output = token(&world, ["--min-valid", "2h"].into_iter().chain(flags));
        assert_eq!((output.code, output.stdout.as_str()), (Some(0), first.stdout.as_str()), "{output:?}");
        assert!(output.stderr.contains("another process"), "{output:?}");
    }
    let output = token(&world, ["--min-valid", "2h", "--wait", "1s", "--on-error", "fail"]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(75), ""), "{output:?}");
    holder.signal(Signal::CONT);
    assert_eq!(holder.wait().code(), Some(0));
    assert_eq!(world.posts(), 2);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn exec_hands_the_token_over() {
    let world = World::new();
    world.configure("");
    let output = world.sandbox.run(["exec", "--", "sh", "-c", "printf %s \"$ACCESS_TOKEN\"; exit 7"]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(7), world.token().expose()), "{output:?}");
    let output = world.sandbox.run(["exec", "--env", "T", "--", "sh", "-c", "printf %s \"$T$ACCESS_TOKEN\""]);
    assert_eq!(output.stdout, world.token().expose());
    let output = world.sandbox.run(["exec", "--file", "--", "sh", "-c", "cat {}; env | grep -c TOKEN"]);
    assert_eq!(output.stdout, format!("{}0\n", world.token().expose()), "{output:?}");
}

#[test]
fn exec_reports_a_refused_token_and_tries_once_more() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let seen = world.sandbox.path("seen");
    let script = format!("echo \"$ACCESS_TOKEN\" >>'{}'; exit 22", seen.display());
    let output = world.sandbox.run(["exec", "--retry-on-exit", "22", "--", "sh", "-c", &script]);
    assert_eq!(output.code, Some(22), "{output:?}");
    let tokens = fs::read_to_string(&seen).unwrap();
    let tokens: Vec<&str> = tokens.lines().collect();
    assert_eq!(tokens.len(), 2, "once more and no further");
    assert_ne!(tokens[0], tokens[1]);
    assert_eq!(tokens[1], world.token().expose());
    assert_eq!(world.posts(), 2);

    let other = format!("echo again >>'{}'; exit 3", seen.display());
    assert_eq!(world.sandbox.run(["exec", "--retry-on-exit", "22", "--", "sh", "-c", &other]).code, Some(3));
    assert_eq!(fs::read_to_string(&seen).unwrap().matches("again").count(), 1);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn exec_tells_its_own_failures_apart() {
    let world = World::new();
    world.configure("");
    let output = world.sandbox.run(["exec", "--", "/nonexistent/command"]);
    assert_eq!(output.code, Some(127), "{output:?}");
    assert!(
        output.stderr.contains("error: cannot run /nonexistent/command\ncause: No such file"),
        "{output:?}"
    );
    assert_eq!(world.sandbox.run(["exec", "--", "/"]).code, Some(126));
    assert_eq!(world.sandbox.run(["exec", "--", "sh", "-c", "kill -9 $$"]).code, Some(137));
    world.outage(Some(Outage::Closed));
    world.pass_time(Duration::from_secs(3600));
    assert_eq!(world.sandbox.run(["exec", "--", "true"]).code, Some(125));
}

/// A signal that a service manager sends to `exec` reaches the command.
#[test]
fn exec_passes_signals_on() {
    let world = World::new();
    world.configure("");
    let script = "trap 'echo stopped; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    let mut command = world.sandbox.command(["exec", "--", "sh", "-c", script]);
    let mut exec = Background::start(&mut command, world.sandbox.path("exec.log"));
    exec.wait_for("ready");
    exec.signal(Signal::TERM);
    assert_eq!(exec.wait().code(), Some(5), "{}", exec.log());
    assert!(exec.log().contains("stopped"));
}

#[test]
fn git_is_given_no_token_for_an_open_connection() {
    let world = World::new();
    world.configure("");
    for question in [
        "protocol=http\nhost=git.example.com\n\n",
        "protocol=http\nhost=localhost.example.com\n\n",
        "protocol=smtp\nhost=localhost\n\n",
        "protocol=https\n\n",
        "host=git.example.com\n\n",
        "\n",
    ] {
        let answer = git(&world, "get", question);
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(0), ""), "{question}: {answer:?}");
        assert!(answer.stderr.starts_with("warning: "), "{question}: {answer:?}");
    }
    assert_eq!(world.posts(), 0);
    for question in
        ["protocol=https\nhost=git.example.com:8443\n\n", "protocol=http\nhost=127.0.0.1:3000\n\n"]
    {
        let answer = git(&world, "get", question);
        assert!(answer.stdout.contains("password=") && answer.stderr.is_empty(), "{question}: {answer:?}");
    }
    let answer = token(&world, ["--format", "git"]);
    let hint = "git config credential.https://HOST.helper '!zg-tokend token --format git'";
    assert!(answer.code == Some(2) && answer.stderr.contains(hint), "{answer:?}");
}

#[test]
fn a_file_stays_fresh_while_the_command_runs() {
    let world = World::with_lifetime(4);
    world.configure("");
    let script = "first=$(cat {}); while now=$(cat {}); [ \"$now\" = \"$first\" ] || [ -z \"$now\" ]; do n=$((n + 1)); [ $n -lt 600 ] || exit 1; sleep 0.1; done; printf '%s\n%s' \"$first\" \"$now\"";
    let output = world.sandbox.run(["exec", "--file", "--", "sh", "-c", script]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let (first, now) = output.stdout.split_once('\n').unwrap();
    assert!(!first.is_empty() && !now.is_empty() && first != now, "{output:?}");
    assert!(world.posts() >= 2);
}

#[test]
fn a_template_is_printed_and_passed_on() {
    let world = World::new();
    world.configure("");
    let printed = |args: &[&str]| world.sandbox.run(args.iter().copied());
    let bearer = printed(&["token", "--format", "bearer"]).stdout;
    let token = world.token();
    assert_eq!(bearer, format!("Bearer {}\n", token.expose()));
    assert_eq!(
        printed(&["token", "--template", "{account} {access_token}"]).stdout,
        format!("default {}", token.expose())
    );
    assert_eq!(printed(&["token", "--template", "bearer"]).stdout, format!("Bearer {}", token.expose()));
    let passed =
        printed(&["exec", "--template", "x {access_token}", "--", "sh", "-c", "printf %s \"$ACCESS_TOKEN\""]);
    assert_eq!(passed.stdout, format!("x {}", token.expose()));
    let wrong = printed(&["token", "--template", "{refresh_token}"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("login of its own"), "{wrong:?}");
    let absent = printed(&["token", "--format", "id-token"]);
    assert!(absent.code == Some(78) && absent.stderr.contains("sent no id_token"), "{absent:?}");
    assert_eq!(world.posts(), 1);
}
