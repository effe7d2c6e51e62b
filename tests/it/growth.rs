//! The work for one of many accounts must not grow with their number. System calls are counted, since
//! times depend on the machine.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{Mode, chmod};
use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::secret::Secret;

use crate::common::world::{World, read};
use crate::common::{Background, Sandbox, audit, closed_port, finish, leave_out, settled, under, wait_until};

fn world() -> World {
    let sandbox = Sandbox::below(Path::new("/dev/shm"));
    World { sandbox, ..World::with(IssuerOptions::default()) }
}

/// Accounts with new logins; `prefix` begins their names.
fn accounts(world: &World, prefix: &str, count: usize) -> Vec<(String, Secret)> {
    (0..count).map(|number| (format!("{prefix}{number}"), world.seed())).collect()
}

fn configure(world: &World, accounts: &[(String, Secret)]) {
    let borrowed: Vec<(&str, &Secret)> = accounts.iter().map(|(name, seed)| (name.as_str(), seed)).collect();
    world.configure_accounts(&borrowed);
}

fn strace_is_missing() -> bool {
    let missing = Command::new("strace").arg("-V").output().is_err();
    if missing {
        leave_out("counting system calls: strace is not installed");
    }
    missing
}

/// The calls in a trace that open a state file to read it.
fn reads_of_states(trace: &Path) -> Vec<String> {
    let trace = fs::read_to_string(trace).unwrap();
    let reads = trace.lines().filter(|line| line.contains("\"state\", O_RDONLY") && !line.contains("O_PATH"));
    reads.map(str::to_owned).collect()
}

#[test]
fn a_first_pass_reads_every_state_a_few_times() {
    if strace_is_missing() {
        return;
    }
    let reads = [100, 200].map(|count| {
        let world = world();
        configure(&world, &accounts(&world, "a", count));
        let trace = world.sandbox.path("trace");
        let strace = ["strace", "-f", "-qq", "-e", "trace=openat", "-o", trace.to_str().unwrap(), "--"];
        let output = finish(&mut under(strace, &world.sandbox.command(["once", "--quiet"])));
        assert_eq!((output.code, world.grants()), (Some(0), count), "{output:?}");
        reads_of_states(&trace).len()
    });
    assert!(reads[0] <= 12 * 100 && 2 * reads[1] <= 5 * reads[0], "100 and 200 accounts: {reads:?} reads");
}

#[test]
fn many_renamed_accounts_take_their_states_along() {
    let world = world();
    let before = accounts(&world, "before", 30);
    configure(&world, &before);
    world.once_gives(0, []);
    let rename = |(place, (_, seed)): (usize, &(String, Secret))| (format!("after{place}"), seed.clone());
    let mut after: Vec<_> = before.iter().enumerate().map(rename).collect();
    after.extend(accounts(&world, "new", 30));
    configure(&world, &after);
    world.once_gives(0, []);
    assert_eq!(world.grants(), 60, "only the new accounts are due");
    world.once_gives(0, ["--force"]);
    audit::assert_one_post_per_epoch(&world.server.audit());
    for (name, _) in &after {
        assert!(world.server.is_live(&read(&world.token_file_of(name))), "{name}");
    }
}

#[test]
fn among_many_new_accounts_the_seed_of_another_is_refused() {
    let world = world();
    let mut all = accounts(&world, "a", 1);
    configure(&world, &all);
    world.once_gives(0, []);
    all.extend(accounts(&world, "new", 30));
    configure(&world, &all);
    // In a file, so that config cannot see that it is the same.
    let path = world.sandbox.path("home/seed");
    fs::write(&path, all[0].1.expose()).unwrap();
    chmod(&path, Mode::from_raw_mode(0o600)).unwrap();
    let config = fs::read_to_string(world.sandbox.config_path()).unwrap();
    let file = format!("{{ file = \"{}\" }}", path.display());
    world.sandbox.write_config(&config.replace(&format!("\"{}\"", all[20].1.expose()), &file));
    let output = world.once_gives(78, []);
    assert!(output.stderr.contains("belongs to account a0 already"), "{output:?}");
    assert_eq!(world.posts(), 30);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn a_change_of_one_state_is_no_work_for_other_accounts_with_targets() {
    let traceable = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    if strace_is_missing() {
        return;
    }
    if !rustix::process::geteuid().is_root() && traceable.is_ok_and(|scope| scope.trim() != "0") {
        return leave_out("counting the calls of run: strace may not attach to a process");
    }
    let world = world();
    configure(&world, &accounts(&world, "a", 20));
    let config = fs::read_to_string(world.sandbox.config_path()).unwrap();
    // Nobody takes the token there: each new one is tried, and that is told.
    let (_socket, address) = closed_port();
    let target = format!("push = [{{ url = \"http://{address}/\" }}]\nrefresh_token");
    world.sandbox.write_config(&config.replace("refresh_token", &target));
    let mut run = world.run();
    let trace = world.sandbox.path("trace");
    let pid = run.id().to_string();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-e", "trace=openat", "-o", trace.to_str().unwrap(), "-p", &pid]);
    let strace = Background::start(&mut strace, world.sandbox.path("strace.log"));
    wait_until("strace", || strace.log().contains("attached").then_some(()));
    // The changes that it made itself are noticed a second later.
    let quiet = Duration::from_secs(4);
    let before = settled(quiet, || reads_of_states(&trace).len());
    world.once_gives(0, ["--force", "--account", "a7"]);
    wait_until("a look at the state", || (reads_of_states(&trace).len() > before).then_some(()));
    settled(quiet, || reads_of_states(&trace).len());
    let reads = reads_of_states(&trace).split_off(before);
    assert!(reads.iter().all(|line| line.contains("/a7>")), "{reads:#?}");
    assert_eq!(run.stop().code(), Some(0), "{}", run.log());
}
