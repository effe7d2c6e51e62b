//! Token endpoints that are broken, mistaken or malicious: whatever they send, the program ends
//! in time and small, says what happened, keeps the live token, and lets the next pass refresh.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use zg_tokend::testing::secret::Secret;

use crate::common::tls::{self, Leaf};
use crate::common::world::World;
use crate::common::{Background, audit, figure, finish, wait_until};

/// So many cases at a time: they wait most of the time, but each must get its CPU time soon.
const WORKERS: usize = 8;

/// How much more memory than an ordinary pass a hostile server may cost, in KiB: the longest body
/// that is read (1 MiB), what TLS and HTTP hold of it, and copies of it while it grows.
const MEMORY_FOR_HOSTILITY: usize = 8 * 1024;

/// The behaviour of the server on each connection.
#[derive(Debug, Clone)]
enum Act {
    /// Reads the request, answers this, and closes.
    Say(Vec<u8>),
    /// The same, and then this byte by byte, 20 a second, for as long as the client stays.
    Dribble(&'static str, u8),
    /// The same, but a thousand times a second.
    Flood(&'static str, Vec<u8>),
    /// Never answers.
    Hang,
    /// Says this before it has read the request to its end, and resets the connection.
    Reset(&'static str),
    /// Resets the connection before it has read anything.
    ResetAtOnce,
}

/// How the server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Http,
    Https(Leaf),
    /// The client expects TLS, and the server speaks as over plain TCP.
    NoTls,
}

struct Case {
    layer: Layer,
    act: Act,
    expected: Expected,
}

enum Expected {
    /// Exit code 69, the old token, and this in the message.
    Failure(&'static str),
    /// A token all the same.
    Token(&'static str),
}

impl Case {
    /// A name for the messages of a failing test.
    fn name(&self) -> String {
        let text = match &self.act {
            Act::Say(bytes) => String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned(),
            Act::Dribble(text, _) => format!("dribble after {text}"),
            Act::Flood(text, bytes) => {
                format!("flood after {text} of {}", String::from_utf8_lossy(&bytes[..bytes.len().min(10)]))
            }
            Act::Reset(text) => format!("reset after {text}"),
            Act::ResetAtOnce => "reset at once".to_owned(),
            Act::Hang => "hang".to_owned(),
        };
        format!("{:?} {text:?}", self.layer)
    }

    fn timeout(&self) -> &'static str {
        match self.expected {
            Expected::Failure(words) => timeout(words),
            Expected::Token(_) => timeout(""),
        }
    }
}

/// The configured `timeout` where these words are expected: only what is waited for in vain may run
/// into it, on a busy machine too.
fn timeout(words: &str) -> &'static str {
    if [LATE, LATE_TO_CONNECT].contains(&words) { "3s" } else { "30s" }
}

fn case(act: Act, says: &'static str) -> Case {
    Case { layer: Layer::Http, act, expected: Expected::Failure(says) }
}

fn over(layer: Layer, act: Act, says: &'static str) -> Case {
    Case { layer, act, expected: Expected::Failure(says) }
}

/// A whole reply.
fn reply(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Act {
    let length = body.as_ref().len();
    let mut bytes = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body.as_ref());
    Act::Say(bytes)
}

/// A reply of type JSON, status 200.
fn json(body: impl AsRef<[u8]>) -> Act {
    reply("200 OK", "content-type: application/json\r\n", body)
}

/// A success, but for its access_token, which is this JSON.
fn token(json_value: impl AsRef<[u8]>) -> Act {
    let parts =
        [b"{\"token_type\":\"Bearer\",\"expires_in\":3600,\"access_token\":", json_value.as_ref(), b"}"];
    json(parts.concat())
}

const GOOD: &str = "{\"access_token\":\"good\",\"token_type\":\"Bearer\",\"expires_in\":3600}";
const LATE: &str = "timed out after 3 s while waiting for the answer";
const LATE_TO_CONNECT: &str = "timed out after 2.7 s while connecting";
const INTERIM: &str = "sends interim answers (HTTP 1xx) without end";
const CUT: &str = "the connection";
const NO_JSON: &str = "is not a JSON object";
const BAD_CHARACTERS: &str = "the access_token has characters that are not allowed in a token";
const JSON_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

fn cases() -> Vec<Case> {
    let login = "<html><body>Welcome to Hotel WiFi. Please log in.</body></html>";
    let html = "content-type: text/html\r\n";
    let say = |text: &str| Act::Say(text.into());
    let good = |headers: &str| Case {
        layer: Layer::Http,
        act: reply("200 OK", headers, GOOD),
        expected: Expected::Token("good"),
    };
    vec![
        // Too slow, too long, without end.
        case(Act::Hang, LATE),
        case(Act::Dribble("HTTP/1.1 200 OK\r\nx: ", b'a'), LATE),
        case(
            Act::Dribble("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{\"access_token\":\"", b'a'),
            LATE,
        ),
        case(
            Act::Flood("HTTP/1.1 200 OK\r\n\r\n{\"access_token\":\"", vec![b'a'; 1 << 16]),
            "longer than 1 MiB",
        ),
        case(
            Act::Flood("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\na\r\n".repeat(20)),
            LATE,
        ),
        case(Act::Flood("HTTP/1.1 200 OK\r\nx: ", vec![b'a'; 1 << 16]), "headers are too large"),
        case(Act::Flood("HTTP/1.1 200 OK\r\n", b"x: y\r\n".repeat(4096)), "headers are too large"),
        case(Act::Flood("", b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()), INTERIM),
        case(Act::Flood("", b"HTTP/1.1 102 Processing\r\n\r\n".repeat(1000)), INTERIM),
        case(Act::Flood("", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(1000)), INTERIM),
        case(reply("200 OK", &format!("x: {}\r\n", "a".repeat(10 << 20)), GOOD), "headers are too large"),
        case(say("HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n{"), "longer than 1 MiB"),
        case(
            say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{"),
            "invalid chunk size",
        ),
        case(say("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}"), "not HTTP"),
        // Elsewhere.
        case(
            reply("307 Temporary Redirect", "location: https://evil.test/token\r\n", ""),
            "redirects to evil.test",
        ),
        case(
            reply("308 Permanent Redirect", "location: http://evil.test/token\r\n", ""),
            "redirects to evil.test",
        ),
        case(reply("302 Found", "location: http://portal.test/login\r\n", login), "redirects to portal.test"),
        case(reply("302 Found", "location: \u{1}\r\n", ""), "not HTTP"),
        // Something else than a token endpoint.
        case(reply("200 OK", html, login), NO_JSON),
        case(reply("511 Network Authentication Required", html, login), "HTTP 511"),
        case(reply("204 No Content", "", ""), NO_JSON),
        case(say("SSH-2.0-OpenSSH_9.7\r\n"), "not HTTP"),
        case(say("HTTP/1.1 999 ?\r\ncontent-length: 0\r\n\r\n"), "HTTP 999"),
        case(say("\0\0\0\0"), "not HTTP"),
        // Bodies that are not what they say.
        case(reply("200 OK", "content-encoding: gzip\r\n", b"\x1f\x8b\x08garbage"), "its gzip is damaged"),
        case(json("[".repeat(100_000)), NO_JSON),
        case(json(format!("{{\"x\":{}", "{\"x\":".repeat(100_000))), NO_JSON),
        case(json(b"{\"access_token\":\"\xff\xfe\"}"), BAD_CHARACTERS),
        case(json("{\"access_token\":\"good\"} trailing"), NO_JSON),
        // Tokens that must never reach the file.
        case(token("\"nul\\u0000\""), BAD_CHARACTERS),
        case(token("\"line\\nbreak\""), BAD_CHARACTERS),
        case(token("\"\\u001b[31mred\""), BAD_CHARACTERS),
        case(token("\"t\u{f6}ken\""), BAD_CHARACTERS),
        case(token(format!("\"{}\"", "a".repeat((16 << 10) + 1))), "over 16 KiB"),
        case(token("\"\""), "the access_token is empty"),
        case(token("[\"good\"]"), "the access_token is not a string"),
        case(json("{\"access_token\":\"a\",\"expires_in\":-1}"), "expires_in is not a positive number"),
        case(json("{\"access_token\":\"a\",\"expires_in\":1e999}"), NO_JSON),
        // Unusual, and good enough.
        good("content-type: text/html\r\n"),
        good("retry-after: 999999999999999999999999\r\n"),
        Case {
            layer: Layer::Http,
            act: json(
                "{\"access_token\":\"first\",\"expires_in\":0,\"access_token\":\"last\",\"expires_in\":60}",
            ),
            expected: Expected::Token("last"),
        },
        // Broken off at every stage.
        case(Act::ResetAtOnce, CUT),
        case(Act::Reset(""), CUT),
        case(Act::Reset("HTTP/1.1 200"), CUT),
        case(Act::Reset(JSON_HEAD), CUT),
        case(Act::Reset("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"access_"), CUT),
        case(say(""), CUT),
        case(say("HTTP/1.1 200"), CUT),
        case(say(JSON_HEAD), CUT),
        case(say("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"access_token\":\"x\"}"), CUT),
        case(say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"acc"), CUT),
        // TLS.
        over(Layer::Https(Leaf::Expired), json(GOOD), "has expired: it was valid until 2001-01-01"),
        over(Layer::Https(Leaf::OtherName), json(GOOD), "not for localhost, but for elsewhere.test"),
        over(Layer::Https(Leaf::Unknown), json(GOOD), "that is not trusted"),
        over(
            Layer::Https(Leaf::Valid),
            Act::Flood("HTTP/1.1 200 OK\r\n\r\n", vec![b' '; 1 << 16]),
            "longer than 1 MiB",
        ),
        over(Layer::Https(Leaf::Valid), Act::Reset(""), CUT),
        over(Layer::NoTls, json(GOOD), "does not speak TLS"),
        over(Layer::NoTls, Act::Hang, LATE_TO_CONNECT),
        over(Layer::NoTls, Act::ResetAtOnce, CUT),
        over(Layer::NoTls, Act::Flood("", vec![0x16; 1 << 16]), "does not speak TLS"),
    ]
}

trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// Reads the request, but for so many bytes at its end.
fn read_request(wire: &mut dyn Wire, but: usize) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        wire.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&request).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    wire.read_exact(&mut vec![0; length - but])
}

fn perform(act: &Act, tls: bool, wire: &mut dyn Wire) -> std::io::Result<()> {
    let unread = usize::from(matches!(act, Act::Reset(_)));
    // A TLS client's first bytes are no HTTP request.
    if !tls {
        read_request(wire, unread)?;
    }
    match act {
        Act::Say(bytes) => wire.write_all(bytes)?,
        Act::Reset(text) => wire.write_all(text.as_bytes())?,
        Act::Dribble(text, byte) => {
            wire.write_all(text.as_bytes())?;
            loop {
                wire.write_all(&[*byte])?;
                wire.flush()?;
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Act::Flood(text, bytes) => {
            wire.write_all(text.as_bytes())?;
            loop {
                wire.write_all(bytes)?;
                // 64 MB/s do, and leave the other cases a processor.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        // Until the client goes.
        Act::Hang => drop(wire.read_to_end(&mut Vec::new())?),
        Act::ResetAtOnce => {}
    }
    wire.flush()
}

fn serve(mut connection: TcpStream, layer: Layer, act: &Act, tls: Option<&Arc<ServerConfig>>) {
    if matches!(act, Act::ResetAtOnce) {
        // Once bytes have arrived that nobody reads, closing is a reset.
        _ = connection.peek(&mut [0]);
        return;
    }
    // The client may leave at any time.
    _ = match tls {
        Some(config) => {
            let session = ServerConnection::new(Arc::clone(config)).unwrap();
            perform(act, false, &mut StreamOwned::new(session, connection))
        }
        None => perform(act, layer == Layer::NoTls, &mut connection),
    };
}

/// Listens until the test's process ends.
fn listen(layer: Layer, act: Act, ca_file: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = match layer {
        Layer::Https(leaf) => Some(tls::server_config(leaf, ca_file)),
        Layer::Http | Layer::NoTls => None,
    };
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let (act, tls) = (act.clone(), tls.clone());
            std::thread::spawn(move || serve(connection, layer, &act, tls.as_ref()));
        }
    });
    let scheme = if layer == Layer::Http { "http" } else { "https" };
    format!("{scheme}://localhost:{port}/token")
}

/// `once --force`: exit code, what it said, and the most memory it held, in KiB.
fn once(world: &World) -> (Option<i32>, String, usize) {
    let mut command = world.sandbox.command(["once", "--force"]);
    let mut once = Background::start(&mut command, world.sandbox.path("log"));
    let status = format!("/proc/{}/status", once.id());
    let (mut peak, mut looks) = (0, 0);
    let ended = loop {
        let now = fs::read_to_string(&status).unwrap_or_default();
        // Until a child has become the program, its memory is that of this process.
        let line = now.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let line = line.filter(|_| now.starts_with("Name:\tzg-tokend\n"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = kib.unwrap_or(0).max(peak);
        if let Some(ended) = once.ended() {
            break ended;
        }
        // Short passes are looked at often; those that wait have had their peak.
        looks += 1;
        std::thread::sleep(Duration::from_millis(if looks < 200 { 2 } else { 50 }));
    };
    (ended.code(), once.log(), peak)
}

/// A world with a live token, whose config leads to a hostile server.
struct Attacked {
    world: World,
    /// The config that leads to the true server.
    honest: String,
}

impl Attacked {
    /// `timeout` is the configured one.
    fn by(layer: Layer, act: Act, timeout: &str) -> Self {
        let world = World::new();
        world.configure("");
        world.once_gives(0, []);
        let honest = fs::read_to_string(world.sandbox.config_path()).unwrap();
        let ca_file = world.sandbox.path("ca.pem");
        fs::write(&ca_file, "").unwrap();
        let url = listen(layer, act, &ca_file);
        let vouching = match layer {
            Layer::Https(_) => format!("ca_file = \"{}\"\n", ca_file.display()),
            Layer::Http | Layer::NoTls => String::new(),
        };
        let hostile = honest.replace(&world.server.token_endpoint(), &url);
        world.sandbox.write_config(&format!("{hostile}timeout = \"{timeout}\"\n{vouching}"));
        Self { world, honest }
    }
}

/// Plays one case, and gives the peak of memory.
fn play(case: Case) -> usize {
    let (name, timeout) = (case.name(), case.timeout());
    let Attacked { world, honest } = Attacked::by(case.layer, case.act, timeout);
    let before = world.token();
    let (code, said, peak) = once(&world);
    match case.expected {
        Expected::Failure(words) => {
            assert_eq!(code, Some(69), "{name}: {said}");
            let (_, told) = said.split_once("error: account default: ").unwrap();
            let (told, _) = told.split_once("\nhint: ").unwrap();
            assert!(told.contains(words), "{name}: {said}");
            assert!(
                !said.chars().any(|c| c.is_control() && c != '\n') && said.len() < 1500,
                "{name}: {said}"
            );
            assert_eq!(world.token(), before, "{name}");
        }
        Expected::Token(token) => {
            assert_eq!(code, Some(0), "{name}: {said}");
            assert_eq!(world.token(), Secret::new(token), "{name}");
        }
    }
    // The login lives, and what is remembered of the attack holds nothing up.
    world.sandbox.write_config(&honest);
    world.pass_time(Duration::from_secs(3 * 3600));
    world.once_gives(0, ["--force"]);
    world.assert_live();
    audit::assert_one_post_per_epoch(&world.server.audit());
    peak
}

/// The process that was attacked lives on, and must not keep what others wait for.
#[test]
fn run_gives_the_lock_back_after_each_attack() {
    let endless = "HTTP/1.1 200 OK\r\n\r\n{\"access_token\":\"";
    let attacks = [
        (Act::Dribble("HTTP/1.1 200 OK\r\nx: ", b'a'), LATE),
        (Act::Flood(endless, vec![b'a'; 1 << 16]), "longer than 1 MiB"),
        (Act::Reset(JSON_HEAD), CUT),
        (Act::ResetAtOnce, CUT),
    ];
    let count = attacks.len();
    for (act, words) in attacks {
        let name = format!("{act:?}").chars().take(80).collect::<String>();
        let Attacked { world, .. } = Attacked::by(Layer::Http, act, timeout(words));
        let mut run = world.run();
        run.signal(Signal::USR1);
        run.wait_for(words);
        // It takes the lock, and asks no server; with 75 it would have waited for the lock in vain.
        let given = world.sandbox.path("given");
        fs::write(&given, "given").unwrap();
        let mut set = world.sandbox.command(["set", "--access-token", "--expires-in", "1h"]);
        let output = finish(set.stdin(File::open(&given).unwrap()));
        assert_eq!(output.code, Some(0), "{name}: {output:?} {}", run.log());
        assert_eq!(world.token(), Secret::new("given"), "{name}");
        // The token lives. The request without an answer is made again, which may be a warning.
        let (status, code) = world.status();
        assert!(code <= 1 && status["token_file"]["current"] == true, "{name}: {status}");
        assert_eq!(run.ended(), None, "{name}: it was still there");
        assert_eq!(run.stop().code(), Some(0), "{name}: {}", run.log());
        assert_eq!(world.posts(), 1, "{name}");
    }
    figure(format!("hostile servers: {count} attacks on run, 0 locks kept"));
}

#[test]
fn no_server_can_do_harm() {
    // A busy machine may let a short pass end between two looks at it.
    let ordinary = wait_until("the memory of an ordinary pass", || {
        let good = || Case { layer: Layer::Http, act: json(GOOD), expected: Expected::Token("good") };
        let seen = [play(good()), play(good()), play(good())].into_iter().max()?;
        (seen > 0).then_some(seen)
    });
    let cases = cases();
    let count = cases.len();
    let cases = Mutex::new(VecDeque::from(cases));
    let (peak, harmed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(case) = cases.lock().unwrap().pop_front() else { break };
                    // A thread of its own: one that panics does not keep the others from being played.
                    match std::thread::spawn(move || play(case)).join() {
                        Ok(memory) => drop(peak.fetch_max(memory, Ordering::Relaxed)),
                        Err(_) => drop(harmed.fetch_add(1, Ordering::Relaxed)),
                    }
                }
            });
        }
    });
    let harmed = harmed.into_inner();
    assert_eq!(harmed, 0, "of {count} kinds");
    let peak = peak.into_inner();
    figure(format!(
        "hostile servers: {count} kinds, peak memory {peak} KiB, of an ordinary pass {ordinary} KiB"
    ));
    assert!(peak < ordinary + MEMORY_FOR_HOSTILITY, "{peak} KiB, and {ordinary} KiB without hostility");
}
