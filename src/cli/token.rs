//! `zg-tokend token`

use std::collections::HashMap;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use url::Url;
use zeroize::Zeroizing;

use crate::account::obtain::{self, LiveToken, TokenRequirements};
use crate::account::outputs::render;
use crate::account::sealing::open_id_token;
use crate::cli::args::{Args, OnBusy, OnError, Token, TokenFlags, TokenOutput};
use crate::cli::exit::Exit;
use crate::cli::once::{Warnings, send_lacking};
use crate::cli::settings::{one_account, report};
use crate::cli::{ask, output, rejected, session};
use crate::clock::{Clock, SystemClock};
use crate::config::{AccountConfig, NoIdToken, Settings, TokenFormat, is_loopback};
use crate::message::way_out;
use crate::problem::Problem;
use crate::refresh::record::AccessToken;
use crate::secret::Secret;

/// git sends some hundred bytes.
const QUERY_MAX: u64 = 64 * 1024;

pub(super) fn execute(args: &Args, flags: &Token) -> Result<Exit, Exit> {
    if flags.own_session {
        session::leave();
        let (settings, account) = one_account(args)?;
        return obtained(&settings, &account, &flags.wanted).map(|_| Exit::Success);
    }
    let (settings, account) = one_account(args)?;
    let username = match (flags.format, flags.operation.as_deref()) {
        (TokenOutput::Git, Some("get")) => {
            let query = git_query();
            if let Err(address) = may_have_token(&query) {
                output::warning(
                    format!("no token for {address}: the connection is not encrypted"),
                    "use an https:// URL: git remote set-url",
                );
                return Ok(Exit::Success);
            }
            Some(query)
        }
        (TokenOutput::Git, Some("erase")) => return Ok(erase(&settings, &account, flags)),
        // "If a helper receives any other operation, it should silently ignore the request."
        (TokenOutput::Git, Some(_)) => return Ok(Exit::Success),
        (TokenOutput::Git, None) => {
            let hint =
                "set up git with: git config credential.https://HOST.helper '!zg-tokend token --format git'";
            let message = "--format git needs an operation: get, store or erase";
            return Err(output::fail(Exit::Usage, message, hint));
        }
        (_, Some(operation)) => {
            let hint = "`zg-tokend token` prints the token; git runs `zg-tokend token --format git get`";
            let message = format!("the operation {operation:?} needs --format git");
            return Err(output::fail(Exit::Usage, message, hint));
        }
        (_, None) => None,
    };
    let mut token = live(&settings, &account, &flags.wanted, false)?;
    let wants_id_token = match &flags.template {
        Some(template) => template.needs_id_token(),
        None => flags.format == TokenOutput::IdToken,
    };
    if wants_id_token {
        open_id_token(&settings, &account, &mut token.token).map_err(|problem| report(&account, &problem))?;
    }
    let username = username.and_then(|mut query| query.remove("username")).unwrap_or(flags.username.clone());
    let text = match flags.template.as_ref() {
        Some(template) => text(template, &account, &token.token),
        None => in_format(flags.format, &account, &token.token, &username),
    };
    let text = text.map_err(|error| {
        output::fail(Exit::Config, format!("account {}: {error}", account.name), NoIdToken::HINT)
    })?;
    let exit = print(&text);
    // After the token: its reader waits for that.
    if token.passed {
        send_lacking(&Arc::new(settings), &[&account])?;
    }
    Ok(exit)
}

/// A live token as the flags want it; reports a failure, unless `quiet`.
pub(super) fn live(
    settings: &Settings,
    account: &Arc<AccountConfig>,
    flags: &TokenFlags,
    quiet: bool,
) -> Result<LiveToken, Exit> {
    let failed = |problem: Problem| {
        if quiet { Exit::from(problem.class) } else { report(account, &problem) }
    };
    if let Ok(token) = obtain::stored(settings, account, flags.min_valid).map_err(failed)? {
        return Ok(token);
    }
    if flags.on_busy == OnBusy::Wait
        && ask::refresh(settings, account, flags.wait)
        && let Ok(token) = obtain::stored(settings, account, flags.min_valid).map_err(failed)?
    {
        return Ok(token);
    }
    match session::refresh(settings, account, flags, quiet) {
        Some(Exit::Success) => {}
        Some(exit) => return Err(exit),
        None => return obtained(settings, account, flags),
    }
    match obtain::passed(settings, account).map_err(failed)? {
        Some(token) => Ok(token),
        // The state is damaged, and the token in the token file is presumed to live.
        None => obtained(settings, account, flags),
    }
}

