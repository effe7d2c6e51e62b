//! `zg-tokend exec`

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::account::obtain::LiveToken;
use crate::account::sealing::open_id_token;
use crate::cli::args::{Args, Exec, OnBusy, OnError, TokenFlags};
use crate::cli::exit::Exit;
use crate::cli::settings::{one_account, report};
use crate::cli::{output, rejected, token};
use crate::clock::{Clock, SystemClock};
use crate::config::{AccountConfig, NoIdToken, Settings, TokenFormat};
use crate::message::RAISE_LIMITS;
use crate::problem::RAISE_PROCESSES;
use crate::refresh::record::AccessToken;
use crate::refresh::schedule;
use crate::runtime::{END, Signals, event_loop};
use crate::secret::Secret;
use crate::timer::async_fd;
use crate::workers;

/// As for env(1) and timeout(1): distinct from the codes of most commands.
pub(super) const FAILED: u8 = 125;
/// The command was found and cannot be run.
pub(super) const NOT_EXECUTABLE: u8 = 126;
/// The shortest time between two looks for a new token.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);

/// The command was not found.
pub(super) const NOT_FOUND: u8 = 127;

pub(super) fn execute(args: &Args, flags: &Exec) -> ExitCode {
    ExitCode::from(run(args, flags).unwrap_or_else(|code| code))
}

fn run(args: &Args, flags: &Exec) -> Result<u8, u8> {
    let (settings, account) = one_account(args).map_err(|_| FAILED)?;
    let execution = Execution { flags, settings, account };
    let (token, text) = execution.live()?;
    let value = token.value.clone();
    let code = execution.attempt(token, &text)?;
    if !flags.retry_on_exit.contains(&code) || !execution.replaces(&value) {
        return Ok(code);
    }
    let (token, text) = execution.live()?;
    execution.attempt(token, &text)
}

/// A command that gets the token of an account.
struct Execution<'a> {
    flags: &'a Exec,
    settings: Settings,
    account: Arc<AccountConfig>,
}

impl Execution<'_> {
    /// A live token, and the text for the command.
    fn live(&self) -> Result<(AccessToken, Secret), u8> {
        let Self { flags, settings, account } = self;
        let mut token = token::live(settings, account, &flags.wanted, false).map_err(|_| FAILED)?.token;
        if flags.template.as_ref().is_some_and(TokenFormat::needs_id_token) {
            open_id_token(settings, account, &mut token).map_err(|problem| {
                report(account, &problem);
                FAILED
            })?;
        }
        let text = self.text(&token).map_err(|error| {
            output::error(format!("account {}: {error}", account.name), Some(NoIdToken::HINT));
            FAILED
        })?;
        Ok((token, text))
    }

    fn text(&self, token: &AccessToken) -> Result<Secret, NoIdToken> {
        match &self.flags.template {
            None => Ok(token.value.clone()),
            Some(template) => token::text(template, &self.account, token),
        }
    }

    /// Reports the token; true if there is another one now.
    fn replaces(&self, token: &Secret) -> bool {
        let wait = self.flags.wanted.wait;
        rejected::replace(&self.settings, &self.account, token.fingerprint(), wait) == Ok(Exit::Success)
    }

    /// Runs the command to its end. Returns its exit code, or 128 plus the signal number.
    fn attempt(&self, token: AccessToken, text: &Secret) -> Result<u8, u8> {
        let flags = self.flags;
        let (program, arguments) = flags.command.split_first().ok_or(FAILED)?;
        let mut command = Command::new(program);
        for name in &*self.account.secret_variables {
            command.env_remove(name);
        }
        // Open until the command has ended.
        let file = if flags.file {
            let file =
                token_file(text).map_err(|error| failed("cannot pass the token to the command", &error))?;
            let path = format!("/dev/fd/{}", file.as_raw_fd());
            command.args(arguments.iter().map(|argument| with_path(argument, &path)));
            Some(file)
        } else {
            command.args(arguments).env(&flags.env, text.expose());
            None
        };
        let runtime = event_loop().map_err(|error| failed("cannot set up the event loop", &error))?;
        let status = runtime.block_on(async {
            // Ctrl-C and Ctrl-\\ reach the command as well, and it decides; other signals are passed on.
            let mut signals =
                Signals::new(&END).map_err(|error| failed("cannot listen to signals", &error))?;
            let mut child = command.spawn().map_err(|error| not_run(program, &error))?;
            let pid = Pid::from_child(&child);
            let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(std::io::Error::from);
            let pidfd = pidfd.and_then(async_fd);
            let pidfd = pidfd.map_err(|error| failed("cannot wait for the command", &error))?;
            let mut fresh = pin!(async {
                match &file {
                    Some(file) => self.keep_fresh(file, token).await,
                    None => std::future::pending().await,
                }
            });
            loop {
                let signal = tokio::select! {
                    () = &mut fresh => continue,
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

    /// Puts each new token into the file while the command runs. For ever: a failure is reported once, and
    /// `exec` tries again.
    async fn keep_fresh(&self, file: &File, mut token: AccessToken) {
        let mut has_failed = false;
        loop {
            let now = SystemClock::new().now();
            let early = schedule::skew(token.lifetime(), self.account.skew);
            tokio::time::sleep(token.life_left(now).saturating_sub(early).max(RENEWAL_PAUSE)).await;
            let wanted = TokenFlags {
                min_valid: early,
                on_error: OnError::Fail,
                on_busy: OnBusy::Wait,
                wait: self.flags.wanted.wait,
            };
            let (settings, configured) = (self.settings.clone(), Arc::clone(&self.account));
            let obtained = workers::run(move || token::live(&settings, &configured, &wanted, has_failed));
            match obtained.await {
                Ok(LiveToken { token: new, .. }) => {
                    has_failed = false;
                    if new != token
                        && let Ok(text) = self.text(&new)
                    {
                        replace(file, &text);
                    }
                    token = new;
                }
                Err(_) => has_failed = true,
            }
        }
    }
}

/// In place: the command knows this file alone. A token fits into one page, and tokens of one server are
/// mostly of one length.
fn replace(mut file: &File, text: &Secret) {
    let bytes = text.expose().as_bytes();
    // There is memory for it: the first one was as long.
    let _ =
        file.rewind().and_then(|()| file.write_all(bytes)).and_then(|()| file.set_len(bytes.len() as u64));
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
    output::error_for(what, Some(&error.to_string()), Some(RAISE_LIMITS));
    FAILED
}

fn not_run(program: &OsStr, error: &std::io::Error) -> u8 {
    let found = error.kind() != ErrorKind::NotFound;
    let hint = match error.kind() {
        ErrorKind::NotFound => "write its full path, or check PATH",
        ErrorKind::PermissionDenied => "make it executable: chmod a+x",
        // EAGAIN of clone(2) and fork(2).
        ErrorKind::WouldBlock => RAISE_PROCESSES,
        _ => "run it without zg-tokend first",
    };
    output::error_for(format!("cannot run {}", program.display()), Some(&error.to_string()), Some(hint));
    if found { NOT_EXECUTABLE } else { NOT_FOUND }
}
