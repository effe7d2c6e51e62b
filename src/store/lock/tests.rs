use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::clock::{Clock, SystemClock};
use crate::store::lock::*;

fn state() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("state");
    (dir, path)
}

fn account(state: &Path) -> AccountDir {
    StateDir::create(state, Missing::CreateAll).unwrap().create_account("default").unwrap()
}

/// Tries again while the lock is busy: a child that another test forks keeps a copy of the
/// descriptor of a lock that was just dropped, until it runs its program.
fn once_free<T>(mut attempt: impl FnMut() -> Result<T, LockError>) -> Result<T, LockError> {
    for _ in 0..1000 {
        match attempt() {
            Err(LockError::Busy { .. } | LockError::Supervised { .. }) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
    attempt()
}

#[test]
fn finding_creates_nothing_and_creating_is_private() {
    let (_guard, path) = state();
    assert!(StateDir::find(&path.join("deeper")).unwrap().is_none());
    assert!(!path.exists());
    let dir = StateDir::create(&path.join("deeper"), Missing::CreateAll).unwrap();
    assert!(dir.find_account("default").unwrap().is_none());
    assert!(dir.create_account("default").unwrap().warning().is_none());
    assert!(dir.find_account("default").unwrap().is_some());
    for dir in ["", "deeper", "deeper/default"] {
        assert_eq!(fs::metadata(path.join(dir)).unwrap().mode() & 0o7777, 0o700);
    }
}

#[test]
fn a_directory_that_others_can_enter_is_made_private() {
    let (_guard, path) = state();
    account(&path);
    fs::set_permissions(path.join("default"), fs::Permissions::from_mode(0o755)).unwrap();
    let mode = || fs::metadata(path.join("default")).unwrap().mode() & 0o7777;
    let found = StateDir::find(&path).unwrap().unwrap().find_account("default").unwrap().unwrap();
    assert!(found.warning().unwrap().to_string().contains("had mode 0755"));
    assert_eq!(mode(), 0o755, "looking changes nothing");
    assert!(account(&path).warning().is_some());
    assert_eq!(mode(), 0o700);
    assert!(account(&path).warning().is_none());
}

#[test]
fn one_holder_at_a_time() {
    let (_guard, path) = state();
    let (one, other) = (account(&path), account(&path));
    let held = one.try_lock().unwrap();
    held.still_there().unwrap();
    assert!(matches!(other.try_lock(), Err(LockError::Busy { .. })));
    assert!(matches!(one.try_lock(), Err(LockError::Busy { .. })), "nor twice by the same account");
    drop(held);
    once_free(|| other.try_lock()).unwrap();
}

#[test]
fn a_moved_or_removed_directory_voids_the_lock() {
    let (_guard, path) = state();
    let mine = account(&path);
    let held = mine.try_lock().unwrap();
    fs::rename(path.join("default"), path.join("moved")).unwrap();
    assert!(matches!(held.still_there(), Err(LockError::Replaced { .. })));
    drop(held);
    assert!(matches!(once_free(|| mine.try_lock()), Err(LockError::Replaced { .. })));

    let held = account(&path).try_lock().unwrap();
    fs::rename(&path, path.with_extension("old")).unwrap();
    assert!(matches!(held.still_there(), Err(LockError::Replaced { .. })), "a parent was moved");
    let other = account(&path);
    assert!(matches!(held.still_there(), Err(LockError::Replaced { .. })), "another took its place");
    let held = other.try_lock().unwrap();
    fs::remove_dir_all(&path).unwrap();
    assert!(matches!(held.still_there(), Err(LockError::Replaced { .. })), "removed");
}

#[test]
fn a_repointed_symlink_voids_the_lock() {
    let (_guard, path) = state();
    let (first, second) = (path.with_extension("1"), path.with_extension("2"));
    fs::create_dir(&first).unwrap();
    symlink(&first, &path).unwrap();
    let held = account(&path).try_lock().unwrap();
    held.still_there().unwrap();
    fs::rename(&first, &second).unwrap();
    fs::remove_file(&path).unwrap();
    symlink(&second, &path).unwrap();
    held.still_there().unwrap();
    fs::create_dir(&first).unwrap();
    fs::remove_file(&path).unwrap();
    symlink(&first, &path).unwrap();
    assert!(matches!(held.still_there(), Err(LockError::Replaced { .. })));
}

#[test]
fn an_account_is_a_directory_of_our_own() {
    let (_guard, path) = state();
    let dir = StateDir::create(&path, Missing::CreateAll).unwrap();
    fs::create_dir(path.join("real")).unwrap();
    symlink("real", path.join("link")).unwrap();
    fs::write(path.join("file"), "").unwrap();
    for name in ["link", "file"] {
        let error = dir.create_account(name).unwrap_err();
        assert!(matches!(error, LockError::Place(PlaceError::NotADirectory { .. })), "{error}");
    }
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path.join("real"), Some(54321), None).unwrap();
        let error = dir.create_account("real").unwrap_err();
        assert_eq!(error.class(), Class::Config);
        assert_eq!(error.hint().unwrap(), "run as its owner: sudo -u '#54321' zg-tokend …");
    } else {
        let error =
            StateDir::create(Path::new("/"), Missing::CreateAll).unwrap().find_account("etc").unwrap_err();
        assert!(matches!(error, LockError::NotOurs { owner: 0, .. }), "{error}");
    }
}

