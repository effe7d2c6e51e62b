//! `zg-tokend exec`

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};
use std::rc::Rc;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process};

use crate::account::obtain::rejected as replace;
use crate::cli::args::{Args, Exec};
use crate::cli::once::Warnings;
use crate::cli::{rejected, report, settings, the_account, token, voice};
use crate::config::{AccountConfig, Settings};
use crate::message::RAISE_LIMITS;
use crate::runtime::{END, Signals, event_loop};
use crate::secret::Secret;

/// As env(1) and timeout(1) do it: our own failures are apart from those of most commands.
pub(super) const FAILED: u8 = 125;
/// The command was found and cannot be run.
pub(super) const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
pub(super) const NOT_FOUND: u8 = 127;

/// Runs the command, and once more if it says that the token was refused.
pub(super) fn exec(args: &Args, flags: &Exec) -> ExitCode {
    ExitCode::from(run(args, flags).unwrap_or_else(|code| code))
}

fn run(args: &Args, flags: &Exec) -> Result<u8, u8> {
    let settings = settings(args).ok_or(FAILED)?;
    let account = the_account(&settings, args).map_err(|_| FAILED)?;
    let token = token::live(&settings, account, &flags.wanted).map_err(|_| FAILED)?.value;
    let code = attempt(flags, account, &token)?;
    if !flags.retry_on_exit.contains(&code) || !replaced(&settings, account, flags, &token) {
        return Ok(code);
    }
    let token = token::live(&settings, account, &flags.wanted).map_err(|_| FAILED)?.value;
    attempt(flags, account, &token)
}

/// Reports the token; true if there is a better one now. If not, the command's own code stands.
fn replaced(settings: &Settings, account: &AccountConfig, flags: &Exec, token: &Secret) -> bool {
    let warnings = Rc::new(Warnings);
    match replace(settings, account, token.fingerprint(), flags.wanted.wait, warnings, &mut None) {
        Ok(rejected::Done::AlreadyReplaced | rejected::Done::Replaced) => true,
        Ok(done) => {
            rejected::say(account.name.as_str(), &done);
            false
        }
        Err(problem) => {
            report(account, &problem);
            false
        }
    }
}

/// Runs the command to its end and gives its exit code, 128 and the signal's number if one ended it.
fn attempt(flags: &Exec, account: &AccountConfig, token: &Secret) -> Result<u8, u8> {
    let (program, arguments) = flags.command.split_first().ok_or(FAILED)?;
    let mut command = Command::new(program);
    for name in &*account.secret_variables {
        command.env_remove(name);
    }
    // Open until the command has ended.
    let _file = if flags.file {
        let file = token_file(token).map_err(|error| failed("cannot hand the token over", &error))?;
        let path = format!("/dev/fd/{}", file.as_raw_fd());
        command.args(arguments.iter().map(|argument| with_path(argument, &path)));
        Some(file)
    } else {
        command.args(arguments).env(&flags.env, token.expose());
        None
    };
    let runtime = event_loop().map_err(|error| failed("cannot set up the event loop", &error))?;
    let status = runtime.block_on(async {
        // Ctrl-C goes to the command as well, and it decides; what is sent to us alone is passed on.
        let mut signals = Signals::new(&END).map_err(|error| failed("cannot listen to signals", &error))?;
        let mut child = command.spawn().map_err(|error| not_run(program, &error))?;
        let pid = Pid::from_child(&child);
        let mut ended = tokio::task::spawn_blocking(move || child.wait());
        loop {
            let signal = tokio::select! {
                ended = &mut ended => {
                    // A panic aborts the process.
                    let ended = ended.map_err(|_| FAILED)?;
                    return ended.map_err(|error| failed("cannot wait for the command", &error));
                }
                signal = signals.next() => signal,
            };
            if signal != Signal::INT {
                // It may have ended meanwhile.
                let _ = kill_process(pid, signal);
            }
        }
    })?;
    Ok(code(status))
}

/// The token in a file without a name, which the command inherits.
fn token_file(token: &Secret) -> std::io::Result<File> {
    // Without MFD_CLOEXEC: it is to be inherited.
    let mut file = File::from(memfd_create("access_token", MemfdFlags::empty())?);
    file.write_all(token.expose().as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// The argument with `{}` replaced.
fn with_path(argument: &OsStr, path: &str) -> OsString {
    let bytes = argument.as_bytes();
    let mut replaced = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"{}") {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(path.as_bytes());
        rest = &rest[at + 2..];
    }
    replaced.extend_from_slice(rest);
    OsString::from_vec(replaced)
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

fn failed(what: &str, error: &std::io::Error) -> u8 {
    voice::failure(format!("{what}: {error}"), Some(RAISE_LIMITS));
    FAILED
}

fn not_run(program: &OsStr, error: &std::io::Error) -> u8 {
    let found = error.kind() != ErrorKind::NotFound;
    let hint = match error.kind() {
        ErrorKind::NotFound => "write its full path, or check PATH",
        ErrorKind::PermissionDenied => "make it executable: chmod a+x",
        _ => "run it without zg-tokend first",
    };
    voice::failure(format!("cannot run {}: {error}", program.display()), Some(hint));
    if found { NOT_EXECUTABLE } else { NOT_FOUND }
}
