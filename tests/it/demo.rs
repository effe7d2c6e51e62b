//! `zg-tokend demo` to its end, cut short, and as a server for other programs.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::common::{Background, Sandbox, curl, finish, under, wait_until};

/// The demo, its temporary directory inside the sandbox.
fn demo<'a>(sandbox: &Sandbox, flags: impl IntoIterator<Item = &'a str>) -> Command {
    fs::create_dir_all(sandbox.path("tmp")).unwrap();
    let mut command = sandbox.command(["demo"].into_iter().chain(flags));
    command.env("TMPDIR", sandbox.path("tmp"));
    command
}

#[track_caller]
fn assert_no_trace(sandbox: &Sandbox) {
    for directory in ["tmp", "config/zg-tokend", "state", "cache", "data", "runtime", "home"] {
        assert_eq!(fs::read_dir(sandbox.path(directory)).unwrap().count(), 0, "{directory} is not empty");
    }
}

#[test]
fn a_token_lives_through_an_outage() {
    // No disk to wait for: tokens live seconds there.
    let sandbox = Sandbox::below(Path::new("/dev/shm"));
    let output = finish(&mut demo(&sandbox, ["--for", "24s"]));
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{}", output.stdout);
    let story = [
        "refreshed: token 1 ",
        "the server is down, on purpose",
        "refresh failed: ",
        "the token lives another ",
        "the server is up again",
        "recovered; refreshed: token ",
        "1 outage survived",
        " reads of the token file, 0 refused",
        "zg-tokend init ",
        "zg-tokend login ",
        "zg-tokend run ",
    ];
    let mut rest = output.stdout.as_str();
    for text in story {
        let at = rest.find(text).unwrap_or_else(|| panic!("no {text:?} in its place: {}", output.stdout));
        rest = &rest[at + text.len()..];
    }
    assert!(output.stdout.contains("status: fresh, "), "{}", output.stdout);
    let last = " reads of the token file, 0 refused";
    let reads = output.stdout.lines().rev().find_map(|line| line.trim().strip_suffix(last));
    assert!(reads.unwrap().parse::<u32>().unwrap() > 20, "{}", output.stdout);
    assert!(!output.stdout.contains('\x1b'), "{}", output.stdout);
    assert!(!output.stdout.contains("at_") && !output.stdout.contains("rt_"), "{}", output.stdout);
    assert_no_trace(&sandbox);
}

#[test]
fn signals_end_it_at_every_stage() {
    let stages = [
        (Signal::INT, "The life"),
        (Signal::INT, "refreshed: token 1"),
        (Signal::TERM, "status: fresh"),
        (Signal::HUP, "the server is down"),
        (Signal::INT, "refresh failed"),
    ];
    let start = |(signal, stage)| {
        let sandbox = Sandbox::new();
        let child = Background::start(&mut demo(&sandbox, []), sandbox.path("log"));
        (signal, stage, sandbox, child)
    };
    for (signal, stage, sandbox, mut child) in stages.map(start) {
        wait_until(stage, || child.log().contains(stage).then_some(()));
        child.signal(signal);
        let status = child.wait();
        assert_eq!(status.code(), Some(0), "{signal:?} at {stage:?}: {}", child.log());
        assert!(child.log().contains("zg-tokend login"), "{}", child.log());
        assert_no_trace(&sandbox);
    }
}

#[test]
fn a_reader_that_leaves_ends_it() {
    let sandbox = Sandbox::new();
    let mut child = demo(&sandbox, []).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let status = wait_until("its end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert_no_trace(&sandbox);
}

#[test]
fn a_taken_port_is_an_error() {
    let sandbox = Sandbox::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = finish(&mut demo(&sandbox, ["--port", &port]));
    assert_eq!(output.code, Some(1));
    assert!(
        output.stderr.contains("error: cannot start the embedded server\ncause: cannot listen on"),
        "{output:?}"
    );
    assert!(output.stderr.contains("hint: choose another port"), "{output:?}");
    assert_no_trace(&sandbox);
}

#[test]
fn the_server_alone_serves_other_programs() {
    let sandbox = Sandbox::new();
    let mut child = Background::start(&mut demo(&sandbox, ["--server-only"]), sandbox.path("log"));
    wait_until("the guide", || child.log().contains("Ctrl-C ends it").then_some(()));
    let guide = child.log();
    let value: HashMap<&str, &str> = guide
        .lines()
        .filter(|line| !line.starts_with([' ', '#']))
        .filter_map(|line| line.split_once(" = "))
        .collect();

    let token = format!("refresh_token={}", value["refresh_token"]);
    let client = format!("client_id={}", value["client_id"]);
    let reply =
        curl(["-d", "grant_type=refresh_token", "-d", &client, "-d", &token, value["token_endpoint"]]);
    assert_eq!(reply.status, 200, "{reply:?}");
    let bearer = format!("Authorization: Bearer {}", reply.body["access_token"].as_str().unwrap());
    assert_eq!(curl(["-H", &bearer, value["resource"]]).status, 200);
    assert_eq!(curl(["-d", &client, "-d", "token=x", value["introspection_endpoint"]]).body["active"], false);
    assert_eq!(curl([value["audit"]]).status, 200);
    let metadata = curl([&*format!("{}/.well-known/oauth-authorization-server", value["issuer"])]);
    assert_eq!(metadata.body["issuer"], value["issuer"]);

    let commands: Vec<&str> = guide.lines().filter(|line| line.starts_with("  curl ")).collect();
    assert_eq!(commands.len(), 3, "{guide}");
    for command in commands {
        // RFC 6749 section 4.4.3: a client that asks for itself gets no refresh token.
        let (gets, gets_none) = if command.contains("client_credentials") {
            ("access_token", "refresh_token")
        } else {
            ("refresh_token", "error")
        };
        let output = finish(
            Command::new("sh").args(["-c", &format!("{} -sS -f", command.trim())]).env("no_proxy", "*"),
        );
        assert!(output.code == Some(0) && output.stdout.contains(gets), "{command}: {output:?}");
        assert!(!output.stdout.contains(gets_none), "{command}: {output:?}");
    }

    // The commands for zg-tokend, as a reader would copy them. Those with a browser are tried by the
    // tests of login.
    let script: Vec<&str> = guide
        .lines()
        .skip_while(|line| !line.contains("a refresh token that you have"))
        .filter_map(|line| line.strip_prefix("#   "))
        .collect();
    let script = script.join("\n").replace("zg-tokend run", "zg-tokend once");
    let mut command = under(["sh", "-ec", &script], &sandbox.command([]));
    let programs = Path::new(env!("CARGO_BIN_EXE_zg-tokend")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let output = finish(command.env("PATH", path));
    assert_eq!(output.code, Some(0), "{script}\n{output:?}");
    for name in ["seed", "machine"] {
        let token = fs::read_to_string(sandbox.path(format!("home/{name}.token"))).unwrap();
        assert_eq!(curl(["-H", &format!("Authorization: Bearer {token}"), value["resource"]]).status, 200);
    }

    child.signal(Signal::INT);
    assert_eq!(child.wait().code(), Some(0), "{}", child.log());
}
