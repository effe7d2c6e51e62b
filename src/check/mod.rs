//! Whether a refresh can work, as far as that shows before one is tried. Nothing is changed and no
//! token is spent; only `live` uses the network.

pub mod finding;
#[cfg(feature = "fleet")]
pub mod fleet;
pub mod hooks;
mod inputs;
pub mod linger;
pub mod live;
pub mod seal;
pub mod space;

use std::collections::HashSet;

use url::Url;

use crate::account::barrier::barrier;
use crate::account::certificates::{RENEW, certificate_fault, read_certificate};
use crate::account::client::rehearse;
use crate::account::files::load_state;
use crate::account::info_file::is_foreign;
use crate::account::token_file::{Placement, PublishError};
use crate::clock::{Clock as _, SystemClock};
use crate::config::proxy::{NO_PROXY, proxy_url};
use crate::config::{self, AccountConfig, Endpoint, Environment, SecretSource, Settings, TokenFile};
use crate::http::{HttpEndpoint, HttpOptions};
use crate::message::{CONFIG_CHANGED, LOG_IN_AGAIN, local, login_hint};
use crate::oauth::BodyTemplate;
use crate::problem::{Class, Problem};
use crate::refresh::record::{Record, RefreshToken};
use crate::refresh::replica::Role;
use crate::runtime::event_loop;
use crate::secret::Secret;
use crate::store;
use crate::store::lock::StateDir;

pub use crate::check::finding::{Finding, FindingLevel};
use crate::check::inputs::{options, secret, with_endpoints, without_key};
pub use crate::check::live::live;

/// The version of the JSON that `check --json` prints; a change of meaning raises it. Its schema
/// is `packaging/check.schema.json`.
pub const JSON_VERSION: u32 = 1;

/// Checks everything but the network; `only` picks an account by name. Secrets are read, so the
/// commands that print them are run.
pub fn check(settings: &Settings, only: Option<&str>) -> Vec<Finding> {
    let accounts = match settings.accounts.len() {
        1 => "1 account".to_owned(),
        count => format!("{count} accounts"),
    };
    let mut findings = vec![Finding::ok("config", format!("{}, {accounts}", settings.path.display()))];
    for warning in &settings.warnings {
        findings.push(Finding::warning("config", warning.to_string(), warning.hint(&settings.path)));
    }
    findings.extend(seal::copy_of_config(settings));
    findings.extend(linger::linger(&Environment::of_process()));
    findings.extend(state_dir(settings));
    let (mut endpoints, mut programs, mut file_systems) = <(HashSet<_>, HashSet<_>, HashSet<_>)>::default();
    let mut keys = seal::KnownKeys::default();
    findings.extend(space::space("state_dir", &settings.state_dir, &mut file_systems));
    for account in settings.chosen(only) {
        let client_secret = account.client_secret.iter();
        let outputs = account.outputs.iter();
        let of_account = [
            preset(account),
            elsewhere(account),
            if only_reads(account) { Vec::new() } else { endpoint(account, &mut endpoints) },
            client_secret.map(|source| secret(account, "client_secret", source, false).1).collect(),
            credentials(account),
            if only_reads(account) { Vec::new() } else { login(settings, account) },
            seal::seal(settings, account, &mut keys),
            token_file(account, &mut file_systems),
            outputs.flat_map(|output| place_of_token("outputs", &output.file, &mut file_systems)).collect(),
            push(account, &mut endpoints),
            hooks::hooks(account, &mut programs),
            #[cfg(feature = "fleet")]
            fleet::fleet(account),
        ];
        findings.extend(of_account.into_iter().flatten().map(|finding| finding.of(account)));
    }
    findings
}

/// It sends no request of its own.
fn only_reads(account: &AccountConfig) -> bool {
    account.fleet.as_ref().is_some_and(|fleet| fleet.role == Role::Read)
}

