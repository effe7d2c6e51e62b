//! `zg-tokend seal`
//!
//! A key is made, stored and read back before the config names it; the config names it before a state is
//! sealed. Wherever that is interrupted, each state is whole and its key is known.

mod key;
mod place;
mod secrets;

use std::sync::Arc;

use crate::account::plain_copy;
use crate::account::reseal::{AtRest, reseal};
use crate::account::sealing::{KeyUse, read_keys_here};
use crate::cipher::{NoRandom, StateKey};
use crate::cli::args::{Args, KeyPlace, Seal};
use crate::cli::config_file::{ConfigFile, parse};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::seal::key::{KEY, no_key};
use crate::cli::seal::place::KeptKey;
use crate::cli::settings::{report, settings};
use crate::config::{Settings, edit};
use crate::problem::{Class, Problem};
use crate::refresh::record::STATE_KEY;
use crate::store;
use crate::store::seal::StateKeys;

const PREVIOUS: &str = "state_key_previous";

pub(super) fn execute(args: &Args, flags: &Seal) -> Exit {
    let Some(settings) = settings(args) else { return Exit::Config };
    let only = args.common.account.as_deref();
    if let Ok(true) = plain_copy::remove_if_proved(&settings) {
        output::print_line(format!("removed {}", plain_copy::path(&settings.path).display()));
    }
    let done = match (flags.with, flags.secrets, flags.remove) {
        (Some(place), ..) => seal_with(&settings, place, only),
        (None, true, false) => secrets::seal(&settings, flags.yes),
        (None, true, true) => secrets::remove(&settings, flags.yes),
        (None, false, true) => remove(&settings),
        (None, false, false) => {
            // It is the same for all accounts.
            let has_key = settings
                .accounts
                .iter()
                .any(|account| account.state_key.is_some() || account.state_key_previous.is_some());
            if has_key { Ok(seal_all(&settings, only, None)) } else { Err(no_key()) }
        }
    };
    match done {
        Ok(exit) => exit,
        Err(problem) => {
            output::error_for(problem.message, problem.cause.as_deref(), problem.hint.as_deref());
            Exit::from(problem.class)
        }
    }
}

/// Writes the states anew with `keys`, or with those that the config names.
fn seal_all(settings: &Settings, only: Option<&str>, keys: Option<&Arc<StateKeys>>) -> Exit {
    let settings = Arc::new(settings.clone());
    let exits = settings.chosen(only).map(|account| {
        let keys = keys.map_or_else(
            || read_keys_here(&settings, account, KeyUse::Open),
            |keys| Ok(Some(Arc::clone(keys))),
        );
        match keys.and_then(|keys| reseal(&settings, account, keys)) {
            Ok(at_rest) => {
                let how = match at_rest {
                    AtRest::Empty => {
                        "there is no login in the state yet; the first one will be kept as the config says"
                    }
                    AtRest::Sealed => "the login is sealed",
                    AtRest::Plain => "the login is in plain, mode 0600",
                };
                output::print_line(format!("{}: {how}", account.name));
                Exit::Success
            }
            Err(problem) => report(account, &problem),
        }
    });
    let mut exits: Vec<_> = exits.collect();
    exits.push(secrets::reseal(&settings));
    let exit = Exit::worst(exits);
    if settings.accounts.iter().any(|account| account.state_key.is_some()) {
        for path in store::plain_leftovers(&settings) {
            output::warning(
                format!("{} may have an old refresh token in plain", path.display()),
                format!("look at it, and remove it if nothing needs it: rm '{}'", path.display()),
            );
        }
    }
    exit
}

fn seal_with(settings: &Settings, place: KeyPlace, only: Option<&str>) -> Result<Exit, Problem> {
    let file = ConfigFile::read(&settings.path)?;
    if settings.accounts.iter().any(|account| account.state_key.is_some()) {
        return Err(Problem::of(Class::Config, KEY, "the config has a state_key already")
            .hint("`zg-tokend seal` seals with it; to change it, rename it to state_key_previous first"));
    }
    let key = StateKey::random().map_err(|NoRandom| Problem::no_random())?;
    // The states have to open before they can be sealed with another key.
    let mut keys = StateKeys { current: Some(key.clone()), ..StateKeys::default() };
    for account in &settings.accounts {
        match read_keys_here(settings, account, KeyUse::Open) {
            Ok(read) => keys.previous = keys.previous.or(read.and_then(|keys| keys.previous.clone())),
            // Its key is lost: the new one is for the next login, and this one stays as it is.
            Err(problem) if account.state_key_previous.is_none() && problem.kind == STATE_KEY => {}
            Err(problem) => return Err(problem),
        }
    }
    let kept: KeptKey = place::keep(settings, place, &key)?;
    let line = format!("{KEY} = {}", kept.source);
    output::print_line(format!("made a key and keep it in {}", kept.place));
    let changed =
        store_config(settings, &file, &edit::with_first_line(&file.text, &line)).map_err(|problem| {
            Problem {
                hint: Some(format!("write this line at the top of {}: {line}", settings.path.display())),
                ..problem
            }
        })?;
    output::print_line(format!("added to {}: {line}", settings.path.display()));
    let exit = if kept.is_here { seal_all(&changed, only, Some(&Arc::new(keys))) } else { Exit::Success };
    let text = ConfigFile::read(&changed.path)?.text;
    if kept.is_here && secrets::has_plain_secrets(&text) {
        output::hint("zg-tokend seal --secrets moves the secrets of the config into sealed files as well");
    }
    if let Some(next) = kept.next {
        output::hint(next);
    }
    Ok(exit)
}

/// The key opens before it is taken out: first the config has it as the previous one, then the states are
/// in plain, then it goes.
fn remove(settings: &Settings) -> Result<Exit, Problem> {
    for account in &settings.accounts {
        read_keys_here(settings, account, KeyUse::Open)?;
    }
    if settings.accounts.iter().any(|account| plain_copy::has_sealed_secrets(account)) {
        return Err(Problem::of(
            Class::Config,
            KEY,
            "the config has secrets in sealed files, which state_key opens",
        )
        .hint("take them back first: zg-tokend seal --secrets --remove"));
    }
    let file = ConfigFile::read(&settings.path)?;
    let has = |key| edit::without(&file.text, key).is_some();
    if has(KEY) && has(PREVIOUS) {
        return Err(Problem::of(Class::Config, KEY, "the config has a state_key and a state_key_previous")
            .hint("run `zg-tokend seal`, and take state_key_previous out of the config; then again"));
    }
    let mut changed = settings.clone();
    if let Some(text) = edit::renamed(&file.text, KEY, PREVIOUS) {
        changed = store_config(settings, &file, &text)?;
    } else if !has(PREVIOUS) {
        return Err(Problem { message: "the config has no state_key: nothing is sealed".into(), ..no_key() });
    }
    let exit = seal_all(&changed, None, None);
    let file = ConfigFile::read(&settings.path)?;
    if exit == Exit::Success
        && let Some(text) = edit::without(&file.text, PREVIOUS)
    {
        store_config(&changed, &file, &text)?;
        output::print_line(format!(
            "took state_key out of {}; the key itself stays where it is",
            changed.path.display()
        ));
    }
    Ok(exit)
}

/// Replaces the config at once, and returns what it says now.
fn store_config(settings: &Settings, file: &ConfigFile, text: &str) -> Result<Settings, Problem> {
    let changed = parse(settings, text)?;
    file.replace(text, file.attributes)?;
    Ok(changed)
}
