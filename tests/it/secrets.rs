//! Marked secrets wherever one can be, and a search of everything that the program gives out.

mod run;
mod search;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use zg_tokend::testing::demo::DemoClient;
use zg_tokend::testing::demo::Fault;
use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::secret::Secret;

use crate::common::world::World;
use crate::common::{Background, Sandbox, finish, leave_out, under, wait_until, write_script};
use search::Search;

pub use search::encodings;

/// The client's secret: no digit in it, so that nothing but knowing it recognises it.
const CLIENT_SECRET: &str = "plainwordzgmarkclient";

/// A user who is not root: `nobody`.
const SOMEBODY: &str = "65534";

/// Whatever tells how things are, in each of its formats. None of it prints a token by intent.
const VIEWS: [&[&str]; 8] = [
    &["status"],
    &["status", "--json"],
    &["status", "--short"],
    &["status", "--format", "prometheus"],
    &["check"],
    &["check", "--json"],
    &["check", "--live"],
    &["check", "--live", "--json"],
];

/// Answers of servers that repeat the request, and secrets of their own.
fn talkative(refresh_token: &str, search: &mut Search) -> Vec<Fault> {
    let theirs = search.plant("zgmark0theirs1secret2with3digits4");
    let jwt = search.plant("eyJzZ21hcmsiOiJoZWFkIn0.eyJzZ21hcmsiOiJib2R5In0.c2lnbmF0dXJl");
    let all = format!("{refresh_token} {CLIENT_SECRET} {theirs} {jwt}");
    let encoded: String = form_urlencoded::byte_serialize(all.as_bytes()).collect();
    let json = |members: serde_json::Value| members.to_string();
    let error = |code: &str| {
        json(
            serde_json::json!({ "error": code, "error_description": all, "error_uri": format!("https://x.test/?t={theirs}") }),
        )
    };
    let token = |member: &str, value: &str| {
        let mut members = serde_json::json!({ "access_token": "plainwordgranted", "token_type": "Bearer", "expires_in": 3600 });
        members[member] = value.into();
        Fault::reply(200, members.to_string())
    };
    let mut faults = vec![
        Fault::reply(400, error("server_error")),
        Fault::reply(400, error("temporarily_unavailable")),
        Fault::reply(400, error(&all)),
        Fault::reply(400, json(serde_json::json!({ "error": { "code": all, "message": all } }))),
        Fault::reply(503, error("invalid_grant")),
        Fault::reply(500, all.clone()),
        Fault::reply(500, format!("<html>{encoded}</html>")),
        Fault::reply(200, format!("<html>{all}</html>")),
        Fault::reply(
            200,
            json(serde_json::json!({ "access_token": format!("{theirs}\n"), "expires_in": 3600 })),
        ),
        Fault::reply(302, "")
            .with_header("location", &format!("https://x.test/{refresh_token}?t={CLIENT_SECRET}")),
        Fault::reply(302, "").with_header("location", &format!("https://{CLIENT_SECRET}:{theirs}@x.test/")),
        Fault::reply(302, "").with_header("location", &format!("https://{CLIENT_SECRET}.test/")),
        token("token_type", &theirs),
        token("token_type", CLIENT_SECRET),
        token("expires_in", &theirs),
        token("error", &all),
    ];
    for header in ["content-type", "retry-after", "date", "www-authenticate", "set-cookie", "server"] {
        let mut fault = Fault::reply(500, "");
        if let Some(reply) = &mut fault.reply {
            reply.headers = vec![(header.to_owned(), all.clone())];
        }
        faults.push(fault.clone());
        if let Some(reply) = &mut fault.reply {
            reply.status = 200;
        }
        faults.push(fault);
    }
    faults
}

/// A world whose client has [`CLIENT_SECRET`], and a search that knows it and the seed.
fn planted(extra: &str) -> (World, Search) {
    let clients = vec![DemoClient::basic("zg", CLIENT_SECRET)];
    let world = World::with(IssuerOptions { clients, ..IssuerOptions::default() });
    let mut search = Search::default();
    search.plant(CLIENT_SECRET);
    let seed = world.seed();
    search.plant(seed.expose());
    let endpoint = world.server.token_endpoint();
    world.sandbox.write_config(&format!(
        "token_endpoint = \"{endpoint}\"\nclient_id = \"zg\"\nclient_secret = \"{CLIENT_SECRET}\"\n\
         refresh_token = \"{}\"\n{extra}",
        seed.expose()
    ));
    (world, search)
}

