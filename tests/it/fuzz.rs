//! The entry points of `tests/fuzz/`, driven by mutations of its corpus: what `cargo fuzz` does better,
//! but without a nightly compiler.
//!
//! `ZG_FUZZ_SECONDS` says for how long, and `ZG_TEST_SEED` repeats what a failure names.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use zg_tokend::testing::clock::{millis, monotonic};

use crate::common::{at_full_size, figure};

#[path = "../fuzz/src/lib.rs"]
mod entry;

/// How long each target is fuzzed: what a run of all tests can afford, since they need a processor
/// that others wait for.
const SECONDS: u64 = 20;

/// The same at full size, where an attack may take its time; and the least number of executions, which
/// a slow machine needs longer for.
const SECONDS_AT_FULL_SIZE: u64 = 300;
const LEAST_AT_FULL_SIZE: usize = 200_000;

/// So many cases come out of one seed: a failure is repeated at once, and the clock is looked at often
/// enough on a slow machine.
const BATCH: u32 = 50;

/// Texts that parsers stumble over.
const WORDS: [&str; 24] = [
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "1e999",
    "-1",
    "0",
    "null",
    "{}",
    "[]",
    "\"\"",
    "\"",
    "\\u0000",
    "\\ud800",
    "\n",
    "\r\n",
    "\0",
    "\u{feff}",
    "\u{202e}é",
    "[[[[[[[[",
    "{\"x\":",
    "= ",
    "'''",
    "plainwordsent",
    "Fri, 31 Dec 9999 23:59:59 GMT",
];

/// Numbers at the ends of their types.
const NUMBERS: [&str; 8] = [
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "4294967295",
    "4294967296",
    "-1",
    "0",
    "1e308",
];

/// One change of a text.
#[derive(Debug, Clone)]
enum Change {
    /// This byte at that place.
    Byte(Index, u8),
    /// One of [`WORDS`] in front of that place.
    Insert(Index, Index),
    /// One of [`WORDS`] instead of the number or word at that place.
    Replace(Index, Index),
    /// One of [`NUMBERS`] instead of the number at or after that place.
    Number(Index, Index),
    /// From the first place to the second, gone.
    Cut(Index, Index),
    /// The same, twice.
    Double(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    prop_oneof![
        1 => (place(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        1 => (place(), place()).prop_map(|(at, word)| Change::Insert(at, word)),
        1 => (place(), place()).prop_map(|(at, word)| Change::Replace(at, word)),
        3 => (place(), place()).prop_map(|(at, number)| Change::Number(at, number)),
        1 => (place(), place()).prop_map(|(from, to)| Change::Cut(from, to)),
        1 => (place(), place()).prop_map(|(from, to)| Change::Double(from, to)),
    ]
}

impl Change {
    fn apply(&self, text: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        let range = |from: &Index, to: &Index| {
            let (from, to) = (from.index(text.len()), to.index(text.len()));
            from.min(to)..from.max(to)
        };
        match self {
            Self::Byte(at, byte) => {
                let at = at.index(text.len());
                text[at] = *byte;
            }
            Self::Insert(at, word) => {
                let at = at.index(text.len());
                text.splice(at..at, word.get(&WORDS).bytes());
            }
            Self::Replace(at, word) => {
                let inside = |byte: &u8| byte.is_ascii_alphanumeric() || b"-+.".contains(byte);
                let at = at.index(text.len());
                let begin = text[..at].iter().rposition(|byte| !inside(byte)).map_or(0, |before| before + 1);
                let end =
                    text[at..].iter().position(|byte| !inside(byte)).map_or(text.len(), |length| at + length);
                text.splice(begin..end.max(begin), word.get(&WORDS).bytes());
            }
            Self::Number(at, number) => {
                let digit = |byte: &u8| byte.is_ascii_digit();
                let at = at.index(text.len());
                let Some(offset) = text[at..].iter().position(digit) else { return };
                let begin =
                    text[..at + offset].iter().rposition(|byte| !digit(byte)).map_or(0, |before| before + 1);
                let length = text[begin..].iter().position(|byte| !digit(byte));
                text.splice(
                    begin..length.map_or(text.len(), |length| begin + length),
                    number.get(&NUMBERS).bytes(),
                );
            }
            Self::Cut(from, to) => drop(text.drain(range(from, to))),
            Self::Double(from, to) => {
                let range = range(from, to);
                let part = text[range.clone()].to_vec();
                text.splice(range.end..range.end, part);
            }
        }
    }
}

fn mutated(text: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut text = text.to_vec();
    for change in changes {
        change.apply(&mut text);
    }
    text
}

/// A number from the environment.
fn given(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// Plays the corpus of a target, then mutations of it until the time is over.
fn fuzz(name: &str, target: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let entries = std::fs::read_dir(directory).unwrap();
    // In an order that a seed means the same in.
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let corpus: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(!corpus.is_empty(), "{name}");
    for text in &corpus {
        target(text);
    }
    let (seconds, least) = match given("ZG_FUZZ_SECONDS") {
        Some(seconds) => (seconds, 0),
        None if at_full_size() => (SECONDS_AT_FULL_SIZE, LEAST_AT_FULL_SIZE),
        None => (SECONDS, 0),
    };
    let begun = monotonic();
    let end = begun + millis(Duration::from_secs(seconds));
    let mut seed = given("ZG_TEST_SEED").unwrap_or_else(|| getrandom::u64().unwrap());
    let mut executions = corpus.len();
    while monotonic() < end || executions < least {
        batch(name, target, &corpus, seed);
        executions += BATCH as usize;
        seed = seed.wrapping_add(1);
    }
    let took = (monotonic() - begun) / 1000;
    figure(format!("fuzzing: {name}: {executions} executions in {took} s, 0 crashes"));
}

/// The cases that come out of one seed.
fn batch(name: &str, target: fn(&[u8]), corpus: &[Vec<u8>], seed: u64) {
    let mut runner = TestRunner::new(Config {
        cases: BATCH,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    });
    let strategy = (any::<Index>(), prop::collection::vec(change(), 1..6));
    let ran = runner.run(&strategy, |(start, changes)| {
        target(&mutated(&corpus[start.index(corpus.len())], &changes));
        Ok(())
    });
    if let Err(TestError::Fail(why, (start, changes))) = ran {
        let text = mutated(&corpus[start.index(corpus.len())], &changes);
        panic!("{name}: {why}: b\"{}\", ZG_TEST_SEED={seed}", text.escape_ascii());
    }
    ran.unwrap();
}

#[test]
fn token_responses() {
    fuzz("token_response", entry::token_response);
}

#[test]
fn retry_after_and_other_headers() {
    fuzz("retry_after", entry::retry_after);
}

#[test]
fn configs() {
    fuzz("config", entry::config);
}

#[test]
fn states() {
    fuzz("state", entry::state);
}
