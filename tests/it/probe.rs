//! Asking a resource now and then whether it takes the token: what 401 does, that it does so once,
//! and that nothing else does anything.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::common::world::{World, read};
use crate::common::{Background, audit, wait_until};

/// The behaviour of a resource.
#[derive(Debug, Clone)]
enum Manner {
    /// It answers with this status, whatever the token.
    Always(&'static str),
    /// It refuses these tokens.
    Refusing(HashSet<String>),
    /// It leads elsewhere.
    Redirecting(String),
    /// It says nothing, and keeps the connection.
    Silent,
}

/// A protected resource (RFC 6750). It ends with the process.
struct Resource {
    url: String,
    manner: Arc<Mutex<Manner>>,
    /// The tokens that it was asked with.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Resource {
    fn new(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // A query may hold a key, and must not be shown.
        let url = format!("http://{}/me?key=SECRET", listener.local_addr().unwrap());
        let resource = Self { url, manner: Arc::new(Mutex::new(manner)), asked: Arc::default() };
        let (manner, asked) = (Arc::clone(&resource.manner), Arc::clone(&resource.asked));
        thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                let manner = manner.lock().unwrap().clone();
                kept.extend(serve(stream.unwrap(), &manner, &asked));
            }
        });
        resource
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits until it has been asked so often.
    #[track_caller]
    fn wait_for(&self, times: usize) {
        wait_until(&format!("{times} probes"), || (self.asked().len() >= times).then_some(()));
    }

    /// The line of a config.
    fn probe(&self) -> String {
        format!("probe = {{ url = \"{}\", every = \"5s\" }}\n", self.url)
    }

    /// As it may be shown.
    fn shown(&self) -> &str {
        self.url.split('?').next().unwrap()
    }
}

fn serve(stream: TcpStream, manner: &Manner, asked: &Mutex<Vec<String>>) -> Option<TcpStream> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    assert!(head.starts_with("GET /me?key=SECRET HTTP/1.1\r\n"), "{head}");
    let token = head.lines().find_map(|line| line.strip_prefix("authorization: Bearer "));
    let token = token.unwrap_or_default().to_owned();
    asked.lock().unwrap().push(token.clone());
    let (status, location) = match manner {
        Manner::Always(status) => (*status, None),
        Manner::Refusing(refused) if refused.contains(&token) => ("401 Unauthorized", None),
        Manner::Refusing(_) => ("200 OK", None),
        Manner::Redirecting(target) => ("307 Temporary Redirect", Some(target)),
        Manner::Silent => return Some(reader.into_inner()),
    };
    let location = location.map(|target| format!("location: {target}\r\n")).unwrap_or_default();
    let reply = format!("HTTP/1.1 {status}\r\n{location}content-length: 0\r\n\r\n");
    let _ = reader.into_inner().write_all(reply.as_bytes());
    None
}

/// `run` that says everything.
fn talkative(world: &World) -> Background {
    let mut command = world.sandbox.command(["run"]);
    let run = Background::start(command.env("RUST_LOG", "trace"), world.sandbox.path("run.log"));
    run.wait_for("supervising");
    run
}

