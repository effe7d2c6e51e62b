//! The rules for single values, each on its own.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use url::{Host, Url};

use crate::config::keys;
use crate::config::problem::{ConfigProblem, Flaw};
use crate::config::raw::NameOrNumber;
use crate::config::settings::{AuthMethod, Principal, PushConfig, WriteMode};
use crate::config::token_format::{FormatError, TokenFormat};
use crate::secret::{Secret, looks_pasted};

/// What a provider's name stands for.
pub(super) struct Preset {
    name: &'static str,
    pub(super) token_endpoint: &'static str,
    auth_method: AuthMethod,
}

/// The values of `provider`.
pub const PROVIDERS: [&str; 1] = ["google"];

const PRESETS: [Preset; PROVIDERS.len()] = [Preset {
    name: PROVIDERS[0],
    token_endpoint: "https://oauth2.googleapis.com/token",
    auth_method: AuthMethod::ClientSecretPost,
}];

/// Parameters that the request has anyway: a second one of that name is an error for the
/// server (RFC 6749 section 3.2).
const OWN_PARAMS: &[&str] =
    &["grant_type", "refresh_token", "client_id", "client_secret", "scope", "audience", "resource"];

/// Headers that the client sets itself.
const PUSH_OWN_HEADERS: &[&str] =
    &["host", "content-length", "transfer-encoding", "connection", "user-agent", "accept"];

const IN_FULL: &str = "write it in full, with https://";

pub(super) fn bad_value(key: &str, span: &Range<usize>, what: &str) -> Flaw {
    Flaw::new(span.clone(), key, format!("`{key}` {what}"))
}

pub(super) fn missing(name: &str, place: Range<usize>, whose: &str) -> ConfigProblem {
    let problem = Flaw::new(place, name, format!("missing key `{name}`{whose}"));
    match (name, keys::find(name)) {
        ("token_endpoint", _) | (_, None) => problem.hint(
            "set one of provider = \"google\", issuer = \"https://…\" or token_endpoint = \"https://…\"",
        ),
        (_, Some(key)) => problem.hint(format!("{}; for example: {name} = {}", key.doc, key.example)),
    }
}

/// Whether a name or a path is rather a secret in the wrong place. A path in full is a path.
pub(super) fn is_pasted(name: &str) -> bool {
    !name.starts_with(['/', '~']) && looks_pasted(name)
}

/// Refuses a secret in the place of the name of what holds it, before anything can show it.
pub(super) fn a_name(key: &str, form: &str, span: &Range<usize>, name: &str) -> Result<(), ConfigProblem> {
    if !is_pasted(name) {
        return Ok(());
    }
    let what = format!("has a secret where `{form}` wants the name of what holds it");
    Err(bad_value(key, span, &what)
        .hint(format!("write {key} = \"…\" for the secret itself; a file can be named by its full path")))
}

/// A word out of a few.
pub(super) fn choice<T: Copy>(
    key: &str,
    value: &Spanned<String>,
    choices: &[(&str, T)],
) -> Result<T, ConfigProblem> {
    let word = value.get_ref().as_str();
    choices.iter().find(|(name, _)| *name == word).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let hint = match keys::nearest(word, names.iter().copied()) {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => format!("known values: {}", names.join(", ")),
        };
        bad_value(key, &value.span(), "has an unknown value").hint(hint)
    })
}

pub(super) fn preset(value: &Spanned<String>) -> Result<&'static Preset, ConfigProblem> {
    let choices: Vec<_> = PRESETS.iter().map(|preset| (preset.name, preset)).collect();
    choice("provider", value, &choices)
}

pub(super) fn write_mode(value: &Spanned<String>) -> Result<WriteMode, ConfigProblem> {
    choice("write", value, &[("replace", WriteMode::Replace), ("in-place", WriteMode::InPlace)])
}

/// Whether the token file goes when its token has expired. A mount point cannot.
pub(super) fn remove_expired(value: &Spanned<String>, write: WriteMode) -> Result<bool, ConfigProblem> {
    let remove = choice("on_expired", value, &[("keep", false), ("remove", true)])?;
    if remove && write == WriteMode::InPlace {
        return Err(bad_value(
            "on_expired",
            &value.span(),
            "cannot be \"remove\" while `write` is \"in-place\"",
        )
        .hint("a file that is a mount point cannot be removed: leave on_expired out"));
    }
    Ok(remove)
}

pub(super) fn auth_method(
    value: Option<&Spanned<String>>,
    has_secret: bool,
    preset: Option<&Preset>,
) -> Result<AuthMethod, ConfigProblem> {
    const KEY: &str = "token_endpoint_auth_method";
    let Some(value) = value else {
        let with_secret = preset.map_or(AuthMethod::ClientSecretBasic, |preset| preset.auth_method);
        return Ok(if has_secret { with_secret } else { AuthMethod::None });
    };
    let methods = [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost, AuthMethod::None];
    let method = choice(KEY, value, &methods.map(|method| (method.as_str(), method)))?;
    match (method, has_secret) {
        (AuthMethod::None, true) => {
            Err(bad_value(KEY, &value.span(), "is none, yet there is a client_secret")
                .hint("remove one of the two"))
        }
        (AuthMethod::ClientSecretBasic | AuthMethod::ClientSecretPost, false) => {
            Err(bad_value(KEY, &value.span(), "needs a client_secret")
                .hint("add client_secret, or use \"none\" for a public client"))
        }
        _ => Ok(method),
    }
}

