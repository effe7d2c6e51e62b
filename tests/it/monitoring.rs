//! Prometheus, really run: the alert rules, the dashboard, and a protected target that it scrapes
//! with a token from the file.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use zg_tokend::testing::secret::{Fingerprint, Secret};

use crate::common::world::World;
use crate::common::{Background, at_full_size, curl, figure, finish, poll_for};
use crate::readme::block;
use crate::status::formats::world_of_all_sorts;

/// The life of a token that is scraped with, in seconds: it is replaced after half of it.
const LIFETIME: u64 = 6;

/// A file in packaging/prometheus.
fn packaged(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus").join(name);
    fs::read_to_string(path).unwrap()
}

fn promtool<'a>(args: impl IntoIterator<Item = &'a str>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus");
    let output = finish(Command::new("promtool").args(args).current_dir(directory));
    assert_eq!(output.code, Some(0), "{output:?}");
}

#[test]
fn promtool_takes_the_rules_and_each_fires_when_it_should() {
    promtool(["check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"]);
    promtool(["test", "rules", "alerts.test.yml"]);
    let tests = packaged("alerts.test.yml");
    let fires = |alert: &str| {
        tests
            .split("- eval_time:")
            .skip(1)
            .any(|test| test.contains(&format!("alertname: {alert}\n")) && test.contains("exp_alerts:"))
    };
    let rules = packaged("alerts.yml");
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 5 && alerts.iter().all(|alert| fires(alert)), "{alerts:?}");
}

/// The queries of the dashboard.
fn queries(dashboard: &Value) -> Vec<&str> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap()).collect()
}

#[test]
fn prometheus_understands_the_queries_of_the_dashboard() {
    let dashboard: Value = serde_json::from_str(&packaged("dashboard.json")).unwrap();
    let rules: Vec<_> = queries(&dashboard)
        .iter()
        .enumerate()
        .map(|(number, query)| serde_json::json!({ "record": format!("query:{number}"), "expr": query }))
        .collect();
    assert!(rules.len() > 5);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("queries.yml");
    // JSON is YAML.
    let groups = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    fs::write(&file, groups.to_string()).unwrap();
    promtool(["check", "rules", file.to_str().unwrap()]);
}

/// The metrics of zg-tokend that a text names.
fn metrics(text: &str) -> BTreeSet<&str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.split(|letter| !is_part(letter)).filter(|word| word.starts_with("zg_tokend_")).collect()
}

/// The values that a text compares the label `state` with.
fn states(text: &str) -> BTreeSet<&str> {
    let values = text.split("state=").skip(1);
    let values = values.map(|rest| rest.trim_start_matches(['~', '\\', '"']));
    values.flat_map(|rest| rest.split(['"', '\\']).next().unwrap().split('|')).collect()
}

#[test]
fn rules_and_dashboard_use_what_status_prints() {
    let world = world_of_all_sorts();
    let printed = world.sandbox.run(["status", "--format", "prometheus"]).stdout;
    for name in ["alerts.yml", "alerts.test.yml", "dashboard.json"] {
        let text = packaged(name);
        let (named, offered) = (metrics(&text), metrics(&printed));
        assert!(!named.is_empty() && named.is_subset(&offered), "{name}: {named:?} of {offered:?}");
        let (named, offered) = (states(&text), states(&printed));
        assert!(!named.is_empty() && named.is_subset(&offered), "{name}: {named:?} of {offered:?}");
    }
}

/// One request as the target saw it: the token, and what it answered.
struct Scrape {
    token: Option<Fingerprint>,
    status: u16,
}

/// A target that gives its metrics to whoever brings a live token.
struct Target {
    address: String,
    record: Arc<Mutex<Vec<Scrape>>>,
}

