//! Containers: secret mounts, volumes, the first process, probes by TCP, no inotify.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::common::world::World;
use crate::common::{Background, curl, finish, leave_out, wait_until};

/// A group that nobody here is in.
const GROUP: u32 = 65_502;

fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        leave_out(&format!("{what}: needs root"));
    }
    root
}

/// `once` in a mount namespace, after these shell commands.
fn once_after(world: &World, commands: &str) -> crate::common::Output {
    let mut command = Command::new("unshare");
    let program = world.sandbox.command(["once"]);
    command.args(["-m", "--propagation", "private", "sh", "-ec", &format!("{commands}\nexec \"$@\""), "sh"]);
    command.arg(program.get_program()).args(program.get_args());
    command.env_clear().envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("PATH", std::env::var_os("PATH").unwrap());
    finish(&mut command)
}

#[test]
fn a_mounted_secret_of_any_mode_is_taken_and_another_file_is_not() {
    if !is_root("secret mounts") {
        return;
    }
    let world = World::new();
    let seed = world.seed();
    let place = world.sandbox.path("home/secrets");
    fs::create_dir(&place).unwrap();
    let file = place.join("rt");
    world.configure_inputs(&format!("refresh_token = {{ file = \"{}\" }}", file.display()));
    fs::write(&file, seed.expose()).unwrap();
    for mode in ["444", "440"] {
        let mount = format!(
            "cp {0} {0}.new; mount -t tmpfs none {1}; printf %s '{2}' >{0}; chmod {mode} {0}; mount -o remount,ro {1}",
            file.display(),
            place.display(),
            seed.expose()
        );
        let output = once_after(&world, &mount);
        assert_eq!(output.code, Some(0), "{mode}: {output:?}");
        fs::remove_file(file.with_extension("new")).ok();
    }
    // A read-only disk that all users of the machine share.
    let mount = format!(
        "printf %s '{2}' >{0}; chmod 444 {0}; mount --bind {1} {1}; mount -o remount,ro,bind {1}",
        file.display(),
        place.display(),
        world.seed().expose()
    );
    let output = once_after(&world, &format!("rm -r {}\n{mount}", world.state_path("default", "").display()));
    assert!(output.stderr.contains("can be read or changed by other users"), "{output:?}");
    assert!(output.stderr.contains("defaultMode: 0400"), "{output:?}");
}

#[test]
fn the_group_of_the_file_can_get_to_it() {
    if !is_root("other users") {
        return;
    }
    let world = World::new();
    let place = world.sandbox.path("srv");
    fs::create_dir(&place).unwrap();
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    chmod(&place, 0o700);
    let (file, output) = (place.join("tokens/t"), place.join("others/t"));
    world.configure(&format!(
        "token_file = \"{}\"\ntoken_file_mode = \"0640\"\ntoken_file_group = {GROUP}\n\
         [[outputs]]\npath = \"{}\"\nmode = \"0644\"",
        file.display(),
        output.display()
    ));
    world.once_gives(0, []);
    let mode = |path: &PathBuf| fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777;
    assert_eq!((mode(&file), mode(&output)), (0o710, 0o711));
    assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().gid(), GROUP);
    let check = world.sandbox.run(["check"]);
    let barrier = format!("members of group #{GROUP} cannot enter {}\n", place.display());
    assert!(check.stdout.contains(&barrier), "{check:?}");
    let (status, code) = world.status();
    assert_eq!(code, 1, "{status:#}");
    assert!(status["problem"].as_str().unwrap().contains("cannot enter"), "{status:#}");
    chmod(&place, 0o755);
    assert_eq!(world.status().1, 0, "{:#}", world.status().0);
    chmod(file.parent().unwrap(), 0o700);
    let check = world.sandbox.run(["check"]);
    let hint = format!("chgrp {GROUP} {0} && chmod g+x {0}", file.parent().unwrap().display());
    assert!(check.stdout.contains(&hint), "{check:?}");
}

#[test]
fn a_directory_that_anybody_can_write_is_refused_with_a_way_out_for_a_pod() {
    let world = World::new();
    let volume = world.sandbox.path("home/volume");
    fs::create_dir(&volume).unwrap();
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o777)).unwrap();
    world.configure(&format!("token_file = \"{}\"", volume.join("t").display()));
    let output = world.once_gives(78, []);
    assert!(output.stderr.contains("medium: Memory"), "{output:?}");
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o1777)).unwrap();
    world.once_gives(0, []);
}

