//! Where token file and state may be, on real mounts, links and modes: what cannot work is said
//! before a token is spent, and what works is right from the first byte.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{Mode, chmod};
use rustix::process::Signal;
use serde_json::Value;
use zg_tokend::testing::demo::Fault;

use crate::common::world::{World, read};
use crate::common::{Background, Output, Sandbox, finish, leave_out, under, wait_until};

/// A user who is not root: `nobody`.
const STRANGER: u32 = 65534;

const HOUR: Duration = Duration::from_secs(3600);

/// Whether this may mount and give files away; what cannot be tested without is noted.
fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        leave_out(what);
    }
    root
}

/// A world whose token file is `home/token`.
fn at_home(extra: &str) -> World {
    let world = World::new();
    let path = world.sandbox.path("home/token");
    world.configure(&format!("token_file = \"{}\"\n{extra}", path.display()));
    world
}

/// The binary in a mount namespace of its own, once the shell command `setup` was run there.
fn in_namespace<'a>(sandbox: &Sandbox, setup: &str, args: impl IntoIterator<Item = &'a str>) -> Output {
    let script = format!("{setup} && exec \"$0\" \"$@\"");
    finish(&mut under(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script],
        &sandbox.command(args),
    ))
}

/// The message about a mount point, in every command.
#[track_caller]
fn assert_mount_point_is_told(said: &str) {
    for words in ["mount point", "mount the directory", "write = \"in-place\""] {
        assert!(said.contains(words), "{words:?} in {said}");
    }
}

#[test]
fn a_single_mounted_file_is_told_before_anything_is_sent() {
    if !is_root("a bind mount over the token file") {
        return;
    }
    let mount = "mount --bind mounted token";
    let world = at_home("");
    for name in ["mounted", "token"] {
        fs::write(world.sandbox.path("home").join(name), "").unwrap();
    }
    for command in ["check", "once"] {
        let output = in_namespace(&world.sandbox, mount, [command]);
        assert_eq!(output.code, Some(78), "{output:?}");
        assert_mount_point_is_told(if command == "check" { &output.stdout } else { &output.stderr });
    }
    assert_eq!(world.posts(), 0);
    let status = in_namespace(&world.sandbox, mount, ["status"]);
    assert_eq!(status.code, Some(2), "{status:?}");
    assert_mount_point_is_told(&status.stdout);

    // A token that was there before somebody mounted the file.
    world.once_gives(0, []);
    fs::copy(world.sandbox.path("home/token"), world.sandbox.path("home/mounted")).unwrap();
    let status = in_namespace(&world.sandbox, mount, ["status"]);
    assert_eq!(status.code, Some(1), "{status:?}");
    assert_mount_point_is_told(&status.stdout);
    // Through a link it is the same file.
    let linked = format!("{mount} && mv token.link token.sym");
    symlink("token", world.sandbox.path("home/token.link")).unwrap();
    let config = fs::read_to_string(world.sandbox.config_path()).unwrap();
    world.sandbox.write_config(&config.replace("home/token\"", "home/token.sym\""));
    let status = in_namespace(&world.sandbox, &linked, ["status"]);
    assert_mount_point_is_told(&status.stdout);
    assert_eq!(world.posts(), 1);
}

#[test]
fn in_place_reaches_a_reader_in_another_mount_namespace() {
    if !is_root("a reader in another mount namespace") {
        return;
    }
    let world = at_home("write = \"in-place\"");
    let home = world.sandbox.path("home");
    for name in ["mounted", "token", "seen"] {
        fs::write(home.join(name), "").unwrap();
    }
    let mut container = Command::new("unshare");
    container.current_dir(&home).args(["--mount", "--propagation", "private", "sh", "-c"]);
    container.arg("mount --bind mounted seen && echo ready && exec sleep 1000");
    let mut container = Background::start(&mut container, world.sandbox.path("container.log"));
    wait_until("the mount", || container.log().contains("ready").then_some(()));
    let process = container.id().to_string();
    let seen = home.join("seen");
    let mut before = String::new();
    for _ in 0..4 {
        let output = in_namespace(&world.sandbox, "mount --bind mounted token", ["once", "--force"]);
        assert_eq!(output.code, Some(0), "{output:?}");
        let reader =
            finish(Command::new("nsenter").args(["--target", &process, "--mount", "cat"]).arg(&seen));
        assert_ne!(reader.stdout, before);
        assert_eq!(reader.stdout, fs::read_to_string(home.join("mounted")).unwrap());
        assert!(
            world.server.is_live(&zg_tokend::testing::secret::Secret::new(reader.stdout.as_str())),
            "{reader:?}"
        );
        before = reader.stdout;
    }
    container.signal(Signal::KILL);
}

