//! A second account for a config that exists, and the names of accounts in the shell.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::common::pane::Pane;
use crate::common::world::World;
use crate::common::{Output, Sandbox, finish, under, wait_until};

/// `init --account mail` with a login of its own, and these arguments.
fn add(world: &World, args: &[&str]) -> Output {
    let seed = world.sandbox.path("home/mail.seed");
    fs::write(&seed, world.seed().expose()).unwrap();
    fs::set_permissions(&seed, Permissions::from_mode(0o600)).unwrap();
    let line = ["init", "--account", "mail", "--issuer", world.server.url(), "--client-id", "demo"];
    let files = ["--token-file", "mail.token", "--refresh-token-file", "mail.seed"];
    world.sandbox.run(line.iter().chain(&files).chain(args).copied())
}

fn config(world: &World) -> String {
    fs::read_to_string(world.sandbox.config_path()).unwrap()
}

#[test]
fn the_first_account_goes_on_with_its_login() {
    let world = World::new();
    let seed = world.configure("# kept\nlogin_scope = \"api\" # kept, too\n[extra_params]\nx = \"y\"");
    world.once_gives(0, []);
    let before = (config(&world), world.state(), world.token());
    let output = add(&world, &["--yes"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let after = config(&world);
    // Every line but the header is as it was.
    for line in before.0.lines().filter(|line| !line.starts_with('[')) {
        assert!(after.lines().any(|kept| kept == line), "{line:?} in\n{after}");
    }
    assert!(after.contains("\n[accounts.default.extra_params]\nx = \"y\"\n"), "{after}");
    assert!(!format!("{output:?}").contains(seed.expose()));
    // The state is the one of before, and the login in it works: no new one is needed.
    assert_eq!(world.state(), before.1);
    let status = world.status().0;
    assert_eq!((&status["account"], &status["state"]), (&"default".into(), &"fresh".into()));
    assert_eq!(world.posts(), 1);
    world.once_gives(0, ["--account", "default"]);
    assert_eq!((world.posts(), world.token() == before.2), (1, true), "nothing was due");
    world.once_gives(0, ["--account", "default", "--force"]);
    world.assert_live();
    world.once_gives(0, []);
    assert!(world.reads_live(&world.token_file_of("mail")));
}

#[test]
fn nothing_is_written_without_a_yes() {
    let world = World::new();
    world.configure("");
    let before = config(&world);
    let output = add(&world, &[]);
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.stdout.contains("\n+ [accounts.default]\n+ token_file = "), "{output:?}");
    assert!(output.stdout.contains("\n+ [accounts.mail]\n"), "{output:?}");
    assert!(
        output.stderr.ends_with("hint: pass --yes to make the change without a question\n"),
        "{output:?}"
    );
    assert_eq!(config(&world), before);
    // Nor if it is there already, or if the config is wrong.
    assert_eq!(add(&world, &["--yes"]).code, Some(0));
    let before = config(&world);
    let output = add(&world, &["--yes"]);
    assert!(output.stderr.starts_with("error: the config has an account mail already\n"), "{output:?}");
    world.sandbox.write_config(&format!("{before}nonsense = 1\n"));
    let output = add(&world, &["--yes"]);
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stderr.contains("unknown key `nonsense`"), "{output:?}");
    assert_eq!(config(&world), format!("{before}nonsense = 1\n"));
}

#[test]
fn a_person_sees_the_change_and_no_secret() {
    let world = World::new();
    let first = world.configure("");
    let second = world.seed();
    fs::set_permissions(world.sandbox.config_path(), Permissions::from_mode(0o400)).unwrap();
    let pane = Pane::open(&world.sandbox, (120, 60), &[], "init");
    let answer = |question: &str, text: &str| {
        wait_until(question, || {
            pane.screen().last().is_some_and(|line| line.starts_with(question)).then_some(())
        });
        pane.text(text);
        pane.key("Enter");
    };
    answer("name of the new account", "../x");
    answer("name of the new account", "mail");
    answer("provider (?", world.server.url());
    answer("Enter: a person logs in, c: client credentials,", "");
    answer("client_id:", "demo");
    answer("client_secret", "");
    answer("refresh_token", second.expose());
    answer("token_file:", "~/mail.token");
    answer("Make this change? [Y/n]", "");
    answer("Get the first token now? [Y/n]", "");
    let screen = pane.wait_for("code 0").join("\n");
    assert!(screen.contains("+ refresh_token = \"…\""), "{screen}");
    for secret in [&first, &second] {
        assert!(!screen.contains(secret.expose()), "{screen}");
    }
    assert!(world.reads_live(&world.token_file_of("mail")));
    let mode = fs::metadata(world.sandbox.config_path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o400, "the mode stays");
}

#[test]
fn a_running_supervisor_takes_the_account_over() {
    let world = World::new();
    world.configure("");
    let mut run = world.run();
    let output = add(&world, &["--yes"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains(&format!("`zg-tokend run` (process {}) loads", run.id())), "{output:?}");
    wait_until("the token of the second account", || world.token_file_of("mail").exists().then_some(()));
    run.stop();
    assert_eq!(world.grants(), 2);
}

/// The words that bash offers after a line.
fn completed(sandbox: &Sandbox, words: &[&str]) -> Vec<String> {
    let script = sandbox.path("completions");
    fs::write(&script, sandbox.run(["completions", "bash"]).stdout).unwrap();
    let program = env!("CARGO_BIN_EXE_zg-tokend");
    let words: Vec<_> = [program].iter().chain(words).map(|word| format!("'{word}'")).collect();
    let line = format!(
        "source '{}'; set -- {}; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=()\n\
         _zg__tokend \"$1\" \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display(),
        words.join(" ")
    );
    let output = finish(&mut under(["bash", "--norc", "-c", &line], &sandbox.command([])));
    assert_eq!(output.stderr, "", "{output:?}");
    output.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_the_names_of_accounts() {
    let world = World::new();
    let (one, two) = (world.seed(), world.seed());
    world.configure_accounts(&[("mail", &one), ("mobile", &two)]);
    assert_eq!(completed(&world.sandbox, &["once", "--account", ""]), ["mail", "mobile"]);
    assert_eq!(completed(&world.sandbox, &["once", "--account", "ma"]), ["mail"]);
    assert_eq!(completed(&world.sandbox, &["--account", "mo"]), ["mobile"]);
    // The config of the line, and none at all.
    let other = world.sandbox.path("home/other.toml");
    fs::write(&other, config(&world).replace("mobile", "third")).unwrap();
    fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
    let line = ["--config", other.to_str().unwrap(), "token", "--account", "t"];
    assert_eq!(completed(&world.sandbox, &line), ["third"]);
    assert_eq!(completed(&world.sandbox, &["--config", "/nowhere", "token", "--account", ""]), [""]);
}
