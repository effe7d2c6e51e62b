//! Whether a refresh could work: everything that can be found out before one is tried. Nothing
//! is changed and no token is spent; only `live` touches the network.

pub mod hooks;
pub mod live;
pub mod space;

use std::collections::HashSet;

use serde::Serialize;
use url::Url;

use crate::account::files::{check_owner, state_problem};
use crate::account::info_file::is_foreign;
use crate::account::token_file::{Placement, PublishError};
use crate::config;
use crate::config::{Endpoint, SecretSource, Settings, TokenFile};
use crate::http::{HttpEndpoint, HttpOptions};
use crate::message::local;
use crate::problem::chain;
use crate::refresh::record::{Record, RefreshToken};
use crate::secret::Secret;
use crate::secrets;
use crate::secrets::SecretError;
use crate::store::lock::StateDir;
use crate::store::state::{Store, Stored};

pub use crate::check::live::live;

/// The version of the JSON that `check --json` prints; a change of meaning raises it. Its schema
/// is `packaging/check.schema.json`.
pub const JSON_VERSION: u32 = 1;

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingLevel {
    /// As it should be.
    Ok,
    /// It works, and somebody should look at it.
    Warning,
    /// It will not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is to be taken.
    pub level: FindingLevel,
    /// Name of the account; absent for what all accounts share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The thing that was checked: mostly a key of the config.
    pub subject: &'static str,
    /// The finding, in words, without secrets.
    pub message: String,
    /// The way out, if there is something to mend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    fn new(
        level: FindingLevel,
        subject: &'static str,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Self {
        Self { level, account: None, subject, message: message.into(), hint }
    }

    fn ok(subject: &'static str, message: impl Into<String>) -> Self {
        Self::new(FindingLevel::Ok, subject, message, None)
    }

    fn warning(subject: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(FindingLevel::Warning, subject, message, Some(hint.into()))
    }

    /// Something that will not work.
    pub fn problem(subject: &'static str, message: impl Into<String>, hint: Option<String>) -> Self {
        Self::new(FindingLevel::Problem, subject, message, hint)
    }

    fn of(self, account: &config::AccountConfig) -> Self {
        Self { account: Some(account.name.to_string()), ..self }
    }
}

/// Looks at everything but the network; `only` picks an account by name. Secrets are read, and
/// commands are run for them.
pub fn check(settings: &Settings, only: Option<&str>) -> Vec<Finding> {
    let mut findings = vec![config(settings)];
    findings.extend(
        settings
            .warnings
            .iter()
            .map(|warning| Finding::warning("config", warning.to_string(), warning.hint(&settings.path))),
    );
    findings.extend(state_dir(settings));
    let (mut endpoints, mut programs, mut file_systems) = <(HashSet<_>, HashSet<_>, HashSet<_>)>::default();
    findings.extend(space::space("state_dir", &settings.state_dir, &mut file_systems));
    for account in settings.chosen(only) {
        let of_account = [
            endpoint(account, &mut endpoints),
            account
                .client_secret
                .iter()
                .map(|source| secret(account, "client_secret", source, false).1)
                .collect(),
            login(settings, account),
            place(account, &mut file_systems),
            push(account, &mut endpoints),
            hooks::hooks(account, &mut programs),
        ];
        findings.extend(of_account.into_iter().flatten().map(|finding| finding.of(account)));
    }
    findings
}

fn config(settings: &Settings) -> Finding {
    let accounts = match settings.accounts.len() {
        1 => "1 account".to_owned(),
        count => format!("{count} accounts"),
    };
    Finding::ok("config", format!("{}, {accounts}", settings.path.display()))
}

fn state_dir(settings: &Settings) -> Vec<Finding> {
    let found = match StateDir::check(&settings.state_dir) {
        Ok(found) => found,
        Err(error) => return vec![Finding::problem("state_dir", chain(&error), error.hint())],
    };
    let directory = settings.state_dir.display();
    let message = if settings.state_dir.exists() {
        format!("{directory} can be written, and has locks")
    } else {
        let ancestor = found.directory().path().display();
        format!("{directory} will be created; {ancestor} can be written, and has locks")
    };
    let warnings = found.directory().warnings().iter();
    let warnings = warnings.map(|warning| Finding::warning("state_dir", warning.to_string(), warning.hint()));
    std::iter::once(Finding::ok("state_dir", message)).chain(warnings).collect()
}

/// How requests of this account are made.
fn options(account: &config::AccountConfig) -> HttpOptions {
    HttpOptions { timeout: account.timeout, ca_file: account.ca_file.clone(), allow_http: account.allow_http }
}

/// Certificates and proxy, once for all accounts that have the same.
fn endpoint(account: &config::AccountConfig, known: &mut HashSet<(HttpOptions, String)>) -> Vec<Finding> {
    let url = match &account.endpoint {
        Endpoint::Explicit(url) => Ok(url.clone()),
        Endpoint::Discovered { issuer } => issuer.parse(),
    };
    // Validated with the config.
    url.map(|url| prepare("token_endpoint", account, &url, known)).unwrap_or_default()
}

fn prepare(
    subject: &'static str,
    account: &config::AccountConfig,
    url: &Url,
    known: &mut HashSet<(HttpOptions, String)>,
) -> Vec<Finding> {
    if !known.insert((options(account), url.scheme().to_owned())) {
        return Vec::new();
    }
    match HttpEndpoint::new(options(account)).prepare(url) {
        Ok(()) => Vec::new(),
        Err(failure) => {
            let hint = failure.kind.hint().map(str::to_owned);
            vec![Finding::problem(subject, failure.detail, hint)]
        }
    }
}

