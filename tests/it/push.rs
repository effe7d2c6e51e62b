//! Sending each new token to those who share no file.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use zg_tokend::testing::clock::monotonic;
use zg_tokend::testing::demo::Outage;

use crate::common::world::World;
use crate::common::{closed_port, finish, wait_until};

/// A request to a target.
#[derive(Debug, Clone)]
struct Received {
    head: String,
    body: String,
    /// By the monotonic clock, in milliseconds.
    at: i64,
}

/// A server like ZeroGravity's: `POST /v1/token`, and an API key if it has one.
struct Target {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
    /// The statuses of the next replies; then 200.
    replies: Arc<Mutex<Vec<&'static str>>>,
}

impl Target {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/token", listener.local_addr().unwrap());
        let target = Self { url, received: Arc::default(), replies: Arc::default() };
        let (received, replies) = (Arc::clone(&target.received), Arc::clone(&target.replies));
        // It ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let status = replies.lock().unwrap().pop().unwrap_or("200 OK");
                let _ = serve(stream.unwrap(), status, &received);
            }
        });
        target
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    fn tokens(&self) -> Vec<String> {
        let token = |received: Received| -> String {
            let json: Value = serde_json::from_str(&received.body).unwrap();
            json["token"].as_str().unwrap().to_owned()
        };
        self.received().into_iter().map(token).collect()
    }
}

/// The request is in the list before the answer: a command that ends with it is looked at at once.
fn serve(stream: TcpStream, status: &str, list: &Mutex<Vec<Received>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    head.make_ascii_lowercase();
    // A request that follows a redirect has no body.
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(Ok(0), str::parse).ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    // A redirect would come back to the same place.
    let reply = format!("HTTP/1.1 {status}\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n");
    list.lock().unwrap().push(Received { head, body: String::from_utf8(body).unwrap(), at: monotonic() });
    reader.into_inner().write_all(reply.as_bytes()).ok()
}

