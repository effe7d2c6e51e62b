//! The secrets of the config in sealed files.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::{KEY, OTHER_KEY, found, key_line, write_key, write_private};
use crate::common::world::World;
use crate::common::{Background, Output, audit, wait_until};

/// A flat account with a secret in each of the usual places, and a key for them.
fn world() -> (World, Vec<String>) {
    let world = World::with_secret();
    let seed = world.seed();
    let key = key_line(&world, "state_key", KEY);
    world.sandbox.write_config(&format!(
        "# Mine.\ntoken_endpoint = \"{}\"\nclient_id = \"zg\"\n{key}client_secret = \"right\" # as agreed\n\n\
         refresh_token   =   \"{}\"\nextra_params = {{ tenant = \"t\" }}\n[request_headers]\nX-Key = 'zgmarkheader'\n",
        world.server.token_endpoint(),
        seed.expose()
    ));
    (world, vec!["zgmarkheader".into(), seed.expose().into()])
}

fn seal(world: &World, args: &[&str]) -> Output {
    world.sandbox.run(["seal", "--secrets"].into_iter().chain(args.iter().copied()))
}

#[track_caller]
fn seal_gives(world: &World, code: i32, args: &[&str]) -> Output {
    let output = seal(world, args);
    assert_eq!(output.code, Some(code), "{output:?}");
    output
}

fn config(world: &World) -> String {
    fs::read_to_string(world.sandbox.config_path()).unwrap()
}

/// A file beside the config.
fn beside(world: &World, name: &str) -> PathBuf {
    world.sandbox.config_path().with_file_name(name)
}

fn mode(path: &PathBuf) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn copy(world: &World) -> PathBuf {
    beside(world, "config.toml.plain")
}

#[test]
fn secrets_move_out_of_the_config_and_a_refresh_removes_the_copy() {
    let (world, secrets) = world();
    let before = config(&world);
    // Nobody can be asked.
    let output = seal_gives(&world, 2, &[]);
    assert!(output.stderr.contains("--yes"), "{output:?}");
    assert_eq!(config(&world), before);
    assert!(!copy(&world).exists());

    let output = seal_gives(&world, 0, &["--yes"]);
    for line in [
        "- client_secret = \"…\" # as agreed",
        "+ client_secret = { sealed = \"config.client_secret.sealed\" } # as agreed",
        "- refresh_token   =   \"…\"",
        "- X-Key = \"…\"",
        "+ X-Key = { sealed = \"config.request_headers.x-key.sealed\" }",
    ] {
        assert!(output.stdout.contains(line), "{line} in {output:?}");
    }
    assert!(secrets.iter().all(|secret| !format!("{output:?}").contains(secret)), "{output:?}");
    let expected = before
        .replace("\"right\"", "{ sealed = \"config.client_secret.sealed\" }")
        .replace(&format!("\"{}\"", secrets[1]), "{ sealed = \"config.refresh_token.sealed\" }")
        .replace("'zgmarkheader'", "{ sealed = \"config.request_headers.x-key.sealed\" }");
    assert_eq!(config(&world), expected, "nothing else changes");
    assert_eq!(fs::read_to_string(copy(&world)).unwrap(), before);
    for name in ["config.toml", "config.toml.plain", "config.client_secret.sealed"] {
        assert_eq!(mode(&beside(&world, name)), 0o600, "{name}");
    }
    let check = world.sandbox.run(["check"]);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(check.stdout.contains("config.toml.plain has the secrets of the config in plain"), "{check:?}");
    assert!(check.stdout.contains("read from sealed file"), "{check:?}");
    let status = || world.sandbox.run(["status"]).stdout;
    assert!(status().contains("config.toml.plain"), "{}", status());
    assert_eq!(world.status().0["plain_copy"], copy(&world).to_str().unwrap());

    world.once_gives(0, []);
    world.assert_live();
    assert!(!copy(&world).exists(), "it is not needed any more");
    assert!(!status().contains("config.toml.plain"), "{}", status());
    assert_eq!(found(&world.sandbox.path("config"), &secrets), Vec::<String>::new());
    world.once_gives(0, ["--force"]);
    let output = seal_gives(&world, 0, &["--yes"]);
    assert!(output.stdout.contains("has no secrets in plain"), "{output:?}");
    audit::assert_one_post_per_epoch(&world.server.audit());
}

