//! The answers for an account without a login, and for a client that proves itself by a key.

use std::path::{Path, PathBuf};

use crate::cli::args::Init;
use crate::cli::init::ask::{Source, absolute, hidden, letter, needed, optional};
use crate::cli::init::error::InitError;
use crate::oauth::GrantType;
use crate::oauth::providers::Provider;

/// The keys by which a client proves who it is, beside client_secret.
const PROOF: [&str; 6] =
    ["private_key", "key_id", "certificate", "client_assertion", "tls_certificate", "tls_private_key"];

/// The keys of the config beside endpoint, client_id, client_secret and login, in their order.
pub(super) struct MachineKeys {
    pub(super) grant_type: GrantType,
    preset: Option<&'static Provider>,
    /// How the client proves who it is.
    pub(super) proof: Vec<(&'static str, Source)>,
    /// The grant and its token.
    pub(super) wanted: Vec<(&'static str, Source)>,
}

impl MachineKeys {
    /// Those of the flags. `is_google`: the file of `--from` takes the place of a grant.
    pub(super) fn of_flags(
        flags: &Init,
        preset: Option<&'static Provider>,
        is_google: bool,
    ) -> Result<Self, InitError> {
        let mut keys =
            Self { grant_type: GrantType::default(), preset, proof: Vec::new(), wanted: Vec::new() };
        let file = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
        let from = if is_google { &flags.from } else { &None };
        let given = [
            ("private_key", file(&flags.private_key_file)?.map(Source::File)),
            ("client_assertion", file(&flags.client_assertion_file)?.map(Source::File)),
            ("tls_private_key", file(&flags.tls_private_key_file)?.map(Source::File)),
            ("assertion", file(&flags.assertion_file)?.map(Source::File)),
            ("subject_token", file(&flags.subject_token_file)?.map(Source::File)),
            ("certificate", file(&flags.certificate)?.map(Source::Text)),
            ("tls_certificate", file(&flags.tls_certificate)?.map(Source::Text)),
            ("google_credentials", file(from)?.map(Source::Text)),
            ("key_id", flags.key_id.clone().map(Source::Text)),
            ("subject_token_type", flags.subject_token_type.clone().map(Source::Text)),
            ("scope", flags.scope.clone().map(Source::Text)),
            ("audience", flags.audience.clone().map(Source::Text)),
        ];
        for (key, source) in given {
            if let Some(source) = source {
                keys.set(key, source);
            }
        }
        let stated = flags.grant_type.as_deref();
        let stated = stated.and_then(|name| GrantType::ALL.into_iter().find(|(known, _)| *known == name));
        let is_own = keys.has("assertion") || keys.has("private_key");
        let is_login = flags.refresh_token_file.is_some()
            || flags.refresh_token_env.is_some()
            || flags.refresh_token_stdin;
        keys.grant_type = match (stated, preset) {
            _ if is_google => GrantType::GoogleCredentials,
            _ if is_login => GrantType::RefreshToken,
            (Some((_, stated)), _) => stated,
            (None, Some(preset)) if preset.grant_type == GrantType::JwtBearer && !is_own => {
                GrantType::GoogleCredentials
            }
            (None, preset) => preset.map_or(GrantType::default(), |preset| preset.grant_type),
        };
        Ok(keys)
    }

    /// A server without a preset may grant to persons and to machines.
    pub(super) fn ask_for_grant(&mut self) -> Result<(), InitError> {
        let question = "Enter: a person logs in, c: client credentials, j: a signed assertion, \
                        x: token exchange [c/j/x] ";
        self.grant_type = match letter(question, ["c", "j", "x"])? {
            Some("c") => GrantType::ClientCredentials,
            Some("j") => GrantType::JwtBearer,
            Some("x") => GrantType::TokenExchange,
            _ => GrantType::default(),
        };
        Ok(())
    }

    /// Whether a client has an id of its own to send.
    pub(super) fn needs_client_id(&self) -> bool {
        !matches!(self.grant_type, GrantType::GoogleCredentials | GrantType::TokenExchange)
    }

    /// Asks how the client proves who it is, and returns its client_secret if that is how.
    pub(super) fn ask_for_proof(&mut self) -> Result<Option<Source>, InitError> {
        if !self.proof.is_empty() {
            return Ok(None);
        }
        if self.grant_type != GrantType::ClientCredentials {
            return hidden("client_secret", "empty for a public client, not shown");
        }
        let question = "Enter: the client has a client_secret, k: a private key, a: an assertion that the platform \
                        writes, t: a certificate for TLS [k/a/t] ";
        loop {
            match letter(question, ["k", "a", "t"])? {
                Some("k") => {
                    self.ask_for("private_key", "a PEM file", Source::File)?;
                    if self.is_entra() {
                        self.ask_for("certificate", "the PEM file that is registered", Source::Text)?;
                    }
                }
                Some("a") => self.ask_for("client_assertion", "a file", Source::File)?,
                Some("t") => {
                    self.ask_for("tls_certificate", "a PEM file", Source::Text)?;
                    self.ask_for("tls_private_key", "a PEM file", Source::File)?;
                }
                _ => match hidden("client_secret", "not shown")? {
                    Some(client_secret) => return Ok(Some(client_secret)),
                    None => continue,
                },
            }
            return Ok(None);
        }
    }

    /// Asks for what is exchanged, and for which token.
    pub(super) fn ask_for_wanted(&mut self) -> Result<(), InitError> {
        match self.grant_type {
            GrantType::GoogleCredentials => {
                self.ask_for("google_credentials", "the JSON file from Google's console", Source::Text)?;
            }
            GrantType::JwtBearer if !self.has("assertion") && !self.has("private_key") => {
                match optional("assertion (a file that somebody else writes; empty to sign here): ")? {
                    Some(path) => self.set("assertion", Source::File(typed(&path)?)),
                    None => self.ask_for("private_key", "a PEM file", Source::File)?,
                }
            }
            GrantType::TokenExchange => {
                self.ask_for("subject_token", "a file", Source::File)?;
                if !self.has("subject_token_type") {
                    let kind = optional("subject_token_type [jwt]: ")?.unwrap_or_else(|| "jwt".into());
                    self.set("subject_token_type", Source::Text(kind));
                }
            }
            _ => {}
        }
        for (key, note) in self.needs() {
            if !self.has(key) {
                let answer = needed(&format!("{key} ({note}): "))?;
                self.set(key, Source::Text(answer));
            }
        }
        if !self.has("scope")
            && let Some(scope) = optional("scope (empty for the server's default): ")?
        {
            self.set("scope", Source::Text(scope));
        }
        Ok(())
    }

    /// The flags that are missing; `has_secret`: the client has a client_secret.
    pub(super) fn missing(&self, has_secret: bool) -> Vec<&'static str> {
        let lacks = |key: &str| !self.has(key);
        let grant = match self.grant_type {
            GrantType::GoogleCredentials if lacks("google_credentials") => Some("--from"),
            GrantType::ClientCredentials if self.proof.is_empty() && !has_secret => Some(
                "--client-secret-file, --client-secret-env, --private-key-file, --client-assertion-file or \
                 --tls-certificate",
            ),
            GrantType::JwtBearer if lacks("assertion") && lacks("private_key") => {
                Some("--assertion-file or --private-key-file")
            }
            GrantType::TokenExchange if lacks("subject_token") => Some("--subject-token-file"),
            _ => None,
        };
        let certificate = self.is_entra() && self.has("private_key") && lacks("certificate");
        let needs = self.needs().iter().filter(|(key, _)| lacks(key));
        let needs = needs.map(|(key, _)| if *key == "scope" { "--scope" } else { "--audience" });
        grant.into_iter().chain(certificate.then_some("--certificate")).chain(needs).collect()
    }

    /// The grant_type, if the config has to state it.
    pub(super) fn stated_grant(&self) -> Option<&'static str> {
        let default = self.preset.map_or(GrantType::default(), |preset| preset.grant_type);
        let is_known = self.grant_type == GrantType::GoogleCredentials || self.grant_type == default;
        (!is_known).then(|| self.grant_type.name())
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        let preset = self.preset.filter(|preset| preset.grant_type == self.grant_type);
        preset.map_or(&[], |preset| preset.needs)
    }

    fn is_entra(&self) -> bool {
        self.preset.is_some_and(|preset| preset.name == "entra")
    }

    fn has(&self, key: &str) -> bool {
        self.proof.iter().chain(&self.wanted).any(|(known, _)| *known == key)
    }

    fn set(&mut self, key: &'static str, value: Source) {
        let keys = if PROOF.contains(&key) { &mut self.proof } else { &mut self.wanted };
        keys.push((key, value));
    }

    /// Asks for the path of a file.
    fn ask_for(
        &mut self,
        key: &'static str,
        note: &str,
        kind: fn(String) -> Source,
    ) -> Result<(), InitError> {
        if !self.has(key) {
            let answer = needed(&format!("{key} ({note}): "))?;
            self.set(key, kind(typed(&answer)?));
        }
        Ok(())
    }
}

/// A path as a person types it, from the working directory; the config is somewhere else.
fn typed(path: &str) -> Result<String, InitError> {
    if path.starts_with('~') { Ok(path.to_owned()) } else { absolute(Path::new(path)) }
}
