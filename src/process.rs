//! Runs a command with a deadline, and returns its status and output.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use zeroize::Zeroizing;

use crate::clock::{millis, monotonic};
use crate::problem::RAISE_PROCESSES;

/// How much of standard error is kept: its first line is reported.
const MAX_STDERR: usize = 4 << 10;

const CHUNK: usize = 4 << 10;

/// The most that a pipe holds: 16 pages of up to 64 KiB (pipe(7)). When a command has ended, its own
/// output is within that.
const PIPE_MAX: usize = 1 << 20;

/// For this process alone: a child could send messages to the service manager in its name.
const NOT_INHERITED: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// How long a killed process may take to end. One that takes longer runs as another user, or hangs in
/// the kernel.
const KILL_TIME: Duration = Duration::from_secs(1);

/// Wiped when dropped.
pub type Bytes = Zeroizing<Vec<u8>>;

/// Why a command could not be started, or was killed.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    #[error("it cannot be started")]
    Start(#[source] io::Error),
    #[error("its output cannot be read")]
    Read(#[source] io::Error),
    #[error("it timed out after {} s and was killed", .0.as_secs())]
    Late(Duration),
    /// It runs on: as another user, or inside the kernel.
    #[error("it timed out after {} s and cannot be killed (process {pid})", after.as_secs())]
    Unkillable { after: Duration, pid: i32 },
    #[error("it was killed, because zg-tokend is stopping")]
    Stopped,
    #[error("its output is longer than {} KiB", .0 / 1024)]
    TooLong(usize),
}

impl ChildError {
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Start(error) if error.kind() == io::ErrorKind::NotFound => {
                Some("write the program's full path: a service or cron job has a short PATH")
            }
            Self::Start(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Some("make it executable for the user who runs zg-tokend: chmod a+x")
            }
            // EAGAIN of clone(2) and fork(2).
            Self::Start(error) if error.kind() == io::ErrorKind::WouldBlock => Some(RAISE_PROCESSES),
            Self::Unkillable { .. } => {
                Some("end it as root: sudo kill -9 PROCESS; if that does not help, it hangs in the kernel")
            }
            _ => None,
        }
    }
}

#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    /// Its standard output, whole.
    pub stdout: Bytes,
    /// The beginning of its standard error.
    pub stderr: Bytes,
}

/// `argv` as a command: run without a shell, in a process group of its own, with nothing on
/// standard input, and without the environment variables `secret`.
pub fn command(argv: &[String], secret: &[String]) -> Result<Command, ChildError> {
    let (program, arguments) =
        argv.split_first().ok_or_else(|| ChildError::Start(io::ErrorKind::InvalidInput.into()))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for name in NOT_INHERITED.into_iter().chain(secret.iter().map(String::as_str)) {
        command.env_remove(name);
    }
    Ok(command)
}

/// The PATH of glibc and musl when it is not set.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Why a program cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("there is no program {0} in PATH")]
    NotInPath(String),
    #[error("there is no program {}", .0.display())]
    Missing(PathBuf),
    #[error("cannot execute {}", path.display())]
    Refused { path: PathBuf, source: io::Error },
}

impl ProgramError {
    pub fn hint(&self) -> String {
        match self {
            Self::NotInPath(_) => {
                "install it, or write its full path: a service or cron job has a short PATH".into()
            }
            Self::Missing(_) => "install it, or correct the path".into(),
            Self::Refused { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                format!("chmod +x {}", path.display())
            }
            Self::Refused { .. } => "write the full path of a program".into(),
        }
    }
}

/// The file that a [`command`] of this program would run: execvp(3), without running it.
pub fn find(program: &str) -> Result<PathBuf, ProgramError> {
    if program.contains('/') {
        let path = PathBuf::from(program);
        return match executable(&path) {
            Ok(()) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ProgramError::Missing(path)),
            Err(source) => Err(ProgramError::Refused { path, source }),
        };
    }
    let directories = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let mut refused = None;
    for directory in std::env::split_paths(&directories) {
        let path = directory.join(program);
        match executable(&path) {
            Ok(()) => return Ok(path),
            // Another directory may have a better one.
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                refused = Some(ProgramError::Refused { path, source });
            }
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| ProgramError::NotInPath(program.to_owned())))
}

