//! `zg-tokend init`: writes a config from a few answers and checks it.

pub mod answers;
pub mod document;
pub mod google;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::cli::args::{Args, Init};
use crate::cli::exit::Exit;
use crate::cli::init::answers::Answers;
use crate::cli::{check, locate, output, prompt};
use crate::config;
use crate::config::{AccountConfig, Environment, Settings};
use crate::files::{Attributes, FileError, Missing, PlaceError, Rules, Target, Temporary};
use crate::message::login_command;
use crate::oauth::providers::{PROVIDERS, Provider};
use crate::problem::chain;

#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum InitError {
    #[error("standard input is not a terminal, and these are missing: {0}")]
    Missing(String),
    #[error("{0}")]
    Answer(String),
    #[error("the answers are not a valid config: {message}")]
    Config { message: String, hint: Option<String> },
    #[error(transparent)]
    Google(#[from] google::GoogleError),
    #[error("{} already exists", .0.display())]
    Exists(PathBuf),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl InitError {
    pub(in crate::cli) fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(_) => Some("pass them as flags: see `zg-tokend init --help`".into()),
            Self::Answer(_) => Some("start again; nothing was written".into()),
            Self::Config { hint, .. } => hint.clone().or_else(|| Some("correct that answer".into())),
            Self::Google(error) => Some(error.hint()),
            Self::Exists(_) => {
                Some("pass --overwrite to replace it, or --config PATH for another file".into())
            }
            Self::Place(error) => error.hint(),
            Self::File(error) => error.hint(),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Place(error) => Exit::from(error.class()),
            Self::File(error) => Exit::from(error.class()),
            _ => Exit::Usage,
        }
    }
}

pub(super) fn execute(args: &Args, flags: &Init) -> Exit {
    if flags.provider.as_deref() == Some("?") {
        let listed = output::print(list_providers());
        return if listed { Exit::Success } else { Exit::Io };
    }
    let environment = Environment::of_process();
    let path = match locate(args).map(|path| std::path::absolute(&path).unwrap_or(path)) {
        Ok(path) => path,
        Err(error) => {
            output::error(chain(&error), error.hint().as_deref());
            return Exit::Config;
        }
    };
    match write(&path, args, flags, &environment) {
        Ok(settings) => conclude(&settings),
        Err(error) => {
            output::error(chain(&error), error.hint().as_deref());
            error.exit()
        }
    }
}

/// All presets, each with what it sets.
fn list_providers() -> String {
    let one = |provider: &Provider| {
        let lines = provider.describe().into_iter().map(|(name, value)| format!("\n  {name}: {value}"));
        format!("{}{}", provider.name, lines.collect::<String>())
    };
    PROVIDERS.iter().map(one).collect::<Vec<_>>().join("\n\n")
}

/// Asks and validates everything before the first byte is written.
fn write(path: &Path, args: &Args, flags: &Init, environment: &Environment) -> Result<Settings, InitError> {
    let replaces = path.symlink_metadata().is_ok();
    if replaces && !flags.overwrite && !prompt::can_ask() {
        return Err(InitError::Exists(path.to_owned()));
    }
    if replaces && !flags.overwrite {
        let question = format!("{} already exists. Replace it? [y/N] ", path.display());
        let answer = prompt::line(&question).map_err(InitError::Answer)?.unwrap_or_default();
        if !matches!(answer.as_str(), "y" | "Y" | "yes") {
            return Err(InitError::Exists(path.to_owned()));
        }
    }
    let answers = Answers::collect(args.common.account.as_deref(), flags)?;
    let text = document::render(&answers);
    let settings = config::parse(&text, path, environment).map_err(|error| invalid(&error))?;
    store(path, &text, replaces)?;
    Ok(settings)
}

/// The parser's error without its line: the file was never written.
fn invalid(error: &config::ConfigError) -> InitError {
    let message = match error {
        config::ConfigError::Text(diagnostic) => diagnostic.message().to_owned(),
        _ => chain(error),
    };
    InitError::Config { message, hint: error.hint() }
}

/// The whole file appears at once, 0600, or not at all.
fn store(path: &Path, text: &Zeroizing<String>, replaces: bool) -> Result<(), InitError> {
    let rules = Rules::private(Missing::CreateAll);
    let target = Target::resolve(path, &rules)?;
    let mut temporary = Temporary::create(&target, Attributes::PRIVATE)?;
    temporary.write_all(text.as_bytes())?;
    // Another process may have written it meanwhile.
    if !replaces && path.symlink_metadata().is_ok() {
        return Err(InitError::Exists(path.to_owned()));
    }
    temporary.commit()?;
    Ok(())
}

fn conclude(settings: &Settings) -> Exit {
    output::print_line(format!("wrote {}, mode 0600", settings.path.display()));
    output::print_line("");
    let findings = crate::check::check(settings, None);
    check::show(&findings, true);
    let exit = check::exit_of(&findings);
    let asks_for_login =
        |account: &Arc<AccountConfig>| account.refresh_token.is_none() && account.can_log_in();
    if let Some(account) = settings.accounts.iter().find(|account| asks_for_login(account))
        && exit == Exit::Success
    {
        output::print(format!("\nnow: {}", login_command(settings, account)));
        return exit;
    }
    let next = match exit {
        Exit::Success => {
            "next:\n  zg-tokend once     get the first token\n  zg-tokend run      keep it fresh\n  \
             zg-tokend status   show its state"
        }
        _ => "next: fix the problems above, then run `zg-tokend check`",
    };
    output::print(format!("\n{next}"));
    exit
}
