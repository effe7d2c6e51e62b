//! The config file. [`locate`] finds it, [`load`] reads it, [`parse`] turns its text into
//! [`Settings`] or into an error with a line and a caret. Only `load` and `changed_at` touch the file
//! system.

pub mod addition;
pub mod collisions;
pub mod diagnostic;
pub mod document;
pub mod edit;
pub mod endpoints;
mod environment;
pub mod error;
mod fleet;
pub mod formats;
pub mod grant;
pub mod grant_keys;
pub mod inherit;
pub mod inline;
pub mod key;
pub mod keys;
pub mod login;
pub mod paths;
pub mod problem;
pub mod proxy;
pub mod raw_values;
mod secret_keys;
pub mod settings;
pub mod source;
pub mod spelling;
pub mod targets;
#[cfg(test)]
mod tests;
pub mod token_format;
pub mod validate;
pub mod values;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::problem::ConfigProblem;
use crate::files;
use crate::files::links::{Links, normal};

pub use crate::config::diagnostic::Diagnostic;
pub use crate::config::environment::Environment;
pub use crate::config::error::ConfigError;
pub use crate::config::formats::NoIdToken;
pub use crate::config::grant::AssertionAudience;
pub use crate::config::settings::{
    AccountConfig, AccountName, ConfigWarning, Endpoint, HooksConfig, LoginConfig, NotAnAccountName,
    OutputConfig, ProbeConfig, PushConfig, Settings, TokenFile, WriteMode,
};
pub use crate::config::source::{SealedFile, SecretFlaw, SecretSource};
pub use crate::config::token_format::{TokenFormat, Values};
pub use crate::config::values::is_loopback;
use toml::de::DeTable;

/// The longest config file: room for ten thousand accounts with long tokens, and a limit for a wrong
/// path.
pub const MAX_LEN: usize = 16 << 20;

/// Where the config file is: `flag` (`--config`), else `$ZG_TOKEND_CONFIG`, else
/// `zg-tokend/config.toml` in the user's config directory. It need not exist.
pub fn locate(flag: Option<&Path>, environment: &Environment) -> Result<PathBuf, ConfigError> {
    let in_home = || environment.config_home.as_ref().map(|home| home.join("zg-tokend/config.toml"));
    flag.map(Path::to_owned)
        .or_else(|| environment.config_file.clone())
        .or_else(in_home)
        .ok_or(ConfigError::NoHome)
}

/// How [`load`] treats symlinks in the paths of a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symlinks {
    /// Leaves them: it looks at no other file, so that none that hangs stops the caller. Two paths
    /// that lead to one file through links are then not recognised.
    Keep,
    /// Follows them; with several accounts on a thread, so that a file system that hangs stops no
    /// account but its own.
    Follow,
    /// Follows them on a thread.
    FollowApart,
}

