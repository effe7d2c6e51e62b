//! `zg-tokend run`

use super::args::Args;
use super::{has_account, locate, log, settings, voice};
use crate::config::{self, Environment, Settings};
use crate::durable::FailureClass;
use crate::exit::Exit;
use crate::shell::Context;
use crate::shell::run::{RunError, Surroundings, run as supervise};
use crate::shell::trouble::chain;
use crate::store::lock::LockError;

/// Supervises until stopped.
pub(super) fn run(args: &Args) -> Exit {
    let Some(settings) = settings(args) else { return Exit::Config };
    log::set_up();
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let context = Context::new(Box::new(log::Log::default()));
    match supervise(settings, args.account.as_deref(), context, &Terminal { args }) {
        Ok(()) => Exit::Success,
        Err(error) => {
            let (exit, hint) = match &error {
                RunError::Supervise { source, .. } => (exit_of(source), source.hint()),
                RunError::Setup(_) => (Exit::Failure, None),
            };
            voice::failure(chain(&error), hint.as_deref());
            exit
        }
    }
}

fn exit_of(error: &LockError) -> Exit {
    match (error, error.class()) {
        (LockError::Supervised { .. } | LockError::Busy { .. }, _) => Exit::Busy,
        (_, FailureClass::Io) => Exit::Io,
        (_, FailureClass::Misplaced) => Exit::Config,
    }
}

struct Terminal<'a> {
    args: &'a Args,
}

impl Surroundings for Terminal<'_> {
    fn reload(&self) -> Option<Settings> {
        let loaded = locate(self.args).and_then(|path| config::load(&path, &Environment::of_process()));
        match loaded {
            Ok(settings) => has_account(&settings, self.args).then_some(settings),
            Err(error) => {
                let hint = error.hint();
                tracing::error!(
                    event = "reload_failed",
                    hint,
                    "the new config is wrong, so the old one stays in force: {}",
                    // The excerpt with its caret needs a terminal: `check` shows it there.
                    chain(&error).lines().next().unwrap_or_default()
                );
                None
            }
        }
    }

    fn reloaded(&self) {
        tracing::info!(event = "reloaded", "the new config is in force");
    }

    fn ready(&self, accounts: usize) {
        let accounts = if accounts == 1 { "1 account".into() } else { format!("{accounts} accounts") };
        tracing::info!(event = "ready", "supervising {accounts}");
    }

    fn stopping(&self) {
        tracing::info!(event = "stopping", "stopping: what is under way is finished first");
    }

    fn unsupervised(&self, account: &str, error: &LockError) {
        tracing::error!(
            event = "unsupervised",
            account,
            hint = error.hint(),
            "cannot supervise it: {}",
            chain(error)
        );
    }
}
