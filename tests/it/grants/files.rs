//! Assertions and tokens that somebody else writes into a file.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::Machines;
use crate::common::{Background, wait_until, write_private};

/// A volume as kubelet mounts it: `token` leads through `..data` to a directory for each version.
pub(super) struct Projected {
    directory: PathBuf,
    version: u32,
}

impl Projected {
    pub(super) fn new(directory: &Path) -> Self {
        fs::create_dir(directory).unwrap();
        symlink("..data/token", directory.join("token")).unwrap();
        Self { directory: directory.to_owned(), version: 0 }
    }

    /// As AtomicWriter does it: a new directory, then one rename of the link.
    pub(super) fn write(&mut self, token: &str) {
        self.version += 1;
        let name = format!("..2026_11_28_{}", self.version);
        fs::create_dir(self.directory.join(&name)).unwrap();
        write_private(&self.directory.join(&name).join("token"), token.as_bytes());
        let link = self.directory.join("..data_tmp");
        symlink(&name, &link).unwrap();
        fs::rename(link, self.directory.join("..data")).unwrap();
    }

    pub(super) fn token(&self) -> PathBuf {
        self.directory.join("token")
    }
}

fn configure(machines: &Machines, token: &Path) {
    machines.configure(&format!(
        "grant_type = \"token-exchange\"\nclient_id = \"zgexchange\"\nscope = \"api\"\n\
         subject_token = {{ file = \"{}\" }}\nsubject_token_type = \"jwt\"\n\
         requested_token_type = \"access_token\"\n",
        token.display()
    ));
}

#[test]
fn a_token_is_exchanged_and_an_expired_one_is_not_sent() {
    let Some(machines) = Machines::start() else { return };
    let file = machines.sandbox.path("subject");
    configure(&machines, &file);
    let output = machines.once_gives(69, &[]);
    assert!(output.stderr.contains("cannot read subject_token from file"), "{output:?}");
    write_private(&file, machines.get("/_mint?life=-720").as_bytes());
    let output = machines.once_gives(69, &["--force"]);
    assert!(output.stderr.contains("the subject token from file"), "{output:?}");
    assert!(
        output.stderr.contains("expired 12 min ago\ncause: whatever writes it has stopped"),
        "{output:?}"
    );
    assert_eq!(machines.get("/_seen"), "[]");
    // A new one is used at once, whatever the wait after the failure.
    write_private(&file, machines.get("/_mint").as_bytes());
    machines.once_gives(0, &[]);
    assert_eq!(machines.owner().as_deref(), Some("zgexchange"));
    assert!(machines.get("/_seen").contains("workload"));
}

#[test]
fn a_refused_token_is_not_sent_again_and_another_one_is() {
    let Some(machines) = Machines::start() else { return };
    let file = machines.sandbox.path("subject");
    configure(&machines, &file);
    write_private(&file, machines.get("/_mint?aud=elsewhere").as_bytes());
    let output = machines.once_gives(78, &[]);
    assert!(output.stderr.contains("the server refuses the subject token from file"), "{output:?}");
    assert!(output.stderr.contains("\"aud\" claim"), "{output:?}");
    let attempt = machines.state()["last_attempt"].clone();
    machines.once_gives(78, &[]);
    assert_eq!(machines.state()["last_attempt"], attempt, "no second request");
    write_private(&file, machines.get("/_mint").as_bytes());
    machines.once_gives(0, &[]);
}

#[test]
fn run_sees_a_projected_token_that_kubelet_swaps() {
    let Some(machines) = Machines::start() else { return };
    let mut volume = Projected::new(&machines.sandbox.path("volume"));
    volume.write(&machines.get("/_mint?life=-60"));
    configure(&machines, &volume.token());
    let before = machines.fail_for_hours();
    let mut run = Background::start(&mut machines.sandbox.command(["run"]), machines.sandbox.path("log"));
    wait_until("the expired token is named", || (machines.failures() > before).then_some(()));
    run.wait_for("whatever writes it has stopped");
    volume.write(&machines.get("/_mint"));
    wait_until("the new token is exchanged", || {
        machines.sandbox.path("config/zerogravity/token").exists().then_some(())
    });
    assert_eq!(run.stop().code(), Some(0));
    assert_eq!(machines.owner().as_deref(), Some("zgexchange"));
}
