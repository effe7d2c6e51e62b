//! `zg-tokend check`

use super::args::Args;
use super::{settings, voice};
use crate::durable::FailureClass;
use crate::exit::Exit;
use crate::shell::files::token_file;
use crate::shell::trouble::chain;

/// Checks the config, and whether the token files can be where it wants them.
pub(super) fn check(args: &Args) -> Exit {
    let Some(settings) = settings(args) else { return Exit::Config };
    for warning in &settings.warnings {
        voice::warning(warning);
    }
    let accounts = settings.accounts.iter();
    let chosen =
        accounts.filter(|account| args.account.as_deref().is_none_or(|only| account.name.as_str() == only));
    let exits = chosen.map(|account| match token_file(&account.token_file).check() {
        Ok(checked) => {
            for warning in &checked.warnings {
                voice::warning(format!("account {}: {warning}", account.name));
            }
            voice::say(format!("{}: ok, the token goes to {}", account.name, checked.path.display()));
            Exit::Success
        }
        Err(error) => {
            voice::failure(format!("account {}: {}", account.name, chain(&error)), error.hint().as_deref());
            match error.class() {
                FailureClass::Io => Exit::Io,
                FailureClass::Misplaced => Exit::Config,
            }
        }
    });
    Exit::worst(exits.collect::<Vec<_>>())
}
