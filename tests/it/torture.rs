//! Readers that never pause, and a token file that is replaced as fast as it can be.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use zg_tokend::testing::demo::AuditEvent;
use zg_tokend::testing::secret::{Fingerprint, Secret};

use crate::common::world::World;
use crate::common::{Sandbox, at_full_size, audit, figure, poll_for, wait_until};

/// How many tokens are forced, and how often they must be read meanwhile.
const FORCED: usize = 1000;
const READS: usize = 1_000_000;

/// The life of a token, in seconds. A token that is left too long is seen expired when one life has
/// passed, which a test can wait for; and half of it is left when the next refresh begins by itself:
/// far more than a busy machine needs for one in memory.
const LIFETIME: u64 = 20;

/// The same at full size, where a refresh waits for a disk that is shared.
const FORCED_AT_FULL_SIZE: usize = 10_000;
const READS_AT_FULL_SIZE: usize = 10_000_000;
const LIFETIME_AT_FULL_SIZE: u64 = 60;

/// After so many reads in a row of the same token a reader asks again whether it lives.
const ASK_AGAIN: usize = 1000;

/// Between two reads, once there were enough: others need the processor.
const EASE: Duration = Duration::from_millis(1);

/// Only bounds how long a failing test takes.
const PATIENCE: Duration = Duration::from_secs(600);

/// Ends the readers, also where the test fails: nobody would join them.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The findings of the readers.
#[derive(Debug, Default)]
struct Found {
    reads: AtomicUsize,
    missing: AtomicUsize,
    empty: AtomicUsize,
    torn: AtomicUsize,
    expired: AtomicUsize,
    backwards: AtomicUsize,
}

/// Reads a token file in the way that its number tells.
fn read(path: &Path, way: usize, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    buffer.clear();
    let mut file = File::open(path)?;
    if way == 1 {
        // A slow reader: the file may be replaced between the two halves.
        let mut half = [0; 16];
        let count = file.read(&mut half)?;
        buffer.extend_from_slice(&half[..count]);
        std::thread::yield_now();
    }
    file.read_to_end(buffer)?;
    Ok(())
}

/// The numbers of the tokens that the server has granted, in their order.
fn granted(world: &World) -> HashMap<Fingerprint, usize> {
    world.server.issuer(|issuer| {
        let tokens = issuer.audit().iter().filter_map(|entry| match entry.event {
            AuditEvent::Grant { access_token, .. } => Some(access_token),
            _ => None,
        });
        tokens.enumerate().map(|(number, token)| (token, number)).collect()
    })
}

/// Reads until told to stop, as fast as it can until there are `enough` reads, and counts what no
/// reader may see.
fn torture(world: &World, way: usize, found: &Found, enough: usize, stop: &AtomicBool) {
    let path = world.token_file();
    let (mut buffer, mut last, mut newest, mut same) = (Vec::new(), Vec::new(), 0, 0);
    let count = |counter: &AtomicUsize| counter.fetch_add(1, Ordering::Relaxed);
    while !stop.load(Ordering::Relaxed) {
        if count(&found.reads) >= enough {
            std::thread::sleep(EASE);
        }
        let now = world.server.now();
        if let Err(error) = read(&path, way, &mut buffer) {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            count(&found.missing);
            continue;
        }
        if buffer.is_empty() {
            count(&found.empty);
            continue;
        }
        same += 1;
        if buffer == last && same < ASK_AGAIN {
            continue;
        }
        same = 0;
        let token = Secret::new(String::from_utf8_lossy(&buffer).into_owned());
        match granted(world).get(&token.fingerprint()) {
            None => drop(count(&found.torn)),
            Some(number) if *number < newest => drop(count(&found.backwards)),
            Some(number) => newest = *number,
        }
        // As it was before the read: this thread may have been stopped since.
        if !world.server.issuer(|issuer| issuer.is_live(now, &token)) {
            count(&found.expired);
        }
        last.clone_from(&buffer);
    }
}

#[test]
fn no_reader_ever_sees_a_bad_token() {
    let (reads, forced, lifetime) = if at_full_size() {
        (READS_AT_FULL_SIZE, FORCED_AT_FULL_SIZE, LIFETIME_AT_FULL_SIZE)
    } else {
        (READS, FORCED, LIFETIME)
    };
    let mut world = World::with_lifetime(lifetime);
    // In memory, so that fsync(2) does not set the pace; at full size on the disk.
    let memory = Path::new("/dev/shm");
    if memory.is_dir() && !at_full_size() {
        world.sandbox = Sandbox::below(memory);
    }
    world.configure("");
    world.once_gives(0, []);
    let mut run = world.run();
    let (found, stop) = (Found::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = End(&stop);
        for way in 0..2 {
            let (world, found, stop) = (&world, &found, &stop);
            scope.spawn(move || torture(world, way, found, reads, stop));
        }
        for number in 1..=forced {
            let before = world.token();
            world.permit_force();
            run.signal(Signal::USR1);
            wait_until(&format!("token {number}"), || (world.token() != before).then_some(()));
        }
        let read_so_far = || found.reads.load(Ordering::Relaxed);
        let wait_for_reads = |count| poll_for(PATIENCE, || (read_so_far() >= count).then_some(()));
        wait_for_reads(reads).expect("enough reads");
        // From here on nobody forces anything: what is in the file now must not grow old there.
        let last = world.token();
        poll_for(PATIENCE, || (!world.server.is_live(&last)).then_some(())).expect("it dies");
        wait_for_reads(read_so_far() + 2 * 2 * ASK_AGAIN).expect("another look of each reader");
    });
    assert_eq!(run.stop().code(), Some(0), "{}", run.log());
    let replacements = world.grants() - 1;
    audit::assert_one_post_per_epoch(&world.server.audit());
    let counts = [&found.missing, &found.empty, &found.torn, &found.expired, &found.backwards];
    let counts = counts.map(|counter| counter.load(Ordering::Relaxed));
    let [missing, empty, torn, expired, backwards] = counts;
    figure(format!(
        "readers: {} reads, {replacements} replacements, tokens of {lifetime} s, {missing} missing, {empty} empty, \
         {torn} torn, {expired} expired, {backwards} backwards",
        found.reads.load(Ordering::Relaxed)
    ));
    assert_eq!(counts, [0; 5], "{found:?}");
    // By itself it refreshes after half of a life.
    assert!(replacements > forced, "{replacements}");
}
