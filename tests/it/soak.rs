//! A `run` with tokens of two seconds, on a network that fails at random: no reader is without a
//! live token but where the outages themselves leave none, and nothing grows.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};

use zg_tokend::testing::clock::monotonic;
use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::demo::{AuditEntry, AuditEvent};
use zg_tokend::testing::demo::{Fault, Outage};

use crate::common::world::World;
use crate::common::{Background, at_full_size, audit, figure, finish, poll_for, under};

const NONBLOCK: i32 = OFlags::NONBLOCK.bits().cast_signed();

/// The first wait after a failure; it doubles.
const BACKOFF: i64 = 1000;

/// The wait after two requests in a row without a definite answer.
const SECOND_RESEND: i64 = 5000;

/// How long a refresh may take once it is allowed, in milliseconds.
const SLACK: i64 = 1000;

/// How long a refresh may be late after the machine or its disk stood still, in milliseconds: it has
/// half of the life of a token for all of its turns of the processor.
const LATE_AFTER_STALL: i64 = 3000;

/// Between two looks of the reader.
const LOOK: Duration = Duration::from_millis(5);

/// A reader that comes this much later than it wanted, in milliseconds, proves that the machine
/// stood still for others as well.
const STARVED: i64 = 250;

/// Between two looks at the disk.
const DISK_LOOK: Duration = Duration::from_millis(50);

/// The share of the time in which injected failures may excuse a gap, in percent. A minute has about 50;
/// a machine that is slow to recover has more, and with more than this hardly anything would be judged.
const MAX_EXCUSED: i64 = 75;

/// The fluctuation of memory that is allowed, in KiB: the allocator's reserves.
const MEMORY_SLACK: usize = 1024;

/// Faults that come out of one number; the same one every time, so that a failure comes back.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    /// One fault, and for how many failures in a row it may stand.
    fn fault(&mut self) -> Fault {
        match self.below(6) {
            0 => Fault::reply(503, "{}"),
            1 => Fault::reply(500, "<html>oops</html>"),
            2 => Fault::drop_before_commit(),
            3 => Fault::drop_after_commit(),
            4 => Fault { truncate_after: Some(self.below(60) as usize), ..Fault::default() },
            _ => Fault { delay_after_commit_ms: self.below(300), ..Fault::default() },
        }
    }
}

/// Times on the server's clock in which a gap is not the program's fault: from each request that
/// failed on purpose until the next one is allowed, and a little longer.
fn excuses(log: &[AuditEntry]) -> Vec<Range<i64>> {
    let (mut excuses, mut failures, mut failed) = (Vec::new(), 0, false);
    for entry in log {
        match &entry.event {
            AuditEvent::Post => failed = false,
            // A reply that was only late is no failure.
            AuditEvent::Fault { what } if what.starts_with("commit, wait") && !what.contains("truncate") => {}
            AuditEvent::Fault { .. } | AuditEvent::Hangup => {
                failed = true;
                failures += 1;
                let backoff = BACKOFF << (failures - 1).min(6);
                let wait = if failures == 1 { backoff } else { backoff.max(SECOND_RESEND) };
                excuses.push(entry.at..entry.at + wait + SLACK);
            }
            AuditEvent::Grant { .. } if !failed => failures = 0,
            _ => {}
        }
    }
    excuses
}

/// Times on the server's clock in which the disk stood still: `run` syncs its state before it gives
/// a token out, and waits as long as this does.
fn disk_stalls(world: &World, end: i64) -> Vec<Range<i64>> {
    let path = world.sandbox.path("synced");
    let mut stalls = Vec::new();
    while monotonic() < end {
        std::thread::sleep(DISK_LOOK);
        let begun = monotonic();
        File::create(&path).and_then(|file| file.sync_all()).unwrap();
        let took = monotonic() - begun;
        if took > STARVED {
            let server = world.server.now();
            stalls.push(server - took..server + LATE_AFTER_STALL);
        }
    }
    stalls
}

