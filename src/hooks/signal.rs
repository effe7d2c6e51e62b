//! Tells a program by a signal that there is a new token, where no command can: in a container without a
//! shell, or without the client of a service manager.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::config::settings::{SignalConfig, SignalName};
use crate::files::FileError;
use crate::files::read::Contents;

/// The most that is read of a pid file: a number, and perhaps a line of more, as PostgreSQL writes.
const PID_FILE_MAX: usize = 1024;

/// Why the signal could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    #[error("the pid file {} does not exist", path.display())]
    Missing { path: PathBuf },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the pid file {} does not begin with a process id", path.display())]
    NotAPid { path: PathBuf },
    /// Somebody else could choose the process.
    #[error("the pid file {} can be changed by others (mode {mode:04o}, owner {owner})", path.display())]
    Stranger { path: PathBuf, mode: u32, owner: u32 },
    #[error("cannot send the signal to process {pid} of {}", path.display())]
    Send { path: PathBuf, pid: i32, source: io::Error },
}

impl SignalError {
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { .. } => "start the program, or correct pid_file; it reads the token when it starts".into(),
            Self::File(error) => error.hint().unwrap_or_else(|| "correct pid_file".into()),
            Self::NotAPid { .. } => "let pid_file name the file that the program writes its process id to".into(),
            Self::Stranger { path, .. } => {
                format!("let the program's own user write it, and nobody else: chmod go-w {}", path.display())
            }
            Self::Send { source, .. } if source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                "the program has ended: start it, or correct pid_file".into()
            }
            Self::Send { .. } => {
                "run zg-tokend as the program's user or as root; in another container, share the process namespace".into()
            }
        }
    }
}

/// Sends it to the process that the pid file names. Blocks.
pub fn send(config: &SignalConfig) -> Result<(), SignalError> {
    let path = || config.pid_file.clone();
    let file = Contents::of_path(&config.pid_file, PID_FILE_MAX)?;
    let file = file.ok_or_else(|| SignalError::Missing { path: path() })?;
    let first = file.bytes.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let number = std::str::from_utf8(first).ok().and_then(|text| text.parse::<i32>().ok());
    // A negative number would be a group, and 0 our own.
    let pid = number.filter(|number| *number > 0).and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| SignalError::NotAPid { path: path() })?;
    let raw = pid.as_raw_nonzero().get();
    let owners = [Some(0), Some(geteuid().as_raw()), owner_of(raw)];
    if file.mode & 0o022 != 0 || !owners.contains(&Some(file.uid)) {
        return Err(SignalError::Stranger { path: path(), mode: file.mode, owner: file.uid });
    }
    kill_process(pid, number_of(config.signal)).map_err(|error| SignalError::Send {
        path: path(),
        pid: raw,
        source: error.into(),
    })
}

/// The user of a process.
fn owner_of(pid: i32) -> Option<u32> {
    std::fs::metadata(format!("/proc/{pid}")).ok().map(|process| process.uid())
}

fn number_of(name: SignalName) -> Signal {
    match name {
        SignalName::Hup => Signal::HUP,
        SignalName::Usr1 => Signal::USR1,
        SignalName::Usr2 => Signal::USR2,
        SignalName::Winch => Signal::WINCH,
    }
}
