//! Logins at rest: sealed with a key that is kept elsewhere.

mod image;
mod keyring;
mod secrets;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use zg_tokend::testing::demo::Fault;
use zg_tokend::testing::secret::Secret;

use crate::common::world::World;
use crate::common::{Output, audit, feed, wait_until, write_script};
use crate::secrets::encodings;

/// Two keys, as `openssl rand -base64 32` prints them.
pub const KEY: &str = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";
pub const OTHER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Past the time when a token of one hour is due, and before its end.
const DUE: Duration = Duration::from_secs(50 * 60);

/// A key on disk, and the line of the config for it: a command that notes that it ran.
pub fn key_line(world: &World, name: &str, key: &str) -> String {
    write_key(world, key);
    let script = world.sandbox.path("key-command");
    let (reads, file) = (world.sandbox.path("key-reads"), world.sandbox.path("key"));
    write_script(
        &script,
        &format!("#!/bin/sh\necho read >>'{}'\nexec cat '{}'\n", reads.display(), file.display()),
    );
    format!("{name} = {{ command = [\"{}\"] }}\n", script.display())
}

pub fn write_key(world: &World, key: &str) {
    write_private(&world.sandbox.path("key"), key);
}

pub fn write_private(path: &Path, text: &str) {
    fs::write(path, format!("{text}\n")).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// How often the key command ran.
fn key_reads(world: &World) -> usize {
    fs::read_to_string(world.sandbox.path("key-reads")).map_or(0, |text| text.lines().count())
}

/// A world whose first refresh is done and sealed.
fn sealed() -> (World, Secret) {
    let world = World::new();
    let seed = world.configure(&key_line(&world, "state_key", KEY));
    world.once_gives(0, []);
    (world, seed)
}

pub fn is_sealed(world: &World) -> bool {
    let state = world.state();
    let sealed = state["refresh_token"]["value"]["sealed"].is_string();
    assert_eq!(sealed, state["version"] == 2, "{state}");
    sealed
}

/// Every file below a directory, hidden and temporary ones as well, that has one of the secrets in it.
pub fn found(directory: &Path, secrets: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(self::found(&path, secrets));
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        for secret in secrets {
            let hit = encodings(secret)
                .iter()
                .any(|form| bytes.windows(form.len()).any(|seen| seen == form.as_bytes()));
            if hit {
                found.push(format!("{secret} in {}", path.display()));
            }
        }
    }
    found
}

#[track_caller]
fn assert_not_found(world: &World, secrets: &[String]) {
    let directory = world.sandbox.seen("state");
    assert_eq!(found(&directory, secrets), Vec::<String>::new());
}

#[test]
fn rotated_refresh_tokens_lie_nowhere_in_plain() {
    let (world, seed) = sealed();
    let mut planted = vec![seed.expose().to_owned()];
    for number in 0..12 {
        let (refresh_token, access_token) = (format!("zgmark{number}refreshtoken"), format!("at-{number}"));
        planted.push(refresh_token.clone());
        let reply = json!({
            "access_token": access_token, "token_type": "Bearer", "expires_in": 3600, "refresh_token": refresh_token,
        });
        // Each third answer is defective, and its refresh token counts all the same.
        let reply = if number % 3 == 2 { json!({ "refresh_token": refresh_token }) } else { reply };
        world.fault(Fault::reply(200, reply.to_string()));
        world.permit_force();
        world.once(["--force", "--quiet"]);
        world.pass_time(Duration::from_secs(3600));
        assert!(is_sealed(&world));
        assert_not_found(&world, &planted);
    }
    // The search finds what there is to be found.
    assert!(!found(&world.sandbox.seen("config"), &planted).is_empty(), "the seed in the config");
}