/// How much of `whole` these times cover, each instant counted once; milliseconds.
fn covered<'a>(times: impl IntoIterator<Item = &'a Range<i64>>, whole: &Range<i64>) -> i64 {
    let within = |time: &Range<i64>| time.start.max(whole.start)..time.end.min(whole.end);
    let mut times: Vec<Range<i64>> = times.into_iter().map(within).collect();
    times.sort_by_key(|time| time.start);
    let (mut covered, mut reached) = (0, whole.start);
    for time in times {
        covered += (time.end - time.start.max(reached)).max(0);
        reached = reached.max(time.end);
    }
    covered
}

#[test]
fn times_that_overlap_are_counted_once() {
    let times = [5..7, 0..4, 1..2, 3..5, 20..30];
    assert_eq!(covered(&times, &(2..25)), 5 + 5);
    assert_eq!(covered(&[], &(2..25)), 0);
}

/// Memory (RSS, in KiB) and descriptors of a process.
fn size(process: u32) -> (usize, usize) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let rss = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    (rss, fs::read_dir(format!("/proc/{process}/fd")).unwrap().count())
}

/// From the last incident's end until a live token: the longest wait that its three failures or
/// its outage lead to, and an exchange on a slow machine.
const RECOVERY: Duration = Duration::from_secs(60);

/// Breaks something for a while.
fn break_something(world: &World, outside: &Outside, chance: &mut Chance) {
    if chance.below(3) == 0 {
        outside.trouble(world, chance);
    } else if chance.below(4) == 0 {
        let outage = if chance.below(2) == 0 { Outage::Closed } else { Outage::Unavailable };
        world.outage(Some(outage));
        std::thread::sleep(Duration::from_millis(chance.below(6000)));
        world.outage(None);
    } else {
        for _ in 0..=chance.below(2) {
            world.fault(chance.fault());
        }
    }
}

/// Signals that `run` has a use for, or ignores: USR1, HUP, USR2, ALRM, PWR, IO, VTALRM, XCPU, CONT.
const SIGNALS: [u32; 9] = [10, 1, 12, 14, 30, 29, 26, 24, 18];

/// Signals to a pass: TERM, INT, HUP, QUIT, USR1, ALRM.
const PASS_SIGNALS: [u32; 6] = [15, 2, 1, 3, 10, 14];

/// A user of this process alone, for a limit of processes: the kernel sets none for root, and counts
/// those of another test run on this machine as well.
fn user() -> u32 {
    1_000_000_000 + std::process::id() * 8 + 7
}

/// The surroundings of `run`: readers that stand still, clients that hang, signals, and threads that are
/// refused. None of this excuses a gap.
struct Outside {
    run: u32,
    /// The reader of the log stands still.
    stalled: Arc<AtomicBool>,
    /// A writing end of the log's pipe, to fill it.
    pipe: File,
    /// Nobody reads it.
    _service_manager: UnixDatagram,
    /// Of each kind of trouble.
    counts: [AtomicUsize; 5],
}

impl Outside {
    /// Makes the sandbox ready, and starts `run` in it.
    fn start(world: &World) -> (Background, Self) {
        let (fifo, socket, log) =
            (world.sandbox.path("log.pipe"), world.sandbox.path("notify"), world.sandbox.path("run.log"));
        mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
        let service_manager = UnixDatagram::bind(&socket).unwrap();
        let open = || OpenOptions::new().read(true).write(true).custom_flags(NONBLOCK).open(&fifo).unwrap();
        let (mut reader, pipe, stderr) = (open(), open(), open());
        if rustix::process::geteuid().is_root() {
            let (owner, all) = (format!("{0}:{0}", user()), world.sandbox.path(""));
            assert!(Command::new("chown").args(["-R", &owner]).arg(all).status().unwrap().success());
        }
        File::create(&log).unwrap();
        let mut command = as_user(world.sandbox.command(["run"]));
        command.env("NOTIFY_SOCKET", &socket).stdout(Stdio::null()).stderr(stderr);
        let run = Background::start_with(&mut command, &log);
        let stalled = Arc::new(AtomicBool::new(false));
        let stands_still = Arc::clone(&stalled);
        // It ends with the test.
        std::thread::spawn(move || {
            let mut log = OpenOptions::new().append(true).create(true).open(log).unwrap();
            let mut chunk = [0; 4096];
            loop {
                let count = if stands_still.load(Ordering::Relaxed) {
                    0
                } else {
                    reader.read(&mut chunk).unwrap_or(0)
                };
                if count == 0 {
                    std::thread::sleep(Duration::from_millis(20));
                } else if log.write_all(&chunk[..count]).is_err() {
                    return;
                }
            }
        });
        let outside = Self {
            run: run.id(),
            stalled,
            pipe,
            _service_manager: service_manager,
            counts: Default::default(),
        };
        (run, outside)
    }

