//! A secret on the standard output of a command.

use std::process::ExitStatus;
use std::time::Duration;

use crate::process;
use crate::process::{Bytes, ChildError};
use crate::redact::scrub;
use crate::secret::Secret;
use crate::secrets::MAX_LEN;

/// A password manager that has to unlock hardware takes a few seconds; one that waits for a
/// person waits for ever.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

const BY_HAND: &str = "run it in a shell, as the user who runs zg-tokend, with </dev/null";

/// How a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started, or was killed.
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error("{status}{}{stderr}", if stderr.is_empty() { "" } else { ": " })]
    Failed {
        status: ExitStatus,
        /// The first line of its standard error, made printable, without secrets.
        stderr: String,
    },
}

impl CommandError {
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Child(ChildError::Late(_)) => {
                "unlock the password store first: the command has no terminal, and cannot ask for anything"
            }
            Self::Child(ChildError::TooLong(_)) => "it must print the secret and nothing else",
            Self::Child(error) => error.hint().unwrap_or(BY_HAND),
            Self::Failed { .. } => BY_HAND,
        }
    }
}

/// Runs `argv`, without a shell and without the environment variables `secret`, and returns what
/// it printed. After `deadline` it is killed.
pub(super) fn output(argv: &[String], secret: &[String], deadline: Duration) -> Result<Bytes, CommandError> {
    let output = process::run(&mut process::command(argv, secret)?, deadline, MAX_LEN, None)?;
    if !output.status.success() {
        let stderr = first_line(&output.stderr, &output.stdout);
        return Err(CommandError::Failed { status: output.status, stderr });
    }
    Ok(output.stdout)
}

/// The first line that is not blank, cut to fit a message, without control characters, without
/// what the command printed on stdout, and without what looks like a token.
fn first_line(stderr: &[u8], stdout: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("");
    let printed = Secret::new(String::from_utf8_lossy(stdout).trim());
    scrub(line, &[&printed])
}
