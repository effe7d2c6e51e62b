//! Which refresh token is sent: the rotated one, the seed, the one before.

use std::fs;
use std::time::Duration;

use rustix::fs::{Mode, chmod};
use serde_json::{Value, json};
use zg_tokend::testing::clock::{Clock, SystemClock};
use zg_tokend::testing::demo::AuditEvent;
use zg_tokend::testing::demo::Fault;
use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::secret::{Fingerprint, Secret};

use crate::common::audit;
use crate::common::world::{World, read};

/// The refresh tokens that were sent, in order.
fn sent(world: &World) -> Vec<Fingerprint> {
    let log = world.server.audit();
    let posts = log.iter().filter(|entry| entry.event == AuditEvent::Post);
    posts.map(|entry| entry.refresh_token.unwrap()).collect()
}

fn set_modified(path: &std::path::Path, ago: Duration) {
    let now = u64::try_from(SystemClock::new().now().wall).unwrap();
    let at = std::time::UNIX_EPOCH + Duration::from_millis(now) - ago;
    fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}

#[test]
fn the_rotated_refresh_token_is_the_next_to_be_sent() {
    let world = World::new();
    let seed = world.configure("");
    let config = fs::read(world.sandbox.config_path()).unwrap();
    let mut expected = vec![seed.fingerprint()];
    for _ in 0..3 {
        world.once_gives(0, ["--force"]);
        expected.push(world.refresh_token().fingerprint());
    }
    expected.pop();
    assert_eq!(sent(&world), expected);
    assert_eq!(fs::read(world.sandbox.config_path()).unwrap(), config, "config is never rewritten");
}

#[test]
fn without_rotation_the_refresh_token_stays() {
    let world = World::with(IssuerOptions { rotation: false, ..IssuerOptions::default() });
    let seed = world.configure("");
    for _ in 0..3 {
        world.once_gives(0, ["--force"]);
    }
    assert_eq!(sent(&world), [seed.fingerprint(); 3]);
    world.assert_live();
}

#[test]
fn a_new_seed_wins_at_once_and_an_old_one_never_again() {
    let world = World::new();
    let first = world.configure("");
    world.once_gives(0, []);
    let second = world.configure("");
    world.once_gives(0, []);
    assert_eq!(sent(&world), [first.fingerprint(), second.fingerprint()]);

    world.configure_seed(&first, "");
    world.once_gives(0, []);
    assert_eq!(world.posts(), 2, "a seed that was used is no new login");
    let rotated = world.refresh_token().fingerprint();
    world.once_gives(0, ["--force"]);
    assert_eq!(sent(&world)[2], rotated);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn white_space_around_a_seed_does_not_count() {
    let world = World::new();
    let seed = world.configure("");
    world.once_gives(0, []);
    world.configure_seed(&Secret::new(format!("  {} ", seed.expose())), "");
    world.once_gives(0, []);
    assert_eq!(world.posts(), 1);
}

#[test]
fn a_new_seed_that_is_refused_leaves_the_earlier_login_in_use() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let rotated = world.refresh_token();
    let wrong = Secret::new("not-a-refresh-token");
    world.configure_seed(&wrong, "");
    let output = world.once_gives(0, []);
    assert!(output.stderr.contains("the earlier one stays in use"), "{output:?}");
    assert_eq!(sent(&world)[1], wrong.fingerprint());
    world.assert_live();
    world.once_gives(0, ["--force"]);
    assert_eq!(sent(&world)[2..], [rotated.fingerprint()]);
    world.assert_live();
}

#[test]
fn a_new_seed_that_is_refused_does_not_end_the_earlier_login_when_both_are_due() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    world.pass_time(Duration::from_secs(3600));
    world.configure_seed(&Secret::new("wrong"), "");
    world.once_gives(0, []);
    assert_eq!((world.posts(), world.grants()), (3, 2));
    world.assert_live();
}

#[test]
fn an_earlier_login_that_is_kept_survives_a_second_wrong_seed() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    for seed in ["wrong", "wrong too"] {
        world.configure_seed(&Secret::new(seed), "");
        // The answer to the new seed is no answer at all at first.
        world.fault(Fault::reply(503, "{}"));
        world.once_gives(69, []);
        world.pass_time(Duration::from_secs(10));
    }
    world.once_gives(0, []);
    world.once_gives(0, ["--force"]);
    world.assert_live();
}

