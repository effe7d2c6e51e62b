//! Every key of the config file, in one table: error messages and the man page are made from it,
//! and tests compare it with the serde structs and the example config.

/// One key of the config file.
#[derive(Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// Where it may stand.
    pub place: Place,
    /// What its value must be.
    pub kind: Kind,
    /// What holds when it is absent, as a person would say it.
    pub default: &'static str,
    /// What it does, in one line.
    pub doc: &'static str,
    /// A value that is valid TOML: what stands after `=`.
    pub example: &'static str,
}

/// Where a key may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At the top only: it holds for the whole file.
    File,
    /// In an account; at the top it is the default of all accounts.
    Account,
    /// In an account, and never inherited: two accounts must not share it.
    Own,
}

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A string that holds a path.
    Path,
    /// A string that holds a URL.
    Url,
    /// A string that holds a duration, as humantime reads it.
    Duration,
    /// `true` or `false`.
    Bool,
    /// A secret: inline, or a table that says where it is.
    Secret,
    /// The name or the number of a user or group.
    Principal,
    /// One string or several.
    List,
    /// A table of strings.
    Params,
    /// A program and its arguments.
    Command,
    /// Tables of [`PUSH_KEYS`].
    Pushes,
    /// A table of [`PROBE_KEYS`].
    Probe,
}

impl Kind {
    /// What a value must be, as an error says it.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Path => "a path in quotes",
            Self::Url => "a URL in quotes",
            Self::Duration => "a duration in quotes",
            Self::Bool => "true or false",
            Self::Secret => {
                "a string or one of { file = \"…\" }, { env = \"…\" }, { command = [\"…\"] }, { credential = \"…\" }"
            }
            Self::Principal => "a name in quotes or a number",
            Self::List => "a string or an array of strings",
            Self::Params => "a table of strings",
            Self::Command => "an array of strings, the program and its arguments",
            Self::Pushes => "an array of tables, each with a url",
            Self::Probe => "a table with a url",
        }
    }

    /// Whether an error may show the value. Parameters that the program does not know may be
    /// anything, an assertion for instance, and so may the arguments of other programs.
    pub fn may_be_shown(self) -> bool {
        !matches!(self, Self::Secret | Self::Params | Self::Command | Self::Pushes | Self::Probe)
    }
}

/// One way to say where a secret is: `{ name = … }`.
#[derive(Debug)]
pub struct KeyForm {
    /// The key inside the braces.
    pub name: &'static str,
    /// What its value must be, as an error says it.
    pub describe: &'static str,
    /// Where the secret is then, in one line.
    pub doc: &'static str,
    /// A whole value that is valid TOML.
    pub example: &'static str,
}

/// The forms of a secret that is not inline.
pub const FORMS: &[KeyForm] = &[
    KeyForm {
        name: "file",
        describe: "a path in quotes",
        doc: "in a file that others cannot read",
        example: r#"{ file = "~/.config/zg-tokend/secret" }"#,
    },
    KeyForm {
        name: "env",
        describe: "a string",
        doc: "in an environment variable",
        example: r#"{ env = "ZG_SECRET" }"#,
    },
    KeyForm {
        name: "command",
        describe: "an array of strings",
        doc: "on the standard output of a command, run without a shell, for at most 10 s",
        example: r#"{ command = ["pass", "show", "zg/secret"] }"#,
    },
    KeyForm {
        name: "credential",
        describe: "a string",
        doc: "in a systemd credential: LoadCredential= and the like, systemd.exec(5)",
        example: r#"{ credential = "secret" }"#,
    },
];

/// The keys of one target in `push`.
pub const PUSH_KEYS: &[Key] = &[
    Key {
        name: "url",
        place: Place::Own,
        kind: Kind::Url,
        default: "required",
        doc: "where the token is sent by POST: https, or http to this machine unless allow_http is set",
        example: r#""http://localhost:8741/v1/token""#,
    },
    Key {
        name: "body",
        place: Place::Own,
        kind: Kind::Text,
        default: r#"{{"token": "{access_token}"}}"#,
        doc: "what is sent, a template like token_format; in JSON the values are escaped",
        example: r#"'{{"access_token": "{access_token}", "expires_at": {expires_at}}}'"#,
    },
    Key {
        name: "headers",
        place: Place::Own,
        kind: Kind::Params,
        default: "content-type: application/json",
        doc: "further headers; they may be secrets, so that others must not read the config",
        example: r#"{ x-account = "work" }"#,
    },
    Key {
        name: "api_key",
        place: Place::Own,
        kind: Kind::Secret,
        default: "none",
        doc: "sent as Authorization: Bearer",
        example: r#"{ file = "zerogravity_api_key" }"#,
    },
];

