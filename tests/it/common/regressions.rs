//! Where the property tests keep the inputs that once failed.

use proptest::test_runner::{Config, FileFailurePersistence};

/// So many cases, after the inputs in `tests/regressions`.
pub fn cases(cases: u32) -> Config {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/regressions/unit.txt");
    Config {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))),
        ..Config::default()
    }
}
