//! `zg-tokend set`

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::account::context::{Notice, Observer};
use crate::account::sealing::lost_login;
use crate::account::set::{NewLogin, SetResult, set};
use crate::cli::args::{Args, Once, Set};
use crate::cli::exit::Exit;
use crate::cli::once::{self, Warnings, send_lacking, warn};
use crate::cli::settings::{one_account, report};
use crate::cli::{ask, output, prompt};
use crate::config::AccountConfig;
use crate::message::{duration, words};
use crate::problem::cause;
use crate::refresh::outcome::Report;
use crate::secret::Secret;
use crate::secrets::SecretError;

pub(super) fn execute(args: &Args, flags: &Set) -> Result<Exit, Exit> {
    let (settings, account) = one_account(args)?;
    let token = read(if flags.access_token { "access token" } else { "refresh token" });
    let token = token
        .map_err(|problem| output::fail(Exit::Usage, problem, "pass the token on stdin, and nothing else"))?;
    let given = match flags.expires_in {
        Some(expires_in) => NewLogin::new(None, Some((token, expires_in.as_secs_f64()))),
        None => NewLogin::new(Some(token), None),
    };
    let given = given.map_err(|error| output::fail(Exit::Usage, error, error.hint()))?;
    let expires_in = given.expires_in();
    match set(&settings, &account, given).map_err(|problem| report(&account, &problem))? {
        SetResult::Stored { older, failed, unopened } => {
            if let Some((warning, way_out)) = unopened.as_deref().map(|copy| lost_login(Some(copy))) {
                output::warning(format!("account {}: {warning}", account.name), way_out);
            }
            if let Some(error) = &older {
                warn_of_older(&account, error);
            }
            for problem in failed {
                warn(account.name.as_str(), &words(&Report::OutputFailed(problem)));
            }
        }
        SetResult::Known => {
            output::print_line(format!(
                "{}: this refresh token was stored before; the login stays as it is",
                account.name
            ));
            output::hint("log in again to get a new one: a used refresh token is never sent twice");
            return Ok(Exit::Success);
        }
    }
    if let Some(expires_in) = expires_in {
        let left = duration(expires_in);
        output::print_line(format!(
            "{}: wrote the token to {}; it expires in {left}",
            account.name,
            account.token_file.path.display()
        ));
        ask::reread(&settings, &account);
        return send_lacking(&Arc::new(settings), &[&account]).map(|()| Exit::Success);
    }
    let refused = Rc::new(Cell::new(false));
    let observer = Refusal { refused: Rc::clone(&refused) };
    let exit = once::pass(&settings, Some(account.name.as_str()), &Once::default(), Rc::new(observer));
    ask::reread(&settings, &account);
    // The earlier login keeps the token fresh, but this command failed.
    Ok(if refused.get() { Exit::worst([exit, Exit::NeedsLogin]) } else { exit })
}

/// Notes that the server refused the new login.
struct Refusal {
    refused: Rc<Cell<bool>>,
}

impl Observer for Refusal {
    fn notice(&self, notice: &Notice<'_>) {
        let Notice::Report { account, report: Report::FellBack { message, .. }, .. } = notice else {
            return Warnings.notice(notice);
        };
        self.refused.set(true);
        output::error_for(
            format!("account {account}: the new login was refused, so the earlier one stays in use"),
            Some(message),
            Some("log in again, and pass the new refresh token to `zg-tokend set`"),
        );
    }
}

/// The config may name a login that only the service can read.
fn warn_of_older(account: &AccountConfig, error: &SecretError) {
    output::warning_for(
        format!("account {}: {error}; its value counts as older than this login", account.name),
        cause(error).as_deref(),
        "to use that one instead, pass it to `zg-tokend set`",
    );
}

/// The token on stdin, without the white space around it. On a terminal it is not shown.
pub(super) fn read(what: &str) -> Result<Secret, String> {
    if prompt::can_ask() {
        return prompt::hidden(what, "not shown")?.ok_or_else(|| format!("the {what} is empty"));
    }
    prompt::piped(what)
}
