//! Why a secret could not be read.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use crate::cipher::NotAKey;
use crate::config::SecretFlaw;
use crate::files::read;
use crate::problem::Class;
use crate::process::ChildError;

/// The longest secret. Tokens have at most some KiB (a JWT with many claims); this is four
/// times what an access token may have.
pub(super) const MAX_LEN: usize = 64 << 10;

const BY_HAND: &str = "run it in a shell, as the user who runs zg-tokend, with </dev/null";

/// Why a secret could not be read. `key` is its key in the config.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read {key} from file {}", path.display())]
    File { key: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot read {key} from file {}: the file system does not answer", path.display())]
    Hang { key: &'static str, path: PathBuf },
    #[error("the {key} file {} can be read or changed by other users (mode {mode:04o})", path.display())]
    Loose { key: &'static str, path: PathBuf, mode: u32 },
    #[error("the {key} file {} belongs to another user (uid {uid})", path.display())]
    Stranger { key: &'static str, path: PathBuf, uid: u32 },
    #[error("{key}: the environment variable {name} is not set")]
    Unset { key: &'static str, name: String },
    #[error("cannot get {key} from command `{program}`")]
    Command { key: &'static str, program: String, source: CommandError },
    /// Not run as a systemd service with credentials.
    #[error("{key}: no systemd credential {name}: CREDENTIALS_DIRECTORY is not set")]
    NoCredentials { key: &'static str, name: String },
    #[error("cannot read {key} from systemd credential {name}")]
    Credential { key: &'static str, name: String, source: io::Error },
    #[error("the {key} file {} {source}", path.display())]
    Sealed { key: &'static str, path: PathBuf, source: SealedError },
    #[error("{key} from {place} {flaw}")]
    Unusable { key: &'static str, place: String, flaw: SecretFlaw },
}

impl SecretError {
    /// Whether the file does not exist yet.
    pub fn is_missing_file(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Its meaning for the exit code.
    pub fn class(&self) -> Class {
        if let Self::Sealed { source, .. } = self { source.class() } else { Class::Unavailable }
    }

    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File { path, source, .. } => match source.kind() {
                io::ErrorKind::NotFound => {
                    format!("write the secret into {}, mode 0600, or correct the config", path.display())
                }
                io::ErrorKind::PermissionDenied => {
                    format!("let the user who runs zg-tokend read {}", path.display())
                }
                io::ErrorKind::IsADirectory => "write the path of the file, not of its directory".into(),
                _ => format!("check that `cat {}` can read it", path.display()),
            },
            Self::Loose { path, .. } => read::private_hint(path),
            Self::Hang { .. } => "check the file system: mount, df, dmesg".into(),
            Self::Stranger { path, .. } => {
                format!("change its owner to the user who runs zg-tokend: chown USER {}", path.display())
            }
            Self::Unset { name, .. } => format!(
                "set {name} in the environment of zg-tokend: a service or cron job does not have the variables of your shell"
            ),
            Self::Command { source, .. } => source.hint().into(),
            Self::NoCredentials { name, .. } => format!(
                "only a systemd service has credentials: add LoadCredential={name}:PATH to its unit and restart it"
            ),
            Self::Credential { name, .. } => format!(
                "add LoadCredential={name}:PATH to the unit and restart it: credentials are loaded at the start"
            ),
            Self::Sealed { source, .. } => return source.hint(),
            Self::Unusable { flaw: SecretFlaw::Empty, .. } => "write the secret there, on one line".into(),
            Self::Unusable { .. } => "it must be the secret alone, on one line".into(),
        })
    }
}

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

/// Why a sealed file does not open.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    #[error("cannot be read")]
    Read(#[source] io::Error),
    #[error("is not a file that `zg-tokend seal --secrets` has written")]
    NotSealed,
    #[error("was sealed for {purpose}")]
    OtherPurpose { purpose: String },
    #[error("is sealed, and the config has no state_key")]
    NoKey,
    #[error("is sealed with another key")]
    WrongKey,
    #[error("is sealed, and its key cannot be read")]
    KeyUnread(#[source] Box<SecretError>),
    #[error("cannot be sealed: the kernel gives no random bytes")]
    Random,
    #[error("is sealed, and {name} {source}")]
    NotAKey { name: &'static str, source: NotAKey },
}

impl SealedError {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Read(_) | Self::KeyUnread(_) => Class::Unavailable,
            _ => Class::Config,
        }
    }

    pub(super) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::KeyUnread(error) => return error.hint(),
            Self::Read(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "let the user who runs zg-tokend read it".into()
            }
            Self::Read(_) | Self::NotSealed => {
                "restore it from a backup, or write the secret into the config again, and run `zg-tokend seal --secrets`"
                    .into()
            }
            Self::OtherPurpose { .. } => {
                "name the file where it belongs; if the account or the key was renamed, write the secret into the config again, and run `zg-tokend seal --secrets`"
                    .into()
            }
            Self::NoKey => "set state_key in the config to the key that it was sealed with".into(),
            Self::WrongKey => {
                "set state_key to the key that it was sealed with, or state_key_previous beside a new one; if that key is lost, write the secret into the config again, and run `zg-tokend seal --secrets`"
                    .into()
            }
            Self::Random => "allow getrandom(2) in the sandbox".into(),
            Self::NotAKey { .. } => "make one: `zg-tokend seal --help` shows how".into(),
        })
    }
}