fn state_dir(settings: &Settings) -> Vec<Finding> {
    let found = match StateDir::check(&settings.state_dir, settings.missing_state_dir) {
        Ok(found) => found,
        Err(error) => return vec![Finding::error("state_dir", &error, error.hint())],
    };
    let directory = settings.state_dir.display();
    let message = if settings.state_dir.exists() {
        format!("{directory} can be written, and has locks")
    } else {
        let ancestor = found.directory().path().display();
        format!("{directory} will be created; {ancestor} can be written, and has locks")
    };
    let mut findings = vec![Finding::ok("state_dir", message)];
    for warning in found.directory().warnings() {
        findings.push(Finding::warning("state_dir", warning.to_string(), warning.hint()));
    }
    findings
}

/// The settings of an account with a preset: those that are in force, without the account's own values.
fn preset(account: &AccountConfig) -> Vec<Finding> {
    let Some(preset) = account.preset else { return Vec::new() };
    let Endpoint::Explicit(endpoint) = &account.endpoint else { return Vec::new() };
    let pairs = |own: &[(String, SecretSource)], preset: &[(&str, &str)]| -> Vec<String> {
        let is_own = |name: &str, value: &str| {
            let literal = SecretSource::Inline(Secret::new(value));
            own.iter().any(|(own, source)| own == name && *source == literal)
        };
        let kept = preset.iter().filter(|(name, value)| is_own(name, value));
        kept.map(|(name, value)| format!("{name} = {value}")).collect()
    };
    // A query may hold a key.
    let mut endpoint = endpoint.clone();
    endpoint.set_query(None);
    let mut sets = vec![
        format!("token_endpoint = {endpoint}"),
        format!("token_endpoint_auth_method = {}", account.auth_method.as_str()),
    ];
    for (key, pairs) in [
        ("request_headers", pairs(&account.request_headers, preset.headers)),
        ("extra_params", pairs(&account.extra_params, preset.params)),
    ] {
        if !pairs.is_empty() {
            sets.push(format!("{key} = {{ {} }}", pairs.join(", ")));
        }
    }
    let body = preset.body.filter(|body| BodyTemplate::parse(body, &[]).ok() == account.request_body);
    sets.extend(body.map(|body| format!("request_body = {body}")));
    vec![Finding::ok("provider", format!("the preset {} sets {}", preset.name, sets.join(", ")))]
}

/// The values from outside the config: client, proxy, endpoints, headers and parameters.
fn elsewhere(account: &AccountConfig) -> Vec<Finding> {
    let is_elsewhere = |(_, source): &(_, &SecretSource)| !matches!(source, SecretSource::Inline(_));
    let own = [("client_id", &account.client_id)].into_iter();
    let own = own.chain(account.proxy.as_ref().map(|source| ("proxy", source)));
    let headers = account.request_headers.iter().map(|(_, source)| ("request_headers", source));
    let params = account.extra_params.iter().map(|(_, source)| ("extra_params", source));
    let own = own.chain(headers).chain(params).filter(is_elsewhere);
    let endpoints = account.elsewhere.iter().map(|(key, source)| (*key, source));
    own.chain(endpoints)
        .map(|(key, source)| {
            let (value, finding) = secret(account, key, source, false);
            let flaw = value.and_then(|value| match key {
                "client_id" | "request_headers" | "extra_params" => None,
                "proxy" => {
                    let flaw =
                        Some(proxy_url(value.expose()).err()?).filter(|_| value.expose() != NO_PROXY)?;
                    Some((format!("the proxy from {source} {flaw}"), flaw.hint().to_owned()))
                }
                _ => {
                    let flaw = account.with_endpoints(&[(key, value)]).err()?;
                    Some((format!("from {source}: {flaw}"), flaw.hint))
                }
            });
            flaw.map_or(finding, |(message, hint)| Finding::problem(key, message, Some(hint)))
        })
        .collect()
}

/// Certificates and proxy, once for all accounts with the same options.
fn endpoint(account: &AccountConfig, known: &mut HashSet<(HttpOptions, String)>) -> Vec<Finding> {
    let account = &with_endpoints(account);
    let url = match &account.endpoint {
        Endpoint::Explicit(url) => Ok(url.clone()),
        Endpoint::Discovered { issuer } => issuer.parse(),
        Endpoint::Elsewhere => return Vec::new(),
    };
    // Validated with the config, or not there.
    url.map(|url| prepare("token_endpoint", account, &url, known)).unwrap_or_default()
}

