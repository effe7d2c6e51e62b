//! `init`: from a few answers to a config that works.

mod machines;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use crate::common::pane::Pane;
use crate::common::world::World;
use crate::common::{Output, Sandbox, finish, wait_until};

/// `init` with these arguments, and this on its standard input. No test asks a real server.
fn init(sandbox: &Sandbox, args: &[&str], input: Option<&str>) -> Output {
    init_live(sandbox, &[args, &["--offline"]].concat(), input)
}

/// The same with a server that the arguments name.
fn init_live(sandbox: &Sandbox, args: &[&str], input: Option<&str>) -> Output {
    let mut command = sandbox.command(["init"].into_iter().chain(args.iter().copied()));
    if let Some(input) = input {
        let path = sandbox.path("input");
        fs::write(&path, input).unwrap();
        command.stdin(Stdio::from(File::open(path).unwrap()));
    }
    finish(&mut command)
}

fn secret_file(sandbox: &Sandbox, name: &str, text: &str) -> String {
    let path = sandbox.path("home").join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// It ends with this code and these words, and no config comes of it.
#[track_caller]
fn assert_nothing(sandbox: &Sandbox, output: &Output, stderr: &str) {
    let root = sandbox.path("");
    let said = output.stderr.replace(root.to_str().unwrap().trim_end_matches('/'), "ROOT");
    assert_eq!((output.code, output.stdout.as_str(), said.as_str()), (Some(2), "", stderr));
    let left: Vec<_> = fs::read_dir(sandbox.path("config/zg-tokend")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn flags_alone_make_a_config_that_works() {
    let world = World::new();
    let sandbox = &world.sandbox;
    let seed = secret_file(sandbox, "seed", world.seed().expose());
    let endpoint = world.server.token_endpoint();
    let args = ["--token-endpoint", &endpoint, "--client-id", "demo", "--refresh-token-file", "seed"];
    let output = init_live(sandbox, &args, None);
    let root = sandbox.path("");
    let said = output
        .stdout
        .replace(&endpoint, "ENDPOINT")
        .replace(root.to_str().unwrap().trim_end_matches('/'), "ROOT");
    assert_eq!(
        (output.code, said.as_str(), output.stderr.as_str()),
        (
            Some(0),
            "wrote ROOT/config/zg-tokend/config.toml, mode 0600\n\
             \n\
             ok       config: ROOT/config/zg-tokend/config.toml, 1 account\n\
             ok       state_dir: ROOT/state/zg-tokend will be created; ROOT/state can be written, and has locks\n\
             ok       default: refresh_token: read from file ROOT/home/seed\n\
             ok       default: token_file: the token goes to ROOT/config/zerogravity/token\n\
             ok       token_endpoint: ENDPOINT answers (HTTP 405 to a GET; nothing was spent)\n\
             ok       clock: agrees with the server's to the minute\n\
             all is well\n\
             \n\
             next:\n  \
               zg-tokend once     get the first token\n  \
               zg-tokend run      keep it fresh\n  \
               zg-tokend status   show its state\n",
            ""
        )
    );
    let path = sandbox.config_path();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    for line in [
        "\n# The server that issues the tokens.\n",
        "\n# Your OAuth client.\nclient_id = \"demo\"\n# A public client has no client_secret.\n",
        &format!("\nrefresh_token = {{ file = \"{seed}\" }}\n"),
        "\n#token_file = \"~/.config/zerogravity/token\"\n",
    ] {
        assert!(text.contains(line), "{line:?}: {text}");
    }
    world.once_gives(0, []);
    world.assert_live();
}

#[test]
fn a_secret_comes_from_stdin_or_by_the_name_of_a_variable() {
    let world = World::new();
    let (seed, endpoint) = (world.seed(), world.server.token_endpoint());
    let args = ["--token-endpoint", &endpoint, "--client-id", "demo", "--refresh-token-stdin"];
    let output = init(&world.sandbox, &args, Some(&format!("{}\n", seed.expose())));
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(!format!("{output:?}").contains(seed.expose()));
    world.once_gives(0, []);

    let sandbox = Sandbox::new();
    let mut command = sandbox.command([
        "init",
        "--provider",
        "google",
        "--client-id",
        "id",
        "--client-secret-env",
        "ZG_SECRET",
        "--refresh-token-env",
        "ZG_TOKEN",
        "--account",
        "work",
        "--token-file",
        "work.token",
        "--offline",
    ]);
    let output = finish(command.env("ZG_SECRET", "HIDDEN").env("ZG_TOKEN", "HIDDEN"));
    assert_eq!(output.code, Some(0), "{output:?}");
    let text = fs::read_to_string(sandbox.config_path()).unwrap();
    let token_file = sandbox.path("home/work.token");
    for line in [
        "[accounts.work]\n",
        "provider = \"google\"\n",
        "client_secret = { env = \"ZG_SECRET\" }\n",
        "refresh_token = { env = \"ZG_TOKEN\" }\n",
        &format!("token_file = \"{}\"\n", token_file.display()),
    ] {
        assert!(text.contains(line), "{line:?}: {text}");
    }
    assert!(!format!("{output:?}{text}").contains("HIDDEN"));
}

#[test]
fn init_names_all_missing_answers_at_once() {
    let sandbox = Sandbox::new();
    assert_nothing(
        &sandbox,
        &init(&sandbox, &[], None),
        "error: standard input is not a terminal, and these are missing: --provider, --issuer or \
         --token-endpoint; --client-id; --refresh-token-file, --refresh-token-env or --refresh-token-stdin\n\
         hint: pass them as flags: see `zg-tokend init --help`\n",
    );
    let args = ["--account", "a", "--provider", "google", "--client-id", "x", "--refresh-token-env", "X"];
    assert_nothing(
        &sandbox,
        &init(&sandbox, &args, None),
        "error: standard input is not a terminal, and these are missing: --token-file\n\
         hint: pass them as flags: see `zg-tokend init --help`\n",
    );
    let args = ["--provider", "shopify", "--client-id", "x", "--refresh-token-env", "X"];
    assert_nothing(
        &sandbox,
        &init(&sandbox, &args, None),
        "error: standard input is not a terminal, and these are missing: --shop\n\
         hint: pass them as flags: see `zg-tokend init --help`\n",
    );
}

#[test]
fn the_part_of_an_endpoint_is_a_flag() {
    for (args, lines) in [
        (&["--provider", "shopify", "--shop", "tea"][..], "provider = \"shopify\"\nshop = \"tea\"\n"),
        (&["--provider", "zoho", "--data-center", "eu"], "provider = \"zoho\"\ndata_center = \"eu\"\n"),
        (
            &["--provider", "gitlab", "--host", "git.example"],
            "provider = \"gitlab\"\nhost = \"git.example\"\n",
        ),
        (&["--provider", "microsoft"], "provider = \"microsoft\"\n\n"),
    ] {
        let sandbox = Sandbox::new();
        let common = ["--client-id", "id", "--refresh-token-stdin"];
        init(&sandbox, &[&common[..], args].concat(), Some("RT\n"));
        let text = fs::read_to_string(sandbox.config_path()).unwrap();
        assert!(text.contains(lines), "{args:?}: {text}");
    }
}

#[test]
fn wrong_answers_write_nothing() {
    let sandbox = Sandbox::new();
    let with = |args: &[&str], input: Option<&str>| {
        let common = ["--client-id", "id"];
        init(&sandbox, &[&common[..], args].concat(), input)
    };
    for (args, input, stderr) in [
        (
            &["--issuer", "login.example", "--refresh-token-env", "X"][..],
            None,
            "error: the answers are not a valid config: `issuer` is not a URL: relative URL without a base\n\
             hint: write it in full, with https://\n",
        ),
        (
            &["--provider", "gogle", "--refresh-token-env", "X"],
            None,
            "error: invalid value 'gogle' for '--provider <NAME>'\n  [possible values: amazon, atlassian, auth0, aws-cognito, bitbucket, box, discord, dropbox, ebay, entra, exact-online, feishu, figma, firebase, fitbit, github, gitlab, google, google-service-account, hubspot, intuit, keycloak, lark, linear, linkedin, microsoft, netatmo, notion, okta, paypal, reddit, salesforce, shopify, slack, spotify, square, strava, tiktok, twitch, withings, x, xero, yahoo, zoho, zoom, ?]\n\n  \
             tip: a similar value exists: 'google'\n\nFor more information, try '--help'.\n",
        ),
        (
            &["--provider", "google", "--refresh-token-env", "1//0gSECRET"],
            None,
            "error: the answers are not a valid config: `refresh_token` has a secret where `env` needs a name\n\
             hint: write refresh_token = \"…\" for the secret itself; if it is the name of a file, write its full path\n",
        ),
        (
            &["--provider", "google", "--refresh-token-stdin"],
            Some(" \n"),
            "error: the refresh token is empty\nhint: start again; nothing was written\n",
        ),
        (
            &["--provider", "google", "--refresh-token-stdin"],
            Some("SECRET\nSECRET\n"),
            "error: the refresh token has more than one line\nhint: start again; nothing was written\n",
        ),
        (
            &["--provider", "google", "--shop", "tea", "--refresh-token-env", "X"],
            None,
            "error: the answers are not a valid config: `shop` does not belong to the provider\n\
             hint: remove it: no endpoint of this account has such a part\n",
        ),
        (
            &["--provider", "google", "--refresh-token-env", "X", "--account", "../x", "--token-file", "t"],
            None,
            "error: invalid value '../x' for '--account <NAME>': an account name is 1 to 64 of \
             A-Z a-z 0-9 . _ @ - and begins with a letter or digit\n\nFor more information, try '--help'.\n",
        ),
    ] {
        assert_nothing(&sandbox, &with(args, input), stderr);
    }
}

#[test]
fn an_authorized_user_file_is_taken() {
    let sandbox = Sandbox::new();
    let file = |document: &serde_json::Value| secret_file(&sandbox, "google.json", &document.to_string());
    let other_way =
        "hint: log in with an OAuth client of your own, and run `zg-tokend init` without --from\n";
    for (document, what) in [
        (
            json!({ "type": "other" }),
            "is no file of type authorized_user, service_account or external_account",
        ),
        (json!({ "installed": { "client_secret": "SECRET" } }), "is not a JSON file with a \"type\""),
        (json!({ "type": "authorized_user", "client_id": "id" }), "has no refresh_token"),
        (json!({ "type": "authorized_user", "refresh_token": "SECRET" }), "has no client_id"),
    ] {
        let path = file(&document);
        let stderr = format!("error: ROOT/home/google.json {what}\n{other_way}");
        assert_nothing(&sandbox, &init(&sandbox, &["--from", &path], None), &stderr);
    }
    assert_nothing(
        &sandbox,
        &init(&sandbox, &["--from", "nowhere.json"], None),
        "error: cannot read nowhere.json\ncause: No such file or directory (os error 2)\n\
         hint: name a file that you can read\n",
    );
    let path = file(&json!({
        "type": "authorized_user", "client_id": "id", "client_secret": "GOCSPX-SECRET",
        "refresh_token": "1//0gSECRET", "quota_project_id": "p", "universe_domain": "googleapis.com",
    }));
    let output = init(&sandbox, &["--from", &path], None);
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    assert!(!output.stdout.contains("SECRET"));
    let text = fs::read_to_string(sandbox.config_path()).unwrap();
    for line in [
        "provider = \"google\"\n",
        "client_secret = \"GOCSPX-SECRET\"\n",
        "refresh_token = \"1//0gSECRET\"\n",
    ] {
        assert!(text.contains(line), "{line:?}");
    }
}

#[test]
fn an_existing_config_is_replaced_only_with_overwrite() {
    let sandbox = Sandbox::new();
    sandbox.write_config("# mine\n");
    let args = ["--provider", "google", "--client-id", "id", "--refresh-token-env", "ZG_TOKEN"];
    let output = init(&sandbox, &args, None);
    let said = output.stderr.replace(sandbox.path("").to_str().unwrap().trim_end_matches('/'), "ROOT");
    assert_eq!(
        (output.code, said.as_str()),
        (
            Some(2),
            "error: ROOT/config/zg-tokend/config.toml already exists\n\
             hint: pass --account NAME to add an account to it, --overwrite to replace it, or --config PATH for \
             another file\n"
        )
    );
    assert_eq!(fs::read_to_string(sandbox.config_path()).unwrap(), "# mine\n");
    // The variable is not set here, which is a problem, and no reason not to write.
    let output = init(&sandbox, &[&args[..], &["--overwrite"]].concat(), None);
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stdout.ends_with("\nnext: fix the problems above, then run `zg-tokend check`\n"));
    assert!(fs::read_to_string(sandbox.config_path()).unwrap().contains("provider = \"google\""));
    // Where it cannot be written.
    fs::write(sandbox.path("home/file"), "").unwrap();
    let output = init(&sandbox, &[&args[..], &["--config", "file/config.toml"]].concat(), None);
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stderr.contains("home/file is not a directory\nhint: remove it, or"), "{output:?}");
}

/// Whether the directory holds nothing but these names.
fn holds(directory: &Path, names: &[&str]) -> bool {
    let mut found: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    found.sort();
    found == names
}

#[test]
fn a_person_is_asked() {
    let world = World::new();
    let seed = world.seed();
    let pane = Pane::open(&world.sandbox, (100, 40), &[], "init");
    let answer = |question: &str, text: &str| {
        // The cursor waits behind the question: it is the last line.
        wait_until(question, || {
            pane.screen().last().is_some_and(|line| line.starts_with(question)).then_some(())
        });
        pane.text(text);
        pane.key("Enter");
    };
    answer("provider (? lists them), or the URL of", &world.server.token_endpoint());
    answer("Enter: a person logs in, c: client credentials,", "demo");
    pane.wait_for("hint: answer c, j, x, or press Enter");
    answer("Enter: a person logs in, c: client credentials,", "");
    answer("client_id:", "");
    pane.wait_for("hint: it cannot be empty; Ctrl-C stops, and nothing is written");
    answer("client_id:", "demo");
    answer("client_secret (empty for a public client, not shown):", "");
    answer("refresh_token (empty to pass it to `zg-tokend set` later, not shown):", seed.expose());
    answer("token_file [~/.config/zerogravity/token]:", "");
    answer("Get the first token now? [Y/n]", "what?");
    pane.wait_for("hint: answer y or n");
    answer("Get the first token now? [Y/n]", "");
    let screen = pane.wait_for("code 0").join("\n");
    assert!(!screen.contains(seed.expose()), "{screen}");
    assert!(screen.contains("taken as the token endpoint: it answers (HTTP 405)"), "{screen}");
    assert!(screen.contains("all is well") && !screen.contains("check --live"), "{screen}");
    world.assert_live();
    assert_eq!(world.posts(), 1);
    // Again: a config that exists is not replaced.
    let before = fs::read(world.sandbox.config_path()).unwrap();
    let pane = Pane::open(&world.sandbox, (100, 40), &[], "init");
    pane.wait_for("name of the new account (Enter to stop):");
    pane.key("Enter");
    pane.wait_for("code 2");
    assert_eq!(fs::read(world.sandbox.config_path()).unwrap(), before);
}

#[test]
fn a_guess_is_stated_and_tried() {
    let world = World::new();
    let pane = Pane::open(&world.sandbox, (140, 40), &[], "init");
    let answer = |question: &str, text: &str| {
        wait_until(question, || {
            pane.screen().last().is_some_and(|line| line.starts_with(question)).then_some(())
        });
        pane.text(text);
        pane.key("Enter");
    };
    // Not the issuer: the document is not there.
    answer("provider (?", &format!("{}/nothing", world.server.url()));
    answer("i: it is the issuer,", "");
    answer("provider (?", world.server.url());
    answer("Enter: a person logs in, c: client credentials,", "");
    answer("client_id:", "demo");
    answer("client_secret", "");
    answer("refresh_token", "");
    answer("token_file", "");
    answer("Log in now? [Y/n]", "n");
    let screen = pane.wait_for("code 0").join("\n");
    assert!(screen.contains("error: taken as the issuer, which does not work"), "{screen}");
    let said = format!("taken as the issuer: its token endpoint is {}", world.server.token_endpoint());
    assert!(screen.contains(&said), "{screen}");
    assert!(screen.contains("next:\n  zg-tokend login "), "{screen}");
}

#[test]
fn a_server_that_does_not_answer_is_told_and_the_config_stays() {
    let sandbox = Sandbox::new();
    let args = ["--token-endpoint", "http://127.0.0.1:1/token", "--client-id", "id", "--refresh-token-stdin"];
    let output = init_live(&sandbox, &args, Some("RT\n"));
    assert_eq!(output.code, Some(69), "{output:?}");
    assert!(
        output.stdout.contains("problem  token_endpoint: no answer from http://127.0.0.1:1/token\n"),
        "{output:?}"
    );
    assert!(output.stdout.ends_with("\nnext: fix the problems above, then run `zg-tokend check --live`\n"));
    assert!(sandbox.config_path().exists());
}

#[test]
fn a_person_is_asked_for_the_part_of_an_endpoint() {
    for (provider, question, answer, lines) in [
        (
            "shopify",
            "shop in https://{shop}.myshopify.com/admin/oauth/access_token:",
            "tea",
            "shop = \"tea\"\n",
        ),
        (
            "microsoft",
            "tenant in https://login.microsoftonline.com/{tenant}/",
            "",
            "provider = \"microsoft\"\n\n",
        ),
    ] {
        let sandbox = Sandbox::new();
        let pane = Pane::open(&sandbox, (140, 40), &[], "init --offline");
        let say = |question: &str, text: &str| {
            wait_until(question, || {
                pane.screen().last().is_some_and(|line| line.starts_with(question)).then_some(())
            });
            pane.text(text);
            pane.key("Enter");
        };
        say("provider (?", provider);
        say(question, answer);
        say("client_id:", "id");
        say("client_secret", "");
        say("refresh_token", "");
        say("token_file", "");
        pane.wait_for("wrote ");
        let text = fs::read_to_string(sandbox.config_path()).unwrap();
        assert!(text.contains(lines), "{text}");
    }
}

#[test]
fn ctrl_c_leaves_nothing_and_a_terminal_that_works() {
    for answers in [&["google"][..], &["google", "id"], &["google", "id", "secret"]] {
        let sandbox = Sandbox::new();
        let pane = Pane::open(&sandbox, (100, 40), &[], "init --offline");
        for (count, answer) in answers.iter().enumerate() {
            let questions = ["provider", "client_id:", "client_secret"];
            pane.wait_for(questions[count]);
            pane.text(answer);
            pane.key("Enter");
        }
        pane.wait_for(["client_id:", "client_secret", "refresh_token"][answers.len() - 1]);
        pane.text("half an answer");
        // With Ctrl-C the kernel drops what it has not echoed yet.
        if answers.len() == 1 {
            pane.wait_for("half an answer");
        }
        pane.key("C-c");
        pane.wait_for("code 130");
        assert!(holds(&sandbox.path("config/zg-tokend"), &[]));
        let silent = pane.stty();
        assert!(
            silent.contains(" echo ") && silent.contains(" icanon ") && silent.contains("isig "),
            "{silent}"
        );
        assert_eq!(pane.screen().join("\n").contains("half an answer"), answers.len() == 1);
    }
}
