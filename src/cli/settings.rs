//! The config that the command line names, and its account.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cli::args::{Args, Command};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::config::{self, AccountConfig, ConfigError, Environment, Settings, Symlinks};
use crate::message::way_out;
use crate::problem::{Problem, cause};

/// The most names of accounts in a hint.
const NAMES_MAX: usize = 20;

/// Loads the config, or prints what is wrong with it.
pub(super) fn settings(args: &Args) -> Option<Settings> {
    load(args).map_err(|failure| failure.print()).ok()
}

/// The config is wrong, or has no such account.
pub(super) struct ConfigFailure {
    pub(super) problem: String,
    pub(super) cause: Option<String>,
    /// The line with a caret below it.
    pub(super) excerpt: Option<String>,
    /// A minimal config, for a user who has none.
    pub(super) example: Option<String>,
    pub(super) hint: Option<String>,
}

impl ConfigFailure {
    pub(super) fn print(&self) {
        let lines = self.excerpt.as_deref().or(self.example.as_deref());
        output::error_with(&self.problem, self.cause.as_deref(), lines, self.hint.as_deref());
    }
}

impl From<ConfigError> for ConfigFailure {
    fn from(error: ConfigError) -> Self {
        let (excerpt, example) = (error.excerpt(), error.example());
        Self { problem: error.to_string(), cause: cause(&error), excerpt, example, hint: error.hint() }
    }
}

pub(super) fn load(args: &Args) -> Result<Settings, ConfigFailure> {
    let symlinks = match args.command {
        Command::Status(_) => Symlinks::Keep,
        Command::Run(_) => Symlinks::FollowApart,
        _ => Symlinks::Follow,
    };
    let settings = config::load(&locate(args)?, &Environment::of_process(), symlinks)?;
    unknown_account(&settings, args).map_or(Ok(settings), Err)
}

/// The config, and the account of --account or the only one; else prints an error.
pub(super) fn one_account(args: &Args) -> Result<(Settings, Arc<AccountConfig>), Exit> {
    let settings = settings(args).ok_or(Exit::Config)?;
    let name = args.common.account.as_deref();
    let is_chosen = |account: &&Arc<AccountConfig>| name.is_none_or(|name| account.name.as_str() == name);
    let chosen: Vec<_> = settings.accounts.iter().filter(is_chosen).take(2).cloned().collect();
    if let Ok([account]) = <[_; 1]>::try_from(chosen) {
        return Ok((settings, account));
    }
    let hint = format!("choose one with --account NAME: {}", names(&settings));
    output::error("the config has several accounts", Some(&hint));
    Err(Exit::Usage)
}

/// Prints a problem of an account and returns the exit code for it.
pub(super) fn report(account: &AccountConfig, problem: &Problem) -> Exit {
    let way_out = way_out(problem.class, problem.hint.as_deref());
    let text = format!("account {}: {}", account.name, problem.message);
    output::error_for(text, problem.cause.as_deref(), Some(way_out));
    Exit::from(problem.class)
}

pub(super) fn locate(args: &Args) -> Result<PathBuf, ConfigError> {
    config::locate(args.common.config.as_deref(), &Environment::of_process())
}

fn unknown_account(settings: &Settings, args: &Args) -> Option<ConfigFailure> {
    let wanted = args.common.account.as_deref()?;
    let is_known = settings.accounts.iter().any(|account| account.name.as_str() == wanted);
    (!is_known).then(|| ConfigFailure {
        problem: format!("there is no account {wanted:?} in {}", settings.path.display()),
        cause: None,
        excerpt: None,
        example: None,
        hint: Some(format!("accounts in the config: {}", names(settings))),
    })
}

/// The names of the accounts; of very many the first.
fn names(settings: &Settings) -> String {
    let names: Vec<_> = settings.accounts.iter().map(|account| account.name.as_str()).collect();
    match names.get(..NAMES_MAX) {
        Some(first) if names.len() > NAMES_MAX => {
            format!("{} and {} more", first.join(", "), names.len() - NAMES_MAX)
        }
        _ => names.join(", "),
    }
}
