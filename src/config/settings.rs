//! The validated config.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::config::grant::GrantConfig;
use crate::config::source::{EndpointSources, SecretSource};
use crate::config::token_format::TokenFormat;
use crate::files::Missing;
use crate::files::owner::Principal;
use crate::oauth::providers::Provider;
use crate::oauth::{AuthMethod, BodyTemplate};
use crate::refresh::replica::Role;

/// A whole config file, validated.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The config file.
    pub path: PathBuf,
    /// Its path as the states record it.
    pub path_text: Arc<str>,
    /// Where the states of all accounts are. Not created yet.
    pub state_dir: PathBuf,
    /// About missing directories on the way to it.
    pub missing_state_dir: Missing,
    /// At least one, in file order.
    pub accounts: Vec<Arc<AccountConfig>>,
    /// Allowed, but worth one warning.
    pub warnings: Vec<ConfigWarning>,
    /// The places of the accounts of each login that several use.
    pub shared_logins: HashMap<AccountName, Vec<usize>>,
}

impl Settings {
    /// The other accounts of the same login.
    pub fn login_mates(&self, account: &AccountConfig) -> impl Iterator<Item = &Arc<AccountConfig>> {
        let places = self.shared_logins.get(account.login_account()).map_or(&[][..], Vec::as_slice);
        let mates = places.iter().map(|place| &self.accounts[*place]);
        let own = account.name.clone();
        mates.filter(move |mate| mate.name != own)
    }

    /// The account of this name, or all.
    pub fn chosen(&self, only: Option<&str>) -> impl Iterator<Item = &Arc<AccountConfig>> {
        self.accounts.iter().filter(move |account| only.is_none_or(|only| account.name.as_str() == only))
    }
}

/// One account: a client, a login, and the file that its access token goes to.
///
/// Thousands of accounts differ in little, so that they share the rest. It is used like a part of the
/// account.
#[derive(Debug, Clone)]
pub struct AccountConfig {
    /// `default` in a flat config.
    pub name: AccountName,
    /// The seed; `None` if the state has to hold a refresh token already.
    pub refresh_token: Option<SecretSource>,
    /// The account whose login it uses. The state of that account has the refresh token and the access
    /// tokens of both.
    pub from: Option<AccountName>,
    pub token_file: TokenFile,
    /// The environment variables that hold secrets of any account; child processes do not get them.
    pub secret_variables: Arc<[String]>,
    pub common: Arc<CommonConfig>,
}

impl Deref for AccountConfig {
    type Target = CommonConfig;

    fn deref(&self) -> &CommonConfig {
        &self.common
    }
}

