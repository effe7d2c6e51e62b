//! `zg-tokend init`: writes a config from a few answers, or adds an account to one, and checks it.

mod addition;
mod answers;
mod ask;
mod document;
mod error;
pub(in crate::cli) mod google;
mod guess;
mod machine;
mod next;

use std::path::Path;

use zeroize::Zeroizing;

use crate::cli::args::{Args, Init};
use crate::cli::exit::Exit;
use crate::cli::init::addition::Existing;
use crate::cli::init::answers::Answers;
pub(in crate::cli) use crate::cli::init::error::InitError;
use crate::cli::init::next::{Written, conclude};
use crate::cli::settings::locate;
use crate::cli::{output, prompt};
use crate::config::{self, AccountName, ConfigError, Environment};
use crate::files::{Attributes, Missing, Rules, Target, Temporary};
use crate::oauth::providers::{PROVIDERS, Provider};
use crate::problem::{cause, chain};

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
