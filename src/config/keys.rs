//! The config keys: one row each. The row gives the field that serde reads, the inheritance from
//! the defaults, "did you mean", the hints of error messages and the manual page.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use crate::config::key::{Group, KeyTable};
pub use crate::config::key::{Key, Kind, Place};
use crate::config::raw_values::{NameOrNumber, OneOrMany, TextOr, Value};
use crate::secret::Secret;

/// The Rust type of each [`Kind`], as serde reads it.
pub(super) mod raw {
    use std::collections::BTreeMap;

    use toml::Spanned;

    use crate::config::keys::{NameOrNumber, OneOrMany, RawAudience, RawSecret, Value};

    pub type Text = Value<String>;
    pub type Path = Text;
    pub type Url = Text;
    pub type Duration = Text;
    pub type Bool = bool;
    pub type Secret = Value<RawSecret>;
    pub type TextSource = Secret;
    pub type UrlSource = Secret;
    pub type Audience = Value<RawAudience>;
    pub type Principal = Value<NameOrNumber>;
    pub type List = Value<OneOrMany>;
    pub type Body = Text;
    pub type Params = BTreeMap<Spanned<String>, Spanned<String>>;
    pub type Secrets = BTreeMap<Spanned<String>, Secret>;
    pub type Command = Value<Vec<String>>;
    pub type Table<T> = Value<T>;
    pub type Tables<T> = Vec<Spanned<T>>;
}

/// The parts of a table that `keys!` makes.
pub(super) trait RawTable {
    const TABLE: &'static KeyTable;

    /// Whether a key of this place is set.
    fn has(&self, place: Place) -> bool;

    /// Whether no key but these is set.
    fn has_only(&self, names: &[&str]) -> bool;

    /// Takes the values of `defaults` where there are none.
    fn fill(&mut self, defaults: Self);

    /// The first key of this group that is set.
    fn first_of(&self, group: Group) -> Option<&'static str>;

    /// Takes out the values of this group, or of all keys without one.
    fn clear(&mut self, group: Option<Group>);
}

