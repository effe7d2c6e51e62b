//! An account for a config that exists: the change is shown, then made.

use std::path::{Path, PathBuf};

use anstyle::AnsiColor;
use zeroize::Zeroizing;

use crate::cli::init::answers::{Answers, Source};
use crate::cli::init::{InitError, document};
use crate::cli::output;
use crate::config::addition::{Addition, LineChange, is_flat, prove};
use crate::config::{self, Environment, Settings, Symlinks};
use crate::files::read;
use crate::files::{Attributes, Missing, Rules, Target, Temporary};

/// A config that exists, and is valid.
pub(super) struct Existing {
    path: PathBuf,
    text: Zeroizing<String>,
    attributes: Attributes,
    settings: Settings,
}

impl Existing {
    pub(super) fn read(path: &Path, environment: &Environment) -> Result<Self, InitError> {
        let settings = config::load(path, environment, Symlinks::Keep).map_err(InitError::Existing)?;
        let contents = read::read(path, config::MAX_LEN).map_err(|source| {
            InitError::Existing(config::ConfigError::Read { path: path.to_owned(), source })
        })?;
        // It was UTF-8 when it was loaded.
        let text = Zeroizing::new(String::from_utf8_lossy(&contents.bytes).into_owned());
        let user = rustix::process::geteuid().as_raw();
        let is_shared = contents.mode & 0o070 != 0;
        let attributes = Attributes {
            mode: contents.mode,
            owner: (contents.uid != user).then_some(contents.uid),
            group: is_shared.then_some(contents.gid),
        };
        Ok(Self { path: path.to_owned(), text, attributes, settings })
    }

    pub(super) fn has(&self, account: &str) -> bool {
        self.settings.accounts.iter().any(|known| known.name.as_str() == account)
    }

    /// Whether it has no table for its account yet.
    pub(super) fn is_flat(&self) -> bool {
        is_flat(&self.text)
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
        let addition = Addition::new(&self.text, &table, &line)?;
        let text = addition.text();
        let settings = prove(&self.text, &text, &table, &self.path, environment)?;
        let masked = document::table(answers, document::Secrets::Masked);
        let shown = Addition::new(&self.text, &masked, &line)?;
        output::print_line(format!("change of {}:", self.path.display()));
        show(shown.lines());
        if !agrees()? {
            return Err(InitError::NotConfirmed);
        }
        self.store(&text, answers)?;
        Ok(settings)
    }

    /// The new file keeps owner and mode, but a new secret is for its owner alone.
    fn store(&self, text: &str, answers: &Answers) -> Result<(), InitError> {
        let is_inline = |source: &Option<Source>| matches!(source, Some(Source::Inline(_)));
        let mut attributes = self.attributes;
        if is_inline(&answers.client_secret) || is_inline(&answers.refresh_token) {
            attributes = Attributes { mode: attributes.mode & 0o700, group: None, ..attributes };
        }
        let target = Target::resolve(&self.path, &Rules::private(Missing::CreateAll))?;
        let mut temporary = Temporary::create(&target, attributes)?;
        temporary.write_all(text.as_bytes())?;
        // Somebody may have edited it while the questions were answered.
        let now = read::read(&self.path, config::MAX_LEN);
        if now.map_or(true, |now| now.bytes.as_slice() != self.text.as_bytes()) {
            return Err(InitError::Edited(self.path.clone()));
        }
        temporary.commit()?;
        Ok(())
    }
}

/// A table has no default for `token_file`, as a flat config has.
fn token_file_line(environment: &Environment) -> String {
    let path = environment.zerogravity_token().unwrap_or_default();
    let in_home = environment.home.as_ref().and_then(|home| path.strip_prefix(home).ok());
    let path = in_home.map_or_else(|| path.clone(), |path| Path::new("~").join(path));
    format!("token_file = {}\n", document::quoted(&path.to_string_lossy()))
}

/// The lines that change. Of the others, some hold secrets.
fn show(lines: &[LineChange<'_>]) {
    let mut is_gap = false;
    for line in lines {
        let (style, mark, text) = match line {
            LineChange::Kept(_) => {
                if !is_gap {
                    output::print_line("  …");
                }
                is_gap = true;
                continue;
            }
            LineChange::Removed(text) => (AnsiColor::Red.on_default(), '-', *text),
            LineChange::Added(text) => (AnsiColor::Green.on_default(), '+', text.as_str()),
        };
        is_gap = false;
        output::print_styled(style, format!("{mark} {}", text.trim_end_matches(['\r', '\n'])));
    }
}