#[test]
fn links_are_kept_and_followed() {
    let world = at_home("");
    let home = world.sandbox.path("home");
    let real = home.join("real/deep/token");
    fs::create_dir_all(real.parent().unwrap()).unwrap();
    // To a file that is not there yet, through a linked directory, by a relative link.
    symlink("real", home.join("linked")).unwrap();
    symlink("linked/deep/token", home.join("second")).unwrap();
    symlink(home.join("second"), home.join("token")).unwrap();
    for _ in 0..2 {
        world.once_gives(0, ["--force"]);
        assert!(world.server.is_live(&read(&real)));
        for link in ["linked", "second", "token"] {
            assert!(home.join(link).is_symlink(), "{link}");
        }
    }
    assert_eq!(fs::read_dir(real.parent().unwrap()).unwrap().count(), 1, "no litter");
}

/// The token file's place will not do: every command says so with these words, nothing is sent,
/// and what is there stays.
#[track_caller]
fn assert_refused(prepare: impl FnOnce(&Path), words: &str) {
    let world = at_home("");
    prepare(&world.sandbox.path("home"));
    for command in ["check", "once"] {
        let output = world.sandbox.run([command]);
        assert_eq!(output.code, Some(78), "{words}: {output:?}");
        let said = if command == "check" { &output.stdout } else { &output.stderr };
        assert!(said.contains(words) && said.contains("hint: "), "{words}: {output:?}");
    }
    assert_eq!(world.posts(), 0, "{words}");
}

#[test]
fn a_path_that_cannot_be_a_token_file_is_refused_with_the_reason() {
    assert_refused(|home| symlink("token", home.join("token")).unwrap(), "too many symlinks");
    assert_refused(|home| symlink("no/such/token", home.join("token")).unwrap(), "does not exist");
    assert_refused(|home| fs::create_dir(home.join("token")).unwrap(), "is a directory");
    assert_refused(|home| drop(finish(Command::new("mkfifo").arg(home.join("token")))), "is a FIFO");
    assert_refused(|home| symlink("/dev/null", home.join("token")).unwrap(), "is a device");
    assert_refused(
        |home| chmod(home, Mode::from_raw_mode(0o777)).unwrap(),
        "can be written by anybody (mode 0777)",
    );
    if !is_root("a token file that belongs to somebody else") {
        return;
    }
    let give = |path: &Path| std::os::unix::fs::lchown(path, Some(STRANGER), None).unwrap();
    assert_refused(
        |home| {
            fs::write(home.join("token"), "").unwrap();
            give(&home.join("token"));
        },
        "belongs to nobody",
    );
    assert_refused(give, "belongs to nobody");
    assert_refused(
        |home| {
            symlink("real", home.join("token")).unwrap();
            give(&home.join("token"));
        },
        "belongs to nobody",
    );
}

/// The program's work on the files in a directory, one system call a line.
fn trace(world: &World, umask: &str) -> Vec<String> {
    let log = world.sandbox.path("trace");
    let script = format!("umask {umask}; exec \"$0\" \"$@\"");
    let calls = "trace=openat,fchmod,fchown,write,pwrite64,fallocate,renameat,renameat2,link,linkat";
    let strace = ["strace", "-f", "-qq", "-y", "-e", calls, "-o", log.to_str().unwrap()];
    let once = world.sandbox.command(["once", "--force"]);
    let output = finish(&mut under(strace.into_iter().chain(["sh", "-c", &script]), &once));
    assert_eq!(output.code, Some(0), "{output:?}");
    let text = fs::read_to_string(log).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn mode_and_owner_are_right_from_the_first_byte() {
    if !is_root("giving a token file away") {
        return;
    }
    let world = at_home("token_file_mode = \"0640\"\ntoken_file_owner = 65534\ntoken_file_group = 65534");
    let path = world.sandbox.path("home/token");
    for umask in ["000", "077", "777"] {
        let trace = trace(&world, umask);
        let temporary = |line: &&String| line.contains("/home/.zg-tokend-");
        let position = |call: &str| {
            let found = trace.iter().rposition(|line| temporary(&line) && line.contains(call));
            found.unwrap_or_else(|| panic!("{call} in {trace:#?}"))
        };
        let opened = trace.iter().find(|line| line.contains("O_CREAT") && line.contains("\".zg-tokend-"));
        assert!(opened.is_some_and(|line| line.contains("O_EXCL") && line.contains("0600")), "{trace:#?}");
        let writes = trace.iter().position(|line| temporary(&line) && line.contains("write"));
        for call in ["fchown(", "fchmod("] {
            assert!(position(call) < writes.unwrap(), "umask {umask}: {call} in {trace:#?}");
        }
        let found = fs::metadata(&path).unwrap();
        let attributes = (found.mode() & 0o7777, found.uid(), found.gid());
        assert_eq!(attributes, (0o640, STRANGER, STRANGER), "umask {umask}");
        // Whatever somebody makes of it, the next one is right again.
        chmod(&path, Mode::from_raw_mode(0o666)).unwrap();
    }
}

#[test]
fn a_file_system_without_locks_is_refused() {
    for error in ["ENOLCK", "EOPNOTSUPP", "ENOSYS"] {
        let world = at_home("");
        world.once_gives(0, []);
        let inject = format!("inject=flock:error={error}");
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", &inject];
        let output = finish(&mut under(strace, &world.sandbox.command(["once", "--force"])));
        assert_eq!(output.code, Some(78), "{output:?}");
        assert!(output.stderr.contains("has no locks"), "{output:?}");
        assert!(output.stderr.contains("hint: set state_dir to a directory on a local"), "{output:?}");
        assert_eq!(world.posts(), 1, "{error}");
    }
}

/// Temporaries that are left in a directory.
fn litter(directory: &Path) -> usize {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with(".zg-tokend-")).count()
}

