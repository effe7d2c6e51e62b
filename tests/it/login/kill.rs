//! The kill matrix of `login`, from the redirect on: the old login lives, or the new one is stored.

use std::process::Command;

use zg_tokend::testing::demo::AuditEvent;
use zg_tokend::testing::secret::Fingerprint;

use super::{LoginRun, configure, consent};
use crate::common::world::World;
use crate::common::{Background, figure, finish, leave_out, wait_until};
use crate::faults::trace::{Call, attached, available, parse_threads};
use crate::faults::{assert_login_lives, in_parallel, sample};

/// A world with a login in force.
fn world() -> World {
    let world = World::new();
    configure(&world, &format!("refresh_token = \"{}\"\n", world.seed().expose()));
    world.once_gives(0, []);
    world
}

/// Whether strace may attach to a program that is not its child.
fn may_attach() -> bool {
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    let may = rustix::process::geteuid().is_root() || !scope.is_ok_and(|scope| scope.trim() != "0");
    if !may {
        leave_out("killing login: strace may not attach to a process");
    }
    may && available()
}

/// How a login under strace ended.
struct Ended {
    /// It was killed.
    killed: bool,
    /// The browser was told that the login has ended: the page waits for it.
    told: bool,
    shown: String,
}

/// Logs in with strace at the heels of the command from the redirect on.
fn log_in(world: &World, injection: Option<&str>, only_in: Option<&str>) -> Ended {
    let mut login = LoginRun::by_browser(world, "");
    let redirect = consent(&login.url(), "alice");
    let pid = login.pid().as_raw_nonzero().get().cast_unsigned();
    let mut command = attached(pid, injection, &world.sandbox.path("trace"));
    command.args(only_in.into_iter().flat_map(|path| ["-P", path]));
    let mut strace = Background::start(&mut command, world.sandbox.path("strace.log"));
    wait_until("strace", || strace.log().contains("attached").then_some(()));
    let browser = |url: &str| {
        let mut curl = Command::new("curl");
        curl.args([
            "-q",
            "-sS",
            "--noproxy",
            "*",
            "--max-time",
            "100",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
        ]);
        finish(curl.arg(url)).stdout
    };
    let told = browser(&redirect) == "303";
    if told {
        let (origin, _) = redirect.split_once("/?").unwrap();
        // It may be killed meanwhile.
        browser(&format!("{origin}/done"));
    }
    let (code, shown) = login.end();
    strace.wait();
    assert!(code == 0 || code == 128 + 9, "{code} {shown}");
    Ended { killed: code != 0, told, shown }
}

/// The refresh tokens that the server has given for codes.
fn logins(world: &World) -> Vec<Fingerprint> {
    let log = world.server.audit();
    let given = log.iter().filter(|entry| matches!(entry.event, AuditEvent::Grant { successor: None, .. }));
    given.filter_map(|entry| entry.refresh_token).collect()
}

/// Kills one login at this call; true if it came.
fn kill_at(call: &Call) -> bool {
    let world = world();
    let old = world.refresh_token().fingerprint();
    let injection = format!("{}:signal=KILL:when={}", call.name, call.nth);
    let Ended { killed, told, shown } = log_in(&world, Some(&injection), None);
    let stored = world.refresh_token().fingerprint();
    let new = logins(&world);
    assert!(new.len() <= 1, "the code is sent once: {new:?}");
    assert!(stored == old || Some(&stored) == new.first(), "{shown}");
    if told || shown.contains("logged in") || !killed {
        assert_eq!(Some(&stored), new.first(), "it was told, and is not stored: {shown}");
    }
    // `once` goes on with what is stored, without a request: either login has a live token.
    let posts = world.posts();
    world.once_gives(0, []);
    world.assert_live();
    assert_eq!(world.posts(), posts, "{shown}");
    world.once_gives(0, ["--force"]);
    assert_login_lives(&world);
    killed
}

#[test]
fn a_login_may_be_killed_at_any_call_from_the_redirect_on() {
    if !may_attach() {
        return;
    }
    let clean = world();
    let old = clean.refresh_token();
    assert!(!log_in(&clean, None, None).killed);
    assert_ne!(clean.refresh_token(), old);
    let calls = parse_threads(&clean.sandbox.path("trace"));
    let post = calls.iter().find(|call| call.is_post()).expect("the exchange").place;
    let fixed = |call: &Call| {
        call.place == post
            || call.place > post && matches!(call.name.as_str(), "fsync" | "renameat" | "linkat")
    };
    let what = "kill login";
    let chosen = sample(what, &calls, fixed, 4);
    let ends = in_parallel(&chosen, Call::describe, kill_at);
    // Its threads share the work anew in each run, so that some calls do not come.
    let killed = ends.iter().filter(|killed| **killed).count();
    figure(format!("{what}: {killed} of {} killed, the old or the new login lives", ends.len()));
    assert!(killed > 0, "none of {chosen:?}");
}

/// Nothing tells `run` of a login that was killed after it was stored: it sees the state.
#[test]
fn run_publishes_a_login_that_its_command_could_not() {
    if !may_attach() {
        return;
    }
    let world = World::new();
    configure(&world, "");
    let run = world.start_run();
    run.wait_for("there is no refresh token");
    let directory = world.token_file().parent().unwrap().to_owned();
    std::fs::create_dir_all(&directory).unwrap();
    // The one that puts the token file in its place.
    let ended = log_in(&world, Some("renameat:signal=KILL:when=1"), directory.to_str());
    assert!(ended.killed && !ended.told, "{}", ended.shown);
    let new = logins(&world);
    assert_eq!(Some(&world.refresh_token().fingerprint()), new.first(), "it is stored");
    let file = world.token_file();
    wait_until("the token, by run", || (file.exists() && world.reads_live(&file)).then_some(()));
    assert_eq!(world.posts(), 1, "no refresh was needed");
}
