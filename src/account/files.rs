//! The files of one account: state, lock and token file. One function for each file action of the core.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::account::info_file::Info;
use crate::account::token_file::{Observation, Prepared, PublishError};
use crate::config;
use crate::config::{TokenFile, WriteMode};
use crate::problem::{Class, Problem};
use crate::refresh::LockFailure;
use crate::refresh::decide::{FileView, Loaded};
use crate::refresh::record::{AccessToken, Record};
use crate::secret::{Fingerprint, Secret};
use crate::store;
use crate::store::lock::LockError;
use crate::store::state::{StateError, Store, Stored};

/// Every function that reads or writes blocks for as long as the file system takes.
#[derive(Debug)]
pub struct Files {
    account: String,
    config: String,
    settings: Arc<config::Settings>,
    store: Store,
    token_file: TokenFile,
    info_file: Option<TokenFile>,
    /// The number of the newest token in the state.
    generation: u64,
    format: config::TokenFormat,
    /// The token file's next version, ready before the request is made.
    prepared: Option<Prepared>,
    swept: bool,
}

impl Files {
    /// Opens nothing. `swept`: the temporaries of killed processes are removed already.
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

    pub fn swept(&self) -> bool {
        self.swept
    }

    pub fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Reads the state alone.
    pub fn load_state(&mut self) -> Result<Stored, Problem> {
        load_state(&mut self.store, &self.account, &self.config)
    }

    /// Reads state and token file.
    pub fn load(&mut self) -> Result<Box<Loaded>, Problem> {
        let (record, garbage) = self.load_state()?.into_parts();
        let garbage = garbage.map(|why| format!("state file {} {why}", self.store.path().display()));
        if let Some(record) = &record {
            self.generation = record.generation;
        }
        let file = self.view_token_file(record.as_ref());
        Ok(Box::new(Loaded { record, garbage, file }))
    }

    /// Takes the lock and loads again; a damaged state is renamed.
    pub fn lock(&mut self) -> Result<Box<Loaded>, LockFailure> {
        match self.store.try_lock() {
            Ok(()) => {}
            Err(LockError::Busy { .. } | LockError::Replaced { .. }) => {
                self.store.unlock();
                return Err(LockFailure::Busy);
            }
            Err(error) => return Err(LockFailure::Problem(StateError::from(error).into())),
        }
        let loaded = self.load().and_then(|mut loaded| {
            if loaded.garbage.is_some() {
                loaded.garbage = Some(self.store.put_aside()?.display().to_string());
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
        let is_in_use = |other: &Record| {
            belongs_elsewhere(other, config)
                || settings.accounts.iter().any(|account| account.name.as_str() == other.account)
        };
        Ok(self.store.find_seed(seed, is_in_use)?)
    }

    /// Creates the next token file and state, so that nothing can fail after the request, then
    /// stores the marker.
    pub fn prepare(&mut self, record: &Record) -> Result<(), Problem> {
        let prepared = self.token_file.prepare()?;
        if !self.swept {
            // The temporaries of killed processes do no harm: no reason to fail.
            let _ = (prepared.sweep(), self.store.sweep());
            self.swept = true;
        }
        self.prepared = Some(prepared);
        Ok(self.store.prepare(record)?)
    }

    /// Creates the next token file and state, and stores nothing.
    pub fn reserve(&mut self) -> Result<(), Problem> {
        self.prepared = Some(self.token_file.prepare()?);
        Ok(self.store.reserve()?)
    }

    pub fn persist(&mut self, record: &Record) -> Result<(), Problem> {
        self.generation = record.generation;
        Ok(self.store.persist(record)?)
    }

    /// Replaces the token file, then the info file.
    pub fn publish(&mut self, token: &AccessToken) -> Result<(), Problem> {
        let content = render(&self.format, token);
        let prepared = match self.prepared.take() {
            Some(prepared) => prepared,
            None => self.token_file.prepare()?,
        };
        prepared.publish(&content)?;
        if let Some(info_file) = &self.info_file {
            info_file.prepare()?.publish(&self.info(token, &content))?;
        }
        Ok(())
    }

    /// Removes the token file and the info file, if the token file still holds this token.
    pub fn withdraw(&mut self, token: &AccessToken) -> Result<(), Problem> {
        if self.token_file.observe().holds(&render(&self.format, token)) {
            self.token_file.remove()?;
            self.info_file.as_ref().map_or(Ok(()), TokenFile::remove)?;
        }
        Ok(())
    }

    /// Removes the token file and the info file, whatever they hold. One that is a mount point cannot be
    /// removed and becomes empty.
    pub fn remove(&mut self) -> Result<(), Problem> {
        let is_there = |file: &&TokenFile| file.path.symlink_metadata().is_ok();
        for file in [Some(&self.token_file), self.info_file.as_ref()].into_iter().flatten().filter(is_there) {
            match file.write {
                WriteMode::Replace => file.remove()?,
                WriteMode::InPlace => file.prepare()?.publish(&Secret::new(""))?,
            }
        }
        Ok(())
    }

    fn info(&self, token: &AccessToken, content: &Secret) -> Secret {
        Info::new(&self.account, self.generation, token, content).render()
    }

    /// Releases the lock and removes the prepared files.
    pub fn unlock(&mut self) {
        self.prepared = None;
        self.store.unlock();
    }

    fn view_token_file(&self, record: Option<&Record>) -> FileView {
        let observation = self.token_file.observe();
        let is_current = |token: &AccessToken| {
            let content = render(&self.format, token);
            let has_info = |file: &TokenFile| file.observe().holds(&self.info(token, &content));
            observation.holds(&content) && self.info_file.as_ref().is_none_or(has_info)
        };
        let is_current = record.and_then(|record| record.access_token.as_ref()).is_some_and(is_current);
        match observation {
            _ if is_current => FileView::Current,
            Observation::Missing => FileView::Missing,
            Observation::Holds { modified_at, .. } => FileView::Other { modified_at },
            // The next publication reports the reason.
            Observation::Unreadable(_) => FileView::Other { modified_at: 0 },
        }
    }
}

/// Reads the state, which must not be another config's: both would use one refresh token.
pub fn load_state(store: &mut Store, account: &str, config: &str) -> Result<Stored, Problem> {
    match store.load()? {
        Stored::Record(record) if belongs_elsewhere(&record, config) => Err(Problem {
            class: Class::Config,
            kind: "state_of_other_config".into(),
            message: format!(
                "the state of account {account} belongs to {}, which still exists",
                record.config
            ),
            hint: Some("give each config a state_dir of its own, or remove the other config".into()),
        }),
        stored => Ok(stored),
    }
}

/// Whether the state belongs to another config file that still exists. One file may have several paths.
fn belongs_elsewhere(record: &Record, config: &str) -> bool {
    let file = |path: &str| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    record.config != config && file(&record.config).is_some_and(|theirs| file(config) != Some(theirs))
}

pub fn render(format: &config::TokenFormat, token: &AccessToken) -> Secret {
    format.render(&token.value, &token.token_type, token.expires_at().wall / 1000)
}

impl From<StateError> for Problem {
    fn from(error: StateError) -> Self {
        Self::new(&error, error.class(), "state", error.hint())
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        Self::new(&error, error.class(), "token_file", error.hint())
    }
}
