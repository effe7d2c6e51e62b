//! `zg-tokend run`

use std::path::Path;

use super::args::{Args, Run};
use super::log::Entry;
use super::{Unusable, load, log, settings, voice};
use tracing::Level;

use crate::config::Settings;
use crate::durable::FailureClass;
use crate::exit::Exit;
use crate::shell::Context;
use crate::shell::control::{ControlError, Place};
use crate::shell::run::{RunError, Surroundings, run as supervise};
use crate::shell::trouble::chain;
use crate::store::lock::LockError;

/// Supervises until stopped.
pub(super) fn run(args: &Args, flags: &Run) -> Exit {
    let Some(settings) = settings(args) else { return Exit::Config };
    log::set_up(flags.log_format);
    warn(&settings);
    let context = Context::new(Box::new(log::Log::default()));
    match supervise(settings, args.common.account.as_deref(), context, &Terminal { args }) {
        Ok(()) => Exit::Success,
        Err(error) => {
            voice::failure(chain(&error), error.hint().as_deref());
            match &error {
                RunError::Supervise { source, .. } => exit_of(source),
                RunError::Setup(_) => Exit::Failure,
            }
        }
    }
}

fn warn(settings: &Settings) {
    for warning in &settings.warnings {
        let (text, hint) = (warning.to_string(), warning.hint(&settings.path));
        log::write(&Entry { hint: Some(&hint), ..Entry::new(Level::WARN, "config", &text) });
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
        match load(self.args) {
            Ok(settings) => {
                warn(&settings);
                Some(settings)
            }
            // The line with its caret needs a terminal: `check` shows it there.
            Err(Unusable { problem, hint, .. }) => {
                let text = format!("the new config is wrong, so the old one stays in force: {problem}");
                let entry = Entry::new(Level::ERROR, "reload_failed", &text);
                log::write(&Entry { hint: hint.as_deref(), ..entry });
                None
            }
        }
    }

    fn reloaded(&self) {
        log::write(&Entry::new(Level::INFO, "reloaded", "the new config is in force"));
    }

    fn ready(&self, accounts: usize) {
        let accounts = if accounts == 1 { "1 account".into() } else { format!("{accounts} accounts") };
        log::write(&Entry::new(Level::INFO, "ready", &format!("supervising {accounts}")));
    }

    fn stopping(&self) {
        let text = "stopping: what is under way is finished first";
        log::write(&Entry::new(Level::INFO, "stopping", text));
    }

    fn control(&self) -> Option<Place> {
        let place = Place::of_process();
        if place.is_none() {
            let text = "there is no control socket: neither $RUNTIME_DIRECTORY nor $XDG_RUNTIME_DIR is set";
            log::write(&Entry::new(Level::DEBUG, "no_control", text));
        }
        place
    }

    fn controlled(&self, opened: Result<&Path, &ControlError>) {
        match opened {
            Ok(path) => {
                let text = format!("the control socket is {}", path.display());
                log::write(&Entry::new(Level::DEBUG, "control", &text));
            }
            Err(error) => {
                let (text, hint) = (format!("there is no control socket: {}", chain(error)), error.hint());
                let entry = Entry::new(Level::WARN, "no_control", &text);
                log::write(&Entry { hint: Some(&hint), ..entry });
            }
        }
    }

    fn unsupervised(&self, account: &str, error: &LockError) {
        let text = format!("cannot supervise it: {}", chain(error));
        let hint = error.hint();
        log::write(&Entry {
            account: Some(account),
            hint: hint.as_deref(),
            ..Entry::new(Level::ERROR, "unsupervised", &text)
        });
    }
}