fn prepare(
    subject: &'static str,
    account: &AccountConfig,
    url: &Url,
    known: &mut HashSet<(HttpOptions, String)>,
) -> Vec<Finding> {
    let options = options(account);
    if !known.insert((options.clone(), url.scheme().to_owned())) {
        return Vec::new();
    }
    match HttpEndpoint::new(options).prepare(url) {
        Ok(()) => Vec::new(),
        Err(failure) => {
            let hint = failure.kind.hint().map(str::to_owned);
            vec![Finding::problem(subject, failure.detail, hint)]
        }
    }
}

fn push(account: &AccountConfig, known: &mut HashSet<(HttpOptions, String)>) -> Vec<Finding> {
    let targets = account.push.iter().flat_map(|target| {
        let api_key = target.api_key.iter().map(|source| secret(account, "push.api_key", source, false).1);
        let is_elsewhere = |source: &&SecretSource| !matches!(source, SecretSource::Inline(_));
        let headers = target.headers.iter().map(|(_, source)| source).filter(is_elsewhere);
        let headers = headers.map(|source| secret(account, "push.headers", source, false).1);
        api_key.chain(headers).chain(prepare("push", account, &target.url, known)).collect::<Vec<_>>()
    });
    targets.collect()
}

/// Certificates, keys, and what somebody else writes: everything of a refresh that sends nothing.
fn credentials(account: &AccountConfig) -> Vec<Finding> {
    let now = SystemClock::new().now().wall / 1000;
    let certificates = account.grant.certificates().map(|(key, path)| match read_certificate(key, path) {
        Err(problem) => Finding::of_problem(key, problem),
        Ok((_, found)) => match certificate_fault(key, path, &found, now) {
            None => Finding::ok(key, format!("{} ends {}", path.display(), local(found.ends_at))),
            Some(fault) if found.is_valid(now) => Finding::warning(key, fault, RENEW),
            Some(fault) => Finding::problem(key, fault, Some(RENEW.into())),
        },
    });
    let mut findings: Vec<_> = certificates.collect();
    if account.grant.secrets().next().is_none() {
        return findings;
    }
    let found = match event_loop() {
        Ok(event_loop) => event_loop.block_on(rehearse(account)),
        Err(error) => vec![("config", Err(Problem::new(&error, Class::Unexpected, "event_loop", None)))],
    };
    for (key, found) in found {
        match found {
            Ok(found) => findings.push(Finding::ok(key, found)),
            // Said above.
            Err(problem) if findings.iter().any(|known| known.tells(&problem)) => {}
            Err(problem) => {
                let elsewhere = problem.kind == "no_credentials";
                let level = if elsewhere { FindingLevel::Warning } else { FindingLevel::Problem };
                let finding = Finding::new(level, key, without_key(key, &problem.message), problem.hint);
                findings.push(finding.because(problem.cause));
            }
        }
    }
    findings
}

/// The refresh token: the one in the state, and the configured one.
fn login(settings: &Settings, account: &AccountConfig) -> Vec<Finding> {
    if !account.grant.grant_type.has_login() {
        return Vec::new();
    }
    let mut store = store::open(settings, account);
    let loaded = load_state(&mut store, account.name.as_str(), &settings.path.to_string_lossy());
    let (record, garbage) = match loaded {
        Ok(stored) => stored.into_parts(),
        Err(problem) => return vec![Finding::of_problem("state", problem)],
    };
    let mut findings = Vec::new();
    if let Some(why) = garbage {
        let hint = "the next refresh begins anew with the configured refresh_token";
        findings.push(Finding::warning("state", format!("the state file {why}"), hint));
    }
    if let Some(warning) = store.warning() {
        findings.push(Finding::warning("state", warning.to_string(), warning.hint()));
    }
    let stored = record.as_ref().and_then(|record| Some((record, record.refresh_token.as_ref()?)));
    let again = if account.can_log_in() { login_hint(settings, account) } else { LOG_IN_AGAIN.to_owned() };
    let Some(source) = &account.refresh_token else {
        let message = "there is none, neither in the config nor in the state";
        findings.push(match stored {
            Some((record, token)) => state(settings, record, token, &again),
            None if account.fleet.is_some() => {
                Finding::ok("refresh_token", "there is none here yet: the database may have it")
            }
            None if account.can_log_in() => Finding::warning("refresh_token", message, again),
            None => {
                let hint = "log in, and give the refresh token to `zg-tokend set`, or set refresh_token";
                Finding::problem("refresh_token", message, Some(hint.into()))
            }
        });
        return findings;
    };
    let spare = stored.is_some_and(|(record, _)| !record.needs_login());
    let (seed, configured) = secret(account, "refresh_token", source, spare);
    let is_new = |record: &Record| {
        seed.is_some_and(|seed| !record.config_is_older && !record.seeds.contains(&seed.fingerprint()))
    };
    if let Some((record, token)) = stored {
        findings.push(if is_new(record) {
            Finding::ok("state", "the login in the config is newer, and will be used")
        } else {
            state(settings, record, token, &again)
        });
    }
    findings.push(configured);
    findings
}

