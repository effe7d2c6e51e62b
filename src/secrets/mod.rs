//! Secrets, read when they are needed: from a file, an environment variable, a command or a
//! systemd credential.
//!
//! Reading blocks, a command for up to 10 s: call it before taking a lock. No error contains
//! a value, only the key and the place.

pub mod command;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

pub use crate::secrets::command::CommandError;
use zeroize::Zeroizing;

use crate::config::{SecretFlaw, SecretSource};
use crate::files::{Contents, read};
use crate::secret::Secret;

/// The longest secret. Tokens have at most some KiB (a JWT with many claims); this is four
/// times what an access token may have.
const MAX_LEN: usize = 64 << 10;

/// Why a secret could not be read. `key` is its key in the config.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read {key} from file {}", path.display())]
    File {
        /// Its key in the config.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others can read the file, or change it.
    #[error("the {key} file {} is open to others (mode {mode:04o})", path.display())]
    Loose {
        /// Its key in the config.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to somebody who is neither root nor the effective user.
    #[error("the {key} file {} belongs to another user (uid {uid})", path.display())]
    Stranger {
        /// Its key in the config.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// The environment variable does not exist.
    #[error("{key}: the environment variable {name} is not set")]
    Unset {
        /// Its key in the config.
        key: &'static str,
        /// The variable.
        name: String,
    },
    /// The command failed.
    #[error("cannot get {key} from command `{program}`")]
    Command {
        /// Its key in the config.
        key: &'static str,
        /// The program, without its arguments.
        program: String,
        /// How it failed.
        source: CommandError,
    },
    /// Not run as a systemd service with credentials.
    #[error("{key}: there is no systemd credential {name}, since CREDENTIALS_DIRECTORY is not set")]
    NoCredentials {
        /// Its key in the config.
        key: &'static str,
        /// The credential.
        name: String,
    },
    /// The credential cannot be read.
    #[error("cannot read {key} from systemd credential {name}")]
    Credential {
        /// Its key in the config.
        key: &'static str,
        /// The credential.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// What was read is no secret.
    #[error("{key} from {place} {flaw}")]
    Unusable {
        /// Its key in the config.
        key: &'static str,
        /// Where it was read.
        place: String,
        /// What is wrong with it.
        flaw: SecretFlaw,
    },
}

impl SecretError {
    /// Whether there is no such file: of all that cannot be read, this alone does not exist yet.
    pub fn is_missing_file(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File { path, source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Some(format!(
                    "write the secret into {}, mode 0600, or correct the config",
                    path.display()
                )),
                io::ErrorKind::PermissionDenied => {
                    Some(format!("let the user who runs zg-tokend read {}", path.display()))
                }
                io::ErrorKind::IsADirectory => Some("name the file in it".to_owned()),
                _ => Some(format!("see whether `cat {}` can read it", path.display())),
            },
            Self::Loose { path, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::Stranger { path, .. } => {
                Some(format!("give it to the user who runs zg-tokend: chown USER {}", path.display()))
            }
            Self::Unset { name, .. } => Some(format!(
                "set {name} for zg-tokend itself; a service or cron job does not see your shell's"
            )),
            Self::Command { source, .. } => Some(source.hint().to_owned()),
            Self::NoCredentials { name, .. } => Some(format!(
                "only a systemd service has credentials: add LoadCredential={name}:PATH to its unit and restart it"
            )),
            Self::Credential { name, .. } => Some(format!(
                "add LoadCredential={name}:PATH to the unit, then restart it: credentials are loaded at its start"
            )),
            Self::Unusable { flaw: SecretFlaw::Empty, .. } => {
                Some("put the secret there, on one line".to_owned())
            }
            Self::Unusable { .. } => Some("there must be the secret alone, on one line".to_owned()),
        }
    }
}

/// Reads the secret that the config calls `key` (`refresh_token`, `client_secret`). A command does
/// not get the environment variables `secret_variables`.
pub fn read(
    key: &'static str,
    source: &SecretSource,
    secret_variables: &[String],
) -> Result<Secret, SecretError> {
    let effective_uid = rustix::process::geteuid().as_raw();
    read_with(key, source, secret_variables, &|name| std::env::var_os(name), effective_uid)
}

fn read_with(
    key: &'static str,
    source: &SecretSource,
    secret_variables: &[String],
    variable: &dyn Fn(&str) -> Option<OsString>,
    effective_uid: u32,
) -> Result<Secret, SecretError> {
    let bytes = match source {
        SecretSource::Inline(secret) => return Ok(secret.clone()),
        SecretSource::File(path) => from_file(key, path, effective_uid)?,
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
            // No look at owner and mode: the directory is the service manager's.
            read::read(&Path::new(&directory).join(name), MAX_LEN)
                .map_err(|source| SecretError::Credential { key, name: name.clone(), source })?
                .bytes
        }
    };
    SecretSource::secret_from(&bytes).map_err(|flaw| SecretError::Unusable {
        key,
        place: source.to_string(),
        flaw,
    })
}

fn from_file(key: &'static str, path: &Path, effective_uid: u32) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let contents = read::read(path, MAX_LEN).map_err(|source| SecretError::File {
        key,
        path: path.to_owned(),
        source,
    })?;
    check_access(key, path, &contents, effective_uid)?;
    Ok(contents.bytes)
}

/// The group may read a secret file (root's, for a service), nobody else may, and nobody but
/// the owner may write it.
fn check_access(
    key: &'static str,
    path: &Path,
    contents: &Contents,
    effective_uid: u32,
) -> Result<(), SecretError> {
    let path = || path.to_owned();
    if read::is_stranger(contents.uid, effective_uid) {
        Err(SecretError::Stranger { key, path: path(), uid: contents.uid })
    } else if contents.mode & 0o026 != 0 {
        Err(SecretError::Loose { key, path: path(), mode: contents.mode })
    } else {
        Ok(())
    }
}
