use std::error::Error as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::process;
use crate::secrets::*;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

fn nothing(_: &str) -> Option<OsString> {
    None
}

fn reader<'a>(
    key: &'static str,
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    effective_uid: u32,
) -> SecretReader<'a> {
    SecretReader { key, secret_variables: &[], variable, effective_uid }
}

fn get(source: &SecretSource) -> Result<Secret, SecretError> {
    read("client_secret", source, &[])
}

fn shell(script: &str) -> SecretSource {
    SecretSource::Command(["sh", "-c", script].map(str::to_owned).to_vec())
}

/// A file with these bytes and this mode, in a directory that goes with the first value.
fn file(bytes: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    (directory, path)
}

/// The error and its causes, as a person sees them.
fn chain(error: &SecretError) -> String {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    let root = error.source().and_then(std::error::Error::source);
    format!("{error}{cause}{}", root.map(|root| format!(": {root}")).unwrap_or_default())
}

#[test]
fn each_source_gives_its_secret_without_white_space() {
    let (_directory, path) = file(b" \tsecret\r\n\n", 0o600);
    let credentials = path.parent().unwrap().as_os_str().to_owned();
    let variable = |name: &str| match name {
        "SECRET" => Some(OsString::from("secret\n")),
        "CREDENTIALS_DIRECTORY" => Some(credentials.clone()),
        _ => None,
    };
    for source in [
        SecretSource::Inline(Secret::new("secret")),
        SecretSource::File(path.clone()),
        SecretSource::Env("SECRET".into()),
        SecretSource::Credential("secret".into()),
        shell("echo secret"),
    ] {
        let effective_uid = rustix::process::geteuid().as_raw();
        let secret = reader("client_secret", &variable, effective_uid).read(&source).unwrap();
        assert_eq!(secret.expose(), "secret", "{source}");
    }
}

