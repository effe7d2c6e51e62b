//! From [`RawFile`] to [`Settings`]: the rules between values.

use std::collections::{BTreeSet, HashSet};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use crate::config::collisions;
use crate::config::collisions::Checked;
use crate::config::document::{RawEntry, RawFile};
use crate::config::environment::Environment;
use crate::config::inherit;
use crate::config::keys::{AccountKeys, RawAccount, RawAudience, RawSecret, or_default, raw};
use crate::config::problem::{ConfigProblem, bad_value};
use crate::config::raw_values::OneOrMany;
use crate::config::settings::{
    AccountConfig, AccountName, CommonConfig, ConfigWarning, Endpoint, HooksConfig, Settings, TokenFile,
    WriteMode,
};
use crate::config::source::{EndpointSources, SecretSource};
use crate::config::values::{
    REQUEST_OWN_HEADERS, auth_method, duration, endpoint, header_name, header_value, host, issuer, missing,
    mode, param_name, principal, provider, provider_part, remove_expired, scope, template, text, with_preset,
    write_mode,
};
use crate::files::Missing;
use crate::oauth::BodyTemplate;
use crate::refresh::replica::Role;
use crate::secret::Secret;

/// Below a second, a healthy server far away would look dead. Above half a minute, an exchange and
/// its durable writes are not over when those who wait for the lock give up, after 45 s.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);
/// Below a second there is nothing to plan with; no lifetime counts beyond a year.
const LIFETIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3600);

/// So many different configs of earlier accounts are compared with one: as many as there are kinds of
/// accounts in a large fleet, and few enough that accounts without anything in common cost little.
const RECENT: usize = 16;

/// The surroundings of the text.
pub(super) struct Scope<'a> {
    /// The config file, absolute.
    pub(super) path: &'a Path,
    pub(super) environment: &'a Environment,
    /// Where a path leads to.
    pub(super) real: &'a dyn Fn(&Path) -> PathBuf,
    /// Where the home and the config directory lead to, unless that is the root of everything.
    pub(super) homes: &'a [PathBuf],
    /// The accounts that a sealed file may be for.
    pub(super) accounts: Vec<String>,
    /// The keys that open a sealed file.
    pub(super) state_keys: Vec<(&'static str, SecretSource)>,
}

