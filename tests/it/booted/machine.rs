//! A box with a systemd of its own, shared by the tests that run at the same time.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};

use crate::common::{Output, finish, leave_out, wait_until};

/// The first user id of those who are made here.
const FIRST_UID: u32 = 4200;

/// A booted box. It is gone when this is dropped or the test dies.
pub struct Machine {
    /// Waits for the end of its stdin.
    boot: Child,
    pid: String,
    /// How many users there are.
    people: Mutex<u32>,
}

impl Machine {
    /// The one that other tests are using, or else a new one, with the program installed in it;
    /// `None`, noted as left out, without root.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Machine>> = Mutex::new(Weak::new());
        if !is_root() {
            return None;
        }
        // A boot that failed must not fail the other tests for a reason of its own.
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Some(shared.upgrade().unwrap_or_else(|| {
            let machine = Arc::new(Self::boot());
            machine.install();
            *shared = Arc::downgrade(&machine);
            machine
        }))
    }

    /// One of the caller's own, with the program installed; `None`, noted as left out, without root.
    pub fn own() -> Option<Arc<Self>> {
        let machine = Self::bare()?;
        machine.install();
        Some(machine)
    }

    /// One of the caller's own, without the program; `None`, noted as left out, without root.
    pub fn bare() -> Option<Arc<Self>> {
        is_root().then(|| Arc::new(Self::boot()))
    }

    fn boot() -> Self {
        let mut boot = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/booted/boot"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pid = String::new();
        BufReader::new(boot.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        let machine = Self { boot, pid: pid.trim().to_owned(), people: Mutex::new(0) };
        assert_ne!(machine.pid, "", "the box did not boot");
        machine
    }

    /// Puts the program where its package does; `package` tests the package itself.
    fn install(&self) {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = Path::new(env!("CARGO_BIN_EXE_zg-tokend"));
        self.put("/usr/bin/zg-tokend", &fs::read(program).unwrap(), 0o755);
        for (from, to) in [("system", "/lib/systemd/system"), ("user", "/usr/lib/systemd/user")] {
            for unit in fs::read_dir(repository.join("systemd").join(from)).unwrap() {
                let unit = unit.unwrap();
                let to = format!("{to}/{}", unit.file_name().display());
                self.put(&to, &fs::read(unit.path()).unwrap(), 0o644);
            }
        }
        for (page, section) in [("commands", "man1/zg-tokend.1"), ("config", "man5/zg-tokend.toml.5")] {
            let text = finish(Command::new(program).args(["man", page])).stdout;
            self.put(&format!("/usr/share/man/{section}"), text.as_bytes(), 0o644);
        }
        self.make("/etc/zg-tokend", 0o755);
        self.run("systemctl daemon-reload");
    }

    /// A path in the box, as it can be opened from outside.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref().strip_prefix("/").unwrap();
        Path::new("/proc").join(&self.pid).join("root").join(path)
    }

    /// Makes a directory in the box, and those above it.
    pub fn make(&self, path: &str, mode: u32) {
        fs::create_dir_all(self.path(path)).unwrap();
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Replaces a file of root's in the box.
    pub fn put(&self, path: &str, contents: &[u8], mode: u32) {
        replace(&self.path(path), contents, mode, 0);
    }

    /// A shell's commands in the box, to their end.
    pub fn shell(&self, commands: &str) -> Output {
        finish(&mut self.command(commands))
    }

    /// The same; they must succeed. Gives what they print.
    #[track_caller]
    pub fn run(&self, commands: &str) -> String {
        let output = self.shell(commands);
        assert_eq!(output.code, Some(0), "{commands}: {output:?}");
        output.stdout
    }

    fn command(&self, commands: &str) -> Command {
        // In a cgroup of its own in the box: to its systemd it would be nobody's else.
        let enter = "mkdir -p /sys/fs/cgroup/visitors; echo $$ >/sys/fs/cgroup/visitors/cgroup.procs";
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid, "-a", "sh", "-c", &format!("cd /; {enter}; {commands}")]);
        command.stdin(Stdio::null()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command
    }

    /// A property of a unit, systemctl(1).
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.run(&format!("systemctl show --value -p {name} '{unit}'")).trim().to_owned()
    }

    /// Makes a user of the box, with a home.
    pub fn person(self: &Arc<Self>, name: &'static str) -> Person {
        // The lock is free before anything can fail: one test must not end the others.
        let uid = {
            let mut people = self.people.lock().unwrap();
            *people += 1;
            FIRST_UID + *people
        };
        self.run(&format!("useradd --create-home --shell /bin/sh --uid {uid} {name}"));
        Person { machine: Arc::clone(self), name, uid }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.boot.stdin.take());
        let _ = self.boot.wait();
    }
}

/// A user of the box.
pub struct Person {
    pub machine: Arc<Machine>,
    pub name: &'static str,
    uid: u32,
}

impl Person {
    /// A path in the home, in the box.
    pub fn home(&self, relative: &str) -> String {
        format!("/home/{}/{relative}", self.name)
    }

    /// Starts the user's service manager, which from now on needs no login.
    pub fn linger(&self) {
        self.machine.run(&format!("loginctl enable-linger {}", self.name));
        self.wait_for_manager();
    }

    pub fn wait_for_manager(&self) {
        let up = || (self.shell("systemctl --user is-system-running").stdout == "running\n").then_some(());
        wait_until("the user's service manager", up);
    }

    /// Replaces a file of this user's, readable by nobody else.
    pub fn put(&self, path: &str, contents: &str) {
        replace(&self.machine.path(path), contents.as_bytes(), 0o600, self.uid);
    }

    /// Makes directories of this user's.
    pub fn make(&self, path: &str) {
        self.run(&format!("mkdir -p {path}"));
    }

    /// Commands of this user, as in a shell after a login; they must succeed.
    #[track_caller]
    pub fn run(&self, commands: &str) -> String {
        let output = self.shell(commands);
        assert_eq!(output.code, Some(0), "{commands}: {output:?}");
        output.stdout
    }

    /// The same, to their end.
    pub fn shell(&self, commands: &str) -> Output {
        let (name, uid) = (self.name, self.uid);
        self.machine.shell(&format!(
            "cd ~{name}; exec runuser -u {name} -- env HOME=/home/{name} XDG_RUNTIME_DIR=/run/user/{uid} sh -c '{}'",
            commands.replace('\'', r"'\''")
        ))
    }
}

/// Whether a box can be booted; noted as left out if not.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        leave_out("tests under a systemd of their own: booting it needs root");
    }
    root
}

/// As an editor does it: nobody sees half of the file.
fn replace(path: &Path, contents: &[u8], mode: u32, owner: u32) {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap()).unwrap();
    file.write_all(contents).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
    chown(file.path(), Some(owner), Some(owner)).unwrap();
    file.persist(path).unwrap();
}