/// Works on a terminal: shows, asks, and notices that somebody has edited the config meanwhile.
#[test]
fn on_a_terminal_it_asks() {
    let (world, _) = world();
    let before = config(&world);
    let ask = |number: usize, answer: &dyn Fn() -> &'static str| {
        let command = world.sandbox.command(["seal", "--secrets"]);
        let line =
            format!("stty cols 1000; exec '{}' seal --secrets", command.get_program().to_str().unwrap());
        let mut script = Command::new("script");
        script.args(["-qefc", &line, "/dev/null"]).env_clear();
        script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        script.env("SHELL", "/bin/sh").env("TERM", "xterm-256color").env("LANG", "C.UTF-8");
        let (reader, mut keys) = std::io::pipe().unwrap();
        script.stdin(reader);
        let mut run = Background::start(&mut script, world.sandbox.path(format!("seal-{number}.log")));
        run.wait_for("Make this change?");
        keys.write_all(answer().as_bytes()).unwrap();
        (run.wait().code().unwrap(), run.log())
    };
    let (code, log) = ask(1, &|| "n\n");
    assert!(code == 2 && log.contains("nothing was written"), "{code} {log}");
    assert_eq!(config(&world), before);
    let edited = format!("# Edited.\n{before}");
    let (code, log) = ask(2, &|| {
        world.sandbox.write_config(&edited);
        "y\n"
    });
    assert!(code == 75 && log.contains("was changed meanwhile"), "{code} {log}");
    assert_eq!(config(&world), edited);
    // The copy of that try is of another config.
    fs::remove_file(copy(&world)).unwrap();
    let (code, log) = ask(3, &|| "\n");
    assert_eq!(code, 0, "{log}");
    assert!(config(&world).contains("config.client_secret.sealed"), "{}", config(&world));
    world.once_gives(0, []);
}

#[test]
fn the_copy_stays_until_every_account_has_refreshed() {
    let world = World::with_secret();
    let seeds = [world.seed(), world.seed()];
    let key = key_line(&world, "state_key", KEY);
    let tables = ["a", "b"].into_iter().zip(&seeds).map(|(name, seed)| {
        let path = world.token_file_of(name);
        format!(
            "[accounts.{name}]\nrefresh_token = \"{}\"\ntoken_file = \"{}\"\n",
            seed.expose(),
            path.display()
        )
    });
    let tables: String = tables.collect();
    let text = format!(
        "token_endpoint = \"{}\"\nclient_id = \"zg\"\nclient_secret = \"right\"\n{key}{tables}",
        world.server.token_endpoint()
    );
    world.sandbox.write_config(&text);
    world.once_gives(0, []);
    seal_gives(&world, 0, &["--yes"]);
    // The tokens from before prove nothing, nor does one account.
    world.once_gives(0, []);
    assert!(copy(&world).exists());
    world.once_gives(0, ["--force", "--account", "a"]);
    assert!(copy(&world).exists());
    // Another change has to wait for that.
    world.sandbox.write_config(&config(&world).replace(key.as_str(), &format!("# more\n{key}")));
    fs::write(
        world.sandbox.config_path(),
        config(&world).replace("client_id", "request_headers = { x-more = \"zgmark\" }\nclient_id"),
    )
    .unwrap();
    let output = seal_gives(&world, 78, &["--yes"]);
    assert!(output.stderr.contains("config.toml.plain exists"), "{output:?}");
    world.once_gives(0, ["--force", "--account", "b"]);
    assert!(!copy(&world).exists());
    seal_gives(&world, 0, &["--yes"]);
    world.once_gives(0, ["--force"]);
    assert!(!copy(&world).exists());
}