/// Whether the effective user may execute this file.
fn executable(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // Before Linux 5.8 only the real user can be asked about, which proves nothing.
        Ok(()) | Err(rustix::io::Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Runs a [`command`] to its end; after `deadline`, or when it has printed more than `max_stdout`
/// bytes, or when the other end of the pipe `stop` is closed, its whole process group is killed.
pub fn run(
    command: &mut Command,
    deadline: Duration,
    max_stdout: usize,
    stop: Option<&PipeReader>,
) -> Result<Output, ChildError> {
    let mut child = command.spawn().map_err(ChildError::Start)?;
    reap_abandoned();
    let watched = watch(&mut child, deadline, max_stdout, stop);
    if watched.is_err() {
        // It is not reaped yet, so the process id is still its own.
        let pid = Pid::from_child(&child);
        let _ = kill_process_group(pid, Signal::KILL);
        if !ends_soon(&mut child) {
            abandoned().push(child);
            return Err(ChildError::Unkillable { after: deadline, pid: pid.as_raw_nonzero().get() });
        }
    }
    let status = child.wait().map_err(ChildError::Read)?;
    let (stdout, stderr) = watched?;
    Ok(Output { status, stdout, stderr })
}

/// Children that could not be killed: a deadline is a deadline, so nobody waits for them.
fn abandoned() -> MutexGuard<'static, Vec<Child>> {
    static ABANDONED: Mutex<Vec<Child>> = Mutex::new(Vec::new());
    ABANDONED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reaps those of them that have ended since, or they would stay as zombies.
fn reap_abandoned() {
    abandoned().retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

/// Whether a child that was killed has ended within [`KILL_TIME`].
fn ends_soon(child: &mut Child) -> bool {
    let end = monotonic() + millis(KILL_TIME);
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).ok();
    loop {
        let left = end - monotonic();
        match child.try_wait() {
            Ok(None) if left > 0 => {}
            // The kernel knows no such child any more.
            ended => return !matches!(ended, Ok(None)),
        }
        // An error is a call that a signal interrupted.
        let _ = wait([pidfd.as_ref().map(AsFd::as_fd), None, None, None], left);
    }
}

/// Reads both pipes until the child has ended. Processes that it left in the background may keep the
/// pipes open and write to them: nobody waits for that.
pub(crate) fn watch(
    child: &mut Child,
    deadline: Duration,
    max_stdout: usize,
    stop: Option<&PipeReader>,
) -> Result<(Bytes, Bytes), ChildError> {
    let end = monotonic() + millis(deadline);
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())
        .map_err(|error| ChildError::Read(error.into()))?;
    let mut stdout = Pipe::new(child.stdout.take(), max_stdout);
    let mut stderr = Pipe::new(child.stderr.take(), MAX_STDERR);
    let mut polls_left = None;
    loop {
        let timeout = if polls_left.is_some() { 0 } else { (end - monotonic()).max(0) };
        let sources = [stdout.as_fd(), stderr.as_fd(), Some(pidfd.as_fd()), stop.map(AsFd::as_fd)];
        let [out, err, exit, stopped] = wait(sources, timeout).map_err(ChildError::Read)?;
        if out {
            stdout.read().map_err(ChildError::Read)?;
        }
        if err {
            stderr.read().map_err(ChildError::Read)?;
        }
        if stdout.overflowed {
            return Err(ChildError::TooLong(max_stdout));
        }
        polls_left = match polls_left {
            Some(left) if left == 0 || !(out || err) => return Ok((stdout.bytes, stderr.bytes)),
            Some(left) => Some(left - 1),
            // It may have written between the two polls.
            None if exit => Some(PIPE_MAX / CHUNK),
            None if stopped => return Err(ChildError::Stopped),
            None if end <= monotonic() => return Err(ChildError::Late(deadline)),
            None => None,
        };
    }
}

/// Waits until one of these can be read or has ended, for at most `left` milliseconds.
fn wait(sources: [Option<BorrowedFd<'_>>; 4], left: i64) -> io::Result<[bool; 4]> {
    let mut fds: Vec<_> = sources.iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: left / 1000, tv_nsec: left % 1000 * 1_000_000 };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
    Ok(sources.map(|source| source.is_some() && ready.next().unwrap_or(false)))
}

/// One output of the child, and its first `limit` bytes.
struct Pipe<T> {
    /// `None` after its end.
    open: Option<T>,
    /// Never grows: that would leave copies behind, unwiped.
    bytes: Bytes,
    limit: usize,
    overflowed: bool,
}

impl<T: Read + AsFd> Pipe<T> {
    fn new(open: Option<T>, limit: usize) -> Self {
        Self { open, bytes: Zeroizing::new(Vec::with_capacity(limit)), limit, overflowed: false }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.open.as_ref().map(AsFd::as_fd)
    }

    /// Reads once, which does not block if the pipe is ready.
    fn read(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.open else { return Ok(()) };
        let mut chunk = Zeroizing::new([0; CHUNK]);
        let count = match pipe.read(&mut chunk[..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        };
        if count == 0 {
            self.open = None;
        }
        let kept = count.min(self.limit - self.bytes.len());
        self.overflowed |= kept < count;
        self.bytes.extend_from_slice(&chunk[..kept]);
        Ok(())
    }
}
