//! The listener for the redirect: RFC 8252 section 7.3. Any program and any web page on this machine can
//! send requests to it, so it takes nothing for granted.
//!
//! The page comes after the login is stored, at an address without the code: the code is neither in the
//! address bar nor in the history, and no later request names it as its referrer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, HOST, HeaderMap, LOCATION};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use url::{Host, Url};

use crate::login::page::Page;
use crate::login::redirect::{ExpectedAnswer, LoginAnswer, NoAnswer, judge_query};

/// How long a connection may take to send its request. A browser opens connections in advance.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// The longest request head: codes have up to 2 KiB, cookies of other servers on this machine more.
const HEAD_MAX: usize = 16 * 1024;

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

async fn serve(connection: TcpStream, desk: &Arc<Desk>) {
    let shows_page = AtomicBool::new(false);
    let service = hyper::service::service_fn(|request| {
        let (desk, shows_page) = (Arc::clone(desk), &shows_page);
        async move { Ok::<_, std::convert::Infallible>(respond(&desk, &request, shows_page).await) }
    });
    // An error is a client that left, or one that is too slow or too long.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(connection), service)
        .await;
    if shows_page.load(Ordering::Relaxed) {
        desk.done.notify_one();
    }
}

/// Why a request is not even looked at; `None` if it is.
fn misfit(method: &Method, headers: &HeaderMap, authority: &str) -> Option<u16> {
    if method != Method::GET {
        return Some(405);
    }
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    // Another host is a name that somebody made lead here (DNS rebinding).
    if header(HOST.as_str()) != Some(authority) {
        return Some(400);
    }
    // A page that loads this as an image or by a script is no login.
    if header("sec-fetch-dest").is_some_and(|destination| destination != "document") {
        return Some(400);
    }
    None
}

async fn respond(desk: &Desk, request: &Request<Incoming>, shows_page: &AtomicBool) -> Response<Full<Bytes>> {
    if let Some(status) = misfit(request.method(), request.headers(), &desk.authority) {
        return response(&Page::nothing(status));
    }
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    if path == DONE && query.is_empty() {
        let page = desk.page.borrow().clone();
        shows_page.store(page.is_some(), Ordering::Relaxed);
        return response(&page.unwrap_or_else(|| Page::nothing(404)));
    }
    if path != desk.path {
        return response(&Page::nothing(404));
    }
    let answer = judge_query(query, &desk.expected);
    let is_ours = answer.is_ok();
    if is_ours {
        desk.is_awaited.store(true, Ordering::Relaxed);
    }
    // A login that has ended needs no more answers.
    let _ = desk.answers.send(answer);
    if !is_ours {
        return response(&Page::ignored());
    }
    // A browser may open two connections, or the user reloads: each waits for the one result.
    let mut page = desk.page.clone();
    if page.wait_for(Option::is_some).await.is_err() {
        return response(&Page::nothing(503));
    }
    let mut found = response(&Page::nothing(303));
    found.headers_mut().insert(LOCATION, hyper::header::HeaderValue::from_static(DONE));
    found
}

fn response(page: &Page) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(page.status());
    if page.status() == 405 {
        response = response.header(ALLOW, "GET");
    }
    for (name, value) in Page::headers() {
        response = response.header(name, value);
    }
    // Fixed names and values: they always fit into HTTP.
    response.body(Full::from(page.html())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::login::listener::*;

    fn headers(host: &str, destination: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(destination) = destination {
            headers.insert("sec-fetch-dest", destination.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_a_navigation_to_the_right_host_counts() {
        let ours = "127.0.0.1:9";
        for (method, host, destination, status) in [
            (Method::GET, ours, Some("document"), None),
            (Method::GET, ours, None, None),
            (Method::POST, ours, None, Some(405)),
            (Method::HEAD, ours, None, Some(405)),
            (Method::GET, "127.0.0.1:8", None, Some(400)),
            (Method::GET, "evil.example:9", None, Some(400)),
            (Method::GET, ours, Some("image"), Some(400)),
            (Method::GET, ours, Some("iframe"), Some(400)),
            (Method::GET, ours, Some("empty"), Some(400)),
        ] {
            let found = misfit(&method, &headers(host, destination), ours);
            assert_eq!(found, status, "{method} {host} {destination:?}");
        }
        assert_eq!(misfit(&Method::GET, &HeaderMap::new(), ours), Some(400));
    }
}
