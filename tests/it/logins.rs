//! A new login while `run` is up: in the config, in a secret file, or by `set`. No signal tells it.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use zg_tokend::testing::demo::AuditEvent;
use zg_tokend::testing::demo::Outage;
use zg_tokend::testing::secret::Secret;

use crate::common::world::{World, read};
use crate::common::{Background, Output, wait_until};

/// Waits until this login has been used. Nothing but the change can make `run` look: its token
/// lives for an hour.
#[track_caller]
fn wait_for_login(world: &World, login: &Secret) {
    let used = Some(login.fingerprint());
    let log = || world.server.audit();
    wait_until("the new login", || {
        let sent = log().iter().any(|entry| entry.event == AuditEvent::Post && entry.refresh_token == used);
        (sent && world.server.is_live(&world.token())).then_some(())
    });
}

fn write_private(path: &Path, text: &str) {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
}

#[test]
fn a_changed_config_is_noticed() {
    let world = World::new();
    world.configure("");
    let mut run = world.run();

    let login = world.seed();
    world.configure_seed(&login, "");
    wait_for_login(&world, &login);

    // As editors do.
    let login = world.seed();
    let config = world.sandbox.config_path();
    let new = config.with_extension("toml~");
    write_private(&new, &format!("{}refresh_token = \"{}\"\n", world.client(), login.expose()));
    fs::rename(&new, &config).unwrap();
    wait_for_login(&world, &login);

    let posts = world.posts();
    world.sandbox.write_config("client_id = [");
    run.wait_for("the old one stays in force");
    run.signal(Signal::USR1);
    wait_until("a refresh by the old config", || (world.posts() == posts + 1).then_some(()));
    world.assert_live();
}

#[test]
fn a_changed_secret_file_is_noticed() {
    let world = World::new();
    // As Kubernetes mounts them: secrets/token -> ..data/token, ..data -> 1.
    let secrets = world.sandbox.path("secrets");
    let deploy = |version: &str, login: &Secret| {
        fs::create_dir_all(secrets.join(version)).unwrap();
        write_private(&secrets.join(version).join("token"), login.expose());
        symlink(version, secrets.join("..new")).unwrap();
        fs::rename(secrets.join("..new"), secrets.join("..data")).unwrap();
    };
    deploy("1", &world.seed());
    symlink("..data/token", secrets.join("token")).unwrap();
    world.configure_inputs(&format!("refresh_token = {{ file = \"{}\" }}", secrets.join("token").display()));
    let _run = world.run();

    let login = world.seed();
    deploy("2", &login);
    wait_for_login(&world, &login);

    let login = world.seed();
    fs::write(secrets.join("2/token"), login.expose()).unwrap();
    wait_for_login(&world, &login);
}

/// `set` with these arguments and this stdin.
fn set(world: &World, args: &[&str], stdin: &str) -> Output {
    let input = world.sandbox.path("stdin");
    fs::write(&input, stdin).unwrap();
    let mut command = world.sandbox.command(["set"]);
    command.args(args).stdin(Stdio::from(fs::File::open(input).unwrap()));
    crate::common::finish(&mut command)
}

#[track_caller]
fn set_gives(world: &World, code: i32, args: &[&str], stdin: &str) {
    let output = set(world, args, stdin);
    assert_eq!(output.code, Some(code), "{output:?}");
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(!said.contains(stdin.trim()), "no token in {said}");
}

#[test]
fn a_login_that_was_set_wins_and_stays() {
    let world = World::new();
    let old = world.configure("");
    let login = world.seed();
    set_gives(&world, 0, &[], &format!("{}\n", login.expose()));
    wait_for_login(&world, &login);
    for posts in 2..=3 {
        world.once_gives(0, ["--force"]);
        assert_eq!(world.posts(), posts);
    }
    assert_eq!((sent(&world, &old), sent(&world, &login)), (0, 1), "the config's login is older");

    // A login in the config that is newer still.
    let newest = world.seed();
    world.configure_seed(&newest, "");
    world.once_gives(0, []);
    assert_eq!(sent(&world, &newest), 1);
}

#[test]
fn an_access_token_that_was_set_is_published() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let token = Secret::new("at_from_elsewhere");
    set_gives(&world, 0, &["--access-token", "--expires-in", "1h"], token.expose());
    assert_eq!((world.token(), world.posts()), (token, 1));
    // Nothing is due, until it nears its end.
    world.once_gives(0, []);
    assert_eq!(world.posts(), 1);
    world.pass_time(Duration::from_secs(50 * 60));
    world.once_gives(0, []);
    assert_eq!(world.posts(), 2);
    world.assert_live();
}

#[test]
fn set_takes_one_token_and_only_from_stdin() {
    let world = World::new();
    world.configure("");
    for args in [&["a-token"][..], &["--access-token"], &["--expires-in", "1h"]] {
        set_gives(&world, 2, args, "another-token");
    }
    for stdin in ["", "\n", "two\ntokens", "a\0b"] {
        assert_eq!(set(&world, &[], stdin).code, Some(2), "{stdin:?}");
    }
    assert_eq!(world.posts(), 0);
}

/// How often this refresh token was sent.
fn sent(world: &World, token: &Secret) -> usize {
    let of = Some(token.fingerprint());
    world.server.audit().iter().filter(|it| it.event == AuditEvent::Post && it.refresh_token == of).count()
}