#[test]
fn a_renamed_account_takes_its_state_along() {
    let world = World::new();
    let (mine, other) = (world.seed(), world.seed());
    world.configure_accounts(&[("before", &mine), ("other", &other)]);
    world.once_gives(0, []);
    world.configure_accounts(&[("after", &mine), ("other", &other)]);
    world.once_gives(0, []);
    world.once_gives(0, ["--force"]);
    audit::assert_one_post_per_epoch(&world.server.audit());
    assert!(world.server.is_live(&read(&world.token_file_of("after"))));
    assert!(!world.state_path("before", "state").exists());
    assert!(world.state_path("before", "state.taken-over-by-after").exists());
    assert_eq!(world.state_of("after")["account"], "after");
}

/// A renamed account's former state is in force until its successor is, and never beside it.
#[test]
fn a_state_that_cannot_be_retired_is_not_taken_over() {
    let world = World::new();
    let seed = world.seed();
    world.configure_accounts(&[("before", &seed)]);
    world.once_gives(0, []);
    world.configure_accounts(&[("after", &seed)]);
    let in_the_way = world.state_path("before", "state.taken-over-by-after");
    fs::create_dir(&in_the_way).unwrap();
    world.once_gives(74, []);
    assert!(!world.state_path("after", "state").exists());
    fs::remove_dir(&in_the_way).unwrap();
    world.once_gives(0, []);
    world.once_gives(0, ["--force"]);
    assert!(in_the_way.is_file() && !world.state_path("before", "state").exists());
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn a_takeover_that_was_broken_off_is_finished() {
    let world = World::new();
    let seed = world.seed();
    world.configure_accounts(&[("before", &seed), ("other", &world.seed())]);
    world.once_gives(0, []);
    world.configure_accounts(&[("after", &seed), ("other", &world.seed())]);
    let state = |name| world.state_path("before", name);
    fs::rename(state("state"), state("state.taken-over-by-after")).unwrap();
    world.once_gives(0, ["--force", "--account", "after"]);
    assert_eq!(sent(&world).iter().filter(|sent| **sent == seed.fingerprint()).count(), 1);
    assert!(world.server.is_live(&read(&world.token_file_of("after"))));
}

/// The configured refresh token while another program rotates it.
#[test]
fn the_state_does_not_grow_with_every_login() {
    let world = World::new();
    let seed = world.configure("");
    world.once_gives(0, []);
    let list = |state: &mut Value, count: u32, last: &Secret| {
        let earlier = (0..count).map(|n| Fingerprint::of([&n.to_be_bytes()[..]]).to_string());
        state["seeds"] = earlier.chain([last.fingerprint().to_string()]).collect();
    };
    let mut state = world.state();
    list(&mut state, 300, &seed);
    world.write_state(&state);
    let newest = world.configure("");
    world.once_gives(0, []);
    let state = world.state();
    let listed = state["seeds"].as_array().unwrap();
    let latest = [&seed, &newest].map(|seed| json!(seed.fingerprint()));
    assert_eq!((listed.len(), &listed[254..]), (256, &latest[..]));

    // Longer than could be read again.
    let (mut state, posts) = (world.state(), world.posts());
    list(&mut state, 14_500, &newest);
    world.write_state(&state);
    let output = world.once_gives(74, ["--force"]);
    assert!(output.stderr.contains("which is too long"), "{output:?}");
    assert_eq!((world.state(), world.posts()), (state, posts));
}

#[test]
fn the_seed_of_an_account_that_is_still_there_is_refused() {
    let world = World::new();
    let (a, b) = (world.seed(), world.seed());
    world.configure_accounts(&[("a", &a), ("b", &b)]);
    world.once_gives(0, []);
    // In two files, so that config cannot see it.
    let path = world.sandbox.path("home/seed");
    fs::write(&path, a.expose()).unwrap();
    chmod(&path, Mode::from_raw_mode(0o600)).unwrap();
    let config = fs::read_to_string(world.sandbox.config_path()).unwrap();
    let file = format!("{{ file = \"{}\" }}", path.display());
    world.sandbox.write_config(&config.replace(&format!("\"{}\"", b.expose()), &file));
    world.once_gives(0, []);
    world.pass_time_of("b", Duration::from_secs(3600));
    let output = world.once_gives(78, []);
    assert!(output.stderr.contains("belongs to account a already"), "{output:?}");
    assert_eq!(world.posts(), 2);
}

#[test]
fn the_state_of_another_config_that_exists_is_refused() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let (path, other) = (world.sandbox.config_path(), world.sandbox.path("config/zg-tokend/other.toml"));
    fs::copy(&path, &other).unwrap();
    let other = other.to_str().unwrap();
    let output = world.once_gives(78, ["--force", "--config", other]);
    assert!(output.stderr.contains("still exists"), "{output:?}");
    let status = world.sandbox.run(["status", "--config", other]);
    assert_eq!(status.code, Some(3), "{status:?}");
    assert_eq!(world.posts(), 1);

    fs::remove_file(&path).unwrap();
    world.once_gives(0, ["--force", "--config", other]);
    assert_eq!(world.posts(), 2, "a config that was renamed keeps its state");
}