/// RFC 6749 section 3.2: no fragment; TLS, which only loopback may go without.
pub(super) fn endpoint(key: &str, value: &Spanned<String>, allow_http: bool) -> Result<Url, ConfigProblem> {
    let span = value.span();
    let url = Url::parse(value.get_ref())
        .map_err(|error| bad_value(key, &span, &format!("is not a URL: {error}")).hint(IN_FULL))?;
    if url.host().is_none() {
        return Err(bad_value(key, &span, "has no host").hint(IN_FULL));
    }
    match url.scheme() {
        "https" => {}
        "http" if allow_http || is_loopback(&url) => {}
        "http" => {
            return Err(bad_value(key, &span, "would send secrets unencrypted")
                .hint("use https://, or set allow_http = true if the network is yours"));
        }
        _ => {
            return Err(bad_value(key, &span, "is neither https nor http").hint(IN_FULL));
        }
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad_value(key, &span, "contains a user name or password")
            .hint("use client_id and client_secret instead"));
    }
    if url.fragment().is_some() {
        return Err(bad_value(key, &span, "contains a fragment").hint("remove the # and what follows"));
    }
    Ok(url)
}

/// True if the URL's host is this machine: 127.0.0.0/8, ::1, localhost. Not the names under
/// localhost (RFC 6761 section 6.3): not every resolver keeps them here.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name.trim_end_matches('.') == "localhost",
        None => false,
    }
}

/// RFC 8414 section 2: an issuer is https, which only loopback may go without, and has no query.
pub(super) fn issuer(value: &Spanned<String>) -> Result<String, ConfigProblem> {
    let url = endpoint("issuer", value, true)?;
    if url.scheme() != "https" && !is_loopback(&url) {
        let hint = "whoever answered in its place could send the refresh token anywhere: use https://, or set token_endpoint instead";
        return Err(bad_value("issuer", &value.span(), "is not https").hint(hint));
    }
    if url.query().is_some() {
        return Err(
            bad_value("issuer", &value.span(), "contains a query").hint("remove the ? and what follows")
        );
    }
    Ok(value.get_ref().clone())
}

pub(super) fn host(value: &Spanned<String>) -> Result<String, ConfigProblem> {
    Host::parse(value.get_ref()).map(|host| host.to_string()).map_err(|_| {
        bad_value("confirmed_endpoint_host", &value.span(), "is not a host name")
            .hint("write the host alone, without https:// and port")
    })
}

/// A parameter of the request: not empty, and nothing that cannot be seen.
pub(super) fn text(key: &str, value: Spanned<String>) -> Result<String, ConfigProblem> {
    let span = value.span();
    let text = value.into_inner();
    let flaw = if text.trim().is_empty() {
        "is empty"
    } else if text.contains(char::is_control) {
        "contains control characters"
    } else if text.trim() != text {
        "begins or ends with white space"
    } else {
        return Ok(text);
    };
    Err(bad_value(key, &span, flaw).hint("write it as the provider gives it"))
}

/// RFC 6749 section 3.3: printable ASCII words without `"` and `\`, one space between.
pub(super) fn scope(value: &Spanned<String>) -> Result<String, ConfigProblem> {
    let words: Vec<_> = value.get_ref().split_whitespace().collect();
    if words.is_empty() {
        return Err(bad_value("scope", &value.span(), "is empty")
            .hint("leave it out to get what the login was given"));
    }
    let allowed = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    if !words.iter().all(|word| word.chars().all(allowed)) {
        return Err(bad_value("scope", &value.span(), "contains a character that no scope may have")
            .hint("scopes are words with one space between: no quotes, no backslash, ASCII only"));
    }
    Ok(words.join(" "))
}

pub(super) fn extra_params(
    params: Option<BTreeMap<Spanned<String>, Spanned<String>>>,
) -> Result<Vec<(String, String)>, ConfigProblem> {
    let checked = |(name, value): (Spanned<String>, Spanned<String>)| {
        if OWN_PARAMS.contains(&name.get_ref().as_str()) {
            let what = format!("must not repeat `{}`", name.get_ref());
            return Err(bad_value("extra_params", &name.span(), &what)
                .hint("remove it: the request has it, from the key of that name or by itself"));
        }
        let name = text("extra_params", name)?;
        if value.get_ref().contains('\0') {
            return Err(bad_value("extra_params", &value.span(), "contains a NUL character")
                .hint("remove the \\u0000"));
        }
        Ok((name, value.into_inner()))
    };
    params.unwrap_or_default().into_iter().map(checked).collect()
}