#[test]
fn nothing_that_servers_say_gives_a_secret_away() {
    let (world, mut search) = planted("extra_params = { assertion = \"plainwordzgmarkassertion\" }\n");
    search.plant("plainwordzgmarkassertion");
    world.once_gives(0, []);
    search.plant_tokens(&world);
    let refresh_token = world.refresh_token().expose().to_owned();
    for fault in talkative(&refresh_token, &mut search) {
        // Each answer may be asked for again, at once and after a while: it stands.
        world.server.faults(|faults| faults.standing = Some(fault.clone()));
        let state = world.state();
        for args in [&["once", "--force"][..], &["once", "--force", "--json"]] {
            let mut once = Background::start(
                &mut world.sandbox.command(args.iter().copied()),
                world.sandbox.path("log"),
            );
            let posts = world.posts();
            // After the first answer and its repetition nothing new happens.
            wait_until("an answer", || (once.ended().is_some() || world.posts() > posts + 1).then_some(()));
            once.signal(Signal::TERM);
            once.wait();
            search.emit(format!("{args:?}"), once.log());
            search.run(&world.sandbox, &["once"]);
            for args in VIEWS {
                search.run(&world.sandbox, args);
            }
            world.write_state(&state);
        }
    }
    world.server.faults(|faults| faults.standing = None);
    let belongs = |path: &Path| {
        path.ends_with("config.toml") || path.ends_with("default/state") || path == world.token_file()
    };
    search.take_files(&world.sandbox.path(""), &belongs);
    search.assert_none("what servers say");
}

#[test]
fn the_whole_log_of_run_holds_no_secret() {
    search_log("text", " DEBUG ");
}

#[test]
fn nor_does_it_as_json() {
    search_log("json", "\"level\":\"debug\"");
}

/// The log in this format; a part of it tells that it is at its most talkative.
fn search_log(format: &str, talk: &str) {
    let (world, mut search) = planted("");
    let mut command = world.sandbox.command(["run", "--log-format", format]);
    command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1");
    let mut run = Background::start(&mut command, world.sandbox.path("run.log"));
    run.wait_for("supervising");
    search.plant_tokens(&world);
    let mut expected = world.posts();
    for fault in talkative(world.refresh_token().expose(), &mut search) {
        world.fault(fault);
        world.permit_force();
        run.signal(Signal::USR1);
        expected += 1;
        wait_until("a request", || (world.posts() >= expected).then_some(()));
        wait_until("the faults to be met", || {
            let mut left = true;
            world.server.faults(|faults| left = !faults.next.is_empty());
            (!left).then_some(())
        });
        expected = world.posts();
        search.plant_tokens(&world);
    }
    for name in ["cmdline", "environ", "comm", "status"] {
        search.emit(name, fs::read(format!("/proc/{}/{name}", run.id())).unwrap());
    }
    assert_eq!(run.stop().code(), Some(0), "{}", run.log());
    let log = run.log();
    assert!(log.contains(talk), "the log is at its most talkative: {log}");
    search.emit("the log", log);
    search.assert_none(&format!("the log of run as {format}"));
}

#[test]
fn a_wrong_config_does_not_show_its_secrets() {
    let mut search = Search::default();
    let sandbox = Sandbox::new();
    let words = search.plant("plainword zgmark config");
    let token = search.plant("zgmark1config2token3of4some5length");
    let rest = "token_endpoint = \"https://x.test/token\"\nclient_id = \"zg\"\n";
    for mark in [words.as_str(), token.as_str()] {
        for line in [
            "client_secret = \"MARK",
            "client_secret = MARK",
            "client_secret = 'MARK\"",
            "client_secret = [\"MARK\"]",
            "client_secret = { value = \"MARK\" }",
            "client_secret = { command = \"MARK\" }",
            "client_secrett = \"MARK\"",
            "Client_Secret = \"MARK\"",
            "refresh_token = \"MARK\" \"",
            "refresh_token = \"MARK\\q\"",
            "refresh_token = \"MARK\\u0000\"",
            "refresh_token = \"MARK\u{1}\"",
            "refresh_token = \"\"\"\nMARK\n\"\"",
            "refresh_token = \"\"\"\nMARK\nMARK\n\"\"\"\nbogus = 1",
            "refresh_token = \"MARK\"\nrefresh_token = \"MARK\"",
            "refresh_token = \"MARK\"; bogus = 1",
            "refresh_token = \"MARK\" client_secret = \"MARK\"",
            "bogus = 1 # refresh_token = \"MARK\"",
            "extra_params = { assertion = MARK }",
            "extra_params = { assertion = [\"MARK\"] }",
            "extra_params = { client_secret = \"MARK\" }",
            "extra_params = \"MARK\"",
            "extra_params = { assertion = { command = \"MARK\" } }",
            "extra_params = { assertion = { fiel = \"MARK\" } }",
            "request_headers = \"MARK\"",
            "request_headers = { apikey = \"MARK\\u0001\" }",
            "request_headers = { host = \"MARK\" }",
            "request_body = \"MARK\"",
            "request_body = [\"MARK\"]",
            "[accounts.a]\nrefresh_token = \"MARK\"\n[accounts.b]\nrefresh_token = \"MARK\"",
            "refresh_token \"MARK\"",
            "refresh_token: \"MARK\"",
            "refresh_token == \"MARK\"",
            "MARK",
            "token_endpoint = \"https://zg:MARK@x.test/token#MARK\"",
            "issuer = \"https://zg:MARK@x.test/?MARK\"",
            "push = \"MARK\"",
            "push = [{ url = \"https://x.test/?key=MARK\", api_kye = \"MARK\" }]",
            "push = [{ url = \"http://x.test/?key=MARK\", api_key = \"MARK\" }]",
            "push = [{ url = \"https://x.test/\", api_key = [\"MARK\"], headers = { x = MARK } }]",
            "push = [{ url = \"https://x.test/\", headers = { x-key = \"MARK\\u0001\" } }]",
            "probe = \"MARK\"",
            "probe = { url = \"http://x.test/?key=MARK\" }",
            "probe = { url = \"https://x.test/?key=MARK\", evry = \"MARK\" }",
        ] {
            let text = format!("{rest}{}\n", line.replace("MARK", mark));
            let text = if line.contains("token_endpoint") {
                text.replacen(rest, "client_id = \"zg\"\n", 1)
            } else {
                text
            };
            sandbox.write_config(&text);
            // With a right one, run would stay, and a check would look for servers that are not there.
            let is_wrong = sandbox.run(["status"]).code == Some(3);
            let others = [&["once"][..], &["once", "--json"], &["run"], &["run", "--log-format", "json"]];
            for args in VIEWS.into_iter().chain(others) {
                if is_wrong || !(args[0] == "run" || args.contains(&"--live")) {
                    search.run(&sandbox, args);
                }
            }
        }
    }
    search.assert_none("wrong configs");
}

