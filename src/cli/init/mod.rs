//! `zg-tokend init`: writes a config from a few answers, or adds an account to one, and checks it.

mod addition;
mod answers;
mod ask;
mod document;
pub(in crate::cli) mod google;
mod guess;
mod machine;
mod next;

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::cli::args::{Args, Init};
use crate::cli::config_file::ReplaceError;
use crate::cli::exit::Exit;
use crate::cli::init::addition::Existing;
use crate::cli::init::answers::Answers;
use crate::cli::init::next::{Written, conclude};
use crate::cli::{locate, output, prompt};
use crate::config;
use crate::config::addition::AdditionError;
use crate::config::{AccountName, ConfigError, Environment};
use crate::files::{Attributes, FileError, Missing, PlaceError, Rules, Target, Temporary};
use crate::oauth::providers::{PROVIDERS, Provider};
use crate::problem::{cause, chain};

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
    /// A question after the config was written.
    #[error("{0}")]
    Unanswered(String),
    #[error("the config has an account {0} already")]
    Known(String),
    /// The config that exists cannot be used.
    #[error(transparent)]
    Existing(ConfigError),
    #[error("cannot add the account")]
    Edit(#[from] AdditionError),
    #[error("nothing was written: the change was not confirmed")]
    NotConfirmed,
    #[error(transparent)]
    Replace(#[from] ReplaceError),
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
            Self::Exists(_) => Some(
                "pass --account NAME to add an account to it, --overwrite to replace it, or --config PATH for \
                 another file"
                    .into(),
            ),
            Self::Unanswered(_) => Some("the config is written: `zg-tokend check` checks it".into()),
            Self::Known(_) => {
                Some("choose another name with --account; to change that account, edit the config".into())
            }
            Self::Existing(error) => error.hint(),
            Self::Edit(error) => error.hint(),
            Self::NotConfirmed => Some("pass --yes to make the change without a question".into()),
            Self::Replace(error) => error.hint(),
            Self::Place(error) => error.hint(),
            Self::File(error) => error.hint(),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Place(error) | Self::Replace(ReplaceError::Place(error)) => Exit::from(error.class()),
            Self::File(error) | Self::Replace(ReplaceError::File(error)) => Exit::from(error.class()),
            Self::Existing(_) => Exit::Config,
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
            output::failure(&error, error.hint().as_deref());
            return Exit::Config;
        }
    };
    match write(&path, args, flags, &environment) {
        Ok(written) => conclude(args, flags, &written),
        Err(error) => {
            let excerpt = if let InitError::Existing(error) = &error { error.excerpt() } else { None };
            let cause = cause(&error);
            output::error_with(&error, cause.as_deref(), excerpt.as_deref(), error.hint().as_deref());
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
fn write(path: &Path, args: &Args, flags: &Init, environment: &Environment) -> Result<Written, InitError> {
    let replaces = path.symlink_metadata().is_ok();
    let name = args.common.account.as_deref();
    if replaces && !flags.overwrite {
        let existing = match name {
            None if !prompt::can_ask() => return Err(InitError::Exists(path.to_owned())),
            _ => Existing::read(path, environment)?,
        };
        let name = name.map_or_else(|| ask_for_name(path), |name| Ok(name.to_owned()))?;
        if existing.has(&name) {
            return Err(InitError::Known(name));
        }
        let answers = Answers::collect(Some(&name), flags)?;
        let settings = existing.add(&answers, environment, || agree(flags))?;
        return Ok(Written { settings, added: Some(name), was_flat: existing.is_flat() });
    }
    let answers = Answers::collect(name, flags)?;
    let text = document::render(&answers);
    let settings = config::parse(&text, path, environment).map_err(|error| invalid(&error))?;
    store(path, &text, replaces)?;
    Ok(Written { settings, added: None, was_flat: false })
}

/// The name of an account for a config that exists.
fn ask_for_name(path: &Path) -> Result<String, InitError> {
    output::note(format!("{} exists; an account can be added to it", path.display()));
    loop {
        let answer = prompt::line("name of the new account (Enter to stop): ").map_err(InitError::Answer)?;
        let Some(answer) = answer else { return Err(InitError::Exists(path.to_owned())) };
        match answer.parse::<AccountName>() {
            Ok(name) => return Ok(name.to_string()),
            Err(error) => output::hint(error),
        }
    }
}

/// Whether the change that was shown is to be made.
fn agree(flags: &Init) -> Result<bool, InitError> {
    let asks = prompt::can_ask() && !flags.refresh_token_stdin;
    if flags.yes || !asks {
        return Ok(flags.yes);
    }
    prompt::agree("Make this change? [Y/n] ").map_err(InitError::Answer)
}

/// The parser's error without its line: the file was never written.
fn invalid(error: &ConfigError) -> InitError {
    let message = match error {
        ConfigError::Text(diagnostic) => diagnostic.message().to_owned(),
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
