//! Secrets of an account, read on another thread: a command or a file system may take seconds.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{AccountConfig, SecretSource};
use crate::problem::{Class, Problem};
use crate::secret::Secret;
use crate::secrets;
use crate::secrets::SecretError;
use crate::workers;

/// How long a secret file may take: as long as a secret command.
const FILE_TIME: Duration = Duration::from_secs(10);

/// Runs commands and reads files on another thread: either may take seconds.
pub async fn read(
    account: &AccountConfig,
    key: &'static str,
    source: &SecretSource,
) -> Result<Secret, SecretError> {
    let variables = &account.secret_variables;
    if !matches!(source, SecretSource::Command(_) | SecretSource::File(_)) {
        return secrets::read(key, source, variables);
    }
    let (source, variables) = (source.clone(), Arc::clone(variables));
    if let SecretSource::File(path) = &source {
        let path = path.clone();
        let read = move || secrets::read(key, &source, &variables);
        let done = workers::run_within(&path, FILE_TIME, read).await;
        return done.unwrap_or(Err(SecretError::Hang { key, path }));
    }
    // It has a deadline of its own.
    workers::run_program(move || secrets::read(key, &source, &variables)).await
}

/// The same of a text of several lines, as a key in PEM is.
pub async fn read_text(
    account: &AccountConfig,
    key: &'static str,
    source: &SecretSource,
) -> Result<Secret, SecretError> {
    let (owned, variables) = (source.clone(), Arc::clone(&account.secret_variables));
    let read = move || secrets::read_text(key, &owned, &variables);
    match source {
        SecretSource::File(path) => {
            let done = workers::run_within(path, FILE_TIME, read).await;
            done.unwrap_or(Err(SecretError::Hang { key, path: path.clone() }))
        }
        _ => workers::run_program(read).await,
    }
}

impl From<SecretError> for Problem {
    fn from(error: SecretError) -> Self {
        // A credential exists only in the service.
        let kind =
            if matches!(error, SecretError::NoCredentials { .. }) { "no_credentials" } else { "secret" };
        Self::new(&error, Class::Unavailable, kind, error.hint())
    }
}