/// A command that prints a secret on both outputs, and fails if it is told to.
fn write_command(path: &Path, secret: &Secret, code: u8) {
    let secret = secret.expose();
    let script = format!("#!/bin/sh\necho {secret} is the secret >&2\necho {secret}\nsleep 2\nexit {code}\n");
    write_script(path, &script);
}

/// Writes a file that others cannot read, and its directory.
fn write_private(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn sources_and_surroundings_keep_their_secrets() {
    let (world, mut search) = planted("");
    let home = world.sandbox.path("home");
    let [by_file, by_command, by_env, by_credential] = [(); 4].map(|()| world.seed());
    for seed in [&by_file, &by_command, &by_env, &by_credential] {
        search.plant(seed.expose());
    }
    let password = search.plant("zgmark1proxy2password3of4some5length");
    let credentials = world.sandbox.path("credentials");
    write_private(&home.join("seed"), by_file.expose());
    write_private(&credentials.join("login"), by_credential.expose());
    write_command(&home.join("get"), &by_command, 0);
    let accounts = [
        ("file", "\"seed\""),
        ("command", "[\"../../home/get\"]"),
        ("env", "\"SEED\""),
        ("credential", "\"login\""),
    ];
    let tables = accounts.map(|(source, place)| {
        let place = place.replace("seed", home.join("seed").to_str().unwrap());
        let target = world.token_file_of(source);
        format!(
            "[accounts.{source}]\nrefresh_token = {{ {source} = {place} }}\ntoken_file = \"{}\"\n",
            target.display()
        )
    });
    let endpoint = world.server.token_endpoint();
    world.sandbox.write_config(&format!(
        "token_endpoint = \"{endpoint}\"\nclient_id = \"zg\"\nclient_secret = \"{CLIENT_SECRET}\"\n{}",
        tables.concat()
    ));
    let command = |args: &[&str]| {
        let mut command = world.sandbox.command(args.iter().copied());
        command.env("SEED", by_env.expose()).env("CREDENTIALS_DIRECTORY", &credentials);
        command.env("HTTPS_PROXY", format!("http://zg:{password}@127.0.0.1:9"));
        command
    };
    // The command is at work: look at it from outside, as ps(1) does.
    let mut once = Background::start(&mut command(&["once"]), world.sandbox.path("log"));
    wait_until("the command", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", once.id())).ok()?;
        let children = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
        let child = children.collect::<String>().split_whitespace().next()?.to_owned();
        let cmdline = fs::read(format!("/proc/{child}/cmdline")).ok()?;
        (!cmdline.is_empty()).then(|| search.emit("the command's cmdline", cmdline))
    });
    search.emit("cmdline", fs::read(format!("/proc/{}/cmdline", once.id())).unwrap());
    assert_eq!(once.wait().code(), Some(0), "{}", once.log());
    search.emit("once", once.log());
    // Each account's state holds its own tokens, and nobody else's.
    for (own, _) in accounts {
        let state = world.state_of(own).to_string();
        let tokens: Vec<String> = ["refresh_token", "access_token"]
            .iter()
            .map(|token| world.state_of(own)[token]["value"].as_str().unwrap().to_owned())
            .collect();
        for (other, _) in accounts.iter().filter(|(other, _)| *other != own) {
            for token in &tokens {
                assert!(
                    !world.state_of(other).to_string().contains(token.as_str()),
                    "{own} in {other}: {state}"
                );
            }
        }
        for token in &tokens {
            search.plant(token);
        }
    }
    // And the same when they fail.
    write_command(&home.join("get"), &by_command, 1);
    for (path, seed) in [(home.join("seed"), &by_file), (credentials.join("login"), &by_credential)] {
        write_private(&path, &format!("{0}\n{0}", seed.expose()));
    }
    for (account, _) in accounts {
        fs::remove_dir_all(world.state_path(account, "")).unwrap();
    }
    world.fault(Fault::reply(500, by_env.expose()));
    for args in [&["once"][..], &["once", "--json"]].into_iter().chain(VIEWS) {
        search.take(&args.join(" "), &mut command(args));
    }
    // A proxy that is not there, with a password in its address.
    let elsewhere =
        "token_endpoint = \"https://nowhere.invalid/token\"\nclient_id = \"zg\"\nrefresh_token = \"x\"\n";
    world.sandbox.write_config(elsewhere);
    search.take("once by proxy", &mut command(&["once"]));
    search.assert_none("sources and surroundings");
}

