//! The listener for the redirect: RFC 8252 section 7.3. Any program and any web page on this machine can
//! send requests to it, so it takes nothing for granted.
//!
//! The page comes after the login is stored, at an address without the code: the code is neither in the
//! address bar nor in the history, and no later request names it as its referrer.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::login::page::Page;
use crate::login::redirect::{ExpectedAnswer, LoginAnswer, NoAnswer, judge_query};

/// How long a connection may take to send its request. A browser opens connections in advance.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// The longest request head: codes have up to 2 KiB, cookies of other servers on this machine more.
const HEAD_MAX: usize = 16 * 1024;

/// The most headers that are read: browsers send about 20.
const HEADERS: usize = 100;

/// Connections at a time. The next ones wait in the backlog.
const CONNECTIONS: usize = 32;

/// How long the page waits for the browser after the login.
const FAREWELL: Duration = Duration::from_secs(5);

/// The pause when accept(2) fails, as it does for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The path of the page.
const DONE: &str = "/done";

/// The answers that the listener gets.
pub type RedirectAnswers = mpsc::UnboundedReceiver<Result<LoginAnswer, NoAnswer>>;

pub struct Listener {
    sockets: Vec<TcpListener>,
    /// With the port.
    redirect_uri: Url,
}

impl Listener {
    /// Listens where this redirect URI leads: on 127.0.0.1, for localhost on ::1 as well, and on nothing
    /// else. Port 0 is any free one.
    pub async fn bind(redirect_uri: &Url, port: u16) -> io::Result<Self> {
        let (first, second): (IpAddr, Option<IpAddr>) = match redirect_uri.host() {
            Some(Host::Ipv6(_)) => (Ipv6Addr::LOCALHOST.into(), None),
            Some(Host::Domain(_)) => (Ipv4Addr::LOCALHOST.into(), Some(Ipv6Addr::LOCALHOST.into())),
            _ => (Ipv4Addr::LOCALHOST.into(), None),
        };
        let socket = TcpListener::bind(SocketAddr::new(first, port)).await?;
        let port = socket.local_addr()?.port();
        let mut sockets = vec![socket];
        if let Some(second) = second {
            // A machine without IPv6 needs no listener there. A port that is taken there would give the
            // code to another program.
            match TcpListener::bind(SocketAddr::new(second, port)).await {
                Ok(socket) => sockets.push(socket),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
                Err(_) => {}
            }
        }
        let mut redirect_uri = redirect_uri.clone();
        let _ = redirect_uri.set_port(Some(port));
        Ok(Self { sockets, redirect_uri })
    }

    pub fn redirect_uri(&self) -> &Url {
        &self.redirect_uri
    }

