//! `zg-tokend demo`: a newcomer's first minute, with nothing configured and no network.
//!
//! [`stage`] sets up what a user would: a provider, a config, a client that reads the token.
//! [`show`] runs the real supervisor on it and tells what happens. What is told ([`story`]), when
//! the server goes down ([`outage`]) and what it looks like ([`view`]) is pure; [`screen`] writes
//! it. [`server_only`] is the server alone.

mod outage;
mod screen;
mod server_only;
mod show;
mod stage;
mod story;
mod view;

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::args::Demo;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::config::ConfigError;
use crate::daemon::RunError;
use crate::demo::server;
use crate::message::RAISE_LIMITS;
use crate::problem::chain;

/// Shows a token's life, or only serves tokens.
pub(super) fn demo(flags: &Demo) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(DemoError::Setup).and_then(|runtime| {
        runtime.block_on(async {
            // Before there is anything that a signal could leave behind.
            let ending = Ending::new(flags.for_).map_err(DemoError::Setup)?;
            if flags.server_only {
                server_only::serve(flags.port, ending).await
            } else {
                show::show(flags, ending).await
            }
        })
    });
    ended.unwrap_or_else(|error| {
        output::error(chain(&error), error.hint().as_deref());
        Exit::Failure
    })
}

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// The kernel refused a thread, a signal or the runtime.
    #[error("cannot set up the demo")]
    Setup(#[source] io::Error),
    /// The embedded server does not start.
    #[error("cannot start the embedded server")]
    Server(#[from] server::ServerError),
    /// No temporary directory, or no config in it.
    #[error("cannot write a config into a temporary directory")]
    Directory(#[source] io::Error),
    /// The config was not accepted.
    #[error("cannot use the demo's own config")]
    Config(#[from] ConfigError),
    /// The supervisor does not start.
    #[error("cannot supervise the demo's account")]
    Supervise(#[from] RunError),
    /// The supervisor panicked, which has been printed.
    #[error("the supervisor has crashed")]
    Crash,
}

impl DemoError {
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Server(error) => error.hint(),
            Self::Directory(_) => Some("set TMPDIR to a directory of yours with free space".to_owned()),
            Self::Config(error) => error.hint(),
            Self::Supervise(error) => error.hint(),
            Self::Setup(_) => Some(RAISE_LIMITS.to_owned()),
            Self::Crash => Some("this is a bug: please report it, with what was printed above".to_owned()),
        }
    }
}

/// What ends the demo: its time, or a signal. SIGHUP is a terminal that was closed.
struct Ending {
    after: Option<Duration>,
    signals: [Signal; 3],
}

impl Ending {
    fn new(after: Option<Duration>) -> io::Result<Self> {
        let signals = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ];
        Ok(Self { after, signals })
    }

    async fn comes(mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        let time = async {
            match self.after {
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = time => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
