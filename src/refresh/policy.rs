//! The settings of an account that the core needs.

use std::fmt::{self, Debug};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use crate::oauth::GrantType;
use crate::refresh::record::Record;
use crate::refresh::replica::Role;
use crate::secret::Fingerprint;

/// The part of the account's configuration that the core needs.
#[derive(Debug, Clone)]
pub struct Policy {
    pub account: Arc<str>,
    /// The account whose login it uses, if that is another one.
    pub from: Option<Arc<str>>,
    /// The fingerprint of the refresh_token, where config holds it as a string.
    pub inline_seed: Option<Fingerprint>,
    pub terms: Arc<Terms>,
}

/// The part of a [`Policy`] that thousands of accounts share. It is used like a part of the policy.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The path of the config file, as the state records it.
    pub config: Arc<str>,
    /// The kind of grant.
    pub grant_type: GrantType,
    pub skew: Option<Duration>,
    /// The lifetime of a token if neither server nor token states one.
    pub default_lifetime: Duration,
    /// Refresh a token early if it would expire within this time.
    pub horizon: Option<Duration>,
    /// The user's next step for a new login.
    pub login_hint: LoginHint,
    /// How often to read the configured secrets again while only a new one can help; `None` if
    /// they cannot change without a reload.
    pub reread_secrets: Option<Duration>,
    /// How long to wait for another process that is refreshing.
    pub lock_patience: Duration,
    /// Remove the token file when its token has expired.
    pub remove_expired: bool,
    /// Never give up on storing a rotated token: true for `run`.
    pub patient: bool,
    /// Several machines share the login.
    pub fleet: Option<FleetPolicy>,
}

/// The machine among those that share the login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetPolicy {
    pub role: Role,
    /// Its name, and a number that depends on machine and state directory.
    pub host: Arc<str>,
    /// The state directory on this machine, until it boots again: a container has a new name at each start.
    /// `None` if it is not there yet.
    pub place: Option<Fingerprint>,
}

/// Makes the hint for an account when it is needed: hardly ever, and as a text it would be a tenth of the
/// memory of an idle account.
#[derive(Clone)]
pub struct LoginHint(Arc<dyn Fn(&str) -> String + Send + Sync>);

impl LoginHint {
    /// `make` gets the name of the account.
    pub fn new(make: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }
}

impl Debug for LoginHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginHint")
    }
}

impl Deref for Policy {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.terms
    }
}

impl DerefMut for Policy {
    fn deref_mut(&mut self) -> &mut Terms {
        Arc::make_mut(&mut self.terms)
    }
}

impl Policy {
    /// The user's next step for a new login.
    pub fn login_hint(&self) -> String {
        (self.terms.login_hint.0)(&self.account)
    }

    /// A record before the first login.
    pub fn new_record(&self) -> Record {
        let login = self.from.as_ref().unwrap_or(&self.account);
        let mut record = Record::new(&**login, &*self.config);
        if self.from.is_some() {
            record.seen_by(&self.account);
        }
        record
    }
}