/// Reads the file, checks who else can change and read it, and parses it.
pub fn load(path: &Path, environment: &Environment, symlinks: Symlinks) -> Result<Settings, ConfigError> {
    let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let contents = files::read::read(&absolute, MAX_LEN).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing { path: absolute.clone() },
        _ => unreadable(source),
    })?;
    let effective_uid = rustix::process::geteuid().as_raw();
    check_owner(&absolute, contents.uid, contents.mode, effective_uid)?;
    let text = std::str::from_utf8(&contents.bytes)
        .map_err(|error| unreadable(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let mut settings = validated(text, &absolute, environment, symlinks)?;
    check_readers(&settings, contents.mode, contents.gid)?;
    if contents.mode & 0o020 != 0 {
        settings.warnings.push(ConfigWarning::ConfigGroupWritable { mode: contents.mode });
    }
    Ok(settings)
}

/// When the config file was changed last, in Unix milliseconds.
pub fn changed_at(settings: &Settings) -> Option<i64> {
    let file = std::fs::metadata(&settings.path).ok()?;
    Some(file.mtime().saturating_mul(1000).saturating_add(file.mtime_nsec() / 1_000_000))
}

/// Only root and the effective user may decide which programs run and where tokens go.
fn check_owner(path: &Path, uid: u32, mode: u32, effective_uid: u32) -> Result<(), ConfigError> {
    if files::read::is_stranger(uid, effective_uid) {
        return Err(ConfigError::Stranger { path: path.to_owned(), uid });
    }
    if mode & 0o002 != 0 {
        return Err(ConfigError::Writable { path: path.to_owned(), mode });
    }
    Ok(())
}

/// A group of the user's name is the user's own; one that several users share is not.
fn check_readers(settings: &Settings, mode: u32, gid: u32) -> Result<(), ConfigError> {
    let holds_secret = |account: &AccountConfig| {
        account.secrets().any(|(_, source)| matches!(source, SecretSource::Inline(_)))
            || account.push.iter().any(PushConfig::may_hold_secret)
            || account.probe.as_ref().is_some_and(|probe| probe.url.query().is_some())
    };
    let user = rustix::process::geteuid().as_raw();
    // Only where it matters: the names come from the user database, which costs more than the config.
    let own_group = || files::owner::group_name(gid) == files::owner::user_name(user);
    let is_open = mode & 0o004 != 0 || (mode & 0o040 != 0 && !own_group());
    if is_open
        && !files::read::is_secret_mount(&settings.path)
        && settings.accounts.iter().any(|account| holds_secret(account))
    {
        return Err(ConfigError::Readable { path: settings.path.clone(), mode });
    }
    Ok(())
}

/// `path` is that of the config file, absolute: relative paths are relative to its directory, and
/// errors name it. Symlinks are kept.
pub fn parse(text: &str, path: &Path, environment: &Environment) -> Result<Settings, ConfigError> {
    validated(text, path, environment, Symlinks::Keep)
}

fn validated(
    text: &str,
    path: &Path,
    environment: &Environment,
    symlinks: Symlinks,
) -> Result<Settings, ConfigError> {
    let checked = |raw| checked(raw, path, environment, symlinks);
    // An error is found again below, with its place in the text.
    if let Some(raw) = document::in_parts(text)
        && let Ok(settings) = checked(raw)
    {
        return Ok(settings);
    }
    let diagnosed = |diagnostic| ConfigError::Text(Box::new(diagnostic));
    let (table, errors) = DeTable::parse_recoverable(text);
    // The parser reports errors in the order of its passes, a person reads from the top.
    if let Some(error) = errors.iter().min_by_key(|error| error.span().map(|span| span.start)) {
        return Err(diagnosed(Diagnostic::syntax(path, text, error)));
    }
    // Only an error needs it, and with many accounts it is large.
    let map = || document::Map::of(DeTable::parse_recoverable(text).0.get_ref());
    let raw = document::RawFile::from_table(table).map_err(|error| {
        let map = map();
        // Serde refuses unknown keys as well, but not before everything else.
        let known = map.unknown().or_else(|| map.shared());
        let problem = known.unwrap_or_else(|| map.wrong_type(error.span().unwrap_or(0..0)));
        diagnosed(Diagnostic::new(path, text, Some(&map), problem))
    })?;
    checked(raw).map_err(|problem| diagnosed(Diagnostic::new(path, text, Some(&map()), problem)))
}

fn checked(
    raw: document::RawFile,
    path: &Path,
    environment: &Environment,
    symlinks: Symlinks,
) -> Result<Settings, ConfigProblem> {
    let several = raw.accounts.as_ref().is_some_and(|accounts| accounts.len() > 1);
    let links = match symlinks {
        Symlinks::Keep => None,
        Symlinks::Follow if !several => Some(Links::here()),
        Symlinks::Follow | Symlinks::FollowApart => Some(Links::apart()),
    };
    // Several rules look at the same path, and each question to the other thread takes its time.
    let known = RefCell::<HashMap<PathBuf, PathBuf>>::default();
    let real = |path: &Path| {
        let Some(links) = &links else { return normal(path) };
        if let Some(real) = known.borrow().get(path) {
            return real.clone();
        }
        let real = links.follow(&[path.to_owned()]).remove(0);
        known.borrow_mut().insert(path.to_owned(), real.clone());
        real
    };
    let homes = [&environment.home, &environment.config_home].into_iter().flatten();
    let homes: Vec<_> = homes.filter(|home| home.parent().is_some()).map(|home| real(home)).collect();
    let (accounts, state_keys) = (Vec::new(), Vec::new());
    let scope = validate::Scope { path, environment, real: &real, homes: &homes, accounts, state_keys };
    if let Some(links) = &links {
        let paths = scope.token_files(&raw);
        let real = links.follow(&paths);
        known.borrow_mut().extend(paths.into_iter().zip(real));
    }
    scope.settings(raw)
}
