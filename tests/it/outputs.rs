//! `outputs`: more files for the access token, each in its own format.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use zg_tokend::testing::secret::Fingerprint;

use crate::common::world::World;
use crate::common::{feed, wait_until};

/// The path of an output, whose directory exists.
fn output(world: &World, name: &str) -> PathBuf {
    world.sandbox.path("home").join(name)
}

fn configure(world: &World, outputs: &[(&PathBuf, &str)], extra: &str) {
    let tables =
        outputs.iter().map(|(path, more)| format!("[[outputs]]\npath = \"{}\"\n{more}\n", path.display()));
    world.configure(&format!("{extra}\n{}", tables.collect::<String>()));
}

#[test]
fn each_output_has_its_format_and_its_mode() {
    let world = World::new();
    let (netrc, json, bare) = (output(&world, ".netrc"), output(&world, "json"), output(&world, "bare"));
    let outputs = [
        (&netrc, "format = \"netrc:a.example\""),
        (&json, "format = \"oauth2-json\"\nmode = \"0640\""),
        (&bare, ""),
    ];
    configure(&world, &outputs, "scope = \"api\"");
    for force in [&[][..], &["--force"]] {
        world.once_gives(0, force.iter().copied());
        let token = world.token();
        let line = format!("machine a.example login oauth2 password {}\n", token.expose());
        assert_eq!(fs::read_to_string(&netrc).unwrap(), line);
        assert_eq!(fs::read_to_string(&bare).unwrap(), token.expose());
        let json: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
        assert_eq!(json["access_token"], token.expose());
        let (status, code) = world.status();
        assert_eq!(code, 0, "{status:#}");
        let expires_at: jiff::Timestamp = json["expiry"].as_str().unwrap().parse().unwrap();
        assert_eq!(status["expires_at"], expires_at.as_second());
        assert!(
            status["outputs"].as_array().unwrap().iter().all(|output| output["current"] == true),
            "{status:#}"
        );
    }
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&netrc), mode(&json)), (0o600, 0o640));
    assert_eq!(world.posts(), 2);
}

#[test]
fn an_output_that_fails_stops_nothing_and_is_named() {
    let world = World::new();
    let (bad, good) = (output(&world, "bad"), output(&world, "good"));
    fs::create_dir(&bad).unwrap();
    configure(&world, &[(&bad, ""), (&good, "")], "on_refresh = [\"sh\", \"-c\", \"echo x >>$HOME/hooks\"]");
    for _ in 0..2 {
        let output = world.once_gives(0, []);
        assert!(output.stderr.contains("/bad; ") && output.stderr.contains("is a directory"), "{output:?}");
        world.assert_live();
        assert!(world.reads_live(&good));
    }
    let hooks = fs::read_to_string(world.sandbox.path("home").join("hooks")).unwrap();
    assert_eq!(hooks, "x\n", "a second failure is no refresh");
    let (status, code) = world.status();
    assert_eq!(code, 1, "{status:#}");
    assert!(status["problem"].as_str().unwrap().contains("/bad"), "{status:#}");
    let check = world.sandbox.run(["check"]);
    assert!(check.code == Some(78) && check.stdout.contains("problem  default: outputs: "), "{check:?}");
    fs::remove_dir(&bad).unwrap();
    world.once_gives(0, []);
    assert!(world.reads_live(&bad));
    assert_eq!((world.posts(), world.status().1), (1, 0));
}

#[test]
fn run_tries_again_and_reports_once() {
    let world = World::new();
    let bad = output(&world, "bad");
    fs::create_dir(&bad).unwrap();
    configure(&world, &[(&bad, "")], "");
    let mut run = world.run();
    run.wait_for("is a directory");
    // The first tries come within seconds.
    std::thread::sleep(Duration::from_secs(4));
    fs::remove_dir(&bad).unwrap();
    wait_until("the output", || bad.is_file().then(|| world.reads_live(&bad)));
    let log = run.log();
    assert_eq!(log.matches("is a directory").count(), 1, "{log}");
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{log}");
    assert_eq!(world.posts(), 1);
}

