//! A kernel that refuses timers and watches on files: fs.inotify.max_user_instances, ulimit -n.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use super::in_parallel;
use super::trace::available;
use crate::common::world::World;
use crate::common::{Background, poll_for, under, wait_until};

/// An injection by strace, and the words about it.
const REFUSALS: [(&str, &str); 5] = [
    ("inotify_init1:error=EMFILE", "s instead; cause: Too many open files"),
    ("inotify_add_watch:error=ENOSPC", "s instead; cause: No space left on device"),
    ("timerfd_create:error=EMFILE", "s instead; cause: Too many open files"),
    ("timerfd_create:error=ENODEV:when=2+", "s instead; cause: No such device"),
    ("timerfd_settime:error=EINVAL:when=5+", "s instead; cause: Invalid argument"),
];

#[test]
fn without_timers_and_watches_tokens_are_refreshed_and_a_new_config_is_used() {
    if !available() {
        return;
    }
    in_parallel(
        &REFUSALS,
        |(injection, _)| (*injection).to_owned(),
        |(injection, words)| {
            let world = World::in_memory(8);
            world.configure("");
            let (name, _) = injection.split_once(':').unwrap();
            let (trace, inject) = (format!("trace={name}"), format!("inject={injection}"));
            let log = world.sandbox.path("trace").display().to_string();
            let wrapper = [
                "strace",
                "-D",
                "-f",
                "-qq",
                "-e",
                &trace,
                "-e",
                &inject,
                "-e",
                "signal=none",
                "-o",
                &log,
                "--",
            ];
            let mut command = under(wrapper, &world.sandbox.command(["run"]));
            let mut run = Background::start(&mut command, world.sandbox.path("run.log"));
            run.wait_for("supervising");
            wait_until("three refreshes", || (world.grants() >= 3).then_some(()));
            world.assert_live();
            let said = run.log();
            assert!(said.contains(words) && said.contains("hint: raise"), "{said}");
            assert_eq!(said.matches(words).count(), 1, "{said}");
            // The new config is noticed, too.
            let config = fs::read_to_string(world.sandbox.config_path()).unwrap();
            let elsewhere = world.token_file_of("elsewhere");
            world.sandbox.write_config(&format!("{config}token_file = \"{}\"\n", elsewhere.display()));
            let noticed = poll_for(Duration::from_secs(100), || elsewhere.exists().then_some(()));
            assert!(noticed.is_some(), "{}", run.log());
            run.signal(Signal::TERM);
            assert_eq!(run.wait().code(), Some(0), "{}", run.log());
        },
    );
}
