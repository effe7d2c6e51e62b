//! `zg-tokend run`

use super::args::Args;
use super::{locate, log, settings, unknown_account, voice};
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
    warn(&settings);
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

fn warn(settings: &Settings) {
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
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
        let (problem, hint) = match loaded {
            Ok(settings) => match unknown_account(&settings, self.args) {
                None => {
                    warn(&settings);
                    return Some(settings);
                }
                Some((problem, hint)) => (problem, Some(hint)),
            },
            // The excerpt with its caret needs a terminal: `check` shows it there.
            Err(error) => (chain(&error).lines().next().unwrap_or_default().to_owned(), error.hint()),
        };
        let event = "reload_failed";
        let text = format!("the new config is wrong, so the old one stays in force: {problem}");
        tracing::error!(event, "{}", log::line(None, &text, hint.as_deref()));
        None
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
        let text = format!("cannot supervise it: {}", chain(error));
        let line = log::line(Some(account), &text, error.hint().as_deref());
        tracing::error!(event = "unsupervised", account, "{line}");
    }
}
