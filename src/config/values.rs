//! The rules for single values.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use url::{Host, Url};

use crate::config::keys;
use crate::config::keys::{or_default, raw};
use crate::config::problem::{ConfigProblem, bad_value};
use crate::config::raw_values::NameOrNumber;
use crate::config::settings::WriteMode;
use crate::config::source::SecretSource;
use crate::config::spelling;
use crate::config::token_format::{FormatError, TokenFormat};
use crate::files::owner::Principal;
use crate::oauth::providers::{PROVIDERS, Provider};
use crate::oauth::{AuthMethod, providers};
use crate::redact::looks_pasted;
use crate::secret::Secret;

/// Parameters that the request has already: a second one of that name is an error for the
/// server (RFC 6749 section 3.2).
const OWN_PARAMS: &[&str] =
    &["grant_type", "refresh_token", "client_id", "client_secret", "scope", "audience", "resource"];

/// Headers that the client sets itself.
pub(super) const PUSH_OWN_HEADERS: &[&str] =
    &["host", "content-length", "transfer-encoding", "connection", "user-agent", "accept"];

/// Headers of a token request that the connection depends on.
pub(super) const REQUEST_OWN_HEADERS: &[&str] =
    &["host", "content-length", "transfer-encoding", "connection", "accept-encoding"];

const IN_FULL: &str = "write it in full, with https://";

/// `whose` ends the message: " in account `work`".
pub(super) fn missing(name: &str, place: Range<usize>, whose: &str) -> ConfigProblem {
    let hint = match keys::find(name) {
        Some(key) if name != "token_endpoint" => {
            format!("add it, for example: {} = {}; it is {}", key.name, key.example, key.doc)
        }
        _ => "set one of provider = \"google\", issuer = \"https://…\" or token_endpoint = \"https://…\""
            .into(),
    };
    ConfigProblem::new(place, format!("missing key `{name}`{whose}"), hint)
}

/// Whether a name or path looks like a secret in the wrong place. A path in full is a path.
pub(super) fn is_pasted(name: &str) -> bool {
    !name.starts_with(['/', '~']) && looks_pasted(name)
}

/// Refuses a secret in the place of a name, before anything can show it.
pub(super) fn refuse_pasted(
    key: &str,
    form: &str,
    span: Range<usize>,
    name: &str,
) -> Result<(), ConfigProblem> {
    if !is_pasted(name) {
        return Ok(());
    }
    let what = format!("has a secret where `{form}` needs a name");
    let hint = format!(
        "write {key} = \"…\" for the secret itself; if it is the name of a file, write its full path"
    );
    Err(bad_value(key, span, what, hint))
}

/// One of a few words.
pub(super) fn choice<T: Copy>(
    key: &str,
    value: &Spanned<String>,
    choices: &[(&str, T)],
) -> Result<T, ConfigProblem> {
    let word = value.get_ref().as_str();
    choices.iter().find(|(name, _)| *name == word).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let hint = match spelling::nearest(word, names.iter().copied()) {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => format!("known values: {}", names.join(", ")),
        };
        bad_value(key, value.span(), "has an unknown value", hint)
    })
}

pub(super) fn provider(value: &Spanned<String>) -> Result<&'static Provider, ConfigProblem> {
    providers::find(value.get_ref()).ok_or_else(|| {
        let names = PROVIDERS.iter().map(|provider| provider.name);
        let hint = match spelling::nearest(value.get_ref(), names) {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => "`zg-tokend init --provider '?'` lists the providers; for another one, set issuer or token_endpoint".into(),
        };
        bad_value("provider", value.span(), "has an unknown value", hint)
    })
}

