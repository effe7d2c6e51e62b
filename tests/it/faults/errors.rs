//! The error matrix of `once`: one file operation fails, in each way that a kernel knows.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use super::kill::{self, DUE, calls_in};
use super::trace::{Call, available, injected, traced};
use super::{assert_login_lives, granted, in_parallel, revoked, sample};
use crate::common::world::World;
use crate::common::{Output, figure, finish, leave_out};

/// The system calls on files. Not close(2), which strace would skip, while no kernel fails to close; and
/// not fcntl(2), with which a debug build looks whether descriptors are open.
const FILE_CALLS: [&str; 21] = [
    "openat",
    "read",
    "pread64",
    "write",
    "pwrite64",
    "lseek",
    "fstat",
    "newfstatat",
    "statx",
    "readlink",
    "readlinkat",
    "flock",
    "fchown",
    "fchmod",
    "fchmodat",
    "fallocate",
    "ftruncate",
    "fsync",
    "renameat",
    "mkdirat",
    "getdents64",
];

/// The failures, and what strerror(3) says of them.
const ERRORS: [(&str, &str); 7] = [
    ("ENOSPC", "No space left on device"),
    ("EIO", "Input/output error"),
    ("EROFS", "Read-only file system"),
    ("EACCES", "Permission denied"),
    ("EDQUOT", "Disk quota exceeded"),
    ("EMFILE", "Too many open files"),
    ("EINTR", "Interrupted system call"),
];

/// A group that is not root's own: `nogroup`.
const GROUP: u32 = 65534;

/// The files at the beginning of the pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing: the first pass of all.
    Nothing,
    /// A state, and a token that is due.
    TokenDue,
    /// The same; the token file is a link, and what it leads to belongs to [`GROUP`].
    LinkedTokenDue,
}

impl Before {
    fn world(self) -> World {
        match self {
            Self::Nothing => kill::world(kill::Before::Nothing, 0),
            Self::TokenDue => kill::world(kill::Before::TokenDue, 0),
            Self::LinkedTokenDue => {
                let world = World::new();
                world.configure(&format!("token_file_group = {GROUP}"));
                let (link, file) = (world.token_file(), world.sandbox.path("home/token"));
                fs::create_dir(link.parent().unwrap()).unwrap();
                symlink(&file, &link).unwrap();
                world.once_gives(0, []);
                world.pass_time(DUE);
                assert!(link.is_symlink() && fs::metadata(file).unwrap().gid() == GROUP);
                world
            }
        }
    }
}

/// One failure.
#[derive(Debug, Clone)]
struct Failure {
    call: Call,
    error: &'static str,
    words: &'static str,
    /// Every later call of this name fails, too.
    forever: bool,
    /// The request has been sent by then.
    posted: bool,
}

impl Failure {
    fn describe(&self) -> String {
        format!("{} at {}{}", self.error, self.call.describe(), if self.forever { " and later" } else { "" })
    }
}

/// Every file operation from the opening of the config on, in each way. Those that last begin
/// before the request: after it, `once` tries for half a minute (see `a_disk_that_stays_broken`).
fn failures(before: Before) -> Vec<Failure> {
    let calls = calls_in(&before.world());
    let start = calls
        .iter()
        .position(|call| call.path.as_ref().is_some_and(|path| path.ends_with("config.toml")))
        .unwrap();
    let post = calls.iter().position(Call::is_post).unwrap();
    let touched =
        calls[start..].iter().filter(|call| call.path.is_some() && FILE_CALLS.contains(&call.name.as_str()));
    let failures = touched.flat_map(|call| {
        ERRORS.iter().flat_map(move |(error, words)| {
            let posted = call.place > post;
            let failure = Failure { call: call.clone(), error, words, forever: false, posted };
            // The pass goes on without this note, so that a lasting failure is one of a later call.
            let is_note = call.path.as_ref().is_some_and(|path| path.ends_with("machine"));
            let lasting = (!posted && !is_note && *error != "EINTR")
                .then(|| Failure { forever: true, ..failure.clone() });
            [Some(failure), lasting].into_iter().flatten()
        })
    });
    failures.collect()
}

