//! Why `init` stops.

use std::path::PathBuf;

use crate::cli::config_file::ReplaceError;
use crate::cli::exit::Exit;
use crate::cli::init::google::GoogleError;
use crate::config::ConfigError;
use crate::config::addition::AdditionError;
use crate::files::{FileError, PlaceError};

#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum InitError {
    #[error("standard input is not a terminal, and these are missing: {0}")]
    Missing(String),
    #[error("{0}")]
    Answer(String),
    #[error("the answers are not a valid config: {message}")]
    Config { message: String, hint: Option<String> },
    #[error(transparent)]
    Google(#[from] GoogleError),
    #[error("{} already exists", .0.display())]
    Exists(PathBuf),
    /// A question after the config was written.
    #[error("{0}")]
    Unanswered(String),
    #[error("the config has an account {0} already")]
    Known(String),
    /// The config that exists cannot be used.
    #[error(transparent)]
    Existing(ConfigError),
    #[error("cannot add the account")]
    Edit(#[from] AdditionError),
    #[error("nothing was written: the change was not confirmed")]
    NotConfirmed,
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl InitError {
    pub(in crate::cli) fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(_) => Some("pass them as flags: see `zg-tokend init --help`".into()),
            Self::Answer(_) => Some("start again; nothing was written".into()),
            Self::Config { hint, .. } => hint.clone().or_else(|| Some("correct that answer".into())),
            Self::Google(error) => Some(error.hint()),
            Self::Exists(_) => Some(
                "pass --account NAME to add an account to it, --overwrite to replace it, or --config PATH for \
                 another file"
                    .into(),
            ),
            Self::Unanswered(_) => Some("the config is written: `zg-tokend check` checks it".into()),
            Self::Known(_) => {
                Some("choose another name with --account; to change that account, edit the config".into())
            }
            Self::Existing(error) => error.hint(),
            Self::Edit(error) => error.hint(),
            Self::NotConfirmed => Some("pass --yes to make the change without a question".into()),
            Self::Replace(error) => error.hint(),
            Self::Place(error) => error.hint(),
            Self::File(error) => error.hint(),
        }
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Place(error) | Self::Replace(ReplaceError::Place(error)) => Exit::from(error.class()),
            Self::File(error) | Self::Replace(ReplaceError::File(error)) => Exit::from(error.class()),
            Self::Existing(_) => Exit::Config,
            _ => Exit::Usage,
        }
    }
}
