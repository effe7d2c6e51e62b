//! Clocks that are wrong: a stepped wall clock, a process that was stopped, a boot clock with an
//! offset. The server counts by the boot clock alone, so that it knows what is live.
//!
//! libfaketime moves the wall clock of one program, and cannot tell it: a clock that is really set
//! wakes `run`, which `tests/all/suspend` shows. Here it looks at its next timer, or on SIGHUP.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use zg_tokend::testing::clock::monotonic;
use zg_tokend::testing::demo::AuditEvent;
use zg_tokend::testing::demo::Fault;

use crate::common::world::World;
use crate::common::{Background, finish, leave_out, wait_until};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Long enough for a loop to show.
const A_WHILE: Duration = Duration::from_millis(700);

/// How wrong the wall clock gets, in seconds; the last is what a machine without a clock boots with.
fn steps(world: &World) -> [i64; 4] {
    [-HOUR, -DAY, DAY, HOUR - world.server.now() / 1000]
}

/// A wall clock that can be set for one program alone.
struct WallClock {
    library: PathBuf,
    offset: PathBuf,
}

impl WallClock {
    /// Right at first. `None` where there is no libfaketime and need not be.
    fn new(world: &World) -> Option<Self> {
        let library = ["x86_64-linux-gnu", "aarch64-linux-gnu", ""]
            .map(|directory| Path::new("/usr/lib").join(directory).join("faketime/libfaketime.so.1"))
            .into_iter()
            .find(|path| path.exists());
        let Some(library) = library else {
            leave_out("stepped wall clocks: libfaketime is not installed");
            return None;
        };
        let clock = Self { library, offset: world.sandbox.path("offset") };
        clock.set(0);
        Some(clock)
    }

    /// Wrong by so many seconds from now on.
    fn set(&self, offset: i64) {
        let new = self.offset.with_extension("new");
        fs::write(&new, format!("{offset:+}\n")).unwrap();
        fs::rename(new, &self.offset).unwrap();
    }

    fn command(&self, world: &World, command: &str) -> Command {
        let mut command = world.sandbox.command([command]);
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    }

    #[track_caller]
    fn once_gives(&self, world: &World, code: i32) {
        let output = finish(&mut self.command(world, "once"));
        assert_eq!(output.code, Some(code), "{output:?}");
    }

    /// `run`, once it supervises.
    fn run(&self, world: &World) -> Background {
        let run = Background::start(&mut self.command(world, "run"), world.sandbox.path("run.log"));
        run.wait_for("supervising");
        run
    }
}

/// The same for each step at the same time, each in a world of its own.
fn with_each_step(lifetime: u64, test: impl Fn(&World, &WallClock, i64) + Sync) {
    thread::scope(|scope| {
        for index in 0..4 {
            let test = &test;
            scope.spawn(move || {
                let world = World::in_memory(lifetime);
                let Some(clock) = WallClock::new(&world) else { return };
                world.configure("");
                test(&world, &clock, steps(&world)[index]);
            });
        }
    });
}

#[test]
fn a_stepped_clock_costs_once_one_request() {
    with_each_step(3600, |world, clock, step| {
        clock.once_gives(world, 0);
        for (offset, posts) in [(step, 2), (0, 3)] {
            clock.set(offset);
            for _ in 0..3 {
                clock.once_gives(world, 0);
                world.assert_live();
                // One, and not none: the step was seen.
                assert_eq!(world.posts(), posts, "step {step}, now at {offset}");
            }
        }
    });
}

#[test]
fn a_stepped_clock_costs_run_one_request() {
    with_each_step(3600, |world, clock, step| {
        let mut run = clock.run(world);
        let mut looks = 0;
        for (offset, posts) in [(step, 2), (0, 3)] {
            clock.set(offset);
            for _ in 0..2 {
                looks += 1;
                run.signal(Signal::HUP);
                wait_until("the reload", || {
                    (run.log().matches("the new config is in use").count() == looks).then_some(())
                });
                wait_until("the refresh", || (world.posts() == posts).then_some(()));
                thread::sleep(A_WHILE);
                world.assert_live();
                assert_eq!(world.posts(), posts, "step {step}, now at {offset}");
            }
        }
    });
}

#[test]
fn timers_go_on_through_a_stepped_clock() {
    const LIFETIME: u64 = 6;
    with_each_step(LIFETIME, |world, clock, step| {
        let _run = clock.run(world);
        let begun = world.server.now();
        for offset in [step, 0] {
            clock.set(offset);
            // Past the next timer.
            let until = monotonic() + 4000;
            while monotonic() < until {
                world.assert_live();
                thread::sleep(Duration::from_millis(10));
            }
        }
        // At half its life, and up to 5 % of it earlier; one more for each of the two steps.
        let elapsed = (world.server.now() - begun) as usize;
        let most = 1 + elapsed / (LIFETIME as usize * 450) + 2;
        assert!((3..=most).contains(&world.posts()), "{} requests, step {step}", world.posts());
    });
}