#[test]
fn what_is_no_secret_is_refused_wherever_it_comes_from() {
    for (bytes, says) in [
        (&b""[..], "is empty"),
        (b" \n", "is empty"),
        (b"a\nb", "has more than one line"),
        (b"a\x1b[0mb", "contains control characters"),
        (b"a\0b", "contains control characters"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ] {
        let (_directory, path) = file(bytes, 0o600);
        let error = get(&SecretSource::File(path.clone())).unwrap_err();
        assert_eq!(error.to_string(), format!("client_secret from file {} {says}", path.display()));
        assert!(error.hint().unwrap().contains("on one line"));
        let error = get(&shell(&format!("cat '{}'", path.display()))).unwrap_err();
        assert_eq!(error.to_string(), format!("client_secret from command `sh` {says}"));
    }
}

#[test]
fn a_secret_file_is_closed_to_others() {
    for (mode, good) in [
        (0o600, true),
        (0o400, true),
        (0o640, true),
        (0o440, true),
        (0o604, false),
        (0o644, false),
        (0o602, false),
        (0o620, false),
        (0o660, false),
    ] {
        let (_directory, path) = file(b"SECRET", mode);
        match get(&SecretSource::File(path.clone())) {
            Ok(_) => assert!(good, "{mode:o}"),
            Err(error) => {
                assert!(!good, "{mode:o}");
                assert!(matches!(error, SecretError::Loose { .. }), "{error}");
                assert_eq!(error.hint().unwrap(), format!("chmod 600 {}", path.display()));
            }
        }
    }
}

#[test]
fn a_secret_file_belongs_to_root_or_the_effective_user() {
    for (uid, effective_uid, good) in [(0, 7, true), (7, 7, true), (8, 7, false), (7, 0, false)] {
        let contents = Contents { bytes: Bytes::default(), uid, gid: 0, mode: 0o600, modified_at: 0 };
        let checked =
            reader("refresh_token", &nothing, effective_uid).check_access(Path::new("/s"), &contents);
        assert_eq!(checked.is_ok(), good, "{uid} {effective_uid}");
        if let Err(error) = checked {
            assert_eq!(
                error.to_string(),
                format!("the refresh_token file /s belongs to another user (uid {uid})")
            );
        }
    }
}

#[test]
fn a_file_that_cannot_be_one_says_why() {
    let (directory, path) = file(&vec![b'x'; MAX_LEN + 1], 0o600);
    let error = get(&SecretSource::File(path)).unwrap_err();
    assert!(chain(&error).ends_with("longer than 64 KiB"), "{}", chain(&error));
    let missing = directory.path().join("none");
    let error = get(&SecretSource::File(missing.clone())).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read client_secret from file {}", missing.display()));
    assert!(error.hint().unwrap().contains("mode 0600"));
    // A FIFO without a writer would block for ever.
    let fifo = directory.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let error = get(&SecretSource::File(fifo)).unwrap_err();
    assert!(chain(&error).ends_with("not a regular file"), "{}", chain(&error));
}

#[test]
fn a_variable_or_credential_that_is_missing_says_what_to_set() {
    let missing = |source| reader("refresh_token", &nothing, 0).read(&source).unwrap_err();
    let error = missing(SecretSource::Env("RT".into()));
    assert_eq!(error.to_string(), "refresh_token: the environment variable RT is not set");
    assert!(error.hint().unwrap().starts_with("set RT"));
    let error = missing(SecretSource::Credential("rt".into()));
    assert!(error.hint().unwrap().contains("LoadCredential=rt:PATH"));
    let directory = |_: &str| Some(OsString::from("/nonexistent"));
    let source = SecretSource::Credential("rt".into());
    let error = reader("refresh_token", &directory, 0).read(&source).unwrap_err();
    assert_eq!(error.to_string(), "cannot read refresh_token from systemd credential rt");
    assert!(error.hint().unwrap().contains("restart"));
    let empty =
        reader("refresh_token", &|_| Some("".into()), 0).read(&SecretSource::Env("RT".into())).unwrap_err();
    assert_eq!(empty.to_string(), "refresh_token from environment variable RT is empty");
}

#[test]
fn a_command_that_fails_is_quoted_but_not_its_output() {
    for (script, says) in [
        ("echo SECRET; exit 3", "exit status: 3"),
        (
            "echo SECRET; printf '\\n  no \\033[1mkey\\007\\nSECRET\\n' >&2; exit 1",
            "exit status: 1: no [1mkey",
        ),
        ("echo SECRET; kill -TERM $$", "signal: 15 (SIGTERM)"),
    ] {
        let error = get(&shell(script)).unwrap_err();
        assert_eq!(chain(&error), format!("cannot get client_secret from command `sh`: {says}"), "{script}");
        assert!(!format!("{error:?}").contains("SECRET"));
    }
    let long = get(&shell("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1")).unwrap_err();
    assert!(chain(&long).len() < 300, "{}", chain(&long));
    let error = get(&SecretSource::Command(vec!["/nonexistent/pass".into(), "SECRET".into()])).unwrap_err();
    assert!(
        chain(&error).starts_with("cannot get client_secret from command `/nonexistent/pass`: it cannot be")
    );
    assert!(error.hint().unwrap().contains("full path"));
}

#[test]
fn a_command_has_no_input_and_may_print_much_on_standard_error() {
    let source = shell("cat; head -c 1000000 /dev/zero >&2; echo secret");
    assert_eq!(get(&source).unwrap().expose(), "secret");
}

#[test]
fn a_long_secret_is_read_to_its_end() {
    let SecretSource::Command(argv) = shell("head -c 60000 /dev/zero") else { unreachable!() };
    let mut child = process::command(&argv, &[]).unwrap().spawn().unwrap();
    // It fits into the pipe, so that the command can end before any of it is read.
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
    let (stdout, _) = process::watch(&mut child, command::DEADLINE, MAX_LEN, None).unwrap();
    child.wait().unwrap();
    assert_eq!(stdout.len(), 60_000);
}

#[test]
fn a_command_may_leave_a_process_behind_that_keeps_its_output_open() {
    let (_directory, pid_file) = file(b"", 0o600);
    let script = format!("sleep 1000 & echo $! > '{}'; echo secret", pid_file.display());
    assert_eq!(get(&shell(&script)).unwrap().expose(), "secret");
    let pid = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// Such a process may also write faster than it is read: here, always.
#[test]
fn what_a_process_left_behind_writes_is_not_waited_for() {
    let SecretSource::Command(argv) = shell("true") else { unreachable!() };
    let mut child = process::command(&argv, &[]).unwrap().spawn().unwrap();
    child.stderr = Some(std::os::fd::OwnedFd::from(std::fs::File::open("/dev/zero").unwrap()).into());
    process::watch(&mut child, command::DEADLINE, MAX_LEN, None).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_command_that_prints_without_end_is_killed() {
    let error = get(&shell("exec yes")).unwrap_err();
    assert!(chain(&error).ends_with("its output is longer than 64 KiB"), "{}", chain(&error));
}

#[test]
fn a_late_command_is_killed_with_its_children() {
    let (_directory, lock) = file(b"", 0o600);
    // The grandchild holds the lock; the shell waits for it.
    let script = format!("flock '{}' sleep 1000; true", lock.display());
    let SecretSource::Command(argv) = shell(&script) else { unreachable!() };
    let error = command::output(&argv, &[], Duration::from_secs(1)).unwrap_err();
    assert_eq!(error.to_string(), "it timed out after 1 s and was killed");
    assert!(error.hint().contains("has no terminal"));
    // This waits until nobody holds the lock.
    fs4::FileExt::lock(&std::fs::File::open(&lock).unwrap()).unwrap();
}