pub(super) fn duration(
    key: &str,
    value: Option<&Spanned<String>>,
    range: RangeInclusive<Duration>,
) -> Result<Option<Duration>, ConfigProblem> {
    let Some(value) = value else { return Ok(None) };
    let duration = humantime::parse_duration(value.get_ref()).map_err(|_| {
        bad_value(key, &value.span(), "is not a duration")
            .hint("write for example \"90s\", \"10m\" or \"1h 30m\"")
    })?;
    if !range.contains(&duration) {
        // humantime's years and months are of 30.44 days.
        let of = |end: &Duration| match end.as_secs() / 86_400 {
            0 => humantime::format_duration(*end).to_string(),
            1 => "1day".to_owned(),
            days => format!("{days}days"),
        };
        let (start, end) = (of(range.start()), of(range.end()));
        return Err(bad_value(key, &value.span(), &format!("must be between {start} and {end}"))
            .hint("leave it out to get what is right for most"));
    }
    Ok(Some(duration))
}

pub(super) fn mode(value: &Spanned<String>) -> Result<u32, ConfigProblem> {
    const KEY: &str = "token_file_mode";
    let (digits, span) = (value.get_ref(), value.span());
    let octal = (3..=4).contains(&digits.len()) && digits.chars().all(|c| c.is_digit(8));
    let mode = u32::from_str_radix(digits, 8).ok().filter(|_| octal);
    let mode = mode.ok_or_else(|| {
        bad_value(KEY, &span, "is not an octal mode").hint("write for example \"0600\" or \"0640\"")
    })?;
    let flaw = if mode & 0o002 != 0 {
        "would let every user of this machine change the token"
    } else if mode & !0o666 != 0 {
        "has more than read and write bits"
    } else if mode & 0o400 == 0 {
        "would keep the owner from reading the token"
    } else {
        return Ok(mode);
    };
    Err(bad_value(KEY, &span, flaw).hint("\"0600\" is for one user, \"0640\" for a group"))
}

pub(super) fn principal(key: &str, value: Spanned<NameOrNumber>) -> Result<Principal, ConfigProblem> {
    let span = value.span();
    let name = match value.into_inner() {
        NameOrNumber::Number(number) => number.to_string(),
        NameOrNumber::Name(name) => name,
    };
    let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || ":/".contains(c);
    match name.parse() {
        // chown(2) takes the highest number for "leave it as it is".
        Ok(id) if id < u32::MAX => Ok(Principal::Id(id)),
        Err(_) if name.starts_with(begins) && !name.contains(forbidden) => Ok(Principal::Name(name)),
        _ => Err(bad_value(key, &span, "is neither a name nor a number")
            .hint(format!("write one name, or its number as `id` tells it: {key} = \"www-data\""))),
    }
}

pub(super) fn format(value: &Spanned<String>) -> Result<TokenFormat, ConfigProblem> {
    template("token_format", value)
}

/// The body of a push.
pub(super) fn push_body(value: Option<Spanned<String>>) -> Result<TokenFormat, ConfigProblem> {
    template("push.body", &value.unwrap_or_else(|| Spanned::new(0..0, PushConfig::BODY.to_owned())))
}

fn template(key: &str, value: &Spanned<String>) -> Result<TokenFormat, ConfigProblem> {
    value.get_ref().parse().map_err(|flaw: FormatError| {
        bad_value(key, &value.span(), &flaw.to_string()).hint(
            "placeholders are {access_token}, {token_type} and {expires_at}; a brace itself is {{ or }}",
        )
    })
}

/// The headers of a push: RFC 9110 section 5, names as tokens and values that can be seen.
pub(super) fn push_headers(
    headers: Option<BTreeMap<Spanned<String>, Spanned<String>>>,
    has_api_key: bool,
) -> Result<Vec<(String, Secret)>, ConfigProblem> {
    const KEY: &str = "push.headers";
    let mut checked: Vec<(String, Secret)> = Vec::new();
    for (name, value) in headers.unwrap_or_default() {
        let span = name.span();
        let name = name.into_inner().to_ascii_lowercase();
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_token) {
            return Err(bad_value(KEY, &span, "has a name that no header may have")
                .hint("a name is letters, digits and -, as in X-Tenant"));
        }
        if PUSH_OWN_HEADERS.contains(&&*name) || checked.iter().any(|(other, _)| *other == name) {
            return Err(bad_value(KEY, &span, &format!("must not repeat `{name}`"))
                .hint("leave it out: it is there already"));
        }
        if name == "authorization" && has_api_key {
            return Err(bad_value(KEY, &span, "has an authorization beside the api_key")
                .hint("keep one of the two: api_key is sent as Authorization: Bearer"));
        }
        let is_visible = |c: char| c.is_ascii_graphic() || c == ' ';
        if !value.get_ref().chars().all(is_visible) {
            return Err(bad_value(KEY, &value.span(), "has a value that no header may have")
                .hint("a value is printable ASCII, on one line"));
        }
        checked.push((name, Secret::new(value.into_inner())));
    }
    if !checked.iter().any(|(name, _)| name == "content-type") {
        checked.push(("content-type".into(), Secret::new(PushConfig::CONTENT_TYPE)));
    }
    Ok(checked)
}
