//! The environment variables for proxies and root certificates.

use std::ffi::OsString;

use hyper::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use url::Url;

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

    /// The proxy for https, if one is set; the error is without its password. Never for plain http: a
    /// proxy would see the refresh token.
    pub(super) fn https_proxy(&self) -> Result<Option<HttpsProxy>, &'static str> {
        let proxy = self.proxy_url()?;
        Ok(proxy.map(|url| HttpsProxy { url, no_proxy: self.no_proxy.clone() }))
    }

    /// Host and port of the proxy for requests to this URL.
    pub(super) fn proxy_for(&self, url: &Url) -> Option<String> {
        let proxy = self.https_proxy().ok()??;
        proxy.intercept(&url.as_str().parse().ok()?)?;
        Some(format!("{}:{}", proxy.url.host_str()?, proxy.url.port_or_known_default()?))
    }

    fn proxy_url(&self) -> Result<Option<Url>, &'static str> {
        let Some(proxy) = &self.proxy else { return Ok(None) };
        let with_scheme = if proxy.contains("://") { proxy.clone() } else { format!("http://{proxy}") };
        let url = Url::parse(&with_scheme).map_err(|_| "the proxy in the environment is not a valid URL")?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("the proxy in the environment is not http or https; other kinds are not supported");
        }
        Ok(Some(url))
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
        let hosts = direct_hosts(self.no_proxy.as_deref(), uri.port_u16().unwrap_or(HTTPS));
        Matcher::builder().https(self.url.as_str()).no(hosts).build().intercept(uri)
    }
}

/// The port of https, where a URL has none.
const HTTPS: u16 = 443;

/// The entries of NO_PROXY for a URL of this port, as the matcher knows them. Go and Python also take
/// `*.example` and `host:port`.
fn direct_hosts(no_proxy: Option<&str>, target_port: u16) -> String {
    let entries = no_proxy.unwrap_or_default().split([',', ' ']).filter(|entry| !entry.is_empty());
    let entries = entries.filter_map(|entry| match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            let same = port.parse().ok() == Some(target_port);
            same.then(|| host.trim_start_matches('[').trim_end_matches(']'))
        }
        _ => Some(entry),
    });
    let entries =
        entries.map(|entry| entry.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(entry));
    entries.chain([LOOPBACK]).collect::<Vec<_>>().join(",")
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

    #[test]
    fn loopback_is_always_direct() {
        assert_eq!(direct_hosts(None, HTTPS), "localhost,127.0.0.0/8,::1");
        assert_eq!(direct_hosts(Some("x.y"), HTTPS), "x.y,localhost,127.0.0.0/8,::1");
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
            ("*", "https://a.example/", true),
        ] {
            let named = environment(&[("HTTPS_PROXY", "p.example:1"), ("NO_PROXY", no_proxy)])
                .proxy_for(&url.parse().unwrap());
            assert_eq!(named.is_none(), direct, "{no_proxy} {url}");
        }
    }

    #[test]
    fn a_proxy_is_a_url_with_or_without_scheme() {
        assert!(environment(&[]).https_proxy().unwrap().is_none());
        for proxy in ["http://p.example:3128", "https://user:pw@p.example", "p.example:3128"] {
            assert!(environment(&[("HTTPS_PROXY", proxy)]).https_proxy().unwrap().is_some(), "{proxy}");
        }
        for proxy in ["socks5://p.example:1080", "http://user:pw@:bad"] {
            let said = environment(&[("HTTPS_PROXY", proxy)]).https_proxy().err().unwrap();
            assert!(!said.contains("pw"));
        }
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
            let named = environment(&variables).proxy_for(&url.parse().unwrap());
            assert_eq!(named.as_deref(), expected, "{url}");
        }
        let url = "https://login.example/".parse().unwrap();
        assert_eq!(environment(&[]).proxy_for(&url), None);
        assert_eq!(environment(&[("ALL_PROXY", "https://[::2]/x")]).proxy_for(&url).unwrap(), "[::2]:443");
    }
}