#[test]
fn temporary_files_of_killed_runs_are_removed() {
    let world = at_home("");
    let places = [world.sandbox.path("home"), world.state_path("default", "")];
    for killed in 1..=2 {
        if killed > 1 {
            world.pass_time(HOUR);
        }
        world.fault(Fault { delay_before_commit_ms: 600_000, ..Fault::default() });
        let mut once =
            Background::start(&mut world.sandbox.command(["once", "--force"]), world.sandbox.path("log"));
        wait_until("the request", || (world.posts() == killed).then_some(()));
        once.signal(Signal::KILL);
        once.wait();
        assert!(places.iter().all(|place| litter(place) > 0), "killed too early");
    }
    world.pass_time(HOUR);
    world.once_gives(0, ["--force"]);
    assert_eq!(places.map(|place| litter(&place)), [0, 0]);
}

#[test]
fn any_name_will_do() {
    let long = [b'n'; 255];
    for name in [&b"with space"[..], b"caf\xe9 \xff", b"line\nbreak", b"-rf", &long] {
        let world = World::new();
        let base = world.sandbox.path("home").join(OsStr::from_bytes(name));
        world.configure("");
        fs::create_dir_all(base.join("zg-tokend")).unwrap();
        fs::rename(world.sandbox.config_path(), base.join("zg-tokend/config.toml")).unwrap();
        let run = |args: &[&str]| {
            let mut command = world.sandbox.command(args.iter().copied());
            finish(command.env("XDG_CONFIG_HOME", &base).env("XDG_STATE_HOME", base.join("state")))
        };
        for _ in 0..2 {
            let output = run(&["once", "--force"]);
            assert_eq!(output.code, Some(0), "{output:?}");
            assert!(world.server.is_live(&read(&base.join("zerogravity/token"))));
        }
        assert!(base.join("state/zg-tokend/default/state").exists());
        let status = run(&["status", "--json"]);
        let json: Value = serde_json::from_str(&status.stdout).unwrap_or_else(|_| panic!("{status:?}"));
        assert_eq!((status.code, &json["accounts"][0]["token_file"]["current"]), (Some(0), &true.into()));
        assert_eq!(run(&["check"]).code, Some(0));
    }
}

/// Lets somebody act right after the directory of the token was made, and waits for the end.
fn between_mkdir_and_chmod(world: &World, act: impl FnOnce(&Path)) {
    let new = world.sandbox.path("home/new");
    // Three seconds to do it in.
    let strace = ["strace", "-f", "-qq", "-e", "trace=mkdirat", "-e", "inject=mkdirat:delay_exit=3000000"];
    let log = world.sandbox.path("once.log");
    let mut once = Background::start(&mut under(strace, &world.sandbox.command(["once"])), log);
    wait_until("the new directory", || new.is_dir().then_some(()));
    fs::remove_dir(&new).unwrap();
    act(&new);
    once.wait();
}

/// Somebody who may rename in the directory replaces the new file: what a link
/// leads to keeps its mode, and what was there before keeps its owner.
#[test]
fn only_the_new_directory_itself_is_changed() {
    let world = World::new();
    let victim = world.sandbox.path("home/victim");
    fs::create_dir(&victim).unwrap();
    chmod(&victim, Mode::from_raw_mode(0o755)).unwrap();
    let token_file = format!("token_file = \"{}\"\n", world.sandbox.path("home/new/token").display());
    world.configure(&token_file);
    between_mkdir_and_chmod(&world, |new| symlink("victim", new).unwrap());
    assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o7777, 0o755);

    if !is_root("giving a token directory away") {
        return;
    }
    let world = World::new();
    let victim = world.sandbox.path("home/victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("root's"), "").unwrap();
    let token_file = format!("token_file = \"{}\"\n", world.sandbox.path("home/new/token").display());
    world.configure(&format!("{token_file}token_file_owner = {STRANGER}"));
    between_mkdir_and_chmod(&world, |new| fs::rename(&victim, new).unwrap());
    assert_eq!(fs::metadata(world.sandbox.path("home/new")).unwrap().uid(), 0);
    fs::remove_dir_all(world.sandbox.path("home/new")).unwrap();
    world.once_gives(0, []);
    assert_eq!(fs::metadata(world.sandbox.path("home/new")).unwrap().uid(), STRANGER);
}
