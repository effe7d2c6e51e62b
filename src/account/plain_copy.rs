//! The copy of the config that `seal --secrets` leaves behind, with its secrets in plain, until the sealed
//! ones have proved good: until every account that has some was given a token since.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::{AccountConfig, SecretSource, Settings};
use crate::store;
use crate::store::document::Stored;

/// Where the copy of this config is, if there is one.
pub fn path(config: &Path) -> PathBuf {
    let mut path = OsString::from(config);
    path.push(".plain");
    path.into()
}

/// The copy, if there is one.
pub fn find(settings: &Settings) -> Option<PathBuf> {
    let path = path(&settings.path);
    path.symlink_metadata().is_ok().then_some(path)
}

pub fn has_sealed_secrets(account: &AccountConfig) -> bool {
    account.secrets().any(|(_, source)| matches!(source, SecretSource::Sealed(_)))
}

/// Removes the copy, if all has been proved. False if it is still needed, or if there is none.
pub fn remove_if_proved(settings: &Settings) -> io::Result<bool> {
    let path = path(&settings.path);
    let made_at = match path.symlink_metadata() {
        Ok(copy) => copy.mtime() * 1000 + copy.mtime_nsec() / 1_000_000,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut accounts = settings.accounts.iter().filter(|account| has_sealed_secrets(account)).peekable();
    let is_proved =
        accounts.peek().is_some() && accounts.all(|account| has_token_since(settings, account, made_at));
    if is_proved {
        std::fs::remove_file(&path)?;
    }
    Ok(is_proved)
}

fn has_token_since(settings: &Settings, account: &AccountConfig, since: i64) -> bool {
    let Ok(Stored::Record(record)) = store::open(settings, account).load() else { return false };
    record.access_token.is_some_and(|token| !token.given && token.issued_at.wall >= since)
}
