//! One account's files: state, lock and token file, as the core's actions want them.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::account::info_file::Info;
use crate::account::token_file::{Observation, Prepared, PublishError};
use crate::config;
use crate::config::TokenFile;
use crate::problem::{Class, Problem};
use crate::refresh::LockFailure;
use crate::refresh::decide::{FileView, Loaded};
use crate::refresh::record::{AccessToken, Record};
use crate::secret::{Fingerprint, Secret};
use crate::store;
use crate::store::lock::LockError;
use crate::store::state::{StateError, Store, Stored};

/// The files of one account. Everything here blocks, for as long as a disk takes.
#[derive(Debug)]
pub struct Files {
    account: String,
    config: String,
    settings: Arc<config::Settings>,
    store: Store,
    token_file: TokenFile,
    /// The file beside it that tells of the token, if it is wanted.
    info_file: Option<TokenFile>,
    /// The number of the newest token, as the state has it.
    generation: u64,
    format: config::TokenFormat,
    /// The token file's next version, ready before the request is made.
    prepared: Option<Prepared>,
    swept: bool,
}

impl Files {
    /// Opens nothing yet. `swept` says that what killed runs left behind was removed before.
    pub fn new(settings: &Arc<config::Settings>, account: &config::AccountConfig, swept: bool) -> Self {
        Self {
            account: account.name.to_string(),
            config: settings.path.to_string_lossy().into_owned(),
            settings: Arc::clone(settings),
            store: store::open(settings, &account.name),
            token_file: account.token_file.clone(),
            info_file: account.token_file_info.then(|| account.token_file.info_file()),
            generation: 0,
            format: account.token_format.clone(),
            prepared: None,
            swept,
        }
    }

    /// Whether what killed runs left behind has been removed.
    pub fn swept(&self) -> bool {
        self.swept
    }

    /// The state's store.
    pub fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Reads state and token file.
    pub fn load(&mut self) -> Result<Box<Loaded>, Problem> {
        let (record, garbage) = load_state(&mut self.store, &self.account, &self.config)?;
        let garbage = garbage.map(|why| format!("state file {} {why}", self.store.path().display()));
        self.generation = record.as_ref().map_or(self.generation, |record| record.generation);
        let file = self.look_at_token_file(record.as_ref());
        Ok(Box::new(Loaded { record, garbage, file }))
    }

    /// Takes the lock and loads again; a state that is damaged is put aside.
    pub fn lock(&mut self) -> Result<Box<Loaded>, LockFailure> {
        match self.store.try_lock() {
            Ok(()) => {}
            Err(LockError::Busy { .. } | LockError::Replaced { .. }) => {
                self.store.unlock();
                return Err(LockFailure::Busy);
            }
            Err(error) => return Err(LockFailure::Problem(state_problem(&error.into()))),
        }
        let loaded = self.load().and_then(|mut loaded| {
            if loaded.garbage.is_some() {
                let path = self.store.put_aside().map_err(|error| state_problem(&error))?;
                loaded.garbage = Some(path.display().to_string());
            }
            Ok(loaded)
        });
        loaded.map_err(|problem| {
            self.unlock();
            LockFailure::Problem(problem)
        })
    }

    /// Finds the state of an account that is no longer configured and knows this seed.
    pub fn take_over(&mut self, seed: Fingerprint) -> Result<Option<Box<Record>>, Problem> {
        let (settings, config) = (&self.settings, &self.config);
        let still_in_use = |other: &Record| {
            let configured =
                || settings.accounts.iter().any(|account| account.name.as_str() == other.account);
            belongs_elsewhere(other, config) || configured()
        };
        self.store.find_seed(seed, still_in_use).map_err(|error| state_problem(&error))
    }

    /// Gets everything ready that can fail before a token is spent, then stores the marker.
    pub fn prepare(&mut self, record: &Record) -> Result<(), Problem> {
        let prepared = self.prepare_token_file()?;
        if !self.swept {
            // Files that killed runs left are litter, and no reason to fail.
            let _ = (prepared.sweep(), self.store.sweep());
            self.swept = true;
        }
        self.prepared = Some(prepared);
        self.store.prepare(record).map_err(|error| state_problem(&error))
    }

    /// Stores the record.
    pub fn persist(&mut self, record: &Record) -> Result<(), Problem> {
        self.generation = record.generation;
        self.store.persist(record).map_err(|error| state_problem(&error))
    }

