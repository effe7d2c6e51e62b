//! The key in the config.

use crate::problem::{Class, Problem};

pub(super) const KEY: &str = "state_key";

pub(super) fn no_key() -> Problem {
    Problem::of(Class::Config, KEY, "the config has no state_key, so nothing can be sealed")
        .hint("make one: zg-tokend seal --with secret-tool, --with systemd-creds or --with file")
}
