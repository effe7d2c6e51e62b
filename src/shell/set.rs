//! A token from the user's own hand, for those whose config cannot be edited.

use std::sync::Arc;
use std::time::Duration;

use super::files::Files;
use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::secret::{Fingerprint, Secret};
use crate::secrets;
use crate::supervisor::record::{AccessToken, Record};
use crate::supervisor::trouble::{Class, Trouble};
use crate::supervisor::{LOCK_PATIENCE, LockFailure};

/// Between two looks at a busy lock.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// What the user has brought: either, or both of one login.
#[derive(Debug, Default)]
pub struct Given {
    /// A new login.
    pub refresh_token: Option<Secret>,
    /// A token that another program obtained, and the life it has left from now on.
    pub access_token: Option<(Secret, Duration)>,
}

/// Stores it under the account's lock; an access token is published as well. A refresh token is
/// used by the next pass, which is due at once.
pub fn set(settings: &config::Settings, account: &config::Account, given: Given) -> Result<(), Trouble> {
    let clock = SystemClock::new();
    let mut files = Files::new(&Arc::new(settings.clone()), account, false);
    let record = lock(&mut files, clock)?;
    let mut record = record
        .unwrap_or_else(|| Record::new(account.name.as_str(), settings.path.to_string_lossy().into_owned()));
    let now = clock.now();
    if let Some(seed) = given.refresh_token {
        // What config holds is older than what was just given, and must not win as "new".
        record.seeds.extend(configured_seed(account).filter(|known| !record.seeds.contains(known)));
        record.take_seed(seed, now);
    }
    let brought_token = given.access_token.is_some();
    if let Some((value, expires_in)) = given.access_token {
        record.generation = record.generation.saturating_add(1);
        record.access_token = Some(AccessToken {
            value,
            token_type: "Bearer".into(),
            scope: None,
            issued_at: now,
            lifetime_ms: expires_in.as_millis() as u64,
            jitter_ms: 0,
            repeated: false,
            given: true,
        });
    }
    files.persist(&record)?;
    if let Some(token) = record.access_token.as_ref().filter(|_| brought_token) {
        files.publish(token)?;
    }
    files.unlock();
    Ok(())
}

/// The state under the lock, as soon as that is to be had.
fn lock(files: &mut Files, clock: SystemClock) -> Result<Option<Record>, Trouble> {
    let begun_at = clock.now();
    loop {
        match files.lock() {
            Ok(loaded) => return Ok(loaded.record),
            Err(LockFailure::Trouble(trouble)) => return Err(trouble),
            Err(LockFailure::Busy) if clock.now().since(begun_at) >= LOCK_PATIENCE => {
                return Err(Trouble {
                    class: Class::Busy,
                    kind: "lock_timeout".into(),
                    message: "another process holds the lock of the account".into(),
                    hint: Some("see who it is with `zg-tokend status`, and stop it if it hangs".into()),
                });
            }
            Err(LockFailure::Busy) => std::thread::sleep(LOCK_POLL),
        }
    }
}

fn configured_seed(account: &config::Account) -> Option<Fingerprint> {
    let source = account.refresh_token.as_ref()?;
    secrets::read("refresh_token", source, &account.secret_variables).ok().map(|seed| seed.fingerprint())
}