/// `run` with further arguments; the address from its log.
fn run_listening(world: &World) -> (Background, String) {
    let run = Background::start(
        &mut world.sandbox.command(["run", "--listen", "127.0.0.1:0"]),
        world.sandbox.path("run.log"),
    );
    run.wait_for("supervising");
    let log = run.log();
    let address = log.split("/metrics on ").nth(1).unwrap().lines().next().unwrap().to_owned();
    (run, address)
}

#[test]
fn probes_and_metrics_come_by_tcp_and_nothing_else() {
    let world = World::new();
    world.configure("");
    let (_run, address) = run_listening(&world);
    let at = |path: &str| format!("http://{address}{path}");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(curl([&*at(path)]).status, 200, "{path}");
    }
    let token = world.token();
    for (method, path) in [
        ("GET", "/v1/token/status"),
        ("POST", "/v1/token"),
        ("POST", "/v1/token/rejected"),
        ("POST", "/v1/token/refresh"),
        ("GET", "/v1/token"),
        ("GET", "/"),
    ] {
        let reply = curl(["-X", method, &*at(path)]);
        assert!(matches!(reply.status, 404 | 405), "{method} {path}: {reply:?}");
    }
    assert_eq!(world.token().expose(), token.expose());
    assert_eq!(world.posts(), 1);
}

#[test]
fn an_address_that_is_in_use_or_is_none_is_told() {
    let world = World::new();
    world.configure("");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = world.sandbox.run(["run", "--listen", &address]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains(&format!("cannot listen on {address}")), "{output:?}");
    let output = world.sandbox.run(["run", "--listen", ":9464"]);
    assert!(output.code == Some(2) && output.stderr.contains("127.0.0.1:9464"), "{output:?}");
    assert_eq!(world.posts(), 0);
}

#[test]
fn as_the_first_process_it_reaps_what_hooks_leave_behind() {
    if !is_root("a process id namespace") {
        return;
    }
    let world = World::new();
    let marks = world.sandbox.path("home/marks");
    world.configure(&format!(
        "on_refresh = [\"sh\", \"-c\", \"(sleep 0.1; echo x >>{}) >/dev/null 2>&1 &\"]",
        marks.display()
    ));
    let program = world.sandbox.command(["run"]);
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(program.get_program())
        .args(program.get_args());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut run = Background::start(&mut command, world.sandbox.path("run.log"));
    run.wait_for("supervising");
    let children = |of: u32| -> Vec<u32> {
        let text = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap();
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    };
    let first = children(run.id())[0];
    let signal = |signal| kill_process(Pid::from_raw(first.cast_signed()).unwrap(), signal).unwrap();
    signal(Signal::USR1);
    wait_until("the processes of two hooks", || {
        fs::read_to_string(&marks).is_ok_and(|text| text.lines().count() >= 2).then_some(())
    });
    // The last of them has ended or is about to.
    wait_until("nobody but `run`", || (children(first).len() == 1).then_some(()));
    signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

#[test]
fn without_inotify_it_runs_and_says_so() {
    if !is_root("limits of inotify") {
        return;
    }
    let world = World::new();
    world.configure("");
    let program = world.sandbox.command(["run"]);
    // The limit of a user namespace holds for those in it alone.
    let script = "echo 0 >/proc/sys/user/max_inotify_instances; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]);
    command.arg(program.get_program()).args(program.get_args());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut run = Background::start(&mut command, world.sandbox.path("run.log"));
    run.wait_for("supervising");
    run.wait_for("cannot watch files for changes; ");
    // A reload on request still works.
    world.configure("skew = \"5m\"");
    run.signal(Signal::HUP);
    run.wait_for("the new config is in use");
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

#[test]
fn a_failure_that_reached_no_server_holds_nobody_back() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    world.pass_time(Duration::from_secs(3600));
    let mut state = world.state();
    let at = state["access_token"]["issued_at"].clone();
    let later = |by: i64| {
        let mut at = at.clone();
        for name in ["wall_ms", "boot_ms"] {
            at[name] = (at[name].as_i64().unwrap() + by).into();
        }
        at
    };
    // An outage of an hour, and a wait of five minutes from now.
    state["failure"] = json!({
        "kind": "connect", "message": "no route to host", "since": at, "count": 20,
        "last_at": later(3_590_000), "not_before": later(3_900_000), "not_sent": true,
    });
    world.write_state(&state);
    world.once_gives(0, []);
    world.assert_live();
}
