//! Secrets, read when they are needed: from a file, an environment variable, a command, a systemd
//! credential or a sealed file.
//!
//! Reading blocks, a command for up to 10 s: call it before taking a lock. Errors contain the key
//! and the source, never the value.

pub mod command;
pub mod error;
pub mod sealed;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::secrets::error::MAX_LEN;
pub use crate::secrets::error::{SealedError, SecretError};
use zeroize::Zeroizing;

use crate::config::{SecretFlaw, SecretSource};
use crate::files::{Contents, read};
use crate::secret::Secret;

/// Reads the secret of this config key. A command does not get the environment variables
/// `secret_variables`.
pub fn read(
    key: &'static str,
    source: &SecretSource,
    secret_variables: &[String],
) -> Result<Secret, SecretError> {
    let effective_uid = rustix::process::geteuid().as_raw();
    read_with(key, source, secret_variables, &|name| std::env::var_os(name), effective_uid)
}

/// The same of a text of several lines: a key in PEM, a file of JSON.
pub fn read_text(
    key: &'static str,
    source: &SecretSource,
    secret_variables: &[String],
) -> Result<Secret, SecretError> {
    let effective_uid = rustix::process::geteuid().as_raw();
    let bytes = bytes(key, source, secret_variables, &|name| std::env::var_os(name), effective_uid)?;
    let unusable = |flaw| SecretError::Unusable { key, place: source.to_string(), flaw };
    let text = std::str::from_utf8(&bytes).map_err(|_| unusable(SecretFlaw::NotText))?;
    if text.trim().is_empty() {
        return Err(unusable(SecretFlaw::Empty));
    }
    Ok(Secret::new(text))
}

fn read_with(
    key: &'static str,
    source: &SecretSource,
    secret_variables: &[String],
    variable: &dyn Fn(&str) -> Option<OsString>,
    effective_uid: u32,
) -> Result<Secret, SecretError> {
    if let SecretSource::Inline(secret) = source {
        return Ok(secret.clone());
    }
    let bytes = bytes(key, source, secret_variables, variable, effective_uid)?;
    SecretSource::secret_from(&bytes).map_err(|flaw| SecretError::Unusable {
        key,
        place: source.to_string(),
        flaw,
    })
}

/// The bytes of the source, unchecked.
fn bytes(
    key: &'static str,
    source: &SecretSource,
    secret_variables: &[String],
    variable: &dyn Fn(&str) -> Option<OsString>,
    effective_uid: u32,
) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    Ok(match source {
        SecretSource::Inline(secret) => Zeroizing::new(secret.expose().as_bytes().to_vec()),
        SecretSource::File(path) => {
            let contents = read::read(path, MAX_LEN).map_err(|source| SecretError::File {
                key,
                path: path.clone(),
                source,
            })?;
            check_access(key, path, &contents, effective_uid)?;
            contents.bytes
        }
        SecretSource::Env(name) => {
            let value = variable(name).ok_or_else(|| SecretError::Unset { key, name: name.clone() })?;
            Zeroizing::new(value.as_bytes().to_vec())
        }
        SecretSource::Command(argv) => {
            command::output(argv, secret_variables, command::DEADLINE).map_err(|source| {
                SecretError::Command { key, program: argv.first().cloned().unwrap_or_default(), source }
            })?
        }
        SecretSource::Credential(name) => {
            let directory = variable("CREDENTIALS_DIRECTORY")
                .ok_or_else(|| SecretError::NoCredentials { key, name: name.clone() })?;
            // Owner and mode are not checked: the directory is the service manager's.
            read::read(&Path::new(&directory).join(name), MAX_LEN)
                .map_err(|source| SecretError::Credential { key, name: name.clone(), source })?
                .bytes
        }
        SecretSource::Sealed(file) => {
            let read_key = |name: &'static str, source: &SecretSource| {
                read_with(name, source, secret_variables, variable, effective_uid)
            };
            sealed::open(file, read_key).map_err(|source| SecretError::Sealed {
                key,
                path: file.path.clone(),
                source,
            })?
        }
    })
}

/// The group may read a secret file (root's, for a service), nobody else may, and nobody but
/// the owner may write it.
fn check_access(
    key: &'static str,
    path: &Path,
    contents: &Contents,
    effective_uid: u32,
) -> Result<(), SecretError> {
    let (path, uid, mode) = (path.to_owned(), contents.uid, contents.mode);
    if read::is_stranger(uid, effective_uid) {
        return Err(SecretError::Stranger { key, path, uid });
    }
    // Nobody can change a file on a read-only mount.
    let loose = mode & 0o026;
    if loose != 0 && !(loose & 0o022 == 0 && read::is_secret_mount(&path)) {
        return Err(SecretError::Loose { key, path, mode });
    }
    Ok(())
}