/// The user's part of a provider's endpoints, empty if they have none; `None` without a provider.
/// `parts` are the values of `tenant` and its like.
pub(super) fn provider_part(
    provider: Option<(&Provider, Range<usize>)>,
    parts: [(&'static str, Option<raw::Text>); 4],
) -> Result<Option<String>, ConfigProblem> {
    let place = provider.as_ref().and_then(|(provider, _)| provider.place.as_ref());
    let mut own = None;
    for (key, value) in parts {
        let Some(value) = value else { continue };
        if place.is_none_or(|place| place.key != key) {
            let hint = "remove it: no endpoint of this account has such a part";
            return Err(bad_value(key, value.span(), "does not belong to the provider", hint));
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let values = place.map_or(&[][..], |place| place.values);
        let (what, hint) = if value.get_ref().is_empty() || !value.get_ref().chars().all(is_part) {
            (
                "is no part of an address",
                "write letters, digits, dots and hyphens, without https:// and path".into(),
            )
        } else if !values.is_empty() && !values.contains(&value.get_ref().as_str()) {
            ("has an unknown value", format!("known values: {}", values.join(", ")))
        } else {
            own = Some(value.into_inner());
            continue;
        };
        return Err(bad_value(key, value.span(), what, hint));
    }
    let Some((provider, span)) = provider else { return Ok(None) };
    if let Some(place) = place
        && own.is_none()
        && place.default.is_none()
    {
        let hint =
            format!("add {} = \"…\": it is a part of the endpoint {}", place.key, provider.token_endpoint);
        return Err(bad_value("provider", span, format!("needs the key `{}`", place.key), hint));
    }
    let default = || place.and_then(|place| place.default).unwrap_or_default().to_owned();
    Ok(Some(own.unwrap_or_else(default)))
}

/// The provider's values, where the config has no other.
pub(super) fn with_preset(
    mut own: Vec<(String, SecretSource)>,
    preset: &[(&str, &str)],
) -> Vec<(String, SecretSource)> {
    for (name, value) in preset {
        if !own.iter().any(|(known, _)| known == name) {
            own.push(((*name).to_owned(), SecretSource::Inline(Secret::new(*value))));
        }
    }
    own
}

/// Whether the token file is removed when its token has expired.
pub(super) fn remove_expired(value: &Spanned<String>, write: WriteMode) -> Result<bool, ConfigProblem> {
    const KEY: &str = "on_expired";
    let remove = choice(KEY, value, &[("keep", false), ("remove", true)])?;
    if remove && write == WriteMode::InPlace {
        let what = "cannot be \"remove\" while `write` is \"in-place\"";
        let hint = "leave on_expired out: a file that is a mount point cannot be removed";
        return Err(bad_value(KEY, value.span(), what, hint));
    }
    Ok(remove)
}

/// The means of the client to prove who it is.
#[derive(Clone, Copy)]
pub(super) struct Credentials {
    pub(super) secret: bool,
    /// An assertion, or a key that signs one.
    pub(super) assertion: bool,
    pub(super) certificate: bool,
}

pub(super) fn auth_method(
    value: Option<&Spanned<String>>,
    has: Credentials,
    provider: Option<&Provider>,
) -> Result<AuthMethod, ConfigProblem> {
    const KEY: &str = "token_endpoint_auth_method";
    let Some(value) = value else {
        let with_secret = provider.map_or(AuthMethod::ClientSecretBasic, |provider| provider.auth_method);
        return Ok(match has {
            Credentials { secret: true, .. } => with_secret,
            Credentials { assertion: true, .. } => AuthMethod::PrivateKeyJwt,
            Credentials { certificate: true, .. } => AuthMethod::TlsClientAuth,
            _ => AuthMethod::None,
        });
    };
    let method = choice(KEY, value, &AuthMethod::ALL.map(|method| (method.as_str(), method)))?;
    let (what, hint) = match method {
        AuthMethod::None if has.secret => ("is none, but there is a client_secret", "remove one of the two"),
        AuthMethod::ClientSecretBasic | AuthMethod::ClientSecretBasicRaw | AuthMethod::ClientSecretPost
            if !has.secret =>
        {
            ("needs a client_secret", "add client_secret, or use \"none\" for a public client")
        }
        AuthMethod::PrivateKeyJwt if !has.assertion => {
            ("needs a private_key", "add private_key, or client_assertion if somebody else signs it")
        }
        AuthMethod::TlsClientAuth | AuthMethod::SelfSignedTlsClientAuth if !has.certificate => {
            ("needs a tls_certificate", "add tls_certificate and tls_private_key")
        }
        AuthMethod::PrivateKeyJwt | AuthMethod::TlsClientAuth | AuthMethod::SelfSignedTlsClientAuth
            if has.secret =>
        {
            ("uses no client_secret, but there is one", "remove one of the two")
        }
        _ => return Ok(method),
    };
    Err(bad_value(KEY, value.span(), what, hint))
}

/// RFC 6749 section 3.2: no fragment, and TLS, except for loopback.
pub(super) fn endpoint(key: &str, value: &Spanned<String>, allow_http: bool) -> Result<Url, ConfigProblem> {
    let url = Url::parse(value.get_ref())
        .map_err(|error| bad_value(key, value.span(), format!("is not a URL: {error}"), IN_FULL))?;
    let (what, hint) = if url.host().is_none() {
        ("has no host", IN_FULL)
    } else if !matches!(url.scheme(), "https" | "http") {
        ("is neither https nor http", IN_FULL)
    } else if url.scheme() == "http" && !allow_http && !is_loopback(&url) {
        (
            "would send secrets unencrypted",
            "use https://, or set allow_http = true if you trust the whole network in between",
        )
    } else if !url.username().is_empty() || url.password().is_some() {
        ("contains a user name or password", "use client_id and client_secret instead")
    } else if url.fragment().is_some() {
        ("contains a fragment", "remove the # and the text after it")
    } else {
        return Ok(url);
    };
    Err(bad_value(key, value.span(), what, hint))
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

/// RFC 8414 section 2: an issuer is https, except for loopback, and has no query.
pub(super) fn issuer(value: &Spanned<String>) -> Result<String, ConfigProblem> {
    let url = endpoint("issuer", value, true)?;
    let (what, hint) = if url.scheme() != "https" && !is_loopback(&url) {
        (
            "is not https",
            "use https://, or set token_endpoint instead: over http, anybody on the way could redirect the refresh token",
        )
    } else if url.query().is_some() {
        ("contains a query", "remove the ? and the text after it")
    } else {
        return Ok(value.get_ref().clone());
    };
    Err(bad_value("issuer", value.span(), what, hint))
}

pub(super) fn host(value: &Spanned<String>) -> Result<String, ConfigProblem> {
    Host::parse(value.get_ref()).map(|host| host.to_string()).map_err(|_| {
        let hint = "write the host alone, without https:// and port";
        bad_value("confirmed_endpoint_host", value.span(), "is not a host name", hint)
    })
}

/// A parameter of the request: not empty, and without invisible characters.
pub(super) fn text(key: &str, value: Spanned<String>) -> Result<String, ConfigProblem> {
    let text = value.get_ref();
    let what = if text.trim().is_empty() {
        "is empty"
    } else if text.contains(char::is_control) {
        "contains control characters"
    } else if text.trim() != text {
        "begins or ends with white space"
    } else {
        return Ok(value.into_inner());
    };
    Err(bad_value(key, value.span(), what, "copy it exactly from the provider's console"))
}

/// RFC 6749 section 3.3: printable ASCII words without `"` and `\`, one space between.
pub(super) fn scope(key: &str, value: &Spanned<String>) -> Result<String, ConfigProblem> {
    let words: Vec<_> = value.get_ref().split_whitespace().collect();
    let allowed = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    let (what, hint) = if words.is_empty() {
        ("is empty", "leave it out to get the scope of the login")
    } else if !words.iter().all(|word| word.chars().all(allowed)) {
        (
            "contains a character that is not allowed in a scope",
            "scopes are words separated by one space: no quotes, no backslash, ASCII only",
        )
    } else {
        return Ok(words.join(" "));
    };
    Err(bad_value(key, value.span(), what, hint))
}

pub(super) fn param_name(key: &str, name: Spanned<String>) -> Result<String, ConfigProblem> {
    if OWN_PARAMS.contains(&name.get_ref().as_str()) {
        let what = format!("must not repeat `{}`", name.get_ref());
        return Err(bad_value(key, name.span(), what, "remove it: the request has this parameter already"));
    }
    text(key, name)
}

pub(super) fn no_nul(key: &str, span: &Range<usize>, text: &str) -> Result<(), ConfigProblem> {
    if text.contains('\0') {
        return Err(bad_value(key, span.clone(), "contains a NUL character", "remove the \\u0000"));
    }
    Ok(())
}

pub(super) fn duration(
    key: &str,
    value: &Spanned<String>,
    range: RangeInclusive<Duration>,
) -> Result<Duration, ConfigProblem> {
    let duration = humantime::parse_duration(value.get_ref()).map_err(|_| {
        let hint = "write for example \"90s\", \"10m\" or \"1h 30m\"";
        bad_value(key, value.span(), "is not a duration", hint)
    })?;
    if !range.contains(&duration) {
        // humantime's years and months are of 30.44 days.
        let of = |end: &Duration| match end.as_secs() / 86_400 {
            0 => humantime::format_duration(*end).to_string(),
            1 => "1day".to_owned(),
            days => format!("{days}days"),
        };
        let what = format!("must be between {} and {}", of(range.start()), of(range.end()));
        return Err(bad_value(key, value.span(), what, "leave it out for the default, which fits most uses"));
    }
    Ok(duration)
}

pub(super) fn write_mode(key: &str, raw: Option<raw::Text>) -> Result<WriteMode, ConfigProblem> {
    choice(key, &or_default(key, raw), &[("replace", WriteMode::Replace), ("in-place", WriteMode::InPlace)])
}

pub(super) fn mode(key: &str, value: &Spanned<String>) -> Result<u32, ConfigProblem> {
    let digits = value.get_ref();
    let octal = (3..=4).contains(&digits.len()) && digits.chars().all(|c| c.is_digit(8));
    let both = "\"0600\" is for one user, \"0640\" for a group";
    let (what, hint) = match u32::from_str_radix(digits, 8).ok().filter(|_| octal) {
        None => ("is not an octal mode", "write for example \"0600\" or \"0640\""),
        Some(mode) if mode & 0o002 != 0 => ("would let every user of this machine change the token", both),
        Some(mode) if mode & !0o666 != 0 => ("has more than read and write bits", both),
        Some(mode) if mode & 0o400 == 0 => ("would keep the owner from reading the token", both),
        Some(mode) => return Ok(mode),
    };
    Err(bad_value(key, value.span(), what, hint))
}

pub(super) fn principal(key: &str, value: raw::Principal) -> Result<Principal, ConfigProblem> {
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
        _ => {
            let hint = format!("write one name, or its number as `id` prints it: {key} = \"www-data\"");
            Err(bad_value(key, span, "is neither a name nor a number", hint))
        }
    }
}

pub(super) fn template(key: &str, value: &Spanned<String>) -> Result<TokenFormat, ConfigProblem> {
    value.get_ref().parse().map_err(|error: FormatError| bad_value(key, value.span(), &error, error.hint()))
}

/// RFC 9110 section 5.1: a token, in lower case.
pub(super) fn header_name<'a>(
    key: &str,
    name: Spanned<String>,
    own: &[&str],
    mut others: impl Iterator<Item = &'a str>,
) -> Result<String, ConfigProblem> {
    let span = name.span();
    let name = name.into_inner().to_ascii_lowercase();
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(is_token) {
        let hint = "a name is letters, digits and -, as in X-Tenant";
        return Err(bad_value(key, span, "has a name that is not allowed in HTTP", hint));
    }
    if own.contains(&&*name) || others.any(|other| other == name) {
        let what = format!("must not repeat `{name}`");
        return Err(bad_value(key, span, what, "leave it out: the request has this header already"));
    }
    Ok(name)
}

/// RFC 9110 section 5.5, as far as every server takes it.
pub(super) fn header_value(key: &str, span: Range<usize>, value: &str) -> Result<(), ConfigProblem> {
    if value.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        return Ok(());
    }
    let hint = "a value is printable ASCII, on one line";
    Err(bad_value(key, span, "has a value that is not allowed in HTTP", hint))
}
