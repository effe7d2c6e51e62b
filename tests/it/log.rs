//! The log of `run`: for a person, and for a machine.

use serde_json::Value;
use zg_tokend::clock::{Clock, SystemClock};
use zg_tokend::demo::faults::Outage;

use crate::common::world::World;
use crate::common::{Background, wait_until};

fn entries(run: &Background) -> Vec<Value> {
    let log = run.log();
    // The last line may still be on its way.
    let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?} is JSON"))).collect()
}

#[test]
fn each_entry_can_be_a_json_object() {
    let world = World::new();
    world.configure("");
    let mut command = world.sandbox.command(["run", "--log-format", "json"]);
    let mut run = Background::start(&mut command, world.sandbox.path("run.log"));
    run.wait_for("\"event\":\"ready\"");
    run.stop();
    let entries = entries(&run);
    let refreshed = entries.iter().find(|entry| entry["event"] == "refreshed").unwrap();
    assert_eq!((refreshed["account"].as_str(), refreshed["level"].as_str()), (Some("default"), Some("info")));
    assert_eq!(refreshed["generation"], 1);
    assert!(
        refreshed["message"].as_str().unwrap().starts_with("refreshed: token 1 lives 1 h"),
        "{refreshed}"
    );
    let time: jiff::Timestamp = refreshed["time"].as_str().unwrap().parse().unwrap();
    let now = SystemClock::new().now().wall / 1000;
    assert!((now - time.as_second()).abs() < 3600, "{refreshed}");
    let ready = entries.iter().find(|entry| entry["event"] == "ready").unwrap();
    assert!(ready.get("account").is_none() && ready.get("hint").is_none(), "{ready}");
}

#[test]
fn a_hint_is_a_field_of_its_own() {
    let world = World::new();
    world.configure_seed(&zg_tokend::secret::Secret::new("nobody-knows-this-one"), "");
    let mut command = world.sandbox.command(["run", "--log-format", "json"]);
    let mut run = Background::start(&mut command, world.sandbox.path("run.log"));
    run.wait_for("needs_login");
    run.stop();
    let entries = entries(&run);
    let dead = entries.iter().find(|entry| entry["event"] == "needs_login").unwrap();
    assert_eq!(dead["level"], "error");
    assert!(dead["hint"].as_str().unwrap().starts_with("log in again"), "{dead}");
    assert!(!dead["message"].as_str().unwrap().contains("hint"), "{dead}");
}

/// An outage is one warning, then ever rarer lines that say when the next attempt comes.
#[test]
fn an_outage_is_not_a_thousand_warnings() {
    let world = World::new();
    world.configure("");
    world.outage(Some(Outage::Closed));
    let mut run = world.start_run();
    wait_until("four attempts", || run.log().contains("after 4 attempts").then_some(()));
    world.outage(None);
    wait_until("a token", || world.token_file().exists().then_some(()));
    run.wait_for("failures)");
    run.stop();
    let log = run.log();
    assert_eq!(log.matches(" WARN ").count(), 1, "{log}");
    let repeated: Vec<&str> = log.lines().filter(|line| line.contains("still failing after")).collect();
    assert!(!log.contains("after 3 attempts"), "{log}");
    for line in repeated {
        let (_, rest) = line.split_once(", next at ").unwrap();
        let time: jiff::civil::Time = rest[..8].parse().unwrap();
        assert_ne!(time, jiff::civil::Time::MAX);
    }
}
