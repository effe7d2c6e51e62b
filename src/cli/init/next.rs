//! After the config is written: its checks, the first token, and the next commands.

use std::rc::Rc;

use crate::check;
use crate::cli::args::{Args, Command, Common, Init, Login, Once};
use crate::cli::check::{exit_of, show};
use crate::cli::exit::Exit;
use crate::cli::init::error::InitError;
use crate::cli::once::Warnings;
use crate::cli::{login, once, output, prompt};
use crate::config::{AccountConfig, Settings};
use crate::message::command;
use crate::store;
use crate::store::lock::Supervision;

/// A config that `init` has written.
pub(super) struct Written {
    pub(super) settings: Settings,
    /// The account that was added to a config; `None` if all of it is new.
    pub(super) added: Option<String>,
    /// The account that was there had no table, and so no name that anybody had to know.
    pub(super) was_flat: bool,
}

pub(super) fn conclude(args: &Args, flags: &Init, written: &Written) -> Exit {
    let Written { settings, added, was_flat } = written;
    let only = added.as_deref();
    let Some(account) = settings.chosen(only).next() else { return Exit::Failure };
    let path = settings.path.display();
    output::print_line(match only {
        Some(name) => format!("added account {name} to {path}"),
        None => format!("wrote {path}, mode 0600"),
    });
    if *was_flat {
        let name = settings.accounts.first().map_or("", |first| first.name.as_str());
        output::print_line(format!(
            "the account that was there is named {name} and keeps its login; commands take --account {name}"
        ));
    }
    output::print_line("");
    let mut findings = check::check(settings, only);
    let mut exit = exit_of(&findings);
    if !flags.offline {
        match check::live(settings, only) {
            // A server that fails today is no mistake in the config.
            Ok(found) if exit_of(&found) != Exit::Success => {
                exit = Exit::worst([exit, Exit::Unavailable]);
                findings.extend(found);
            }
            Ok(found) => findings.extend(found),
            Err(error) => return output::no_event_loop(&error),
        }
    }
    show(&findings, flags.offline);
    if exit != Exit::Success {
        let live = if exit == Exit::Unavailable { " --live" } else { "" };
        let check = command("check", settings, None);
        output::print(format!("\nnext: fix the problems above, then run `{check}{live}`"));
        return exit;
    }
    let mut is_ready = false;
    if prompt::can_ask() && !flags.refresh_token_stdin {
        match offer(args, settings, account) {
            Ok(Some(Exit::Success)) => is_ready = true,
            Ok(Some(failed)) => return failed,
            Ok(None) => {}
            Err(error) => {
                output::failure(&error, error.hint().as_deref());
                return Exit::Usage;
            }
        }
    }
    output::print(format!("\nnext:\n{}", steps(settings, account, only.is_some(), is_ready)));
    exit
}

/// Asks whether to get the first token at once; `None` if not.
fn offer(args: &Args, settings: &Settings, account: &AccountConfig) -> Result<Option<Exit>, InitError> {
    let name = account.name.as_str();
    let agree = |question| prompt::agree(question).map_err(InitError::Unanswered);
    output::note("");
    Ok(match first_step(account) {
        FirstStep::Login if agree("Log in now? [Y/n] ")? => {
            let flags = Login::by_default();
            let common = Common { config: args.common.config.clone(), account: Some(name.to_owned()) };
            let args = Args { common, command: Command::Login(Box::default()) };
            Some(login::execute(&args, &flags).unwrap_or_else(|exit| exit))
        }
        FirstStep::Once if agree("Get the first token now? [Y/n] ")? => {
            Some(once::pass(settings, Some(name), &Once::default(), Rc::new(Warnings)))
        }
        _ => None,
    })
}

/// The way to the first token of an account.
#[derive(PartialEq, Eq)]
enum FirstStep {
    Login,
    Set,
    Once,
}

fn first_step(account: &AccountConfig) -> FirstStep {
    match account.refresh_token {
        Some(_) => FirstStep::Once,
        // Nobody logs in.
        None if !account.grant.grant_type.has_login() => FirstStep::Once,
        None if account.can_log_in() => FirstStep::Login,
        None => FirstStep::Set,
    }
}

/// The commands that come next, one a line, each with its purpose.
fn steps(settings: &Settings, account: &AccountConfig, is_added: bool, is_ready: bool) -> String {
    let of_account = |name| command(name, settings, Some(account));
    let of_all = |name| command(name, settings, None);
    let first = match first_step(account) {
        _ if is_ready => None,
        FirstStep::Login => Some((of_account("login"), "log in with a browser")),
        FirstStep::Set => Some((of_account("set"), "pass the refresh token on stdin")),
        FirstStep::Once => Some((of_account("once"), "get the first token")),
    };
    let supervisor = is_added.then(|| supervisor(settings)).flatten();
    let run = supervisor.is_none().then(|| (of_all("run"), "keep it fresh"));
    let steps: Vec<_> = first.into_iter().chain(run).chain([(of_all("status"), "show its state")]).collect();
    let width = steps.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
    let line = |(command, purpose): &(String, &str)| format!("  {command:<width$}   {purpose}");
    let mut lines: Vec<_> = steps.iter().map(line).collect();
    lines.extend(supervisor.map(|pid| {
        format!(
            "`zg-tokend run` (process {pid}) loads the changed config by itself and keeps the token fresh"
        )
    }));
    lines.join("\n")
}

/// The process that supervises the earlier accounts.
fn supervisor(settings: &Settings) -> Option<u32> {
    let first = settings.accounts.first()?;
    match store::open(settings, first).supervision() {
        Ok(Supervision::Alive(supervisor)) => supervisor.map(|supervisor| supervisor.pid),
        _ => None,
    }
}
