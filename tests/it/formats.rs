//! The table "Programs that read tokens" of the README: each format in its own program.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use zg_tokend::testing::secret::Secret;

use crate::common::world::World;
use crate::common::{Output, finish, leave_out, tls};

/// The formats of the table, by the name before the colon.
fn table() -> BTreeMap<&'static str, &'static str> {
    let readme = include_str!("../../README.md");
    let (_, rows) = readme.split_once("| program | `format` |").unwrap();
    let rows = rows.lines().skip(2).take_while(|line| line.starts_with('|'));
    let formats = rows.map(|row| row.split('`').nth(1).unwrap());
    formats.map(|format| (format.split(':').next().unwrap(), format)).collect()
}

/// A server that says what it was asked with.
struct Reader {
    address: String,
    authorizations: Arc<Mutex<Vec<String>>>,
}

impl Reader {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let authorizations = Arc::new(Mutex::new(Vec::new()));
        let (seen, own) = (Arc::clone(&authorizations), address.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                serve(&stream, &own, &seen);
            }
        });
        Self { address, authorizations }
    }

    fn got(&self, authorization: &str) -> bool {
        self.authorizations.lock().unwrap().iter().any(|seen| seen == authorization)
    }
}

/// One request; without a credential it asks for one, as pip and wget wait for that.
fn serve(stream: &TcpStream, own: &str, seen: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let request = lines.next().unwrap_or_default();
    let headers = lines.filter_map(|line| {
        line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()))
    });
    let authorization = headers.collect::<BTreeMap<_, _>>().remove("authorization");
    let body = match &*request {
        request if request.contains("config.json") => {
            format!("{{\"dl\": \"http://{own}/dl\", \"api\": \"http://{own}\", \"auth-required\": true}}")
        }
        request if request.contains("whoami") => "{\"username\": \"me\"}".to_owned(),
        _ => "<html></html>".to_owned(),
    };
    let head = if authorization.is_some() {
        "HTTP/1.1 200 OK"
    } else if request.contains("/index/") {
        "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Cargo login_url=\"http://127.0.0.1/\""
    } else {
        "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"x\""
    };
    seen.lock().unwrap().extend(authorization);
    let kind = if body.starts_with('{') { "application/json" } else { "text/html" };
    let reply = format!(
        "{head}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = (&*stream).write_all(reply.as_bytes());
}

/// A world with an output for each format, for a reader at this address.
fn world(reader: &Reader) -> (World, BTreeMap<&'static str, PathBuf>) {
    let world = World::new();
    let home = world.sandbox.path("home");
    let host = reader.address.split(':').next().unwrap();
    let mut files = BTreeMap::new();
    let mut tables = String::new();
    for (name, format) in table() {
        // The hosts of the table are examples; the servers here speak plain http.
        let format = match name {
            "netrc" => format!("netrc:{host}"),
            "git" => format!("git:http://{}", reader.address),
            "npmrc" => format!("npmrc:{}", reader.address),
            "pip" => format!("pip:http://oauth2accesstoken@{}/simple/", reader.address),
            "docker" => format!("docker:oauth2accesstoken@{}", reader.address),
            _ => format.to_owned(),
        };
        let file = match name {
            "cargo" => home.join("credentials.toml"),
            name => home.join(format!("{name}.file")),
        };
        let _ = write!(tables, "[[outputs]]\npath = \"{}\"\nformat = \"{format}\"\n", file.display());
        files.insert(name, file);
    }
    world.configure(&tables);
    world.once_gives(0, []);
    (world, files)
}

/// Runs a program of this machine in a shell, at home in the world.
fn shell(world: &World, program: &str, script: &str) -> Option<Output> {
    let is_there = finish(Command::new("sh").args(["-c", &format!("command -v {program}")])).code == Some(0);
    if !is_there {
        leave_out(&format!("the format for {program}: it is not installed"));
        return None;
    }
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(world.sandbox.path("home"));
    command.env("HOME", world.sandbox.path("home")).env("NO_PROXY", "*").env("no_proxy", "*");
    if let Some(rust) = std::env::var_os("RUSTUP_HOME")
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".rustup").into()))
    {
        command.env("RUSTUP_HOME", rust);
    }
    Some(finish(&mut command))
}

fn basic(user: &str, token: &Secret) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{}", token.expose())))
}

