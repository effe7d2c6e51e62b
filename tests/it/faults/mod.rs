//! Failures of the kernel, the disk and the power, at any system call.
//!
//! A clean run under strace says which calls there are; then one of them at a time is the last,
//! or fails. Ordinarily a fixed and a random sample is tried, with `ZG_TEST_ALL` set (tests/all/faults)
//! every one. `ZG_TEST_SEED` repeats a sample.

mod disks;
mod errors;
mod hung;
pub mod kill;
mod neighbours;
mod power;
mod reader;
mod readers;
mod refusals;
mod sealing;
mod signals;
mod supervised;
mod threads;
pub mod trace;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use zg_tokend::testing::demo::{AuditEntry, AuditEvent};
use zg_tokend::testing::secret::Fingerprint;

use crate::common::at_full_size;
use crate::common::world::World;

/// How many cases run at the same time: most of each is waiting for a disk or a child.
const WORKERS: usize = 4;

/// Every item if all are wanted; else those that are `fixed`, and `random` more.
pub fn sample<T: Clone>(what: &str, items: &[T], fixed: impl Fn(&T) -> bool, random: usize) -> Vec<T> {
    if at_full_size() {
        return items.to_vec();
    }
    let (mut chosen, mut rest): (Vec<T>, Vec<T>) = items.iter().cloned().partition(|item| fixed(item));
    let seed = std::env::var("ZG_TEST_SEED")
        .map_or_else(|_| getrandom::u64().unwrap(), |seed| seed.parse().unwrap());
    let mut state = seed;
    for _ in 0..random.min(rest.len()) {
        // Knuth's MMIX generator: any will do, as long as the seed repeats the sample.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chosen.push(rest.swap_remove((state >> 33) as usize % rest.len()));
    }
    println!("{what}: {} of {} cases, ZG_TEST_SEED={seed}", chosen.len(), items.len());
    chosen
}

/// Tries every item, several at a time. Panics at the end if any of them did, naming all.
#[track_caller]
pub fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    name: impl Fn(&T) -> String + Sync,
    try_one: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match catch_unwind(AssertUnwindSafe(|| try_one(item))) {
                        Ok(result) => results.lock().unwrap().push(result),
                        Err(_) => failures.lock().unwrap().push(name(item)),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} of {} failed (the panics are above): {failures:#?}",
        failures.len(),
        items.len()
    );
    results.into_inner().unwrap()
}

/// The grants of the server, oldest first: access token and successor.
fn granted(log: &[AuditEntry]) -> Vec<(Fingerprint, Fingerprint)> {
    let pairs = log.iter().filter_map(|entry| match entry.event {
        AuditEvent::Grant { access_token, successor, .. } => Some((access_token, successor?)),
        _ => None,
    });
    pairs.collect()
}

fn revoked(log: &[AuditEntry]) -> bool {
    log.iter().any(|entry| matches!(entry.event, AuditEvent::Revocation { .. }))
}

/// The state holds the newest refresh token that the server knows, the token file the access
/// token that came with it, and nothing was revoked.
#[track_caller]
pub fn assert_login_lives(world: &World) {
    let log = world.server.audit();
    assert!(!revoked(&log), "{log:#?}");
    let (access_token, successor) = *granted(&log).last().unwrap();
    assert_eq!(world.refresh_token().fingerprint(), successor, "the state has the newest refresh token");
    assert_eq!(world.token().fingerprint(), access_token, "the token file has the newest access token");
    world.assert_live();
    assert!(world.state().get("in_flight").is_none());
}