/// The keys of `probe`.
pub const PROBE_KEYS: &[Key] = &[
    Key {
        name: "url",
        place: Place::Own,
        kind: Kind::Url,
        default: "required",
        doc: "what is asked, by GET with the token: https, or http to this machine unless allow_http is set",
        example: r#""https://api.example.com/v1/me""#,
    },
    Key {
        name: "every",
        place: Place::Own,
        kind: Kind::Duration,
        default: "5m",
        doc: "how long to wait between two probes, 5s to 1day",
        example: r#""5m""#,
    },
];

/// What a hook finds in its environment, and what it says.
pub const HOOK_VARIABLES: &[(&str, &str)] = &[
    ("ZG_TOKEND_EVENT", "refresh, failure, recovery or needs_login"),
    ("ZG_TOKEND_ACCOUNT", "the account's name"),
    ("ZG_TOKEND_CONFIG", "the config file"),
    ("ZG_TOKEND_TOKEN_FILE", "the token file"),
    ("ZG_TOKEND_MESSAGE", "what has happened, in one line"),
    ("ZG_TOKEND_HINT", "what to do about it; empty if there is nothing to do"),
    ("ZG_TOKEND_EXPIRES_AT", "when the access token expires, in Unix seconds; unset if there is none"),
    (
        "ZG_TOKEND_GENERATION",
        "how many access tokens the account was granted so far; unset if that is not known",
    ),
];

