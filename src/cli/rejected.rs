//! `zg-tokend rejected`

use std::rc::Rc;

pub(super) use crate::account::obtain::Replacement as Done;
use crate::account::obtain::rejected as replace;
use crate::cli::args::{Args, Rejected as Flags};
use crate::cli::exit::Exit;
use crate::cli::once::{Warnings, run_hooks};
use crate::cli::{output, report, set, settings, the_account};
use crate::hooks::due;
use crate::message::duration;

/// Takes the report that a resource refused the token.
pub(super) fn rejected(args: &Args, flags: &Flags) -> Exit {
    let Some(settings) = settings(args) else { return Exit::Config };
    let account = match the_account(&settings, args) {
        Ok(account) => account,
        Err(exit) => return exit,
    };
    let refused = match flags.sha256 {
        Some(fingerprint) => fingerprint,
        None => match set::read("refused access token") {
            Ok(token) => token.fingerprint(),
            Err(problem) => {
                let hint = "give the refused token on stdin, or its SHA-256 with --sha256";
                output::error(problem, Some(hint));
                return Exit::Usage;
            }
        },
    };
    let mut passed = None;
    let warnings = Rc::new(Warnings);
    let exit = match replace(&settings, account, refused, flags.wait, warnings, &mut passed) {
        Ok(done) => say(account.name.as_str(), &done),
        Err(problem) => report(account, &problem),
    };
    // Nobody waits for a token here, and who does not re-read its file should hear of it at once.
    match run_hooks(passed.as_mut().map(due).unwrap_or_default()) {
        Ok(()) => exit,
        Err(error) => output::no_event_loop(&error),
    }
}

/// Says what came of it; a token that stays is a failure to the caller, who has no better one.
pub(super) fn say(account: &str, done: &Done) -> Exit {
    match done {
        Done::AlreadyReplaced => output::print_line(format!("{account}: another token is stored already")),
        Done::Replaced => output::print_line(format!("{account}: the token was replaced")),
        Done::TooSoon { wait } => {
            output::error(
                format!(
                    "account {account}: the token before this one was refused, too, and replaced only just now; \
                     the next can be in {}",
                    duration(*wait)
                ),
                Some("see why fresh tokens are refused: scope, audience, or a clock that is wrong"),
            );
            return Exit::Unavailable;
        }
        Done::Reaffirmed => {
            output::error(
                format!("account {account}: the server has given out the same token again, as good"),
                Some("ask the operator of the resource why it refuses this token"),
            );
            return Exit::Unavailable;
        }
    }
    Exit::Success
}
