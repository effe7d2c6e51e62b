//! `zg-tokend exec`

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::account::obtain;
use crate::account::obtain::Replacement;
use crate::cli::args::{Args, Exec};
use crate::cli::once::Warnings;
use crate::cli::{one_account, output, rejected, report, token};
use crate::config::{AccountConfig, NoIdToken, Settings};
use crate::message::RAISE_LIMITS;
use crate::runtime::{END, Signals, event_loop};
use crate::secret::Secret;
use crate::timer::async_fd;

/// As for env(1) and timeout(1): distinct from the codes of most commands.
pub(super) const FAILED: u8 = 125;
/// The command was found and cannot be run.
pub(super) const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
pub(super) const NOT_FOUND: u8 = 127;

pub(super) fn execute(args: &Args, flags: &Exec) -> ExitCode {
    ExitCode::from(run(args, flags).unwrap_or_else(|code| code))
}

fn run(args: &Args, flags: &Exec) -> Result<u8, u8> {
    let (settings, account) = one_account(args).map_err(|_| FAILED)?;
    let (token, text) = live(&settings, &account, flags)?;
    let code = attempt(flags, &account, &text)?;
    if !flags.retry_on_exit.contains(&code) || !replaced(&settings, &account, flags, &token) {
        return Ok(code);
    }
    let (_, text) = live(&settings, &account, flags)?;
    attempt(flags, &account, &text)
}

/// A live token, and the text for the command.
fn live(settings: &Settings, account: &Arc<AccountConfig>, flags: &Exec) -> Result<(Secret, Secret), u8> {
    let token = token::live(settings, account, &flags.wanted).map_err(|_| FAILED)?.token;
    let text = match &flags.template {
        None => Ok(token.value.clone()),
        Some(template) => token::text(template, account, &token),
    };
    match text {
        Ok(text) => Ok((token.value, text)),
        Err(error) => {
            output::error(format!("account {}: {error}", account.name), Some(NoIdToken::HINT));
            Err(FAILED)
        }
    }
}

/// Reports the token; true if there is another one now.
fn replaced(settings: &Settings, account: &Arc<AccountConfig>, flags: &Exec, token: &Secret) -> bool {
    let warnings = Rc::new(Warnings);
    match obtain::rejected(settings, account, token.fingerprint(), flags.wanted.wait, warnings, &mut None) {
        Ok(Replacement::AlreadyReplaced | Replacement::Replaced) => true,
        Ok(replacement) => {
            rejected::print(account.name.as_str(), &replacement);
            false
        }
        Err(problem) => {
            report(account, &problem);
            false
        }
    }
}

/// Runs the command to its end. Returns its exit code, or 128 plus the signal number.
fn attempt(flags: &Exec, account: &AccountConfig, token: &Secret) -> Result<u8, u8> {
    let (program, arguments) = flags.command.split_first().ok_or(FAILED)?;
    let mut command = Command::new(program);
    for name in &*account.secret_variables {
        command.env_remove(name);
    }
    // Open until the command has ended.
    let _file = if flags.file {
        let file =
            token_file(token).map_err(|error| failed("cannot pass the token to the command", &error))?;
        let path = format!("/dev/fd/{}", file.as_raw_fd());
        command.args(arguments.iter().map(|argument| with_path(argument, &path)));
        Some(file)
    } else {
        command.args(arguments).env(&flags.env, token.expose());
        None
    };
    let runtime = event_loop().map_err(|error| failed("cannot set up the event loop", &error))?;
    let status = runtime.block_on(async {
        // Ctrl-C and Ctrl-\\ reach the command as well, and it decides; other signals are passed on.
        let mut signals = Signals::new(&END).map_err(|error| failed("cannot listen to signals", &error))?;
        let mut child = command.spawn().map_err(|error| not_run(program, &error))?;
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(std::io::Error::from);
        let pidfd = pidfd.and_then(async_fd);
        let pidfd = pidfd.map_err(|error| failed("cannot wait for the command", &error))?;
        loop {
            let signal = tokio::select! {
                _ = pidfd.readable() => {
                    return child.wait().map_err(|error| failed("cannot wait for the command", &error));
                }
                signal = signals.next() => signal,
            };
            if !matches!(signal, Signal::INT | Signal::QUIT) {
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
    output::error(format!("{what}: {error}"), Some(RAISE_LIMITS));
    FAILED
}

fn not_run(program: &OsStr, error: &std::io::Error) -> u8 {
    let found = error.kind() != ErrorKind::NotFound;
    let hint = match error.kind() {
        ErrorKind::NotFound => "write its full path, or check PATH",
        ErrorKind::PermissionDenied => "make it executable: chmod a+x",
        _ => "run it without zg-tokend first",
    };
    output::error(format!("cannot run {}: {error}", program.display()), Some(hint));
    if found { NOT_EXECUTABLE } else { NOT_FOUND }
}
