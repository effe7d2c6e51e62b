//! The JSON files of Google: a login of type `authorized_user`, or something without a login.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::files::read;
use crate::secret::Secret;

/// Such a file has some hundred bytes.
const MAX_LEN: usize = 64 * 1024;

const OTHER_WAY: &str = "log in with an OAuth client of your own, and run `zg-tokend init` without --from";

#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum GoogleError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a JSON file with a \"type\"", .0.display())]
    NotJson(PathBuf),
    #[error("{} is no file of type authorized_user, service_account or external_account", .0.display())]
    OtherType(PathBuf),
    #[error("{} has no {what}", path.display())]
    Lacks { path: PathBuf, what: &'static str },
}

impl GoogleError {
    pub(in crate::cli) fn hint(&self) -> String {
        match self {
            Self::Read { .. } => "name a file that you can read".into(),
            Self::NotJson(_) | Self::OtherType(_) | Self::Lacks { .. } => OTHER_WAY.into(),
        }
    }
}

pub(super) enum GoogleFile {
    User(AuthorizedUser),
    /// For the key `google_credentials`, which reads it for each request.
    Machine,
}

pub(super) struct AuthorizedUser {
    pub(super) client_id: String,
    pub(super) client_secret: Option<Secret>,
    pub(super) refresh_token: Secret,
}

/// Reads the file. No error quotes it.
pub(super) fn read(path: &Path) -> Result<GoogleFile, GoogleError> {
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
        "service_account" | "external_account" => return Ok(GoogleFile::Machine),
        _ => return Err(GoogleError::OtherType(owned())),
    }
    let lacks = |what| GoogleError::Lacks { path: owned(), what };
    Ok(GoogleFile::User(AuthorizedUser {
        client_id: document.client_id.ok_or_else(|| lacks("client_id"))?,
        client_secret: document.client_secret.map(Secret::new),
        refresh_token: document.refresh_token.map(Secret::new).ok_or_else(|| lacks("refresh_token"))?,
    }))
}