#[test]
fn a_file_system_without_locks_is_told_from_a_busy_one() {
    let flock =
        |errno: Errno| try_flock(Path::new("/state"), || Err(TryLockError::Error(errno.into()))).unwrap_err();
    for errno in [Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOSYS] {
        let error = flock(errno);
        assert!(matches!(error, LockError::Unsupported { .. }), "{error}");
        assert_eq!(error.class(), Class::Config);
        assert!(error.hint().unwrap().contains("state_dir"));
    }
    assert!(matches!(flock(Errno::IO), LockError::Io { .. }));
}

#[test]
fn one_supervisor_at_a_time_and_looking_leaves_no_trace() {
    let (_guard, path) = state();
    let account = account(&path);
    let now = SystemClock::new().now();
    assert_eq!(supervision(&account).unwrap(), Supervision::None);
    assert_eq!(fs::read_dir(path.join("default")).unwrap().count(), 0);

    let supervisor = SupervisorLock::acquire(&account, now).unwrap();
    let me = std::process::id();
    assert_eq!(
        supervision(&account).unwrap(),
        Supervision::Alive(Some(SupervisorFile { pid: me, started_at: now }))
    );
    let error = SupervisorLock::acquire(&account, now).unwrap_err();
    assert_eq!(error.to_string(), format!("already supervised by process {me}"));
    account.try_lock().expect("supervision is not the lock");

    drop(supervisor);
    drop(once_free(|| SupervisorLock::acquire(&account, now)).unwrap());
    let is_free = || supervision(&account).unwrap() == Supervision::None;
    assert!((0..1000).any(|_| is_free() || {
        std::thread::sleep(Duration::from_millis(10));
        false
    }));
}

#[test]
fn a_supervisor_outlasts_those_who_only_look() {
    let (_guard, path) = state();
    let account = account(&path);
    let now = SystemClock::new().now();
    drop(SupervisorLock::acquire(&account, now).unwrap());
    let looking = File::open(path.join("default/supervisor")).unwrap();
    FileExt::try_lock_shared(&looking).unwrap();
    std::thread::scope(|scope| {
        let acquired = scope.spawn(|| SupervisorLock::acquire(&account, now).map(drop));
        // Longer than it waits for another supervisor.
        std::thread::sleep(SUPERVISOR_PAUSE * 3 * SUPERVISOR_TRIES);
        drop(looking);
        acquired.join().unwrap().unwrap();
    });
}

#[test]
fn two_that_look_whether_it_is_locked_do_not_see_each_other() {
    let (_guard, path) = state();
    let account = account(&path);
    let looking = open_again(&account.directory).unwrap();
    FileExt::try_lock_shared(&looking).unwrap();
    assert!(!account.is_locked().unwrap());
    drop(looking);
    let held = once_free(|| account.try_lock()).unwrap();
    assert!(account.is_locked().unwrap());
    drop(held);
}