/// The part of an account's config that other accounts may have as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommonConfig {
    /// The preset that `provider` names. Its values are in the other settings already.
    pub preset: Option<&'static Provider>,
    /// Where refresh requests go.
    pub endpoint: Endpoint,
    /// Of the endpoints that are read anew for each pass.
    pub elsewhere: EndpointSources,
    /// The issuer, even if the token endpoint is not discovered.
    pub issuer: Option<String>,
    /// How a user logs in.
    pub login: LoginConfig,
    /// The host that a changed token endpoint of the issuer may have; lower case.
    pub confirmed_endpoint_host: Option<String>,
    /// RFC 6749 section 2.2. Empty if the grant says who asks.
    pub client_id: SecretSource,
    /// `Some` exactly if `auth_method` is not `None`.
    pub client_secret: Option<SecretSource>,
    pub auth_method: AuthMethod,
    /// The grant, and the keys of the client.
    pub grant: GrantConfig,
    /// RFC 6749 section 3.3, words with one space between.
    pub scope: Option<String>,
    /// Sent as `audience`.
    pub audience: Option<String>,
    /// Sent as `resource`, each (RFC 8707).
    pub resource: Vec<String>,
    /// Further parameters, by name.
    pub extra_params: Vec<(String, SecretSource)>,
    /// Lower-case names.
    pub request_headers: Vec<(String, SecretSource)>,
    pub request_body: Option<BodyTemplate>,
    /// How long before expiry to refresh; `None` leaves it to the token's lifetime.
    pub skew: Option<Duration>,
    /// The lifetime of a token that came without `expires_in`.
    pub default_lifetime: Duration,
    /// Limit of one exchange, from name resolution to the last byte.
    pub timeout: Duration,
    pub ca_file: Option<PathBuf>,
    /// A URL for [`proxy_url`](crate::config::proxy::proxy_url), or `none`.
    pub proxy: Option<SecretSource>,
    /// Whether token_endpoint and push targets may be http to a host that is not loopback. An
    /// issuer may not, nor may an endpoint that it names.
    pub allow_http: bool,
    /// The content of the token file.
    pub token_format: TokenFormat,
    /// More files for the same token.
    pub outputs: Vec<OutputConfig>,
    /// Whether the files are removed when their token has expired.
    pub remove_expired: bool,
    /// Whether a file beside it describes the token, without the token.
    pub token_file_info: bool,
    /// URLs that each new access token is sent to.
    pub push: Vec<PushConfig>,
    pub probe: Option<ProbeConfig>,
    pub hooks: HooksConfig,
    pub signal: Option<SignalConfig>,
    /// The database, where several machines share the login.
    pub fleet: Option<FleetConfig>,
    /// Seals the secrets in the state; the same for all accounts, and never inline.
    pub state_key: Option<SecretSource>,
    /// Opens them as well; without a state_key they are written in plain again.
    pub state_key_previous: Option<SecretSource>,
}

impl AccountConfig {
    /// The account that has the login: `from`, or this one.
    pub fn login_account(&self) -> &AccountName {
        self.from.as_ref().unwrap_or(&self.name)
    }

    /// Every format that a file of this account has.
    pub fn formats(&self) -> impl Iterator<Item = &TokenFormat> {
        std::iter::once(&self.token_format).chain(self.outputs.iter().map(|output| &output.format))
    }

    /// Whether `zg-tokend login` can work: there is an endpoint for it, or an issuer to ask.
    pub fn can_log_in(&self) -> bool {
        let LoginConfig { authorization_endpoint, device_authorization_endpoint, .. } = &self.login;
        if !self.grant.grant_type.has_login() {
            return false;
        }
        let is_elsewhere = self.elsewhere.iter().any(|(key, _)| *key != "token_endpoint");
        let is_here = authorization_endpoint.is_some() || device_authorization_endpoint.is_some();
        is_here || self.issuer.is_some() || is_elsewhere
    }

    /// The key and the source of every secret.
    pub fn secrets(&self) -> impl Iterator<Item = (&'static str, &SecretSource)> {
        let is_elsewhere = |source: &&SecretSource| !matches!(source, SecretSource::Inline(_));
        // A URL without a password is no secret.
        let is_secret_url = |url: &&SecretSource| match url {
            SecretSource::Inline(url) => url.expose().contains('@'),
            _ => true,
        };
        let fleet = self.fleet.as_ref();
        let own = [
            ("client_secret", self.client_secret.as_ref()),
            ("refresh_token", self.refresh_token.as_ref()),
            ("state_key", self.state_key.as_ref()),
            ("state_key_previous", self.state_key_previous.as_ref()),
        ];
        let pushes = self.push.iter().map(|push| ("push.api_key", push.api_key.as_ref()));
        let places = [
            ("client_id", Some(&self.client_id).filter(is_elsewhere)),
            ("proxy", self.proxy.as_ref().filter(is_secret_url)),
            ("fleet.url", fleet.map(|fleet| &fleet.url)),
            ("fleet.key", fleet.and_then(|fleet| fleet.key.as_ref())),
        ];
        let headers = self
            .request_headers
            .iter()
            .filter(move |(name, source)| !PLAIN_HEADERS.contains(&&**name) || is_elsewhere(&source));
        let params = self.extra_params.iter().filter(move |(_, source)| is_elsewhere(&source));
        let push_headers = self.push.iter().flat_map(|push| &push.headers);
        let push_headers = push_headers.filter(move |(_, source)| is_elsewhere(&source));
        own.into_iter()
            .chain(pushes)
            .chain(places)
            .filter_map(|(key, source)| Some((key, source?)))
            .chain(self.elsewhere.iter().map(|(key, source)| (*key, source)))
            .chain(headers.map(|(_, source)| ("request_headers", source)))
            .chain(params.map(|(_, source)| ("extra_params", source)))
            .chain(push_headers.map(|(_, source)| ("push.headers", source)))
            .chain(self.grant.secrets())
    }
}

