//! A `run` with tokens of two seconds, on a network that fails at random: no reader is without a
//! live token but where the outages themselves leave none, and nothing grows.

use std::fs;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use zg_tokend::clock::monotonic;
use zg_tokend::demo::audit::Event;
use zg_tokend::demo::faults::{Fault, Faults, Outage};
use zg_tokend::demo::issuer::Options;

use crate::common::world::World;
use crate::common::{at_full_size, audit, figure, wait_until};

/// The first wait after a failure; it doubles.
const BACKOFF: i64 = 1000;

/// The wait after two requests in a row without a definite answer.
const SECOND_RESEND: i64 = 5000;

/// How long a refresh may take once it is allowed, in milliseconds.
const SLACK: i64 = 1000;

/// Between two looks of the reader.
const LOOK: Duration = Duration::from_millis(5);

/// A reader that comes this much later than it wanted, in milliseconds, proves that the machine
/// stood still for others as well.
const STARVED: i64 = 100;

/// What memory may fluctuate by, in KiB: the allocator's reserves.
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

/// Times, in milliseconds, in which a gap is not the program's fault.
#[derive(Default)]
struct Excuses(Vec<Range<i64>>);

impl Excuses {
    /// A failure that was injected in this time, the `count`th in a row, and what follows from it.
    fn failed(&mut self, begin: i64, end: i64, count: u32) {
        let backoff = BACKOFF * (1 << (count - 1));
        let wait = if count == 1 { backoff } else { backoff.max(SECOND_RESEND) };
        self.0.push(begin..end + wait + SLACK);
    }

    fn cover(&self, at: i64) -> bool {
        self.0.iter().any(|excuse| excuse.contains(&at))
    }
}

/// Memory (RSS, in KiB) and descriptors of a process.
fn size(process: u32) -> (usize, usize) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let rss = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    (rss, fs::read_dir(format!("/proc/{process}/fd")).unwrap().count())
}

/// How many failures the server has injected since entry `from` of its log.
fn injected(world: &World, from: usize) -> usize {
    let failed = |event: &Event| match event {
        // A reply that was only late is none.
        Event::Fault { what } => !what.starts_with("commit, wait") || what.contains("truncate"),
        event => *event == Event::Hangup,
    };
    world.server.issuer(|issuer| issuer.audit()[from..].iter().filter(|entry| failed(&entry.event)).count())
}

/// Breaks something, waits for it to have been met, and notes what follows.
fn break_something(world: &World, chance: &mut Chance, excuses: &Mutex<Excuses>) {
    let begin = monotonic();
    let seen = world.server.issuer(|issuer| issuer.audit().len());
    // What is not known yet is excused already, or the reader would be faster than we.
    excuses.lock().unwrap().0.push(begin..i64::MAX);
    let count;
    if chance.below(4) == 0 {
        let outage = if chance.below(2) == 0 { Outage::Closed } else { Outage::Unavailable };
        world.outage(Some(outage));
        std::thread::sleep(Duration::from_millis(chance.below(6000)));
        world.outage(None);
        count = injected(world, seen);
    } else {
        let faults = (0..=chance.below(2)).map(|_| chance.fault()).collect();
        world.server.faults(|all| *all = Faults { next: faults, ..Faults::default() });
        let all_met = || {
            let mut left = true;
            world.server.faults(|faults| left = !faults.next.is_empty());
            (!left).then_some(())
        };
        wait_until("the faults to be met", all_met);
        count = injected(world, seen);
    }
    let end = monotonic();
    let mut excuses = excuses.lock().unwrap();
    excuses.0.pop();
    if count > 0 {
        excuses.failed(begin, end, count.min(6) as u32);
    }
}

#[test]
fn no_reader_is_without_a_token_but_in_outages() {
    let seconds = std::env::var("ZG_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let seconds = seconds.unwrap_or(if at_full_size() { 3600 } else { 60 });
    let world = World::with(Options {
        access_token_lifetime: Duration::from_secs(2),
        reuse_grace: Duration::from_secs(30),
        ..Options::default()
    });
    world.configure("timeout = \"2s\"");
    let mut run = world.run();
    world.assert_live();
    let end = monotonic() + seconds * 1000;
    let excuses = Mutex::new(Excuses::default());
    let (mut gaps, mut dead, mut looks, mut starved) = (Vec::new(), 0, 0, 0);
    let mut sizes = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut chance = Chance(1);
            // The last outage is over before the end.
            while monotonic() < end - 10_000 {
                std::thread::sleep(Duration::from_millis(1000 + chance.below(3000)));
                break_something(&world, &mut chance, &excuses);
            }
        });
        let (mut last, mut next_size) = (monotonic(), end - seconds * 800);
        while last < end {
            std::thread::sleep(LOOK);
            let now = monotonic();
            if now - last > STARVED {
                starved += 1;
                excuses.lock().unwrap().0.push(last..now + SLACK);
            }
            last = now;
            looks += 1;
            if !world.server.is_live(&world.token()) {
                dead += 1;
                if !excuses.lock().unwrap().cover(now) {
                    gaps.push(now);
                }
            }
            if now > next_size {
                sizes.push(size(run.id()));
                next_size += seconds * 100;
            }
        }
    });
    wait_until("a live token at the end", || world.server.is_live(&world.token()).then_some(()));
    assert_eq!(run.stop().code(), Some(0), "{}", run.log());
    let log = world.server.audit();
    let refusals = log.iter().filter(|entry| matches!(entry.event, Event::Refusal { .. })).count();
    let (rss, descriptors): (Vec<usize>, Vec<usize>) = sizes.into_iter().unzip();
    let outages = excuses.lock().unwrap().0.len();
    figure(format!(
        "soak: {seconds} s, {} POSTs, {} grants, {refusals} refusals, {outages} disturbances ({starved} by the machine), \
         {looks} looks, {dead} without a live token, {} of them outside disturbances, RSS {rss:?} KiB, descriptors {descriptors:?}",
        audit::posts(&log),
        audit::grants(&log),
        gaps.len()
    ));
    assert_eq!(gaps.len(), 0, "gaps outside outages: {}", run.log());
    assert_eq!(refusals, 0, "no login is lost");
    let smallest = rss.iter().min().unwrap();
    assert!(rss.iter().all(|rss| *rss < smallest + MEMORY_SLACK), "RSS grows: {rss:?} KiB");
    assert!(descriptors.iter().max().unwrap() - descriptors.iter().min().unwrap() <= 4, "{descriptors:?}");
}
