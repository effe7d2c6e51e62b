//! The files of one account: state, lock and token file. One function for each file action of the core.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::account::machine::note_machine;
use crate::account::origin;
use crate::account::origin::{ahead_of_mates, observe_mates};
use crate::account::outputs::Outputs;
use crate::account::token_file::Observation;
use crate::account::{plain_copy, sealing};
use crate::config;
use crate::problem::{Class, Problem};
use crate::refresh::LockFailure;
use crate::refresh::decide::{FileView, Loaded, Origin};
use crate::refresh::record::{AccessToken, Record};
use crate::secret::Fingerprint;
use crate::store;
use crate::store::document::Stored;
use crate::store::lock::LockError;
use crate::store::seal::{SealRules, StateKeys};
use crate::store::state::{StateError, Store};

/// Every function that reads or writes blocks for as long as the file system takes.
#[derive(Debug)]
pub struct Files {
    configured: Arc<config::AccountConfig>,
    account: String,
    config: String,
    settings: Arc<config::Settings>,
    rules: SealRules,
    store: Store,
    outputs: Outputs,
    /// The number of the newest token.
    generation: u64,
    /// The login of that token, if it is stored.
    origin: Option<Origin>,
    swept: bool,
    moved: bool,
    /// The config has secrets in sealed files.
    has_sealed_secrets: bool,
}

impl Files {
    /// Opens nothing. `swept`: the temporaries of killed processes are removed already.
    pub fn new(settings: &Arc<config::Settings>, account: &Arc<config::AccountConfig>, swept: bool) -> Self {
        Self {
            configured: Arc::clone(account),
            account: account.name.to_string(),
            config: settings.path.to_string_lossy().into_owned(),
            settings: Arc::clone(settings),
            rules: sealing::rules(account),
            store: store::open(settings, account),
            outputs: Outputs::new(account),
            generation: 0,
            origin: None,
            swept,
            moved: false,
            has_sealed_secrets: plain_copy::has_sealed_secrets(account),
        }
        .with_keys(None)
    }

    /// With the keys of the state, which open and seal it.
    #[must_use]
    pub fn with_keys(mut self, keys: Option<Arc<StateKeys>>) -> Self {
        self.set_keys(keys);
        self
    }

    pub fn set_keys(&mut self, keys: Option<Arc<StateKeys>>) {
        self.store.set_keys(keys, self.rules);
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

    /// Reads token file and state. In this order: a token is stored before it is published, so that
    /// a state that is older than the token file is never one that another process has just replaced.
    pub fn load(&mut self) -> Result<Box<Loaded>, Problem> {
        let seen = self.outputs.observe();
        let settings = Arc::clone(&self.settings);
        let mates = observe_mates(&settings, &self.configured);
        let (record, garbage) = self.load_state()?.into_parts();
        let garbage = garbage.map(|why| format!("state file {} {why}", self.store.path().display()));
        if let Some(record) = &record {
            self.origin = Some(origin::of_record(record));
            self.generation = record.generation;
        }
        let file = self.outputs.view(&seen, record.as_ref(), garbage.is_some());
        let file = with_mates(&mates, record.as_ref(), garbage.is_some(), file);
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

    /// Finds the state of an account that is no longer configured, or has no login any more, and knows this
    /// seed.
    pub fn take_over(&mut self, seed: Fingerprint) -> Result<Option<Box<Record>>, Problem> {
        let (settings, config) = (&self.settings, &self.config);
        let is_in_use = |other: &Record| {
            belongs_elsewhere(other, config)
                || settings
                    .accounts
                    .iter()
                    .any(|account| account.name.as_str() == other.account && account.from.is_none())
        };
        Ok(self.store.find_seed(seed, is_in_use)?)
    }

    /// Creates the next token file and state, so that nothing can fail after the request, then
    /// stores the marker.
    pub fn prepare(&mut self, record: &Record) -> Result<(), Problem> {
        self.outputs.prepare()?;
        if !self.swept {
            self.outputs.sweep();
            let _ = self.store.sweep();
            self.swept = true;
        }
        self.store.prepare(record)?;
        self.moved |= note_machine(&mut self.store);
        Ok(())
    }

    /// Whether the state was used on another machine before; tells it once.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Creates the next token file and state, and stores nothing.
    pub fn reserve(&mut self) -> Result<(), Problem> {
        self.outputs.prepare()?;
        Ok(self.store.reserve()?)
    }

    pub fn persist(&mut self, record: &Record) -> Result<(), Problem> {
        // A token whose login is not stored tells of no state.
        self.origin = None;
        self.generation = record.generation;
        self.store.persist(record)?;
        self.origin = Some(origin::of_record(record));
        Ok(())
    }

    /// Replaces the files that do not hold the token; returns the problems of outputs.
    pub fn publish(&mut self, token: &AccessToken) -> Result<Vec<Problem>, Problem> {
        let failed = self.outputs.publish(token, self.generation, self.origin)?;
        if self.has_sealed_secrets {
            // `status` and `check` name a copy that cannot be removed.
            let _ = plain_copy::remove_if_proved(&self.settings);
        }
        Ok(failed)
    }

    /// Removes the files that still hold this token.
    pub fn withdraw(&self, token: &AccessToken) -> Result<(), Problem> {
        self.outputs.withdraw(token)
    }

    /// Removes the files, whatever they hold. One that is a mount point cannot be removed and becomes
    /// empty.
    pub fn remove(&mut self) -> Result<(), Problem> {
        self.outputs.remove()
    }

    /// Releases the lock and removes the prepared files.
    pub fn unlock(&mut self) {
        self.outputs.forget();
        self.store.unlock();
    }
}

/// The view of the token file, or of that of another account of the login which is ahead of the state.
pub fn with_mates(
    mates: &[(&Arc<config::AccountConfig>, Observation)],
    record: Option<&Record>,
    is_garbage: bool,
    own: FileView,
) -> FileView {
    if is_garbage || matches!(own, FileView::Ahead(_)) {
        return own;
    }
    ahead_of_mates(mates, record).map_or(own, FileView::Ahead)
}

/// Reads the state, which must not be another config's: both would use one refresh token.
pub fn load_state(store: &mut Store, account: &str, config: &str) -> Result<Stored, Problem> {
    match store.load()? {
        Stored::Record(record) if belongs_elsewhere(&record, config) => Err(Problem::of(
            Class::Config,
            "state_of_other_config",
            format!("the state of account {account} belongs to {}, which still exists", record.config),
        )
        .hint("give each config a state_dir of its own, or remove the other config")),
        stored => Ok(stored),
    }
}

/// Whether the state belongs to another config file that still exists. One file may have several paths.
fn belongs_elsewhere(record: &Record, config: &str) -> bool {
    let file = |path: &str| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    record.config != config && file(&record.config).is_some_and(|theirs| file(config) != Some(theirs))
}

impl From<StateError> for Problem {
    fn from(error: StateError) -> Self {
        Self::new(&error, error.class(), "state", error.hint())
    }
}
