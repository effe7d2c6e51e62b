//! Under a systemd that was booted for the tests, and from a cron daemon: installed like a package,
//! under the units as they are shipped. The server's log and the token file are the judges.

mod cron;
mod golden;
mod home;
mod journal;
mod machine;
mod package;
mod system;
mod timer;
mod tls;
mod units;
mod user;

use std::collections::BTreeSet;
use std::path::Path;

/// The tests share one machine: a second user of one name would be refused, in the test that comes later.
#[test]
fn each_user_has_a_name_of_its_own() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/booted");
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = if path.is_file() { std::fs::read_to_string(&path).unwrap() } else { continue };
        for call in ["Home::new(\"", "Instance::new(\"", "Instance::on(&machine, \"", ".person(\""] {
            for (at, _) in text.match_indices(call) {
                let name = text[at + call.len()..].split('"').next().unwrap();
                assert!(names.insert(name.to_owned()), "{}: {name} is taken", path.display());
            }
        }
    }
    assert!(names.len() > 20, "{names:?}");
}