/// The effect of a failed call on the pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It was no obstacle.
    Harmless,
    /// The pass ended with an error, before a request was made.
    Refused,
    /// The pass ended with an error after the request; nothing was lost.
    Unpublished,
}

fn fail_at(failure: &Failure, before: Before) -> End {
    let world = before.world();
    let old = granted(&world.server.audit());
    let plus = if failure.forever { "+" } else { "" };
    let injection = format!("{}:error={}:when={}{plus}", failure.call.name, failure.error, failure.call.nth);
    let log = world.sandbox.path("trace");
    let output = finish(&mut traced(&world.sandbox.command(["once"]), Some(&injection), &log));
    let failed = injected(&log);
    assert!(!failed.is_empty(), "{output:?}");

    let log = world.server.audit();
    let now = granted(&log);
    assert!(!revoked(&log), "{log:#?}");
    if let Some((_, successor)) = now.last() {
        assert_eq!(
            world.refresh_token().fingerprint(),
            *successor,
            "a token was spent whose successor is not stored: {output:?}"
        );
    }
    if !old.is_empty() {
        world.assert_live();
    }
    let end = match output.code {
        Some(0) => {
            assert_eq!(now.len(), old.len() + 1, "{output:?}");
            assert_login_lives(&world);
            End::Harmless
        }
        Some(code) => {
            assert_ne!(failure.error, "EINTR", "not tried again: {output:?}");
            assert_explained(failure.words, &failed, code, &output);
            if failure.posted {
                End::Unpublished
            } else {
                assert_eq!(world.posts(), old.len(), "{output:?}");
                End::Refused
            }
        }
        None => panic!("{output:?}"),
    };
    world.once_gives(0, []);
    assert_login_lives(&world);
    assert_eq!(world.posts(), old.len() + 1);
    end
}

/// The exit code, the file and the kernel's words.
#[track_caller]
fn assert_explained(words: &str, failed: &[PathBuf], code: i32, output: &Output) {
    let config = failed[0].ends_with("config.toml");
    assert_eq!(code, if config { 78 } else { 74 }, "{output:?}");
    let named = failed.iter().any(|path| output.stderr.contains(&path.display().to_string()));
    assert!(
        named && output.stderr.contains(words) && output.stderr.contains("error: "),
        "{failed:?} {output:?}"
    );
}

fn matrix(before: Before, random: usize) {
    if !available() {
        return;
    }
    let failures = failures(before);
    for name in ["fchown", "readlinkat"] {
        let occurs = failures.iter().any(|failure| failure.call.name == name);
        assert_eq!(occurs, before == Before::LinkedTokenDue, "{name}");
    }
    let what = format!("errors, {before:?}");
    // Earlier bugs: a temporary that could not be locked fell to the program's own sweep, and
    // a signal while the config was looked at was fatal.
    // And what only the linked world has.
    let fixed = |failure: &Failure| {
        let config = failure.call.path.as_ref().is_some_and(|path| path.ends_with("config.toml"));
        !failure.forever
            && ((matches!(failure.call.name.as_str(), "flock" | "fchown" | "readlinkat")
                && failure.error == "EIO")
                || (config && failure.error == "EINTR"))
    };
    let chosen = sample(&what, &failures, fixed, random);
    let ends = in_parallel(&chosen, Failure::describe, |failure| fail_at(failure, before));
    let count = |wanted| ends.iter().filter(|end| **end == wanted).count();
    figure(format!(
        "{what}: {} injected, {} survived: {} harmless, {} refused before the request, {} after it with nothing lost",
        chosen.len(),
        ends.len(),
        count(End::Harmless),
        count(End::Refused),
        count(End::Unpublished)
    ));
}

#[test]
fn any_file_operation_of_a_first_pass_may_fail() {
    matrix(Before::Nothing, 24);
}

#[test]
fn any_file_operation_of_a_refresh_may_fail() {
    matrix(Before::TokenDue, 40);
}

#[test]
fn any_file_operation_of_a_refresh_through_a_link_may_fail() {
    if !rustix::process::geteuid().is_root() {
        return leave_out("failing to give the token file to another group, which takes root");
    }
    matrix(Before::LinkedTokenDue, 12);
}