#[test]
fn nothing_due_needs_no_key() {
    let (world, _) = sealed();
    let reads = key_reads(&world);
    assert!(reads > 0, "the refresh read it");
    fs::remove_file(world.sandbox.path("key")).unwrap();
    world.once_gives(0, []);
    for args in [&["status"][..], &["status", "--json"], &["token"]] {
        assert_eq!(world.sandbox.run(args.iter().copied()).code, Some(0), "{args:?}");
    }
    let run = world.run();
    run.wait_for("supervising");
    drop(run);
    // A token file that was removed is written again.
    fs::remove_file(world.token_file()).unwrap();
    world.once_gives(0, []);
    world.assert_live();
    assert_eq!((key_reads(&world), world.posts()), (reads, 1));
    assert_eq!(world.status().0["refresh_token"]["at_rest"], "sealed");
}

#[test]
fn without_the_key_the_live_token_stays_and_nothing_is_sent() {
    let (world, _) = sealed();
    world.pass_time(DUE);
    fs::remove_file(world.sandbox.path("key")).unwrap();
    for _ in 0..2 {
        let output = world.once_gives(69, []);
        assert!(output.stderr.contains("state_key"), "{output:?}");
        assert!(is_sealed(&world));
        world.assert_live();
    }
    assert_eq!(world.posts(), 1);
    let (status, code) = world.status();
    assert_eq!(code, 1, "{status}");
    assert!(status["problem"].as_str().unwrap().contains("state_key"), "{status}");
    write_key(&world, KEY);
    world.once_gives(0, []);
    assert_eq!(world.posts(), 2);
    assert!(is_sealed(&world));
    audit::assert_one_post_per_epoch(&world.server.audit());
}

/// The key command waits for a person who is not there. Whatever needs no key goes on meanwhile.
#[test]
fn a_key_command_that_hangs_keeps_nothing_else_waiting() {
    let (world, _) = sealed();
    world.pass_time(DUE);
    // Whoever asks for the key notes its process, and waits as long as the test takes.
    let asked = world.sandbox.path("asked");
    let command = world.sandbox.path("key-command");
    write_script(&command, &format!("#!/bin/sh\necho $$ >>'{}'\nexec sleep 100000\n", asked.display()));
    let mut run = world.start_run();
    let asks = || fs::read_to_string(&asked).map_or(0, |text| text.lines().count());
    wait_until("the key command", || (asks() > 0).then_some(()));
    for args in [&["token"][..], &["status", "--json"], &["check", "--syntax"]] {
        let output = world.sandbox.run(args.iter().copied());
        assert!([Some(0), Some(1)].contains(&output.code), "{args:?}: {output:?}");
    }
    assert_eq!(world.token(), world.token());
    run.wait_for("timed out");
    world.assert_live();
    assert_eq!(world.posts(), 1);
    // The next ones hang as well, and the service ends all the same.
    let output = world.once_gives(69, ["--force"]);
    assert!(output.stderr.contains("unlock the password store"), "{output:?}");
    assert_eq!(run.stop().code(), Some(0));
    for pid in fs::read_to_string(&asked).unwrap().lines() {
        wait_until("the end of the key command", || (!Path::new("/proc").join(pid).exists()).then_some(()));
    }
    key_line(&world, "state_key", KEY);
    world.permit_force();
    world.once_gives(0, ["--force"]);
}

#[test]
fn with_a_wrong_key_nothing_is_sent_or_put_aside() {
    let (world, _) = sealed();
    world.pass_time(DUE);
    let state = world.state();
    write_key(&world, OTHER_KEY);
    for _ in 0..2 {
        let output = world.once_gives(78, []);
        assert!(output.stderr.contains("sealed with another key"), "{output:?}");
    }
    world.assert_live();
    assert_eq!(world.posts(), 1);
    assert_eq!(world.state()["refresh_token"], state["refresh_token"]);
    let names = fs::read_dir(world.state_path("default", "")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.contains("corrupt")), "{names:?}");
    let check = world.sandbox.run(["check"]);
    assert_eq!(check.code, Some(78), "{check:?}");
    assert!(check.stdout.contains("sealed with another key"), "{check:?}");
    let (status, _) = world.status();
    assert!(status["problem"].as_str().unwrap().contains("sealed with another key"), "{status}");
    write_key(&world, KEY);
    world.once_gives(0, []);
    assert_eq!(world.posts(), 2);
}