#[test]
fn each_target_gets_each_token_as_zerogravity_takes_it() {
    let (plain, other) = (Target::new(), Target::new());
    let world = World::with_lifetime(2);
    world.configure(&format!(
        "[[push]]\nurl = \"{}\"\napi_key = \"the-key\"\n[[push]]\nurl = \"{}\"\n\
         body = '{{{{\"access_token\": \"{{access_token}}\", \"expires_at\": {{expires_at}}}}}}'\n\
         headers = {{ x-api-key = \"other-key\" }}\n",
        plain.url, other.url
    ));
    let mut run = world.run();
    wait_until("three tokens", || (plain.received().len() >= 3 && other.received().len() >= 3).then_some(()));
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
    let first = &plain.received()[0];
    assert!(first.head.starts_with("post /v1/token http/1.1\r\n"), "{first:?}");
    assert!(first.head.contains("authorization: bearer the-key\r\n"), "{first:?}");
    assert!(first.head.contains("content-type: application/json\r\n"), "{first:?}");
    let tokens = plain.tokens();
    assert!(tokens.windows(2).all(|pair| pair[0] != pair[1]), "{tokens:?}");
    let sent: Value = serde_json::from_str(&other.received()[0].body).unwrap();
    // On a busy machine one of the two may have missed a token that did not live for long.
    assert!(tokens.iter().any(|token| sent["access_token"] == **token), "{sent} {tokens:?}");
    assert!(sent["expires_at"].is_i64(), "{sent}");
    assert!(other.received()[0].head.contains("x-api-key: other-key\r\n"));
    let log = run.log();
    assert!(log.contains("sent the token to http://127.0.0.1"), "{log}");
    for secret in ["the-key", "other-key", &*tokens[0]] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn a_target_that_fails_is_tried_again_and_fails_nothing_else() {
    let (bad, good) = (Target::new(), Target::new());
    // Until `status` has been asked.
    *bad.replies.lock().unwrap() = ["503 Service Unavailable", "302 Found"].repeat(10);
    let world = World::new();
    world
        .configure(&format!("push = [{{ url = \"{}\" }}, {{ url = \"{}?key=SECRET\" }}]", bad.url, good.url));
    let mut run = world.run();
    assert_eq!(world.token().expose(), good_token(&good));
    run.wait_for("cannot send the token");
    // Both come in at the same moment, and neither may be lost.
    let (status, code) = wait_until("both notes", || {
        Some(world.status()).filter(|(status, _)| {
            status["push"][1]["current"] == true && status["push"][0]["problem"].is_string()
        })
    });
    assert_eq!((code, &status["severity"], &status["state"]), (1, &json!("warning"), &json!("fresh")));
    assert!(status["problem"].as_str().unwrap().contains(&bad.url), "{status:#}");
    assert_eq!(status["push"][1]["url"], good.url.as_str(), "a query is not shown");
    assert_eq!(status["push"][0]["current"], false);
    wait_until("another try", || (bad.received().len() >= 2).then_some(()));
    bad.replies.lock().unwrap().clear();
    wait_until("all well", || (world.status().1 == 0).then_some(()));
    assert!(bad.received().iter().all(|request| request.head.starts_with("post /v1/token ")));
    assert_eq!((world.posts(), good.received().len()), (1, 1));
    let log = run.log();
    assert_eq!(log.matches("cannot send the token").count(), 1, "said once: {log}");
    assert!(!log.contains("SECRET"), "{log}");
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{log}");
}

fn good_token(target: &Target) -> String {
    wait_until("a token", || target.tokens().pop())
}

#[test]
fn a_target_that_is_down_or_hangs_delays_no_refresh() {
    // Its queue takes the connection, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_kept, down) = closed_port();
    let world = World::in_memory(10);
    world.configure(&format!(
        "push = [{{ url = \"http://{}\" }}, {{ url = \"http://{down}\" }}]",
        silent.local_addr().unwrap()
    ));
    let mut run = world.run();
    for _ in 0..2 {
        let before = world.grants();
        wait_until("a refresh", || {
            world.assert_live();
            (world.grants() > before).then_some(())
        });
    }
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

#[test]
fn a_token_that_was_brought_is_sent_too() {
    let target = Target::new();
    let world = World::new();
    world.configure_inputs(&format!("push = [{{ url = \"{}\" }}]", target.url));
    let mut run = world.run();
    assert_eq!(bring(&world, "br\"ought"), 200);
    assert_eq!(good_token(&target), "br\"ought");
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

/// `POST /v1/token` with a token that comes from elsewhere; the status.
fn bring(world: &World, token: &str) -> u16 {
    let socket = world.sandbox.path("runtime/zg-tokend/control.sock");
    let body = json!({ "token": token }).to_string();
    let args = ["-H", "content-type: application/json", "-d", &body, "http://localhost/v1/token"];
    crate::common::curl([&["--unix-socket", socket.to_str().unwrap()], &args[..]].concat()).status
}

#[test]
fn an_older_token_is_never_sent_after_a_newer_one() {
    let target = Target::new();
    *target.replies.lock().unwrap() = vec!["503 Service Unavailable"; 2];
    let world = World::new();
    world.configure_inputs(&format!("push = [{{ url = \"{}\" }}]", target.url));
    let mut run = world.run();
    assert_eq!(bring(&world, "older"), 200);
    wait_until("a try that fails", || (!target.received().is_empty()).then_some(()));
    assert_eq!(bring(&world, "newer"), 200);
    // The older one would be tried again within this time.
    wait_until("both tokens", || (target.tokens().last()? == "newer").then_some(()));
    let since = monotonic();
    wait_until("the older one's next try", || (monotonic() - since > 5000).then_some(()));
    let tokens = target.tokens();
    let newer = tokens.iter().position(|token| token == "newer").unwrap();
    assert!(tokens[newer..].iter().all(|token| token == "newer"), "{tokens:?}");
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

/// No longer than the tries of one token take: 1, 2 and 4 s lie between them, at least.
#[test]
fn a_target_that_goes_on_failing_is_left_alone_for_longer_each_time() {
    let target = Target::new();
    *target.replies.lock().unwrap() = vec!["500 Internal Server Error"; 9];
    let world = World::new();
    world.configure(&format!("push = [{{ url = \"{}\" }}]", target.url));
    let mut run = world.run();
    let tries = wait_until("four tries", || Some(target.received()).filter(|tries| tries.len() >= 4));
    let waits: Vec<_> = tries.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(
        waits.iter().zip([1000, 2000, 4000]).all(|(wait, least)| *wait >= least),
        "milliseconds between tries: {waits:?}"
    );
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

#[test]
fn a_target_that_hangs_is_given_up_and_named() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let world = World::new();
    world.configure(&format!("push = [{{ url = \"http://{}\" }}]", silent.local_addr().unwrap()));
    let mut run = world.run();
    let (status, code) = wait_until("the end of its time", || {
        Some(world.status()).filter(|(status, _)| status["push"][0]["problem"].is_string())
    });
    assert_eq!((code, &status["severity"]), (1, &json!("warning")), "{status:#}");
    assert!(status["push"][0]["problem"].as_str().unwrap().contains("time"), "{status:#}");
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

#[test]
fn a_dead_token_is_not_sent() {
    let target = Target::new();
    let world = World::with_lifetime(2);
    world.configure("");
    world.once_gives(0, []);
    let dead = world.token();
    wait_until("its end", || (!world.server.is_live(&dead)).then_some(()));
    world.outage(Some(Outage::Unavailable));
    world.configure_inputs(&format!("push = [{{ url = \"{}\" }}]", target.url));
    let mut run = world.run();
    world.outage(None);
    let first = wait_until("a token", || target.tokens().first().cloned());
    assert_ne!(first, dead.expose());
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

/// Those who ask the target shall have what those have who read the file.
#[test]
fn a_token_that_another_process_brings_is_sent_as_well() {
    let target = Target::new();
    let world = World::new();
    world.configure(&format!("push = [{{ url = \"{}\" }}]", target.url));
    let mut run = world.run();
    let is_there = || (target.tokens().last()? == world.token().expose()).then_some(());
    wait_until("the first token", is_there);
    let refused = world.token().fingerprint().to_string();
    let output = world.sandbox.run(["rejected", "--sha256", &refused]);
    assert_eq!(output.code, Some(0), "{output:?}");
    wait_until("the one in place of the refused one", is_there);
    world.once_gives(0, ["--force"]);
    wait_until("the forced one", is_there);
    assert_eq!((target.tokens().len(), world.posts()), (3, 3), "{:?}", target.tokens());
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

/// Readers of the file and of the target shall not differ.
#[test]
fn a_token_that_cannot_be_published_is_not_sent() {
    let target = Target::new();
    let world = World::new();
    world.configure_inputs(&format!("push = [{{ url = \"{}\" }}]", target.url));
    let mut run = world.run();
    std::fs::create_dir_all(world.token_file().join("in the way")).unwrap();
    bring(&world, "unpublished");
    run.wait_for("is a directory");
    // Before there is a place for either: `run` tries again by itself.
    bring(&world, "published");
    std::fs::remove_dir_all(world.token_file()).unwrap();
    wait_until("the token file", || world.token_file().is_file().then_some(()));
    assert_eq!(world.token().expose(), "published");
    assert_eq!(good_token(&target), "published");
    assert_eq!(target.tokens(), ["published"]);
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

/// Passes that bring no other token send nothing.
#[test]
fn a_token_is_sent_once() {
    let target = Target::new();
    let world = World::new();
    world.configure(&format!("push = [{{ url = \"{}\" }}]", target.url));
    let mut run = world.run();
    let first = good_token(&target);
    world.outage(Some(Outage::Unavailable));
    run.signal(Signal::USR1);
    run.wait_for("answers HTTP 503");
    assert_eq!(bring(&world, "second"), 200);
    wait_until("another token", || target.tokens().pop().filter(|token| *token != first));
    assert_eq!(target.tokens(), [&*first, "second"]);
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

#[test]
fn commands_that_end_push_as_well_unless_run_does() {
    let target = Target::new();
    let world = World::new();
    let push = format!(
        "[[push]]\nurl = \"{}\"\nmethod = \"PUT\"\ncontent_type = \"text/plain\"\nbody = \"{{access_token}}\"\n\
         headers = {{ x-key = {{ env = \"ZG_KEY\" }} }}",
        target.url
    );
    world.configure(&push);
    let run = |args: &[&str]| {
        let output = finish(world.sandbox.command(args.iter().copied()).env("ZG_KEY", "the-key"));
        assert_eq!(output.code, Some(0), "{output:?}");
    };
    run(&["once"]);
    let first = target.received();
    assert_eq!((first.len(), &*first[0].body), (1, world.token().expose()));
    assert!(
        first[0].head.starts_with("put /v1/token ") && first[0].head.contains("x-key: the-key\r\n"),
        "{first:?}"
    );
    assert!(first[0].head.contains("content-type: text/plain\r\n"), "{first:?}");
    run(&["once"]);
    assert_eq!(target.received().len(), 1, "it has this token");
    world.pass_time(Duration::from_secs(3600));
    run(&["token"]);
    assert_eq!(target.received().len(), 2);
    let sha256 = world.token().fingerprint().to_string();
    run(&["rejected", "--sha256", &sha256]);
    assert_eq!(target.received().len(), 3);
    // A target that fails is told, and tried by the next command.
    *target.replies.lock().unwrap() = vec!["503 Service Unavailable"];
    world.permit_force();
    let output = finish(world.sandbox.command(["once", "--force"]).env("ZG_KEY", "the-key"));
    assert!(output.code == Some(0) && output.stderr.contains("cannot send the token"), "{output:?}");
    run(&["once"]);
    assert_eq!(target.received().last().unwrap().body, world.token().expose());
}

#[test]
fn a_wave_of_pushes_is_no_crowd_for_the_target() {
    const ACCOUNTS: usize = 60;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    // Exchanges under way, and the most of them so far.
    let crowd = Arc::new(Mutex::new((0_usize, 0_usize)));
    let received: Arc<Mutex<Vec<Received>>> = Arc::default();
    let (counted, received_here) = (Arc::clone(&crowd), Arc::clone(&received));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (crowd, received) = (Arc::clone(&counted), Arc::clone(&received_here));
            thread::spawn(move || {
                let stream = stream.unwrap();
                {
                    let mut crowd = crowd.lock().unwrap();
                    crowd.0 += 1;
                    crowd.1 = crowd.1.max(crowd.0);
                }
                // Long enough for others to come meanwhile, if they may.
                thread::sleep(Duration::from_millis(200));
                crowd.lock().unwrap().0 -= 1;
                serve(stream, "200 OK", &received);
            });
        }
    });
    let world = World::new();
    let names: Vec<String> = (0..ACCOUNTS).map(|number| format!("a{number}")).collect();
    let seeds: Vec<_> = names.iter().map(|name| (name.as_str(), world.seed())).collect();
    let accounts: Vec<_> = seeds.iter().map(|(name, seed)| (*name, seed)).collect();
    world.configure_accounts(&accounts);
    let config = std::fs::read_to_string(world.sandbox.config_path()).unwrap();
    let target = format!("push = [{{ url = \"{url}\" }}]\nrefresh_token");
    world.sandbox.write_config(&config.replace("refresh_token", &target));
    let mut run = world.start_run();
    wait_until("every token", || (received.lock().unwrap().len() == ACCOUNTS).then_some(()));
    let most = crowd.lock().unwrap().1;
    assert!(most <= 16, "{most} exchanges at the same time");
    assert_eq!(run.stop().code(), Some(0), "{}", run.log());
}
