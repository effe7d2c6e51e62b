//! Secrets of an account, read on another thread: a command or a file system may take seconds.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::config::{AccountConfig, SecretSource, is_loopback};
use crate::problem::{Class, Problem};
use crate::refresh::record::{STATE_KEY, STATE_KEY_UNREAD};
use crate::secret::Secret;
use crate::secrets;
use crate::secrets::SecretError;
use crate::workers;

/// How long a secret file may take: as long as a secret command.
const FILE_TIME: Duration = Duration::from_secs(10);

/// Reads the secret of this key. Commands run, and files are read, on another thread: either may take seconds.
pub async fn read(
    account: &AccountConfig,
    key: &'static str,
    source: &SecretSource,
) -> Result<Secret, SecretError> {
    if !matches!(source, SecretSource::Command(_)) && source.file().is_none() {
        return secrets::read(key, source, &account.secret_variables);
    }
    on_thread(account, key, source, secrets::read).await
}

/// The same of a text of several lines, as a key in PEM is.
pub async fn read_text(
    account: &AccountConfig,
    key: &'static str,
    source: &SecretSource,
) -> Result<Secret, SecretError> {
    on_thread(account, key, source, secrets::read_text).await
}

async fn on_thread(
    account: &AccountConfig,
    key: &'static str,
    source: &SecretSource,
    read: fn(&'static str, &SecretSource, &[String]) -> Result<Secret, SecretError>,
) -> Result<Secret, SecretError> {
    let (owned, variables) = (source.clone(), Arc::clone(&account.secret_variables));
    let read = move || read(key, &owned, &variables);
    match source.file() {
        Some(path) => {
            let done = workers::run_within(path, file_time(source), read).await;
            done.unwrap_or(Err(SecretError::Hang { key, path: path.to_owned() }))
        }
        // A command has a deadline of its own.
        None => workers::run_program(read).await,
    }
}

/// The value of `proxy` for a request to this URL, if it is set. A request that no proxy is asked for needs
/// none, and is not held up by one that cannot be read.
pub async fn proxy(account: &AccountConfig, url: &Url) -> Result<Option<Secret>, SecretError> {
    match &account.proxy {
        Some(source) if url.scheme() == "https" && !is_loopback(url) => {
            read(account, "proxy", source).await.map(Some)
        }
        _ => Ok(None),
    }
}

/// How long a secret may take that comes from a file. Two commands may have the keys of a sealed one.
fn file_time(source: &SecretSource) -> Duration {
    if matches!(source, SecretSource::Sealed(_)) { 3 * FILE_TIME } else { FILE_TIME }
}

impl From<SecretError> for Problem {
    fn from(error: SecretError) -> Self {
        let kind = match &error {
            SecretError::Sealed { .. } if error.class() == Class::Config => STATE_KEY,
            SecretError::Sealed { .. } => STATE_KEY_UNREAD,
            // A credential exists only in the service.
            SecretError::NoCredentials { .. } => "no_credentials",
            _ => "secret",
        };
        Self::new(&error, error.class(), kind, error.hint())
    }
}