#[track_caller]
fn assert_stops(run: &mut Background) {
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

#[test]
fn a_token_that_is_refused_is_replaced_once() {
    let resource = Resource::new(Manner::Refusing(HashSet::new()));
    let world = World::new();
    world.configure(&resource.probe());
    let mut run = talkative(&world);
    let refused = world.token();
    let revoked = HashSet::from([refused.expose().to_owned()]);
    *resource.manner.lock().unwrap() = Manner::Refusing(revoked);
    wait_until("another token", || (world.token() != refused).then_some(()));
    world.assert_live();
    resource.wait_for(resource.asked().len() + 2);
    assert_eq!(world.posts(), 2, "{}", run.log());
    assert_eq!(resource.asked().last().unwrap(), world.token().expose());
    let (status, code) = wait_until("an accepted token", || {
        Some(world.status()).filter(|(status, _)| status["probe"]["result"] == "accepted")
    });
    assert_eq!((code, &status["probe"]["http_status"]), (0, &json!(200)), "{status:#}");
    assert_eq!(status["probe"]["url"], resource.shown());
    assert_eq!(status["probe"]["answered_at"], status["probe"]["at"]);
    let text = world.sandbox.run(["status"]).stdout;
    assert!(!text.contains("probe"), "all is well: {text}");
    assert_stops(&mut run);
    for secret in resource.asked().iter().map(String::as_str).chain(["SECRET"]) {
        assert!(!run.log().contains(secret), "{}", run.log());
    }
    audit::assert_one_post_per_epoch(&world.server.audit());
}

/// A resource for which no token is good enough costs one refresh, and is named by `status`.
#[test]
fn a_resource_that_refuses_every_token_costs_one_refresh() {
    let resource = Resource::new(Manner::Always("401 Unauthorized"));
    let world = World::new();
    world.configure(&resource.probe());
    let mut run = world.run();
    wait_until("a refresh", || (world.grants() == 2).then_some(()));
    // The floor between such refreshes is over, and not what holds here.
    world.pass_time(Duration::from_secs(70));
    resource.wait_for(resource.asked().len() + 2);
    run.wait_for("refuses the new token as well");
    assert_stops(&mut run);
    assert_eq!(run.log().matches("refuses the new token as well").count(), 1, "said once: {}", run.log());
    // Remembered, across processes.
    let mut run = world.run();
    resource.wait_for(resource.asked().len() + 2);
    assert_eq!(world.posts(), 2, "{}", run.log());
    let (status, code) = world.status();
    assert_eq!((code, &status["severity"], &status["state"]), (1, &json!("warning"), &json!("fresh")));
    assert!(status["problem"].as_str().unwrap().contains(resource.shown()), "{status:#}");
    assert!(status["hint"].as_str().unwrap().contains("probe.url"), "{status:#}");
    assert_eq!(status["probe"]["result"], "refused");
    let text = world.sandbox.run(["status"]).stdout;
    assert!(text.contains("answers HTTP 401"), "{text}");
    assert_stops(&mut run);
}

#[test]
fn no_other_answer_means_anything_and_the_token_follows_no_redirect() {
    let elsewhere = Resource::new(Manner::Always("401 Unauthorized"));
    let manners = [
        ("good", Manner::Always("200 OK"), "accepted"),
        ("forbidden", Manner::Always("403 Forbidden"), "other"),
        ("broken", Manner::Always("500 Internal Server Error"), "other"),
        ("moved", Manner::Redirecting(elsewhere.url.clone()), "other"),
        ("silent", Manner::Silent, "no_answer"),
    ];
    let resources = manners.map(|(name, manner, result)| (name, Resource::new(manner), result));
    let world = World::new();
    let tables = resources.iter().map(|(name, resource, _)| {
        let (seed, path, probe) = (world.seed(), world.token_file_of(name), resource.probe());
        let (seed, path) = (seed.expose(), path.display());
        format!("[accounts.{name}]\nrefresh_token = \"{seed}\"\ntoken_file = \"{path}\"\n{probe}")
    });
    let tables: String = tables.collect();
    world.sandbox.write_config(&format!("{}{tables}", world.client()));
    let mut run = talkative(&world);
    for (name, resource, result) in &resources {
        resource.wait_for(2);
        wait_until(&format!("the note of {name}"), || {
            let output = world.sandbox.run(["status", "--json", "--account", name]);
            let status: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
            (status["accounts"][0]["probe"]["result"] == *result && output.code == Some(0)).then_some(())
        });
    }
    assert_eq!((world.posts(), elsewhere.asked().len()), (resources.len(), 0), "{}", run.log());
    let text = world.sandbox.run(["status", "--account", "silent"]).stdout;
    assert!(text.contains("never answered"), "{text}");
    assert_stops(&mut run);
    let log = run.log();
    assert!(!log.contains(" WARN ") && !log.contains("SECRET"), "{log}");
    for (name, ..) in &resources {
        assert!(!log.contains(read(&world.token_file_of(name)).expose()), "{log}");
    }
}

#[test]
fn a_probe_that_hangs_delays_neither_a_refresh_nor_the_end() {
    let resource = Resource::new(Manner::Silent);
    let world = World::in_memory(6);
    world.configure(&resource.probe());
    let mut run = world.run();
    resource.wait_for(1);
    for _ in 0..2 {
        let before = world.grants();
        wait_until("a refresh", || {
            world.assert_live();
            (world.grants() > before).then_some(())
        });
    }
    assert_eq!(resource.asked().len(), 1, "the first probe still waits");
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
    assert_eq!(resource.asked().len(), 1, "the end did not wait for it");
}

#[test]
fn a_reload_changes_what_is_asked() {
    let (first, second) = (Resource::new(Manner::Always("200 OK")), Resource::new(Manner::Always("200 OK")));
    let world = World::new();
    let seed = world.configure(&first.probe());
    let mut run = world.run();
    first.wait_for(1);
    world.configure_seed(&seed, &second.probe());
    run.signal(Signal::HUP);
    second.wait_for(1);
    let before = first.asked().len();
    second.wait_for(3);
    assert_eq!((first.asked().len(), world.posts()), (before, 1), "{}", run.log());
    assert_stops(&mut run);
}
