//! What people read when something fails, word for word, each with a way out.

mod config;
mod errors;
mod sources;

use std::error::Error;
use std::path::Path;

use super::*;
use crate::shell::trouble::chain;

#[test]
fn nothing_that_is_said_moves_the_cursor() {
    for (text, said) in [
        ("zürich …", "zürich …"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[2J\u{9b}31m", "\\u{1b}[2J\\u{9b}31m"),
        ("gpj.\u{202e}exe", "gpj.\\u{202e}exe"),
    ] {
        assert_eq!(printable(text), said);
    }
}

/// What stderr shows of an error.
fn shown(error: &dyn Error, lines: Option<&str>, hint: Option<&str>) -> String {
    let text = failed(chain(error), lines, hint);
    anstream::adapter::strip_str(&text).to_string()
}

/// What `status` says of an account; what only a supervisor that is late, a push target or a
/// probe brings about is left to their own tests.
#[test]
fn every_sentence_of_status_has_a_golden_text() {
    const ELSEWHERE: [&str; 7] = [
        "and the supervisor has not tried",
        "look at its log, or restart it: kill",
        "; `zg-tokend once` refreshes now",
        "it is tried again by itself",
        "the token was not sent to",
        "refuses the token, and a refresh has not helped",
        "it is tried again; the token file has the token",
    ];
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let golden = ["status", "supervised"]
        .map(|name| std::fs::read_to_string(place.join(format!("{name}.txt"))).unwrap());
    let golden = golden.concat();
    let sentences = sources::sentences(&["shell/status/judge.rs".to_owned()]);
    let is_missing = |said: &&String| !golden.contains(*said) && !ELSEWHERE.contains(&said.as_str());
    let missing: Vec<_> = sentences.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "no golden text says {missing:#?}");
}