impl Scope<'_> {
    pub(super) fn settings(&self, raw: RawFile) -> Result<Settings, ConfigProblem> {
        let (state_dir, missing_state_dir) = match &raw.top.state_dir {
            Some(path) => {
                let path = self.path("state_dir", path)?;
                let missing = self.missing(&path);
                (path, missing)
            }
            // It is on the disk of the system or at home.
            None => (self.default_state_dir()?, Missing::CreateAll),
        };
        let scope = self.with_state_keys(&raw.top)?;
        let checked = if let Some(accounts) = raw.accounts {
            scope.tables(&raw.top, accounts)?
        } else {
            let token_file = self.environment.zerogravity_token();
            let scope = scope.of_accounts([AccountName::flat().to_string()]);
            vec![scope.account(AccountName::flat(), raw.top, token_file, 0..0, &mut Vec::new())?]
        };
        let mut checked = checked;
        collisions::share(&mut checked, self.real);
        let warnings = checked.iter().flat_map(|checked| readable(&checked.account)).collect();
        collisions::refuse(&checked, &state_dir, self.path, self.real)?;
        let secret_variables = secret_variables(&checked);
        let accounts = checked.into_iter().map(|Checked { mut account, .. }| {
            Arc::make_mut(&mut account).secret_variables = Arc::clone(&secret_variables);
            account
        });
        let mut accounts: Vec<_> = accounts.collect();
        // It was collected in the place of what it was made from, which is much larger.
        accounts.shrink_to_fit();
        let path_text = self.path.to_string_lossy().into();
        Ok(Settings {
            path: self.path.to_owned(),
            path_text,
            state_dir,
            missing_state_dir,
            shared_logins: inherit::shared_logins(&accounts),
            accounts,
            warnings,
        })
    }

    fn tables(&self, top: &RawAccount, mut accounts: Vec<RawEntry>) -> Result<Vec<Checked>, ConfigProblem> {
        if accounts.is_empty() {
            return Err(ConfigProblem::new(
                0..0,
                "`accounts` is empty",
                "write [accounts.NAME], or leave `accounts` out and write the keys at the top",
            ));
        }
        let mut known = Vec::new();
        let mut simple = None;
        let logins = inherit::logins(&accounts);
        let mut names = HashSet::new();
        let account = |entry: &mut RawEntry| {
            let name = entry.name.clone();
            let parsed: AccountName = name.get_ref().parse().map_err(|error| {
                let what = format!("has a bad name: {error}");
                bad_value("accounts", name.span(), what, "choose another, for example [accounts.work]")
            })?;
            if !names.insert(parsed.clone()) {
                let what = format!("makes another account `{parsed}`");
                return Err(bad_value("audience", name.span(), what, "choose another name for one of them"));
            }
            let mut is_simple = false;
            if let AccountKeys::Simple { refresh_token, token_file: Some(token_file) } = &entry.keys {
                is_simple = true;
                let like = simple
                    .as_ref()
                    .filter(|like: &&AccountConfig| like.refresh_token.is_some() == refresh_token.is_some());
                if let Some(like) = like {
                    let scope = self.of_accounts([name.get_ref().clone()]);
                    return scope.simple_account(parsed, refresh_token.clone(), token_file, like);
                }
            }
            let raw = inherit::with_login(entry.take(), &logins, top)?;
            let login = raw.from.as_ref().map(|from| from.get_ref().clone());
            let scope = self.of_accounts([name.get_ref().clone()].into_iter().chain(login));
            let checked =
                scope.account(parsed, raw.inherit(Box::new(top.clone())), None, name.span(), &mut known)?;
            // A sealed file knows its account.
            let is_sealed = |(_, source): (_, &SecretSource)| matches!(source, SecretSource::Sealed(_));
            if is_simple && !checked.account.secrets().any(is_sealed) {
                simple = Some(AccountConfig::clone(&checked.account));
            }
            Ok(checked)
        };
        // The raw accounts go all at once: one by one they leave holes among the checked ones, which are too small
        // for anything.
        accounts.iter_mut().map(account).collect()
    }

    /// An account with nothing of its own but a login and a token file. For the rest it is `like`
    /// another such account: in a large fleet, to check the rest for each account would take most of the
    /// time.
    fn simple_account(
        &self,
        name: AccountName,
        refresh_token: Option<raw::Secret>,
        token_file: &raw::Path,
        like: &AccountConfig,
    ) -> Result<Checked, ConfigProblem> {
        let places = (refresh_token.as_ref().map_or(0..0, |raw| raw.span()), token_file.span());
        let TokenFile { path, missing, .. } = self.place("token_file", token_file)?;
        let account = AccountConfig {
            name,
            refresh_token: refresh_token.map(|raw| self.secret("refresh_token", raw)).transpose()?,
            from: None,
            token_file: TokenFile { path, missing, ..like.token_file.clone() },
            common: Arc::clone(&like.common),
            secret_variables: Arc::default(),
        };
        Ok(Checked {
            account: Arc::new(account),
            refresh_token: places.0,
            token_file: places.1,
            outputs: Vec::new(),
        })
    }

    fn account(
        &self,
        name: AccountName,
        mut raw: Box<RawAccount>,
        default_token_file: Option<PathBuf>,
        place: Range<usize>,
        known: &mut Vec<Arc<CommonConfig>>,
    ) -> Result<Checked, ConfigProblem> {
        let whose = if place.is_empty() { String::new() } else { format!(" in account `{name}`") };
        let missing = |key| missing(key, place.clone(), &whose);
        let preset = raw.provider.as_deref().map(provider).transpose()?;
        let has_google_credentials = raw.google_credentials.is_some();
        let grant = self.grant(&mut raw, preset)?;
        let has_from = raw.from.is_some();
        let fleet = raw.fleet.take().map(|raw| self.fleet(raw, has_from, &grant)).transpose()?;
        let only_reads = fleet.as_ref().is_some_and(|fleet| fleet.role == Role::Read);
        let spanned = preset.zip(raw.provider.as_ref().map(|raw| raw.span()));
        let parts = [
            ("tenant", raw.tenant.take()),
            ("host", raw.host.take()),
            ("shop", raw.shop.take()),
            ("data_center", raw.data_center.take()),
        ];
        let is_issuer = preset.and_then(|preset| preset.place.as_ref()).is_some_and(|it| it.key == "issuer");
        let part = match &raw.token_endpoint {
            None if !is_issuer || raw.issuer.is_none() => provider_part(spanned, parts)?,
            _ => None,
        };
        let mut elsewhere = EndpointSources::default();
        // In the order in which they are put in.
        let raw_issuer = self.url_text("issuer", raw.issuer.take(), &mut elsewhere)?;
        let token_endpoint = self.url_text("token_endpoint", raw.token_endpoint.take(), &mut elsewhere)?;
        let preset_endpoint = preset.zip(part.as_deref());
        let preset_endpoint =
            preset_endpoint.map(|(preset, part)| preset.endpoint(preset.token_endpoint, part));
        let allow_http = raw.allow_http.unwrap_or(false);
        // Checked even if it is not used, beside an explicit endpoint.
        let issuer = raw_issuer.as_ref().map(issuer).transpose()?;
        let login = self.login(&mut raw, preset, part.as_deref(), &mut elsewhere)?;
        let endpoint = match (token_endpoint, issuer.clone(), preset_endpoint) {
            _ if elsewhere.has("token_endpoint") => Endpoint::Elsewhere,
            (Some(url), _, _) => Endpoint::Explicit(endpoint("token_endpoint", &url, allow_http)?),
            (None, Some(issuer), _) => Endpoint::Discovered { issuer },
            _ if elsewhere.has("issuer") => Endpoint::Elsewhere,
            (None, None, Some(url)) => {
                let url = Spanned::new(0..0, url);
                Endpoint::Explicit(endpoint("token_endpoint", &url, allow_http)?)
            }
            (None, None, None) if has_google_credentials => Endpoint::Explicit(Self::google_endpoint()),
            // It sends no request.
            (None, None, None) if only_reads => Endpoint::Elsewhere,
            (None, None, None) => return Err(missing("token_endpoint")),
        };
        let has_client_id = raw.client_id.is_some();
        let client_id = match raw.client_id.take() {
            Some(client_id) => self.client_id(client_id)?,
            None if only_reads || grant.names_itself() => SecretSource::Inline(Secret::new("")),
            None => return Err(missing("client_id")),
        };
        // With Basic, some servers take a key as the user and no password.
        let basic =
            raw.token_endpoint_auth_method.as_ref().is_some_and(|method| method.get_ref().contains("basic"));
        let client_secret = raw
            .client_secret
            .map(|raw| match raw.get_ref() {
                RawSecret::Text(secret) if basic && secret.is_empty() => {
                    Ok(SecretSource::Inline(secret.clone()))
                }
                _ => self.secret("client_secret", raw),
            })
            .transpose()?;
        let auth_method = auth_method(
            raw.token_endpoint_auth_method.as_deref(),
            grant.credentials(client_secret.is_some()),
            preset,
        )?;
        grant.check_client(auth_method, has_client_id, raw.request_body.is_some(), place.clone())?;
        let extra_params =
            with_preset(self.extra_params(raw.extra_params)?, preset.map_or(&[], |preset| preset.params));
        let request_body = raw.request_body.map(|raw| {
            let names: Vec<_> = extra_params.iter().map(|(name, _)| name.clone()).collect();
            BodyTemplate::parse(raw.get_ref(), &names).map_err(|error| {
                let hint = format!(
                    "placeholders are {{{}}} and the names in extra_params; write {{{{ or }}}} for a brace",
                    BodyTemplate::PLACEHOLDERS.join("}, {")
                );
                bad_value("request_body", raw.span(), error, hint)
            })
        });
        let request_body = request_body.transpose()?;
        let preset_body = || BodyTemplate::parse(preset?.body?, &[]).ok();
        let request_body = request_body.or_else(preset_body);
        let request_headers = with_preset(
            self.request_headers(raw.request_headers)?,
            preset.map_or(&[], |preset| preset.headers),
        );
        let refresh_token_span = raw.refresh_token.as_ref().map_or(0..0, |raw| raw.span());
        let token_file_span = raw.token_file.as_ref().map_or(0..0, |raw| raw.span());
        let token_file = raw.token_file.map(|path| self.place("token_file", &path)).transpose()?;
        let token_file = token_file.or(default_token_file.map(|path| self.private_file(path)));
        let token_file = token_file.ok_or_else(|| missing("token_file"))?;
        let default_lifetime = or_default("default_lifetime", raw.default_lifetime);
        let from = match raw.from.take() {
            // `tables` has looked it up.
            Some(from) if !place.is_empty() => from.get_ref().parse().ok(),
            Some(from) => {
                let hint = "an account takes its login from another one: write both as [accounts.NAME]";
                return Err(bad_value("from", from.span(), "needs [accounts.NAME]", hint));
            }
            None => None,
        };
        let write = write_mode("write", raw.write)?;
        let outputs = raw.outputs.unwrap_or_default();
        let outputs = outputs.into_iter().map(|raw| self.output(raw)).collect::<Result<Vec<_>, _>>()?;
        let (outputs, output_spans): (Vec<_>, Vec<_>) = outputs.into_iter().unzip();
        let common = CommonConfig {
            preset,
            endpoint,
            elsewhere,
            issuer,
            login,
            confirmed_endpoint_host: raw.confirmed_endpoint_host.as_deref().map(host).transpose()?,
            client_id,
            client_secret,
            auth_method,
            grant,
            scope: raw.scope.as_ref().map(|raw| scope("scope", raw)).transpose()?,
            audience: raw.audience.map(audience).transpose()?,
            resource: raw.resource.map_or(Ok(Vec::new()), |list| {
                let span = list.span();
                let items = match list.into_inner() {
                    OneOrMany::Text(item) => vec![item],
                    OneOrMany::Other(items) => items,
                };
                items.into_iter().map(|item| text("resource", Spanned::new(span.clone(), item))).collect()
            })?,
            extra_params,
            request_headers,
            request_body,
            skew: raw.skew.map(|raw| duration("skew", &raw, LIFETIMES)).transpose()?,
            default_lifetime: duration("default_lifetime", &default_lifetime, LIFETIMES)?,
            timeout: duration("timeout", &or_default("timeout", raw.timeout), TIMEOUTS)?,
            proxy: raw.proxy.map(|raw| self.proxy(raw)).transpose()?,
            ca_file: raw.ca_file.map(|path| self.path("ca_file", &path)).transpose()?,
            allow_http,
            token_format: template("token_format", &or_default("token_format", raw.token_format))?,
            remove_expired: remove_expired(
                &or_default("on_expired", raw.on_expired),
                outputs.iter().map(|output| output.file.write).fold(write, WriteMode::or),
            )?,
            outputs,
            token_file_info: raw.token_file_info.unwrap_or(false),
            push: raw
                .push
                .unwrap_or_default()
                .into_iter()
                .map(|raw| self.push(raw, allow_http))
                .collect::<Result<_, _>>()?,
            probe: raw.probe.map(|raw| Self::probe(raw, allow_http)).transpose()?,
            signal: raw.signal.map(|raw| self.signal(raw)).transpose()?,
            fleet,
            hooks: HooksConfig {
                on_refresh: self.hook("on_refresh", raw.on_refresh)?,
                on_failure: self.hook("on_failure", raw.on_failure)?,
                on_recovery: self.hook("on_recovery", raw.on_recovery)?,
                on_needs_login: self.hook("on_needs_login", raw.on_needs_login)?,
            },
            state_key: self.state_key("state_key", raw.state_key)?,
            state_key_previous: self.state_key("state_key_previous", raw.state_key_previous)?,
        };
        let account = AccountConfig {
            name,
            refresh_token: raw.refresh_token.map(|raw| self.secret("refresh_token", raw)).transpose()?,
            from,
            token_file: TokenFile {
                mode: mode("token_file_mode", &or_default("token_file_mode", raw.token_file_mode))?,
                owner: raw.token_file_owner.map(|raw| principal("token_file_owner", raw)).transpose()?,
                group: raw.token_file_group.map(|raw| principal("token_file_group", raw)).transpose()?,
                write,
                ..token_file
            },
            common: shared(known, common),
            // Known when all accounts are.
            secret_variables: Arc::default(),
        };
        Ok(Checked {
            account: Arc::new(account),
            refresh_token: refresh_token_span,
            token_file: token_file_span,
            outputs: output_spans,
        })
    }

    fn default_state_dir(&self) -> Result<PathBuf, ConfigProblem> {
        let system = self.path.parent() == Some(Path::new("/etc/zg-tokend"))
            && self.path.extension().is_some_and(|extension| extension == "toml");
        if let (true, Some(name)) = (system, self.path.file_stem()) {
            return Ok(Path::new("/var/lib/zg-tokend").join(name));
        }
        let state_home = self.environment.state_home.as_ref();
        state_home.map(|home| home.join("zg-tokend")).ok_or_else(|| missing("state_dir", 0..0, ""))
    }

    fn extra_params(
        &self,
        params: Option<raw::Secrets>,
    ) -> Result<Vec<(String, SecretSource)>, ConfigProblem> {
        const KEY: &str = "extra_params";
        let checked = |(name, value)| {
            let name = param_name(KEY, name)?;
            let value = self.secret_or_text(&format!("{KEY}.{name}"), value)?;
            Ok((name, value))
        };
        params.unwrap_or_default().into_iter().map(checked).collect()
    }

    fn request_headers(
        &self,
        headers: Option<raw::Secrets>,
    ) -> Result<Vec<(String, SecretSource)>, ConfigProblem> {
        const KEY: &str = "request_headers";
        let mut checked: Vec<(String, SecretSource)> = Vec::new();
        for (name, value) in headers.unwrap_or_default() {
            let other = checked.iter().map(|(name, _)| name.as_str());
            let name = header_name(KEY, name, REQUEST_OWN_HEADERS, other)?;
            let (span, value) = (value.span(), self.secret_or_text(&format!("{KEY}.{name}"), value)?);
            if let SecretSource::Inline(text) = &value {
                header_value(KEY, span, text.expose())?;
            }
            checked.push((name, value));
        }
        Ok(checked)
    }

    /// An empty command is none: so an account can do without the default.
    fn hook(&self, key: &str, argv: Option<raw::Command>) -> Result<Vec<String>, ConfigProblem> {
        let argv = argv.filter(|argv| !argv.get_ref().is_empty());
        argv.map_or(Ok(Vec::new()), |argv| self.command(key, argv))
    }
}

