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

use crate::config::{SecretFlaw, SecretSource};
use crate::files::{Contents, read};
use crate::process::Bytes;
use crate::secret::Secret;

/// Reads the secret of this config key. A command does not get the environment variables
/// `secret_variables`.
pub fn read(
    key: &'static str,
    source: &SecretSource,
    secret_variables: &[String],
) -> Result<Secret, SecretError> {
    SecretReader::of_process(key, secret_variables).read(source)
}

/// The same of a text of several lines: a key in PEM, a file of JSON.
pub fn read_text(
    key: &'static str,
    source: &SecretSource,
    secret_variables: &[String],
) -> Result<Secret, SecretError> {
    let bytes = SecretReader::of_process(key, secret_variables).bytes(source)?;
    let unusable = |flaw| SecretError::Unusable { key, place: source.to_string(), flaw };
    let text = std::str::from_utf8(&bytes).map_err(|_| unusable(SecretFlaw::NotText))?;
    if text.trim().is_empty() {
        return Err(unusable(SecretFlaw::Empty));
    }
    Ok(Secret::new(text))
}

/// Reads the secret of one config key.
#[derive(Clone, Copy)]
struct SecretReader<'a> {
    key: &'static str,
    secret_variables: &'a [String],
    /// Reads an environment variable.
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    effective_uid: u32,
}

impl<'a> SecretReader<'a> {
    fn of_process(key: &'static str, secret_variables: &'a [String]) -> Self {
        let effective_uid = rustix::process::geteuid().as_raw();
        Self { key, secret_variables, variable: &|name| std::env::var_os(name), effective_uid }
    }

    fn read(self, source: &SecretSource) -> Result<Secret, SecretError> {
        if let SecretSource::Inline(secret) = source {
            return Ok(secret.clone());
        }
        let unusable = |flaw| SecretError::Unusable { key: self.key, place: source.to_string(), flaw };
        SecretSource::secret_from(&self.bytes(source)?).map_err(unusable)
    }

    /// The bytes of the source, unchecked.
    fn bytes(self, source: &SecretSource) -> Result<Bytes, SecretError> {
        let key = self.key;
        match source {
            SecretSource::Inline(secret) => Ok(Bytes::new(secret.expose().as_bytes().to_vec())),
            SecretSource::File(path) => {
                let failed = |source| SecretError::File { key, path: path.clone(), source };
                let contents = read::read(path, MAX_LEN).map_err(failed)?;
                self.check_access(path, &contents)?;
                Ok(contents.bytes)
            }
            SecretSource::Env(name) => {
                let value =
                    (self.variable)(name).ok_or_else(|| SecretError::Unset { key, name: name.clone() })?;
                Ok(Bytes::new(value.as_bytes().to_vec()))
            }
            SecretSource::Command(argv) => {
                let program = || argv.first().cloned().unwrap_or_default();
                command::output(argv, self.secret_variables, command::DEADLINE)
                    .map_err(|source| SecretError::Command { key, program: program(), source })
            }
            SecretSource::Credential(name) => {
                let directory = (self.variable)("CREDENTIALS_DIRECTORY")
                    .ok_or_else(|| SecretError::NoCredentials { key, name: name.clone() })?;
                // Owner and mode are not checked: the directory is the service manager's.
                read::read(&Path::new(&directory).join(name), MAX_LEN)
                    .map(|contents| contents.bytes)
                    .map_err(|source| SecretError::Credential { key, name: name.clone(), source })
            }
            SecretSource::Sealed(file) => {
                let read_key =
                    |key: &'static str, source: &SecretSource| SecretReader { key, ..self }.read(source);
                sealed::open(file, read_key).map_err(|source| SecretError::Sealed {
                    key,
                    path: file.path.clone(),
                    source,
                })
            }
        }
    }

    /// The group may read a secret file (root's, for a service), nobody else may, and nobody but
    /// the owner may write it.
    fn check_access(self, path: &Path, contents: &Contents) -> Result<(), SecretError> {
        let (key, path, uid, mode) = (self.key, path.to_owned(), contents.uid, contents.mode);
        if read::is_stranger(uid, self.effective_uid) {
            return Err(SecretError::Stranger { key, path, uid });
        }
        // Nobody can change a file on a read-only mount.
        let loose = mode & 0o026;
        if loose != 0 && !(loose & 0o022 == 0 && read::is_secret_mount(&path)) {
            return Err(SecretError::Loose { key, path, mode });
        }
        Ok(())
    }
}
