//! `set`: stores a token that the user brings, where the config cannot be edited.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::account::files::Files;
use crate::account::sealing;
use crate::account::sealing::KeyUse;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config;
use crate::oauth;
use crate::oauth::TokenFault;
use crate::problem::{Class, Problem};
use crate::refresh::record::{AccessToken, Record};
use crate::refresh::replica::Role;
use crate::refresh::{LOCK_PATIENCE, LockFailure};
use crate::secret::{Fingerprint, Secret};
use crate::secrets;
use crate::secrets::SecretError;

/// The pause before a busy lock is tried again.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// The user's new tokens: one of them, or both of one login.
#[derive(Debug)]
pub struct NewLogin {
    refresh_token: Option<Secret>,
    access_token: Option<(Secret, Duration)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NewLoginError {
    #[error("the {what} {fault}")]
    Token { what: &'static str, fault: TokenFault },
    /// It would replace a token that may live.
    #[error("an access token with less than a second has expired")]
    Expired,
}

impl NewLoginError {
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Token { .. } => "give the token and nothing else",
            Self::Expired => "give one that lives; if it does, set the clock: date, timedatectl",
        }
    }
}

impl NewLogin {
    /// A new refresh token, an access token of another program with its remaining seconds, or both.
    /// The rules for the answer of a server apply: over a year counts as a year.
    pub fn new(
        refresh_token: Option<Secret>,
        access_token: Option<(Secret, f64)>,
    ) -> Result<Self, NewLoginError> {
        let fault = |what, token: Option<&Secret>| {
            let fault = token.and_then(oauth::fault_of);
            fault.map_or(Ok(()), |fault| Err(NewLoginError::Token { what, fault }))
        };
        fault("refresh token", refresh_token.as_ref())?;
        fault("access token", access_token.as_ref().map(|(token, _)| token))?;
        let live = |(token, expires_in): (Secret, f64)| {
            let expires_in = oauth::whole_seconds(expires_in).ok_or(NewLoginError::Expired)?;
            Ok((token, expires_in))
        };
        Ok(Self { refresh_token, access_token: access_token.map(live).transpose()? })
    }

    /// The fingerprint of the refresh token.
    pub fn login(&self) -> Option<Fingerprint> {
        self.refresh_token.as_ref().map(Secret::fingerprint)
    }

    /// The remaining life of the access token.
    pub fn expires_in(&self) -> Option<Duration> {
        self.access_token.as_ref().map(|(_, expires_in)| *expires_in)
    }
}

#[derive(Debug)]
pub enum SetResult {
    Stored {
        /// Why the configured login cannot be read here. It counts as the older one.
        older: Option<SecretError>,
        /// The problems of outputs that do not hold the access token.
        failed: Vec<Problem>,
        /// A copy of the state with an earlier login that does not open.
        unopened: Option<PathBuf>,
    },
    /// The login was stored before, so nothing was changed: its refresh token may have been rotated
    /// since, and sending it again could end the login.
    Known,
}

