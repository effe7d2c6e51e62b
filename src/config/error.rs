//! Why there are no settings.

use std::io;
use std::path::PathBuf;

use crate::config::diagnostic::Diagnostic;
use crate::files::read::private_hint;

/// Shown when there is no config file.
pub const MINIMAL: &str = r#"provider = "google"
client_id = "YOUR-CLIENT-ID"
client_secret = "YOUR-CLIENT-SECRET"
refresh_token = "YOUR-REFRESH-TOKEN"
"#;

/// Why there are no settings. All of them mean exit code 78.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("no config file is given, and no home directory is known")]
    NoHome,
    #[error("there is no config file {}", path.display())]
    Missing { path: PathBuf },
    #[error("cannot read the config file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the config file {} belongs to another user (uid {uid})", path.display())]
    Stranger { path: PathBuf, uid: u32 },
    #[error("the config file {} can be changed by every user of this machine (mode {mode:04o})", path.display())]
    Writable { path: PathBuf, mode: u32 },
    #[error("the config file {} holds a secret and can be read by others (mode {mode:04o})", path.display())]
    Readable { path: PathBuf, mode: u32 },
    #[error(transparent)]
    Text(Box<Diagnostic>),
}

impl ConfigError {
    #[expect(clippy::unnecessary_wraps, reason = "as all hints")]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoHome => "set HOME, or give the config file with --config".into(),
            Self::Missing { .. } => {
                "run `zg-tokend init` to write one, or `zg-tokend demo` to watch the program at work".into()
            }
            Self::Read { path, source } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    format!("run as the owner of {}, or let this user read it", path.display())
                }
                io::ErrorKind::IsADirectory => "write the path of the file, not of its directory".into(),
                io::ErrorKind::InvalidData => "save it as UTF-8 text".into(),
                _ => format!("check that `cat {}` can read it", path.display()),
            },
            Self::Stranger { path, uid } => format!(
                "run as that user (`sudo -u '#{uid}' zg-tokend …`), or change its owner: `chown \"$(id -u)\" {}`",
                path.display()
            ),
            Self::Writable { path, .. } => format!("chmod o-w {}", path.display()),
            Self::Readable { path, .. } => private_hint(path),
            Self::Text(diagnostic) => diagnostic.hint().to_owned(),
        })
    }

    /// The line with the error, without secrets.
    pub fn excerpt(&self) -> Option<String> {
        if let Self::Text(diagnostic) = self { diagnostic.excerpt() } else { None }
    }

    /// An example of a config, in several lines.
    pub fn example(&self) -> Option<String> {
        let missing = matches!(self, Self::Missing { .. });
        missing.then(|| format!("an example, to be saved with mode 0600:\n\n{MINIMAL}"))
    }
}
