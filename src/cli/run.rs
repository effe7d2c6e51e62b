//! `zg-tokend run`

use std::rc::Rc;

use crate::cli::args::{Args, Run};
use crate::cli::settings::{ConfigFailure, load, settings};
use crate::cli::{log, output, reaper};

use crate::account::context::Context;
use crate::check::linger;
use crate::cli::exit::Exit;
use crate::config::Settings;
use crate::daemon::control::SocketPlace;
use crate::daemon::{self, RunError, RunOptions, standby};
use crate::message::{Level, Message};
use crate::store::lock::LockError;

pub(super) fn execute(args: &Args, flags: &Run) -> Exit {
    if let Some(exit) = reaper::as_first_process() {
        return exit;
    }
    let read = || settings(args);
    let Some(mut settings) = read() else { return Exit::Config };
    log::set_up(flags.log_format);
    warn(&settings);
    if let Some((text, hint)) = linger::warning() {
        log::write(None, &Message::new(Level::Warn, "no_linger", text).hint(hint));
    }
    let control = SocketPlace::of_process();
    if control.is_none() {
        let text = "there is no control socket: neither $RUNTIME_DIRECTORY nor $XDG_RUNTIME_DIR is set";
        log::write(None, &Message::new(Level::Debug, "no_control", text));
    }
    let context = || Context::new(Rc::new(log::Log::default()));
    loop {
        let options = RunOptions {
            only: args.common.account.as_deref(),
            reload: &|| reload(args),
            control: control.clone(),
            listen: flags.listen,
            stop: Box::pin(std::future::pending()),
        };
        let spare = flags.wait.then(|| settings.clone());
        match (daemon::run(settings, context(), options), spare) {
            (Ok(()), _) => return Exit::Success,
            (Err(RunError::Supervise { account, source: LockError::Supervised { .. } }), Some(spare)) => {
                match standby::wait_for(spare, &account, context(), flags.listen) {
                    Ok(true) => {}
                    Ok(false) => return Exit::Success,
                    Err(error) => return failed(&error),
                }
                // It may have changed meanwhile.
                let Some(new) = read() else { return Exit::Config };
                settings = new;
            }
            (Err(error), _) => return failed(&error),
        }
    }
}

fn failed(error: &RunError) -> Exit {
    output::failure(error, error.hint().as_deref());
    match error {
        RunError::Supervise { source, .. } => Exit::from(source.class()),
        RunError::Hang { .. } => Exit::Io,
        RunError::Setup(_) | RunError::Listen { .. } => Exit::Failure,
    }
}

fn warn(settings: &Settings) {
    for warning in &settings.warnings {
        let hint = warning.hint(&settings.path);
        log::write(None, &Message::new(Level::Warn, "config", warning.to_string()).hint(hint));
    }
}

fn reload(args: &Args) -> Result<Settings, Message> {
    match load(args) {
        Ok(settings) => {
            warn(&settings);
            Ok(settings)
        }
        // The line with its caret needs a terminal; `check` shows it.
        Err(ConfigFailure { problem, cause, hint, .. }) => {
            let text = "the new config is wrong, so the old one stays in force";
            let cause = cause.map_or(problem.clone(), |cause| format!("{problem}: {cause}"));
            let message = Message::new(Level::Error, "reload_failed", text).cause(Some(&cause));
            Err(Message { hint, ..message })
        }
    }
}
