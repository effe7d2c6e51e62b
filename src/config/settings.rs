//! The config, validated: what the rest of the program works with.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::config::source::SecretSource;
use crate::config::token_format::TokenFormat;
use crate::secret::Secret;

/// A whole config file, validated.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The config file.
    pub path: PathBuf,
    /// Where the states of all accounts are. Not created yet.
    pub state_dir: PathBuf,
    /// At least one, in file order; shared with whoever works for one.
    pub accounts: Vec<Arc<AccountConfig>>,
    /// What is allowed, and still worth saying once.
    pub warnings: Vec<ConfigWarning>,
}

impl Settings {
    /// The accounts, or the one of this name.
    pub fn chosen<'a>(&'a self, only: Option<&'a str>) -> impl Iterator<Item = &'a Arc<AccountConfig>> {
        self.accounts.iter().filter(move |account| only.is_none_or(|only| account.name.as_str() == only))
    }
}

/// One account: a client, a login, and the file that its access token goes to.
#[derive(Debug, Clone)]
pub struct AccountConfig {
    /// `default` in a flat config.
    pub name: AccountName,
    /// Where refresh requests go.
    pub endpoint: Endpoint,
    /// The host that a changed token endpoint of the issuer may have; lower case.
    pub confirmed_endpoint_host: Option<String>,
    /// RFC 6749 section 2.2.
    pub client_id: String,
    /// `Some` exactly if `auth_method` is not `None`.
    pub client_secret: Option<SecretSource>,
    /// How the client authenticates.
    pub auth_method: AuthMethod,
    /// The seed; `None` if the state has to hold a refresh token already.
    pub refresh_token: Option<SecretSource>,
    /// RFC 6749 section 3.3, words with one space between.
    pub scope: Option<String>,
    /// Sent as `audience`.
    pub audience: Option<String>,
    /// Sent as `resource`, each (RFC 8707).
    pub resource: Vec<String>,
    /// Further parameters, by name.
    pub extra_params: Vec<(String, String)>,
    /// How long before expiry to refresh; `None` leaves it to the token's lifetime.
    pub skew: Option<Duration>,
    /// The lifetime of a token that came without `expires_in`.
    pub default_lifetime: Duration,
    /// Limit of one exchange, from name resolution to the last byte.
    pub timeout: Duration,
    /// Certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether token_endpoint and push targets may be http to a host that is not loopback. An
    /// issuer may not, nor may an endpoint that it names.
    pub allow_http: bool,
    /// Where the access token goes.
    pub token_file: TokenFileConfig,
    /// Where each new access token is sent as well.
    pub push: Vec<PushConfig>,
    /// Asked now and then whether it takes the access token.
    pub probe: Option<ProbeConfig>,
    /// Commands to run after the fact.
    pub hooks: HooksConfig,
    /// The environment variables that hold secrets of this account or of another one: not for the
    /// programs that it starts.
    pub secret_variables: Arc<[String]>,
}

impl AccountConfig {
    /// Every secret that it takes from somewhere: its key in the config, and its source.
    pub fn secrets(&self) -> impl Iterator<Item = (&'static str, &SecretSource)> {
        let own = [("client_secret", &self.client_secret), ("refresh_token", &self.refresh_token)];
        let pushes = self.push.iter().map(|push| ("push.api_key", &push.api_key));
        own.into_iter().chain(pushes).filter_map(|(key, source)| Some((key, source.as_ref()?)))
    }
}

/// A place that each new access token is sent to, by POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushConfig {
    /// https, or http where the account's rules allow it.
    pub url: Url,
    /// What is sent.
    pub body: TokenFormat,
    /// Lower-case names, and values that may be secrets; one is content-type.
    pub headers: Vec<(String, Secret)>,
    /// Sent as a Bearer token.
    pub api_key: Option<SecretSource>,
}

impl PushConfig {
    /// The default body: as ZeroGravity takes it.
    pub const BODY: &str = r#"{{"token": "{access_token}"}}"#;
    /// The default of the content-type header.
    pub const CONTENT_TYPE: &str = "application/json";

    /// Whether there may be a secret beside the api_key: in a header that says more than what the
    /// body is, or in the query.
    pub fn may_hold_secret(&self) -> bool {
        self.url.query().is_some() || self.headers.iter().any(|(name, _)| name != "content-type")
    }

