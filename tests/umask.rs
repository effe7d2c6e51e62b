//! The umask of a process is one for all its threads: this test has a process of its own.

use std::os::unix::fs::MetadataExt;

use rustix::fs::Mode;
use zg_tokend::testing::account::{TokenFile, WriteMode};
use zg_tokend::testing::files::Missing;
use zg_tokend::testing::secret::Secret;

#[test]
fn modes_do_not_depend_on_the_umask() {
    let dir = tempfile::tempdir().unwrap();
    for umask in [0o000, 0o022, 0o077, 0o177] {
        rustix::process::umask(Mode::from_raw_mode(umask));
        let parent = dir.path().join(format!("{umask:o}"));
        for mode in [0o600, 0o640, 0o644] {
            let file = TokenFile {
                path: parent.join(format!("token-{mode:o}")),
                mode,
                owner: None,
                group: None,
                missing: Missing::CreateLast,
                write: WriteMode::Replace,
            };
            file.prepare().unwrap().publish(&Secret::new("token"), None).unwrap();
            let found = std::fs::metadata(&file.path).unwrap().mode() & 0o7777;
            assert_eq!(found, mode, "umask {umask:03o}");
        }
        assert_eq!(std::fs::metadata(&parent).unwrap().mode() & 0o7777, 0o700, "umask {umask:03o}");
    }
}
