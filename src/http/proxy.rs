//! The proxy: of the config, else of the environment; and the hosts that are reached without it.

use std::ffi::OsString;

use hyper::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use url::Url;

use crate::config::proxy::{NO_PROXY, proxy_url};
use crate::secret::Secret;

/// The variables, read once. No Debug: a proxy's URL may hold a password.
#[derive(Default)]
pub(super) struct ProxyVariables {
    /// `HTTPS_PROXY`, else `ALL_PROXY`.
    pub(super) proxy: Option<String>,
    /// `NO_PROXY`.
    pub(super) no_proxy: Option<String>,
    /// `SSL_CERT_FILE`: a bundle in place of the distribution's, as OpenSSL has it.
    pub(super) ssl_cert_file: Option<OsString>,
}

/// Never through a proxy: it would look for them on its own machine.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

impl ProxyVariables {
    /// Reads the variables through `var`; empty ones count as unset, upper case comes first.
    pub(super) fn read(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let filled = |name: &str| var(name).filter(|value| !value.is_empty());
        let either = |name: &str| {
            let value = filled(name).or_else(|| filled(&name.to_ascii_lowercase()))?;
            Some(value.to_string_lossy().into_owned())
        };
        Self {
            proxy: either("HTTPS_PROXY").or_else(|| either("ALL_PROXY")),
            no_proxy: either("NO_PROXY"),
            ssl_cert_file: filled("SSL_CERT_FILE"),
        }
    }

    /// The proxy for https: `configured`, else that of the environment; the error is without its
    /// password. Never for plain http: a proxy would see the refresh token.
    pub(super) fn https_proxy(&self, configured: Option<&Secret>) -> Result<Option<HttpsProxy>, String> {
        let (text, place) = match (configured, &self.proxy) {
            (Some(own), _) if own.expose() == NO_PROXY => return Ok(None),
            (Some(own), _) => (own.expose(), "in the config"),
            (None, Some(text)) => (text.as_str(), "in the environment"),
            (None, None) => return Ok(None),
        };
        let url = proxy_url(text).map_err(|flaw| format!("the proxy {place} {flaw}"))?;
        Ok(Some(HttpsProxy { url, no_proxy: self.no_proxy.clone() }))
    }
}

/// The proxy for https. No Debug: its URL may hold a password.
pub(super) struct HttpsProxy {
    url: Url,
    no_proxy: Option<String>,
}

impl HttpsProxy {
    /// `None` for a host that is reached without it.
    pub(super) fn intercept(&self, uri: &Uri) -> Option<Intercept> {
        let hosts = direct_hosts(self.no_proxy.as_deref(), uri.port_u16().unwrap_or(HTTPS))?;
        Matcher::builder().https(self.url.as_str()).no(hosts).build().intercept(uri)
    }
}

/// Host and port of a proxy.
pub(super) fn place(proxy: &Intercept) -> String {
    let uri = proxy.uri();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { HTTPS } else { HTTP });
    format!("{}:{port}", uri.host().unwrap_or_default())
}

/// The ports of http and https, where a URL has none.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;

/// The entries of NO_PROXY for a URL of this port, as the matcher knows them. Go and Python also take
/// `*.example` and `host:port`. `None` for `*`: all hosts, also those that are an address.
fn direct_hosts(no_proxy: Option<&str>, target_port: u16) -> Option<String> {
    let entries = no_proxy.unwrap_or_default().split([',', ' ']).filter(|entry| !entry.is_empty());
    let entries = entries.filter_map(|entry| match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            let same = port.parse().ok() == Some(target_port);
            same.then(|| host.trim_start_matches('[').trim_end_matches(']'))
        }
        _ => Some(entry.trim_start_matches('[').trim_end_matches(']')),
    });
    let entries =
        entries.map(|entry| entry.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(entry));
    let entries: Vec<_> = entries.map(|entry| entry.trim_end_matches('.')).chain([LOOPBACK]).collect();
    (!entries.contains(&"*")).then(|| entries.join(","))
}

#[cfg(test)]
mod tests {
    use crate::http::proxy::*;

    fn environment(variables: &[(&str, &str)]) -> ProxyVariables {
        ProxyVariables::read(|name| {
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some(OsString::from(value))
        })
    }

    #[test]
    fn variables_are_read_in_order() {
        for (variables, expected) in [
            (&[("HTTPS_PROXY", "a"), ("https_proxy", "b"), ("ALL_PROXY", "c")][..], Some("a")),
            (&[("https_proxy", "b"), ("ALL_PROXY", "c")], Some("b")),
            (&[("HTTPS_PROXY", ""), ("ALL_PROXY", "c")], Some("c")),
            (&[("all_proxy", "d")], Some("d")),
            (&[("HTTP_PROXY", "e"), ("http_proxy", "f")], None),
        ] {
            assert_eq!(environment(variables).proxy.as_deref(), expected);
        }
    }

