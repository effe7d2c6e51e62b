//! The first hour of a newcomer, from the demo to a second account, as people read it. The golden text
//! is the transcript.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;
use zg_tokend::testing::demo::Fault;

use super::words::{login, page, plain};
use crate::common::golden::compare;
use crate::common::world::World;
use crate::common::{Background, finish};
use crate::messages::without_times;

/// A command to its end.
fn tell(world: &World, line: &str) -> String {
    let output = world.sandbox.run(line.replace("SERVER", world.server.url()).split(' '));
    let shown = masked(&format!("{}{}", output.stdout, output.stderr));
    page(world, line, output.code.unwrap(), &shown)
}

/// PID for the number of each process, and TIME for a time without its date.
fn masked(text: &str) -> String {
    let is_time = |word: &str| word.len() == 8 && word.split(':').all(|part| part.parse::<u8>().is_ok());
    let word = |word: &str| {
        let time = word.trim_end_matches(';');
        if is_time(time) { word.replace(time, "TIME") } else { word.to_owned() }
    };
    // A date before a time is masked with it.
    let line = |line: &str| without_times(line).split(' ').map(word).collect::<Vec<_>>().join(" ");
    without_processes(&text.lines().map(line).collect::<Vec<_>>().join("\n"))
}

fn without_processes(text: &str) -> String {
    let mut parts = text.split("process ");
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| match part.trim_start_matches(|c: char| c.is_ascii_digit()) {
        rest if rest.len() < part.len() => format!("process PID{rest}"),
        rest => format!("process {rest}"),
    });
    std::iter::once(first).chain(rest).collect()
}

/// The end of the demo: what comes before it depends on the speed of the machine.
fn demo(world: &World) -> String {
    let output = finish(&mut world.sandbox.command(["demo", "--for", "1s"]));
    let (_, end) = output.stdout.split_once("The same for your own token:").unwrap();
    page(world, "demo", output.code.unwrap(), &format!("The same for your own token:{end}"))
}

/// All that `run` has logged, and its end.
fn log(world: &World, mut run: Background) -> String {
    run.signal(Signal::TERM);
    let code = run.wait().code().unwrap();
    page(world, "run", code, &masked(&run.log()))
}

/// As if the failure of an account had been told a day ago.
fn a_day_later(world: &World, account: &str) {
    let note = world.state_path(account, "last-pass");
    let mut last: Value = serde_json::from_slice(&fs::read(&note).unwrap()).unwrap();
    last["failure"]["told_at"] = (last["failure"]["told_at"].as_i64().unwrap() - 86_400_000).into();
    fs::write(&note, last.to_string()).unwrap();
}

#[test]
fn the_first_hour_of_a_newcomer() {
    let world = World::new();
    let mut story = demo(&world);
    // A config, and what it needs.
    story += &tell(&world, "once");
    story += &tell(&world, "init --issuer SERVER --client-id demo");
    story += &tell(&world, "once");
    story += &login(&world, "", plain);
    story += &tell(&world, "once");
    story += &tell(&world, "status");
    // The login dies under `run`, and comes back.
    let mut run = world.run();
    run.wait_for("token file ");
    world.fault(Fault::reply(400, r#"{"error":"invalid_grant","error_description":"revoked"}"#));
    run.signal(Signal::USR1);
    run.wait_for("invalid_grant");
    story += &tell(&world, "status");
    story += &tell(&world, "once --quiet");
    story += &tell(&world, "once --quiet");
    story += &login(&world, "", plain);
    run.wait_for("another process renewed the login and stored token");
    story += &tell(&world, "status");
    story += &log(&world, run);
    // A second account. The first keeps its login.
    let add = "init --account mail --issuer SERVER --client-id demo --token-file mail.token";
    story += &tell(&world, add);
    story += &tell(&world, &format!("{add} --yes"));
    story += &tell(&world, "once");
    story += &login(&world, "--account mail", plain);
    story += &tell(&world, "status");
    story += &tell(&world, "once --force");
    // One of two dies: the way out names it.
    world.fault(Fault::reply(400, r#"{"error":"invalid_grant"}"#));
    story += &tell(&world, "once --force --account mail");
    // Cron tells it once, and once more after a day.
    story += &tell(&world, "once --quiet --account mail");
    a_day_later(&world, "mail");
    story += &tell(&world, "once --quiet --account mail");
    story += &tell(&world, "check --account mail");
    story += &tell(&world, "token");
    story += &tell(&world, "logout --account default");
    compare("hour", &story);
}