    /// Whether the body is JSON, so that values in it are escaped.
    pub fn is_json(&self) -> bool {
        let content_type = self.headers.iter().find(|(name, _)| name == "content-type");
        content_type.is_some_and(|(_, value)| value.expose().starts_with(Self::CONTENT_TYPE))
    }
}

/// A resource that is asked whether it takes the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeConfig {
    /// https, or http to loopback unless the account allows it.
    pub url: Url,
    /// From one answer to the next question.
    pub every: Duration,
}

/// Commands to run after the fact, each the program and its arguments; empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HooksConfig {
    /// After the token file was replaced.
    pub on_refresh: Vec<String>,
    /// When refreshes begin to fail.
    pub on_failure: Vec<String>,
    /// When all is well again.
    pub on_recovery: Vec<String>,
    /// When only a new login can help.
    pub on_needs_login: Vec<String>,
}

/// The name of an account, which is also the name of its state directory:
/// `[A-Za-z0-9][A-Za-z0-9._@-]{0,63}`, so never a path, hidden, or an option.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountName(String);

impl AccountName {
    /// The longest name, in bytes: short enough for a file name with a suffix, and for a line
    /// of `status`.
    pub const MAX_LEN: usize = 64;

    /// The account of a flat config.
    pub fn flat() -> Self {
        Self("default".to_owned())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
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
        good.then(|| Self(text.to_owned())).ok_or(NotAnAccountName)
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
}

/// How the client authenticates, by the registered names (RFC 7591 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// HTTP Basic, RFC 6749 section 2.3.1.
    ClientSecretBasic,
    /// In the request body, RFC 6749 section 2.3.1.
    ClientSecretPost,
    /// A public client sends its client_id only.
    None,
}

impl AuthMethod {
    /// The registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::None => "none",
        }
    }
}

/// The file that the access token goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFileConfig {
    /// Its path, links and all.
    pub path: PathBuf,
    /// It is below the home directory, or the user's config directory: what is missing there is no
    /// disk that is not mounted, and is created (XDG Base Directory Specification).
    pub in_home: bool,
    /// Permission bits, at most 0o666 and never writable by others.
    pub mode: u32,
    /// `None` is the effective user.
    pub owner: Option<Principal>,
    /// `None` is the effective group.
    pub group: Option<Principal>,
    /// What is written.
    pub format: TokenFormat,
    /// How it is written.
    pub write: WriteMode,
    /// Whether it is removed when its token has expired.
    pub remove_expired: bool,
    /// Whether a file beside it tells of the token, without the token.
    pub info: bool,
}

impl TokenFileConfig {
    /// Where the file beside it is, wanted or not: its name with `.json` after it.
    pub fn info_path(&self) -> PathBuf {
        let mut path = OsString::from(&self.path);
        path.push(".json");
        path.into()
    }
}

/// A user or a group, not looked up yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// To be looked up.
    Name(String),
    /// uid or gid.
    Id(u32),
}

/// How the token file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// A new file is renamed over the old one.
    Replace,
    /// The file is overwritten, for a file that is itself a mount point.
    InPlace,
}

/// Something that is allowed, and still worth saying once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigWarning {
    /// `token_file_mode` lets every user of the machine read the access token.
    TokenFileReadable {
        /// Whose token file.
        account: AccountName,
        /// The configured mode.
        mode: u32,
    },
    /// The config file can be written by its group.
    ConfigGroupWritable {
        /// Its permission bits.
        mode: u32,
    },
}

impl ConfigWarning {
    /// The way out; `config` is the config file.
    pub fn hint(&self, config: &Path) -> String {
        match self {
            Self::TokenFileReadable { .. } => {
                "set token_file_mode = \"0640\", and token_file_group to a group of its readers".to_owned()
            }
            Self::ConfigGroupWritable { .. } => format!("chmod g-w {}", config.display()),
        }
    }
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenFileReadable { account, mode } => write!(
                f,
                "token_file_mode {mode:04o} of account {account} lets every user of this machine read the token"
            ),
            Self::ConfigGroupWritable { mode } => {
                write!(f, "the config file can be changed by its group (mode {mode:04o})")
            }
        }
    }
}