#[test]
fn a_login_that_was_given_before_is_not_sent_again() {
    let world = World::new();
    let old = world.configure("");
    let login = world.seed();
    set_gives(&world, 0, &[], login.expose());
    world.once_gives(0, ["--force"]);
    let state = world.state();
    for known in [&login, &old, &world.refresh_token()] {
        let output = set(&world, &[], known.expose());
        assert_eq!(output.code, Some(0), "{output:?}");
        assert!(output.stdout.contains("was stored before"), "{output:?}");
    }
    assert_eq!((world.state(), world.posts()), (state, 2));
    world.once_gives(0, ["--force"]);
    assert_eq!((sent(&world, &login), sent(&world, &old)), (1, 0));
    world.assert_live();
}

#[test]
fn a_login_of_another_account_is_not_taken() {
    let world = World::new();
    let (a, b) = (world.seed(), world.seed());
    world.configure_accounts(&[("a", &a), ("b", &b)]);
    world.once_gives(0, []);
    let state = world.state_of("b");
    let output = set(&world, &["--account", "b"], a.expose());
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stderr.contains("belongs to account a already"), "{output:?}");
    assert_eq!((world.state_of("b"), world.posts()), (state, 2));

    // A former account's goes on where it was.
    world.configure_accounts(&[("b", &b)]);
    set_gives(&world, 0, &["--account", "b"], a.expose());
    world.once_gives(0, ["--force"]);
    assert_eq!(sent(&world, &a), 1);
    assert!(world.state_path("a", "state.taken-over-by-b").exists());
    assert!(world.server.is_live(&read(&world.token_file_of("b"))));
}

#[test]
fn a_login_that_was_set_is_not_displaced_by_one_that_only_the_service_can_read() {
    let world = World::new();
    world.configure_inputs("refresh_token = { env = \"ZG_SEED\" }");
    let (login, unused, newest) = (world.seed(), world.seed(), world.seed());
    let output = set(&world, &[], login.expose());
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stderr.contains("ZG_SEED is not set; its value counts as older"), "{output:?}");
    let once = |seed: &Secret| {
        let mut command = world.sandbox.command(["once", "--force"]);
        let output = crate::common::finish(command.env("ZG_SEED", seed.expose()));
        assert_eq!(output.code, Some(0), "{output:?}");
    };
    once(&unused);
    once(&unused);
    assert_eq!((world.posts(), sent(&world, &login), sent(&world, &unused)), (3, 1, 0));
    once(&newest);
    assert_eq!((sent(&world, &newest), world.grants()), (1, 4), "one that comes later is a new login");
}

#[test]
fn a_file_that_comes_after_the_login_that_was_set_is_newer() {
    let world = World::new();
    let path = world.sandbox.path("home/seed");
    world.configure_inputs(&format!("refresh_token = {{ file = \"{}\" }}", path.display()));
    let output = set(&world, &[], world.seed().expose());
    assert!(!output.stderr.contains("counts as older"), "{output:?}");
    let newest = world.seed();
    write_private(&path, newest.expose());
    world.once_gives(0, ["--force"]);
    assert_eq!(sent(&world, &newest), 1);
}

#[test]
fn set_refuses_a_value_that_cannot_be_a_token() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let (state, token) = (world.state(), world.token());
    let long = "x".repeat(17 * 1024);
    let access = ["--access-token", "--expires-in"];
    for (expires_in, stdin, words) in [
        (Some("0s"), "token", "has expired"),
        (Some("999ms"), "token", "has expired"),
        (Some("1h"), &*long, "over 16 KiB"),
        (Some("1h"), "t\u{f6}ken", "other than ASCII"),
        (None, &*long, "over 16 KiB"),
        (None, "t\u{2013}ken", "other than ASCII"),
    ] {
        let args = access.into_iter().chain(expires_in).take(if expires_in.is_some() { 3 } else { 0 });
        let output = set(&world, &args.collect::<Vec<_>>(), stdin);
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.stderr.contains(words), "{words}: {output:?}");
    }
    assert_eq!((world.state(), world.token(), world.posts()), (state, token, 1));

    set_gives(&world, 0, &[&access[..], &["200y"]].concat(), "at-for-long");
    let year = Duration::from_secs(365 * 24 * 3600);
    assert_eq!(world.state()["access_token"]["lifetime_ms"], u64::try_from(year.as_millis()).unwrap());
}

/// `run` with nothing that it could send: the server has ended its login.
fn run_without_login(world: &World) -> Background {
    world.configure("");
    let mut run = world.run();
    let (now, login) = (world.server.now(), world.refresh_token());
    assert!(world.server.issuer(|issuer| issuer.revoke_login(now, &login)));
    run.signal(Signal::USR1);
    run.wait_for("invalid_grant");
    wait_until("the verdict on disk", || world.state()["verdict"].is_object().then_some(()));
    run
}

#[test]
fn run_notices_a_login_that_was_set() {
    let world = World::in_memory(8);
    let _run = run_without_login(&world);
    set_gives(&world, 0, &[], world.seed().expose());
    let posts = world.posts();
    // `set` has refreshed it once; only `run` can do so again.
    wait_until("two more refreshes", || (world.posts() >= posts + 2).then_some(()));
    world.assert_live();
}

#[test]
fn run_uses_a_login_that_set_could_not() {
    let world = World::new();
    let _run = run_without_login(&world);
    world.outage(Some(Outage::Unavailable));
    let login = world.seed();
    set_gives(&world, 69, &[], login.expose());
    world.outage(None);
    wait_for_login(&world, &login);
}

#[test]
fn run_begins_with_a_login_that_was_set() {
    let world = World::in_memory(8);
    world.configure_inputs("");
    let run = world.start_run();
    run.wait_for("there is no refresh token");
    assert_eq!(world.posts(), 0);
    set_gives(&world, 0, &[], world.seed().expose());
    wait_until("refreshes by run", || (world.posts() >= 3).then_some(()));
    world.assert_live();
}
