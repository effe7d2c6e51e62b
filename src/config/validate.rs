//! From [`RawFile`] to [`Settings`]: how the values belong together, and the rules between them.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use crate::config::Environment;
use crate::config::problem::{ConfigProblem, Flaw};
use crate::config::raw::{RawAccount, RawFile, RawForms, RawProbe, RawPush, RawSecret};
use crate::config::settings::{
    AccountConfig, AccountName, ConfigWarning, Endpoint, HooksConfig, ProbeConfig, PushConfig, Settings,
    TokenFileConfig, WriteMode,
};
use crate::config::source::SecretSource;
use crate::config::token_format::TokenFormat;
use crate::config::values::{
    a_name, auth_method, bad_value, duration, endpoint, extra_params, format, host, issuer, missing, mode,
    preset, principal, push_body, push_headers, remove_expired, scope, text, write_mode,
};

/// A server that does not tell `expires_in` most often grants an hour (RFC 6749 section 5.1's example).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
/// The longest exchange, and the default. Those who wait for the lock give up after 45 s:
/// an exchange and its durable writes have to be over by then.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
/// Below a second, a healthy server far away would look dead.
const MIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Below this a probe would be a burden: 720 requests an hour are within what any API allows one
/// client. Who needs to know sooner that a token was refused can report it.
const MIN_PROBE_EVERY: Duration = Duration::from_secs(5);
/// Rarer than that, most tokens would never be tried.
const MAX_PROBE_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Revoked tokens are rare, and requests may count: 12 an hour, each account.
const PROBE_EVERY: Duration = Duration::from_secs(5 * 60);
/// Below a second there is nothing to plan with.
const MIN_LIFETIME: Duration = Duration::from_secs(1);
/// No lifetime counts beyond a year, whoever says it.
const MAX_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Read and written by its owner only.
const DEFAULT_MODE: u32 = 0o600;

/// What the rules need to know of the outside.
pub(super) struct Scope<'a> {
    /// The config file, absolute.
    pub(super) path: &'a Path,
    pub(super) environment: &'a Environment,
    /// Where a path leads to.
    pub(super) real: &'a dyn Fn(&Path) -> PathBuf,
}

/// An account with the places of what is compared between accounts.
struct Checked {
    account: AccountConfig,
    refresh_token: Range<usize>,
    token_file: Range<usize>,
}

