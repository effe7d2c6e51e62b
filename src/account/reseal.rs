//! `seal`: writes the state of an account anew, sealed or in plain as the config has it now.

use std::sync::Arc;

use crate::account::files::Files;
use crate::account::sealing;
use crate::account::set::lock;
use crate::clock::SystemClock;
use crate::config::{AccountConfig, Settings};
use crate::problem::{Class, Problem};
use crate::refresh::record::Record;
use crate::store;
use crate::store::document::Stored;
use crate::store::seal;
use crate::store::seal::StateKeys;

/// How the state is kept now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtRest {
    /// There is no secret in it.
    Empty,
    Sealed,
    Plain,
}

/// Stores the state under the lock with these keys, and reads it back.
pub fn reseal(
    settings: &Arc<Settings>,
    account: &Arc<AccountConfig>,
    keys: Option<Arc<StateKeys>>,
) -> Result<AtRest, Problem> {
    let mut files = Files::new(settings, account, false).with_keys(keys.clone());
    let Some(mut record) = lock(&mut files, SystemClock::new())? else { return Ok(AtRest::Empty) };
    if seal::secrets(&mut record).next().is_none() {
        return Ok(AtRest::Empty);
    }
    files.persist(&record)?;
    let _ = files.store().sweep();
    let at_rest = verify(settings, account, keys, &mut record)?;
    files.unlock();
    Ok(at_rest)
}

/// A seal that does not open again would cost the login at the next refresh.
fn verify(
    settings: &Settings,
    account: &AccountConfig,
    keys: Option<Arc<StateKeys>>,
    wanted: &mut Record,
) -> Result<AtRest, Problem> {
    let mut store = store::open(settings, account);
    store.set_keys(keys, sealing::rules(account));
    let Stored::Record(mut stored) = store.load()? else { return Err(differs()) };
    let is_open = seal::secrets(&mut stored).all(|(_, secret)| secret.open().is_some());
    wanted.version = stored.version;
    if *stored != *wanted || !is_open {
        return Err(differs());
    }
    Ok(if seal::is_sealed(&stored) { AtRest::Sealed } else { AtRest::Plain })
}

fn differs() -> Problem {
    Problem::of(Class::Io, "state", "the state that was written reads differently")
        .hint("check the file system of state_dir: df, dmesg")
}
