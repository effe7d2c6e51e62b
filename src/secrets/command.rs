//! The standard output of a command, with a deadline and without threads.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use zeroize::Zeroizing;

use super::MAX_LEN;
use crate::clock::{millis, monotonic};
use crate::oauth::scrub;
use crate::secret::Secret;

/// A password manager that has to unlock hardware takes a few seconds; one that waits for a
/// person waits for ever.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// What is kept of standard error: its first line is reported, the rest is read and dropped.
const MAX_STDERR: usize = 4 << 10;

/// What a pipe brought, wiped when dropped.
type Bytes = Zeroizing<Vec<u8>>;

/// How a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("it cannot be started")]
    Start(#[source] io::Error),
    /// Its output could not be read.
    #[error("its output cannot be read")]
    Read(#[source] io::Error),
    /// It had not ended by the deadline, and was killed.
    #[error("it did not end within {} s and was killed", .0.as_secs())]
    Late(Duration),
    /// Its output is too long for a secret.
    #[error("its output is longer than {} KiB", MAX_LEN / 1024)]
    TooLong,
    /// It reported a failure.
    #[error("{status}{}{stderr}", if stderr.is_empty() { "" } else { ": " })]
    Failed {
        /// Its exit status or signal.
        status: ExitStatus,
        /// The first line of its standard error, made printable, without secrets.
        stderr: String,
    },
}

impl CommandError {
    pub(super) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Start(error) if error.kind() == io::ErrorKind::NotFound => {
                "write the program's full path: a service or cron job has a short PATH"
            }
            Self::Start(_) | Self::Read(_) => return None,
            Self::Late(_) => {
                "it runs without a terminal and must not ask for anything: unlock the store first"
            }
            Self::TooLong => "it must print the secret and nothing else",
            Self::Failed { .. } => "run it by hand, as the user who runs zg-tokend and with </dev/null",
        };
        Some(hint.to_owned())
    }
}

/// Runs `argv` without a shell, in a process group of its own and with nothing on standard
/// input, and returns what it printed. After `deadline` the whole group is killed.
pub(super) fn output(argv: &[String], deadline: Duration) -> Result<Bytes, CommandError> {
    let mut child = spawn(argv)?;
    let watched = watch(&mut child, deadline);
    if watched.is_err() {
        // It is not reaped yet, so that the number is still its own.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    let status = child.wait().map_err(CommandError::Read)?;
    let (stdout, stderr) = watched?;
    if !status.success() {
        return Err(CommandError::Failed { status, stderr: first_line(&stderr, &stdout) });
    }
    Ok(stdout)
}

pub(super) fn spawn(argv: &[String]) -> Result<Child, CommandError> {
    let (program, arguments) =
        argv.split_first().ok_or_else(|| CommandError::Start(io::ErrorKind::InvalidInput.into()))?;
    Command::new(program)
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(CommandError::Start)
}

/// Reads both pipes until the child has ended. A process that it left in the background may
/// keep the pipes open; what it prints is not waited for.
pub(super) fn watch(child: &mut Child, deadline: Duration) -> Result<(Bytes, Bytes), CommandError> {
    let end = monotonic() + millis(deadline);
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())
        .map_err(|error| CommandError::Read(error.into()))?;
    let mut stdout = Pipe::new(child.stdout.take(), MAX_LEN);
    let mut stderr = Pipe::new(child.stderr.take(), MAX_STDERR);
    let mut ended = false;
    loop {
        let left = if ended { 0 } else { (end - monotonic()).max(0) };
        let [out, err, exit] = wait(&stdout, &stderr, &pidfd, left).map_err(CommandError::Read)?;
        if out {
            stdout.read().map_err(CommandError::Read)?;
        }
        if err {
            stderr.read().map_err(CommandError::Read)?;
        }
        if stdout.overflowed {
            return Err(CommandError::TooLong);
        }
        if ended && !out && !err {
            return Ok((stdout.bytes, stderr.bytes));
        }
        if end <= monotonic() {
            return Err(CommandError::Late(deadline));
        }
        // One more round after its end: it may have written between the two looks.
        ended |= exit;
    }
}

/// Waits until a pipe can be read or the child has ended, for at most `left` milliseconds.
fn wait<T: Read + AsFd, U: Read + AsFd>(
    stdout: &Pipe<T>,
    stderr: &Pipe<U>,
    pidfd: &impl AsFd,
    left: i64,
) -> io::Result<[bool; 3]> {
    let sources =
        [stdout.open.as_ref().map(AsFd::as_fd), stderr.open.as_ref().map(AsFd::as_fd), Some(pidfd.as_fd())];
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

impl<T: Read> Pipe<T> {
    fn new(open: Option<T>, limit: usize) -> Self {
        Self { open, bytes: Zeroizing::new(Vec::with_capacity(limit)), limit, overflowed: false }
    }

    /// Reads once, which does not block if the pipe is ready.
    fn read(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.open else { return Ok(()) };
        let mut chunk = Zeroizing::new([0; 4096]);
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

/// The first line that is not blank, cut to fit a message, without control characters, without
/// what the command printed on stdout, and without what looks like a token.
fn first_line(stderr: &[u8], stdout: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("");
    let printed = Secret::new(String::from_utf8_lossy(stdout).trim());
    scrub(line, &[&printed])
}
