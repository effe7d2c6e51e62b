//! Every signal to every command in mid-exchange: none may end it half-way.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use zg_tokend::testing::demo::Fault;

use super::{assert_login_lives, in_parallel};
use crate::common::world::World;
use crate::common::{poll_for, wait_until};

/// The commands that make an exchange, and what they read from stdin.
const COMMANDS: [(&[&str], bool); 7] = [
    (&["once"], false),
    (&["once", "--force"], false),
    (&["token"], false),
    (&["exec", "--", "true"], false),
    (&["rejected"], true),
    (&["set"], true),
    (&["run"], false),
];

/// SIGKILL and SIGSTOP cannot be held off; 32 and 33 are glibc's own.
const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;
const EXCLUDED: [i32; 4] = [9, 19, 32, 33];

/// Those that stop a process until SIGCONT.
const STOPPING: [i32; 3] = [20, 21, 22];

fn kill(pid: u32, signal: i32) {
    let status = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap();
    assert!(status.success() || signal == 0);
}

/// One command, one signal while the server holds back an answer that has replaced the token.
fn interrupt((command, reads_stdin): (&[&str], bool), signal: i32) {
    let world = World::new();
    // With a grace of zero, whoever loses the answer loses the login.
    let seed = world.configure("");
    let delay = Fault { delay_after_commit_ms: 700, ..Fault::default() };
    let mut input = seed;
    match command[0] {
        "rejected" => {
            world.once_gives(0, []);
            input = world.token();
        }
        "set" => input = world.seed(),
        _ => {}
    }
    let granted = world.grants();
    world.fault(delay);
    let mut child = world.sandbox.command(command.iter().copied());
    child.stdout(Stdio::null()).stderr(Stdio::null());
    if reads_stdin {
        child.stdin(Stdio::piped());
    }
    let mut child = child.spawn().unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.expose().as_bytes());
    }
    wait_until("the exchange", || (world.grants() > granted).then_some(()));
    kill(child.id(), signal);
    if STOPPING.contains(&signal) {
        std::thread::sleep(Duration::from_millis(50));
        kill(child.id(), 18);
    }
    if command[0] == "run" {
        // A process that the signal left alive ends by SIGTERM, when its exchange is over.
        wait_until("the stored answer or the end", || {
            let stored = world.sandbox.path("state/zg-tokend/default/state").exists()
                && !world.state()["access_token"].is_null();
            (stored || child.try_wait().unwrap().is_some()).then_some(())
        });
        let _ = Command::new("kill").arg(child.id().to_string()).stderr(Stdio::null()).status();
    }
    let ended = poll_for(Duration::from_secs(60), || child.try_wait().unwrap());
    if ended.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(ended.is_some(), "{command:?} does not end after signal {signal}");
    world.once_gives(0, []);
    assert_login_lives(&world);
}

#[test]
fn a_storm_of_refresh_signals_makes_few_requests() {
    const STORM: usize = 100;
    let world = World::new();
    world.configure("");
    let mut run = world.run();
    for _ in 0..STORM {
        kill(run.id(), 10);
        std::thread::sleep(Duration::from_millis(20));
    }
    run.signal(rustix::process::Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
    // Four a minute, on a machine that may be slow.
    let posts = world.posts();
    assert!((2..STORM / 4).contains(&posts), "{posts} requests: {}", run.log());
    assert_login_lives(&world);
}

#[test]
fn no_signal_ends_an_exchange_half_way() {
    let mut cases = Vec::new();
    for command in COMMANDS {
        for signal in SIGNALS.filter(|signal| !EXCLUDED.contains(signal)) {
            // The real-time signals are all alike: the first and the last of them.
            if !(35..64).contains(&signal) {
                cases.push((command, signal));
            }
        }
    }
    in_parallel(
        &cases,
        |((command, _), signal)| format!("signal {signal} to {command:?}"),
        |(command, signal)| interrupt(*command, *signal),
    );
}