    /// Host and port of the proxy for requests to this URL.
    fn proxy_for(environment: &ProxyVariables, configured: Option<&str>, url: &str) -> Option<String> {
        let proxy = environment.https_proxy(configured.map(Secret::new).as_ref()).unwrap()?;
        proxy.intercept(&url.parse().unwrap()).map(|proxy| place(&proxy))
    }

    #[test]
    fn loopback_is_always_direct() {
        assert_eq!(direct_hosts(None, HTTPS).unwrap(), "localhost,127.0.0.0/8,::1");
        assert_eq!(direct_hosts(Some("x.y"), HTTPS).unwrap(), "x.y,localhost,127.0.0.0/8,::1");
    }

    #[test]
    fn no_proxy_is_read_as_by_go_and_python() {
        for (no_proxy, url, direct) in [
            ("*.example", "https://a.example/", true),
            (".example", "https://a.example/", true),
            ("*.example", "https://a.other/", false),
            ("a.example:8443", "https://a.example:8443/", true),
            ("a.example:8443", "https://a.example/", false),
            ("a.example:443", "https://a.example/", true),
            ("b.example, *.example:443", "https://a.example/", true),
            ("[fd00::1]:443", "https://[fd00::1]/", true),
            ("fd00::1", "https://[fd00::1]/", true),
            ("10.0.0.0/8", "https://10.1.2.3:8443/", true),
            ("fd00::/8", "https://[fd00::1]/", true),
            ("[fd00::1]", "https://[fd00::1]/", true),
            ("A.Example", "https://b.a.example/", true),
            ("a.example.", "https://a.example/", true),
            ("a.example", "https://ba.example/", false),
            ("10.1.2.3:443", "https://10.1.2.3/", true),
            ("*", "https://a.example/", true),
            ("x.y,*", "https://10.1.2.3/", true),
        ] {
            let environment = environment(&[("HTTPS_PROXY", "p.example:1"), ("NO_PROXY", no_proxy)]);
            assert_eq!(proxy_for(&environment, None, url).is_none(), direct, "{no_proxy} {url}");
            let own = proxy_for(&environment, Some("socks5h://own.example"), url);
            assert_eq!(own.is_none(), direct, "{no_proxy} {url}");
        }
    }

    #[test]
    fn a_proxy_is_a_url_with_or_without_scheme() {
        assert!(environment(&[]).https_proxy(None).unwrap().is_none());
        for proxy in [
            "http://p.example:3128",
            "https://user:pw@p.example",
            "p.example:3128",
            "socks5://p.example",
            "socks5h://user:pw@p.example:1080",
        ] {
            assert!(environment(&[("HTTPS_PROXY", proxy)]).https_proxy(None).unwrap().is_some(), "{proxy}");
            let own = Secret::new(proxy);
            assert!(environment(&[]).https_proxy(Some(&own)).unwrap().is_some(), "{proxy}");
        }
        for proxy in ["socks4://pw@p.example:1080", "ftp://pw@p.example", "http://user:pw@:bad", "socks5://"]
        {
            let said = environment(&[("HTTPS_PROXY", proxy)]).https_proxy(None).err().unwrap();
            assert!(said.starts_with("the proxy in the environment is") && !said.contains("pw"), "{said}");
            let own = Secret::new(proxy);
            let said = environment(&[]).https_proxy(Some(&own)).err().unwrap();
            assert!(said.starts_with("the proxy in the config is") && !said.contains("pw"), "{said}");
        }
    }

    #[test]
    fn the_proxy_of_the_config_comes_first() {
        let environment = environment(&[("HTTPS_PROXY", "p.example:3128")]);
        let of = |own| proxy_for(&environment, own, "https://login.example/token");
        assert_eq!(of(None).as_deref(), Some("p.example:3128"));
        assert_eq!(of(Some("https://own.example")).as_deref(), Some("own.example:443"));
        assert_eq!(of(Some("socks5h://own.example")).as_deref(), Some("own.example:1080"));
        assert_eq!(of(Some("none")), None);
    }

    #[test]
    fn a_proxy_is_named_where_it_is_used_and_without_its_password() {
        let variables = [("HTTPS_PROXY", "user:pw@p.example:3128"), ("NO_PROXY", "inner.example,10.0.0.0/8")];
        for (url, expected) in [
            ("https://login.example/token", Some("p.example:3128")),
            ("https://a.inner.example/token", None),
            ("https://10.1.2.3/token", None),
            ("https://127.0.0.1:8443/token", None),
            ("http://login.example/token", None),
        ] {
            let named = proxy_for(&environment(&variables), None, url);
            assert_eq!(named.as_deref(), expected, "{url}");
        }
        let url = "https://login.example/";
        assert_eq!(proxy_for(&environment(&[]), None, url), None);
        let named = proxy_for(&environment(&[("ALL_PROXY", "https://[::2]/x")]), None, url);
        assert_eq!(named.unwrap(), "[::2]:443");
    }
}
