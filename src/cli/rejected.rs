//! `zg-tokend rejected`

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::account::obtain::{self, Replacement, StoredToken};
use crate::cli::args::{Args, Rejected};
use crate::cli::exit::Exit;
use crate::cli::once::{Warnings, run_hooks};
use crate::cli::settings::{one_account, report};
use crate::cli::{ask, output, session, set};
use crate::config::{AccountConfig, Settings};
use crate::hooks::due;
use crate::message::duration;
use crate::push;
use crate::secret::Fingerprint;

pub(super) fn execute(args: &Args, flags: &Rejected) -> Exit {
    let (settings, account) = match one_account(args) {
        Ok(chosen) => chosen,
        Err(exit) => return exit,
    };
    let refused = match flags.sha256 {
        Some(fingerprint) => fingerprint,
        None => match set::read("refused access token") {
            Ok(token) => token.fingerprint(),
            Err(problem) => {
                let hint = "pass the refused token on stdin, or its SHA-256 with --sha256";
                output::error(problem, Some(hint));
                return Exit::Usage;
            }
        },
    };
    if flags.own_session {
        session::leave();
    } else {
        match obtain::compare(&settings, &account, refused) {
            Ok(StoredToken::Other) => {
                return print(account.name.as_str(), &Replacement::AlreadyReplaced);
            }
            Ok(_) => {}
            Err(problem) => return report(&account, &problem),
        }
        if let Some(replacement) = ask::replace(&settings, &account, refused, flags.wait) {
            return print(account.name.as_str(), &replacement);
        }
        if let Some(exit) = session::replace(&settings, &account, refused, flags.wait, true) {
            return exit;
        }
    }
    let mut passed = None;
    let warnings = Rc::new(Warnings);
    let exit = match obtain::rejected(&settings, &account, refused, flags.wait, warnings, &mut passed) {
        Ok(replacement) => print(account.name.as_str(), &replacement),
        Err(problem) => report(&account, &problem),
    };
    if flags.no_hooks {
        return exit;
    }
    // Nobody waits for this command as for `token`, so that hooks can run at once.
    let sent = push::send_lacking(&Arc::new(settings), &[&account], Rc::new(Warnings));
    match sent.and_then(|()| run_hooks(passed.as_mut().map(due).unwrap_or_default())) {
        Ok(()) => exit,
        Err(error) => output::no_event_loop(&error),
    }
}

/// Replaces the token if it is still the stored one, without hooks; prints a failure.
pub(super) fn replace(
    settings: &Settings,
    account: &Arc<AccountConfig>,
    refused: Fingerprint,
    wait: Duration,
) -> Exit {
    match obtain::compare(settings, account, refused) {
        Ok(StoredToken::Other) => return Exit::Success,
        Ok(_) => {}
        Err(problem) => return report(account, &problem),
    }
    if ask::replace(settings, account, refused, wait).is_some() {
        return Exit::Success;
    }
    if let Some(exit) = session::replace(settings, account, refused, wait, false) {
        return exit;
    }
    match obtain::rejected(settings, account, refused, wait, Rc::new(Warnings), &mut None) {
        Ok(Replacement::AlreadyReplaced | Replacement::Replaced) => Exit::Success,
        Ok(replacement) => print(account.name.as_str(), &replacement),
        Err(problem) => report(account, &problem),
    }
}

/// Prints the result. A token that stays is a failure: the caller has no better one.
pub(super) fn print(account: &str, replacement: &Replacement) -> Exit {
    match replacement {
        Replacement::AlreadyReplaced => {
            output::print_line(format!("{account}: the stored token is another one already"));
        }
        Replacement::Replaced => output::print_line(format!("{account}: the token was replaced")),
        Replacement::TooSoon { wait } => {
            output::error(
                format!(
                    "account {account}: the previous token was refused and replaced only just now; the next replacement \
                     is possible in {}",
                    duration(*wait)
                ),
                Some("find out why fresh tokens are refused: scope, audience, or a wrong clock"),
            );
            return Exit::Unavailable;
        }
        Replacement::Reaffirmed => {
            output::error(
                format!("account {account}: the server issued the same token again"),
                Some("ask the operator of the resource why it refuses this token"),
            );
            return Exit::Unavailable;
        }
    }
    Exit::Success
}