/// The token of a pass in this process; warns if it is not the newest possible.
fn obtained(
    settings: &Settings,
    account: &Arc<AccountConfig>,
    flags: &TokenFlags,
) -> Result<LiveToken, Exit> {
    let wanted = TokenRequirements {
        min_valid: flags.min_valid,
        use_existing_on_error: flags.on_error == OnError::UseExisting,
        use_existing_on_busy: flags.on_busy == OnBusy::UseExisting,
        lock_patience: if flags.on_busy == OnBusy::Wait { flags.wait } else { Duration::ZERO },
    };
    let obtained = obtain::obtain(settings, account, wanted, Rc::new(Warnings));
    let obtained = obtained.map_err(|problem| report(account, &problem))?;
    if let Some(problem) = &obtained.problem {
        let way_out = way_out(problem.class, problem.hint.as_deref());
        let text = format!("account {}: {}", account.name, problem.message);
        output::warning_for(text, problem.cause.as_deref(), way_out);
    }
    Ok(obtained)
}

/// The token in a template, as it is now.
pub(super) fn text(
    template: &TokenFormat,
    account: &AccountConfig,
    token: &AccessToken,
) -> Result<Secret, NoIdToken> {
    render(account, template, token, SystemClock::new().now().wall / 1000)
}

fn in_format(
    format: TokenOutput,
    account: &AccountConfig,
    token: &AccessToken,
    username: &str,
) -> Result<Secret, NoIdToken> {
    let template = match format {
        TokenOutput::Raw => "{access_token}\n",
        TokenOutput::Bearer => "{token_type} {access_token}\n",
        TokenOutput::IdToken => "{id_token}\n",
        TokenOutput::Header => "header",
        TokenOutput::Json => "json",
        TokenOutput::Kubernetes => "kubeconfig-exec",
        // gitcredentials(7), git-credential(1)
        TokenOutput::Git => {
            let (value, expires_at) = (token.value.expose(), token.expires_at().wall / 1000);
            return Ok(Secret::new(format!(
                "username={username}\npassword={value}\npassword_expiry_utc={expires_at}\n"
            )));
        }
    };
    // Each of them is a format.
    text(&template.parse().unwrap_or_default(), account, token)
}

/// Writes a secret, which must not pass through buffers that are not wiped.
fn print(text: &Secret) -> Exit {
    let mut stdout = std::io::stdout();
    match stdout.write_all(text.expose().as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Exit::Success,
        Err(error) => {
            output::error_for(
                "cannot write the token to stdout",
                Some(&error.to_string()),
                Some("check where stdout goes: the disk may be full, or the reader has closed it"),
            );
            Exit::Io
        }
    }
}

/// The query of git: `key=value` lines.
fn git_query() -> HashMap<String, String> {
    let mut text = Zeroizing::new(String::new());
    // An unreadable query counts as empty.
    let _ = std::io::stdin().lock().take(QUERY_MAX).read_to_string(&mut text);
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A token may go to https, or to this machine; for others the address is the error. Which hosts get
/// one is decided in git's config, by the key of the helper.
fn may_have_token(query: &HashMap<String, String>) -> Result<(), String> {
    let part = |key| query.get(key).map_or("", String::as_str);
    let address = format!("{}://{}", part("protocol"), part("host"));
    match Url::parse(&address) {
        Ok(url) if url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)) => Ok(()),
        _ => Err(address.escape_debug().to_string()),
    }
}

/// git reports that the server refused the password, which is the token.
fn erase(settings: &Settings, account: &Arc<AccountConfig>, flags: &Token) -> Exit {
    let Some(password) = git_query().remove("password").map(Secret::new) else { return Exit::Success };
    // git reads nothing here, and runs `get` again.
    let replaced = rejected::replace(settings, account, password.fingerprint(), flags.wanted.wait);
    replaced.unwrap_or_else(|exit| exit)
}