/// Stores the login under the account's lock, and publishes its access token. The next pass, which is
/// due at once, uses the refresh token.
pub fn set(
    settings: &config::Settings,
    account: &Arc<config::AccountConfig>,
    login: NewLogin,
) -> Result<SetResult, Problem> {
    has_login(account)?;
    // A command may take seconds: before the lock.
    let configured = account.refresh_token.as_ref().filter(|_| login.refresh_token.is_some());
    let configured =
        configured.map(|source| secrets::read("refresh_token", source, &account.secret_variables));
    let keys = match &login.refresh_token {
        Some(_) => sealing::read_keys_here(settings, account, KeyUse::Replace)?,
        None => None,
    };
    let clock = SystemClock::new();
    let is_lost = keys.as_ref().is_some_and(|keys| keys.is_lost);
    let mut files = Files::new(&Arc::new(settings.clone()), account, false).with_keys(keys);
    let mut record = lock(&mut files, clock)?
        .unwrap_or_else(|| Record::new(account.name.as_str(), settings.path.to_string_lossy().into_owned()));
    let unopened = is_lost.then(|| files.store().keep_copy()).transpose()?;
    let now = clock.now();
    let mut older = None;
    if let Some(seed) = login.refresh_token.filter(|seed| !is_known(&record, seed)) {
        older = take(&mut record, &mut files, seed, configured, now)?;
    } else if login.access_token.is_none() {
        files.unlock();
        return Ok(SetResult::Known);
    }
    let brought_token = login.access_token.is_some();
    if let Some((value, expires_in)) = login.access_token {
        record.generation = record.generation.saturating_add(1);
        record.access_token = Some(AccessToken::given(value, now, expires_in));
    }
    files.persist(&record)?;
    let mut failed = Vec::new();
    if let Some(token) = record.access_token.as_ref().filter(|_| brought_token) {
        failed = files.publish(token)?;
    }
    files.unlock();
    Ok(SetResult::Stored { older, failed, unopened })
}

/// Why this account has no login that could be replaced or ended, if it has none.
pub fn has_login(account: &config::AccountConfig) -> Result<(), Problem> {
    if let Some(login) = &account.from {
        let message = format!("it uses the login of account {login}, and has none of its own");
        return Err(Problem::of(Class::Config, "no_own_login", message)
            .hint(format!("name that account: --account {login}")));
    }
    if account.fleet.as_ref().is_some_and(|fleet| fleet.role == Role::Read) {
        let message = "it only reads the access token here (fleet.role = \"read\")";
        return Err(Problem::of(Class::Config, "only_reads", message)
            .hint("run this on a machine that refreshes: it serves all"));
    }
    let grant_type = account.grant.grant_type;
    if grant_type.has_login() {
        return Ok(());
    }
    let message = format!(
        "account {} has no login: its tokens come from {}, which is made anew for each request",
        account.name,
        grant_type.name()
    );
    Err(Problem::of(Class::Config, "no_login", message)
        .hint("run `zg-tokend once` to get a token; for a login set grant_type = \"refresh_token\""))
}

fn is_known(record: &Record, seed: &Secret) -> bool {
    let in_force = record.refresh_token.as_ref().is_some_and(|token| token.value == *seed);
    in_force || record.seeds.contains(&seed.fingerprint())
}

/// Adopts a login as the core adopts one from the config: with the state of a removed account, if
/// that knows it. The configured seed is older, and must not count as new; returns why it cannot be
/// read.
fn take(
    record: &mut Record,
    files: &mut Files,
    seed: Secret,
    configured: Option<Result<Secret, SecretError>>,
    now: Timestamp,
) -> Result<Option<SecretError>, Problem> {
    let found = files.take_over(seed.fingerprint())?;
    if let Some(Ok(configured)) = &configured {
        record.list_seed(configured.fingerprint());
    }
    match found {
        Some(other) => record.take_over(*other),
        None => record.take_seed(seed, now),
    }
    // Perhaps only the service can read it. A file that does not exist yet will hold a newer login.
    let unread = configured.and_then(Result::err).filter(|error| !error.is_missing_file());
    record.config_is_older = unread.is_some();
    Ok(unread)
}

/// Waits for the lock, and returns the state under it.
pub fn lock(files: &mut Files, clock: SystemClock) -> Result<Option<Record>, Problem> {
    let begun_at = clock.now();
    loop {
        match files.lock() {
            Ok(loaded) => return Ok(loaded.record),
            Err(LockFailure::Problem(problem)) => return Err(problem),
            Err(LockFailure::Busy) if clock.now().since(begun_at) >= LOCK_PATIENCE => {
                let message = "another process holds the lock of the account";
                return Err(Problem::of(Class::Busy, "lock_timeout", message)
                    .hint("find it with `zg-tokend status`, and stop it if it hangs"));
            }
            Err(LockFailure::Busy) => std::thread::sleep(LOCK_POLL),
        }
    }
}
