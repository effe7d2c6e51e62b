//! A kernel that refuses threads and processes: TasksMax=, pids.max, ulimit -u.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use zg_tokend::testing::demo::{Fault, IssuerOptions};

use super::trace::available;
use super::{granted, in_parallel, revoked};
use crate::common::world::{World, read};
use crate::common::{Background, curl, figure, finish, leave_out, under, wait_until};

/// Accounts that need threads alone. The server of the first is given by a name.
const PLAIN: [&str; 6] = ["named", "b", "c", "d", "e", "f"];

/// An account that needs processes as well: for its secret and for its hook.
const WITH_CHILDREN: &str = "children";

/// A world of these accounts; the server takes each refresh token once.
fn world() -> World {
    let world = World::with(IssuerOptions { reuse_grace: Duration::ZERO, ..IssuerOptions::default() });
    let account = |name: &str| {
        let (seed, file) = (world.seed(), world.token_file_of(name));
        let table = format!("[accounts.{name}]\ntoken_file = \"{}\"\n", file.display());
        if name == WITH_CHILDREN {
            let path = world.sandbox.path("seed");
            fs::write(&path, seed.expose()).unwrap();
            let command = format!("refresh_token.command = [\"cat\", \"{}\"]\n", path.display());
            return format!("{table}{command}on_refresh = [\"true\"]\n");
        }
        let endpoint = world.server.token_endpoint().replace("127.0.0.1", "localhost");
        let named = format!("token_endpoint = \"{endpoint}\"\n");
        let named = if name == PLAIN[0] { named } else { String::new() };
        format!("{table}refresh_token = \"{}\"\n{named}", seed.expose())
    };
    let accounts: String = PLAIN.into_iter().chain([WITH_CHILDREN]).map(account).collect();
    let config = format!("{}{accounts}", world.client());
    world.sandbox.write_config(&config);
    world
}

/// Two waves of `run`: the first refresh of each account, and a forced one with a request for the
/// metrics while the server holds the answers back. No login may be lost, and every account that
/// needs no process must be refreshed. Gives the log.
fn two_waves(world: &World, mut run: Background) -> String {
    run.wait_for("supervising");
    let tokens = || PLAIN.map(|name| read(&world.token_file_of(name)));
    let first = tokens();
    world.server.faults(|faults| {
        faults.standing = Some(Fault { delay_after_commit_ms: 300, ..Fault::default() });
    });
    let grants = world.grants();
    run.signal(Signal::USR1);
    wait_until("an exchange under way", || (world.grants() > grants).then_some(()));
    let socket = world.sandbox.path("runtime/zg-tokend/control.sock");
    let metrics = curl(["--unix-socket", socket.to_str().unwrap(), "http://localhost/metrics"]);
    assert_eq!(metrics.status, 200, "{metrics:?} {}", run.log());
    wait_until("new tokens", || {
        assert_eq!(run.ended(), None, "{}", run.log());
        tokens().iter().zip(&first).all(|(now, first)| now != first).then_some(())
    });
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
    run.log()
}

/// With threads again, every account continues with the login that it has.
fn assert_no_login_is_lost(world: &World, log: &str) {
    world.server.faults(|faults| faults.standing = None);
    let output = world.once(["--force"]);
    assert_eq!(output.code, Some(0), "{output:?} {log}");
    let audit = world.server.audit();
    assert!(!revoked(&audit), "{audit:#?} {log}");
    let granted = granted(&audit);
    for name in PLAIN.into_iter().chain([WITH_CHILDREN]) {
        let token = read(&world.token_file_of(name));
        assert!(world.server.is_live(&token), "{name}: {log}");
        assert!(granted.iter().any(|(access_token, _)| *access_token == token.fingerprint()), "{name}");
    }
}