/// The needs of sending the token to others.
fn push(account: &config::AccountConfig, known: &mut HashSet<(HttpOptions, String)>) -> Vec<Finding> {
    let targets = account.push.iter().flat_map(|target| {
        let api_key = target.api_key.iter().map(|source| secret(account, "push.api_key", source, false).1);
        api_key.chain(prepare("push", account, &target.url, known)).collect::<Vec<_>>()
    });
    targets.collect()
}

/// Reads a secret, to see whether it can be read. `spare`: there is another one that will do.
fn secret(
    account: &config::AccountConfig,
    key: &'static str,
    source: &SecretSource,
    spare: bool,
) -> (Option<Secret>, Finding) {
    let error = match secrets::read(key, source, &account.secret_variables) {
        Ok(secret) => return (Some(secret), Finding::ok(key, format!("read from {source}"))),
        Err(error) => error,
    };
    // A credential is only there within the service.
    let elsewhere = matches!(error, SecretError::NoCredentials { .. });
    let level = if spare || elsewhere { FindingLevel::Warning } else { FindingLevel::Problem };
    // The finding names the key already.
    let message = chain(&error);
    let message = message.strip_prefix(&format!("{key}: ")).unwrap_or(&message);
    (None, Finding::new(level, key, message, error.hint()))
}

/// The refresh token: the one in the state, and the configured one.
fn login(settings: &Settings, account: &config::AccountConfig) -> Vec<Finding> {
    let mut store = Store::new(&settings.state_dir, account.name.as_str());
    let loaded = store.load().map_err(|error| state_problem(&error)).and_then(|stored| {
        if let Stored::Record(record) = &stored {
            check_owner(record, account.name.as_str(), &settings.path.to_string_lossy())?;
        }
        Ok(stored)
    });
    let mut findings = Vec::new();
    let record = match loaded {
        Ok(Stored::Record(record)) => Some(record),
        Ok(Stored::Nothing) => None,
        Ok(Stored::Garbage(why)) => {
            let hint = "the next refresh begins anew with the configured refresh_token";
            findings.push(Finding::warning("state", format!("the state file {why}"), hint));
            None
        }
        Err(problem) => return vec![Finding::problem("state", problem.message, problem.hint)],
    };
    findings.extend(
        store.warning().map(|warning| Finding::warning("state", warning.to_string(), warning.hint())),
    );
    let kept =
        record.as_deref().and_then(|record| record.refresh_token.as_ref().map(|token| (record, token)));
    let dead = kept.is_some_and(|(record, _)| record.needs_login());
    let Some(source) = &account.refresh_token else {
        findings.push(kept.map_or_else(no_login, |(record, token)| state(record, token)));
        return findings;
    };
    let (seed, configured) = secret(account, "refresh_token", source, kept.is_some() && !dead);
    let is_new = |record: &Record| {
        seed.is_some_and(|seed| !record.config_is_older && !record.seeds.contains(&seed.fingerprint()))
    };
    match kept {
        Some((record, _)) if is_new(record) => {
            findings.push(Finding::ok("state", "the login in the config is newer, and will be used"));
        }
        Some((record, token)) => findings.push(state(record, token)),
        None => {}
    }
    findings.push(configured);
    findings
}

fn no_login() -> Finding {
    let hint = "log in, and give the refresh token to `zg-tokend set`, or set refresh_token";
    let message = "there is none, neither in the config nor in the state";
    Finding::problem("refresh_token", message, Some(hint.into()))
}

/// The refresh token in a state, of which the config knows no newer one.
fn state(record: &Record, token: &RefreshToken) -> Finding {
    match &record.verdict {
        Some(verdict) if record.needs_login() => {
            Finding::problem("state", verdict.explanation(), verdict.hint.clone())
        }
        _ => {
            let since = local(token.obtained_at.wall / 1000);
            Finding::ok("state", format!("holds the refresh token of {since}"))
        }
    }
}

fn place(account: &config::AccountConfig, file_systems: &mut HashSet<u64>) -> Vec<Finding> {
    let file = &account.token_file;
    let checked = file.check();
    // Where it really goes, links followed.
    let path = checked.as_ref().map_or_else(|_| file.path.clone(), |checked| checked.path.clone());
    let mut findings = judge("token_file", "the token goes to", file, checked);
    findings
        .extend(path.parent().into_iter().flat_map(|path| space::space("token_file", path, file_systems)));
    if account.token_file_info {
        let info_file = file.info_file();
        let beside =
            judge("token_file_info", "what readers may know of it goes to", &info_file, info_file.check());
        // The directory has a finding of its own.
        let new = |finding: &Finding| findings.iter().all(|known| known.message != finding.message);
        let beside: Vec<_> = beside.into_iter().filter(new).collect();
        findings.extend(beside);
        if let Ok(true) = is_foreign(&info_file.path) {
            let message =
                format!("{} was not written by zg-tokend, and will be replaced", info_file.path.display());
            let hint = "move it away, or choose another token_file";
            findings.push(Finding::warning("token_file_info", message, hint));
        }
    }
    findings
}

fn judge(
    subject: &'static str,
    what: &str,
    file: &TokenFile,
    checked: Result<Placement, PublishError>,
) -> Vec<Finding> {
    match checked {
        Ok(checked) => {
            let message = if checked.path == file.path {
                format!("{what} {}", file.path.display())
            } else {
                format!("{what} {}, by way of {}", checked.path.display(), file.path.display())
            };
            let warnings = checked.warnings.iter();
            let warnings =
                warnings.map(|warning| Finding::warning(subject, warning.to_string(), warning.hint()));
            std::iter::once(Finding::ok(subject, message)).chain(warnings).collect()
        }
        Err(error) => vec![Finding::problem(subject, chain(&error), error.hint())],
    }
}
