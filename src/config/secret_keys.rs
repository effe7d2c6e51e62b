//! The values that may come from elsewhere: secrets, and texts of a deployment.

use std::path::{Component, Path};
use std::sync::Arc;

use toml::Spanned;

use crate::config::keys::{RawAccount, RawForms, RawSecret, raw};
use crate::config::problem::{ConfigProblem, bad_value};
use crate::config::proxy::{NO_PROXY, proxy_url};
use crate::config::source::{EndpointSources, SealedFile, SecretSource};
use crate::config::validate::Scope;
use crate::config::values::{no_nul, refuse_pasted, text};
use crate::secret::Secret;

impl Scope<'_> {
    pub(super) fn with_state_keys(&self, top: &RawAccount) -> Result<Self, ConfigProblem> {
        let keys = [("state_key", &top.state_key), ("state_key_previous", &top.state_key_previous)];
        let sources = keys.into_iter().filter_map(|(name, raw)| {
            self.state_key(name, raw.clone()).map(|source| Some((name, source?))).transpose()
        });
        let state_keys = sources.collect::<Result<_, _>>()?;
        Ok(Scope { accounts: Vec::new(), state_keys, ..*self })
    }

    pub(super) fn of_accounts(&self, accounts: impl IntoIterator<Item = String>) -> Self {
        let accounts = accounts.into_iter().collect();
        Scope { accounts, state_keys: self.state_keys.clone(), ..*self }
    }

    pub(super) fn secret(&self, key: &str, raw: raw::Secret) -> Result<SecretSource, ConfigProblem> {
        let span = raw.span();
        let forms = match raw.into_inner() {
            RawSecret::Text(secret) => {
                return SecretSource::secret_from(secret.expose().as_bytes())
                    .map(SecretSource::Inline)
                    .map_err(|flaw| bad_value(key, span, flaw, secret_hint(key)));
            }
            RawSecret::Other(forms) => forms,
        };
        let RawForms { file, env, command, credential, sealed } = forms;
        match (file, env, command, credential, sealed) {
            (Some(path), None, None, None, None) => {
                refuse_pasted(key, "file", path.span(), path.get_ref())?;
                Ok(SecretSource::File(self.path(key, &path)?))
            }
            (None, Some(name), None, None, None) => {
                refuse_pasted(key, "env", name.span(), name.get_ref())?;
                if name.get_ref().is_empty() || name.get_ref().contains(['=', '\0']) {
                    let hint = format!("for example: {key} = {{ env = \"ZG_SECRET\" }}");
                    return Err(bad_value(
                        key,
                        name.span(),
                        "has a bad name of an environment variable",
                        hint,
                    ));
                }
                Ok(SecretSource::Env(name.into_inner()))
            }
            (None, None, Some(argv), None, None) => self.command(key, argv).map(SecretSource::Command),
            (None, None, None, Some(name), None) => {
                refuse_pasted(key, "credential", name.span(), name.get_ref())?;
                // The names that systemd takes: those of plain files.
                let mut parts = Path::new(name.get_ref()).components();
                let is_file_name =
                    matches!(parts.next(), Some(Component::Normal(part)) if part == name.get_ref().as_str());
                if !is_file_name || name.get_ref().contains(char::is_control) {
                    let hint = "write the NAME of LoadCredential=NAME:PATH in the unit";
                    return Err(bad_value(key, name.span(), "has a bad name of a systemd credential", hint));
                }
                Ok(SecretSource::Credential(name.into_inner()))
            }
            (None, None, None, None, Some(path)) => {
                refuse_pasted(key, "sealed", path.span(), path.get_ref())?;
                Ok(SecretSource::Sealed(Arc::new(SealedFile {
                    path: self.path(key, &path)?,
                    accounts: self.accounts.clone(),
                    purpose: key.to_owned(),
                    state_keys: self.state_keys.clone(),
                })))
            }
            _ => {
                let hint = "keep one of file, env, command, credential and sealed";
                Err(bad_value(key, span, "must have exactly one source", hint))
            }
        }
    }

    pub(super) fn client_id(&self, raw: raw::TextSource) -> Result<SecretSource, ConfigProblem> {
        match raw.get_ref() {
            RawSecret::Text(id) => {
                let id = Spanned::new(raw.span(), id.expose().to_owned());
                text("client_id", id).map(|id| SecretSource::Inline(Secret::new(id)))
            }
            RawSecret::Other(_) => self.secret("client_id", raw),
        }
    }

    /// The text of a URL that stands in the config; else its source is noted.
    pub(super) fn url_text(
        &self,
        key: &'static str,
        raw: Option<raw::UrlSource>,
        elsewhere: &mut EndpointSources,
    ) -> Result<Option<Spanned<String>>, ConfigProblem> {
        let Some(raw) = raw else { return Ok(None) };
        if let RawSecret::Text(url) = raw.get_ref() {
            return Ok(Some(Spanned::new(raw.span(), url.expose().to_owned())));
        }
        elsewhere.add(key, self.secret(key, raw)?);
        Ok(None)
    }

    pub(super) fn proxy(&self, raw: raw::Secret) -> Result<SecretSource, ConfigProblem> {
        let (span, source) = (raw.span(), self.secret("proxy", raw)?);
        if let SecretSource::Inline(url) = &source
            && url.expose() != NO_PROXY
        {
            proxy_url(url.expose()).map_err(|flaw| bad_value("proxy", span, flaw, flaw.hint()))?;
        }
        Ok(source)
    }

    /// A key that lies in the config guards nothing: the state is beside it, and in the same backup.
    pub(super) fn state_key(
        &self,
        key: &str,
        raw: Option<raw::Secret>,
    ) -> Result<Option<SecretSource>, ConfigProblem> {
        let Some(raw) = raw else { return Ok(None) };
        if matches!(raw.get_ref(), RawSecret::Text(_)) {
            let hint = "keep it elsewhere: `zg-tokend seal --help` shows how";
            return Err(bad_value(key, raw.span(), "must not be written into the config itself", hint));
        }
        let span = raw.span();
        let source = self.secret(key, raw)?;
        if matches!(source, SecretSource::Sealed(_)) {
            let hint = "it opens sealed files: keep it as `zg-tokend seal --help` shows";
            return Err(bad_value(key, span, "cannot be sealed itself", hint));
        }
        Ok(Some(source))
    }

    /// A parameter in the config may be any text; one from elsewhere is a secret.
    pub(super) fn secret_or_text(&self, key: &str, raw: raw::Secret) -> Result<SecretSource, ConfigProblem> {
        if let RawSecret::Text(text) = raw.get_ref() {
            no_nul(key, &raw.span(), text.expose())?;
            return Ok(SecretSource::Inline(text.clone()));
        }
        self.secret(key, raw)
    }

    pub(super) fn command(&self, key: &str, argv: raw::Command) -> Result<Vec<String>, ConfigProblem> {
        let span = argv.span();
        let mut argv = argv.into_inner();
        argv.iter().try_for_each(|argument| no_nul(key, &span, argument))?;
        let program = argv.first_mut().filter(|program| !program.trim().is_empty());
        let program = program.ok_or_else(|| {
            let hint = "write the program, then its arguments: [\"/usr/bin/program\", \"argument\"]";
            bad_value(key, span.clone(), "names no program", hint)
        })?;
        refuse_pasted(key, "command", span.clone(), program)?;
        // A bare name is looked up in PATH; a path must not depend on the working directory.
        if program.contains('/') {
            let path = self.path(key, &Spanned::new(span.clone(), program.clone()))?;
            *program = path.into_os_string().into_string().map_err(|_| {
                let hint = "write the program's full path, or rename that directory";
                bad_value(key, span, "is in a directory whose name is not UTF-8", hint)
            })?;
        }
        Ok(argv)
    }
}

/// The next step after a bad secret.
fn secret_hint(key: &str) -> String {
    let later = match key {
        "refresh_token" => "; or leave the key out, and run `zg-tokend set`",
        _ => "",
    };
    format!("write the secret alone, on one line; {key} = {{ file = \"PATH\" }} reads it from a file{later}")
}
