//! A secret on the standard output of a command.

use std::time::Duration;

use crate::process;
use crate::process::Bytes;
use crate::redact::scrub;
use crate::secret::Secret;
use crate::secrets::error::{CommandError, MAX_LEN};

/// A password manager that has to unlock hardware takes a few seconds; one that waits for a
/// person waits for ever.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

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
