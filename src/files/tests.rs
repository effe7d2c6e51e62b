//! On real file systems, as root and as an ordinary user.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::files::*;
use crate::problem::Class;

const RULES: Rules = Rules {
    owner: None,
    missing: Missing::Refuse,
    in_place: false,
    readers: Readers { group: false, group_id: None, all: false },
};
/// A user who is neither root nor whoever runs the tests.
const STRANGER: u32 = 54_321;

fn temp() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn replace(target: &Target, bytes: &[u8]) -> Result<(), FileError> {
    let mut temporary = Temporary::create(target, Attributes::PRIVATE)?;
    temporary.reserve(4096)?;
    temporary.write_all(bytes)?;
    temporary.commit()
}

fn names(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_file_is_created_and_replaced_whole() {
    let (_guard, dir) = temp();
    let path = dir.join("token");
    for content in ["a longer first content", "short", ""] {
        replace(&Target::resolve(&path, &RULES).unwrap(), content.as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        assert_eq!(names(&dir), std::slice::from_ref(&path));
    }
}

#[test]
fn the_mode_is_right_from_the_first_byte() {
    let (_guard, dir) = temp();
    for mode in [0o600, 0o640, 0o444, 0o666] {
        let target = Target::resolve(&dir.join("token"), &RULES).unwrap();
        let mut temporary = Temporary::create(&target, Attributes { mode, ..Attributes::PRIVATE }).unwrap();
        let lying = names(&dir).into_iter().find(|name| !name.ends_with("token")).unwrap();
        assert_eq!(fs::metadata(&lying).unwrap().mode() & 0o7777, mode);
        assert_eq!(fs::metadata(&lying).unwrap().len(), 0);
        temporary.write_all(b"x").unwrap();
        // Somebody meddles: the finished file has the configured mode all the same.
        chmod(&lying, 0o606);
        temporary.commit().unwrap();
        assert_eq!(fs::metadata(dir.join("token")).unwrap().mode() & 0o7777, mode);
    }
}

#[test]
fn giving_a_file_away_takes_privilege() {
    let (_guard, dir) = temp();
    let target = Target::resolve(&dir.join("token"), &RULES).unwrap();
    let attributes = Attributes { mode: 0o640, owner: Some(STRANGER), group: Some(STRANGER) };
    match Temporary::create(&target, attributes) {
        Ok(temporary) => {
            assert!(is_root());
            temporary.commit().unwrap();
            let found = fs::metadata(dir.join("token")).unwrap();
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (STRANGER, STRANGER, 0o640));
            // The next one must know that this owner is meant.
            let refused = Target::resolve(&dir.join("token"), &RULES).unwrap_err();
            assert!(matches!(refused, PlaceError::Stranger { owner: STRANGER, .. }), "{refused}");
            let rules = Rules { owner: Some(STRANGER), ..RULES };
            Target::resolve(&dir.join("token"), &rules).unwrap();
        }
        Err(error) => {
            assert!(!is_root());
            assert_eq!(error.class(), Class::Config);
            assert!(error.hint().unwrap().contains("token_file_owner"));
            assert!(names(&dir).is_empty());
        }
    }
}

#[test]
fn a_dropped_temporary_leaves_nothing() {
    let (_guard, dir) = temp();
    let path = dir.join("token");
    fs::write(&path, "old").unwrap();
    let mut temporary =
        Temporary::create(&Target::resolve(&path, &RULES).unwrap(), Attributes::PRIVATE).unwrap();
    temporary.reserve(1 << 16).unwrap();
    temporary.write_all(b"new").unwrap();
    drop(temporary);
    assert_eq!((names(&dir), fs::read_to_string(&path).unwrap()), (vec![path], "old".to_owned()));
}

#[test]
fn a_temporary_that_was_removed_never_replaces() {
    let (_guard, dir) = temp();
    fs::write(dir.join("token"), "old").unwrap();
    let target = Target::resolve(&dir.join("token"), &RULES).unwrap();
    let temporary = Temporary::create(&target, Attributes::PRIVATE).unwrap();
    let lying = names(&dir).into_iter().find(|name| !name.ends_with("token")).unwrap();
    fs::remove_file(&lying).unwrap();
    fs::write(&lying, "an impostor under the same name").unwrap();
    assert!(matches!(temporary.commit(), Err(FileError::Vanished { .. })));
    assert_eq!(fs::read_to_string(dir.join("token")).unwrap(), "old");
}

#[test]
fn a_failed_rename_says_so_and_cleans_up() {
    let (_guard, dir) = temp();
    let target = Target::resolve(&dir.join("token"), &RULES).unwrap();
    let temporary = Temporary::create(&target, Attributes::PRIVATE).unwrap();
    fs::create_dir(dir.join("token")).unwrap();
    let error = temporary.commit().unwrap_err();
    assert!(matches!(error, FileError::Io { step: Step::Replace, .. }), "{error:?}");
    assert_eq!(error.class(), Class::Config);
    assert_eq!(error.to_string(), format!("cannot replace {}", dir.join("token").display()));
    assert_eq!(names(&dir), [dir.join("token")]);
}

#[test]
fn readers_never_see_less_than_a_whole_file() {
    const ROUNDS: u32 = 2_000;
    // In memory where possible: this is about what readers see, not about the disk.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = dir.path().join("token");
    let content = |round: u32| format!("{round:08}").repeat(1 + round as usize % 300);
    replace(&Target::resolve(&path, &RULES).unwrap(), content(0).as_bytes()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = || {
            let (mut last, mut reads) = (0, 0_u32);
            while !done.load(Ordering::Relaxed) || reads == 0 {
                let text = fs::read_to_string(&path).unwrap();
                let round = text[..8].parse().unwrap();
                assert_eq!(text, content(round));
                assert!(round >= last, "went back from {last} to {round}");
                (last, reads) = (round, reads + 1);
            }
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        let target = Target::resolve(&path, &RULES).unwrap();
        for round in 1..=ROUNDS {
            replace(&target, content(round).as_bytes()).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn symlinks_are_kept_and_written_through() {
    let (_guard, dir) = temp();
    fs::create_dir_all(dir.join("real/deep")).unwrap();
    symlink("real", dir.join("linked")).unwrap();
    symlink("../real/./deep/../deep/token", dir.join("real/hop")).unwrap();
    symlink(dir.join("linked/hop"), dir.join("token")).unwrap();
    // Dangling at first: the file that the link points to is created.
    for content in ["first", "second"] {
        let target = Target::resolve(&dir.join("token"), &RULES).unwrap();
        assert_eq!(target.path(), dir.join("real/deep/token"));
        replace(&target, content.as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(dir.join("token")).unwrap(), content);
        assert!(fs::symlink_metadata(dir.join("token")).unwrap().is_symlink());
    }
}

#[test]
fn links_that_lead_nowhere_are_refused() {
    let (_guard, dir) = temp();
    symlink("b", dir.join("a")).unwrap();
    symlink("a", dir.join("b")).unwrap();
    symlink("gone/token", dir.join("dangling")).unwrap();
    symlink("gone", dir.join("dir")).unwrap();
    let rules = Rules { missing: Missing::CreateAll, ..RULES };
    let resolve = |name: &str| Target::resolve(&dir.join(name), &rules).unwrap_err();
    for name in ["a", "a/token"] {
        assert!(matches!(resolve(name), PlaceError::TooManyLinks { .. }));
    }
    for name in ["dangling", "dir/token"] {
        let error = resolve(name);
        let PlaceError::DanglingLink { link, directory, .. } = &error else { panic!("{error:?}") };
        assert_eq!((link.as_path(), directory), (&*dir.join(name.replace("/token", "")), &dir.join("gone")));
    }
    assert!(!dir.join("gone").exists());
}

#[test]
fn only_regular_files_are_replaced_or_read() {
    let (_guard, dir) = temp();
    fs::create_dir(dir.join("directory")).unwrap();
    mkfifoat(CWD, dir.join("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    let open = Directory::open(&dir, &RULES).unwrap();
    for (name, what) in [("directory", "directory"), ("fifo", "FIFO"), ("socket", "socket")] {
        match Target::resolve(&dir.join(name), &RULES).unwrap_err() {
            PlaceError::NotAFile { kind, .. } => assert_eq!(kind, what),
            other => panic!("{other:?}"),
        }
        assert!(open.read(OsStr::new(name), 10).is_err());
        let target = Target::within(&Arc::new(Directory::open(&dir, &RULES).unwrap()), name);
        assert!(InPlace::open(target, Attributes::PRIVATE, 10).is_err());
    }
    let device = Target::resolve(Path::new("/dev/null"), &RULES).unwrap_err();
    assert!(matches!(device, PlaceError::NotAFile { kind: "device", .. }), "{device}");
    assert_eq!(device.class(), Class::Config);
    let through = Target::resolve(&dir.join("fifo/token"), &RULES).unwrap_err();
    assert!(matches!(through, PlaceError::NotADirectory { .. }));
    for path in ["/", "", "/tmp/.."] {
        let nameless = Target::resolve(Path::new(path), &RULES).unwrap_err();
        assert!(matches!(nameless, PlaceError::NoFileName { .. }), "{path:?}: {nameless}");
    }
}

#[test]
fn missing_directories_are_created_as_far_as_allowed() {
    let (_guard, dir) = temp();
    let resolve =
        |path: &str, missing| Target::resolve(&dir.join(path), &Rules { missing, ..RULES }).map(drop);
    let last = resolve("a/token", Missing::Refuse).unwrap_err();
    assert!(matches!(last, PlaceError::MissingDirectory { path, whole } if path == whole));
    let further_up = resolve("a/b/token", Missing::CreateLast).unwrap_err();
    assert!(matches!(further_up, PlaceError::MissingDirectory { whole, .. } if whole == dir.join("a/b")));
    assert!(!dir.join("a").exists());
    resolve("a/token", Missing::CreateLast).unwrap();
    resolve("b/c/d/token", Missing::CreateAll).unwrap();
    Directory::open(&dir.join("e"), &Rules { missing: Missing::CreateLast, ..RULES }).unwrap();
    for path in ["a", "b", "b/c", "b/c/d", "e"] {
        assert_eq!(fs::metadata(dir.join(path)).unwrap().mode() & 0o7777, 0o700, "{path}");
    }
}

#[test]
fn directories_that_others_can_write_are_refused() {
    let (_guard, dir) = temp();
    fs::create_dir_all(dir.join("open/inner")).unwrap();
    chmod(&dir.join("open"), 0o777);
    for path in ["open/token", "open/inner/token"] {
        let error = Target::resolve(&dir.join(path), &RULES).unwrap_err();
        assert!(matches!(error, PlaceError::OthersCanWrite { mode: 0o777, .. }), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.starts_with(&format!("chmod o-w {0}, or chmod +t {0}", dir.join("open").display())));
    }
    chmod(&dir.join("open"), 0o1777);
    assert!(Target::resolve(&dir.join("open/token"), &RULES).unwrap().directory().warnings().is_empty());
    chmod(&dir.join("open"), 0o770);
    let target = Target::resolve(&dir.join("open/token"), &RULES).unwrap();
    assert!(
        matches!(&target.directory().warnings(), [FileWarning::GroupWritable { path, .. }] if *path == dir.join("open"))
    );
}

#[test]
fn what_belongs_to_strangers_is_refused() {
    // As root, give things away; otherwise root's are not ours either, but for directories.
    if !is_root() {
        let error = Target::resolve(Path::new("/etc/passwd"), &RULES).unwrap_err();
        assert!(matches!(error, PlaceError::Stranger { owner: 0, .. }), "{error}");
        return;
    }
    let (_guard, dir) = temp();
    fs::create_dir(dir.join("theirs")).unwrap();
    symlink(".", dir.join("link")).unwrap();
    fs::write(dir.join("file"), "").unwrap();
    for name in ["theirs", "link", "file"] {
        std::os::unix::fs::lchown(dir.join(name), Some(STRANGER), None).unwrap();
    }
    for path in ["theirs/token", "link/token", "file"] {
        let error = Target::resolve(&dir.join(path), &RULES).unwrap_err();
        assert!(matches!(error, PlaceError::Stranger { owner: STRANGER, .. }), "{path}: {error}");
        assert_eq!(error.class(), Class::Config);
        Target::resolve(&dir.join(path), &Rules { owner: Some(STRANGER), ..RULES }).unwrap();
    }
}

#[test]
fn any_name_will_do() {
    let (_guard, dir) = temp();
    let long = OsStr::from_bytes(&[b'n'; 255]).to_owned();
    for name in [&long, OsStr::from_bytes(b"caf\xe9 \xff\n"), OsStr::new("a b"), OsStr::new("-rf")] {
        fs::create_dir(dir.join(name)).unwrap();
        let path = dir.join(name).join(name);
        replace(&Target::resolve(&path, &RULES).unwrap(), b"content").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"content");
    }
    for name in [OsStr::from_bytes(&[b'n'; 256]), OsStr::from_bytes(b"nul\0")] {
        let error = Target::resolve(&dir.join(name), &RULES).unwrap_err();
        assert_eq!(error.class(), Class::Config, "{error}");
    }
}

#[test]
fn relative_paths_start_where_we_are() {
    let here = std::env::current_dir().unwrap().canonicalize().unwrap();
    let target =
        Target::resolve(Path::new("Cargo.toml"), &Rules { owner: Some(here_owner()), ..RULES }).unwrap();
    assert_eq!(target.path(), here.join("Cargo.toml"));
}

fn here_owner() -> u32 {
    fs::metadata("Cargo.toml").unwrap().uid()
}

#[test]
fn a_sweep_removes_litter_and_nothing_else() {
    let (_guard, dir) = temp();
    let target = Target::resolve(&dir.join("token"), &RULES).unwrap();
    let alive = Temporary::create(&target, Attributes { mode: 0o440, ..Attributes::PRIVATE }).unwrap();
    let litter = dir.join(".zg-tokend-0123456789abcdef.tmp");
    fs::write(&litter, "half a tok").unwrap();
    chmod(&litter, 0o440);
    for name in [".zg-tokend-notes", "other.tmp", "token"] {
        fs::write(dir.join(name), "").unwrap();
    }
    fs::create_dir(dir.join(".zg-tokend-dir.tmp")).unwrap();
    let theirs = dir.join(".zg-tokend-theirs.tmp");
    if is_root() {
        fs::write(&theirs, "").unwrap();
        std::os::unix::fs::chown(&theirs, Some(STRANGER), None).unwrap();
    }
    assert_eq!(target.directory().sweep(None).unwrap(), 1);
    assert!(!litter.exists());
    assert_eq!(names(&dir).len(), if is_root() { 6 } else { 5 });
    alive.commit().unwrap();
    assert_eq!(target.directory().sweep(Some(STRANGER)).unwrap(), usize::from(is_root()));
    assert!(!theirs.exists());
}

#[test]
fn in_place_keeps_the_inode_and_cuts_to_length() {
    let (_guard, dir) = temp();
    let path = dir.join("token");
    let target = Target::resolve(&path, &Rules { in_place: true, ..RULES }).unwrap();
    assert!(InPlace::open(target.clone(), Attributes::PRIVATE, 10).unwrap().is_none());
    fs::write(&path, "a rather long old token").unwrap();
    chmod(&path, 0o644);
    let inode = fs::metadata(&path).unwrap().ino();
    for content in ["short", "a much, much longer new token than before"] {
        let file = InPlace::open(target.clone(), Attributes::PRIVATE, 1 << 16).unwrap().unwrap();
        file.write(content.as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.ino(), found.mode() & 0o7777), (inode, 0o600));
}

#[test]
fn reading_tells_absent_from_unreadable() {
    let (_guard, dir) = temp();
    let open = Directory::open(&dir, &RULES).unwrap();
    assert!(open.read(OsStr::new("state"), 10).unwrap().is_none());
    fs::write(dir.join("state"), "0123456789").unwrap();
    chmod(&dir.join("state"), 0o640);
    let contents = open.read(OsStr::new("state"), 10).unwrap().unwrap();
    assert_eq!((contents.bytes.as_slice(), contents.mode), (&b"0123456789"[..], 0o640));
    assert!(contents.modified_at > 1_700_000_000_000);
    assert!(matches!(open.read(OsStr::new("state"), 9), Err(FileError::TooLong { max: 9, .. })));
    symlink("state", dir.join("link")).unwrap();
    assert!(matches!(open.read(OsStr::new("link"), 10), Err(FileError::Io { step: Step::Read, .. })));
    assert!(Contents::of_path(&dir.join("link"), 10).unwrap().is_some());
}

#[test]
fn interruptions_are_retried_but_not_for_ever() {
    let mut left = 5;
    let done = uninterrupted(|| {
        left -= 1;
        if left > 0 { Err(Errno::INTR) } else { Ok(left) }
    });
    assert_eq!(done, Ok(0));
    assert_eq!(uninterrupted(|| Err::<(), _>(Errno::INTR)), Err(Errno::INTR));
}

#[test]
fn a_directory_handle_can_be_synced() {
    let (_guard, dir) = temp();
    rustix::fs::fsync(Directory::open(&dir, &RULES).unwrap().as_fd()).unwrap();
}

#[test]
fn a_new_directory_is_its_owners() {
    if !is_root() {
        return;
    }
    let (_guard, dir) = temp();
    let rules = Rules { owner: Some(STRANGER), missing: Missing::CreateAll, ..RULES };
    fs::create_dir(dir.join("old")).unwrap();
    chmod(&dir.join("old"), 0o750);
    Target::resolve(&dir.join("old/new/newer/token"), &rules).unwrap();
    for (path, owner, mode) in
        [("old", 0, 0o750), ("old/new", STRANGER, 0o700), ("old/new/newer", STRANGER, 0o700)]
    {
        let found = fs::metadata(dir.join(path)).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (owner, mode), "{path}");
    }
}
