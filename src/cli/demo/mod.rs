//! `zg-tokend demo`: shows the program at work, without a config and without network access.

mod outage;
mod server_only;
mod setup;
mod show;

use std::io;
use std::time::Duration;

use crate::cli::args::Demo;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::config::ConfigError;
use crate::daemon::RunError;
use crate::demo::server;
use crate::message::RAISE_LIMITS;
use crate::runtime::{END, Signals, event_loop};

pub(super) fn execute(flags: &Demo) -> Exit {
    let ended = event_loop().map_err(DemoError::Setup).and_then(|runtime| {
        runtime.block_on(async {
            // First, so that no signal leaves files behind.
            let ending = Ending::new(flags.for_).map_err(DemoError::Setup)?;
            if flags.server_only {
                server_only::serve(flags.port, ending).await
            } else {
                show::show(flags, ending).await
            }
        })
    });
    ended.unwrap_or_else(|error| {
        output::failure(&error, error.hint().as_deref());
        Exit::Failure
    })
}

#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
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
    pub(super) fn hint(&self) -> Option<String> {
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

/// The end of the demo: its time, or a signal. SIGHUP: the terminal was closed.
struct Ending {
    after: Option<Duration>,
    signals: Signals,
}

impl Ending {
    fn new(after: Option<Duration>) -> io::Result<Self> {
        Ok(Self { after, signals: Signals::new(&END)? })
    }

    async fn comes(mut self) {
        // Without a time it has no end.
        let after = self.after.unwrap_or(Duration::MAX);
        let _ = tokio::time::timeout(after, self.signals.next()).await;
    }
}
