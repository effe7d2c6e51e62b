//! The texts that people read when something fails, word for word, each with a hint.

mod config;
mod elsewhere;
mod errors;
mod sources;

use std::error::Error;
use std::path::Path;

use crate::cli::output::*;

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

/// The text on stderr for an error.
fn shown(error: &dyn Error, lines: Option<&str>, hint: Option<&str>) -> String {
    let text = error_text(error, problem::cause(error).as_deref(), lines, hint);
    strip_str(&text).to_string()
}

fn golden(names: &[&str]) -> String {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    names.iter().map(|name| std::fs::read_to_string(place.join(format!("{name}.txt"))).unwrap()).collect()
}

/// A message in the README's table is the message of the program.
#[test]
fn what_the_readme_quotes_is_what_is_said() {
    let said = golden(&["errors", "config", "outcomes", "status", "supervised", "warnings", "login"]);
    let (_, table) = include_str!("../../../README.md").split_once("\n| it says | what to do |\n").unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let quoted = rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next());
    // As the golden texts have a duration.
    let pieces = quoted.flat_map(|text| text.split('…')).map(|piece| piece.trim().replace(" 1 s", " AGE"));
    let pieces: Vec<_> = pieces.collect();
    let missing: Vec<_> = pieces.iter().filter(|piece| !said.contains(*piece)).collect();
    assert!(pieces.len() > 10 && missing.is_empty(), "nothing says {missing:#?}");
}

#[test]
fn every_sentence_of_status_has_a_golden_text() {
    let golden = golden(&["status", "supervised"]);
    let places =
        ["status/judge.rs", "status/credentials.rs", "account/certificates.rs", "signing/certificate.rs"];
    let sentences = sources::sentences(&places.map(str::to_owned));
    let missing: Vec<_> = sentences.iter().filter(|said| !golden.contains(said.as_str())).collect();
    assert!(sentences.len() > 10 && sentences.contains("is not valid yet: it begins in"), "a file has moved");
    assert!(missing.is_empty(), "no golden text says {missing:#?}");
}
