//! Readers that never pause, and a token file that is replaced as fast as it can be.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use zg_tokend::demo::audit::Event;
use zg_tokend::secret::{Fingerprint, Secret};

use crate::common::world::World;
use crate::common::{Sandbox, at_full_size, audit, figure, wait_until};

/// What the readers found.
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
            Event::Grant { access_token, .. } => Some(access_token),
            _ => None,
        });
        tokens.enumerate().map(|(number, token)| (token, number)).collect()
    })
}

/// Reads until told to stop, and counts what no reader may see.
fn torture(world: &World, way: usize, found: &Found, stop: &AtomicBool) {
    let path = world.token_file();
    let (mut buffer, mut last, mut newest) = (Vec::new(), Vec::new(), 0);
    let count = |counter: &AtomicUsize| counter.fetch_add(1, Ordering::Relaxed);
    for reads in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        count(&found.reads);
        if let Err(error) = read(&path, way, &mut buffer) {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            count(&found.missing);
            continue;
        }
        if buffer.is_empty() {
            count(&found.empty);
            continue;
        }
        // A token that was looked up before is not looked up again, but now and then.
        if buffer == last && !reads.is_multiple_of(1000) {
            continue;
        }
        let token = Secret::new(String::from_utf8_lossy(&buffer).into_owned());
        match granted(world).get(&token.fingerprint()) {
            None => drop(count(&found.torn)),
            Some(number) if *number < newest => drop(count(&found.backwards)),
            Some(number) => newest = *number,
        }
        if !world.server.is_live(&token) {
            count(&found.expired);
        }
        last.clone_from(&buffer);
    }
}

#[test]
fn no_reader_ever_sees_a_bad_token() {
    let (reads, replacements) = if at_full_size() { (10_000_000, 10_000) } else { (1_000_000, 1000) };
    let mut world = World::new();
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
        for way in 0..2 {
            let (world, found, stop) = (&world, &found, &stop);
            scope.spawn(move || torture(world, way, found, stop));
        }
        for number in 1..=replacements {
            let before = world.token();
            run.signal(Signal::USR1);
            wait_until(&format!("token {number}"), || (world.token() != before).then_some(()));
        }
        wait_until("the last reads", || (found.reads.load(Ordering::Relaxed) >= reads).then_some(()));
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(run.stop().code(), Some(0), "{}", run.log());
    assert_eq!(world.grants(), replacements + 1);
    audit::assert_one_post_per_epoch(&world.server.audit());
    let counts = [&found.missing, &found.empty, &found.torn, &found.expired, &found.backwards];
    let counts = counts.map(|counter| counter.load(Ordering::Relaxed));
    let [missing, empty, torn, expired, backwards] = counts;
    figure(format!(
        "readers: {} reads, {replacements} replacements, {missing} missing, {empty} empty, {torn} torn, \
         {expired} expired, {backwards} backwards",
        found.reads.load(Ordering::Relaxed)
    ));
    assert_eq!(counts, [0; 5], "{found:?}");
}
