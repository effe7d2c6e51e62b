//! The keys of what is told of a token, or asked with it: push targets, the signal, the probe.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;

use crate::config::keys::{RawProbe, RawPush, RawSignal, or_default, raw};
use crate::config::problem::{ConfigProblem, bad_value};
use crate::config::settings::{ProbeConfig, PushConfig, PushMethod, SignalConfig, SignalName};
use crate::config::source::SecretSource;
use crate::config::validate::Scope;
use crate::config::values::{
    PUSH_OWN_HEADERS, choice, duration, endpoint, header_name, header_value, missing, template,
};

/// More often, probes would be a burden: 720 requests an hour are within the limits of any API. Less
/// often, most tokens would never be tried.
const PROBE_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(24 * 3600);

impl Scope<'_> {
    pub(super) fn push(&self, raw: Spanned<RawPush>, allow_http: bool) -> Result<PushConfig, ConfigProblem> {
        let (place, raw) = (raw.span(), raw.into_inner());
        let url = raw.url.ok_or_else(|| missing("push.url", place, ""))?;
        let own = raw.content_type.map(|value| {
            header_value("push.content_type", value.span(), value.get_ref()).map(|()| value.into_inner())
        });
        let mut content_type = own.transpose()?;
        let headers = self.push_headers(raw.headers, raw.api_key.is_some(), &mut content_type)?;
        let default = || or_default("push.content_type", None).into_inner();
        let content_type = content_type.unwrap_or_else(default);
        Ok(PushConfig {
            url: endpoint("push.url", &url, allow_http)?,
            method: choice("push.method", &or_default("push.method", raw.method), &PushMethod::ALL)?,
            body: template("push.body", &or_default("push.body", raw.body))?,
            content_type,
            headers,
            api_key: raw.api_key.map(|raw| self.secret("push.api_key", raw)).transpose()?,
        })
    }

    /// A content type may stand among them.
    fn push_headers(
        &self,
        headers: Option<raw::Secrets>,
        has_api_key: bool,
        content_type: &mut Option<String>,
    ) -> Result<Vec<(String, SecretSource)>, ConfigProblem> {
        const KEY: &str = "push.headers";
        let mut checked: Vec<(String, SecretSource)> = Vec::new();
        for (name, value) in headers.unwrap_or_default() {
            let place = name.span();
            let other = checked.iter().map(|(name, _)| name.as_str());
            let name = header_name(KEY, name, PUSH_OWN_HEADERS, other)?;
            if name == "authorization" && has_api_key {
                let hint = "keep one of the two: api_key is sent as Authorization: Bearer";
                return Err(bad_value(KEY, place, "has an authorization beside the api_key", hint));
            }
            let (span, value) = (value.span(), self.secret_or_text(&format!("{KEY}.{name}"), value)?);
            if let SecretSource::Inline(text) = &value {
                header_value(KEY, span, text.expose())?;
            }
            match (name.as_str(), value) {
                ("content-type", SecretSource::Inline(text)) if content_type.is_none() => {
                    *content_type = Some(text.expose().to_owned());
                }
                ("content-type", _) => {
                    let hint = "set content_type alone: the request has this header already";
                    return Err(bad_value(KEY, place, "must not repeat `content-type`", hint));
                }
                (_, value) => checked.push((name, value)),
            }
        }
        Ok(checked)
    }

    pub(super) fn signal(&self, raw: raw::Table<RawSignal>) -> Result<SignalConfig, ConfigProblem> {
        let (place, raw) = (raw.span(), raw.into_inner());
        let pid_file = raw.pid_file.ok_or_else(|| missing("signal.pid_file", place, ""))?;
        let signal = or_default("signal.signal", raw.signal);
        Ok(SignalConfig {
            pid_file: self.path("signal.pid_file", &pid_file)?,
            signal: choice("signal.signal", &signal, &SignalName::ALL)?,
        })
    }

    pub(super) fn probe(raw: raw::Table<RawProbe>, allow_http: bool) -> Result<ProbeConfig, ConfigProblem> {
        let (place, raw) = (raw.span(), raw.into_inner());
        let every = duration("probe.every", &or_default("probe.every", raw.every), PROBE_INTERVALS)?;
        let url = raw.url.ok_or_else(|| missing("probe.url", place, ""))?;
        Ok(ProbeConfig { url: endpoint("probe.url", &url, allow_http)?, every })
    }
}
