//! The keys that only `login` and `logout` need.

use toml::Spanned;
use url::Url;

use crate::config::keys::{RawAccount, or_default, raw};
use crate::config::problem::{ConfigProblem, bad_value};
use crate::config::settings::LoginConfig;
use crate::config::source::EndpointSources;
use crate::config::validate::Scope;
use crate::config::values::{endpoint, is_loopback, scope, text};
use crate::oauth::providers::Provider;

/// Parameters that a login sets itself; two of one name are an error for the server (RFC 6749
/// section 3.1).
const OWN_PARAMS: &[&str] = &[
    "response_type",
    "response_mode",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "client_secret",
];

impl Scope<'_> {
    /// Takes the keys of a login out of an account, and checks them. `part` is the user's part of the
    /// preset's endpoints.
    pub(super) fn login(
        &self,
        raw: &mut RawAccount,
        preset: Option<&'static Provider>,
        part: Option<&str>,
        elsewhere: &mut EndpointSources,
    ) -> Result<LoginConfig, ConfigProblem> {
        let allow_http = raw.allow_http.unwrap_or(false);
        let default_part = || preset?.place.as_ref().map_or(Some(""), |place| place.default);
        let part = part.or_else(default_part);
        let mut find = |key, own: Option<raw::UrlSource>, preset_url: Option<&str>| {
            if let Some(own) = self.url_text(key, own, elsewhere)? {
                return endpoint(key, &own, allow_http).map(Some);
            }
            // Every row of the table is a URL: a test reads them all.
            let filled = preset.zip(part).zip(preset_url);
            Ok(filled.and_then(|((preset, part), url)| preset.endpoint(url, part).parse().ok()))
        };
        let mut params = raw.authorization_params.take().map_or(Ok(Vec::new()), |params| {
            params.into_iter().map(|(name, value)| Ok((param_name(name)?, value.into_inner()))).collect()
        })?;
        for (name, value) in preset.map_or(&[][..], |preset| preset.login_params) {
            if *name != "scope" && !params.iter().any(|(known, _)| known == name) {
                params.push(((*name).to_owned(), (*value).to_owned()));
            }
        }
        Ok(LoginConfig {
            authorization_endpoint: find(
                "authorization_endpoint",
                raw.authorization_endpoint.take(),
                preset.and_then(|preset| preset.authorization_endpoint),
            )?,
            device_authorization_endpoint: find(
                "device_authorization_endpoint",
                raw.device_authorization_endpoint.take(),
                preset.and_then(|preset| preset.device_endpoint),
            )?,
            revocation_endpoint: find(
                "revocation_endpoint",
                raw.revocation_endpoint.take(),
                preset.and_then(|preset| preset.revocation_endpoint),
            )?,
            redirect_uri: redirect_uri(&or_default("redirect_uri", raw.redirect_uri.take()))?,
            scope: raw.login_scope.as_ref().map(|raw| scope("login_scope", raw)).transpose()?,
            preset_scope: preset.and_then(Provider::login_scope),
            params,
            identity: raw.identity.take().map(identity).transpose()?,
        })
    }
}

fn param_name(name: Spanned<String>) -> Result<String, ConfigProblem> {
    const KEY: &str = "authorization_params";
    if OWN_PARAMS.contains(&name.get_ref().as_str()) {
        let what = format!("must not repeat `{}`", name.get_ref());
        return Err(bad_value(KEY, name.span(), what, "remove it: a login sets this parameter itself"));
    }
    text(KEY, name)
}

/// RFC 8252 section 7.3: http to this machine. Any https address is for a login by paste.
fn redirect_uri(value: &Spanned<String>) -> Result<Url, ConfigProblem> {
    const KEY: &str = "redirect_uri";
    let url = endpoint(KEY, value, true)?;
    let (what, hint) = if url.scheme() == "http" && !is_loopback(&url) {
        (
            "would send the code unencrypted to another machine",
            "write http://127.0.0.1/, or an https address that the client is registered with",
        )
    } else if url.query().is_some() {
        ("contains a query", "remove the ? and the text after it")
    } else {
        return Ok(url);
    };
    Err(bad_value(KEY, value.span(), what, hint))
}

fn identity(value: raw::Text) -> Result<String, ConfigProblem> {
    const KEY: &str = "identity";
    let span = value.span();
    let value = text(KEY, value.into())?;
    let is_whole = value
        .split_once('#')
        .is_some_and(|(issuer, subject)| Url::parse(issuer).is_ok() && !subject.is_empty());
    if !is_whole {
        let hint = "copy it from `zg-tokend status`, or leave it out to keep the user of the first login";
        return Err(bad_value(KEY, span, "is not of the form ISSUER#SUBJECT", hint));
    }
    Ok(value)
}