#[test]
fn each_program_takes_its_format() {
    let reader = Reader::new();
    let (world, files) = world(&reader);
    let token = world.token();
    let (bearer, url) = (format!("Bearer {}", token.expose()), format!("http://{}", reader.address));
    let file = |name: &str| files[name].display().to_string();
    let home = world.sandbox.path("home");
    fs::copy(&files["netrc"], home.join(".netrc")).unwrap();
    fs::create_dir_all(home.join("x/src")).unwrap();
    fs::write(home.join("x/src/lib.rs"), "").unwrap();
    let manifest = "[package]\nname = \"x\"\nversion = \"0.1.0\"\n[dependencies]\nd = { version = \"1\", registry = \"my-registry\" }\n";
    fs::write(home.join("x/Cargo.toml"), manifest).unwrap();
    let registry = format!(
        "[registries.my-registry]\nindex = \"sparse+{url}/index/\"\ncredential-provider = [\"cargo:token\"]\n"
    );
    fs::write(home.join("config.toml"), registry).unwrap();
    let cases = [
        ("curl", format!("curl -qsf -H @{} {url}/", file("header")), bearer.clone()),
        ("curl", format!("curl -qsf --netrc-file {} {url}/", file("netrc")), basic("oauth2", &token)),
        ("wget", format!("wget -qO- {url}/"), basic("oauth2", &token)),
        ("npm", format!("npm whoami --registry {url}/ --userconfig {}", file("npmrc")), bearer.clone()),
        (
            "python3",
            // Its exit code says that there is no such package.
            format!(
                "PIP_CONFIG_FILE={} python3 -m pip download --no-cache-dir --no-input x; true",
                file("pip")
            ),
            basic("oauth2accesstoken", &token),
        ),
        ("cargo", "cd x && CARGO_HOME=.. cargo generate-lockfile; true".to_owned(), bearer.clone()),
        (
            "skopeo",
            // There is no such image.
            format!(
                "skopeo inspect --tls-verify=false --authfile {} docker://{}/x; true",
                file("docker"),
                reader.address
            ),
            basic("oauth2accesstoken", &token),
        ),
    ];
    for (program, script, expected) in cases {
        reader.authorizations.lock().unwrap().clear();
        let Some(output) = shell(&world, program, &script) else { continue };
        if program == "python3" && output.stderr.contains("No module named pip") {
            leave_out("the format for pip: it is not installed");
            continue;
        }
        assert_eq!(output.code, Some(0), "{script}: {output:?}");
        assert!(reader.got(&expected), "{script}: {output:?} {:?}", reader.authorizations.lock().unwrap());
    }
    let question = format!("printf 'protocol=http\\nhost={}\\n\\n' | ", reader.address);
    let git = format!(
        "{question} git -c credential.helper= -c \"credential.helper=store --file {}\" credential fill",
        file("git")
    );
    if let Some(output) = shell(&world, "git", &git) {
        assert!(output.stdout.contains(&format!("password={}\n", token.expose())), "{output:?}");
    }
}

/// One request over TLS, answered as an API server does: kubectl keeps its credentials from plain http.
fn serve_tls(listener: &TcpListener, config: Arc<ServerConfig>) -> Option<String> {
    let (stream, _) = listener.accept().unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => head.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    let _ = stream.write_all(answer.as_bytes());
    stream.conn.send_close_notify();
    let _ = stream.flush();
    let text = String::from_utf8(head).unwrap();
    let authorization = text.lines().find_map(|line| line.split_once("uthorization: "));
    authorization.map(|(_, value)| value.to_owned())
}

#[test]
fn kubectl_takes_its_format() {
    let reader = Reader::new();
    let (world, files) = world(&reader);
    let home = world.sandbox.path("home");
    let ca_file = home.join("ca.pem");
    let config = tls::server_config(tls::Leaf::Valid, &ca_file);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());
    let (send, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || while send.send(serve_tls(&listener, Arc::clone(&config))).is_ok() {});
    let exec = serde_json::json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "cat",
        "args": [files["kubeconfig-exec"]],
        "interactiveMode": "Never",
    });
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "c", "cluster": { "server": server, "certificate-authority": ca_file } }],
        "users": [{ "name": "u", "user": { "exec": exec } }],
        "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "x",
    });
    fs::write(home.join("kubeconfig"), config.to_string()).unwrap();
    let script = "kubectl --kubeconfig kubeconfig get --raw /version";
    let Some(output) = shell(&world, "kubectl", script) else { return };
    assert_eq!((output.code, output.stdout.trim_end()), (Some(0), "{}"), "{output:?}");
    let expected = format!("Bearer {}", world.token().expose());
    assert!(seen.try_iter().flatten().any(|authorization| authorization == expected), "{output:?}");
}

/// It wants refresh_token, client_id and client_secret, and takes them empty: it need not refresh.
#[test]
fn google_auth_takes_its_format() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/google-auth/bin/python");
    if !python.exists() {
        return leave_out("the format for google-auth: it is not installed");
    }
    let reader = Reader::new();
    let (world, files) = world(&reader);
    let script = "import sys\n\
        from google.oauth2.credentials import Credentials\n\
        found = Credentials.from_authorized_user_file(sys.argv[1])\n\
        assert found.valid, found.expiry\n\
        headers = {}\n\
        found.apply(headers)\n\
        print(headers['authorization'])\n";
    let program = world.sandbox.path("home/reader.py");
    fs::write(&program, script).unwrap();
    let output = finish(Command::new(python).arg(program).arg(&files["authorized-user"]));
    assert_eq!(output.stdout.trim_end(), format!("Bearer {}", world.token().expose()), "{output:?}");
}

#[test]
fn the_other_formats_are_as_documented() {
    let reader = Reader::new();
    let (world, files) = world(&reader);
    let token = world.token();
    let json =
        |name: &str| -> Value { serde_json::from_str(&fs::read_to_string(&files[name]).unwrap()).unwrap() };
    assert_eq!(fs::read_to_string(&files["bare"]).unwrap(), token.expose());
    // golang.org/x/oauth2, Token.
    let go = json("oauth2-json");
    let expiry: jiff::Timestamp = go["expiry"].as_str().unwrap().parse().unwrap();
    assert_eq!(expiry.as_second(), world.status().0["expires_at"].as_i64().unwrap());
    assert_eq!((&go["access_token"], &go["token_type"]), (&token.expose().into(), &"Bearer".into()));
    // kubectl: the same as its helper prints.
    let printed = world.sandbox.run(["token", "--format", "kubernetes"]).stdout;
    assert_eq!(fs::read_to_string(&files["kubeconfig-exec"]).unwrap(), printed);
}