/// Every key, in the order in which a person would want to read of them.
pub const KEYS: &[Key] = &[
    Key {
        name: "provider",
        place: Place::Account,
        kind: Kind::Text,
        default: "none",
        doc: "a preset of token_endpoint and token_endpoint_auth_method: google",
        example: r#""google""#,
    },
    Key {
        name: "issuer",
        place: Place::Account,
        kind: Kind::Url,
        default: "none",
        doc: "where to discover the token endpoint (RFC 8414, OpenID Connect Discovery)",
        example: r#""https://accounts.google.com""#,
    },
    Key {
        name: "token_endpoint",
        place: Place::Account,
        kind: Kind::Url,
        default: "the provider's, else the one the issuer publishes",
        doc: "where refresh requests go (RFC 6749 section 3.2)",
        example: r#""https://oauth2.googleapis.com/token""#,
    },
    Key {
        name: "confirmed_endpoint_host",
        place: Place::Account,
        kind: Kind::Text,
        default: "none",
        doc: "confirms the host of a token endpoint after the issuer has changed it",
        example: r#""oauth2.googleapis.com""#,
    },
    Key {
        name: "client_id",
        place: Place::Account,
        kind: Kind::Text,
        default: "required",
        doc: "your OAuth client (RFC 6749 section 2.2)",
        example: r#""1234-abc.apps.googleusercontent.com""#,
    },
    Key {
        name: "client_secret",
        place: Place::Account,
        kind: Kind::Secret,
        default: "none",
        doc: "the client's secret, if it has one; goes with the client_id that stands beside it",
        example: r#"{ file = "client_secret" }"#,
    },
    Key {
        name: "token_endpoint_auth_method",
        place: Place::Account,
        kind: Kind::Text,
        default: "none without client_secret, else the provider's, else client_secret_basic",
        doc: "client_secret_basic, client_secret_post or none (RFC 7591 section 2)",
        example: r#""client_secret_post""#,
    },
    Key {
        name: "refresh_token",
        place: Place::Own,
        kind: Kind::Secret,
        default: "the one in the state",
        doc: "the refresh token of a login; read once, its successors are kept in the state",
        example: r#"{ file = "refresh_token" }"#,
    },
    Key {
        name: "scope",
        place: Place::Account,
        kind: Kind::Text,
        default: "what the login was given",
        doc: "narrows the access token, words with spaces between (RFC 6749 section 3.3)",
        example: r#""openid email""#,
    },
    Key {
        name: "audience",
        place: Place::Account,
        kind: Kind::Text,
        default: "none",
        doc: "sent as audience, which some servers want",
        example: r#""https://api.example.com""#,
    },
    Key {
        name: "resource",
        place: Place::Account,
        kind: Kind::List,
        default: "none",
        doc: "sent as resource, one or several (RFC 8707)",
        example: r#"["https://api.example.com"]"#,
    },
    Key {
        name: "extra_params",
        place: Place::Account,
        kind: Kind::Params,
        default: "none",
        doc: "further parameters of the request; an account's table replaces the default one",
        example: r#"{ tenant = "example" }"#,
    },
    Key {
        name: "skew",
        place: Place::Account,
        kind: Kind::Duration,
        default: "a third of the token's life, at least 60s and at most half of it",
        doc: "how long before expiry to refresh; at most half of the token's life counts",
        example: r#""10m""#,
    },
    Key {
        name: "default_lifetime",
        place: Place::Account,
        kind: Kind::Duration,
        default: "1h",
        doc: "the token's life when the server does not tell expires_in",
        example: r#""1h""#,
    },
    Key {
        name: "timeout",
        place: Place::Account,
        kind: Kind::Duration,
        default: "30s",
        doc: "limit of one exchange with the server, 1s to 30s",
        example: r#""30s""#,
    },
    Key {
        name: "ca_file",
        place: Place::Account,
        kind: Kind::Path,
        default: "the system's certificate authorities",
        doc: "a PEM file of certificate authorities to trust instead",
        example: r#""/etc/ssl/example-ca.pem""#,
    },
    Key {
        name: "allow_http",
        place: Place::Account,
        kind: Kind::Bool,
        default: "false",
        doc: "lets the secrets travel unencrypted, to hosts other than loopback; issuer stays https",
        example: "true",
    },
    Key {
        name: "token_file",
        place: Place::Own,
        kind: Kind::Path,
        default: "zerogravity/token in the user's config directory; required in [accounts.NAME]",
        doc: "the file that the access token is published in",
        example: r#""~/.config/zerogravity/token""#,
    },
    Key {
        name: "token_file_mode",
        place: Place::Account,
        kind: Kind::Text,
        default: "0600",
        doc: "its permissions, octal",
        example: r#""0640""#,
    },
    Key {
        name: "token_file_owner",
        place: Place::Account,
        kind: Kind::Principal,
        default: "the user who runs zg-tokend",
        doc: "its owner, by name or number",
        example: r#""root""#,
    },
    Key {
        name: "token_file_group",
        place: Place::Account,
        kind: Kind::Principal,
        default: "the group of the user who runs zg-tokend",
        doc: "its group, by name or number",
        example: r#""root""#,
    },
    Key {
        name: "token_format",
        place: Place::Account,
        kind: Kind::Text,
        default: "{access_token}",
        doc: "what is written: {access_token}, {token_type}, {expires_at} (Unix seconds); {{ and }} are braces",
        example: r#""Authorization: {token_type} {access_token}\n""#,
    },
    Key {
        name: "write",
        place: Place::Account,
        kind: Kind::Text,
        default: "replace",
        doc: "replace (readers never see half a token) or in-place (for a file that is itself a mount point)",
        example: r#""replace""#,
    },
    Key {
        name: "on_expired",
        place: Place::Account,
        kind: Kind::Text,
        default: "keep",
        doc: "keep or remove: what becomes of the token file when its token has expired and there is no new one",
        example: r#""remove""#,
    },
    Key {
        name: "token_file_info",
        place: Place::Account,
        kind: Kind::Bool,
        default: "false",
        doc: "also writes TOKEN_FILE.json, without secrets: expires_at, generation, the SHA-256 of the token file",
        example: "true",
    },
    Key {
        name: "push",
        place: Place::Own,
        kind: Kind::Pushes,
        default: "none",
        doc: "where run also sends each new token, for those who share no file: tables of url, body, headers, api_key",
        example: r#"[{ url = "http://localhost:8741/v1/token", api_key = { env = "ZEROGRAVITY_API_KEY" } }]"#,
    },
    Key {
        name: "probe",
        place: Place::Own,
        kind: Kind::Probe,
        default: "none",
        doc: "a resource that run asks now and then whether it takes the token; 401 gets it replaced",
        example: r#"{ url = "https://api.example.com/v1/me", every = "5m" }"#,
    },
    Key {
        name: "on_refresh",
        place: Place::Account,
        kind: Kind::Command,
        default: "none",
        doc: "a command, run without a shell after the token file was replaced; [] for none",
        example: r#"["systemctl", "--user", "reload", "example.service"]"#,
    },
    Key {
        name: "on_failure",
        place: Place::Account,
        kind: Kind::Command,
        default: "none",
        doc: "run when refreshes begin to fail, once until they succeed again",
        example: r#"["notify-send", "zg-tokend", "the token is not being refreshed"]"#,
    },
    Key {
        name: "on_recovery",
        place: Place::Account,
        kind: Kind::Command,
        default: "none",
        doc: "run when the token is well again after on_failure or on_needs_login",
        example: r#"["notify-send", "zg-tokend", "the token is fresh again"]"#,
    },
    Key {
        name: "on_needs_login",
        place: Place::Account,
        kind: Kind::Command,
        default: "none",
        doc: "run when only a new login can help, once for each dead login",
        example: r#"["notify-send", "--urgency=critical", "zg-tokend", "log in again"]"#,
    },
    Key {
        name: "state_dir",
        place: Place::File,
        kind: Kind::Path,
        default: "/var/lib/zg-tokend/NAME for /etc/zg-tokend/NAME.toml, else zg-tokend in the user's state directory",
        doc: "where refresh tokens and locks are kept",
        example: r#""~/.local/state/zg-tokend""#,
    },
];

/// The key of this name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// How alike two words must be for "did you mean" (0 to 1). 0.8 lets a letter be lost,
/// doubled or swapped in words as long as these, and keeps `issuer` and `user` apart.
const ALIKE: f64 = 0.8;

/// The one of `names` that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::jaro_winkler(word, name), name))
        .filter(|(alike, _)| *alike > ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
