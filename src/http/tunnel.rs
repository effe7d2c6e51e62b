//! The way through a proxy: CONNECT of HTTP (RFC 9110 section 9.3.6) and SOCKS 5 (RFC 1928, RFC 1929). A
//! refusal of the proxy is told as the proxy's word, not as the server's.

use std::io;
use std::net::IpAddr;

use httparse::{EMPTY_HEADER, Response, Status};
use hyper::header::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest head of an answer to CONNECT, and its headers.
const HEAD_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// Why the proxy leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum TunnelError {
    /// It wants a user name and a password, or others.
    #[error("{0}")]
    Login(String),
    /// It does not connect to this server.
    #[error("{0}")]
    Target(String),
    /// It wants an address, and the name of the server has none here.
    #[error("{0}")]
    Name(String),
    /// It does not speak the protocol that its URL names.
    #[error("does not answer as {0} does; is its URL right?")]
    Protocol(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Asks an HTTP proxy for a connection.
pub(super) async fn connect(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: &str,
    login: Option<&HeaderValue>,
) -> Result<(), TunnelError> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(login) = login {
        request.extend([b"Proxy-Authorization: ", login.as_bytes(), b"\r\n"].concat());
    }
    request.extend(b"\r\n");
    stream.write_all(&request).await?;
    let mut head = Vec::new();
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(TunnelError::Protocol("an HTTP proxy"));
        }
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        let mut answer = Response::new(&mut headers);
        match answer.parse(&head) {
            Ok(Status::Complete(_)) => return judge(&answer, target, login.is_some()),
            Ok(Status::Partial) if head.len() < HEAD_MAX => {}
            _ => return Err(TunnelError::Protocol("an HTTP proxy")),
        }
    }
}

fn judge(answer: &Response<'_, '_>, target: &str, has_login: bool) -> Result<(), TunnelError> {
    let code = answer.code.unwrap_or_default();
    Err(match code {
        200..=299 => return Ok(()),
        // tinyproxy answers 401 to a wrong login.
        401 | 407 if has_login => {
            TunnelError::Login(format!("refuses its user name and password (HTTP {code})"))
        }
        407 => {
            let schemes =
                answer.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("proxy-authenticate"));
            let schemes: Vec<_> = schemes.filter_map(|header| scheme(header.value)).collect();
            let takes_basic =
                schemes.is_empty() || schemes.iter().any(|name| name.eq_ignore_ascii_case("basic"));
            TunnelError::Login(if takes_basic {
                format!("asks for a user name and a password (HTTP {code})")
            } else {
                format!(
                    "asks for a login by {}, and only Basic is supported (HTTP {code})",
                    schemes.join(", ")
                )
            })
        }
        403 => TunnelError::Target(format!("does not allow connections to {target} (HTTP {code})")),
        500..=599 => TunnelError::Target(format!("cannot reach {target} (HTTP {code} of the proxy)")),
        _ => TunnelError::Target(format!("refuses to connect to {target} (HTTP {code} of the proxy)")),
    })
}

/// The name of an authentication scheme, at the beginning of a challenge.
fn scheme(challenge: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(challenge).ok()?.trim_start();
    let name = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next()?;
    (!name.is_empty()).then_some(name)
}

const SOCKS: &str = "a SOCKS 5 proxy";

/// Asks a SOCKS 5 proxy for a connection. `host` is an address, or a name for the proxy to resolve; `login`
/// is user name and password.
pub(super) async fn socks5(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    (host, port): (&str, u16),
    login: Option<(&str, &str)>,
) -> Result<(), TunnelError> {
    let method = if login.is_some() { 2 } else { 0 };
    stream.write_all(&[5, 1, method]).await?;
    match read(stream).await? {
        [5, chosen] if chosen == method => {}
        [5, _] if login.is_some() => {
            return Err(TunnelError::Login("takes no user name and password".to_owned()));
        }
        [5, _] => return Err(TunnelError::Login("asks for a user name and a password".to_owned())),
        _ => return Err(TunnelError::Protocol(SOCKS)),
    }
    if let Some((user, password)) = login {
        let mut message = vec![1];
        for text in [user, password] {
            sized(&mut message, text)?;
        }
        stream.write_all(&message).await?;
        let [_, status] = read(stream).await?;
        if status != 0 {
            return Err(TunnelError::Login("refuses its user name and password".to_owned()));
        }
    }
    let mut request = vec![5, 1, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(1);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(4);
            request.extend(address.octets());
        }
        Err(_) => {
            request.push(3);
            sized(&mut request, host)?;
        }
    }
    request.extend(port.to_be_bytes());
    stream.write_all(&request).await?;
    let [version, status, _, kind] = read(stream).await?;
    if version != 5 {
        return Err(TunnelError::Protocol(SOCKS));
    }
    if status != 0 {
        let why = match status {
            2 => "its rules do not allow it",
            3 => "the network is unreachable from there",
            4 => "the host is unreachable from there, or its name is not known there",
            5 => "connection refused",
            6 => "timed out",
            _ => "general failure",
        };
        return Err(TunnelError::Target(format!("cannot connect to {host}:{port}: {why}")));
    }
    // The address that it connects from, and a port: nobody needs them.
    let address = match kind {
        1 => 4,
        4 => 16,
        _ => usize::from(read::<1>(stream).await?[0]),
    };
    stream.read_exact(&mut vec![0; address + 2]).await?;
    Ok(())
}

async fn read<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> Result<[u8; N], TunnelError> {
    let mut bytes = [0; N];
    match stream.read_exact(&mut bytes).await {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(TunnelError::Protocol(SOCKS)),
        Err(error) => Err(error.into()),
    }
}

/// Adds a text and, before it, its length.
fn sized(message: &mut Vec<u8>, text: &str) -> Result<(), TunnelError> {
    let too_long = |_| io::Error::other("a name for a SOCKS proxy has more than 255 bytes");
    message.push(u8::try_from(text.len()).map_err(too_long)?);
    message.extend(text.as_bytes());
    Ok(())
}
