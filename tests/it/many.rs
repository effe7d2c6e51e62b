//! Many accounts, many processes, many signals.

use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use zg_tokend::testing::clock::{Clock, SystemClock};
use zg_tokend::testing::demo::Fault;
use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::secret::Secret;

use crate::common::world::{World, read};
use crate::common::{Background, audit, finish, wait_until};

/// So many accounts, the first `count` of a config.
fn accounts(world: &World, count: usize) -> Vec<String> {
    let accounts: Vec<(String, Secret)> =
        (0..count).map(|number| (format!("a{number}"), world.seed())).collect();
    let borrowed: Vec<(&str, &Secret)> = accounts.iter().map(|(name, seed)| (name.as_str(), seed)).collect();
    world.configure_accounts(&borrowed);
    accounts.into_iter().map(|(name, _)| name).collect()
}

#[track_caller]
fn assert_all_live(world: &World, accounts: &[String]) {
    for name in accounts {
        assert!(world.server.is_live(&read(&world.token_file_of(name))), "{name}");
    }
}

/// The binary with at most so many descriptors to begin with; the hard limit stays.
fn limited(world: &World, descriptors: usize, args: &str) -> Command {
    let binary = env!("CARGO_BIN_EXE_zg-tokend");
    through_shell(world, &format!("ulimit -Sn {descriptors}; exec {binary} {args}"))
}