#[test]
fn a_passphrase_and_a_key_in_the_config_are_refused() {
    let world = World::new();
    world.configure(&key_line(&world, "state_key", "correct horse battery staple, and more of the same"));
    let output = world.once_gives(78, []);
    assert!(output.stderr.contains("is not a key"), "{output:?}");
    assert!(!output.stderr.contains("horse"), "{output:?}");
    assert_eq!(world.posts(), 0);
    world.configure(&format!("state_key = \"{KEY}\"\n"));
    let output = world.once_gives(78, []);
    assert!(output.stderr.contains("must not be written into the config"), "{output:?}");
    assert!(!output.stderr.contains(KEY), "{output:?}");
}

#[test]
fn a_config_that_lost_its_key_writes_nothing_in_plain() {
    let (world, seed) = sealed();
    world.pass_time(DUE);
    world.configure_seed(&seed, "");
    let output = world.once_gives(78, []);
    assert!(output.stderr.contains("the key is not at hand"), "{output:?}");
    assert!(is_sealed(&world));
    let (world, new) = (world, "a-new-refresh-token");
    let output = feed(&mut world.sandbox.command(["set"]), new);
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(is_sealed(&world));
    assert_not_found(&world, &[new.to_owned()]);
    assert_eq!(world.posts(), 1);
}

