//! A wrong config: where, which key, what to do, and never a secret.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::{Mode, chmod};

use crate::common::world::World;
use crate::common::{Output, Sandbox};

const BASE: &str = "token_endpoint = \"https://login.example/token\"\nclient_id = \"id\"\n";

/// The output of `check` and `once`; both must be the same, and end with 78.
#[track_caller]
fn refused(sandbox: &Sandbox) -> Output {
    let (check, once) = (sandbox.run(["check"]), sandbox.run(["once"]));
    assert_eq!((check.code, once.code), (Some(78), Some(78)), "{check:?}");
    assert_eq!((check.stderr.as_str(), check.stdout.as_str()), (once.stderr.as_str(), ""));
    assert!(!sandbox.path("state/zg-tokend").exists());
    check
}

#[test]
fn an_error_names_its_place_and_the_way_out() {
    for (line, place, key, caret, hint) in [
        (
            "refesh_token = \"SECRET\"",
            "3:1",
            "`refesh_token`",
            "| ^^^^^^^^^^^^",
            "did you mean `refresh_token`?",
        ),
        ("timeout = 30", "3:11", "`timeout`", "|           ^^", "timeout = \"30s\""),
        ("scope = \"a\"\nscope = \"b\"", "4:1", "`scope`", "| ^^^^^", "each key once"),
        ("refresh_token = SECRET", "3:17", "`refresh_token`", "|                 ^", "double quotes"),
        ("[work]\nscope = \"a\"", "3:2", "`work`", "|  ^^^^", "[accounts.NAME]"),
        ("[accounts.\"../x\"]\ntoken_file = \"a\"", "3:11", "`accounts`", "|           ^^^^^^", ""),
        ("token_file_mode = \"0666\"", "3:19", "`token_file_mode`", "|                   ^^^^^^", "0600"),
        (
            "token_format = \"{tokn}\"",
            "3:16",
            "`token_format`",
            "|                ^^^^^^^^",
            "{access_token}",
        ),
        (
            "refresh_token = { flie = \"SECRET\" }",
            "3:19",
            "`flie`",
            "|                   ^^^^",
            "did you mean",
        ),
        (
            "[accounts.a]\nrefresh_token = \"SECRET\"\ntoken_file = \"a\"\n\
             [accounts.b]\nrefresh_token = \"SECRET\"\ntoken_file = \"b\"",
            "7:17",
            "`refresh_token`",
            "|                 ^",
            "as outputs",
        ),
        (
            "[accounts.a]\ntoken_file = \"a\"\n[accounts.b]\ntoken_file = \"x/../a\"",
            "6:14",
            "`token_file`",
            "|              ^",
            "choose another path",
        ),
        ("token_file = \"config.toml\"", "3:14", "`token_file`", "|              ^", "choose another path"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write_config(&format!("{BASE}{line}\n"));
        let output = refused(&sandbox);
        let path = sandbox.config_path();
        let (first, rest) = output.stderr.split_once('\n').unwrap();
        assert!(first.starts_with(&format!("error: {}:{place}: ", path.display())), "{line}: {output:?}");
        assert!(first.contains(key), "{line}: {output:?}");
        assert!(rest.contains(caret), "{line}: {output:?}");
        let hinted = rest.lines().find(|line| line.starts_with("hint: ")).unwrap_or_default();
        assert!(hinted.contains(hint), "{line}: {output:?}");
        assert!(!output.stderr.contains("SECRET"), "{line}: {output:?}");
    }
}

#[test]
fn a_secret_in_the_place_of_a_name_is_refused_and_not_shown() {
    let hint = "hint: write refresh_token = \"…\" for the secret itself; if it is the name of a file, write its full path\n";
    for (form, value, column, caret) in [
        ("env", "\"1//0gSECRET\"", 25, "{ env = \"…\" }"),
        ("env", "\"SECRETa1B2c3D4e5F6g7H8\"", 25, "{ env = \"…\" }"),
        ("file", "\"1//0gSECRET\"", 26, "{ file = \"…\" }"),
        ("credential", "\"1//0gSECRET\"", 32, "{ credential = \"…\" }"),
        ("command", "[\"1//0gSECRET\"]", 29, "{ command = … }"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write_config(&format!("{BASE}refresh_token = {{ {form} = {value} }}\n"));
        let output = refused(&sandbox);
        let first = format!(
            "error: {}:3:{column}: `refresh_token` has a secret where `{form}` needs a name\n",
            sandbox.config_path().display()
        );
        assert!(output.stderr.starts_with(&first) && output.stderr.ends_with(hint), "{output:?}");
        assert!(output.stderr.contains(&format!("3 | refresh_token = {caret}")), "{output:?}");
        assert!(!output.stderr.contains("SECRET"), "{output:?}");
    }
    // A word that is no name for other reasons is not shown either, and neither is a secret beside a typo.
    for line in
        ["{ env = \"1//0gSECRET=\" }", "{ enw = \"1//0gSECRET\" }", "{ env = \"1//0gSECRET\", x = 1 }"]
    {
        let sandbox = Sandbox::new();
        sandbox.write_config(&format!("{BASE}refresh_token = {line}\n"));
        assert!(!refused(&sandbox).stderr.contains("SECRET"), "{line}");
    }
}

#[test]
fn a_config_with_a_secret_is_for_its_owner_alone() {
    let sandbox = Sandbox::new();
    let seed = sandbox.config_path().with_file_name("seed");
    fs::write(&seed, "SECRET").unwrap();
    chmod(&seed, Mode::from_raw_mode(0o600)).unwrap();
    for (text, mode, code) in [
        ("refresh_token = \"SECRET\"", 0o644, 78),
        ("refresh_token = \"SECRET\"", 0o640, 0),
        ("client_secret = \"SECRET\"", 0o604, 78),
        ("refresh_token = \"SECRET\"", 0o600, 0),
        ("push = [{ url = \"https://a.example\", api_key = \"SECRET\" }]", 0o644, 78),
        ("push = [{ url = \"https://a.example\", headers = { authorization = \"SECRET\" } }]", 0o644, 78),
        ("probe = { url = \"https://a.example/?key=SECRET\" }", 0o644, 78),
        (
            "refresh_token = { file = \"seed\" }\n\
             push = [{ url = \"https://a.example\", headers = { content-type = \"text/plain\" } }]",
            0o644,
            0,
        ),
        ("refresh_token = { file = \"seed\" }", 0o644, 0),
        ("refresh_token = { file = \"seed\" }", 0o646, 78),
    ] {
        sandbox.write_config(&format!("{BASE}{text}\n"));
        chmod(sandbox.config_path(), Mode::from_raw_mode(mode)).unwrap();
        let output = sandbox.run(["check"]);
        assert_eq!(output.code, Some(code), "{text} {mode:o}: {output:?}");
        assert!(code == 0 || output.stderr.contains("hint: chmod "), "{output:?}");
        assert!(!output.stderr.contains("SECRET"));
    }
}

#[test]
fn a_missing_config_shows_one_to_start_from() {
    let sandbox = Sandbox::new();
    let output = refused(&sandbox);
    assert!(output.stderr.contains(sandbox.config_path().to_str().unwrap()), "{output:?}");
    assert!(output.stderr.contains("zg-tokend demo") && output.stderr.contains("client_id = "), "{output:?}");
    let named = sandbox.run(["once", "--config", "nowhere.toml"]);
    assert_eq!(named.code, Some(78));
    assert!(named.stderr.contains("home/nowhere.toml"), "{named:?}");
}

#[test]
fn run_refuses_a_wrong_config_too() {
    let sandbox = Sandbox::new();
    sandbox.write_config("nonsense");
    assert_eq!(sandbox.run(["run"]).code, Some(78));
}

#[test]
fn the_config_is_found_by_flag_then_variable_then_place() {
    let sandbox = Sandbox::new();
    sandbox.write_config(&format!("{BASE}token_file = \"by-place\"\n"));
    for name in ["by-flag", "by-variable"] {
        fs::write(sandbox.path("home").join(name), format!("{BASE}token_file = \"{name}.token\"\n")).unwrap();
    }
    let by_place = sandbox.run(["check"]);
    assert!(by_place.stdout.contains("config/zg-tokend/by-place\n"), "{by_place:?}");
    for (args, name) in [
        (&["check"][..], "by-variable"),
        (&["check", "--config", "by-flag"], "by-flag"),
        (&["--config", "by-flag", "check"], "by-flag"),
    ] {
        let mut command = sandbox.command(args.iter().copied());
        let output = crate::common::finish(command.env("ZG_TOKEND_CONFIG", "by-variable"));
        assert!(output.stdout.contains(&format!("home/{name}.token\n")), "{output:?}");
    }
}

#[test]
fn check_looks_at_the_place_of_the_token_file() {
    let sandbox = Sandbox::new();
    let directory = sandbox.path("home/token");
    fs::create_dir(&directory).unwrap();
    sandbox.write_config(&format!("{BASE}token_file = \"{}\"\n", directory.display()));
    let output = sandbox.run(["check"]);
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stdout.contains("is a directory"), "{output:?}");

    let open = sandbox.path("home/open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    sandbox.write_config(&format!("{BASE}token_file = \"{}/token\"\n", open.display()));
    let output = sandbox.run(["check"]);
    assert_eq!(output.code, Some(78), "{output:?}");
    assert_eq!(fs::read_dir(open).unwrap().count(), 0);
}

