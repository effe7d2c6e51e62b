//! The answers that token endpoints really give, and the requests that they want: each case through the whole program.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::common::Sandbox;
use crate::status::formats::assert_schema;

/// The secret values of the requests below: no output may contain them.
const HIDDEN: [&str; 3] = ["plainwordzgheader", "plainwordzgproof", "plainwordzgpassword"];

/// A token endpoint on loopback that gives one answer and keeps the last request.
struct Endpoint {
    port: u16,
    request: Arc<Mutex<String>>,
}

impl Endpoint {
    fn answering(reply: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, request) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::default()));
        let seen = Arc::clone(&request);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                answer(stream, &reply, &seen);
            }
        });
        Self { port, request }
    }
}

fn answer(mut stream: TcpStream, reply: &[u8], seen: &Mutex<String>) {
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    let text = loop {
        let length = stream.read(&mut chunk).unwrap_or(0);
        request.extend_from_slice(&chunk[..length]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if length == 0 {
                break text;
            }
            continue;
        };
        let stated = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if length == 0 || body.len() >= stated.map_or(0, |stated| stated.parse().unwrap()) {
            break text;
        }
    };
    *seen.lock().unwrap() = text;
    let _ = stream.write_all(reply);
}

fn reply(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A pass with these lines in the config: the exit code, all that was printed, the token, the request.
fn pass(reply: Vec<u8>, lines: &str) -> (i32, String, Option<String>, String) {
    let (endpoint, sandbox) = (Endpoint::answering(reply), Sandbox::new());
    sandbox.write_config(&format!(
        "token_endpoint = \"http://127.0.0.1:{}/t\"\nclient_id = \"me\"\nrefresh_token = \"r1\"\ntoken_file = \"token\"\n{lines}\n",
        endpoint.port
    ));
    let once = sandbox.run(["once", "--json"]);
    let mut printed = once.stdout + &once.stderr;
    for view in [&["status", "--json"][..], &["status"], &["check"]] {
        let view = sandbox.run(view.iter().copied());
        printed += &(view.stdout + &view.stderr);
    }
    for secret in HIDDEN {
        assert!(!printed.contains(secret), "{printed}");
    }
    let token = std::fs::read_to_string(sandbox.config_path().with_file_name("token")).ok();
    let request = endpoint.request.lock().unwrap().clone();
    (once.code.unwrap_or(-1), printed, token, request)
}

#[test]
fn each_answer_is_understood() {
    let utf16: Vec<u8> = r#"{"access_token":"a2"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(br#"{"access_token":"a2"}"#).unwrap();
    let plain = |status, body: &str| reply(status, "", body.as_bytes());
    let cases = [
        (plain(200, r#"{"status":0,"body":{"access_token":"a2","expires_in":60}}"#), 0, ""),
        (plain(200, r#"{"access_token":"a2","token_type":"bot","expires_in":"never"}"#), 0, ""),
        (plain(200, "access_token=a2&expires_in=60"), 0, ""),
        (plain(200, r#"{"access_token":"a2","error":"success"}"#), 0, ""),
        (reply(200, "Content-Type: application/json; charset=utf-16\r\n", &utf16), 0, ""),
        (reply(200, "Content-Encoding: gzip\r\n", &gzip.finish().unwrap()), 0, ""),
        (plain(200, r#"{"access_token":"a2","refresh_token":"r\u00e9"}"#), 0, "cannot be kept"),
        (
            plain(200, r#"{"access_token":"a2","refresh_token":"r2","refresh_token_expires_in":604800}"#),
            0,
            "; the login ends 20",
        ),
        (plain(400, r#"{"errors":[{"errorType":"invalid_grant","message":"gone"}]}"#), 77, "gone"),
        (plain(400, r#"{"message":"Invalid refresh token","status":400}"#), 77, "Invalid refresh token"),
        (plain(200, r#"{"ok":false,"error":"bad_client_secret"}"#), 78, "client_secret"),
        (plain(401, r#"{"error":"unauthorized_client"}"#), 78, "token_endpoint_auth_method"),
        (plain(400, r#"{"error":"invalid_grant","error_description":"already being processed"}"#), 69, ""),
        (plain(404, r#"{"error":"Not Found","status":404}"#), 69, "token_endpoint"),
        (plain(429, r#"{"error":"invalid_grant"}"#), 69, ""),
        (plain(503, r#"{"error":"invalid_grant"}"#), 69, ""),
        (plain(400, "<html>invalid_grant: refresh token expired</html>"), 69, ""),
    ];
    thread::scope(|scope| {
        for (reply, code, says) in cases {
            scope.spawn(move || {
                let shown = String::from_utf8_lossy(&reply).into_owned();
                let (exit, printed, token, _) = pass(reply, "");
                assert_eq!(exit, code, "{shown}\n{printed}");
                assert!(printed.contains(says), "{shown}\n{printed}");
                assert_eq!(token.as_deref(), (code == 0).then_some("a2"), "{shown}");
            });
        }
    });
}

#[test]
fn each_request_has_the_shape_that_the_config_asks_for() {
    // The server repeats what it was sent.
    let echo =
        r#"{"error":"odd","error_description":"plainwordzgheader plainwordzgproof plainwordzgpassword"}"#;
    let body = "'{{\"token\": \"{refresh_token}\", \"proof\": \"{assertion}\"}}'";
    let cases = [
        (
            "request_headers = { apikey = { command = [\"echo\", \"plainwordzgheader\"] }, User-Agent = \"app/1\" }\n\
             client_secret = \"plainwordzgpassword\"\nextra_params = { assertion = { command = [\"echo\", \"plainwordzgproof\"] } }"
                .to_owned(),
            &["apikey: plainwordzgheader", "user-agent: app/1", "accept-encoding: identity", "assertion=plainwordzgproof"][..],
        ),
        (
            format!(
                "request_body = {body}\nrequest_headers = {{ apikey = \"plainwordzgheader\" }}\nclient_secret = \"plainwordzgpassword\"\n\
                 extra_params = {{ assertion = {{ command = [\"echo\", \"plainwordzgproof\"] }} }}"
            ),
            &["content-type: application/json", r#"{"token": "r1", "proof": "plainwordzgproof"}"#],
        ),
        (
            "client_secret = \"\"\ntoken_endpoint_auth_method = \"client_secret_basic\"".to_owned(),
            // me:
            &["authorization: Basic bWU6\r\n"],
        ),
        (
            "client_secret = \"a+b\"\ntoken_endpoint_auth_method = \"client_secret_basic_raw\"".to_owned(),
            // me:a+b
            &["authorization: Basic bWU6YSti\r\n"],
        ),
    ];
    thread::scope(|scope| {
        for (lines, expected) in &cases {
            scope.spawn(move || {
                let planted = lines.contains("apikey");
                let said = if planted { echo } else { r#"{"error":"odd"}"# };
                let (exit, printed, _, request) = pass(reply(400, "", said.as_bytes()), lines);
                assert_eq!(exit, 69, "{printed}");
                for part in *expected {
                    assert!(request.contains(part), "{part:?} in {request}");
                }
            });
        }
    });
}

#[test]
fn check_says_what_a_preset_sets() {
    let sandbox = Sandbox::new();
    let login = "client_id = \"me\"\nclient_secret = \"plainwordzgpassword\"\nrefresh_token = \"r1\"\ntoken_file = \"token\"";
    for (lines, expected, absent) in [
        (
            "provider = \"withings\"",
            "the preset withings sets token_endpoint = https://wbsapi.withings.net/v2/oauth2, \
             token_endpoint_auth_method = client_secret_post, extra_params = { action = requesttoken }\n",
            "request_headers",
        ),
        (
            "provider = \"shopify\"\nshop = \"tea\"",
            "sets token_endpoint = https://tea.myshopify.com/",
            "{shop}",
        ),
        ("provider = \"notion\"", "request_headers = { notion-version = ", "extra_params"),
        // An own value is no part of the preset.
        (
            "provider = \"notion\"\nrequest_headers = { notion-version = \"plainwordzgheader\" }",
            "request_body = ",
            "plainwordzg",
        ),
    ] {
        sandbox.write_config(&format!("{lines}\n{login}\n"));
        let printed = sandbox.run(["check"]).stdout;
        assert!(printed.contains(expected) && !printed.contains(absent), "{printed}");
        assert_schema("check.schema.json", &sandbox.run(["check", "--json"]).stdout);
    }
}