#[test]
fn a_plain_state_is_sealed_at_the_next_refresh_or_by_seal() {
    let world = World::new();
    let seed = world.configure("");
    world.once_gives(0, []);
    assert!(!is_sealed(&world));
    let plain = world.refresh_token();
    let line = key_line(&world, "state_key", KEY);
    world.configure_seed(&seed, &line);
    // The key is away: the plain state is no worse than it was.
    fs::remove_file(world.sandbox.path("key")).unwrap();
    world.pass_time(DUE);
    world.once_gives(69, []);
    assert!(!is_sealed(&world));
    write_key(&world, KEY);
    let output = world.sandbox.run(["seal"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("default: the login is sealed"), "{output:?}");
    assert!(is_sealed(&world));
    assert_not_found(&world, &[plain.expose().to_owned()]);
    assert_eq!(world.posts(), 1, "sealing sends nothing");
    world.once_gives(0, []);
    assert_eq!(world.posts(), 2);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn a_key_is_rotated_by_its_predecessor() {
    let (world, seed) = sealed();
    let old = world.sandbox.path("old-key");
    write_private(&old, KEY);
    let line = key_line(&world, "state_key", OTHER_KEY);
    world.configure_seed(&seed, &format!("{line}state_key_previous = {{ file = \"{}\" }}\n", old.display()));
    assert_eq!(world.sandbox.run(["seal"]).code, Some(0));
    fs::remove_file(&old).unwrap();
    // The predecessor is not asked for any more.
    world.once_gives(0, ["--force"]);
    world.configure_seed(&seed, &line);
    world.once_gives(0, ["--force"]);
    assert_eq!(world.posts(), 3);
    assert!(is_sealed(&world));
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn a_key_file_is_made_and_taken_out_again() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let before = fs::read(world.sandbox.config_path()).unwrap();
    let output = world.sandbox.run(["seal"]);
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stderr.contains("--with secret-tool"), "{output:?}");

    let output = world.sandbox.run(["seal", "--with", "file"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let key = world.sandbox.config_path().with_extension("key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
    let key = fs::read_to_string(&key).unwrap();
    assert!(!format!("{output:?}").contains(key.trim()), "the key is not shown");
    assert!(is_sealed(&world));
    assert_eq!(fs::metadata(world.sandbox.config_path()).unwrap().permissions().mode() & 0o7777, 0o600);
    world.once_gives(0, ["--force"]);
    let check = world.sandbox.run(["check"]);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(check.stdout.contains("a backup of both opens it"), "{check:?}");
    assert!(check.stdout.contains(", sealed"), "{check:?}");
    // A second key would shut the first one's state.
    let again = world.sandbox.run(["seal", "--with", "file"]);
    assert_eq!(again.code, Some(78), "{again:?}");

    let output = world.sandbox.run(["seal", "--remove"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(fs::read(world.sandbox.config_path()).unwrap(), before);
    assert!(!is_sealed(&world));
    world.once_gives(0, ["--force"]);
    // The key may open a copy of the state somewhere: it is not replaced.
    let again = world.sandbox.run(["seal", "--with", "file"]);
    assert_eq!(again.code, Some(78), "{again:?}");
    assert!(again.stderr.contains("is not replaced"), "{again:?}");
    assert_eq!(fs::read(world.sandbox.config_path()).unwrap(), before);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn set_seals_and_without_the_key_stores_nothing() {
    let (world, _) = sealed();
    let new = world.seed();
    let set = || -> Output { feed(&mut world.sandbox.command(["set"]), new.expose()) };
    fs::remove_file(world.sandbox.path("key")).unwrap();
    let state = world.state();
    let output = set();
    assert_eq!(output.code, Some(69), "{output:?}");
    assert_eq!(world.state(), state);
    write_key(&world, KEY);
    assert_eq!(set().code, Some(0));
    assert!(is_sealed(&world));
    assert_not_found(&world, &[new.expose().to_owned()]);
    assert_eq!(world.posts(), 2);
}

#[test]
fn a_dead_sealed_login_is_asked_about_once() {
    let (world, _) = sealed();
    let token = world.state()["refresh_token"]["value"]["sha256"].as_str().unwrap().to_owned();
    world.pass_time(DUE);
    world.fault(Fault::reply(400, json!({ "error": "invalid_grant" }).to_string()));
    world.once_gives(77, []);
    let posts = world.posts();
    world.once_gives(77, []);
    world.once_gives(77, ["--force"]);
    assert_eq!(world.posts(), posts);
    assert_eq!(world.state()["refresh_token"]["value"]["sha256"], token);
    assert!(is_sealed(&world));
}

#[test]
fn a_removed_accounts_sealed_state_is_taken_over() {
    let world = World::new();
    let seed = world.seed();
    let line = key_line(&world, "state_key", KEY);
    let accounts = |name: &str| {
        let path = world.token_file_of(name);
        format!(
            "{}{line}[accounts.{name}]\nrefresh_token = \"{}\"\ntoken_file = \"{}\"\n",
            world.client(),
            seed.expose(),
            path.display()
        )
    };
    world.sandbox.write_config(&accounts("old"));
    world.once_gives(0, []);
    world.sandbox.write_config(&accounts("new"));
    world.once_gives(0, []);
    world.once_gives(0, ["--force"]);
    let state = world.state_of("new");
    assert!(state["refresh_token"]["value"]["sealed"].is_string(), "{state}");
    assert_not_found(&world, &[seed.expose().to_owned()]);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn seal_names_what_older_states_left_in_plain() {
    let world = World::new();
    let seed = world.configure("");
    world.once_gives(0, []);
    let copy = world.state_path("default", "state.corrupt-1");
    fs::copy(world.state_path("default", "state"), &copy).unwrap();
    world.configure_seed(&seed, &key_line(&world, "state_key", KEY));
    let output = world.sandbox.run(["seal"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(
        output.stderr.contains(&format!("{} may have an old refresh token", copy.display())),
        "{output:?}"
    );
    let check = world.sandbox.run(["check"]);
    assert!(check.stdout.contains("state.corrupt-1"), "{check:?}");
}
