//! A pass for a reader, in a session of its own. A reader may be killed with its whole process group
//! while it waits: a mail client and git have time-outs. An exchange that died with it could cost the
//! login, because the server may have replaced the refresh token already. So a copy of this program
//! makes the exchange and stores it, and this process waits for the copy. A pass in which nothing is due
//! needs none.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use rustix::process::setsid;

use crate::cli::args::TokenFlags;
use crate::cli::exit::Exit;
use crate::config::{AccountConfig, Settings};
use crate::secret::Fingerprint;

/// Leaves the session and the process group of the reader. For the copy.
pub(super) fn leave() {
    // It fails for the leader of a group, which is nobody's child to be killed with.
    let _ = setsid();
}

/// Makes a pass for the token that the flags want; its exit code. `quiet` for one whose failure was
/// reported before. `None` if the copy cannot be started: then the pass is made here.
pub(super) fn refresh(
    settings: &Settings,
    account: &Arc<AccountConfig>,
    flags: &TokenFlags,
    quiet: bool,
) -> Option<Exit> {
    let mut command = copy(settings, account, "token")?;
    command.args(["--min-valid", &millis(flags.min_valid), "--wait", &millis(flags.wait)]);
    command.args(["--on-error", &name(&flags.on_error), "--on-busy", &name(&flags.on_busy)]);
    if quiet {
        command.stderr(Stdio::null());
    }
    finish(command.stdout(Stdio::null()))
}

/// Makes a pass for a refused token. With `hooks` it also runs them, and prints the result.
pub(super) fn replace(
    settings: &Settings,
    account: &Arc<AccountConfig>,
    refused: Fingerprint,
    wait: Duration,
    hooks: bool,
) -> Option<Exit> {
    let mut command = copy(settings, account, "rejected")?;
    command.args(["--wait", &millis(wait), "--sha256", &refused.to_string()]);
    if !hooks {
        command.arg("--no-hooks").stdout(Stdio::null());
    }
    finish(&mut command)
}

fn copy(settings: &Settings, account: &AccountConfig, name: &str) -> Option<Command> {
    let mut command = Command::new(std::env::current_exe().ok()?);
    let config: &OsStr = settings.path.as_ref();
    command.arg("--config").arg(config).args(["--account", account.name.as_str(), name, "--own-session"]);
    command.stdin(Stdio::null());
    Some(command)
}

fn finish(command: &mut Command) -> Option<Exit> {
    let status = command.status().ok()?;
    // Killed by a signal: nothing is known of the token.
    Some(status.code().and_then(Exit::of_code).unwrap_or(Exit::Failure))
}

fn millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
