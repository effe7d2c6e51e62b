//! The log of `run`: for a person, and for a machine.

use rustix::process::Signal;
use serde_json::Value;
use zg_tokend::testing::clock::{Clock, SystemClock};
use zg_tokend::testing::demo::{Fault, Outage};
use zg_tokend::testing::secret::Secret;

use crate::common::pane::Pane;
use crate::common::world::World;
use crate::common::{Background, feed, wait_until};

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
    world.configure_seed(&Secret::new("nobody-knows-this-one"), "");
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
        assert_time(line, ", next at ");
    }
}

/// After another process has mended an account, the error is not the last word.
#[test]
fn the_log_ends_with_the_token_that_another_process_stored() {
    let world = World::new();
    world.configure_seed(&Secret::new("nobody-knows-this-one"), "");
    let mut run = world.run();
    run.wait_for("the server refuses the refresh token");
    let set = feed(&mut world.sandbox.command(["set"]), world.seed().expose());
    assert_eq!(set.code, Some(0), "{set:?}");
    run.wait_for("another process renewed the login and stored token 1, which lives ");
    run.wait_for(&format!("; token file {}", world.token_file().display()));
    run.stop();
    // A new process tells what it found, and where.
    let mut run = world.run();
    run.wait_for("default: token 1 lives ");
    run.stop();
    let log = run.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("token 1 lives")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].ends_with(&format!("; token file {}", world.token_file().display())), "{log}");
}

#[test]
fn on_a_terminal_the_hint_has_its_own_line_and_words_stay_whole() {
    let world = World::new();
    world.configure_seed(&Secret::new("nobody-knows-this-one"), "");
    for columns in [60, 80, 120] {
        let pane = Pane::open(&world.sandbox, (columns, 40), &[], "run");
        pane.wait_for("supervising 1 account");
        let screen = pane.screen();
        assert!(screen.iter().all(|line| line.chars().count() <= columns.into()), "{screen:#?}");
        let indented = |line: &&String| line.starts_with(&" ".repeat(26));
        let hint = screen.iter().position(|line| line.trim_start().starts_with("hint: log in again"));
        assert!(indented(&&screen[hint.unwrap()]), "{screen:#?}");
        let whole = screen.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
        assert!(
            whole
                .contains("may belong to another client, be mistyped, or be used up elsewhere or by a state"),
            "{whole}"
        );
        assert!(pane.colours().contains("\u{1b}["), "an error has a colour");
        pane.key("C-c");
        pane.wait_for("code 0");
    }
}

/// After these words comes a time of day, before which there is a date if it is not today's.
#[track_caller]
fn assert_time(line: &str, words: &str) {
    let (_, rest) = line.split_once(words).unwrap_or_else(|| panic!("{words:?} is in {line}"));
    let time = rest.split(' ').take(2).find(|word| word.contains(':')).unwrap_or_default();
    let time: Result<jiff::civil::Time, _> = time.trim_end_matches(':').parse();
    assert!(time.is_ok(), "{line}");
}

fn run_with(world: &World, variable: (&str, &str)) -> Background {
    let mut command = world.sandbox.command(["run"]);
    Background::start(command.env(variable.0, variable.1), world.sandbox.path("run.log"))
}

#[test]
fn warnings_and_errors_have_a_hint_in_their_line() {
    let world = World::new();
    world.configure("token_file_mode = \"0644\"");
    world.fault(Fault::reply(503, "{}"));
    let mut run = world.run();
    run.wait_for("default: refreshed");
    world.fault(Fault::reply(400, r#"{"error":"invalid_grant"}"#));
    run.signal(Signal::USR1);
    run.wait_for("invalid_grant");
    run.stop();
    let log = run.log();
    let grave: Vec<_> =
        log.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR")).collect();
    assert_eq!(grave.len(), 3, "{log}");
    for line in &grave {
        assert_eq!(line.matches("; hint: ").count(), 1, "{line}");
    }
    assert!(grave[0].contains("; hint: set token_file_mode = "), "{log}");
    assert_time(
        grave[1],
        "HTTP 503; cause: the server is overloaded or in maintenance; hint: wait: it is tried again at ",
    );
}

#[test]
fn rust_log_chooses_the_levels() {
    let world = World::new();
    world.configure("");
    world.fault(Fault::reply(503, "{}"));
    let mut run = run_with(&world, ("RUST_LOG", "warn"));
    wait_until("a token", || world.token_file().exists().then_some(()));
    run.stop();
    let log = run.log();
    assert_eq!((log.lines().count(), log.matches(" WARN ").count()), (1, 1), "{log}");
}

/// Nobody notices a log that is silent by mistake.
#[test]
fn levels_that_say_nothing_are_not_used_and_that_is_said() {
    for (levels, is_used) in [
        ("zg_tokend=loud", false),
        ("verbose", false),
        ("a=b=c", false),
        ("hyper=warn,info", true),
        ("", true),
    ] {
        let world = World::new();
        world.configure("");
        let mut run = run_with(&world, ("RUST_LOG", levels));
        run.wait_for("supervising 1 account");
        run.stop();
        let log = run.log();
        let said = format!(
            " WARN  RUST_LOG={levels} is not a log level and is not used; hint: set it to error, warn, "
        );
        assert_eq!(log.matches(" WARN ").count(), usize::from(!is_used), "{log}");
        assert_eq!(log.contains(&said), !is_used, "{log}");
    }
}
