//! The log and the socket of `run`, and every form of `status` beside it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::json;
use zg_tokend::testing::demo::Fault;

use super::search::Search;
use super::{CLIENT_SECRET, VIEWS, planted, write_private};
use crate::common::world::World;
use crate::common::{Background, wait_until};

/// A server that answers with this status and repeats what it was asked, wherever a reply has room for it.
/// Gives its URL, and how often it was asked. It ends with the process.
fn parrot(status: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // The client may leave before the answer.
            if repeat(stream.unwrap(), status).is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    (url, asked)
}

fn repeat(stream: TcpStream, status: &str) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut heard = String::new();
    while !heard.ends_with("\r\n\r\n") {
        if reader.read_line(&mut heard)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let lower = heard.to_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    heard.push_str(&String::from_utf8_lossy(&body));
    let said = heard.split_whitespace().collect::<Vec<_>>().join(" ");
    let headers = ["www-authenticate", "content-type", "server", "retry-after"];
    let headers = headers.map(|name| format!("{name}: {said}\r\n")).concat();
    let query: String = form_urlencoded::byte_serialize(said.as_bytes()).collect();
    let headers = format!("{headers}location: https://x.test/?{query}\r\n");
    let reply = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{said}", said.len());
    reader.into_inner().write_all(reply.as_bytes())
}

/// The requests to the control socket: right, wrong, and broken off in the middle of a secret.
fn bodies(world: &World, search: &mut Search) -> Vec<(&'static str, String)> {
    let login = search.plant(world.seed().expose());
    let token = world.token();
    vec![
        ("/v1/token/refresh", String::new()),
        ("/v1/token/rejected", json!({ "access_token": token.expose() }).to_string()),
        ("/v1/token/rejected", json!({ "sha256": token.expose() }).to_string()),
        ("/v1/token", json!({ "refresh_token": login }).to_string()),
        ("/v1/token", json!({ "refresh_token": format!("{login}\n{login}") }).to_string()),
        ("/v1/token", json!({ "refresh_token": [login] }).to_string()),
        ("/v1/token", json!({ "access_token": login, "expires_in": login }).to_string()),
        ("/v1/token", format!("{{\"refresh_token\": \"{login}")),
        ("/v1/token", format!("{{\"refresh_token\": {login}}}")),
    ]
}

/// A config with a secret in each place that has room for one, and servers that give back all they get:
/// what `run` logs and serves, and what every view shows beside it.
#[test]
fn the_log_and_the_socket_of_run_hold_no_secret_of_the_config() {
    let (world, mut search) = planted("");
    let sandbox = &world.sandbox;
    let by_credential = search.plant("zgmark1credential2key3of4some5length");
    let [api_key, header, query] =
        ["key", "header", "query"].map(|word| search.plant(&format!("plainwordzgmark{word}")));
    // Of what a server repeats, a parameter is recognised by its looks alone.
    let parameter = search.plant("zgmark1parameter2with3digits4of5some6length");
    let credentials = sandbox.path("credentials");
    let login = search.plant(world.seed().expose());
    for (name, secret) in [("login", &*login), ("client", CLIENT_SECRET), ("key", &*by_credential)] {
        write_private(&credentials.join(name), secret);
    }
    let ((taking, taken), (failing, failed)) = (parrot("200 OK"), parrot("503 Service Unavailable"));
    let ((leading, led), (refusing, refused)) = (parrot("302 Found"), parrot("401 Unauthorized"));
    let hook = format!("[\"sh\", \"-c\", \"env >>{}\"]", sandbox.path("environment").display());
    let account = |refresh_token: &str| {
        format!(
            "token_endpoint = \"{endpoint}\"\nclient_id = \"zg\"\nclient_secret = {{ credential = \"client\" }}\n\
             refresh_token = {refresh_token}\nextra_params = {{ assertion = \"{parameter}\" }}\n\
             on_refresh = {hook}\non_failure = {hook}\non_recovery = {hook}\non_needs_login = {hook}\n\
             push = [\n\
             {{ url = \"{taking}?key={query}\", api_key = \"{api_key}\", headers = {{ x-key = \"{header}\" }} }},\n\
             {{ url = \"{failing}?key={query}\", api_key = {{ credential = \"key\" }} }},\n\
             {{ url = \"{leading}?key={query}\", headers = {{ x-key = \"{header}\" }} }},\n\
             ]\nprobe = {{ url = \"{refusing}?key={query}\", every = \"5s\" }}\n",
            endpoint = world.server.token_endpoint(),
        )
    };
    let command = |args: &[&str]| {
        let mut command = sandbox.command(args.iter().copied());
        command.env("CREDENTIALS_DIRECTORY", &credentials).env("RUST_LOG", "trace");
        command
    };
    for format in ["text", "json"] {
        sandbox.write_config(&account("{ credential = \"login\" }"));
        let asked = [&taken, &failed, &led, &refused];
        let before = asked.map(|asked| asked.load(Ordering::Relaxed));
        let log = sandbox.path(format!("{format}.log"));
        let mut run = Background::start(&mut command(&["run", "--log-format", format]), log);
        run.wait_for("supervising");
        search.plant_tokens(&world);
        world.permit_force();
        run.signal(Signal::USR1);
        wait_until("an answer from everybody", || {
            let now = asked.iter().zip(before).all(|(asked, before)| asked.load(Ordering::Relaxed) > before);
            now.then_some(())
        });
        search.plant_tokens(&world);
        let look = |search: &mut Search| {
            for path in ["/v1/token/status", "/metrics", "/healthz", "/readyz"] {
                search.ask(sandbox, path, None);
            }
            for args in VIEWS {
                search.take(&args.join(" "), &mut command(args));
            }
        };
        look(&mut search);
        for (path, body) in bodies(&world, &mut search) {
            search.ask(sandbox, path, Some(&body));
            search.plant_tokens(&world);
        }
        let given = sandbox.path("home/given");
        for text in [search.plant(world.seed().expose()), format!("{login}\n{login}")] {
            write_private(&given, &text);
            search.take("set", command(&["set"]).stdin(File::open(&given).unwrap()));
            search.plant_tokens(&world);
        }
        fs::remove_file(given).unwrap();
        // The server repeats what it was sent, and refuses the login; the config is wrong, and right again.
        let told = format!("{} {CLIENT_SECRET} {parameter}", world.refresh_token().expose());
        let refusal = json!({ "error": "invalid_grant", "error_description": told });
        world.fault(Fault::reply(400, refusal.to_string()));
        world.permit_force();
        run.signal(Signal::USR1);
        wait_until("the refusal", || (world.status().0["state"] == "needs_login").then_some(()));
        look(&mut search);
        sandbox.write_config(&account(&format!("\"{login}\" \"{login}\"")));
        run.wait_for("the old one stays in force");
        look(&mut search);
        for name in ["cmdline", "environ"] {
            search.emit(name, fs::read(format!("/proc/{}/{name}", run.id())).unwrap());
        }
        assert_eq!(run.stop().code(), Some(0), "{}", run.log());
        sandbox.write_config(&account(&format!("\"{}\"", search.plant(world.seed().expose()))));
        search.take("once", &mut command(&["once"]));
        search.plant_tokens(&world);
    }
    // The logs are among the files, and so is what the hooks were given.
    let belongs = |path: &Path| {
        path.ends_with("config.toml")
            || path.ends_with("default/state")
            || path == world.token_file()
            || path.parent() == Some(&credentials)
    };
    assert!(sandbox.path("environment").exists(), "the hooks were run");
    search.take_files(&sandbox.path(""), &belongs);
    search.assert_none("what run tells");
}
