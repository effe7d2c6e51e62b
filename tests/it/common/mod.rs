//! The harness: a sandbox for the binary, its children, and patience.

pub mod audit;
pub mod chromium;
pub mod documents;
pub mod gateway;
pub mod golden;
pub mod mounts;
pub mod oidc;
pub mod pane;
#[cfg(feature = "fleet")]
pub mod tally;
pub mod tls;
pub mod world;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use zg_tokend::testing::clock::monotonic;

/// How long [`wait_until`] waits before it gives up. Far longer than anything takes on a loaded
/// machine: it only bounds how long a failing test takes.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How long a child may take to end after SIGTERM before it is killed: it finishes its request.
const FAREWELL: Duration = PATIENCE;

/// Polls until the closure gives something; panics, naming what was waited for, when it never does.
#[track_caller]
pub fn wait_until<T>(what: &str, poll: impl FnMut() -> Option<T>) -> T {
    poll_for(PATIENCE, poll).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// The same with a patience of its own; `None` when it was in vain.
pub fn poll_for<T>(patience: Duration, mut poll: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = monotonic() + i64::try_from(patience.as_millis()).unwrap();
    loop {
        if let Some(found) = poll() {
            return Some(found);
        }
        if monotonic() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// True where attacks are made at their full size, by `tests/all/attacks`, and not in the sample
/// that every run can afford.
pub fn at_full_size() -> bool {
    std::env::var_os("ZG_TEST_ALL").is_some()
}

/// Tells a figure; `tests/all/attacks` and `tests/all/faults` collect them.
pub fn figure(what: impl std::fmt::Display) {
    println!("figure: {what}");
}

/// Notes that a test cannot run here, for `tests/run` to report; the test then returns. As root
/// or in CI nothing may be left out, and this panics.
#[track_caller]
pub fn leave_out(what: &str) {
    let optional = std::env::var_os("CI").is_none() && !rustix::process::geteuid().is_root();
    assert!(optional, "{what}: run tests/run, which sets up what the tests need");
    if let Some(list) = std::env::var_os("ZG_TESTS_LEFT_OUT") {
        let mut list = OpenOptions::new().append(true).create(true).open(list).unwrap();
        writeln!(list, "{what}").unwrap();
    }
}

/// A home of its own for the binary: nothing outside it is read or written.
pub struct Sandbox {
    /// Where the binary runs, if not among everybody's mounts.
    mounts: Option<mounts::Mounts>,
    directory: TempDir,
}

/// The result of a finished child.
#[derive(Debug)]
pub struct Output {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    fn of(output: std::process::Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Sandbox {
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// The same in another place than the usual one for temporary files.
    pub fn below(place: &Path) -> Self {
        let directory = tempfile::Builder::new().prefix("zg-tokend-test-").tempdir_in(place).unwrap();
        let sandbox = Self { mounts: None, directory };
        for name in ["home", "config/zg-tokend", "state", "cache", "data", "runtime"] {
            fs::create_dir_all(sandbox.path(name)).unwrap();
        }
        fs::set_permissions(sandbox.path("runtime"), Permissions::from_mode(0o700)).unwrap();
        sandbox
    }

    /// A path below the sandbox.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(relative)
    }

    /// From now on the binary runs among these mounts.
    pub fn enter(&mut self, mounts: mounts::Mounts) {
        self.mounts = Some(mounts);
    }

    /// The mounts it has entered.
    pub fn mounts(&self) -> &mounts::Mounts {
        self.mounts.as_ref().unwrap()
    }

    /// A path below the sandbox, seen as the binary sees it.
    pub fn seen(&self, relative: impl AsRef<Path>) -> PathBuf {
        let path = self.path(relative);
        self.mounts.as_ref().map_or(path.clone(), |mounts| mounts.path(&path))
    }

    /// Where the binary looks for its configuration.
    pub fn config_path(&self) -> PathBuf {
        self.path("config/zg-tokend/config.toml")
    }

    /// Writes the configuration, readable by its owner alone.
    pub fn write_config(&self, text: &str) {
        let path = self.config_path();
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// The built binary with these arguments, its environment empty but for PATH and the
    /// sandbox's directories, its stdin closed.
    pub fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let binary = env!("CARGO_BIN_EXE_zg-tokend");
        let mut command =
            self.mounts.as_ref().map_or_else(|| Command::new(binary), |mounts| mounts.command(binary));
        command.args(args).current_dir(self.path("home")).stdin(Stdio::null());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        for (name, directory) in [
            ("HOME", "home"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_DATA_HOME", "data"),
            ("XDG_RUNTIME_DIR", "runtime"),
        ] {
            command.env(name, self.path(directory));
        }
        command
    }

    /// Runs the binary to its end.
    pub fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Output {
        finish(&mut self.command(args))
    }
}

/// The command, run by another program: `wrapper` is what comes before it.
pub fn under<'a>(wrapper: impl IntoIterator<Item = &'a str>, command: &Command) -> Command {
    let mut words = wrapper.into_iter();
    let mut outer = Command::new(words.next().unwrap());
    outer.args(words).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    outer.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer.current_dir(command.get_current_dir().unwrap());
    outer
}

/// Runs a command to its end.
pub fn finish(command: &mut Command) -> Output {
    Output::of(command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// Runs a command to its end with this on its standard input. It may end before it has read all.
pub fn feed(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let written = child.stdin.take().unwrap().write_all(input.as_bytes());
    assert!(!written.is_err_and(|error| error.kind() != ErrorKind::BrokenPipe), "{command:?}");
    Output::of(child.wait_with_output().unwrap())
}

/// A file that only its owner can read, not even for a moment anybody else. It replaces an older one.
pub fn write_private(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).unwrap();
    file.write_all(content).unwrap();
    fs::rename(new, path).unwrap();
}

/// Writes an executable script. A child does it: were the file open for writing in this process,
/// any child that another test forks at this moment would keep it open, and it could not be run.
pub fn write_script(path: &Path, text: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", "cat >\"$0\" && chmod 700 \"$0\""]).arg(path);
    let output = feed(&mut shell, text);
    assert_eq!(output.code, Some(0), "{output:?}");
}

/// A port at which connections are refused for as long as the socket is kept: it is bound, so
/// that no other test gets the port, and nobody listens.
pub fn closed_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Waits until a figure no longer changes for so long, and gives it.
#[track_caller]
pub fn settled<T: PartialEq>(quiet: Duration, figure: impl Fn() -> T) -> T {
    wait_until("a figure that no longer changes", || {
        let before = figure();
        std::thread::sleep(quiet);
        (figure() == before).then_some(before)
    })
}

/// A child that runs until it is stopped, at the latest when this is dropped.
pub struct Background {
    child: Child,
    log: PathBuf,
}

impl Background {
    /// Starts the command, both its outputs going to the file `log`.
    pub fn start(command: &mut Command, log: impl Into<PathBuf>) -> Self {
        let log = log.into();
        let file = File::create(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self::start_with(command, log)
    }

    /// The same with the outputs that the command has; somebody writes them to the file `log`.
    pub fn start_with(command: &mut Command, log: impl Into<PathBuf>) -> Self {
        let log = log.into();
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log }
    }

    /// The output so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits for a message: only to know when to go on, never instead of an assertion.
    #[track_caller]
    pub fn wait_for(&self, words: &str) {
        wait_until(&format!("{words:?} in the log"), || self.log().contains(words).then_some(()));
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.child.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&self.child), signal).unwrap();
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it ends by itself, and says how.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        wait_until("the end of a child", || self.child.try_wait().unwrap())
    }

    /// Sends SIGTERM, kills it if that does not help, and says how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        poll_for(FAREWELL, || self.child.try_wait().unwrap()).unwrap_or_else(|| {
            self.child.kill().unwrap();
            self.child.wait().unwrap()
        })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An HTTP reply as curl saw it.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// The body as JSON; null if it is none.
    pub body: serde_json::Value,
}

/// Speaks HTTP through curl: an independent client. Panics if there is no reply.
#[track_caller]
pub fn curl<'a>(args: impl IntoIterator<Item = &'a str>) -> Reply {
    // -q: without the user's ~/.curlrc. The limit only bounds how long a failing test takes.
    let mut command = Command::new("curl");
    command.args(["-q", "-sS", "--noproxy", "*", "--max-time", "100", "-w", "\n%{http_code}"]).args(args);
    let output = finish(&mut command);
    assert_eq!(output.code, Some(0), "{command:?}: {}", output.stderr);
    let (body, status) = output.stdout.rsplit_once('\n').unwrap();
    Reply { status: status.parse().unwrap(), body: serde_json::from_str(body).unwrap_or_default() }
}