/// The refresh token in a state, if the config has no newer one.
fn state(settings: &Settings, record: &Record, token: &RefreshToken, again: &str) -> Finding {
    match &record.verdict {
        Some(verdict) if record.needs_login() || config::changed_at(settings) <= Some(verdict.at.wall) => {
            Finding::problem("state", &*verdict.message, verdict.hint.clone()).because(verdict.cause.clone())
        }
        Some(verdict) => {
            Finding::warning("state", &*verdict.message, CONFIG_CHANGED).because(verdict.cause.clone())
        }
        None => {
            let kept = if token.value.sealed().is_some() { "sealed" } else { "in plain, mode 0600" };
            let at = local(token.obtained_at.wall / 1000);
            let holds = format!("holds the refresh token of {at}, {kept}");
            let Some(life) = &record.login_life else { return Finding::ok("state", holds) };
            let message = format!("{holds}; the login ends {}", local(life.ends_at().wall / 1000));
            if life.ends_soon(SystemClock::new().now()) {
                Finding::warning("state", message, again)
            } else {
                Finding::ok("state", message)
            }
        }
    }
}

fn token_file(account: &AccountConfig, file_systems: &mut HashSet<u64>) -> Vec<Finding> {
    let mut findings = place_of_token("token_file", &account.token_file, file_systems);
    if account.token_file_info {
        let info_file = account.token_file.info_file();
        let beside =
            placement("token_file_info", "facts about the token go to", &info_file, info_file.check());
        // The directory has a finding of its own.
        let new = |finding: &Finding| findings.iter().all(|known| known.message != finding.message);
        let beside: Vec<_> = beside.into_iter().filter(new).collect();
        findings.extend(beside);
        if let Ok(true) = is_foreign(&info_file.path) {
            let message =
                format!("{} was not written by zg-tokend, and will be replaced", info_file.path.display());
            let hint = "move it to another place, or choose another token_file";
            findings.push(Finding::warning("token_file_info", message, hint));
        }
    }
    findings
}

/// Where a token goes, and the space there.
fn place_of_token(subject: &'static str, file: &TokenFile, file_systems: &mut HashSet<u64>) -> Vec<Finding> {
    let checked = file.check();
    // With symlinks resolved.
    let path = checked.as_ref().map_or_else(|_| file.path.clone(), |checked| checked.path.clone());
    let mut findings = placement(subject, "the token goes to", file, checked);
    findings.extend(path.parent().into_iter().flat_map(|path| space::space(subject, path, file_systems)));
    findings
}

fn placement(
    subject: &'static str,
    what: &str,
    file: &TokenFile,
    checked: Result<Placement, PublishError>,
) -> Vec<Finding> {
    let checked = match checked {
        Ok(checked) => checked,
        Err(error) => return vec![Finding::error(subject, &error, error.hint())],
    };
    let mut message = format!("{what} {}", checked.path.display());
    if checked.path != file.path {
        message = format!("{message}, configured as {}", file.path.display());
    }
    let mut findings = vec![Finding::ok(subject, message)];
    for warning in &checked.warnings {
        findings.push(Finding::warning(subject, warning.to_string(), warning.hint()));
    }
    if let Some(barrier) = barrier(file) {
        findings.push(Finding::warning(subject, barrier.to_string(), barrier.hint()));
    }
    findings
}
