//! The client against servers that misbehave in every way that was ever seen.

mod certificates;
mod interim;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use url::Url;

use crate::http::discovery::{self, DiscoveryError, DocumentError, parse_document};
use crate::http::proxy::ProxyVariables;
use crate::http::server::{Authority, Leaf, Server, closed_port, read_request, reply};
use crate::http::*;
use crate::oauth::{
    AuthMethod, ClientAuthentication, FailureKind, Grant, Reply, Sent, TokenClient, TokenRequest,
    TransportFailure,
};
use crate::secret::Secret;

const GRANT: &str = r#"{"access_token":"at","token_type":"Bearer","expires_in":3600,"refresh_token":"r2"}"#;

/// Longer than any test takes that is not about the deadline.
const AMPLE: Duration = Duration::from_secs(20);

/// For the tests that must run into the deadline: room enough to connect on a busy machine.
const SHORT: Duration = Duration::from_secs(2);

fn request(token_endpoint: Url) -> TokenRequest {
    let client = TokenClient {
        token_endpoint,
        client_id: "me".to_owned(),
        client_authentication: ClientAuthentication::Secret {
            method: AuthMethod::ClientSecretBasic,
            client_secret: Secret::new("pw"),
        },
        scope: None,
        extra_params: Vec::new(),
        shape: crate::oauth::shape::Shape::default(),
    };
    TokenRequest { client: Arc::new(client), grant: Grant::RefreshToken(Secret::new("r1")) }
}

fn endpoint_with(timeout: Duration, ca_file: Option<PathBuf>, environment: ProxyVariables) -> HttpEndpoint {
    HttpEndpoint::with_environment(HttpOptions { timeout, ca_file, ..HttpOptions::default() }, environment)
}

fn endpoint(timeout: Duration) -> HttpEndpoint {
    endpoint_with(timeout, None, ProxyVariables::default())
}

async fn post(url: Url) -> Result<Reply, TransportFailure> {
    endpoint(AMPLE).post(&request(url)).await
}

/// Runs a test with its servers on one thread.
async fn local<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

#[track_caller]
fn assert_failure(result: Result<Reply, TransportFailure>, sent: Sent, kind: FailureKind) -> String {
    let failure = result.unwrap_err();
    assert_eq!((failure.sent, failure.kind), (sent, kind), "{failure:?}");
    assert!(!failure.detail.contains("token?") && !failure.detail.contains("http"), "{failure:?}");
    failure.detail
}

