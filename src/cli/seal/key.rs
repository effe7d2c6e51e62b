//! The key in the config.

use crate::problem::{Class, Problem};

pub(super) const KEY: &str = "state_key";

pub(super) fn no_key() -> Problem {
    Problem {
        class: Class::Config,
        kind: KEY.into(),
        message: "the config has no state_key, so nothing can be sealed".into(),
        cause: None,
        hint: Some("make one: zg-tokend seal --with secret-tool, --with systemd-creds or --with file".into()),
    }
}
