//! Paths of the config, and the files that are written to them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

use crate::config::document::RawFile;
use crate::config::keys::{AccountKeys, RawOutput, or_default};
use crate::config::problem::{ConfigProblem, bad_value};
use crate::config::settings::{OutputConfig, TokenFile, WriteMode};
use crate::config::validate::Scope;
use crate::config::values::{missing, mode, principal, template, write_mode};
use crate::files::Missing;

impl Scope<'_> {
    /// With the place of its path.
    pub(super) fn output(
        &self,
        raw: Spanned<RawOutput>,
    ) -> Result<(OutputConfig, Range<usize>), ConfigProblem> {
        let (place, raw) = (raw.span(), raw.into_inner());
        let path = raw.path.ok_or_else(|| missing("outputs.path", place, ""))?;
        let file = TokenFile {
            mode: mode("outputs.mode", &or_default("outputs.mode", raw.mode))?,
            owner: raw.owner.map(|raw| principal("outputs.owner", raw)).transpose()?,
            group: raw.group.map(|raw| principal("outputs.group", raw)).transpose()?,
            write: write_mode("outputs.write", raw.write)?,
            ..self.place("outputs.path", &path)?
        };
        let format = template("outputs.format", &or_default("outputs.format", raw.format))?;
        Ok((OutputConfig { file, format }, path.span()))
    }

    /// The token files of accounts, where their paths are valid.
    pub(super) fn token_files(&self, raw: &RawFile) -> Vec<PathBuf> {
        let accounts = raw.accounts.iter().flatten();
        let texts = accounts.filter_map(|entry| match &entry.keys {
            AccountKeys::Simple { token_file, .. } => token_file.as_ref(),
            AccountKeys::Any(raw) => raw.token_file.as_ref(),
        });
        texts.filter_map(|text| self.path("token_file", text).ok()).collect()
    }

    pub(super) fn place(&self, key: &str, path: &Spanned<String>) -> Result<TokenFile, ConfigProblem> {
        Ok(self.private_file(self.path(key, path)?))
    }

    /// A file of this path for nobody else.
    pub(super) fn private_file(&self, path: PathBuf) -> TokenFile {
        let missing = self.missing(&path);
        TokenFile { path, mode: 0o600, owner: None, group: None, missing, write: WriteMode::Replace }
    }

    /// A directory that is missing at home is no disk that is not mounted (XDG Base Directory
    /// Specification).
    pub(super) fn missing(&self, path: &Path) -> Missing {
        if self.is_in_home(path) { Missing::CreateAll } else { Missing::CreateLast }
    }

    /// `value` with `~/` expanded, and relative to the directory of the config file.
    pub(super) fn path(&self, key: &str, value: &Spanned<String>) -> Result<PathBuf, ConfigProblem> {
        let text = value.get_ref().as_str();
        let (what, hint) = if text.trim().is_empty() {
            ("is empty", "write the path of a file, or leave the key out")
        } else if text.contains('\0') {
            ("contains a NUL character", "write the path of a file, or leave the key out")
        } else if text.split('/').any(is_variable) {
            (
                "contains a variable, which nothing here replaces",
                "write the path in full, or ~/ for the home directory",
            )
        } else if let Some(rest) = text.strip_prefix("~/") {
            match &self.environment.home {
                Some(home) => return Ok(home.join(rest)),
                None => (
                    "begins with `~/`, but no home directory is known",
                    "set HOME, or write the path in full",
                ),
            }
        } else if text.starts_with('~') {
            (
                "begins with `~`, but not with `~/`",
                "write the path in full, or ./~ for a name that begins with ~",
            )
        } else {
            return Ok(self.path.parent().unwrap_or(Path::new("")).join(text));
        };
        Err(bad_value(key, value.span(), what, hint))
    }

    /// Below the home directory or the config directory, unless that is the root of everything.
    pub(super) fn is_in_home(&self, path: &Path) -> bool {
        let path = (self.real)(path);
        self.homes.iter().any(|home| path.starts_with(home))
    }
}

/// Whether a part of a path begins as a variable of a shell or a specifier of systemd.
fn is_variable(part: &str) -> bool {
    let rest = part.strip_prefix('$').map(|rest| rest.strip_prefix('{').unwrap_or(rest));
    let rest = rest.or_else(|| part.strip_prefix('%'));
    rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
}