#[test]
fn an_output_that_was_changed_or_removed_is_written_again() {
    let world = World::new();
    let path = output(&world, "header");
    configure(&world, &[(&path, "format = \"header\"")], "");
    world.once_gives(0, []);
    let content = fs::read_to_string(&path).unwrap();
    let token_file = fs::metadata(world.token_file()).unwrap().modified().unwrap();
    fs::write(&path, "else").unwrap();
    assert_eq!(world.status().1, 1);
    let done = world.once_gives(0, []);
    assert!(done.stdout.contains("the live token"), "{done:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), content);
    fs::remove_file(&path).unwrap();
    world.once_gives(0, []);
    assert_eq!(fs::read_to_string(&path).unwrap(), content);
    assert_eq!(fs::metadata(world.token_file()).unwrap().modified().unwrap(), token_file, "it was right");
    assert_eq!(world.posts(), 1);
}

#[test]
fn outputs_go_with_the_token_that_expires() {
    let world = World::in_memory(6);
    let path = output(&world, "other");
    configure(&world, &[(&path, "")], "on_expired = \"remove\"");
    world.once_gives(0, []);
    assert!(path.exists());
    world.outage(Some(zg_tokend::testing::demo::Outage::Unavailable));
    wait_until("the end of the token", || {
        world.once([]);
        (!path.exists() && !world.token_file().exists()).then_some(())
    });
}

#[test]
fn the_seconds_left_are_right_and_need_no_second_write() {
    let world = World::new();
    let path = output(&world, "left");
    configure(&world, &[(&path, "format = \"{access_token} {expires_at|in}\"")], "");
    world.once_gives(0, []);
    let content = fs::read_to_string(&path).unwrap();
    let left: u64 = content.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&left), "{content}");
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    let output = world.once_gives(0, []);
    assert!(output.stdout.contains("fresh"), "{output:?}");
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
    assert_eq!(world.status().1, 0);
}

#[test]
fn hooks_and_the_info_file_know_the_outputs() {
    let world = World::new();
    let (one, two) = (output(&world, "one"), output(&world, "two"));
    let extra = "token_file_info = true\non_refresh = [\"sh\", \"-c\", \"printf %s \\\"$ZG_TOKEND_OUTPUTS\\\" >$HOME/known\"]";
    configure(&world, &[(&one, ""), (&two, "format = \"header\"")], extra);
    world.once_gives(0, []);
    let known = fs::read_to_string(world.sandbox.path("home").join("known")).unwrap();
    assert_eq!(known, format!("{}\n{}", one.display(), two.display()));
    let info = fs::read(world.token_file().with_file_name("token.json")).unwrap();
    let info: Value = serde_json::from_slice(&info).unwrap();
    for (index, path) in [&one, &two].into_iter().enumerate() {
        assert_eq!(info["outputs"][index]["path"], path.display().to_string());
        let content = fs::read(path).unwrap();
        assert_eq!(info["outputs"][index]["sha256"], Fingerprint::of([&content]).to_string());
    }
    let content = fs::read(&two).unwrap();
    let sha256 = Fingerprint::of([&content]).to_string();
    let done = world.sandbox.run(["rejected", "--sha256", &sha256]);
    assert!(done.stdout.contains("was replaced"), "{done:?}");
}

#[test]
fn no_path_is_written_twice() {
    let world = World::new();
    let same = output(&world, "same");
    for (lines, words) in [
        (
            format!("[[outputs]]\npath = \"{0}\"\n[[outputs]]\npath = \"{0}\"", same.display()),
            "the path of an output",
        ),
        (format!("[[outputs]]\npath = \"{}\"", world.token_file().display()), "the token_file of account"),
        (
            format!("token_file_info = true\n[[outputs]]\npath = \"{}.json\"", world.token_file().display()),
            "the token_file of account",
        ),
    ] {
        world.configure(&lines);
        let output = world.once_gives(78, []);
        assert!(output.stderr.contains(words), "{output:?}");
    }
    assert_eq!(world.posts(), 0);
}

#[test]
fn set_writes_the_outputs_as_well() {
    let world = World::new();
    let path = output(&world, "other");
    configure(&world, &[(&path, "format = \"bearer\"")], "");
    let args = ["set", "--access-token", "--expires-in", "10min"];
    let done = feed(&mut world.sandbox.command(args), "brought");
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "Bearer brought");
}
