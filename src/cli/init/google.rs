//! A file of the user's own that holds a login with Google: JSON of the type `authorized_user`.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::files::read;
use crate::secret::Secret;

/// Such a file has some hundred bytes.
const MAX_LEN: usize = 64 * 1024;

const OTHER_WAY: &str = "log in with an OAuth client of your own, and answer `zg-tokend init` without --from";

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum GoogleError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is no JSON, or not of this kind.
    #[error("{} is no JSON file with a \"type\"", .0.display())]
    NotJson(PathBuf),
    /// The key of a service account.
    #[error("{} is the key of a service account, which has no refresh token: it signs its requests itself", .0.display())]
    ServiceAccount(PathBuf),
    /// Another type.
    #[error("{} is no authorized_user file", .0.display())]
    OtherType(PathBuf),
    /// A member is not there.
    #[error("{} lacks {what}", path.display())]
    Lacks {
        /// The file.
        path: PathBuf,
        /// The member.
        what: &'static str,
    },
}

impl GoogleError {
    /// The way out.
    pub(in crate::cli) fn hint(&self) -> String {
        match self {
            Self::Read { .. } => "name a file of your own that you can read".into(),
            Self::ServiceAccount(_) => {
                "use a program that speaks the JWT grant (RFC 7523) for it; zg-tokend refreshes logins".into()
            }
            Self::NotJson(_) | Self::OtherType(_) | Self::Lacks { .. } => OTHER_WAY.into(),
        }
    }
}

/// What is taken from it; quota_project_id and the like are not.
pub(super) struct AuthorizedUser {
    pub(super) client_id: String,
    pub(super) client_secret: Option<Secret>,
    pub(super) refresh_token: Secret,
}

/// Reads the file. No error quotes it.
pub(super) fn read(path: &Path) -> Result<AuthorizedUser, GoogleError> {
    #[derive(Deserialize)]
    struct ClientFile {
        r#type: String,
        client_id: Option<String>,
        client_secret: Option<String>,
        refresh_token: Option<String>,
    }
    let owned = || path.to_owned();
    let contents = read::read(path, MAX_LEN).map_err(|source| GoogleError::Read { path: owned(), source })?;
    let document: ClientFile =
        serde_json::from_slice(&contents.bytes).map_err(|_| GoogleError::NotJson(owned()))?;
    match document.r#type.as_str() {
        "authorized_user" => {}
        "service_account" => return Err(GoogleError::ServiceAccount(owned())),
        _ => return Err(GoogleError::OtherType(owned())),
    }
    let lacks = |what| GoogleError::Lacks { path: owned(), what };
    Ok(AuthorizedUser {
        client_id: document.client_id.ok_or_else(|| lacks("client_id"))?,
        client_secret: document.client_secret.map(Secret::new),
        refresh_token: document.refresh_token.map(Secret::new).ok_or_else(|| lacks("refresh_token"))?,
    })
}
