//! One hook: its command, its environment, its failures.

use std::io::PipeReader;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::config::settings::SignalConfig;
use crate::hooks::signal::{self, SignalError};
use crate::message::{Level, Message};
use crate::problem::cause;
use crate::process::{self, Bytes, ChildError};
use crate::redact::scrub;

/// Enough to reload a service or to send a mail. A longer job starts a background process.
const DEADLINE: Duration = Duration::from_secs(30);

/// ZeroGravity prefers this variable to the token file, so that a hook would see an old token.
const MASK: &str = "ZEROGRAVITY_TOKEN";

/// A failure of a hook, which fails nothing else.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It could not be started, or did not end by itself.
    #[error("hook {hook} failed")]
    Child {
        /// Its key in the config.
        hook: &'static str,
        source: ChildError,
    },
    #[error("the program was not told of the new token")]
    Signal(#[from] SignalError),
    #[error("hook {hook} failed: {status}{}{stderr}", if stderr.is_empty() { "" } else { ": " })]
    Failed {
        /// Its key in the config.
        hook: &'static str,
        /// Its exit status or signal.
        status: ExitStatus,
        /// The first line of its standard error, made printable.
        stderr: String,
    },
}

impl HookError {
    pub fn message(&self) -> Message {
        Message::new(Level::Warn, "hook_failed", self.to_string())
            .cause(cause(self).as_deref())
            .hint(self.hint())
    }

    pub fn hint(&self) -> String {
        match self {
            Self::Signal(error) => error.hint(),
            Self::Child { source: ChildError::Late(_), .. } => {
                "a hook has no terminal and no input; run longer jobs in the background: sh -c '… >/dev/null 2>&1 &'".into()
            }
            Self::Child { source, .. } if source.hint().is_some() => {
                source.hint().unwrap_or_default().to_owned()
            }
            Self::Child { hook, .. } | Self::Failed { hook, .. } => {
                format!(
                    "run the command of {hook} by hand, as the user who runs zg-tokend and with </dev/null"
                )
            }
        }
    }
}

/// A hook, ready to be run.
#[derive(Debug)]
pub struct Hook {
    /// Its key in the config.
    pub key: &'static str,
    pub act: Act,
}

/// The act of a hook.
#[derive(Debug)]
pub enum Act {
    Command {
        /// The program and its arguments; there is no shell.
        argv: Vec<String>,
        /// The environment variables of the hook.
        environment: Vec<(&'static str, String)>,
        /// Variables that hold a secret, and are not for it.
        secrets: Arc<[String]>,
    },
    Signal(SignalConfig),
}

impl Hook {
    /// Runs it for at most 30 s, or until the other end of the pipe `stop` is closed. Blocks.
    pub fn run(&self, stop: Option<&PipeReader>) -> Result<(), HookError> {
        self.run_for(DEADLINE, stop)
    }

    fn run_for(&self, deadline: Duration, stop: Option<&PipeReader>) -> Result<(), HookError> {
        let failed = |source| HookError::Child { hook: self.key, source };
        let (argv, environment, secrets) = match &self.act {
            Act::Signal(config) => return Ok(signal::send(config)?),
            Act::Command { argv, environment, secrets } => (argv, environment, secrets),
        };
        let mut command = process::command(argv, secrets).map_err(failed)?;
        command.env_remove(MASK).envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::null());
        let output = process::run(&mut command, deadline, 0, stop).map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        Err(HookError::Failed { hook: self.key, status: output.status, stderr: first_line(&output.stderr) })
    }
}

/// The first line that is not blank, shortened, without control characters and without anything
/// that looks like a token: a hook may call `curl -v`.
fn first_line(stderr: &Bytes) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("");
    scrub(line, &[])
}

#[cfg(test)]
mod tests {
    use crate::hooks::command::*;

    #[test]
    fn a_hook_that_does_not_end_is_killed_and_says_what_to_do() {
        let argv = ["sleep", "1000"].map(str::to_owned).to_vec();
        let act = Act::Command { argv, environment: Vec::new(), secrets: Arc::new([]) };
        let hook = Hook { key: "on_refresh", act };
        let short = Duration::from_millis(50);
        let error = hook.run_for(short, None).unwrap_err();
        assert!(
            matches!(error, HookError::Child { source: ChildError::Late(after), .. } if after == short),
            "{error:?}"
        );
        assert!(error.hint().contains("run longer jobs in the background"), "{error:?}");
    }
}
