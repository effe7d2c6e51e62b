//! `zg-tokend rejected`

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::account::obtain::{self, Replacement, StoredToken};
use crate::cli::args::{Args, Rejected};
use crate::cli::exit::Exit;
use crate::cli::once::{Warnings, run_hooks, send_lacking};
use crate::cli::settings::{one_account, report};
use crate::cli::{ask, output, session, set};
use crate::config::{AccountConfig, Settings};
use crate::hooks::due;
use crate::message::duration;
use crate::secret::Fingerprint;

pub(super) fn execute(args: &Args, flags: &Rejected) -> Result<Exit, Exit> {
    let (settings, account) = one_account(args)?;
    let refused = if let Some(fingerprint) = flags.sha256 {
        fingerprint
    } else {
        let hint = "pass the refused token on stdin, or its SHA-256 with --sha256";
        let token = set::read("refused access token");
        token.map_err(|problem| output::fail(Exit::Usage, problem, hint))?.fingerprint()
    };
    if flags.own_session {
        session::leave();
    } else {
        match elsewhere(&settings, &account, refused, flags.wait, true)? {
            Some(Replaced::Told(replacement)) => return Ok(print(account.name.as_str(), &replacement)),
            Some(Replaced::Ended(exit)) => return Ok(exit),
            None => {}
        }
    }
    let mut passed = None;
    let warnings = Rc::new(Warnings);
    let exit = match obtain::rejected(&settings, &account, refused, flags.wait, warnings, &mut passed) {
        Ok(replacement) => print(account.name.as_str(), &replacement),
        Err(problem) => report(&account, &problem),
    };
    if !flags.no_hooks {
        // Nobody waits for this command as for `token`, so that hooks can run at once.
        send_lacking(&Arc::new(settings), &[&account])?;
        run_hooks(passed.as_mut().map(due).unwrap_or_default())?;
    }
    Ok(exit)
}

/// Replaces the token if it is still the stored one, without hooks; prints a failure.
pub(super) fn replace(
    settings: &Settings,
    account: &Arc<AccountConfig>,
    refused: Fingerprint,
    wait: Duration,
) -> Result<Exit, Exit> {
    match elsewhere(settings, account, refused, wait, false)? {
        Some(Replaced::Told(_)) => return Ok(Exit::Success),
        Some(Replaced::Ended(exit)) => return Ok(exit),
        None => {}
    }
    let replaced = obtain::rejected(settings, account, refused, wait, Rc::new(Warnings), &mut None);
    match replaced.map_err(|problem| report(account, &problem))? {
        Replacement::AlreadyReplaced | Replacement::Replaced => Ok(Exit::Success),
        replacement => Ok(print(account.name.as_str(), &replacement)),
    }
}

/// How a token was replaced outside this process.
enum Replaced {
    /// Before, or by the supervisor.
    Told(Replacement),
    /// By a copy of this program, which has printed the result.
    Ended(Exit),
}

/// Replaces the token by the supervisor or in a session of its own; `None`: neither can be had.
fn elsewhere(
    settings: &Settings,
    account: &Arc<AccountConfig>,
    refused: Fingerprint,
    wait: Duration,
    hooks: bool,
) -> Result<Option<Replaced>, Exit> {
    let stored = obtain::compare(settings, account, refused).map_err(|problem| report(account, &problem))?;
    if let StoredToken::Other = stored {
        return Ok(Some(Replaced::Told(Replacement::AlreadyReplaced)));
    }
    if let Some(replacement) = ask::replace(settings, account, refused, wait) {
        return Ok(Some(Replaced::Told(replacement)));
    }
    Ok(session::replace(settings, account, refused, wait, hooks).map(Replaced::Ended))
}

/// Prints the result. A token that stays is a failure: the caller has no better one.
pub(super) fn print(account: &str, replacement: &Replacement) -> Exit {
    match replacement {
        Replacement::AlreadyReplaced => {
            output::print_line(format!("{account}: the stored token is another one already"));
            Exit::Success
        }
        Replacement::Replaced => {
            output::print_line(format!("{account}: the token was replaced"));
            Exit::Success
        }
        Replacement::TooSoon { wait } => {
            let wait = duration(*wait);
            let message = format!(
                "account {account}: the previous token was refused and replaced only just now; the next replacement \
                 is possible in {wait}"
            );
            let hint = "find out why fresh tokens are refused: scope, audience, or a wrong clock";
            output::fail(Exit::Unavailable, message, hint)
        }
        Replacement::Reaffirmed => output::fail(
            Exit::Unavailable,
            format!("account {account}: the server issued the same token again"),
            "ask the operator of the resource why it refuses this token",
        ),
    }
}