impl Target {
    fn start(world: &Arc<World>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let record = Arc::new(Mutex::new(Vec::new()));
        let (world, seen) = (Arc::clone(world), Arc::clone(&record));
        // It ends with the tests' process.
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                seen.lock().unwrap().extend(answer(connection.unwrap(), &world));
            }
        });
        Self { address, record }
    }

    /// Tokens seen and accepted, requests, and how many of them were refused.
    fn figures(&self) -> (usize, usize, usize) {
        let record = self.record.lock().unwrap();
        let accepted = record.iter().filter(|scrape| scrape.status == 200);
        let tokens: BTreeSet<_> = accepted.map(|scrape| scrape.token).collect();
        (tokens.len(), record.len(), record.iter().filter(|scrape| scrape.status == 401).count())
    }
}

/// Answers one request and closes; `None` if Prometheus gave up before it had sent all of it.
fn answer(mut connection: TcpStream, world: &World) -> Option<Scrape> {
    let mut token = None;
    let mut lines = BufReader::new(&connection).lines();
    loop {
        let line = lines.next()?.ok()?;
        if line.is_empty() {
            break;
        }
        let value = line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        token = value.and_then(|(_, value)| value.strip_prefix("Bearer ")).map(Secret::new).or(token);
    }
    let live = token.as_ref().is_some_and(|token| world.server.is_live(token));
    let (status, body) = if live { (200, "target_up 1\n") } else { (401, "") };
    let head = format!("HTTP/1.1 {status} -\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close");
    let length = body.len();
    // Prometheus may have given up by now; the answer counts all the same.
    _ = write!(connection, "{head}\r\nContent-Length: {length}\r\n\r\n{body}");
    Some(Scrape { token: token.map(|token| token.fingerprint()), status })
}

/// Prometheus as the README configures it, but ten times a second and on a port of its own, which
/// the URL tells.
fn prometheus(world: &World, target: &Target) -> (Background, String) {
    let scrape = block("scrape_configs:")
        .replace("/home/alice/.config/zerogravity/token", world.token_file().to_str().unwrap())
        .replace("localhost:8080", &target.address);
    let config = format!("global: {{ scrape_interval: 100ms, scrape_timeout: 100ms }}\n{scrape}");
    let directory = world.sandbox.path("prometheus");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("prometheus.yml"), config).unwrap();
    let mut command = Command::new("prometheus");
    command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
    command.args(["--web.listen-address=127.0.0.1:0", "--log.format=json"]).current_dir(&directory);
    let prometheus = Background::start(&mut command, directory.join("log"));
    prometheus.wait_for("\"Listening on\"");
    let log = prometheus.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let address = lines
        .filter(|line| line["msg"] == "Listening on")
        .find_map(|line| line["address"].as_str().map(str::to_owned));
    (prometheus, format!("http://{}", address.unwrap()))
}

#[test]
fn prometheus_scrapes_a_protected_target_through_rotations_without_a_refusal() {
    let rotations = if at_full_size() { 50 } else { 10 };
    let world = Arc::new(World::in_memory(LIFETIME));
    world.configure("");
    let _run = world.run();
    let target = Target::start(&world);
    let (_prometheus, url) = prometheus(&world, &target);
    // Far longer than so many rotations take.
    let patience = Duration::from_secs(rotations * LIFETIME * 4);
    let seen = || (target.figures().0 as u64 > rotations).then_some(());
    assert!(poll_for(patience, seen).is_some(), "{:?}", target.figures());
    let (tokens, scrapes, refused) = target.figures();
    figure(format!("Prometheus: {scrapes} scrapes with {tokens} tokens, {refused} of them refused"));
    assert_eq!(refused, 0, "of {scrapes}");
    // Prometheus has stored the samples.
    let query = format!("{url}/api/v1/query?query=count_over_time(target_up[1h])");
    let reply = curl(["-g", &query]);
    let samples = reply.body["data"]["result"][0]["value"][1].as_str().and_then(|count| count.parse().ok());
    assert!(samples.is_some_and(|samples: u64| samples > rotations), "{reply:?}");
}