    /// Replaces the token file, then the one beside it.
    pub fn publish(&mut self, token: &AccessToken) -> Result<(), Problem> {
        let content = render(&self.format, token);
        let prepared = match self.prepared.take() {
            Some(prepared) => prepared,
            None => self.prepare_token_file()?,
        };
        prepared.publish(&content).map_err(|error| publish_problem(&error))?;
        let Some(info_file) = &self.info_file else { return Ok(()) };
        let info = self.info(token, &content);
        info_file
            .prepare()
            .and_then(|prepared| prepared.publish(&info))
            .map_err(|error| publish_problem(&error))
    }

    /// Removes the token file, and the one beside it, if it still holds this token.
    pub fn withdraw(&mut self, token: &AccessToken) -> Result<(), Problem> {
        let content = render(&self.format, token).fingerprint();
        let holds_it = matches!(self.token_file.observe(), Observation::Holds { fingerprint, .. } if fingerprint == content);
        if !holds_it {
            return Ok(());
        }
        let files = [Some(&self.token_file), self.info_file.as_ref()];
        files.into_iter().flatten().try_for_each(TokenFile::remove).map_err(|error| publish_problem(&error))
    }

    fn info(&self, token: &AccessToken, content: &Secret) -> Secret {
        let (issued_at, expires_at) = (token.issued_at.wall / 1000, token.expires_at().wall / 1000);
        Info::new(&self.account, self.generation, issued_at, expires_at, content.fingerprint()).render()
    }

    /// Lets go of the lock and of everything prepared.
    pub fn unlock(&mut self) {
        self.prepared = None;
        self.store.unlock();
    }

    fn prepare_token_file(&self) -> Result<Prepared, Problem> {
        self.token_file.prepare().map_err(|error| publish_problem(&error))
    }

    /// Whether the files hold this token; `found` is the token file's fingerprint.
    fn is_current(&self, token: &AccessToken, found: Fingerprint) -> bool {
        let content = render(&self.format, token);
        let info = self.info_file.as_ref().is_none_or(|file| {
            let info = self.info(token, &content).fingerprint();
            matches!(file.observe(), Observation::Holds { fingerprint, .. } if fingerprint == info)
        });
        content.fingerprint() == found && info
    }

    fn look_at_token_file(&self, record: Option<&Record>) -> FileView {
        let wanted = record.and_then(|record| record.access_token.as_ref());
        match self.token_file.observe() {
            Observation::Missing => FileView::Missing,
            Observation::Holds { fingerprint, .. }
                if wanted.is_some_and(|token| self.is_current(token, fingerprint)) =>
            {
                FileView::Current
            }
            Observation::Holds { modified_at, .. } => FileView::Other { modified_at },
            // Whatever it is: when it is to be replaced, the reason will be said.
            Observation::Unreadable(_) => FileView::Other { modified_at: 0 },
        }
    }
}

/// Reads the state, or why it is not one. The state of another config is an error: two configs must
/// not use one refresh token.
pub fn load_state(
    store: &mut Store,
    account: &str,
    config: &str,
) -> Result<(Option<Record>, Option<String>), Problem> {
    match store.load().map_err(|error| state_problem(&error))? {
        Stored::Nothing => Ok((None, None)),
        Stored::Garbage(why) => Ok((None, Some(why))),
        Stored::Record(record) if !belongs_elsewhere(&record, config) => Ok((Some(*record), None)),
        Stored::Record(record) => Err(Problem {
            class: Class::Config,
            kind: "state_of_other_config".into(),
            message: format!(
                "the state of account {account} belongs to {}, which still exists",
                record.config
            ),
            hint: Some("give each config a state_dir of its own, or remove the other config".into()),
        }),
    }
}

/// Whether the state is another config's, which still exists. One file may have several paths.
fn belongs_elsewhere(record: &Record, config: &str) -> bool {
    let file = |path: &str| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    record.config != config && file(&record.config).is_some_and(|theirs| file(config) != Some(theirs))
}

/// The content of the token file.
pub fn render(format: &config::TokenFormat, token: &AccessToken) -> Secret {
    format.render(&token.value, &token.token_type, token.expires_at().wall / 1000)
}

/// A failure of the state, as the core counts it.
fn state_problem(error: &StateError) -> Problem {
    Problem::new(error, error.class(), "state", error.hint())
}

fn publish_problem(error: &PublishError) -> Problem {
    Problem::new(error, error.class(), "token_file", error.hint())
}
