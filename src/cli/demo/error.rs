//! Why the demo stops early.

use std::io;

use crate::config::ConfigError;
use crate::daemon::RunError;
use crate::demo::server;
use crate::message::RAISE_LIMITS;

#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum DemoError {
    #[error("cannot set up the demo")]
    Setup(#[source] io::Error),
    #[error("cannot start the embedded server")]
    Server(#[from] server::ServerError),
    #[error("cannot write a config into a temporary directory")]
    Directory(#[source] io::Error),
    #[error("cannot use the config of the demo")]
    Config(#[from] ConfigError),
    #[error("cannot supervise the account of the demo")]
    Supervise(#[from] RunError),
    /// The panic message was printed already.
    #[error("the supervisor crashed")]
    Crash,
}

impl DemoError {
    pub(in crate::cli) fn hint(&self) -> Option<String> {
        match self {
            Self::Server(error) => Some(error.hint()),
            Self::Directory(_) => Some("set TMPDIR to a directory of yours with free space".to_owned()),
            Self::Config(error) => error.hint(),
            Self::Supervise(error) => error.hint(),
            Self::Setup(_) => Some(RAISE_LIMITS.to_owned()),
            Self::Crash => Some("this is a bug: please report it with the lines above".to_owned()),
        }
    }
}