    fn trouble(&self, world: &World, chance: &mut Chance) {
        let kind = chance.below(5) as usize;
        self.counts[kind].fetch_add(1, Ordering::Relaxed);
        match kind {
            0 => {
                for _ in 0..20 {
                    signal(self.run, SIGNALS[chance.below(SIGNALS.len() as u64) as usize]);
                    std::thread::sleep(Duration::from_millis(chance.below(50)));
                }
            }
            1 => {
                self.stalled.store(true, Ordering::Relaxed);
                while (&self.pipe).write(b"full\n").is_ok() {}
                std::thread::sleep(Duration::from_millis(1000 + chance.below(5000)));
                self.stalled.store(false, Ordering::Relaxed);
            }
            2 => {
                let before = self.limit_processes(world, "1");
                std::thread::sleep(Duration::from_millis(1000 + chance.below(5000)));
                self.limit_processes(world, &before);
            }
            3 => {
                let socket = world.sandbox.path("runtime/zg-tokend/control.sock");
                let clients: Vec<_> = (0..3).map(|_| UnixStream::connect(&socket).unwrap()).collect();
                std::thread::sleep(Duration::from_millis(chance.below(3000)));
                drop(clients);
            }
            _ => {
                let mut pass = as_user(world.sandbox.command(["once", "--force"]));
                let mut pass = Background::start(&mut pass, world.sandbox.path("once.log"));
                std::thread::sleep(Duration::from_millis(chance.below(60)));
                signal(pass.id(), PASS_SIGNALS[chance.below(PASS_SIGNALS.len() as u64) as usize]);
                pass.wait();
            }
        }
    }

    /// Sets the soft limit of processes, and gives the one before.
    fn limit_processes(&self, world: &World, limit: &str) -> String {
        let run = self.run.to_string();
        let prlimit = |arguments: [&str; 3]| {
            // Root may not be permitted to change the limits of another user.
            let mut command = Command::new("prlimit");
            command.args(["--pid", &run]).args(arguments).current_dir(world.sandbox.path("home"));
            let output = finish(&mut as_user(command));
            assert_eq!(output.code, Some(0), "{output:?}");
            output.stdout.trim().to_owned()
        };
        let before = prlimit(["--nproc", "--output=SOFT", "--noheadings"]);
        prlimit([&format!("--nproc={limit}:"), "--raw", "--noheadings"]);
        before
    }
}

