use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::files::Missing;
use crate::store::seeds::*;

/// A state directory with these accounts, each with one seed: the fingerprint of its name.
fn state_dir(accounts: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("state");
    for account in accounts {
        StateDir::create(&path, Missing::CreateAll).unwrap().create_account(account).unwrap();
        store(&path, account, account);
    }
    (dir, path)
}

/// Another process stores a state with this seed.
fn store(state_dir: &Path, account: &str, seed: &str) {
    let directory = state_dir.join(account);
    fs::write(directory.join(".new"), json!({ "version": 1, "seeds": [of(seed)] }).to_string()).unwrap();
    fs::rename(directory.join(".new"), directory.join("state")).unwrap();
}

fn of(seed: &str) -> Fingerprint {
    Fingerprint::of([seed.as_bytes()])
}

fn open(path: &Path) -> StateDir {
    StateDir::find(path).unwrap().unwrap()
}

#[test]
fn the_index_knows_the_states_that_there_are() {
    let (_guard, path) = state_dir(&["a", "b", "c"]);
    fs::rename(path.join("c/state"), path.join("c/state.taken-over-by-new")).unwrap();
    let index = Index::build(&open(&path)).unwrap();
    assert_eq!(index.candidates(of("a"), "new"), ["a", "c"]);
    assert_eq!(index.candidates(of("b"), "newer"), ["b"]);
    assert!(index.candidates(of("c"), "newe").is_empty());
}

#[test]
fn the_index_learns_of_every_change() {
    let (_guard, path) = state_dir(&["a", "b"]);
    let index = Index::build(&open(&path)).unwrap();
    let state_dir = open(&path);
    store(&path, "a", "later");
    let index = index.refreshed(&state_dir).unwrap();
    assert_eq!(index.candidates(of("later"), "new"), ["a"], "a state that was replaced");

    state_dir.create_account("c").unwrap();
    let index = index.refreshed(&state_dir).unwrap();
    store(&path, "c", "c");
    let index = index.refreshed(&state_dir).unwrap();
    assert_eq!(index.candidates(of("c"), "new"), ["c"], "an account that came, and then its state");

    state_dir.create_account("d").unwrap();
    store(&path, "d", "d");
    let index = index.refreshed(&state_dir).unwrap();
    assert_eq!(index.candidates(of("d"), "new"), ["d"], "both at once");

    fs::rename(path.join("d"), path.join("e")).unwrap();
    let index = index.refreshed(&state_dir).unwrap();
    assert!(index.candidates(of("d"), "new").contains(&"e".to_owned()), "a directory that was renamed");

    fs::rename(path.join("b/state"), path.join("b/state.taken-over-by-new")).unwrap();
    let index = index.refreshed(&state_dir).unwrap();
    assert_eq!(index.candidates(of("unknown"), "new"), ["b"], "a state that was taken over");

    fs::write(path.join("b/state"), json!({ "seeds": [of("restored")] }).to_string()).unwrap();
    let index = index.refreshed(&state_dir).unwrap();
    assert_eq!(index.candidates(of("restored"), "newer"), ["b"], "a state that was written in place");
}

#[test]
fn an_index_that_lost_changes_is_built_anew() {
    let (_guard, path) = state_dir(&["a"]);
    let index = Index::build(&open(&path)).unwrap();
    let limit: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    // Two names in turn, since the kernel joins equal changes.
    for number in 0..=limit {
        fs::write(path.join(format!("a/{}", number % 2)), "").unwrap();
    }
    assert!(index.refreshed(&open(&path)).is_none());
}

#[test]
fn the_second_question_builds_the_index() {
    let (_guard, path) = state_dir(&["a"]);
    let state_dir = open(&path);
    // Other tests may ask meanwhile, about other directories.
    let answers = std::iter::repeat_with(|| candidates(&state_dir, of("a"), "new"));
    assert_eq!(answers.take(1000).flatten().next(), Some(vec!["a".to_owned()]));
}