#[test]
fn without_its_key_a_sealed_secret_opens_nothing_and_nothing_is_lost() {
    let (world, _) = world();
    seal_gives(&world, 0, &["--yes"]);
    world.once_gives(0, []);
    let posts = world.posts();
    fs::remove_file(world.sandbox.path("key")).unwrap();
    world.once_gives(69, ["--force"]);
    world.assert_live();
    write_key(&world, KEY);
    world.once_gives(0, ["--force"]);
    let posts = posts + 1;
    world.permit_force();
    // The files of two keys, exchanged.
    let [one, other] =
        ["client_secret", "refresh_token"].map(|key| beside(&world, &format!("config.{key}.sealed")));
    let texts = [&one, &other].map(|path| fs::read_to_string(path).unwrap());
    let put = |path: &PathBuf, text: &str| write_private(path, text);
    put(&one, &texts[1]);
    let output = world.once_gives(78, ["--force"]);
    assert!(output.stderr.contains("was sealed for refresh_token of account default"), "{output:?}");
    // The same, with the purpose written over it.
    put(&one, &texts[1].replace("\"refresh_token\"", "\"client_secret\""));
    let output = world.once_gives(78, ["--force"]);
    assert!(output.stderr.contains("is sealed with another key"), "{output:?}");
    // Another account's.
    put(&one, &texts[0].replace("\"default\"", "\"other\""));
    let output = world.once_gives(78, ["--force"]);
    assert!(output.stderr.contains("was sealed for client_secret of account other"), "{output:?}");
    let without_account =
        texts[0].lines().filter(|line| !line.contains("account")).collect::<Vec<_>>().join("\n");
    put(&one, &without_account);
    let output = world.once_gives(78, ["--force"]);
    assert!(output.stderr.contains("is sealed with another key"), "{output:?}");
    put(&one, "{}");
    let output = world.once_gives(78, ["--force"]);
    assert!(output.stderr.contains("is not a file that"), "{output:?}");
    fs::remove_file(&one).unwrap();
    let output = world.once_gives(69, ["--force"]);
    assert!(output.stderr.contains("cannot be read"), "{output:?}");
    assert_eq!(world.posts(), posts);
    world.assert_live();
    put(&one, &texts[0]);
    world.once_gives(0, ["--force"]);
}

#[test]
fn a_new_key_covers_the_sealed_secrets() {
    let (world, secrets) = world();
    seal_gives(&world, 0, &["--yes"]);
    world.once_gives(0, []);
    let file = beside(&world, "config.client_secret.sealed");
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    let sealed = fs::read(&file).unwrap();
    let old = world.sandbox.path("old-key");
    write_private(&old, KEY);
    write_key(&world, OTHER_KEY);
    let previous = format!("state_key_previous = {{ file = \"{}\" }}\n", old.display());
    world.sandbox.write_config(&format!("{previous}{}", config(&world)));
    // Before the change, both keys open.
    world.once_gives(0, ["--force"]);
    let output = world.sandbox.run(["seal"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("config.client_secret.sealed: sealed with state_key"), "{output:?}");
    assert_ne!(fs::read(&file).unwrap(), sealed);
    assert_eq!(mode(&file), 0o640);
    fs::remove_file(&old).unwrap();
    world.sandbox.write_config(&config(&world).replace(&previous, ""));
    world.permit_force();
    world.once_gives(0, ["--force"]);
    assert_eq!(found(&world.sandbox.path("config"), &secrets), Vec::<String>::new());
    audit::assert_one_post_per_epoch(&world.server.audit());
}

#[test]
fn the_way_back_leads_to_the_config_as_it_was() {
    let (world, _) = world();
    let before = config(&world).replace('\'', "\"");
    seal_gives(&world, 0, &["--yes"]);
    world.once_gives(0, []);
    let output = world.sandbox.run(["seal", "--remove"]);
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stderr.contains("seal --secrets --remove"), "{output:?}");
    world.once_gives(0, ["--force"]);
    let output = seal_gives(&world, 0, &["--remove", "--yes"]);
    assert!(!format!("{output:?}").contains("zgmarkheader"), "{output:?}");
    assert_eq!(config(&world), before);
    world.permit_force();
    world.once_gives(0, ["--force"]);
    let output = seal_gives(&world, 0, &["--remove", "--yes"]);
    assert!(output.stdout.contains("has no sealed secrets"), "{output:?}");
}

/// Before anything has proved good: the config itself has the secrets again.
#[test]
fn the_way_back_takes_the_copy_along() {
    let (world, _) = world();
    seal_gives(&world, 0, &["--yes"]);
    assert!(copy(&world).exists());
    seal_gives(&world, 0, &["--remove", "--yes"]);
    assert!(!copy(&world).exists());
    world.once_gives(0, []);
    seal_gives(&world, 0, &["--yes"]);
}

/// A try that was broken off left the copy. A refresh by the plain config since then proves nothing.
#[test]
fn the_copy_of_a_broken_off_try_counts_from_the_next_one() {
    let (world, _) = world();
    fs::copy(world.sandbox.config_path(), copy(&world)).unwrap();
    world.once_gives(0, []);
    seal_gives(&world, 0, &["--yes"]);
    world.once_gives(0, []);
    assert!(copy(&world).exists(), "nothing was refreshed since");
    world.once_gives(0, ["--force"]);
    assert!(!copy(&world).exists());
}