/// A shell with the binary's environment.
fn through_shell(world: &World, script: &str) -> Command {
    let template = world.sandbox.command([]);
    let mut command = Command::new("sh");
    command.args(["-c", script]).env_clear().current_dir(world.sandbox.path("home"));
    command.envs(template.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// Processor time that a process has used so far.
fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // utime and stime, proc_pid_stat(5), in hundredths of a second. The name ends with the last ')'.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    Duration::from_millis((fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10)
}

#[test]
fn passes_at_the_same_instant_make_one_request() {
    let world = World::new();
    world.configure("");
    for round in 1..=3 {
        world.fault(Fault { delay_before_commit_ms: 100, ..Fault::default() });
        let mut passes: Vec<Background> = (0..12)
            .map(|n| {
                Background::start(&mut world.sandbox.command(["once"]), world.sandbox.path(format!("{n}")))
            })
            .collect();
        for pass in &mut passes {
            assert_eq!(wait_until("the end", || pass.ended()).code(), Some(0), "{}", pass.log());
        }
        assert_eq!(world.posts(), round);
        world.assert_live();
        world.pass_time(Duration::from_secs(3600));
    }
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn once_with_more_accounts_than_descriptors() {
    let world = World::new();
    let accounts = accounts(&world, 300);
    let output = finish(&mut limited(&world, 700, "once --quiet"));
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "due");
    assert_eq!(world.posts(), 300);
    assert_all_live(&world, &accounts);
    for args in ["once --quiet", "status", "check"] {
        assert_eq!(finish(&mut limited(&world, 100, args)).code, Some(0), "{args}: nothing due");
    }
}

#[test]
fn run_with_more_accounts_than_descriptors() {
    let world = World::new();
    let accounts = accounts(&world, 150);
    let mut run = Background::start(&mut limited(&world, 100, "run"), world.sandbox.path("log"));
    run.wait_for("supervising");
    assert_all_live(&world, &accounts);
    assert_eq!(run.stop().code(), Some(0));
}

#[test]
fn accounts_that_wait_for_their_turn_cost_nothing() {
    // More than may be at work together ask together, and the server is slow.
    let world = World::new();
    accounts(&world, 100);
    let mut run = world.run();
    world.server.faults(|faults| {
        faults.standing = Some(Fault { delay_before_commit_ms: 1500, ..Fault::default() });
    });
    run.signal(Signal::USR1);
    wait_until("the wave", || (world.posts() >= 164).then_some(()));
    let before = processor_time(run.id());
    wait_until("the second half", || (world.posts() > 164).then_some(()));
    let used = processor_time(run.id()).saturating_sub(before);
    assert!(used < Duration::from_millis(700), "{used:?} for waiting a second and a half");
    world.server.faults(|faults| faults.standing = None);
    assert_eq!(run.stop().code(), Some(0), "{}", run.log());
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn a_second_signal_does_not_abandon_the_request() {
    for (program, signals) in [
        ("run", [Signal::TERM, Signal::TERM]),
        ("run", [Signal::INT, Signal::INT]),
        ("once", [Signal::INT, Signal::INT]),
        ("once", [Signal::HUP, Signal::TERM]),
    ] {
        let world = World::new();
        world.configure("");
        world.fault(Fault { delay_after_commit_ms: 700, ..Fault::default() });
        let log = world.sandbox.path("log");
        let mut child = Background::start(&mut world.sandbox.command([program]), log);
        wait_until("the grant", || (world.grants() == 1).then_some(()));
        for signal in signals {
            child.signal(signal);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(wait_until("the end", || child.ended()).code(), Some(0), "{program}: {}", child.log());
        world.once_gives(0, ["--force"]);
        audit::assert_one_post_per_epoch(&world.server.audit());
    }
}

#[test]
fn a_process_that_waits_for_the_lock_stops_at_once() {
    for program in [&["run"][..], &["once"]] {
        let world =
            World::with(IssuerOptions { reuse_grace: Duration::from_secs(60), ..IssuerOptions::default() });
        world.configure("");
        world.fault(Fault { delay_before_commit_ms: 60_000, ..Fault::default() });
        let mut holder =
            Background::start(&mut world.sandbox.command(["once"]), world.sandbox.path("holder"));
        wait_until("the request", || (world.posts() == 1).then_some(()));
        let log = world.sandbox.path("log");
        let mut waiter = Background::start(&mut world.sandbox.command(program.iter().copied()), log);
        // It has been at work for a while, as the processor's time shows, or waits by now.
        wait_until("the waiter", || (processor_time(waiter.id()) > Duration::ZERO).then_some(()));
        std::thread::sleep(Duration::from_millis(200));
        waiter.signal(Signal::TERM);
        let clock = SystemClock::new();
        let told_at = clock.now();
        let status = wait_until("the end", || waiter.ended());
        assert!(clock.now().since(told_at) < Duration::from_secs(10), "{status}");
        assert_eq!(world.posts(), 1);
        holder.signal(Signal::KILL);
    }
}

#[test]
fn the_state_is_private_whatever_the_umask() {
    let world = World::new();
    world.configure("");
    let script = format!("umask 000; exec {} once", env!("CARGO_BIN_EXE_zg-tokend"));
    assert_eq!(finish(&mut through_shell(&world, &script)).code, Some(0));
    let mode = |path: std::path::PathBuf| {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!(mode(world.sandbox.path("state/zg-tokend")), 0o700);
    assert_eq!(mode(world.state_path("default", "")), 0o700);
    for entry in fs::read_dir(world.state_path("default", "")).unwrap() {
        assert_eq!(mode(entry.unwrap().path()), 0o600);
    }
    assert_eq!(mode(world.token_file()), 0o600);
}

#[test]
fn paths_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::new();
    let seed = world.seed();
    let home = world.sandbox.path(std::ffi::OsStr::from_bytes(b"a home \xff"));
    fs::create_dir(&home).unwrap();
    let config = home.join("config.toml");
    world.configure_seed(&seed, "token_file = \"token\"\nstate_dir = \"state\"");
    fs::rename(world.sandbox.config_path(), &config).unwrap();
    for (args, code) in [(&["once"][..], 0), (&["once", "--force"], 0), (&["status"], 0), (&["check"], 0)] {
        let mut command = world.sandbox.command(args.iter().copied());
        let output = finish(command.arg("--config").arg(&config));
        assert_eq!(output.code, Some(code), "{args:?} {output:?}");
    }
    assert!(world.server.is_live(&read(&home.join("token"))));
    let output = finish(world.sandbox.command(["status", "--json"]).arg("--config").arg(&config));
    let json: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert!(json["accounts"][0]["token_file"]["path"].as_str().unwrap().contains("a home"));
}

#[test]
fn a_server_s_words_cannot_forge_lines_or_move_the_cursor() {
    let world = World::new();
    world.configure("");
    let body = r#"{"error":"invalid_grant","error_description":"a\u001b[2J\nerror: forged\r\u009b31m"}"#;
    world.fault(Fault::reply(400, body));
    let output = world.once_gives(77, []);
    let status = world.sandbox.run(["status"]);
    for text in [&output.stderr, &status.stdout] {
        assert!(!text.contains(['\u{1b}', '\u{9b}', '\r']) && !text.contains("\nerror: forged"), "{text:?}");
    }
}

#[test]
fn absurd_numbers_are_no_panic() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, ["--every", "500000000000y"]);
    for (pointer, value) in [
        ("/access_token/lifetime_ms", u64::MAX),
        ("/access_token/jitter_ms", u64::MAX),
        ("/access_token/issued_at/wall_ms", i64::MAX as u64),
        ("/access_token/issued_at/boot_ms", i64::MAX as u64),
        ("/generation", u64::MAX),
    ] {
        let mut state = world.state();
        *state.pointer_mut(pointer).unwrap() = value.into();
        world.write_state(&state);
        for args in [&["status"][..], &["once"], &["once", "--force"], &["status", "--json"]] {
            let output = world.sandbox.run(args.iter().copied());
            assert!(
                output.code.is_some_and(|code| code < 79) && !output.stderr.contains("panicked"),
                "{pointer}: {output:?}"
            );
        }
        world.assert_live();
    }
}

#[test]
fn forced_passes_at_the_same_instant_never_send_a_refresh_token_twice() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let mut passes: Vec<Background> = (0..8)
        .map(|n| {
            let mut command = world.sandbox.command(["once", "--force"]);
            Background::start(&mut command, world.sandbox.path(format!("{n}")))
        })
        .collect();
    for pass in &mut passes {
        assert_eq!(wait_until("the end", || pass.ended()).code(), Some(0), "{}", pass.log());
    }
    audit::assert_one_post_per_epoch(&world.server.audit());
    world.assert_live();
}

#[test]
fn once_in_a_loop_beside_run_never_sends_a_refresh_token_twice() {
    let world = World::in_memory(8);
    world.configure("");
    let mut run = world.run();
    let mut passes = 0;
    while world.grants() < 5 {
        world.once_gives(0, if passes % 10 == 9 { &["--force"][..] } else { &[] }.iter().copied());
        world.assert_live();
        passes += 1;
    }
    assert_eq!(run.stop().code(), Some(0));
    audit::assert_one_post_per_epoch(&world.server.audit());
}