#[test]
fn one_config_may_have_several_paths() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let link = world.sandbox.path("home/link.toml");
    std::os::unix::fs::symlink(world.sandbox.config_path(), &link).unwrap();
    let relative = "../config/zg-tokend/config.toml";
    for path in [link.to_str().unwrap(), relative] {
        world.once_gives(0, ["--force", "--config", path]);
    }
    assert_eq!(world.posts(), 3);
}

#[test]
fn garbage_is_put_aside_and_the_seed_waits_while_the_token_is_believed_to_live() {
    let world = World::with(IssuerOptions { rotation: false, ..IssuerOptions::default() });
    world.configure("");
    world.once_gives(0, []);
    let token = world.token();
    fs::write(world.state_path("default", "state"), "{ \"version\": 1, no state").unwrap();
    world.once_gives(0, []);
    assert_eq!((world.posts(), world.token()), (1, token));

    set_modified(&world.token_file(), Duration::from_secs(55 * 60));
    let output = world.once_gives(0, []);
    assert!(output.stderr.contains("state.corrupt-1"), "{output:?}");
    assert!(world.state_path("default", "state.corrupt-1").exists());
    assert_eq!(world.posts(), 2);
    world.assert_live();

    // The next one does not overwrite it.
    fs::write(world.state_path("default", "state"), "").unwrap();
    set_modified(&world.token_file(), Duration::from_secs(55 * 60));
    world.once_gives(0, []);
    assert!(world.state_path("default", "state.corrupt-2").exists());
}

#[test]
fn a_state_of_a_newer_version_is_left_alone() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let mut state = world.state();
    (state["version"], state["novelty"]) = (json!(3), json!("?"));
    world.write_state(&state);
    for args in [&[][..], &["--force"]] {
        let output = world.once_gives(74, args.iter().copied());
        assert!(output.stderr.contains("version 3"), "{output:?}");
    }
    assert_eq!((world.state(), world.posts()), (state, 1));
}

#[test]
fn a_state_that_cannot_be_read_is_no_first_run() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let (state, kept) = (world.state_path("default", "state"), world.state_path("default", "kept"));
    fs::rename(&state, kept).unwrap();
    for (name, make) in [
        ("a directory", (|path| fs::create_dir(path).unwrap()) as fn(&std::path::Path)),
        ("a link", |path| std::os::unix::fs::symlink("kept", path).unwrap()),
        ("endless", |path| fs::File::create(path).unwrap().set_len(2 << 20).unwrap()),
    ] {
        make(&state);
        let output = world.once_gives(74, ["--force"]);
        assert!(output.stderr.contains(state.to_str().unwrap()), "{name}: {output:?}");
        assert_eq!(world.posts(), 1, "{name}");
        if state.is_dir() && !state.is_symlink() {
            fs::remove_dir(&state).unwrap();
        } else {
            fs::remove_file(&state).unwrap();
        }
    }
}

#[test]
fn a_secret_with_characters_that_no_token_has_is_refused() {
    let world = World::new();
    let wrong = "1//pretty\u{2013}dash";
    let path = world.sandbox.path("home/seed");
    fs::write(&path, wrong).unwrap();
    chmod(&path, Mode::from_raw_mode(0o600)).unwrap();
    for (code, source) in [(78, format!("\"{wrong}\"")), (69, format!("{{ file = \"{}\" }}", path.display()))]
    {
        world.configure_inputs(&format!("refresh_token = {source}"));
        let output = world.once_gives(code, []);
        assert!(output.stderr.contains("contains characters other than ASCII"), "{output:?}");
        assert!(!output.stderr.contains("pretty"), "{output:?}");
    }
    assert_eq!(world.posts(), 0);
}

#[test]
fn an_account_without_a_refresh_token_says_so() {
    let world = World::new();
    world.configure_inputs("");
    let output = world.once_gives(77, []);
    assert!(output.stderr.contains("there is no refresh token"), "{output:?}");
    assert_eq!(world.posts(), 0);
}