/// `run` under strace, with every clone(2) of a thread from the n-th on refused.
fn refused_from(world: &World, first: Option<usize>, log: &Path) -> Background {
    let mut wrapper: Vec<String> =
        ["strace", "-D", "-f", "-qq", "-e", "trace=clone,clone3,fork,vfork", "-e", "signal=none", "-o"]
            .map(str::to_owned)
            .to_vec();
    wrapper.push(log.display().to_string());
    if let Some(first) = first {
        wrapper.extend(["-e".into(), format!("inject=clone,clone3,fork,vfork:error=EAGAIN:when={first}+")]);
    }
    wrapper.push("--".into());
    let mut command = under(wrapper.iter().map(String::as_str), &world.sandbox.command(["run"]));
    Background::start(&mut command, world.sandbox.path("run.log"))
}

#[test]
fn threads_that_are_refused_at_any_point_of_a_wave_cost_no_login() {
    if !available() {
        return;
    }
    // One thread makes all others; each of these may make children.
    let clean = world();
    let trace = clean.sandbox.path("trace");
    let run = refused_from(&clean, None, &trace);
    let pid = format!("{} ", run.id());
    let log = two_waves(&clean, run);
    assert_no_login_is_lost(&clean, &log);
    let calls = fs::read_to_string(&trace).unwrap();
    let count = calls.lines().filter(|line| line.starts_with(&pid) && line.contains("clone")).count();
    assert!(count > 1, "{calls}");
    let points: Vec<usize> = (1..=count).collect();
    let refusals = in_parallel(
        &points,
        |first| format!("from thread {first} on"),
        |first| {
            let world = world();
            let trace = world.sandbox.path("trace");
            let run = refused_from(&world, Some(*first), &trace);
            let log = two_waves(&world, run);
            assert_no_login_is_lost(&world, &log);
            let refused = fs::read_to_string(&trace).unwrap().matches("(INJECTED)").count();
            if *first == 1 {
                assert!(refused > 0, "nothing was refused: {log}");
                let named = "cause: Resource temporarily unavailable";
                assert!(
                    log.contains("cannot create a thread; ")
                        && log.contains(named)
                        && log.contains("TasksMax="),
                    "{log}"
                );
                let child =
                    "children: cannot get refresh_token from command `cat`; cause: it cannot be started";
                assert!(log.contains(child), "{log}");
            }
            refused
        },
    );
    figure(format!("refused threads: {count} points of two waves, refusals {refusals:?}, 0 logins lost"));
}

/// The first user of this process alone: the kernel counts the processes of a user, and those of
/// another test run on this machine as well.
fn first_user() -> u32 {
    1_000_000_000 + std::process::id() * 8
}

#[test]
fn a_limit_of_processes_costs_no_login() {
    if !rustix::process::geteuid().is_root() {
        return leave_out("a limit of processes: only root can become another user");
    }
    let limits: Vec<u32> = (1..=4).collect();
    in_parallel(
        &limits,
        |limit| format!("{limit} processes"),
        |limit| {
            let world = world();
            let user = first_user() + limit;
            let ids = format!("{user}:{user}");
            let home = world.sandbox.path("");
            assert!(Command::new("chown").args(["-R", &ids]).arg(&home).status().unwrap().success());
            let user = user.to_string();
            let to_user = [
                format!("--reuid={user}"),
                format!("--regid={user}"),
                "--clear-groups".to_owned(),
                "prlimit".to_owned(),
                format!("--nproc={limit}"),
            ];
            let wrapper = ["setpriv"].into_iter().chain(to_user.iter().map(String::as_str));
            let mut command = under(wrapper, &world.sandbox.command(["run"]));
            let run = Background::start(&mut command, world.sandbox.path("run.log"));
            let log = two_waves(&world, run);
            if *limit == 1 {
                assert!(log.contains("cannot create a thread; "), "{log}");
            }
            let without_limit = to_user[..3].iter().map(String::as_str);
            let wrapper = ["setpriv"].into_iter().chain(without_limit);
            let once = world.sandbox.command(["once", "--force"]);
            let output = finish(under(wrapper, &once).stdout(Stdio::piped()));
            assert_eq!(output.code, Some(0), "{output:?} {log}");
            assert!(!revoked(&world.server.audit()), "{log}");
        },
    );
}