/// The keys that only `login` and `logout` need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginConfig {
    /// RFC 6749 section 3.1.
    pub authorization_endpoint: Option<Url>,
    /// RFC 8628 section 3.1.
    pub device_authorization_endpoint: Option<Url>,
    /// RFC 7009.
    pub revocation_endpoint: Option<Url>,
    /// http to this machine, or https.
    pub redirect_uri: Url,
    /// The whole scope of a login, from `login_scope`.
    pub scope: Option<String>,
    /// The scope that the provider needs for a refresh token.
    pub preset_scope: Option<&'static str>,
    /// The user's, then the provider's.
    pub params: Vec<(String, String)>,
    /// `ISSUER#SUBJECT`.
    pub identity: Option<String>,
}

/// Request headers of which a value in the config is no secret.
pub(super) const PLAIN_HEADERS: [&str; 5] =
    ["user-agent", "accept", "origin", "notion-version", "content-type"];

/// A URL that each new access token is sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushConfig {
    /// https, or http where the account's rules allow it.
    pub url: Url,
    pub method: PushMethod,
    pub content_type: String,
    pub body: TokenFormat,
    /// Lower-case names, and values that may be secrets.
    pub headers: Vec<(String, SecretSource)>,
    /// Sent as a Bearer token.
    pub api_key: Option<SecretSource>,
}

/// The method of a push (RFC 9110 section 9.3, RFC 5789).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushMethod {
    Post,
    Put,
    Patch,
}

impl PushMethod {
    pub const ALL: [(&str, Self); 3] = [("POST", Self::Post), ("PUT", Self::Put), ("PATCH", Self::Patch)];

    pub fn as_str(self) -> &'static str {
        // In the order of the enum.
        Self::ALL[self as usize].0
    }
}

impl PushConfig {
    /// Whether there may be a secret beside the api_key: in a header of the user's, or in the query.
    pub fn may_hold_secret(&self) -> bool {
        let is_inline = |(_, source): &(String, SecretSource)| matches!(source, SecretSource::Inline(_));
        self.url.query().is_some() || self.headers.iter().any(is_inline)
    }

    /// Whether the body is JSON, so that values in it are escaped.
    pub fn is_json(&self) -> bool {
        self.content_type.starts_with("application/json")
    }
}

/// A URL that is requested with the token from time to time, to see whether it is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeConfig {
    /// https, or http to loopback unless the account allows it.
    pub url: Url,
    /// From one answer to the next request.
    pub every: Duration,
}

/// The database, where several machines share one login.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FleetConfig {
    /// As libpq has it, with the options that zg-tokend knows.
    pub url: SecretSource,
    /// Seals the refresh token; `None` for a machine that only reads.
    pub key: Option<SecretSource>,
    pub role: Role,
}

/// A signal that tells a program of a new token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalConfig {
    /// It begins with the process id.
    pub pid_file: PathBuf,
    pub signal: SignalName,
}

/// The signals by which programs are told to read their files again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalName {
    Hup,
    Usr1,
    Usr2,
    Winch,
}

impl SignalName {
    pub const ALL: [(&str, Self); 4] =
        [("HUP", Self::Hup), ("USR1", Self::Usr1), ("USR2", Self::Usr2), ("WINCH", Self::Winch)];
}

/// Commands to run after an event, each a program with its arguments; empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the names of the keys")]
pub struct HooksConfig {
    pub on_refresh: Vec<String>,
    pub on_failure: Vec<String>,
    pub on_recovery: Vec<String>,
    pub on_needs_login: Vec<String>,
}

