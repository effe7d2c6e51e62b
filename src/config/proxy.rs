//! The address of a proxy, as the key `proxy` and the environment have it.

use url::Url;

/// In place of an address: go without a proxy, whatever the environment says.
pub const NO_PROXY: &str = "none";

/// The port of SOCKS (RFC 1928), which URLs leave out.
const SOCKS: u16 = 1080;

/// Why a text is no address of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyFlaw {
    #[error("is not a URL with a host")]
    NotAUrl,
    #[error("is a SOCKS 4 proxy, which is not supported")]
    Socks4,
    #[error("is neither http, https, socks5 nor socks5h")]
    Scheme,
}

impl ProxyFlaw {
    pub fn hint(self) -> &'static str {
        match self {
            Self::NotAUrl => {
                "write it as http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT; \"none\" is no proxy"
            }
            Self::Socks4 | Self::Scheme => {
                "write socks5h://HOST:PORT where the proxy resolves names, or socks5:// where this machine does; http:// for an HTTP proxy"
            }
        }
    }
}

/// The URL of a proxy. One without a scheme is of HTTP, as everywhere.
pub fn proxy_url(text: &str) -> Result<Url, ProxyFlaw> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let mut url = Url::parse(&with_scheme).map_err(|_| ProxyFlaw::NotAUrl)?;
    let is_socks = match url.scheme() {
        "http" | "https" => false,
        "socks5" | "socks5h" => true,
        "socks" | "socks4" | "socks4a" => return Err(ProxyFlaw::Socks4),
        _ => return Err(ProxyFlaw::Scheme),
    };
    if url.host_str().is_none_or(str::is_empty) {
        return Err(ProxyFlaw::NotAUrl);
    }
    if is_socks && url.port().is_none() {
        url.set_port(Some(SOCKS)).map_err(|()| ProxyFlaw::NotAUrl)?;
    }
    Ok(url)
}
