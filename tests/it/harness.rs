//! The harness itself: what it promises, the other tests rely on.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::demo::{Plain, Server};

use crate::common::{Background, Sandbox, audit, curl, finish, wait_until};

#[test]
fn the_binary_runs_in_a_sandbox() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run(["--version"]).code, Some(0));

    let command = sandbox.command([]);
    let inside = |value: &std::ffi::OsStr| std::path::Path::new(value).starts_with(sandbox.path(""));
    for (name, value) in command.get_envs() {
        let value = value.expect("the environment is set, not inherited");
        assert!(name == "PATH" || (inside(value) && sandbox.path(value).is_dir()), "{name:?}={value:?}");
    }
}

#[test]
fn the_configuration_is_private() {
    let sandbox = Sandbox::new();
    sandbox.write_config("a longer text");
    sandbox.write_config("a text");
    assert_eq!(std::fs::read_to_string(sandbox.config_path()).unwrap(), "a text");
    let mode = std::fs::metadata(sandbox.config_path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn children_end_with_the_test() {
    let sandbox = Sandbox::new();
    let log = sandbox.path("log");
    let mut command = Command::new("sh");
    command.args(["-c", "echo $$; echo started >&2; exec sleep 1000"]);
    let mut child = Background::start(&mut command, &log);
    wait_until("both lines", || child.log().contains("started").then_some(()));
    assert_eq!(child.stop().signal(), Some(15));

    let child = Background::start(&mut command, &log);
    wait_until("both lines", || child.log().contains("started").then_some(()));
    let pid = child.log().lines().next().unwrap().to_owned();
    drop(child);
    assert_ne!(finish(Command::new("kill").args(["-0", &pid])).code, Some(0));
}

#[test]
#[should_panic(expected = "sent twice")]
fn a_refresh_token_sent_twice_is_noticed() {
    let server =
        Server::spawn_thread(0, Plain, IssuerOptions { rotation: false, ..IssuerOptions::default() })
            .unwrap();
    let seed = server.seed("demo").unwrap();
    let token = format!("refresh_token={}", seed.expose());
    let post = || {
        curl([
            "-d",
            "client_id=demo",
            "-d",
            "grant_type=refresh_token",
            "-d",
            &token,
            &server.token_endpoint(),
        ])
    };
    assert_eq!(post().status, 200);
    audit::assert_one_post_per_epoch(&server.audit());
    assert_eq!(post().status, 200);
    audit::assert_one_post_per_epoch(&server.audit());
}