/// The name of an account, which is also the name of its state directory:
/// `[A-Za-z0-9][A-Za-z0-9._@-]{0,63}`, so never a path, hidden, or an option.
///
/// Cheap to clone: many parts of `run` know an account by its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountName(Arc<str>);

impl AccountName {
    /// The longest name, in bytes: short enough for a file name with a suffix, and for a line
    /// of `status`.
    pub const MAX_LEN: usize = 64;

    /// The account of a flat config.
    pub fn flat() -> Self {
        Self("default".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl Borrow<str> for AccountName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why a text is not an [`AccountName`].
#[derive(Debug, thiserror::Error)]
#[error("an account name is 1 to 64 of A-Z a-z 0-9 . _ @ - and begins with a letter or digit")]
pub struct NotAnAccountName;

impl std::str::FromStr for AccountName {
    type Err = NotAnAccountName;

    fn from_str(text: &str) -> Result<Self, NotAnAccountName> {
        let good = (1..=Self::MAX_LEN).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._@-".contains(c));
        good.then(|| Self(text.into())).ok_or(NotAnAccountName)
    }
}

/// Where refresh requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A token endpoint (RFC 6749 section 3.2), from `token_endpoint` or a preset.
    Explicit(Url),
    /// The issuer publishes it (RFC 8414, OpenID Connect Discovery).
    Discovered {
        /// An https URL, as it was written: the published one must be the same string
        /// (RFC 8414 section 3.3), and a parsed URL may gain a slash.
        issuer: String,
    },
    /// It, or the issuer, is not in the config; see [`AccountConfig::with_endpoints`].
    Elsewhere,
}

/// A file that is written for other programs to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    /// Its path; symlinks are kept and followed.
    pub path: PathBuf,
    /// Permission bits, at most 0o666 and never writable by others, whatever the umask.
    pub mode: u32,
    /// `None` is the effective user.
    pub owner: Option<Principal>,
    /// `None` is the group that the system gives.
    pub group: Option<Principal>,
    /// About missing directories on the way to it.
    pub missing: Missing,
    /// How it is replaced.
    pub write: WriteMode,
}

impl TokenFile {
    /// The file with facts about the token beside it: its name with `.json` after it.
    #[must_use]
    pub fn info_file(&self) -> Self {
        let mut path = OsString::from(&self.path);
        path.push(".json");
        Self { path: path.into(), write: WriteMode::Replace, ..self.clone() }
    }
}

/// A file and what is written into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputConfig {
    pub file: TokenFile,
    pub format: TokenFormat,
}

/// How the token file is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// By a new file, renamed over it: readers see the old token or the new one.
    Replace,
    /// Into the same file, for one that is a mount point of its own. A reader may see a mix of
    /// both tokens for an instant.
    InPlace,
}

impl WriteMode {
    /// In place, if one of them is.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self == Self::InPlace { self } else { other }
    }
}

/// Something that is allowed, but worth one warning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigWarning {
    #[error("token_file_mode {mode:04o} of account {account} lets every user of this machine read the token")]
    TokenFileReadable { account: AccountName, mode: u32 },
    #[error("mode {mode:04o} of the output {} lets every user of this machine read the token", path.display())]
    OutputReadable { path: PathBuf, mode: u32 },
    #[error("the config file can be changed by its group (mode {mode:04o})")]
    ConfigGroupWritable { mode: u32 },
}

impl ConfigWarning {
    /// The next step; `config` is the config file.
    pub fn hint(&self, config: &Path) -> String {
        match self {
            Self::TokenFileReadable { .. } => {
                "set token_file_mode = \"0640\", and token_file_group to a group that the readers are in"
                    .to_owned()
            }
            Self::OutputReadable { .. } => {
                "set its mode = \"0640\", and its group to a group that the readers are in".to_owned()
            }
            Self::ConfigGroupWritable { .. } => format!("chmod g-w {}", config.display()),
        }
    }
}