/// `NAME: PLACE(GROUP) KIND(TABLE), DEFAULT, DOC, EXAMPLE;` for each key of a table; most have no group and
/// hold no table. Before them the name of the table, and its form in words.
macro_rules! keys {
    (
        $(#[$attribute:meta])*
        $keys:ident, $raw:ident, $table_name:literal, $form:literal {
            $($name:ident: $place:ident $(($group:ident))? $kind:ident $(($table:ident))?,
                $default:literal, $doc:literal, $example:literal;)*
        }
    ) => {
        $(#[$attribute])*
        pub const $keys: &[Key] = &[$(Key {
            name: stringify!($name),
            place: Place::$place,
            group: [$(Some(Group::$group),)? None][0],
            kind: Kind::$kind $(($table::TABLE))?,
            default: $default,
            doc: $doc,
            example: $example,
        }),*];

        #[derive(Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $raw { $(pub(super) $name: Option<raw::$kind $(<$table>)?>),* }

        impl RawTable for $raw {
            const TABLE: &'static KeyTable = &KeyTable::new($table_name, $form, $keys);

            fn has(&self, place: Place) -> bool {
                $((Place::$place == place && self.$name.is_some()))||*
            }

            fn has_only(&self, names: &[&str]) -> bool {
                $((self.$name.is_none() || names.contains(&stringify!($name))))&&*
            }

            fn fill(&mut self, defaults: Self) {
                $(if self.$name.is_none() {
                    self.$name = defaults.$name;
                })*
            }

            fn first_of(&self, group: Group) -> Option<&'static str> {
                $(if [$(Some(Group::$group),)? None][0] == Some(group) && self.$name.is_some() {
                    return Some(stringify!($name));
                })*
                None
            }

            fn clear(&mut self, group: Option<Group>) {
                $(if [$(Some(Group::$group),)? None][0] == group {
                    self.$name = None;
                })*
            }
        }
    };
}

keys! {
/// All keys, in the order of the example config.
KEYS, RawAccount, "", "" {
    provider: Account(Server) Text, "none",
        "a preset of the endpoint and whatever else the provider's requests need; `zg-tokend init --provider '?'` lists them",
        r#""google""#;
    tenant: Account(Server) Text, "the provider's, if it has one",
        "the tenant at the provider, as at microsoft; belongs to the provider in the same table",
        r#""contoso.onmicrosoft.com""#;
    host: Account(Server) Text, "the provider's, if it has one",
        "the host of your own server, as at gitlab or salesforce; belongs to the provider in the same table",
        r#""gitlab.example.com""#;
    shop: Account(Server) Text, "none",
        "the shop at the provider shopify; belongs to the provider in the same table",
        r#""example""#;
    data_center: Account(Server) Text, "the provider's, if it has one",
        "the data center at the provider zoho, as in its address; belongs to the provider in the same table",
        r#""eu""#;
    issuer: Account(Server) UrlSource, "none",
        "the issuer, to discover the token endpoint (RFC 8414, OpenID Connect Discovery)",
        r#""https://accounts.google.com""#;
    token_endpoint: Account(Server) UrlSource, "the provider's, else the one that the issuer publishes",
        "the URL for refresh requests (RFC 6749 section 3.2)",
        r#""https://oauth2.googleapis.com/token""#;
    confirmed_endpoint_host: Account(Server) Text, "none",
        "confirms the host of the token endpoint after the issuer has changed it",
        r#""oauth2.googleapis.com""#;
    authorization_endpoint: Account(Server) UrlSource, "the provider's, else the one that the issuer publishes",
        "the URL that `zg-tokend login` opens in a browser (RFC 6749 section 3.1)",
        r#""https://accounts.google.com/o/oauth2/v2/auth""#;
    device_authorization_endpoint: Account(Server) UrlSource, "the provider's, else the one that the issuer publishes",
        "the URL for a login by device code (RFC 8628)",
        r#""https://oauth2.googleapis.com/device/code""#;
    revocation_endpoint: Account(Server) UrlSource, "the provider's, else the one that the issuer publishes",
        "the URL where `zg-tokend logout` revokes the login (RFC 7009)",
        r#""https://oauth2.googleapis.com/revoke""#;
    client_id: Account(Client) TextSource, "required",
        "your OAuth client (RFC 6749 section 2.2); like a secret, it may come from a file, a variable, a command or a credential",
        r#""1234-abc.apps.googleusercontent.com""#;
    client_secret: Account(Client) Secret, "none",
        "the secret of the client, if it has one; belongs to the client_id in the same table",
        r#"{ file = "client_secret" }"#;
    token_endpoint_auth_method: Account(Login) Text,
        "what the keys allow; with client_secret the provider's, else client_secret_basic",
        "client_secret_basic, client_secret_post, none, private_key_jwt, tls_client_auth, self_signed_tls_client_auth (RFC 7591, RFC 8705), or client_secret_basic_raw for servers that do not decode id and secret",
        r#""client_secret_post""#;
    private_key: Account(Client) Secret, "none",
        "the key that signs assertions (RFC 7523), PEM of PKCS#8 or PKCS#1: for private_key_jwt, and for jwt-bearer without assertion",
        r#"{ file = "client.pem" }"#;
    key_id: Account(Client) Text, "none",
        "the kid in the header of assertions, by which the server finds the public key",
        r#""2026-11""#;
    certificate: Account(Client) Path, "none",
        "the certificate of private_key, PEM: its thumbprints x5t and x5t#S256 go into the header of assertions",
        r#""client.crt""#;
    client_assertion: Account(Client) Secret, "none",
        "an assertion that somebody else signs, for private_key_jwt; read anew for each request",
        r#"{ file = "/var/run/secrets/azure/tokens/azure-identity-token" }"#;
    client_assertion_audience: Account(Login) Text, "the provider's, else issuer if it is known, else token_endpoint",
        "the aud of assertions for private_key_jwt: issuer, token_endpoint, or any other text",
        r#""token_endpoint""#;
    tls_certificate: Account(Client) Path, "none",
        "the certificate for tls_client_auth (RFC 8705), PEM, with its chain; read again when it has changed",
        r#""client.crt""#;
    tls_private_key: Account(Client) Secret, "none",
        "the key of tls_certificate, PEM",
        r#"{ file = "client.key" }"#;
    grant_type: Account(Login) Text, "the provider's, else refresh_token",
        "what is exchanged for access tokens: refresh_token (a login), client_credentials, jwt-bearer (RFC 7523), token-exchange (RFC 8693)",
        r#""client_credentials""#;
    assertion: Account Secret, "signed here with private_key",
        "the assertion for jwt-bearer, if somebody else signs it; read anew for each request",
        r#"{ file = "assertion.jwt" }"#;
    assertion_issuer: Account Text, "client_id",
        "the iss of the assertion for jwt-bearer",
        r#""robot@project.example""#;
    assertion_subject: Account Text, "assertion_issuer",
        "the sub of the assertion for jwt-bearer: the user or service to act for",
        r#""user@example.com""#;
    assertion_audience: Account Text, "token_endpoint",
        "the aud of the assertion for jwt-bearer: issuer, token_endpoint, or any other text",
        r#""https://login.example.com""#;
    subject_token: Account Secret, "none",
        "the token for token-exchange; read anew for each request",
        r#"{ file = "/var/run/secrets/tokens/token" }"#;
    subject_token_type: Account Text, "none",
        "its type: jwt, access_token, id_token, refresh_token, saml1, saml2 or a URI",
        r#""jwt""#;
    actor_token: Account Secret, "none",
        "the token of whoever acts for the subject (RFC 8693)",
        r#"{ file = "actor.jwt" }"#;
    actor_token_type: Account Text, "none",
        "its type, as for subject_token_type",
        r#""jwt""#;
    requested_token_type: Account Text, "none",
        "the type of token to ask for, as for subject_token_type",
        r#""access_token""#;
    google_credentials: Account Path, "none",
        "a file of Google in place of all these: service_account, authorized_user, or external_account with a file",
        r#""key.json""#;
    refresh_token: Own(Login) Secret, "the one in the state",
        "the refresh token of a login; it is read once, its successors are kept in the state",
        r#"{ file = "refresh_token" }"#;
    from: Own Text, "none",
        "another account, whose login this one uses: one refresh token, and an access token for each scope, audience or resource",
        r#""work""#;
    scope: Account Text, "the scope of the login",
        "narrows the access token: words separated by spaces (RFC 6749 section 3.3)",
        r#""openid email""#;
    login_scope: Account(Login) Text, "scope, and the words that the provider needs for a refresh token",
        "the scope of a login: words separated by spaces; add openid to learn and pin the user",
        r#""openid email offline_access""#;
    redirect_uri: Account(Login) Url, "http://127.0.0.1/",
        "the redirect URI of the client: http to this machine, where a free port is added if it has none; or https, for a login by paste",
        r#""http://localhost/""#;
    authorization_params: Account(Login) Params, "the provider's",
        "more parameters of the URL that a login opens; they replace the provider's of the same name",
        r#"{ prompt = "select_account" }"#;
    identity: Own(Login) Text, "the user of the first login",
        "the only user who may log in: ISSUER#SUBJECT, as `zg-tokend status` shows it",
        r#""https://accounts.google.com#1234567890""#;
    audience: Account Audience, "none",
        "the parameter audience, which some servers need; or, as [accounts.NAME.audience.OTHER], more access tokens of this login, each an account NAME.OTHER with from = \"NAME\"",
        r#""https://api.example.com""#;
    resource: Account List, "none",
        "the parameter resource, once or several times (RFC 8707)",
        r#"["https://api.example.com"]"#;
    extra_params: Account Secrets, "none",
        "more parameters of the request, as strings or secrets; an account's table replaces the default one",
        r#"{ tenant = "example" }"#;
    request_headers: Account Secrets, "none",
        "headers of the request, as strings or secrets; they may replace user-agent, accept and authorization",
        r#"{ apikey = { env = "ZG_APIKEY" }, user-agent = "my-app/1.0" }"#;
    request_body: Account(Login) Body, "a form, as RFC 6749 has it",
        "the body of the request, a template: {grant_type}, {refresh_token}, {client_id}, {client_secret}, {scope} and the names in extra_params; JSON if it begins with a brace, else a form; {{ and }} are braces",
        r#"'{{"grant_type": "{grant_type}", "refresh_token": "{refresh_token}"}}'"#;
    skew: Account Duration, "a third of the token's lifetime, at least 60s and at most half of it",
        "how long before expiry to refresh; at most half of the token's lifetime counts",
        r#""10m""#;
    // A server that sends no `expires_in` most often grants an hour (RFC 6749 section 5.1's example).
    default_lifetime: Account Duration, "1h",
        "the lifetime of a token if the server sends no expires_in",
        r#""1h""#;
    // The longest: whoever waits for the lock gives up after 45 s, and one exchange with its
    // durable writes has to be over by then.
    timeout: Account Duration, "30s",
        "time limit for one exchange with the server, 1s to 30s",
        r#""30s""#;
    ca_file: Account Path, "the system's certificate authorities",
        "a PEM file with certificate authorities to trust instead of the system's",
        r#""/etc/ssl/example-ca.pem""#;
    proxy: Account UrlSource, "HTTPS_PROXY, else ALL_PROXY, of the environment",
        "the proxy for https: http, https, socks5 or socks5h (which resolves names at the proxy), with user name and password if it wants them; or none. NO_PROXY of the environment names hosts to reach without it",
        r#""http://proxy.example.com:3128""#;
    allow_http: Account Bool, "false",
        "allows unencrypted http to hosts other than this machine; issuer must be https all the same",
        "true";
    token_file: Own Path,
        "zerogravity/token in the user's config directory; required in [accounts.NAME]",
        "the file for the access token",
        r#""~/.config/zerogravity/token""#;
    token_file_mode: Account Text, "0600",
        "the permissions of the token file, octal",
        r#""0640""#;
    token_file_owner: Account Principal, "the user who runs zg-tokend",
        "the owner of the token file, by name or number",
        r#""root""#;
    token_file_group: Account Principal, "the group of the user who runs zg-tokend",
        "the group of the token file, by name or number",
        r#""root""#;
    token_format: Account Text, "{access_token}",
        "the content of the token file: the name of a format, or a template (see FORMATS)",
        r#""Authorization: {token_type} {access_token}\n""#;
    outputs: Own Tables(RawOutput), "none",
        "more files for the same access token, each in a format of its own: tables of path, format, mode, owner, group, write",
        r#"[{ path = "~/.netrc", format = "netrc:api.example.com" }]"#;
    write: Account Text, "replace",
        "replace (readers never see half a token) or in-place (for a file that is itself a mount point)",
        r#""replace""#;
    on_expired: Account Text, "keep",
        "keep or remove: what to do with the token file when its token has expired and there is no new one",
        r#""remove""#;
    token_file_info: Account Bool, "false",
        "also write TOKEN_FILE.json, without secrets: expires_at, generation, the SHA-256 of the token file and of the outputs",
        "true";
    push: Own Tables(RawPush), "none",
        "URLs that each new token is also sent to, for programs that cannot read the file: tables of url, method, content_type, body, headers, api_key",
        r#"[{ url = "http://localhost:8741/v1/token", api_key = { env = "ZEROGRAVITY_API_KEY" } }]"#;
    probe: Own Table(RawProbe), "none",
        "a URL that run requests from time to time with the token; if it answers 401, run replaces the token",
        r#"{ url = "https://api.example.com/v1/me", every = "5m" }"#;
    on_refresh: Account Command, "none",
        "a command to run, without a shell, after the token file was replaced; [] for none",
        r#"["systemctl", "--user", "reload", "example.service"]"#;
    signal: Own Table(RawSignal), "none",
        "a signal to send after the token file was replaced, where no command can be run: a table of pid_file and signal",
        r#"{ pid_file = "/run/nginx.pid", signal = "HUP" }"#;
    on_failure: Account Command, "none",
        "a command to run when refreshes begin to fail, once until they succeed again",
        r#"["notify-send", "zg-tokend", "the token is not being refreshed"]"#;
    on_recovery: Account Command, "none",
        "a command to run when refreshes succeed again after on_failure or on_needs_login",
        r#"["notify-send", "zg-tokend", "the token is fresh again"]"#;
    on_needs_login: Account Command, "none",
        "a command to run when only a new login can help, once for each dead login",
        r#"["notify-send", "--urgency=critical", "zg-tokend", "log in again"]"#;
    fleet: Account(Login) Table(RawFleet), "none", "PostgreSQL, where several machines share one login: a table of url, key and role (see FLEET)", r#"{ url = { credential = "fleet_url" }, key = { credential = "fleet_key" } }"#;
    state_key: File Secret, "none: the state is in plain, 0600 in a 0700 directory",
        "the key that seals refresh tokens in the state: 32 random bytes in base64, never in this file; `zg-tokend seal` makes one",
        r#"{ credential = "state_key" }"#;
    state_key_previous: File Secret, "none",
        "the key before state_key, which opens states and seals none; alone, it has them written in plain again",
        r#"{ file = "old_key" }"#;
    state_dir: File Path,
        "/var/lib/zg-tokend/NAME for /etc/zg-tokend/NAME.toml, else zg-tokend in the user's state directory",
        "the directory for refresh tokens and locks",
        r#""~/.local/state/zg-tokend""#;
}}

keys! {
/// The keys of one target in `push`.
PUSH_KEYS, RawPush, "push", "an array of tables, each with a url" {
    url: Own Url, "required",
        "the URL for the request: https, or http to this machine unless allow_http is set",
        r#""http://localhost:8741/v1/token""#;
    method: Own Text, "POST",
        "the method of the request: POST, PUT or PATCH",
        r#""PUT""#;
    content_type: Own Text, "application/json",
        "the content type of the body; values in JSON are escaped",
        r#""text/plain""#;
    // As ZeroGravity takes it.
    body: Own Text, r#"{{"token": "{access_token}"}}"#,
        "the request body, like token_format",
        r#"'{{"access_token": "{access_token}", "expires_at": {expires_at}}}'"#;
    headers: Own Secrets, "none",
        "more headers, as strings or secrets; they may be secrets, so others must not be able to read the config",
        r#"{ x-account = "work" }"#;
    api_key: Own Secret, "none",
        "sent as Authorization: Bearer",
        r#"{ file = "zerogravity_api_key" }"#;
}}

keys! {
/// The keys of one file in `outputs`.
OUTPUT_KEYS, RawOutput, "outputs", "an array of tables, each with a path" {
    path: Own Path, "required",
        "the file; no two files of a config may be the same",
        r#""~/.netrc""#;
    format: Own Text, "bare",
        "its content, like token_format",
        r#""netrc:api.example.com""#;
    mode: Own Text, "0600",
        "its permissions, octal",
        r#""0640""#;
    owner: Own Principal, "the user who runs zg-tokend",
        "its owner, by name or number",
        r#""root""#;
    group: Own Principal, "the group of the user who runs zg-tokend",
        "its group, by name or number",
        r#""root""#;
    write: Own Text, "replace",
        "replace or in-place, as for the token file",
        r#""replace""#;
}}

keys! {
/// The keys of `probe`.
PROBE_KEYS, RawProbe, "probe", "a table with a url" {
    url: Own Url, "required",
        "the URL for the GET request with the token: https, or http to this machine unless allow_http is set",
        r#""https://api.example.com/v1/me""#;
    // Revoked tokens are rare, and requests may count: 12 an hour for each account.
    every: Own Duration, "5m",
        "time between two probes, 5s to 1day",
        r#""5m""#;
}}

keys! {
/// The keys of `signal`.
SIGNAL_KEYS, RawSignal, "signal", "a table with a pid_file" {
    pid_file: Own Path, "required",
        "the file that begins with the process id of the program",
        r#""/run/nginx.pid""#;
    signal: Own Text, "HUP",
        "HUP, USR1, USR2 or WINCH",
        r#""USR1""#;
}}

keys! {
/// The keys of `fleet`.
FLEET_KEYS, RawFleet, "fleet", "a table with a url" {
    url: Own Secret, "required", "the URL of the database, with TLS unless it is on this machine: postgresql://USER:PASSWORD@HOST,HOST2/DATABASE?sslrootcert=FILE", r#""postgresql://zg_refresh@db.example.com/zg""#;
    key: Own Secret, "required where role is refresh", "the key that seals the refresh token in the database, the same on all machines that refresh: 32 random bytes in base64", r#"{ file = "fleet_key" }"#;
    role: Own Text, "refresh",
        "refresh, or read: publish the access token of the others, and never see the refresh token", r#""refresh""#;
}}

keys! {
/// The sources of a secret that is not inline: exactly one of them.
FORMS, RawForms, "", "" {
    file: Own Path, "none", "a file that others cannot read",
        r#"{ file = "~/.config/zg-tokend/secret" }"#;
    env: Own Text, "none", "an environment variable",
        r#"{ env = "ZG_SECRET" }"#;
    command: Own Command, "none",
        "the standard output of a command, run without a shell, for at most 10 s",
        r#"{ command = ["pass", "show", "zg/secret"] }"#;
    credential: Own Text, "none",
        "a systemd credential: LoadCredential= and the like, systemd.exec(5)",
        r#"{ credential = "secret" }"#;
    sealed: Own Path, "none", "a file that `zg-tokend seal --secrets` has written; state_key opens it",
        r#"{ sealed = "config.client_secret.sealed" }"#;
}}

/// The environment variables of a hook.
pub const HOOK_VARIABLES: &[(&str, &str)] = &[
    ("ZG_TOKEND_EVENT", "refresh, failure, recovery or needs_login"),
    ("ZG_TOKEND_ACCOUNT", "the account's name"),
    ("ZG_TOKEND_CONFIG", "the config file"),
    ("ZG_TOKEND_TOKEN_FILE", "the token file"),
    ("ZG_TOKEND_OUTPUTS", "the files in outputs, one on each line; empty if there are none"),
    ("ZG_TOKEND_MESSAGE", "what happened, in one line"),
    ("ZG_TOKEND_HINT", "what to do about it; empty if there is nothing to do"),
    ("ZG_TOKEND_EXPIRES_AT", "when the access token expires, in Unix seconds; unset if there is none"),
    ("ZG_TOKEND_GENERATION", "how many access tokens the account was granted so far; unset if unknown"),
];

/// A secret: the value itself, or a table that names its source.
pub(super) type RawSecret = TextOr<Secret, RawForms>;

/// Accounts, by name.
pub(super) type RawAccounts = BTreeMap<Spanned<String>, AccountKeys>;

/// The keys of an account. All of them take two thirds of a kilobyte, and most accounts of a large fleet
/// have two.
#[derive(Clone, Deserialize)]
#[serde(from = "Box<RawAccount>")]
pub(super) enum AccountKeys {
    Simple { refresh_token: Option<raw::Secret>, token_file: Option<raw::Path> },
    Any(Box<RawAccount>),
}

impl From<Box<RawAccount>> for AccountKeys {
    fn from(raw: Box<RawAccount>) -> Self {
        if raw.has_only(&["refresh_token", "token_file"]) {
            let RawAccount { refresh_token, token_file, .. } = *raw;
            return Self::Simple { refresh_token, token_file };
        }
        Self::Any(raw)
    }
}

impl AccountKeys {
    pub(super) fn all(self) -> Box<RawAccount> {
        match self {
            Self::Simple { refresh_token, token_file } => {
                Box::new(RawAccount { refresh_token, token_file, ..RawAccount::default() })
            }
            Self::Any(raw) => raw,
        }
    }

    /// Whether a key of this place is set.
    pub(super) fn has(&self, place: Place) -> bool {
        match self {
            Self::Simple { refresh_token, token_file } => {
                place == Place::Own && (refresh_token.is_some() || token_file.is_some())
            }
            Self::Any(raw) => raw.has(place),
        }
    }

    pub(super) fn from(&self) -> Option<&raw::Text> {
        match self {
            Self::Simple { .. } => None,
            Self::Any(raw) => raw.from.as_ref(),
        }
    }
}

/// The parameter, or the accounts that use this login, by the last part of their names.
pub(super) type RawAudience = TextOr<String, RawAccounts>;

/// The key of this name; those of a table with its name before them, as in `push.url`.
pub fn find(path: &str) -> Option<&'static Key> {
    let find = |keys: &'static [Key], name: &str| keys.iter().find(|key| key.name == name);
    match path.split_once('.') {
        Some((table, name)) => find(find(KEYS, table)?.kind.table()?.keys, name),
        None => find(KEYS, path),
    }
}

/// The value of a key, else its default.
pub(super) fn or_default(path: &str, value: Option<raw::Text>) -> raw::Text {
    let default = || find(path).map_or("", |key| key.default);
    value.unwrap_or_else(|| Value::new(0..0, default().to_owned()))
}
