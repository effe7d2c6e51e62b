//! The config file where a command changes it: the change is shown, then made at once or not at all.

use std::path::{Path, PathBuf};

use anstyle::AnsiColor;
use zeroize::Zeroizing;

use crate::cli::output;
use crate::config::addition::LineChange;
use crate::config::{self, Environment, Settings};
use crate::files::{
    Attributes, Contents, Directory, FileError, Missing, PlaceError, Rules, Target, Temporary,
};
use crate::problem::{Class, Problem, chain};

/// A config as it was read.
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) text: Zeroizing<String>,
    /// Its own: a new version keeps them.
    pub(super) attributes: Attributes,
}

/// Why a file was not replaced.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplaceError {
    #[error("nothing was written: {} was changed meanwhile", .0.display())]
    Edited(PathBuf),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl ReplaceError {
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Edited(_) => Some("run the command again".into()),
            Self::Place(error) => error.hint(),
            Self::File(error) => error.hint(),
        }
    }
}

impl From<ReplaceError> for Problem {
    fn from(error: ReplaceError) -> Self {
        let class = match &error {
            ReplaceError::Edited(_) => Class::Busy,
            ReplaceError::Place(error) => error.class(),
            ReplaceError::File(error) => error.class(),
        };
        Self::new(&error, class, "file", error.hint())
    }
}

impl ConfigFile {
    /// Reads a config that was loaded before, so that it is UTF-8. Removes the temporary files of killed
    /// processes beside it, which may have secrets.
    pub(super) fn read(path: &Path) -> Result<Self, ReplaceError> {
        let directory = path.parent().unwrap_or(Path::new(""));
        if let Ok(directory) = Directory::open(directory, &Rules::private(Missing::Refuse)) {
            let _ = directory.sweep(None);
        }
        let contents = Contents::of_path(path, config::MAX_LEN)?;
        let contents = contents.ok_or_else(|| ReplaceError::Edited(path.to_owned()))?;
        let text = Zeroizing::new(String::from_utf8_lossy(&contents.bytes).into_owned());
        let user = rustix::process::geteuid().as_raw();
        let is_shared = contents.mode & 0o070 != 0;
        let attributes = Attributes {
            mode: contents.mode,
            owner: (contents.uid != user).then_some(contents.uid),
            group: is_shared.then_some(contents.gid),
        };
        Ok(Self { path: path.to_owned(), text, attributes })
    }

    /// Replaces it durably, unless somebody has edited it since.
    pub(super) fn replace(&self, text: &str, attributes: Attributes) -> Result<(), ReplaceError> {
        let target = Target::resolve(&self.path, &Rules::private(Missing::Refuse))?;
        let mut temporary = Temporary::create(&target, attributes)?;
        temporary.write_all(text.as_bytes())?;
        let now = Contents::of_path(&self.path, config::MAX_LEN)?;
        if now.is_none_or(|now| now.bytes.as_slice() != self.text.as_bytes()) {
            return Err(ReplaceError::Edited(self.path.clone()));
        }
        Ok(temporary.commit()?)
    }
}

/// The settings of a changed text.
pub(super) fn parse(settings: &Settings, text: &str) -> Result<Settings, Problem> {
    let changed = config::parse(text, &settings.path, &Environment::of_process()).map_err(|error| {
        let problem = Problem::of(Class::Config, "config", "the changed config would not be valid");
        Problem { hint: error.hint(), ..problem.cause(chain(&error)) }
    })?;
    Ok(Settings { missing_state_dir: settings.missing_state_dir, ..changed })
}

/// Replaces a file durably.
pub(super) fn replace(path: &Path, attributes: Attributes, bytes: &[u8]) -> Result<(), ReplaceError> {
    let target = Target::resolve(path, &Rules::private(Missing::Refuse))?;
    let mut temporary = Temporary::create(&target, attributes)?;
    temporary.write_all(bytes)?;
    Ok(temporary.commit()?)
}

/// Shows the lines that change. Of the others, some hold secrets.
pub(super) fn show(path: &Path, lines: &[LineChange<'_>]) {
    output::print_line(format!("change of {}:", path.display()));
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