#[tokio::test]
async fn one_exchange() {
    local(async {
        let seen = Rc::new(RefCell::new(String::new()));
        let log = seen.clone();
        let server = Server::start(async move |mut stream: TcpStream| {
            *log.borrow_mut() = read_request(&mut stream).await;
            let headers = "Content-Type: application/json\r\nRetry-After: 7\r\nDate: today\r\n";
            stream.write_all(reply("200 OK", headers, GRANT).as_bytes()).await.unwrap();
        })
        .await;
        let reply = post(server.url("http")).await.unwrap();
        assert_eq!((reply.status, reply.body.as_slice()), (200, GRANT.as_bytes()));
        assert_eq!(reply.content_type.as_deref(), Some("application/json"));
        assert_eq!(reply.retry_after.as_deref(), Some("7"));
        assert_eq!(reply.date.as_deref(), Some("today"));

        let seen = seen.borrow();
        let (head, body) = seen.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "grant_type=refresh_token&refresh_token=r1");
        assert!(head.starts_with("POST /token HTTP/1.1\r\n"));
        let mut headers: Vec<&str> = head.lines().skip(1).collect();
        headers.retain(|line| !line.starts_with("host:"));
        headers.sort_unstable();
        let user_agent = concat!("user-agent: zg-tokend/", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            headers,
            [
                "accept-encoding: identity",
                "accept: application/json",
                "authorization: Basic bWU6cHc=",
                "connection: close",
                "content-length: 41",
                "content-type: application/x-www-form-urlencoded",
                user_agent,
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn a_refused_connection_sent_nothing() {
    let (_kept, port) = closed_port();
    let url = format!("http://127.0.0.1:{port}/token?key=x").parse().unwrap();
    let detail = assert_failure(post(url).await, Sent::NotSent, FailureKind::Connect);
    assert_eq!(detail, "connection refused");
}

#[tokio::test]
async fn an_unknown_host_sent_nothing() {
    // A label of 64 characters is no name anywhere, and is never asked for.
    let url = format!("http://{}.invalid/token", "x".repeat(64)).parse().unwrap();
    let options = HttpOptions { timeout: AMPLE, allow_http: true, ..HttpOptions::default() };
    let endpoint = HttpEndpoint::with_environment(options, ProxyVariables::default());
    assert_failure(endpoint.post(&request(url)).await, Sent::NotSent, FailureKind::Dns);
}

#[tokio::test]
async fn plain_http_leaves_this_machine_only_if_allowed() {
    let url: Url = "http://as.example/token".parse().unwrap();
    let result = endpoint(AMPLE).post(&request(url)).await;
    assert_eq!(result.unwrap_err().kind, FailureKind::PlainHttp);
}

#[tokio::test]
async fn a_connection_that_breaks_may_have_sent_it() {
    local(async {
        let before = Server::start(async |stream: TcpStream| stream.set_zero_linger().unwrap()).await;
        assert_failure(post(before.url("http")).await, Sent::PerhapsSent, FailureKind::Reset);
        let after = Server::start(async |mut stream: TcpStream| {
            read_request(&mut stream).await;
            stream.set_zero_linger().unwrap();
        })
        .await;
        assert_failure(post(after.url("http")).await, Sent::PerhapsSent, FailureKind::Reset);
        for cut in ["", "HTTP/1.1 200 OK\r\nContent-", "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"acc"]
        {
            let server = Server::answering(cut).await;
            assert_failure(post(server.url("http")).await, Sent::PerhapsSent, FailureKind::Reset);
            assert_eq!(server.connections(), 1, "nothing is sent twice");
        }
    })
    .await;
}

#[tokio::test]
async fn a_refresh_token_in_a_reply_that_breaks_off_is_not_lost() {
    local(async {
        let cut = format!("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{GRANT}");
        let reply = post(Server::answering(cut).await.url("http")).await.unwrap();
        assert_eq!(reply.body.as_slice(), GRANT.as_bytes());
    })
    .await;
}

#[tokio::test]
async fn the_deadline_covers_every_byte() {
    local(async {
        for start in ["HTTP/1.1 200 OK\r\nX: ", "HTTP/1.1 200 OK\r\n\r\n{\"access_token\":\""] {
            let server = Server::start(async move |mut stream: TcpStream| {
                read_request(&mut stream).await;
                let mut dribble = stream.write_all(start.as_bytes()).await;
                while dribble.is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    dribble = stream.write_all(b"x").await;
                }
            })
            .await;
            let result = endpoint(SHORT).post(&request(server.url("http"))).await;
            assert_failure(result, Sent::PerhapsSent, FailureKind::Timeout);
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_not_http() {
    local(async {
        let server = Server::answering("SSH-2.0-OpenSSH_9.2p1\r\n").await;
        assert_failure(post(server.url("http")).await, Sent::PerhapsSent, FailureKind::NotHttp);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_says_nothing_runs_into_the_deadline() {
    local(async {
        let server = Server::start(async |stream: TcpStream| {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await;
        let result = endpoint(SHORT).post(&request(server.url("http"))).await;
        assert_failure(result, Sent::PerhapsSent, FailureKind::Timeout);
    })
    .await;
}

#[tokio::test]
async fn a_handshake_that_hangs_sent_nothing() {
    local(async {
        let server = Server::start(async |stream: TcpStream| {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await;
        let dir = tempfile::tempdir().unwrap();
        let endpoint =
            endpoint_with(SHORT, Some(Authority::new("ours").ca_file(&dir)), ProxyVariables::default());
        let result = endpoint.post(&request(server.url("https"))).await;
        assert_failure(result, Sent::NotSent, FailureKind::Timeout);
    })
    .await;
}

#[tokio::test]
async fn sizes_are_limited() {
    local(async {
        let announced = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n").await;
        assert_failure(post(announced.url("http")).await, Sent::PerhapsSent, FailureKind::BodyTooLarge);
        let endless = Server::start(async |mut stream: TcpStream| {
            read_request(&mut stream).await;
            let mut write = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{").await;
            while write.is_ok() {
                write = stream.write_all(&[b' '; 8192]).await;
            }
        })
        .await;
        assert_failure(post(endless.url("http")).await, Sent::PerhapsSent, FailureKind::BodyTooLarge);
        let full = reply("200 OK", "", &" ".repeat(1024 * 1024));
        assert_eq!(post(Server::answering(full).await.url("http")).await.unwrap().body.len(), 1024 * 1024);
        let headers = format!("X: {}\r\n", "x".repeat(10_000_000));
        let server = Server::answering(reply("200 OK", &headers, GRANT)).await;
        assert_failure(post(server.url("http")).await, Sent::PerhapsSent, FailureKind::HeadersTooLarge);
    })
    .await;
}

#[tokio::test]
async fn a_redirect_is_handed_over_and_not_followed() {
    local(async {
        let elsewhere = Server::answering(reply("200 OK", "", GRANT)).await;
        for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
            let location = format!("Location: {}\r\n", elsewhere.url("http"));
            let server = Server::answering(reply(status, &location, "")).await;
            let reply = post(server.url("http")).await.unwrap();
            assert_eq!(reply.status.to_string(), status[..3]);
            assert_eq!(reply.location, Some(elsewhere.url("http").to_string()));
        }
        assert_eq!(elsewhere.connections(), 0);
    })
    .await;
}

#[tokio::test]
async fn each_post_has_a_connection_of_its_own() {
    local(async {
        let server = Server::answering(reply("503 No", "Connection: keep-alive\r\n", "")).await;
        let endpoint = endpoint(AMPLE);
        for _ in 0..3 {
            assert_eq!(endpoint.post(&request(server.url("http"))).await.unwrap().status, 503);
        }
        assert_eq!(server.connections(), 3);
    })
    .await;
}

#[tokio::test]
async fn compressed_garbage_may_have_been_an_answer() {
    local(async {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x00\xff".to_vec();
        let failure = post(Server::answering(bytes).await.url("http")).await.unwrap_err();
        assert_eq!(failure.detail, "the answer cannot be decoded: its gzip is damaged");
    })
    .await;
}

#[tokio::test]
async fn a_server_without_tls_is_named_as_such() {
    local(async {
        let server = Server::start(async |mut stream: TcpStream| {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            std::future::pending::<()>().await;
        })
        .await;
        let dir = tempfile::tempdir().unwrap();
        let endpoint =
            endpoint_with(AMPLE, Some(Authority::new("ours").ca_file(&dir)), ProxyVariables::default());
        let result = endpoint.post(&request(server.url("https"))).await;
        let detail = assert_failure(result, Sent::NotSent, FailureKind::NotTls);
        assert_eq!(detail, "the server does not speak TLS on this port; it may speak plain HTTP");
    })
    .await;
}

#[tokio::test]
async fn a_missing_ca_file_is_named() {
    let endpoint = endpoint_with(AMPLE, Some("/nonexistent/ca.pem".into()), ProxyVariables::default());
    let url: Url = "https://127.0.0.1:1/token".parse().unwrap();
    let detail = assert_failure(endpoint.post(&request(url)).await, Sent::NotSent, FailureKind::Roots);
    assert!(detail.contains("/nonexistent/ca.pem: No such file"), "{detail}");
}

#[tokio::test]
async fn plain_http_needs_no_roots() {
    local(async {
        let server = Server::answering(reply("200 OK", "", GRANT)).await;
        let endpoint = endpoint_with(AMPLE, Some("/nonexistent/ca.pem".into()), ProxyVariables::default());
        assert_eq!(endpoint.post(&request(server.url("http"))).await.unwrap().status, 200);
    })
    .await;
}

fn through(proxy: &Server) -> ProxyVariables {
    ProxyVariables {
        proxy: Some(format!("http://user:pw@127.0.0.1:{}", proxy.port)),
        ..ProxyVariables::default()
    }
}

#[tokio::test]
async fn no_proxy_for_loopback_nor_for_plain_http() {
    local(async {
        let proxy = Server::answering(reply("407 No", "", "")).await;
        let (authority, dir) = (Authority::new("ours"), tempfile::tempdir().unwrap());
        let endpoint = endpoint_with(AMPLE, Some(authority.ca_file(&dir)), through(&proxy));
        let http = Server::answering(reply("200 OK", "", GRANT)).await;
        assert_eq!(endpoint.post(&request(http.url("http"))).await.unwrap().status, 200);
        let leaf = Leaf::For("127.0.0.1");
        let https = Server::answering_tls(&authority, leaf, &reply("200 OK", "", GRANT)).await;
        assert_eq!(endpoint.post(&request(https.url("https"))).await.unwrap().status, 200);
        assert_eq!(proxy.connections(), 0);
    })
    .await;
}

#[tokio::test]
async fn https_goes_through_the_proxy() {
    local(async {
        let (authority, dir) = (Authority::new("ours"), tempfile::tempdir().unwrap());
        let acceptor = authority.acceptor(Leaf::For("as.example"));
        let proxy = Server::start(async move |mut stream: TcpStream| {
            let connect = read_request(&mut stream).await;
            assert!(connect.starts_with("CONNECT as.example:443 "), "{connect}");
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut inside = acceptor.accept(stream).await.unwrap();
            read_request(&mut inside).await;
            inside.write_all(reply("200 OK", "", GRANT).as_bytes()).await.unwrap();
        })
        .await;
        let endpoint = endpoint_with(AMPLE, Some(authority.ca_file(&dir)), through(&proxy));
        let reply = endpoint.post(&request("https://as.example/token".parse().unwrap())).await.unwrap();
        assert_eq!(reply.body.as_slice(), GRANT.as_bytes());
    })
    .await;
}

#[tokio::test]
async fn a_proxy_that_fails_sent_nothing() {
    local(async {
        let dir = tempfile::tempdir().unwrap();
        let ca_file = Some(Authority::new("ours").ca_file(&dir));
        for (answer, kind, expected) in [
            ("407 No", FailureKind::ProxyLogin, "refuses its user name and password"),
            ("502 No", FailureKind::ProxyTarget, "cannot reach as.example:443"),
        ] {
            let proxy = Server::answering(reply(answer, "", "")).await;
            let endpoint = endpoint_with(AMPLE, ca_file.clone(), through(&proxy));
            let result = endpoint.post(&request("https://as.example/token".parse().unwrap())).await;
            let detail = assert_failure(result, Sent::NotSent, kind);
            assert!(detail.contains(expected) && !detail.contains("pw"), "{detail}");
        }
        let (_kept, port) = closed_port();
        let proxy = Some(format!("127.0.0.1:{port}"));
        let endpoint = endpoint_with(AMPLE, ca_file, ProxyVariables { proxy, ..ProxyVariables::default() });
        let result = endpoint.post(&request("https://as.example/token".parse().unwrap())).await;
        let detail = assert_failure(result, Sent::NotSent, FailureKind::Proxy);
        let expected = format!("the proxy 127.0.0.1:{port} cannot be reached: connection refused");
        assert_eq!(detail, expected);
    })
    .await;
}

fn document(issuer: &str, token_endpoint: &str) -> String {
    format!(r#"{{"issuer":"{issuer}","token_endpoint":"{token_endpoint}","more":[1]}}"#)
}

#[test]
fn documents_are_checked() {
    const ISSUER: &str = "https://as.example";
    let other = |issuer: &str| Some(DocumentError::OtherIssuer(issuer.to_owned()));
    let insecure = |url: &str| Some(DocumentError::Insecure(url.to_owned()));
    for (asked, body, expected) in [
        (ISSUER, document(ISSUER, "https://token.example/t"), None),
        (ISSUER, document("https://as.example/", "https://as.example/t"), other("https://as.example/")),
        (ISSUER, document("https://AS.example", "https://as.example/t"), other("https://AS.example")),
        (ISSUER, document(ISSUER, "http://as.example/t"), insecure("http://as.example/t")),
        (ISSUER, document(ISSUER, "http://127.0.0.1/t"), insecure("http://127.0.0.1/t")),
        (ISSUER, document(ISSUER, "/t"), insecure("/t")),
        (ISSUER, document(ISSUER, "file:///t"), insecure("file:///t")),
        ("http://127.0.0.1:1", document("http://127.0.0.1:1", "http://localhost/t"), None),
        ("http://127.0.0.1:1", document("http://127.0.0.1:1", "http://a.b/t"), insecure("http://a.b/t")),
        ("http://a.b", document("http://a.b", "http://a.b/t"), insecure("http://a.b/t")),
        (ISSUER, r#"{"token_endpoint":"https://a/t"}"#.to_owned(), Some(DocumentError::Missing("issuer"))),
        (ISSUER, format!(r#"{{"issuer":"{ISSUER}"}}"#), Some(DocumentError::Missing("token_endpoint"))),
        (ISSUER, "<html>".to_owned(), Some(DocumentError::NotADocument)),
        (ISSUER, r#"{"issuer":5}"#.to_owned(), Some(DocumentError::NotADocument)),
    ] {
        assert_eq!(parse_document(body.as_bytes(), asked).err(), expected, "{body}");
    }
    let methods = r#"{"issuer":"https://a","token_endpoint":"https://a/t","token_endpoint_auth_methods_supported":["none"]}"#;
    let found = parse_document(methods.as_bytes(), "https://a").unwrap();
    assert_eq!(found.token_endpoint_auth_methods_supported, ["none"]);
    let silent = parse_document(document(ISSUER, "https://a/t").as_bytes(), ISSUER).unwrap();
    assert_eq!(silent.token_endpoint_auth_methods_supported, ["client_secret_basic"]);
}

/// An issuer with documents at some paths, and 404 elsewhere. The documents may name `{issuer}`.
async fn issuer(documents: &'static [(&'static str, &'static str)]) -> (Server, String) {
    let server = Server::start(async move |mut stream: TcpStream| {
        let issuer = format!("http://{}/tenant", stream.local_addr().unwrap());
        let request = read_request(&mut stream).await;
        let path = request.split(' ').nth(1).unwrap();
        let found = documents.iter().find(|(at, _)| *at == path);
        let answer = match found {
            Some((_, body)) => reply("200 OK", "", &body.replace("{issuer}", &issuer)),
            None => reply("404 Not Found", "", ""),
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let name = format!("http://127.0.0.1:{}/tenant", server.port);
    (server, name)
}

#[tokio::test]
async fn both_places_are_asked() {
    const GOOD: &str = r#"{"issuer":"{issuer}","token_endpoint":"{issuer}/token"}"#;
    const WRONG: &str = r#"{"issuer":"https://other","token_endpoint":"{issuer}/wrong"}"#;
    const OAUTH: &str = "/.well-known/oauth-authorization-server/tenant";
    const OPENID: &str = "/tenant/.well-known/openid-configuration";
    local(async {
        for (documents, requests) in
            [(&[(OAUTH, GOOD)][..], 1), (&[(OPENID, GOOD)], 2), (&[(OAUTH, WRONG), (OPENID, GOOD)], 2)]
        {
            let (server, name) = issuer(documents).await;
            let found = discovery::fetch(&endpoint(AMPLE), &name).await.unwrap();
            assert_eq!(found.token_endpoint.as_str(), format!("{name}/token"));
            assert_eq!(server.connections(), requests);
        }
        let (_server, name) = issuer(&[(OPENID, WRONG)]).await;
        let error = discovery::fetch(&endpoint(AMPLE), &name).await.unwrap_err();
        let DiscoveryError::NoDocument { oauth, openid, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*oauth, DocumentError::Status(404));
        assert_eq!(*openid, DocumentError::OtherIssuer("https://other".to_owned()));
        assert!(!error.is_transient() && error.hint().unwrap().contains("https://other"));
    })
    .await;
}

#[tokio::test]
async fn no_answer_is_not_a_wrong_document() {
    let (_kept, port) = closed_port();
    let error = discovery::fetch(&endpoint(AMPLE), &format!("http://127.0.0.1:{port}")).await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Unreachable { .. }) && error.is_transient(), "{error:?}");
    for wrong in ["not a url", "ftp://a.example", "https://a.example?tenant=1", "https://a.example#x"] {
        let error = discovery::fetch(&endpoint(AMPLE), wrong).await.unwrap_err();
        assert!(matches!(error, DiscoveryError::Issuer { .. }) && !error.is_transient(), "{error:?}");
    }
}
