//! `zg-tokend seal`
//!
//! A key is made, stored and read back before the config names it; the config names it before a state is
//! sealed. Wherever that is interrupted, each state is whole and its key is known.

mod file;
mod place;

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::account::reseal::{AtRest, reseal};
use crate::account::sealing::read_keys_here;
use crate::cli::args::{Args, KeyPlace, Seal};
use crate::cli::exit::Exit;
use crate::cli::seal::file::{of_file, replace};
use crate::cli::seal::place::KeptKey;
use crate::cli::{output, report, settings};
use crate::config;
use crate::config::{Environment, Settings, edit};
use crate::files::Attributes;
use crate::files::read::Contents;
use crate::problem::{Class, Problem, chain};
use crate::store;
use crate::store::seal::{StateKey, StateKeys};

const KEY: &str = "state_key";
const PREVIOUS: &str = "state_key_previous";

/// The longest config that is changed.
const CONFIG_MAX: usize = 16 << 20;

pub(super) fn execute(args: &Args, flags: &Seal) -> Exit {
    let Some(settings) = settings(args) else { return Exit::Config };
    let only = args.common.account.as_deref();
    let done = match (flags.with, flags.remove) {
        (Some(place), _) => seal_with(&settings, place, only),
        (None, true) => remove(&settings),
        (None, false) => {
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

fn no_key() -> Problem {
    Problem {
        class: Class::Config,
        kind: KEY.into(),
        message: "the config has no state_key, so the logins stay in plain".into(),
        cause: None,
        hint: Some("make one: zg-tokend seal --with secret-tool, --with systemd-creds or --with file".into()),
    }
}

/// Writes the states anew with `keys`, or with those that the config names.
fn seal_all(settings: &Settings, only: Option<&str>, keys: Option<&Arc<StateKeys>>) -> Exit {
    let settings = Arc::new(settings.clone());
    let exits = settings.chosen(only).map(|account| {
        let keys = keys.map_or_else(|| read_keys_here(&settings, account), |keys| Ok(Some(Arc::clone(keys))));
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
    let exit = Exit::worst(exits.collect::<Vec<_>>());
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
    let text = read_config(settings)?;
    if settings.accounts.iter().any(|account| account.state_key.is_some()) {
        return Err(Problem {
            class: Class::Config,
            kind: KEY.into(),
            message: "the config has a state_key already".into(),
            cause: None,
            hint: Some(
                "`zg-tokend seal` seals with it; to change it, rename it to state_key_previous first".into(),
            ),
        });
    }
    let key = StateKey::random().map_err(|error| Problem {
        class: Class::Unexpected,
        kind: "random".into(),
        message: "the kernel gives no random bytes".into(),
        cause: Some(error.to_string()),
        hint: Some("allow getrandom(2) in the sandbox".into()),
    })?;
    // The states have to open before they can be sealed with another key.
    let mut keys = StateKeys { current: Some(key.clone()), previous: None };
    for account in &settings.accounts {
        let previous = read_keys_here(settings, account)?.and_then(|keys| keys.previous.clone());
        keys.previous = keys.previous.or(previous);
    }
    let kept: KeptKey = place::keep(settings, place, &key)?;
    let line = format!("{KEY} = {}", kept.source);
    output::print_line(format!("made a key and keep it in {}", kept.place));
    let changed =
        store_config(settings, &edit::with_first_line(&text, &line)).map_err(|problem| Problem {
            hint: Some(format!("write this line at the top of {}: {line}", settings.path.display())),
            ..problem
        })?;
    output::print_line(format!("added to {}: {line}", settings.path.display()));
    let exit = seal_all(&changed, only, Some(&Arc::new(keys)));
    if let Some(next) = kept.next {
        output::hint(next);
    }
    Ok(exit)
}

/// The key opens before it is taken out: first the config has it as the previous one, then the states are
/// in plain, then it goes.
fn remove(settings: &Settings) -> Result<Exit, Problem> {
    for account in &settings.accounts {
        read_keys_here(settings, account)?;
    }
    let text = read_config(settings)?;
    let has = |key| edit::without(&text, key).is_some();
    if has(KEY) && has(PREVIOUS) {
        return Err(Problem {
            class: Class::Config,
            kind: KEY.into(),
            message: "the config has a state_key and a state_key_previous".into(),
            cause: None,
            hint: Some(
                "run `zg-tokend seal`, and take state_key_previous out of the config; then again".into(),
            ),
        });
    }
    let mut changed = settings.clone();
    if let Some(text) = edit::renamed(&text, KEY, PREVIOUS) {
        changed = store_config(settings, &text)?;
    } else if !has(PREVIOUS) {
        return Err(Problem { message: "the config has no state_key: nothing is sealed".into(), ..no_key() });
    }
    let exit = seal_all(&changed, None, None);
    if exit == Exit::Success
        && let Some(text) = edit::without(&read_config(&changed)?, PREVIOUS)
    {
        store_config(&changed, &text)?;
        output::print_line(format!(
            "took state_key out of {}; the key itself stays where it is",
            changed.path.display()
        ));
    }
    Ok(exit)
}

fn read_config(settings: &Settings) -> Result<Zeroizing<String>, Problem> {
    let contents = Contents::of_path(&settings.path, CONFIG_MAX).map_err(|error| of_file(&error))?;
    let bytes = contents.map(|contents| contents.bytes).unwrap_or_default();
    let text = std::str::from_utf8(&bytes).map_err(|_| Problem::bug("the config is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Replaces the config at once, with the owner and mode that it has, and returns what it says now.
fn store_config(settings: &Settings, text: &str) -> Result<Settings, Problem> {
    let path = &settings.path;
    let changed = config::parse(text, path, &Environment::of_process()).map_err(|error| Problem {
        class: Class::Config,
        kind: KEY.into(),
        message: "the changed config would not be valid".into(),
        cause: Some(chain(&error)),
        hint: error.hint(),
    })?;
    let present = Contents::of_path(path, CONFIG_MAX).map_err(|error| of_file(&error))?;
    let attributes = present.map_or(Attributes::PRIVATE, |present| Attributes {
        mode: present.mode,
        owner: Some(present.uid),
        group: Some(present.gid),
    });
    replace(path, attributes, text.as_bytes())?;
    Ok(Settings { missing_state_dir: settings.missing_state_dir, ..changed })
}