#[test]
fn a_misplaced_token_file_costs_no_request() {
    let world = World::new();
    let directory = world.sandbox.path("home/token");
    fs::create_dir(&directory).unwrap();
    world.configure(&format!("token_file = \"{}\"", directory.display()));
    world.once_gives(78, []);
    assert_eq!(world.posts(), 0);
}

#[test]
fn the_token_file_is_as_configured() {
    let world = World::new();
    let path = world.sandbox.path("home/new/header");
    world.configure(&format!(
        "token_file = \"{}\"\ntoken_file_mode = \"0640\"\n\
         token_format = \"Authorization: {{token_type}} {{access_token}}\\n\"",
        path.display()
    ));
    world.once_gives(0, []);
    let text = fs::read_to_string(&path).unwrap();
    let token = text.strip_prefix("Authorization: Bearer ").unwrap().strip_suffix('\n').unwrap();
    assert!(world.server.is_live(&zg_tokend::testing::secret::Secret::new(token)));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o7777, 0o710);
}

#[test]
fn a_changed_format_or_place_of_the_token_costs_no_request() {
    let world = World::new();
    let seed = world.configure("");
    world.once_gives(0, []);
    let token = world.token();
    world.configure_seed(&seed, "token_format = \"{access_token}\\n\"");
    world.once_gives(0, []);
    assert_eq!(world.token().expose(), format!("{}\n", token.expose()));
    world.configure_seed(&seed, "token_file = \"elsewhere\"");
    world.once_gives(0, []);
    let elsewhere = world.sandbox.config_path().with_file_name("elsewhere");
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), token.expose());
    assert_eq!(world.posts(), 1);
}

