use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use crate::account::token_file::*;

fn token_file(path: PathBuf) -> TokenFile {
    TokenFile {
        path,
        mode: 0o600,
        owner: None,
        group: None,
        missing: Missing::CreateLast,
        write: WriteMode::Replace,
    }
}

fn temp() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

#[test]
fn a_token_is_published_and_observed() {
    let (_guard, dir) = temp();
    let path = dir.join("zerogravity/token");
    let file = token_file(path.clone());
    assert!(matches!(file.observe(), Observation::Missing));
    assert_eq!(file.check().unwrap().path, path);
    assert!(!dir.join("zerogravity").exists(), "check and observe change nothing");

    let token = Secret::new("ya29.token");
    file.prepare().unwrap().publish(&token, None).unwrap();
    match file.observe() {
        Observation::Holds { fingerprint, modified_at } => {
            assert_eq!(fingerprint, token.fingerprint());
            assert!(modified_at > 1_700_000_000_000);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(dir.join("zerogravity")).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn a_prepared_file_that_is_not_published_changes_nothing() {
    let (_guard, dir) = temp();
    fs::write(dir.join("token"), "old").unwrap();
    drop(token_file(dir.join("token")).prepare().unwrap());
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(dir.join("token")).unwrap(), "old");
}

#[test]
fn in_place_keeps_the_inode_and_creates_what_is_missing() {
    let (_guard, dir) = temp();
    let file = TokenFile { write: WriteMode::InPlace, ..token_file(dir.join("token")) };
    file.check().unwrap();
    file.prepare().unwrap().publish(&Secret::new("first, and long"), None).unwrap();
    let inode = fs::metadata(&file.path).unwrap().ino();
    file.check().unwrap();
    file.prepare().unwrap().publish(&Secret::new("second"), None).unwrap();
    assert_eq!(fs::read_to_string(&file.path).unwrap(), "second");
    assert_eq!(fs::metadata(&file.path).unwrap().ino(), inode);
}

#[test]
fn what_cannot_be_placed_is_said_by_check_and_prepare_alike() {
    let (_guard, dir) = temp();
    fs::create_dir(dir.join("directory")).unwrap();
    symlink("loop", dir.join("loop")).unwrap();
    let wrong = [
        token_file(dir.join("directory")),
        token_file(dir.join("loop")),
        token_file(dir.join("missing/missing/token")),
        TokenFile { owner: Some(Principal::Name("no-such-user".into())), ..token_file(dir.join("token")) },
        TokenFile { group: Some(Principal::Name("no-such-group".into())), ..token_file(dir.join("token")) },
    ];
    for file in wrong {
        let (checked, prepared) = (file.check().unwrap_err(), file.prepare().unwrap_err());
        assert_eq!(checked.to_string(), prepared.to_string());
        assert_eq!((checked.class(), prepared.class()), (Class::Config, Class::Config));
        assert!(checked.hint().is_some());
    }
    assert!(matches!(token_file(dir.join("directory")).observe(), Observation::Unreadable(_)));
}

#[test]
fn giving_the_file_away_is_foreseen() {
    let (_guard, dir) = temp();
    let file = TokenFile {
        owner: Some(Principal::Id(54321)),
        group: Some(Principal::Id(54321)),
        mode: 0o640,
        ..token_file(dir.join("token"))
    };
    let root = rustix::process::geteuid().is_root();
    assert_eq!(file.check().is_ok(), root);
    match file.prepare() {
        Ok(prepared) => {
            prepared.publish(&Secret::new("token"), None).unwrap();
            let found = fs::metadata(&file.path).unwrap();
            assert!(root);
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (54321, 54321, 0o640));
            // Again, over a file that now belongs to the other user.
            file.prepare().unwrap().publish(&Secret::new("next"), None).unwrap();
        }
        Err(error) => {
            assert!(!root);
            assert_eq!(error.class(), Class::Config);
        }
    }
}