/// Two sealed files of one refresh token would make two logins of it, which end each other.
#[test]
fn a_shared_login_is_not_torn_apart() {
    let world = World::new();
    let (seed, key) = (world.seed(), key_line(&world, "state_key", KEY));
    let account = |name: &str| {
        format!(
            "[accounts.{name}]\nrefresh_token = \"{}\"\nscope = \"{name}\"\ntoken_file = \"{}\"\n",
            seed.expose(),
            world.token_file_of(name).display()
        )
    };
    world.sandbox.write_config(&format!("{}{key}{}{}", world.client(), account("one"), account("two")));
    let before = config(&world);
    let output = seal_gives(&world, 78, &["--yes"]);
    assert!(output.stderr.contains("from = \"one\""), "{output:?}");
    assert_eq!(config(&world), before);
    assert_eq!(fs::read_dir(beside(&world, ".")).unwrap().count(), 1, "no file was written");
}

#[test]
fn secrets_below_an_audience_are_sealed_and_open() {
    let world = World::new();
    let (seed, key) = (world.seed(), key_line(&world, "state_key", KEY));
    let token_file = |name| world.token_file_of(name).display().to_string();
    world.sandbox.write_config(&format!(
        "{}{key}[accounts.a]\nrefresh_token = \"{}\"\ntoken_file = \"{}\"\n[accounts.a.audience.b]\n\
         token_file = \"{}\"\nrequest_headers = {{ X-Key = \"zgmarkheader\" }}\n",
        world.client(),
        seed.expose(),
        token_file("a"),
        token_file("b")
    ));
    seal_gives(&world, 0, &["--yes"]);
    assert!(!config(&world).contains("zgmarkheader"), "{}", config(&world));
    world.once_gives(0, []);
    assert!(!copy(&world).exists());
    // `check` reads it as a refresh does.
    let sealed = beside(&world, "config.a.b.request_headers.x-key.sealed");
    assert_eq!(world.sandbox.run(["check"]).code, Some(0));
    fs::remove_file(sealed).unwrap();
    let output = world.sandbox.run(["check"]);
    assert!(output.code == Some(78) && output.stdout.contains("request_headers"), "{output:?}");
}

#[test]
fn a_running_service_goes_on_with_the_sealed_secrets() {
    let (world, secrets) = world();
    let mut run = world.run();
    wait_until("the first token", || (world.grants() == 1).then_some(()));
    seal_gives(&world, 0, &["--yes"]);
    run.wait_for("the new config is in use");
    world.once_gives(0, ["--force"]);
    wait_until("the end of the copy", || (!copy(&world).exists()).then_some(()));
    assert_eq!(run.stop().code(), Some(0));
    assert_eq!(found(&world.sandbox.path("config"), &secrets), Vec::<String>::new());
}

#[test]
fn what_cannot_be_sealed_is_named() {
    let world = World::new();
    world.configure("");
    let output = seal_gives(&world, 78, &["--yes"]);
    assert!(output.stderr.contains("has no state_key"), "{output:?}");
    let key = key_line(&world, "state_key", KEY);
    world.configure(&format!("{key}extra_params = {{ password = \"grün\", other = \"x\" }}\n# was zgmarkheader\n[request_headers]\na = \"zgmarkheader\"\n"));
    let output = seal_gives(&world, 0, &["--yes"]);
    assert!(output.stderr.contains("extra_params.password stays in the config"), "{output:?}");
    assert!(output.stderr.contains("has one of these secrets as well"), "{output:?}");
    assert!(config(&world).contains("# was zgmarkheader"));
}

#[test]
fn check_warns_of_a_key_beside_what_it_opens() {
    // Two places without a common one.
    let (world, other) = (World::new(), World::in_memory(3600));
    let (key, state) = (world.sandbox.config_path().with_file_name("a.key"), other.sandbox.path("elsewhere"));
    write_private(&key, KEY);
    let key_line = |path: &PathBuf| format!("state_key = {{ file = \"{}\" }}\n", path.display());
    let lines = format!("{}state_dir = \"{}\"\n", key_line(&key), state.display());
    world.configure(&lines);
    let check = || world.sandbox.run(["check"]).stdout;
    assert!(!check().contains("a backup of both opens it"), "{}", check());
    seal_gives(&world, 0, &["--yes"]);
    assert!(check().contains("as the sealed secrets are: a backup of both opens it"), "{}", check());
    // A link to another place is that place.
    let far = other.sandbox.path("far.key");
    fs::rename(&key, &far).unwrap_or_else(|_| {
        write_private(&far, KEY);
        fs::remove_file(&key).unwrap();
    });
    std::os::unix::fs::symlink(&far, &key).unwrap();
    assert!(check().contains("as the state is: a backup of both opens it"), "{}", check());
    assert!(!check().contains("as the sealed secrets are"), "{}", check());
}