#[test]
fn the_refresh_token_may_leave_the_config_once_it_was_used() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    world.configure_inputs("");
    world.once_gives(0, ["--force"]);
    world.assert_live();
    assert_eq!(world.status().1, 0);
}

/// The question of a reload: whether the config can be taken over, not whether all is well.
#[test]
fn the_syntax_alone_says_nothing_of_what_it_names() {
    let world = World::new();
    world.configure_inputs("refresh_token = { file = \"not-there\" }");
    let output = world.sandbox.run(["check", "--syntax"]);
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (Some(0), "", ""),
        "{output:?}"
    );
    assert_eq!(world.sandbox.run(["check"]).code, Some(78));
    world.configure_inputs("refresh_tokn = \"x\"");
    let output = world.sandbox.run(["check", "--syntax"]);
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stderr.contains("refresh_tokn"), "{output:?}");
}

/// Two paths to one file are one file, whatever links lie between them.
#[test]
fn links_hide_no_collision() {
    let world = World::new();
    let (real, link) = (world.sandbox.path("home/real"), world.sandbox.path("home/link"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink("real", &link).unwrap();
    let seed = world.seed();
    let (one, two) = (world.seed(), world.seed());
    fs::write(real.join("t"), seed.expose()).unwrap();
    fs::set_permissions(real.join("t"), fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("../home/link/t", world.sandbox.path("home/other")).unwrap();
    let other = world.sandbox.path("home/other");
    let (real, link) = (real.display(), link.display());
    let accounts = |a: &str, b: &str| {
        format!(
            "[accounts.a]\nrefresh_token = \"{}\"\ntoken_file = \"{a}\"\n\
             [accounts.b]\nrefresh_token = \"{}\"\ntoken_file = \"{b}\"\n",
            one.expose(),
            two.expose()
        )
    };
    for (lines, what) in [
        (
            format!("token_file = \"{link}/t\"\nrefresh_token = {{ file = \"{real}/t\" }}"),
            "the refresh_token",
        ),
        (
            format!("token_file = \"{real}/t\"\nrefresh_token = {{ file = \"{link}/t\" }}"),
            "the refresh_token",
        ),
        (
            format!("token_file = \"{}\"\nrefresh_token = {{ file = \"{real}/t\" }}", other.display()),
            "the refresh_token",
        ),
        // Neither the files nor their directory are there yet.
        (accounts(&format!("{real}/new/x"), &format!("{link}/new/x")), "that of account `a`"),
        (accounts(&format!("{real}/x"), &format!("{link}/x")), "that of account `a`"),
        (format!("token_file = \"{link}/s/x\"\nrefresh_token = \"x\"\nstate_dir = \"{real}\""), "state_dir"),
    ] {
        world.configure_inputs(&lines);
        let output = world.once_gives(78, []);
        assert!(
            output.stderr.contains("`token_file`") && output.stderr.contains(what),
            "{lines}: {output:?}"
        );
        assert!(output.stderr.contains("hint: "), "{output:?}");
    }
    assert_eq!((world.posts(), fs::read_to_string(other).unwrap().as_str()), (0, seed.expose()));
    // Names that only look alike are two files.
    world.configure_inputs(&accounts(&format!("{real}/one"), &format!("{link}/two")));
    world.once_gives(0, []);
}
