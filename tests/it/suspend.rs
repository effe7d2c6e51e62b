//! Tests that need a machine of their own: it is suspended, and its clock is set. `tests/all/suspend`
//! makes one.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use zg_tokend::testing::clock::{Clock, SystemClock, monotonic};
use zg_tokend::testing::demo::Fault;

use crate::common::wait_until;
use crate::common::world::World;

/// On the kernel's command line of a machine that may be treated like this.
const CONSENT: &str = "zg_tokend_guest";

/// How often it is suspended.
const RESUMES: usize = 5;

/// Tokens die while it is suspended for [`ASLEEP`] ...
const LIFETIME: u64 = 6;

/// ... seconds, which the real-time clock's alarm ends.
const ASLEEP: i64 = 8;

/// How long nothing more happens: less than until the next refresh of such a token.
const QUIET: Duration = Duration::from_secs(1);

#[test]
#[ignore = "suspends the machine and sets its clock: run tests/all/suspend"]
fn a_machine_of_its_own() {
    let consents = fs::read_to_string("/proc/cmdline").unwrap().contains(CONSENT);
    assert!(consents, "this would suspend the machine: run tests/all/suspend");
    wakings();
    steps();
}

fn wakings() {
    let world = World::with_lifetime(LIFETIME);
    world.configure("");
    let mut run = world.run();
    let mut waits: Vec<i64> = (0..RESUMES)
        .map(|_| {
            let before = world.token();
            run.signal(Signal::USR1);
            wait_until("a new token", || (world.token() != before).then_some(()));
            // The pass that brought it is over.
            thread::sleep(QUIET / 4);
            let posts = world.posts();
            let waited = sleep_and_wait_for_token(&world);
            thread::sleep(QUIET);
            assert_eq!(world.posts(), posts + 1, "{}", run.log());
            waited
        })
        .collect();
    waits.sort_unstable();
    println!(
        "from resume to a live token: min {} ms, median {} ms, max {} ms of {RESUMES}; 1 request each",
        waits[0],
        waits[RESUMES / 2],
        waits[RESUMES - 1]
    );
    // One round trip, on a machine that may be emulated and shared; no timer is that short.
    assert!(waits[RESUMES - 1] < 5000, "{waits:?}");

    let posts = world.posts();
    world.fault(Fault { delay_after_commit_ms: 1000, ..Fault::default() });
    run.signal(Signal::USR1);
    wait_until("a request under way", || (world.posts() > posts).then_some(()));
    let waited = sleep_and_wait_for_token(&world);
    println!("the same with a request under way: {waited} ms, {} requests", world.posts() - posts);
    assert!(waited < 5000 && world.posts() <= posts + 2, "{}", run.log());
}

/// How long after resume there is a live token, in milliseconds.
fn sleep_and_wait_for_token(world: &World) -> i64 {
    let token = world.token();
    let resumed = suspend();
    assert!(!world.server.is_live(&token), "it has slept for longer than that");
    wait_until("a live token", || world.server.is_live(&world.token()).then_some(()));
    (monotonic() - resumed).max(0)
}

/// Suspends to memory, and gives the monotonic instant at which processes went on.
fn suspend() -> i64 {
    let alarm = "/sys/class/rtc/rtc0/wakealarm";
    fs::write(alarm, "0").unwrap();
    fs::write(alarm, format!("+{ASLEEP}")).unwrap();
    let (resumed, wakings) = mpsc::channel();
    let before = suspended_for();
    // A thread that is woken like any other process, to compare with.
    let bystander = thread::spawn(move || {
        while suspended_for() - before < ASLEEP * 1000 / 2 {
            thread::sleep(Duration::from_millis(1));
        }
        resumed.send(monotonic()).unwrap();
    });
    fs::write("/sys/power/state", "mem").unwrap();
    bystander.join().unwrap();
    wakings.recv().unwrap()
}

/// How long the machine has been suspended since it was started, in milliseconds.
fn suspended_for() -> i64 {
    SystemClock::new().now().boot - monotonic()
}

fn steps() {
    let world = World::new();
    world.configure("");
    let run = world.run();
    let mut posts = 1;
    for (name, step) in [("-1 h", -3600), ("-1 d", -86_400), ("+1 d", 86_400), ("1970", i64::MIN)] {
        let right = clock_gettime(ClockId::Realtime).tv_sec;
        let stepped_at = monotonic();
        // The kernel lets no clock be set to before its own start.
        for seconds in [right.saturating_add(step).max(3600), right] {
            let now = clock_gettime(ClockId::Realtime);
            clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: now.tv_nsec }).unwrap();
            // No timer and no signal: the kernel tells it.
            wait_until("a look", || (world.posts() > posts).then_some(()));
            thread::sleep(QUIET);
            world.assert_live();
            assert_eq!(world.posts(), posts + 1, "{name}, {} ms: {}", monotonic() - stepped_at, run.log());
            posts += 1;
        }
        println!("clock set to {name} and back: 1 extra request each");
    }
}
