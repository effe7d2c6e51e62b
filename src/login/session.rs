//! A login that is prepared: what its steps share.

use std::cell::Cell;
use std::fs::File;
use std::sync::Arc;

use crate::account::client::Client;
use crate::account::context::Context;
use crate::account::files::Files;
use crate::account::sealing::{self, KeyUse};
use crate::account::set::{has_login, lock};
use crate::clock::SystemClock;
use crate::config::{AccountConfig, SecretSource, Settings};
use crate::login::request::Nonces;
use crate::login::server::LoginServer;
use crate::oauth::Identity;
use crate::problem::{Class, Problem};
use crate::refresh::record::Record;
use crate::secret::Fingerprint;
use crate::store;
use crate::store::lock::LockError;
use crate::store::seal::StateKeys;
use crate::store::state::StateError;
use crate::workers;

/// The wishes of the command line.
#[derive(Debug, Default)]
pub struct LoginOptions {
    /// The whole scope.
    pub scope: Option<String>,
    /// Another user than the last one may log in.
    pub other_identity: bool,
}

/// The result of a login.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    pub identity: Option<Identity>,
    /// Worth a warning each, with the next step.
    pub warnings: Vec<(String, String)>,
}

/// A login that is prepared: everything that can fail before the user is asked has not failed.
pub struct LoginSession {
    pub(super) settings: Arc<Settings>,
    pub(super) account: Arc<AccountConfig>,
    pub(super) context: Context,
    pub(super) client: Client,
    pub(super) server: LoginServer,
    pub(super) options: LoginOptions,
    /// They seal the new login.
    pub(super) keys: Option<Arc<StateKeys>>,
    /// The configured refresh_token, which counts as older than this login.
    pub(super) older: OlderSeed,
    /// An answer is being exchanged, and must be stored.
    pub(super) exchanging: Cell<bool>,
    /// Closing it lets another login begin.
    _one_at_a_time: File,
}

/// The refresh_token in the config.
#[derive(Debug, Clone, Copy)]
pub(super) enum OlderSeed {
    None,
    Known(Fingerprint),
    /// It cannot be read here.
    Unread,
}

impl LoginSession {
    pub async fn prepare(
        settings: &Arc<Settings>,
        account: &Arc<AccountConfig>,
        context: Context,
        options: LoginOptions,
    ) -> Result<Self, Problem> {
        has_login(account)?;
        let client = Client::new(settings, account);
        let one_at_a_time = one_at_a_time(settings, account)?;
        let keys = sealing::read_keys(settings, account, KeyUse::Replace, context.inline).await?;
        let inputs = client.read_inputs(&context).await?;
        let older = match (&inputs.seed, &inputs.seed_problem) {
            (Some(seed), _) => OlderSeed::Known(seed.fingerprint()),
            // A file that does not exist yet will hold a newer login.
            (None, Some(_)) if !is_missing_file(account) => OlderSeed::Unread,
            _ => OlderSeed::None,
        };
        let server =
            LoginServer::find(&client, &client.account(), &context, &inputs.client, options.scope.as_deref())
                .await?;
        let login = Self {
            settings: Arc::clone(settings),
            account: Arc::clone(account),
            context,
            client,
            server,
            options,
            keys,
            older,
            exchanging: Cell::new(false),
            _one_at_a_time: one_at_a_time,
        };
        let Held { record, .. } = login.lock(true).await?;
        login.check_identity_is_askable(&record)?;
        Ok(login)
    }

    pub fn server(&self) -> &LoginServer {
        &self.server
    }

    /// True while the server's answer is only in memory.
    pub fn is_exchanging(&self) -> bool {
        self.exchanging.get()
    }

    /// Takes the lock of the account, and with `reserve` room for the login.
    pub(super) async fn lock(&self, reserve: bool) -> Result<Held, Problem> {
        let (settings, account) = (Arc::clone(&self.settings), Arc::clone(&self.account));
        let keys = self.keys.clone();
        workers::run(move || {
            let mut files = Files::new(&settings, &account, true).with_keys(keys);
            let record = lock(&mut files, SystemClock::new())?;
            if reserve {
                files.reserve()?;
            }
            let config = settings.path.to_string_lossy();
            let record = record.unwrap_or_else(|| Record::new(account.name.as_str(), config));
            Ok(Held { files, record })
        })
        .await
    }

    /// A config that names the user is no use if nothing tells who has logged in.
    fn check_identity_is_askable(&self, record: &Record) -> Result<(), Problem> {
        let scope = self.server.scope.as_deref().unwrap_or_default();
        let is_asked = scope.split(' ').any(|word| word == "openid");
        if is_asked || self.account.login.identity.is_none() || record.identity.is_some() {
            return Ok(());
        }
        Err(Problem::of(
            Class::Config,
            "identity",
            "identity is set, and the login would not show who the user is",
        )
        .cause("the scope of the login does not ask for it")
        .hint("add openid to login_scope, or remove identity"))
    }
}

/// The account's files under its lock, which ends when this is dropped.
pub(super) struct Held {
    pub(super) files: Files,
    pub(super) record: Record,
}

fn one_at_a_time(settings: &Settings, account: &AccountConfig) -> Result<File, Problem> {
    store::open(settings, account).lock_login().map_err(|error| match error {
        LockError::Busy { .. } => Problem {
            class: Class::Busy,
            kind: "login_under_way".into(),
            message: "another login for this account is under way".into(),
            cause: None,
            hint: Some("finish that one, or end it: pgrep -a zg-tokend".into()),
        },
        error => StateError::from(error).into(),
    })
}

fn is_missing_file(account: &AccountConfig) -> bool {
    matches!(&account.refresh_token, Some(SecretSource::File(path)) if path.symlink_metadata().is_err())
}

/// The user, or the server for the user, said no.
pub(super) fn denied(said: &str) -> Problem {
    Problem::of(Class::NeedsLogin, "access_denied", format!("the login was denied: {said}"))
        .hint("log in again and consent, with a user who may use this client")
}

pub(super) fn new_nonces() -> Result<Nonces, Problem> {
    let mut random = [0; 96];
    getrandom::fill(&mut random).map_err(|_| Problem::no_random())?;
    Ok(Nonces::new(&random))
}