#[test]
fn a_wait_is_as_long_as_ordered_through_a_stepped_clock() {
    with_each_step(3600, |world, clock, step| {
        let unavailable = Fault::reply(503, "{}").with_header("retry-after", "3");
        world.fault(unavailable);
        clock.once_gives(world, 69);
        clock.set(step);
        wait_until("the end of the wait", || {
            let code = finish(&mut clock.command(world, "once")).code;
            if code != Some(0) {
                assert_eq!((code, world.posts()), (Some(69), 1), "step {step}");
            }
            (code == Some(0)).then_some(())
        });
        let log = world.server.audit();
        let posts = log.iter().filter(|entry| entry.event == AuditEvent::Post).map(|entry| entry.at);
        let posts = posts.collect::<Vec<_>>();
        assert!(matches!(posts[..], [first, second] if second - first >= 2900), "step {step}: {posts:?}");
    });
}

#[test]
fn a_stopped_process_goes_on_where_time_is() {
    let world = World::with_lifetime(4);
    world.configure("");
    let mut run = world.run();
    run.signal(Signal::STOP);
    let token = world.token();
    wait_until("the token's end", || (!world.server.is_live(&token)).then_some(()));
    world.server.issuer(|issuer| issuer.options_mut().access_token_lifetime = Duration::from_secs(3600));
    let posts = world.posts();
    run.signal(Signal::CONT);
    wait_until("a live token", || world.server.is_live(&world.token()).then_some(()));
    thread::sleep(A_WHILE);
    assert_eq!(world.posts(), posts + 1);
}

/// The program under a boot clock that is ahead by so many seconds, as in a container that was
/// moved from another machine. `None` where that cannot be had and need not.
fn ahead(world: &World, command: &str, seconds: i64) -> Option<Command> {
    // Not needed for root, and harmless.
    let unshare = ["--map-root-user", "--time", "--boottime", &seconds.to_string()].map(str::to_owned);
    if finish(Command::new("unshare").args(&unshare).arg("true")).code != Some(0) {
        leave_out("another boot clock: unshare may not make a time namespace");
        return None;
    }
    let plain = world.sandbox.command([command]);
    let mut command = Command::new("unshare");
    command.args(unshare).arg(plain.get_program()).args(plain.get_args()).env_clear();
    command.current_dir(world.sandbox.path("home"));
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Some(command)
}

#[test]
fn a_boot_clock_with_another_offset_costs_one_request() {
    for offset in [600, 100_000] {
        let world = World::new();
        world.configure("");
        let once = |seconds| {
            if let Some(mut command) = ahead(&world, "once", seconds) {
                assert_eq!(finish(&mut command).code, Some(0));
            }
        };
        let mut posts = 0;
        for seconds in [offset, 0, offset, 0] {
            once(seconds);
            assert!(world.posts() <= posts + 1);
            world.assert_live();
            posts = world.posts();
            once(seconds);
            assert_eq!(world.posts(), posts, "ahead by {seconds} of {offset}");
        }
    }
}

#[test]
fn a_wait_ends_under_a_boot_clock_with_another_offset() {
    thread::scope(|scope| {
        for offsets in [[100_000, 0], [600, 0], [0, 100_000], [0, 600]] {
            scope.spawn(move || {
                let world = World::new();
                world.configure("");
                world.fault(Fault::reply(503, "{}"));
                let Some(mut once) = ahead(&world, "once", offsets[0]) else { return };
                assert_eq!(finish(&mut once).code, Some(69));
                wait_until(&format!("the end of the wait, {offsets:?}"), || {
                    let mut once = ahead(&world, "once", offsets[1])?;
                    (finish(&mut once).code == Some(0)).then_some(())
                });
                assert_eq!(world.posts(), 2);
            });
        }
    });
}

#[test]
fn timers_run_by_a_boot_clock_with_an_offset() {
    let world = World::in_memory(6);
    world.configure("");
    let Some(mut command) = ahead(&world, "run", 100_000) else { return };
    let begun = monotonic();
    let _run = Background::start(&mut command, world.sandbox.path("run.log"));
    wait_until("three refreshes", || (world.grants() >= 3).then_some(()));
    world.assert_live();
    // At half its life, and up to 5 % of it earlier.
    let most = 1 + (monotonic() - begun) / 2700;
    assert!(world.posts() as i64 <= most, "{} requests, and {most} were due", world.posts());
}
