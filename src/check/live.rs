//! Whether the server answers: one GET to each token endpoint. It spends nothing, since only a POST
//! grants a token (RFC 6749 section 3.2).

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use url::Url;

use crate::check::finding::{Finding, FindingLevel};
use crate::check::inputs::{options, with_endpoints};
use crate::clock::{Clock, SystemClock};
use crate::config::{AccountConfig, Endpoint, Settings};
use crate::http::{HttpEndpoint, discovery, shown};
use crate::message::duration;
use crate::oauth::Reply;
use crate::problem::{cause, chain};
use crate::runtime::event_loop;
use crate::store;

/// Two machines with correct clocks differ by less than this, on any network.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// Asks every issuer and token endpoint once; `only` picks an account by name.
pub fn live(settings: &Settings, only: Option<&str>) -> io::Result<Vec<Finding>> {
    Ok(event_loop()?.block_on(ask_all(settings, only)))
}

async fn ask_all(settings: &Settings, only: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut asked = HashSet::new();
    for account in settings.chosen(only) {
        #[cfg(feature = "fleet")]
        findings.extend(crate::check::fleet::live(account).await.into_iter().map(|it| it.of(account)));
        let account = &with_endpoints(account);
        let endpoint = HttpEndpoint::new(options(account));
        let (url, discovered) = match &account.endpoint {
            Endpoint::Explicit(url) => (Some(url.clone()), None),
            Endpoint::Discovered { issuer } => {
                if !asked.insert((options(account), issuer.clone())) {
                    continue;
                }
                let (url, finding) = discover(settings, account, &endpoint, issuer).await;
                (url, Some(finding))
            }
            // It cannot be read, as `check` has found.
            Endpoint::Elsewhere => (None, None),
        };
        findings.extend(discovered);
        let Some(url) = url else { continue };
        if asked.insert((options(account), url.to_string())) {
            findings.extend(reach(&endpoint, &url).await);
        }
    }
    findings
}

/// The token endpoint that the issuer publishes.
async fn discover(
    settings: &Settings,
    account: &AccountConfig,
    endpoint: &HttpEndpoint,
    issuer: &str,
) -> (Option<Url>, Finding) {
    let url = match discovery::fetch(endpoint, issuer).await {
        Ok(found) => found.token_endpoint,
        Err(error) => {
            let via = issuer.parse().ok().and_then(|url| unnamed_proxy(endpoint, &url, &chain(&error)));
            let via = via.map(|proxy| format!(" (through the proxy {proxy})")).unwrap_or_default();
            let finding = Finding::problem("issuer", format!("{error}{via}"), error.hint());
            return (None, finding.because(cause(&error)));
        }
    };
    let known = store::open(settings, account).discovered();
    let known = known.filter(|known| known.issuer == issuer).map(|known| known.confirmed_host);
    let host = url.host_str().unwrap_or_default();
    let finding = match known {
        Some(known) if known != host && account.confirmed_endpoint_host.as_deref() != Some(host) => {
            let message = format!("{issuer} has moved its token endpoint from host {known} to {host}");
            let hint = format!("if the provider announces this, set confirmed_endpoint_host = \"{host}\"");
            Finding::problem("issuer", message, Some(hint))
        }
        _ => Finding::ok("issuer", format!("the token endpoint of {issuer} is {url}")),
    };
    ((finding.level == FindingLevel::Ok).then_some(url), finding)
}

/// Tries DNS, proxy, TLS and HTTP, then compares the clocks.
async fn reach(endpoint: &HttpEndpoint, url: &Url) -> Vec<Finding> {
    let clock = SystemClock::new();
    match endpoint.get(url).await {
        Ok(reply) => {
            let clocks = clocks(&reply, clock.now().wall);
            std::iter::once(answered(endpoint, url, &reply)).chain(clocks).collect()
        }
        Err(failure) => {
            let proxy = unnamed_proxy(endpoint, url, &failure.detail);
            let proxy = proxy.map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
            let message = format!("no answer from {}{proxy}", shown(url));
            let finding = Finding::problem("token_endpoint", message, failure.kind.hint().map(str::to_owned));
            vec![finding.because(Some(failure.detail))]
        }
    }
}

fn answered(endpoint: &HttpEndpoint, url: &Url, reply: &Reply) -> Finding {
    let via = endpoint.proxy_for(url).map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
    let message = format!("{} answers{via} (HTTP {} to a GET; nothing was spent)", shown(url), reply.status);
    match reply.status {
        500..=599 => Finding::warning("token_endpoint", message, "wait, and check again")
            .because(Some("the server has a problem".into())),
        _ => Finding::ok("token_endpoint", message),
    }
}

/// The proxy for this URL, unless the message names it already.
fn unnamed_proxy(endpoint: &HttpEndpoint, url: &Url, message: &str) -> Option<String> {
    endpoint.proxy_for(url).filter(|proxy| !message.contains(proxy))
}

/// This machine's clock beside the server's (RFC 9110 section 6.6.1). The program works with a wrong
/// clock; certificates and readers of expires_at may not.
fn clocks(reply: &Reply, here: i64) -> Option<Finding> {
    let there = httpdate::parse_http_date(reply.date.as_deref()?).ok()?;
    let there = i64::try_from(there.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis()).ok()?;
    let apart = Duration::from_millis(here.abs_diff(there));
    Some(if apart <= CLOCK_TOLERANCE {
        Finding::ok("clock", "agrees with the server's to the minute")
    } else {
        let direction = if here > there { "ahead of" } else { "behind" };
        let message = format!("the clock here is {} {direction} the server's", duration(apart));
        Finding::warning("clock", message, "set the clock: date, timedatectl")
    })
}

#[cfg(test)]
mod tests {
    use crate::check::live::*;

    #[test]
    fn clocks_that_differ_are_told() {
        let here = 1_800_000_000_000;
        let of = |date: &str| {
            let reply = Reply { date: Some(date.to_owned()), ..Reply::default() };
            clocks(&reply, here).map(|finding| (finding.level, finding.message))
        };
        let ok = (FindingLevel::Ok, "agrees with the server's to the minute".to_owned());
        assert_eq!(of("Fri, 15 Jan 2027 08:00:00 GMT"), Some(ok.clone()));
        assert_eq!(of("Fri, 15 Jan 2027 08:01:00 GMT"), Some(ok));
        let warning =
            |words: &str| Some((FindingLevel::Warning, format!("the clock here is {words} the server's")));
        assert_eq!(of("Fri, 15 Jan 2027 08:01:02 GMT"), warning("1 min 2 s behind"));
        assert_eq!(of("Fri, 15 Jan 2027 06:00:00 GMT"), warning("2 h ahead of"));
        assert_eq!(of("yesterday"), None);
    }
}
