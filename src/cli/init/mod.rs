//! `zg-tokend init`: a config from a few answers, checked before anybody relies on it.

pub mod answers;
pub mod document;
pub mod google;

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::check::check as look;
use crate::cli::args::{Args, Init};
use crate::cli::exit::Exit;
use crate::cli::init::answers::Answers;
use crate::cli::{check, locate, output, prompt};
use crate::config;
use crate::config::{Environment, Settings};
use crate::files::{Attributes, FileError, Missing, PlaceError, Rules, Target, Temporary};
use crate::problem::chain;

/// Why there is no new config.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum InitError {
    /// Nobody can be asked, and these were not given.
    #[error("standard input is no terminal to ask on, and these are missing: {0}")]
    Missing(String),
    /// An answer that could not be read, or will not do.
    #[error("{0}")]
    Answer(String),
    /// The answers make no config.
    #[error("the answers make no config: {message}")]
    Config {
        /// What is wrong, without the place in a file that does not exist.
        message: String,
        /// What the config's own error advises.
        hint: Option<String>,
    },
    /// The file of `--from` is of no use.
    #[error(transparent)]
    Google(#[from] google::GoogleError),
    /// There is one already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// No place for it.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// It cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl InitError {
    pub(in crate::cli) fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(_) => Some("give them as flags: see `zg-tokend init --help`".into()),
            Self::Answer(_) => Some("begin again; nothing was written".into()),
            Self::Config { hint, .. } => hint.clone().or_else(|| Some("correct that answer".into())),
            Self::Google(error) => Some(error.hint()),
            Self::Exists(_) => Some("--overwrite replaces it; --config PATH names another".into()),
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

/// Asks, writes, checks, and says what comes next.
pub(super) fn init(args: &Args, flags: &Init) -> Exit {
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

/// Everything is asked and judged before the first byte is written.
fn write(path: &Path, args: &Args, flags: &Init, environment: &Environment) -> Result<Settings, InitError> {
    let replaces = path.symlink_metadata().is_ok();
    if replaces && !flags.overwrite && !prompt::can_ask() {
        return Err(InitError::Exists(path.to_owned()));
    }
    if replaces && !flags.overwrite {
        let question = format!("{} exists already; replace it? [y/N] ", path.display());
        let answer = prompt::line(&question).map_err(InitError::Answer)?.unwrap_or_default();
        if !matches!(answer.as_str(), "y" | "Y" | "yes") {
            return Err(InitError::Exists(path.to_owned()));
        }
    }
    let answers = Answers::collect(args.common.account.as_deref(), flags)?;
    let text = document::render(&answers);
    let settings = config::parse(&text, path, environment).map_err(|error| unusable(&error))?;
    store(path, &text, replaces)?;
    Ok(settings)
}

/// What the parser says, without the line of a file that was never written.
fn unusable(error: &config::ConfigError) -> InitError {
    let message = match error {
        config::ConfigError::Text(diagnostic) => diagnostic.message().to_owned(),
        _ => chain(error),
    };
    InitError::Config { message, hint: error.hint() }
}

/// The whole file appears at once, 0600, or not at all.
fn store(path: &Path, text: &Zeroizing<String>, replaces: bool) -> Result<(), InitError> {
    let rules = Rules { owner: None, missing: Missing::CreateAll, in_place: false };
    let target = Target::resolve(path, &rules)?;
    let mut temporary = Temporary::create(&target, Attributes::PRIVATE)?;
    temporary.write_all(text.as_bytes())?;
    // Somebody else's, written while the questions were asked.
    if !replaces && path.symlink_metadata().is_ok() {
        return Err(InitError::Exists(path.to_owned()));
    }
    temporary.commit()?;
    Ok(())
}

fn conclude(settings: &Settings) -> Exit {
    output::print_line(format!("wrote {}, mode 0600", settings.path.display()));
    output::print_line("");
    let findings = look(settings, None);
    check::show(&findings, true);
    let exit = check::exit_of(&findings);
    let next = match exit {
        Exit::Success => {
            "next:\n  zg-tokend once     gets the first token\n  zg-tokend run      keeps it fresh\n  \
             zg-tokend status   tells how it is"
        }
        _ => "next: mend what is a problem above, then `zg-tokend check`",
    };
    output::print(format!("\n{next}"));
    exit
}
