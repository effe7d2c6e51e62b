//! `zg-tokend logout`

use std::rc::Rc;
use std::sync::Arc;

use crate::account::Account;
use crate::account::context::{Context, Mode};
use crate::account::fleet_note::FleetNote;
use crate::account::once::once;
use crate::account::policy::accounts;
use crate::cli::args::{Args, Logout};
use crate::cli::exit::Exit;
use crate::cli::once::Warnings;
use crate::cli::settings::{one_account, report};
use crate::cli::{ask, output};
use crate::config::{AccountConfig, Settings};
use crate::login::logout::logout;
use crate::refresh::decide::Trigger;
use crate::runtime::event_loop;

/// A pass that reads the row: this machine and the row agree afterwards, if the database answers.
fn agree(settings: &Arc<Settings>, account: &AccountConfig) -> Option<Account> {
    let trigger = Trigger { row: true, ..Trigger::default() };
    let accounts = accounts(settings, Some(account.name.as_str()), Mode::default()).collect();
    once(accounts, trigger, Context::new(Rc::new(Warnings))).ok()?.pop()
}

/// True if this machine has the newest refresh token of the row.
fn sees_row(settings: &Arc<Settings>, account: &AccountConfig) -> bool {
    agree(settings, account).is_some_and(|mut account| {
        let note: FleetNote = account.files().store().note();
        note.problem.is_none()
    })
}

/// Ends the login on the other machines as well. True if the database knows of it.
fn tell_others(settings: &Arc<Settings>, account: &AccountConfig) -> bool {
    agree(settings, account).is_some_and(|account| {
        let replica = account.core().record().and_then(|record| record.replica.as_ref());
        replica.is_none_or(|replica| replica.held.is_none())
    })
}

pub(super) fn execute(args: &Args, flags: &Logout) -> Result<Exit, Exit> {
    let (settings, account) = one_account(args)?;
    let settings = Arc::new(settings);
    // The row may have a newer refresh token than this machine: that one is to be revoked.
    if account.fleet.is_some() && !sees_row(&settings, &account) && !flags.local {
        let hint = "run it again when the database answers; --local forgets the login on this machine alone";
        let name = &account.name;
        let message =
            format!("account {name}: the database does not answer, and may have a newer refresh token");
        return Err(output::fail(Exit::Unavailable, message, hint));
    }
    let runtime = event_loop().map_err(|error| output::no_event_loop(&error))?;
    let context = Context::new(Rc::new(Warnings));
    let result = runtime.block_on(logout(&settings, &account, &context, flags.local));
    runtime.shutdown_background();
    let done = result.map_err(|problem| report(&account, &problem))?;
    if account.fleet.is_some() && !tell_others(&settings, &account) {
        let warning =
            "the database does not know of the logout yet: the other machines keep the login until then";
        let way_out = "run `zg-tokend once` when the database answers; `zg-tokend run` tells it by itself";
        output::warning(format!("account {}: {warning}", account.name), way_out);
    }
    ask::reread(&settings, &account);
    let place = account.token_file.path.display();
    output::print_line(match (done.had_login, flags.local) {
        (false, _) => format!("{}: there was no login; {place} is removed", account.name),
        (true, false) => format!("{}: the login is revoked and forgotten; {place} is removed", account.name),
        (true, true) => {
            format!("{}: the login is forgotten on this machine; {place} is removed", account.name)
        }
    });
    for (warning, way_out) in done.warnings {
        output::warning(format!("account {}: {warning}", account.name), way_out);
    }
    Ok(Exit::Success)
}
