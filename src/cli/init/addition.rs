//! An account for a config that exists: the change is shown, then made.

use std::path::Path;

use crate::cli::config_file::{ConfigFile, show};
use crate::cli::init::answers::Answers;
use crate::cli::init::ask::Source;
use crate::cli::init::document;
use crate::cli::init::error::InitError;
use crate::config::addition::{Addition, is_flat, prove};
use crate::config::edit::quoted;
use crate::config::{self, Environment, Settings, Symlinks};
use crate::files::Attributes;

/// A config that exists, and is valid.
pub(super) struct Existing {
    file: ConfigFile,
    settings: Settings,
}

impl Existing {
    pub(super) fn read(path: &Path, environment: &Environment) -> Result<Self, InitError> {
        let settings = config::load(path, environment, Symlinks::Keep).map_err(InitError::Existing)?;
        Ok(Self { file: ConfigFile::read(path)?, settings })
    }

    pub(super) fn has(&self, account: &str) -> bool {
        self.settings.accounts.iter().any(|known| known.name.as_str() == account)
    }

    /// Whether it has no table for its account yet.
    pub(super) fn is_flat(&self) -> bool {
        is_flat(&self.file.text)
    }

    /// Shows the change on standard output, and makes it if `agrees`. Nothing else in the config changes.
    pub(super) fn add(
        &self,
        answers: &Answers,
        environment: &Environment,
        agrees: impl FnOnce() -> Result<bool, InitError>,
    ) -> Result<Settings, InitError> {
        let line = token_file_line(environment);
        let table = document::table(answers, document::Secrets::Written);
        let addition = Addition::new(&self.file.text, &table, &line)?;
        let text = addition.text();
        let settings = prove(&self.file.text, &text, &table, &self.file.path, environment)?;
        let masked = document::table(answers, document::Secrets::Masked);
        let shown = Addition::new(&self.file.text, &masked, &line)?;
        show(&self.file.path, shown.lines());
        if !agrees()? {
            return Err(InitError::NotConfirmed);
        }
        self.store(&text, answers)?;
        Ok(settings)
    }

    /// The new file keeps owner and mode, but a new secret is for its owner alone.
    fn store(&self, text: &str, answers: &Answers) -> Result<(), InitError> {
        let is_inline = |source: &Option<Source>| matches!(source, Some(Source::Inline(_)));
        let mut attributes = self.file.attributes;
        if is_inline(&answers.client_secret) || is_inline(&answers.refresh_token) {
            attributes = Attributes { mode: attributes.mode & 0o700, group: None, ..attributes };
        }
        Ok(self.file.replace(text, attributes)?)
    }
}

/// A table has no default for `token_file`, as a flat config has.
fn token_file_line(environment: &Environment) -> String {
    let path = environment.zerogravity_token().unwrap_or_default();
    let in_home = environment.home.as_ref().and_then(|home| path.strip_prefix(home).ok());
    let path = in_home.map_or_else(|| path.clone(), |path| Path::new("~").join(path));
    format!("token_file = {}\n", quoted(&path.to_string_lossy()))
}