    /// RedirectAnswers requests from now on. The page for the right one is shown when it is given.
    pub fn serve(self, expected: ExpectedAnswer) -> (Reception, RedirectAnswers) {
        let (answers, received) = mpsc::unbounded_channel();
        let (page, shown) = watch::channel(None);
        let desk = Arc::new(Desk {
            expected,
            authority: self.redirect_uri.authority().to_owned(),
            path: self.redirect_uri.path().to_owned(),
            answers,
            page: shown,
            is_awaited: AtomicBool::new(false),
            done: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        for socket in self.sockets {
            tasks.spawn(accept(socket, Arc::clone(&desk)));
        }
        (Reception { page, desk, _tasks: tasks }, received)
    }
}

/// The listener at work, until this is dropped.
pub struct Reception {
    page: watch::Sender<Option<Page>>,
    desk: Arc<Desk>,
    _tasks: JoinSet<()>,
}

impl Reception {
    /// Shows the page, and waits until the browser has it, if one waits for it.
    pub async fn conclude(self, page: Page) {
        let _ = self.page.send(Some(page));
        if self.desk.is_awaited.load(Ordering::Relaxed) {
            let _ = tokio::time::timeout(FAREWELL, self.desk.done.notified()).await;
        }
    }
}

struct Desk {
    expected: ExpectedAnswer,
    /// Host and port, as the browser names them.
    authority: String,
    path: String,
    answers: mpsc::UnboundedSender<Result<LoginAnswer, NoAnswer>>,
    page: watch::Receiver<Option<Page>>,
    /// A browser waits for the page.
    is_awaited: AtomicBool,
    /// The page was sent.
    done: Notify,
}

async fn accept(socket: TcpListener, desk: Arc<Desk>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match socket.accept().await {
            Ok((connection, _)) => {
                let desk = Arc::clone(&desk);
                connections.spawn(async move {
                    serve(connection, &desk).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(mut connection: TcpStream, desk: &Desk) {
    // A client that is too slow or says nothing that is HTTP is not worth an answer.
    let Ok(Some(request)) = tokio::time::timeout(HEAD_TIME, read_request(&mut connection)).await else {
        return;
    };
    let (answer, shows_page) = respond(desk, &request).await;
    // An error is a client that left.
    if connection.write_all(&answer).await.is_ok() && connection.shutdown().await.is_ok() && shows_page {
        desk.done.notify_one();
    }
}

/// The parts of a request that matter.
#[derive(Debug, PartialEq, Eq)]
struct RedirectRequest {
    method: String,
    path: String,
    query: String,
    /// `None` if there is none, or more than one.
    host: Option<String>,
    sec_fetch_dest: Option<String>,
}

async fn read_request(connection: &mut TcpStream) -> Option<RedirectRequest> {
    // It holds a code, and must not grow and leave copies behind.
    let mut head = Zeroizing::new(vec![0; HEAD_MAX]);
    let mut length = 0;
    loop {
        let count = connection.read(&mut head[length..]).await.ok()?;
        length += count;
        match parse(&head[..length]) {
            Ok(None) if count > 0 => {}
            found => return found.ok().flatten(),
        }
    }
}

/// `None` if it is not whole yet.
fn parse(head: &[u8]) -> Result<Option<RedirectRequest>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if request.parse(head)?.is_partial() {
        return Ok(None);
    }
    let values = |name: &str| -> Vec<&str> {
        let named = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| std::str::from_utf8(header.value).unwrap_or_default()).collect()
    };
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let host = values("host");
    Ok(Some(RedirectRequest {
        method: request.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        host: (host.len() == 1).then(|| host[0].to_owned()),
        sec_fetch_dest: values("sec-fetch-dest").first().map(|value| (*value).to_owned()),
    }))
}

/// Why a request is not even looked at; `None` if it is.
fn misfit(request: &RedirectRequest, authority: &str) -> Option<u16> {
    if request.method != "GET" {
        return Some(405);
    }
    // Another host is a name that somebody made lead here (DNS rebinding).
    if request.host.as_deref() != Some(authority) {
        return Some(400);
    }
    // A page that loads this as an image or by a script is no login.
    if request.sec_fetch_dest.as_deref().is_some_and(|destination| destination != "document") {
        return Some(400);
    }
    None
}

/// The answer, and whether it is the page of the login's end.
async fn respond(desk: &Desk, request: &RedirectRequest) -> (Vec<u8>, bool) {
    let plain = |page: &Page| (response(page, None), false);
    if let Some(status) = misfit(request, &desk.authority) {
        return plain(&Page::nothing(status));
    }
    if request.path == DONE && request.query.is_empty() {
        let page = desk.page.borrow().clone();
        let is_there = page.is_some();
        return (response(&page.unwrap_or_else(|| Page::nothing(404)), None), is_there);
    }
    if request.path != desk.path {
        return plain(&Page::nothing(404));
    }
    let answer = judge_query(&request.query, &desk.expected);
    let is_ours = answer.is_ok();
    if is_ours {
        desk.is_awaited.store(true, Ordering::Relaxed);
    }
    // A login that has ended needs no more answers.
    let _ = desk.answers.send(answer);
    if !is_ours {
        return plain(&Page::ignored());
    }
    // A browser may open two connections, or the user reloads: each waits for the one result.
    let mut page = desk.page.clone();
    if page.wait_for(Option::is_some).await.is_err() {
        return plain(&Page::nothing(503));
    }
    (response(&Page::nothing(303), Some(DONE)), false)
}

fn response(page: &Page, location: Option<&str>) -> Vec<u8> {
    let html = page.html();
    let reason = match page.status() {
        200 => "OK",
        303 => "See Other",
        404 => "Not Found",
        405 => "Method Not Allowed",
        503 => "Service Unavailable",
        _ => "Bad Request",
    };
    let mut head = format!("HTTP/1.1 {} {reason}\r\nconnection: close\r\nallow: GET\r\n", page.status());
    let location = location.map(|location| ("location", location.to_owned()));
    let length = ("content-length", html.len().to_string());
    for (name, value) in Page::headers().into_iter().chain(location).chain([length]) {
        // Writing to a string does not fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    format!("{head}\r\n{html}").into_bytes()
}

#[cfg(test)]
mod tests {
    use crate::login::listener::*;

    fn request(head: &str) -> RedirectRequest {
        parse(format!("{head}\r\n\r\n").as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn only_a_navigation_to_the_right_host_counts() {
        for (head, status) in [
            ("GET / HTTP/1.1\r\nHost: 127.0.0.1:9\r\nSec-Fetch-Dest: document", None),
            ("GET / HTTP/1.1\r\nhost: 127.0.0.1:9", None),
            ("POST / HTTP/1.1\r\nHost: 127.0.0.1:9", Some(405)),
            ("HEAD / HTTP/1.1\r\nHost: 127.0.0.1:9", Some(405)),
            ("GET / HTTP/1.1\r\nHost: 127.0.0.1:8", Some(400)),
            ("GET / HTTP/1.1\r\nHost: evil.example:9", Some(400)),
            ("GET / HTTP/1.1\r\nHost: 127.0.0.1:9\r\nHost: evil.example", Some(400)),
            ("GET / HTTP/1.1", Some(400)),
            ("GET / HTTP/1.1\r\nHost: 127.0.0.1:9\r\nSec-Fetch-Dest: image", Some(400)),
            ("GET / HTTP/1.1\r\nHost: 127.0.0.1:9\r\nSec-Fetch-Dest: iframe", Some(400)),
            ("GET / HTTP/1.1\r\nHost: 127.0.0.1:9\r\nSec-Fetch-Dest: empty", Some(400)),
        ] {
            assert_eq!(misfit(&request(head), "127.0.0.1:9"), status, "{head}");
        }
    }

    #[test]
    fn a_request_is_read_as_far_as_it_matters() {
        let found = request("GET /cb?code=c&state=s HTTP/1.1\r\nHost: h");
        assert_eq!((found.path.as_str(), found.query.as_str()), ("/cb", "code=c&state=s"));
        assert_eq!(parse(b"GET / HTTP/1.1\r\nHo").unwrap(), None);
        for garbage in [&b"\x16\x03\x01\x02"[..], b"GET /\r\n\r\n", b"GET / HTTP/9\r\n\r\n"] {
            assert!(parse(garbage).is_err(), "{garbage:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS + 1));
        assert!(parse(many.as_bytes()).is_err());
    }
}