/// The equal one among the last that are known, or this one.
fn shared(known: &mut Vec<Arc<CommonConfig>>, config: CommonConfig) -> Arc<CommonConfig> {
    let recent = known.iter().rev().take(RECENT);
    let equal = recent.into_iter().find(|other| ***other == config).map(Arc::clone);
    equal.unwrap_or_else(|| {
        let new = Arc::new(config);
        known.push(Arc::clone(&new));
        new
    })
}

/// The parameter. Tables stand in an account that has a login, which has taken them out.
fn audience(raw: raw::Audience) -> Result<String, ConfigProblem> {
    let span = raw.span();
    match raw.into_inner() {
        RawAudience::Text(audience) => text("audience", Spanned::new(span, audience)),
        RawAudience::Other(_) => {
            let hint = "write it as [accounts.NAME.audience.OTHER], where NAME has the login";
            Err(bad_value("audience", span, "has tables where no account has its login", hint))
        }
    }
}

/// Warnings of files that every user of the machine can read.
fn readable(account: &AccountConfig) -> impl Iterator<Item = ConfigWarning> {
    let is_open = |file: &TokenFile| file.mode & 0o004 != 0;
    let token_file = is_open(&account.token_file).then(|| ConfigWarning::TokenFileReadable {
        account: account.name.clone(),
        mode: account.token_file.mode,
    });
    let outputs = account.outputs.iter().map(|output| &output.file).filter(move |file| is_open(file));
    let outputs =
        outputs.map(|file| ConfigWarning::OutputReadable { path: file.path.clone(), mode: file.mode });
    token_file.into_iter().chain(outputs)
}

/// The environment variables that secrets are taken from, each once.
fn secret_variables(checked: &[Checked]) -> Arc<[String]> {
    let sources = checked.iter().flat_map(|checked| checked.account.secrets());
    let names: BTreeSet<_> = sources
        .filter_map(|(_, source)| match source {
            SecretSource::Env(name) => Some(name.clone()),
            _ => None,
        })
        .collect();
    names.into_iter().collect()
}