impl Scope<'_> {
    pub(super) fn settings(&self, raw: RawFile) -> Result<Settings, ConfigProblem> {
        let state_dir = match raw.global.state_dir {
            Some(path) => self.path("state_dir", &path)?,
            None => self.default_state_dir()?,
        };
        let checked = match raw.accounts {
            None => vec![self.flat(raw.top)?],
            Some(accounts) => self.tables(&raw.top, accounts)?,
        };
        let warnings = checked
            .iter()
            .filter(|checked| checked.account.token_file.mode & 0o004 != 0)
            .map(|checked| ConfigWarning::TokenFileReadable {
                account: checked.account.name.clone(),
                mode: checked.account.token_file.mode,
            })
            .collect();
        self.no_collisions(&checked, &state_dir)?;
        let secret_variables = secret_variables(&checked);
        let accounts = checked.into_iter().map(|checked| {
            Arc::new(AccountConfig { secret_variables: Arc::clone(&secret_variables), ..checked.account })
        });
        let accounts = accounts.collect();
        Ok(Settings { path: self.path.to_owned(), state_dir, accounts, warnings })
    }

    fn flat(&self, top: RawAccount) -> Result<Checked, ConfigProblem> {
        self.account(AccountName::flat(), top, self.environment.zerogravity_token(), &(0..0))
    }

    fn tables(
        &self,
        top: &RawAccount,
        accounts: Vec<(Spanned<String>, Box<RawAccount>)>,
    ) -> Result<Vec<Checked>, ConfigProblem> {
        let own = [
            ("refresh_token", top.refresh_token.as_ref().map(Spanned::span)),
            ("token_file", top.token_file.as_ref().map(Spanned::span)),
            ("push", top.push.as_ref().and_then(|push| Some(push.first()?.url.span()))),
            ("probe", top.probe.as_ref().map(|probe| probe.url.span())),
        ];
        for (key, span) in own {
            if let Some(span) = span {
                let message = format!("`{key}` at the top of a file with accounts");
                return Err(Flaw::new(span, key, message)
                    .hint("two accounts cannot share it: move it into its [accounts.NAME]"));
            }
        }
        if accounts.is_empty() {
            return Err(Flaw::new(0..0, "accounts", "`accounts` has no account in it".to_owned())
                .hint("write [accounts.NAME], or leave `accounts` out and write the keys at the top"));
        }
        accounts
            .into_iter()
            .map(|(name, raw)| {
                let span = name.span();
                let parsed = name.get_ref().parse().map_err(|error| {
                    bad_value("accounts", &span, &format!("has a bad name: {error}"))
                        .hint("choose another, for example [accounts.work]")
                })?;
                self.account(parsed, raw.or(top), None, &span)
            })
            .collect()
    }

    fn account(
        &self,
        name: AccountName,
        raw: RawAccount,
        default_token_file: Option<PathBuf>,
        place: &Range<usize>,
    ) -> Result<Checked, ConfigProblem> {
        let whose = if *place == (0..0) { String::new() } else { format!(" in account `{name}`") };
        let preset = raw.provider.as_ref().map(preset).transpose()?;
        let allow_http = raw.allow_http.unwrap_or(false);
        let endpoint = match (&raw.token_endpoint, &raw.issuer, preset) {
            (Some(url), _, _) => Endpoint::Explicit(endpoint("token_endpoint", url, allow_http)?),
            (None, Some(url), _) => Endpoint::Discovered { issuer: issuer(url)? },
            (None, None, Some(preset)) => {
                let url = Spanned::new(0..0, preset.token_endpoint.to_owned());
                Endpoint::Explicit(endpoint("token_endpoint", &url, allow_http)?)
            }
            (None, None, None) => return Err(missing("token_endpoint", place.clone(), &whose)),
        };
        // An issuer beside an explicit endpoint goes unused, but not unread.
        raw.issuer.as_ref().map(issuer).transpose()?;
        let client_id = raw.client_id.ok_or_else(|| missing("client_id", place.clone(), &whose))?;
        let secret = raw.client_secret.map(|raw| self.secret("client_secret", raw)).transpose()?;
        let auth_method = auth_method(raw.token_endpoint_auth_method.as_ref(), secret.is_some(), preset)?;
        let refresh_token = raw.refresh_token.as_ref().map_or(0..0, Spanned::span);
        let token_file = raw.token_file.as_ref().map(|path| self.path("token_file", path)).transpose()?;
        let token_file =
            token_file.or(default_token_file).ok_or_else(|| missing("token_file", place.clone(), &whose))?;
        let timeout = duration("timeout", raw.timeout.as_ref(), MIN_TIMEOUT..=MAX_TIMEOUT)?;
        let lifetimes = MIN_LIFETIME..=MAX_LIFETIME;
        let write = raw.write.as_ref().map_or(Ok(WriteMode::Replace), write_mode)?;
        Ok(Checked {
            token_file: raw.token_file.map_or(0..0, |path| path.span()),
            refresh_token,
            account: AccountConfig {
                name,
                endpoint,
                confirmed_endpoint_host: raw.confirmed_endpoint_host.as_ref().map(host).transpose()?,
                client_id: text("client_id", client_id)?,
                client_secret: secret,
                auth_method,
                refresh_token: raw.refresh_token.map(|raw| self.secret("refresh_token", raw)).transpose()?,
                scope: raw.scope.as_ref().map(scope).transpose()?,
                audience: raw.audience.map(|raw| text("audience", raw)).transpose()?,
                resource: raw.resource.map_or(Ok(Vec::new()), |list| {
                    let span = list.span();
                    let items = list.into_inner().0.into_iter();
                    items.map(|item| text("resource", Spanned::new(span.clone(), item))).collect()
                })?,
                extra_params: extra_params(raw.extra_params)?,
                skew: duration("skew", raw.skew.as_ref(), lifetimes.clone())?,
                default_lifetime: duration("default_lifetime", raw.default_lifetime.as_ref(), lifetimes)?
                    .unwrap_or(DEFAULT_LIFETIME),
                timeout: timeout.unwrap_or(MAX_TIMEOUT),
                ca_file: raw.ca_file.map(|path| self.path("ca_file", &path)).transpose()?,
                allow_http,
                token_file: TokenFileConfig {
                    in_home: self.is_in_home(&token_file),
                    path: token_file,
                    mode: raw.token_file_mode.as_ref().map_or(Ok(DEFAULT_MODE), mode)?,
                    owner: raw.token_file_owner.map(|raw| principal("token_file_owner", raw)).transpose()?,
                    group: raw.token_file_group.map(|raw| principal("token_file_group", raw)).transpose()?,
                    format: raw.token_format.as_ref().map_or(Ok(TokenFormat::default()), format)?,
                    write,
                    remove_expired: raw
                        .on_expired
                        .as_ref()
                        .map_or(Ok(false), |raw| remove_expired(raw, write))?,
                    info: raw.token_file_info.unwrap_or(false),
                },
                push: self.push(raw.push.unwrap_or_default(), allow_http)?,
                probe: raw.probe.map(|raw| probe(&raw, allow_http)).transpose()?,
                hooks: HooksConfig {
                    on_refresh: self.hook("on_refresh", raw.on_refresh)?,
                    on_failure: self.hook("on_failure", raw.on_failure)?,
                    on_recovery: self.hook("on_recovery", raw.on_recovery)?,
                    on_needs_login: self.hook("on_needs_login", raw.on_needs_login)?,
                },
                // Known when all accounts are.
                secret_variables: Arc::default(),
            },
        })
    }

    /// `value` with `~/` expanded, and relative to the directory of the config file.
    fn path(&self, key: &str, value: &Spanned<String>) -> Result<PathBuf, ConfigProblem> {
        let (text, span) = (value.get_ref().as_str(), value.span());
        if text.trim().is_empty() || text.contains('\0') {
            let flaw = if text.contains('\0') { "contains a NUL character" } else { "is empty" };
            return Err(bad_value(key, &span, flaw).hint("write the path of a file, or leave the key out"));
        }
        if let Some(rest) = text.strip_prefix('~') {
            let Some(rest) = rest.strip_prefix('/') else {
                return Err(bad_value(key, &span, "begins with `~`, but not with `~/`")
                    .hint("write the path in full, or ./~ for a name that begins so"));
            };
            let home = self.environment.home.as_ref().ok_or_else(|| {
                bad_value(key, &span, "begins with `~/`, but no home directory is known")
                    .hint("set HOME, or write the path in full")
            })?;
            return Ok(home.join(rest));
        }
        Ok(self.path.parent().unwrap_or(Path::new("")).join(text))
    }

    /// Below the home directory or the config directory, unless that is the root of everything.
    fn is_in_home(&self, path: &Path) -> bool {
        let homes = [&self.environment.home, &self.environment.config_home];
        let mut homes = homes.into_iter().flatten().filter(|home| home.parent().is_some());
        let path = (self.real)(path);
        homes.any(|home| path.starts_with((self.real)(home)))
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

    fn secret(&self, key: &str, raw: Spanned<RawSecret>) -> Result<SecretSource, ConfigProblem> {
        let span = raw.span();
        let forms = match raw.into_inner() {
            RawSecret::Inline(secret) => {
                return SecretSource::secret_from(secret.expose().as_bytes())
                    .map(SecretSource::Inline)
                    .map_err(|flaw| bad_value(key, &span, &flaw.to_string()).hint(secret_hint(key)));
            }
            RawSecret::Table(forms) => forms,
        };
        match forms {
            RawForms { file: Some(path), env: None, command: None, credential: None } => {
                a_name(key, "file", &path.span(), path.get_ref())?;
                Ok(SecretSource::File(self.path(key, &path)?))
            }
            RawForms { file: None, env: Some(name), command: None, credential: None } => {
                a_name(key, "env", &name.span(), name.get_ref())?;
                if name.get_ref().is_empty() || name.get_ref().contains(['=', '\0']) {
                    return Err(bad_value(key, &name.span(), "does not name an environment variable")
                        .hint(format!("for example: {key} = {{ env = \"ZG_SECRET\" }}")));
                }
                Ok(SecretSource::Env(name.into_inner()))
            }
            RawForms { file: None, env: None, command: Some(argv), credential: None } => {
                self.command(key, argv).map(SecretSource::Command)
            }
            RawForms { file: None, env: None, command: None, credential: Some(name) } => {
                a_name(key, "credential", &name.span(), name.get_ref())?;
                // The names that systemd takes: those of plain files.
                let mut parts = Path::new(name.get_ref()).components();
                let is_file_name =
                    matches!(parts.next(), Some(Component::Normal(part)) if part == name.get_ref().as_str());
                if !is_file_name || name.get_ref().contains(char::is_control) {
                    return Err(bad_value(key, &name.span(), "does not name a systemd credential")
                        .hint("write the name that LoadCredential=NAME:PATH gives it in the unit"));
                }
                Ok(SecretSource::Credential(name.into_inner()))
            }
            _ => Err(bad_value(key, &span, "must have exactly one source")
                .hint("keep one of file, env, command and credential")),
        }
    }

    fn push(&self, raw: Vec<RawPush>, allow_http: bool) -> Result<Vec<PushConfig>, ConfigProblem> {
        let push = |raw: RawPush| {
            Ok(PushConfig {
                url: endpoint("push.url", &raw.url, allow_http)?,
                body: push_body(raw.body)?,
                headers: push_headers(raw.headers, raw.api_key.is_some())?,
                api_key: raw.api_key.map(|raw| self.secret("push.api_key", raw)).transpose()?,
            })
        };
        raw.into_iter().map(push).collect()
    }

    /// An empty command is none: so an account can do without the default.
    fn hook(&self, key: &str, argv: Option<Spanned<Vec<String>>>) -> Result<Vec<String>, ConfigProblem> {
        let argv = argv.filter(|argv| !argv.get_ref().is_empty());
        argv.map_or(Ok(Vec::new()), |argv| self.command(key, argv))
    }

    fn command(&self, key: &str, argv: Spanned<Vec<String>>) -> Result<Vec<String>, ConfigProblem> {
        let span = argv.span();
        let mut argv = argv.into_inner();
        if argv.iter().any(|argument| argument.contains('\0')) {
            return Err(bad_value(key, &span, "contains a NUL character").hint("remove the \\u0000"));
        }
        let program = argv.first_mut().filter(|program| !program.trim().is_empty());
        let program = program.ok_or_else(|| {
            bad_value(key, &span, "names no program")
                .hint("the program comes first, then its arguments: [\"/usr/bin/program\", \"argument\"]")
        })?;
        a_name(key, "command", &span, program)?;
        // A bare name is looked up in PATH; a path must not depend on the working directory.
        if program.contains('/') {
            let path = self.path(key, &Spanned::new(span.clone(), program.clone()))?;
            path.to_str()
                .ok_or_else(|| {
                    bad_value(key, &span, "is below a directory whose name is not UTF-8")
                        .hint("write the program's full path, or rename that directory")
                })?
                .clone_into(program);
        }
        Ok(argv)
    }

    /// What must differ between accounts, and what the token file must not be.
    fn no_collisions(&self, checked: &[Checked], state_dir: &Path) -> Result<(), ConfigProblem> {
        let (config_file, state_dir) = ((self.real)(self.path), (self.real)(state_dir));
        let inputs = self.input_files(checked);
        let mut token_files = HashMap::new();
        let mut seeds = HashMap::new();
        for Checked { account, refresh_token, token_file: span } in checked {
            let info = account.token_file.info.then(|| account.token_file.info_path());
            for (path, what) in
                [(Some(account.token_file.path.clone()), "is"), (info, "with .json after it is")]
            {
                let Some(path) = path.as_deref().map(self.real) else { continue };
                let clash = |whose: &str| {
                    bad_value("token_file", span, &format!("{what} also {whose}")).hint(format!(
                        "give the access token a file of its own: this one is {}",
                        path.display()
                    ))
                };
                if path == config_file {
                    return Err(clash("the config file"));
                }
                if path.starts_with(&state_dir) {
                    return Err(bad_value("token_file", span, "lies in state_dir")
                        .hint("the state is the program's own: put the token file elsewhere"));
                }
                if let Some((key, other)) = inputs.get(&path) {
                    return Err(clash(&format!("the {key} of account `{other}`")));
                }
                if let Some(earlier) = token_files.insert(path.clone(), &account.name) {
                    return Err(clash(&format!("that of account `{earlier}`")));
                }
            }
            if let Some(seed) = &account.refresh_token
                && let Some(earlier) = seeds.insert(self.identity(seed), &account.name)
            {
                let what = format!("is also that of account `{earlier}`");
                return Err(bad_value("refresh_token", refresh_token, &what)
                    .hint("two holders of one login would each make the other's token void: log in once for each account"));
            }
        }
        Ok(())
    }

    /// The files that accounts read: by which key, and of which account.
    fn input_files<'a>(&self, checked: &'a [Checked]) -> HashMap<PathBuf, (&'static str, &'a AccountName)> {
        let mut files = HashMap::new();
        for Checked { account, .. } in checked {
            let secrets = account.secrets().filter_map(|(key, source)| match source {
                SecretSource::File(file) => Some((key, file)),
                _ => None,
            });
            for (key, file) in account.ca_file.iter().map(|file| ("ca_file", file)).chain(secrets) {
                files.entry((self.real)(file)).or_insert((key, &account.name));
            }
        }
        files
    }

    /// Equal for sources that give the same secret.
    fn identity<'a>(&self, source: &'a SecretSource) -> Cow<'a, SecretSource> {
        match source {
            SecretSource::File(file) => Cow::Owned(SecretSource::File((self.real)(file))),
            other => Cow::Borrowed(other),
        }
    }
}

/// What to do about a secret that is none.
fn secret_hint(key: &str) -> String {
    let later = match key {
        "refresh_token" => "; or leave the key out, and give the token to `zg-tokend set`",
        _ => "",
    };
    format!("write the secret alone, on one line; {key} = {{ file = \"PATH\" }} reads it from a file{later}")
}

fn probe(raw: &RawProbe, allow_http: bool) -> Result<ProbeConfig, ConfigProblem> {
    let every = duration("probe.every", raw.every.as_ref(), MIN_PROBE_EVERY..=MAX_PROBE_EVERY)?;
    let url = endpoint("probe.url", &raw.url, allow_http)?;
    Ok(ProbeConfig { url, every: every.unwrap_or(PROBE_EVERY) })
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
