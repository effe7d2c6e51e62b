use std::io::{Read, Write};
use std::net::Shutdown;

use serde_json::Value;

use crate::clock::monotonic;
use crate::demo::audit::AuditEvent;
use crate::demo::server::*;

fn server() -> Server {
    Server::spawn_thread(0, Plain, IssuerOptions::default()).unwrap()
}

/// Sends one request and reads until the server closes: what came, whole or not.
fn exchange(server: &Server, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut connection = std::net::TcpStream::connect(server.address()).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}");
    // The server may hang up at any point: that is the answer, then.
    _ = write!(connection, "{head}content-length: {}\r\n\r\n{body}", body.len());
    let mut reply = Vec::new();
    _ = connection.read_to_end(&mut reply);
    String::from_utf8_lossy(&reply).into_owned()
}

fn get(server: &Server, path: &str) -> Value {
    let reply = exchange(server, "GET", path, "", "");
    serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn token_request(token: &Secret) -> String {
    format!("grant_type=refresh_token&client_id=demo&refresh_token={}", token.expose())
}

fn refresh(server: &Server, token: &Secret) -> String {
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    exchange(server, "POST", "/token", form, &token_request(token))
}

fn kinds(server: &Server) -> Vec<String> {
    let name = |entry: &Value| entry["kind"].as_str().unwrap().to_owned();
    get(server, "/audit").as_array().unwrap().iter().map(name).collect()
}

#[test]
fn a_token_is_granted_over_http_and_opens_the_resource() {
    let server = server();
    let seeded = exchange(&server, "POST", "/seed", "", "");
    let seeded: Value = serde_json::from_str(seeded.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(seeded["token_endpoint"], server.token_endpoint());
    let reply = refresh(&server, &Secret::new(seeded["refresh_token"].as_str().unwrap()));
    assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("cache-control: no-store"), "{reply}");
    let granted: Value = serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap();
    let access_token = granted["access_token"].as_str().unwrap();
    assert!(server.is_live(&Secret::new(access_token)));
    let bearer = format!("authorization: Bearer {access_token}\r\n");
    assert!(exchange(&server, "GET", "/resource", &bearer, "").starts_with("HTTP/1.1 200"));
    assert!(exchange(&server, "GET", "/resource", "", "").starts_with("HTTP/1.1 401"));
    assert_eq!(kinds(&server), ["seed", "post", "grant"]);
}

#[test]
fn discovery_names_the_server_itself() {
    let server = server();
    for document in ["oauth-authorization-server", "openid-configuration"] {
        let metadata = get(&server, &format!("/.well-known/{document}"));
        assert_eq!(metadata["issuer"], server.url());
        assert_eq!(metadata["token_endpoint"], server.token_endpoint());
    }
}

#[test]
fn other_methods_and_paths_are_refused() {
    let server = server();
    assert!(exchange(&server, "GET", "/token", "", "").starts_with("HTTP/1.1 405"));
    assert!(exchange(&server, "GET", "/seed", "", "").starts_with("HTTP/1.1 405"));
    assert!(exchange(&server, "GET", "/", "", "").starts_with("HTTP/1.1 404"));
    assert!(exchange(&server, "POST", "/seed", "", "client_id=who").starts_with("HTTP/1.1 400"));
    assert_eq!(kinds(&server), [""; 0]);
}

fn wait_for_entries(server: &Server, count: usize) {
    let deadline = monotonic() + 60_000;
    while server.audit().len() < count {
        assert!(monotonic() < deadline, "still only {:?}", server.audit());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Each fault: what the client receives, and whether the grant happened all the same.
#[test]
fn faults_do_what_they_say() {
    let redirect = Fault::reply(307, "").with_header("location", "https://elsewhere.example/token");
    let busy = Fault::reply(429, "{}").with_header("retry-after", "7");
    let replaced = Fault { commit: true, ..Fault::reply(502, "bad gateway") };
    let delayed = Fault { delay_before_commit_ms: 1, delay_after_commit_ms: 1, ..Fault::default() };
    let cases = [
        ("reply", Fault::reply(400, "nonsense"), "HTTP/1.1 400", "\r\n\r\nnonsense", false),
        ("retry-after", busy, "HTTP/1.1 429", "retry-after: 7\r\n", false),
        ("redirect", redirect, "HTTP/1.1 307", "location: https://elsewhere.example/token\r\n", false),
        ("dropped before", Fault::drop_before_commit(), "", "", false),
        ("dropped after", Fault::drop_after_commit(), "", "", true),
        ("replaced after", replaced, "HTTP/1.1 502", "bad gateway", true),
        ("delayed", delayed, "HTTP/1.1 200", "at_", true),
    ];
    for (name, fault, start, contains, granted) in cases {
        let server = server();
        let seed = server.seed("demo").unwrap();
        server.faults(|faults| faults.next.push_back(fault));
        let reply = refresh(&server, &seed);
        assert!(reply.starts_with(start) && reply.contains(contains), "{name}: {reply}");
        assert_eq!(reply.is_empty(), start.is_empty(), "{name}: {reply}");
        let log: &[&str] =
            if granted { &["seed", "post", "fault", "grant"] } else { &["seed", "post", "fault"] };
        assert_eq!(kinds(&server), log, "{name}");
        // The queue is used up: the next request is served, or found to be a reuse.
        let next = refresh(&server, &seed);
        assert!(next.starts_with(if granted { "HTTP/1.1 400" } else { "HTTP/1.1 200" }), "{name}: {next}");
    }
}

#[test]
fn a_truncated_reply_breaks_off_where_told() {
    let server = server();
    let seed = server.seed("demo").unwrap();
    let fault = Fault { truncate_after: Some(4), ..Fault::reply(200, "0123456789") };
    server.faults(|faults| faults.next.push_back(fault));
    let reply = refresh(&server, &seed);
    assert!(reply.contains("content-length: 10\r\n") && reply.ends_with("\r\n\r\n0123"), "{reply}");
}

#[test]
fn a_standing_fault_comes_after_the_queue_and_stays() {
    let server = server();
    let seed = server.seed("demo").unwrap();
    let script = r#"{"next": [{"reply": {"status": 500}}], "standing": {"reply": {"status": 503, "headers": [["retry-after", "9"]], "body": "later"}}}"#;
    assert!(exchange(&server, "POST", "/faults", "", script).starts_with("HTTP/1.1 200"));
    assert!(refresh(&server, &seed).starts_with("HTTP/1.1 500"));
    for _ in 0..2 {
        let reply = refresh(&server, &seed);
        assert!(
            reply.starts_with("HTTP/1.1 503") && reply.contains("retry-after: 9") && reply.ends_with("later")
        );
    }
    assert!(exchange(&server, "POST", "/faults", "", "{}").starts_with("HTTP/1.1 200"));
    assert!(refresh(&server, &seed).starts_with("HTTP/1.1 200"));
    assert!(exchange(&server, "POST", "/faults", "", r#"{"nxet": []}"#).starts_with("HTTP/1.1 400"));
}

#[test]
fn an_endless_body_does_not_end() {
    let server = server();
    let seed = server.seed("demo").unwrap();
    server.faults(|faults| faults.next.push_back(Fault { endless: true, ..Fault::default() }));
    let mut connection = std::net::TcpStream::connect(server.address()).unwrap();
    let body = token_request(&seed);
    let head = "POST /token HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded";
    write!(connection, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut much = vec![0; 4 << 20];
    connection.read_exact(&mut much).unwrap();
}

#[test]
fn a_dribbled_body_arrives_whole() {
    let server = server();
    let seed = server.seed("demo").unwrap();
    let fault = Fault { dribble_ms: Some(1), ..Fault::reply(200, "slowly") };
    server.faults(|faults| faults.next.push_back(fault));
    assert!(refresh(&server, &seed).ends_with("\r\n\r\nslowly"));
}

#[test]
fn a_client_that_hangs_up_does_not_undo_its_grant() {
    let server = server();
    let seed = server.seed("demo").unwrap();
    let fault = Fault { delay_before_commit_ms: 50, ..Fault::default() };
    server.faults(|faults| faults.next.push_back(fault));
    let mut connection = std::net::TcpStream::connect(server.address()).unwrap();
    let body = token_request(&seed);
    let head = "POST /token HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded";
    write!(connection, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    wait_for_entries(&server, 3);
    connection.shutdown(Shutdown::Both).unwrap();
    drop(connection);
    wait_for_entries(&server, 4);
    assert_eq!(kinds(&server), ["seed", "post", "fault", "grant"]);
}

#[test]
fn outages_end_without_a_trace() {
    let server = server();
    let seed = server.seed("demo").unwrap();
    server.faults(|faults| faults.outage = Some(Outage::Closed));
    assert_eq!(refresh(&server, &seed), "");
    assert_eq!(server.audit().last().unwrap().event, AuditEvent::Hangup);

    server.faults(|faults| faults.outage = Some(Outage::Unavailable));
    assert!(refresh(&server, &seed).starts_with("HTTP/1.1 503"));
    assert!(exchange(&server, "GET", "/resource", "", "").starts_with("HTTP/1.1 503"));
    assert_eq!(kinds(&server), ["seed", "hangup", "post", "fault"]);

    server.faults(|faults| faults.outage = None);
    assert!(refresh(&server, &seed).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_server_ends_with_its_owner() {
    let server = server();
    let address = server.address();
    // A connection that is open does not keep it.
    let _idle = std::net::TcpStream::connect(address).unwrap();
    drop(server);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_taken_port_is_named() {
    let server = server();
    let again = Server::spawn_thread(server.address().port(), Plain, IssuerOptions::default());
    let error = again.err().unwrap();
    assert_eq!(error.to_string(), format!("cannot listen on {}", server.address()));
    assert!(!error.hint().is_empty());
}