/// As a user who is not root, if possible.
fn as_user(command: Command) -> Command {
    if !rustix::process::geteuid().is_root() {
        return command;
    }
    let user = user().to_string();
    under(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"], &command)
}

/// Sends a signal, unless the process has ended.
fn signal(process: u32, number: u32) {
    let arguments = [format!("-{number}"), process.to_string()];
    let _ = Command::new("kill").args(arguments).stderr(Stdio::null()).status();
}

/// Whether every fault met its request and the newest request was granted without one.
///
/// One incident ends before the next begins: faults that met every retry would be one outage
/// without an end, and a lost answer outlives the server's reuse grace in it.
fn has_recovered(world: &World) -> bool {
    let log = world.server.audit();
    let newest = log.iter().rev().take_while(|entry| entry.event != AuditEvent::Post);
    let is_whole = newest.fold(None, |granted, entry| match entry.event {
        AuditEvent::Grant { .. } => granted.or(Some(true)),
        AuditEvent::Fault { .. } | AuditEvent::Hangup => Some(false),
        _ => granted,
    });
    let mut are_met = false;
    world.server.faults(|faults| are_met = faults.next.is_empty());
    are_met && is_whole == Some(true)
}

#[test]
fn no_reader_is_without_a_token_but_in_outages() {
    let seconds = std::env::var("ZG_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let seconds = seconds.unwrap_or(if at_full_size() { 3600 } else { 60 });
    let world = World::with(IssuerOptions {
        access_token_lifetime: Duration::from_secs(4),
        reuse_grace: Duration::from_secs(30),
        ..IssuerOptions::default()
    });
    // Each refresh finds the hook of an earlier one still running.
    world.configure("timeout = \"30s\"\non_refresh = [\"sleep\", \"3\"]");
    let (mut run, outside) = Outside::start(&world);
    run.wait_for("supervising");
    world.assert_live();
    let end = monotonic() + seconds * 1000;
    let begun = world.server.now();
    let (mut dead, mut starved, mut sizes, mut looks) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let disk_stalls = std::thread::scope(|scope| {
        let disk = scope.spawn(|| disk_stalls(&world, end));
        scope.spawn(|| {
            let mut chance = Chance(1);
            // The last outage is over before the end.
            while monotonic() < end - 10_000 {
                std::thread::sleep(Duration::from_millis(1000 + chance.below(3000)));
                break_something(&world, &outside, &mut chance);
                while !has_recovered(&world) && monotonic() < end {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        });
        let (mut last, mut next_size) = (monotonic(), end - seconds * 800);
        while last < end {
            std::thread::sleep(LOOK);
            let now = monotonic();
            if now - last > STARVED {
                let server = world.server.now();
                starved.push(server - (now - last)..server + LATE_AFTER_STALL);
            }
            last = now;
            looks += 1;
            if !world.reads_live(&world.token_file()) {
                dead.push(world.server.now());
            }
            if now > next_size {
                sizes.push(size(run.id()));
                next_size += seconds * 100;
            }
        }
        disk.join().unwrap()
    });
    let whole = begun..world.server.now();
    let recovered = poll_for(RECOVERY, || world.server.is_live(&world.token()).then_some(()));
    let log = run.log();
    let end_of_log: Vec<&str> = log.lines().rev().take(30).collect();
    assert!(recovered.is_some(), "no live token at the end; the log, from its end: {end_of_log:#?}");
    assert_eq!(run.stop().code(), Some(0), "{}", run.log());
    let log = world.server.audit();
    let refusals = log.iter().filter(|entry| matches!(entry.event, AuditEvent::Refusal { .. })).count();
    let (rss, descriptors): (Vec<usize>, Vec<usize>) = sizes.into_iter().unzip();
    let excuses = excuses(&log);
    let is_excused =
        |at: &&i64| excuses.iter().chain(&starved).chain(&disk_stalls).any(|excuse| excuse.contains(*at));
    let gaps: Vec<i64> = dead.iter().filter(|at| !is_excused(at)).copied().collect();
    let by_failures = covered(&excuses, &whole);
    let by_anything = covered(excuses.iter().chain(&starved).chain(&disk_stalls), &whole);
    figure(format!(
        "soak: {seconds} s, {} POSTs, {} grants, {refusals} refusals, {} failures injected, \
         {:?} signals, full pipes, refused threads, hung clients and interrupted passes, \
         {} stalls of the machine, {} of its disk, {} s excused, {} s of them by failures, {looks} looks, {} without a live token, {} of them outside injected failures, RSS {rss:?} KiB, descriptors {descriptors:?}",
        audit::posts(&log),
        audit::grants(&log),
        excuses.len(),
        outside.counts,
        starved.len(),
        disk_stalls.len(),
        by_anything / 1000,
        by_failures / 1000,
        dead.len(),
        gaps.len()
    ));
    assert!(gaps.is_empty(), "{gaps:?} outside {excuses:?}: {}", run.log());
    let share = by_failures * 100 / (whole.end - whole.start);
    assert!(share < MAX_EXCUSED, "{share} % of the time is excused: that proves little");
    assert_eq!(refusals, 0, "no login is lost");
    let smallest = rss.iter().min().unwrap();
    assert!(rss.iter().all(|rss| *rss < smallest + MEMORY_SLACK), "RSS grows: {rss:?} KiB");
    assert!(descriptors.iter().max().unwrap() - descriptors.iter().min().unwrap() <= 10, "{descriptors:?}");
}