#[test]
fn neither_a_debugger_nor_a_core_dump_gets_at_the_tokens() {
    if !rustix::process::geteuid().is_root() {
        return leave_out("a debugger of the same user");
    }
    let world = World::new();
    world.configure("");
    let root = world.sandbox.path("");
    let binary = root.join("zg-tokend");
    // Not by this process, whose other children would have it open for writing.
    let copied = finish(Command::new("cp").arg(env!("CARGO_BIN_EXE_zg-tokend")).arg(&binary));
    assert_eq!(copied.code, Some(0), "{copied:?}");
    let owner = format!("{SOMEBODY}:{SOMEBODY}");
    assert_eq!(finish(Command::new("chown").args(["-R", &owner]).arg(&root)).code, Some(0));
    let identity = ["--reuid", SOMEBODY, "--regid", SOMEBODY, "--clear-groups"];
    let as_somebody = |program: &str, args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(identity).arg(program).args(args).current_dir(&root);
        command
    };
    let mut command = under(["setpriv"].into_iter().chain(identity), &world.sandbox.command(["run"]));
    let mut own = as_somebody(binary.to_str().unwrap(), &["run"]);
    own.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command = own;
    let mut run = Background::start(&mut command, world.sandbox.path("run.log"));
    run.wait_for("supervising");
    let process = run.id().to_string();
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    assert!(status.contains(&format!("Uid:\t{SOMEBODY}")), "it runs as somebody: {status}");
    for name in ["environ", "mem", "maps"] {
        let read = finish(&mut as_somebody("head", &["-c", "1", &format!("/proc/{process}/{name}")]));
        assert_ne!(read.code, Some(0), "{name}: {read:?}");
        assert!(read.stderr.contains("Permission denied"), "{name}: {read:?}");
    }
    let dump = finish(&mut as_somebody("gcore", &["-o", "core", &process]));
    assert_ne!(dump.code, Some(0), "{dump:?}");
    assert!(!root.join(format!("core.{process}")).exists());
    // No signal makes it dump itself, however large a core may be.
    run.signal(Signal::ABORT);
    let ended = run.stop();
    assert!(!std::os::unix::process::ExitStatusExt::core_dumped(&ended), "{ended:?}");
    assert_eq!(ended.code(), Some(0), "{ended:?}");
}

#[test]
fn a_client_id_comes_from_where_secrets_come_from() {
    let world = World::new();
    let file = world.sandbox.path("client_id");
    fs::write(&file, "demo\n").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    for source in [
        format!("{{ file = \"{}\" }}", file.display()),
        format!("{{ command = [\"cat\", \"{}\"] }}", file.display()),
    ] {
        let (seed, endpoint) = (world.seed(), world.server.token_endpoint());
        let seed = seed.expose();
        world.sandbox.write_config(&format!(
            "token_endpoint = \"{endpoint}\"\nclient_id = {source}\nrefresh_token = \"{seed}\"\n"
        ));
        world.once_gives(0, []);
        world.assert_live();
    }
    fs::remove_file(&file).unwrap();
    world.pass_time(std::time::Duration::from_secs(3590));
    let output = world.once_gives(69, []);
    assert!(output.stderr.contains("client_id"), "{output:?}");
}
