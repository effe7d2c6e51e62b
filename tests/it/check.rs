//! `check`: what it finds, what it says, and that it costs nothing.

mod surroundings;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{Mode, chmod};
use serde_json::Value;
use zg_tokend::testing::demo::Fault;
use zg_tokend::testing::demo::IssuerOptions;

use crate::common::documents::Documents;
use crate::common::tls::{self, Leaf};
use crate::common::world::World;
use crate::common::{Output, Sandbox, finish, leave_out, under, write_script};
use crate::status::formats::assert_schema;

/// The output without what differs from run to run.
fn told(sandbox: &Sandbox, output: &Output) -> String {
    output.stdout.replace(sandbox.path("").to_str().unwrap().trim_end_matches('/'), "ROOT")
}

/// The findings about this account `default`, whose config has these lines, with no other word on
/// stderr; the level of the whole decides about the exit code.
#[track_caller]
fn assert_found(world: &World, args: &[&str], code: i32, found: &[&str]) {
    let output = world.sandbox.run(["check"].into_iter().chain(args.iter().copied()));
    let text = told(&world.sandbox, &output).replace(world.server.url(), "SERVER");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((output.code, output.stderr.as_str()), (Some(code), ""), "{text}");
    for found in found {
        assert!(text.contains(&format!("{found}\n")), "{found:?} in {lines:#?}");
    }
}

#[test]
fn the_json_is_what_its_schema_says() {
    let world = World::new();
    let open = world.sandbox.path("home/open");
    fs::create_dir(&open).unwrap();
    for (mode, code) in [(0o700, 0), (0o770, 0), (0o777, 78)] {
        fs::set_permissions(&open, fs::Permissions::from_mode(mode)).unwrap();
        world.configure(&format!("token_file = \"{}/token\"", open.display()));
        let output = world.sandbox.run(["check", "--json", "--live"]);
        assert_eq!((output.code, output.stderr.as_str()), (Some(code), ""), "{output:?}");
        assert_schema("check.schema.json", &output.stdout);
        let json: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(json["config"], world.sandbox.config_path().to_str().unwrap());
    }
    assert_eq!(world.posts(), 0);
}

#[test]
fn a_config_in_order() {
    let world = World::new();
    world.configure("");
    let output = world.sandbox.run(["check"]);
    assert_eq!(
        (output.code, told(&world.sandbox, &output).as_str(), output.stderr.as_str()),
        (
            Some(0),
            "ok       config: ROOT/config/zg-tokend/config.toml, 1 account\n\
             ok       state_dir: ROOT/state/zg-tokend will be created; ROOT/state can be written, and has locks\n\
             ok       default: refresh_token: read from the config file\n\
             ok       default: token_file: the token goes to ROOT/config/zerogravity/token\n\
             all is well; `zg-tokend check --live` asks the servers, too\n",
            ""
        )
    );
    world.once_gives(0, []);
    assert_found(&world, &[], 0, &["ok       state_dir: ROOT/state/zg-tokend can be written, and has locks"]);
    let output = world.sandbox.run(["check"]);
    assert!(output.stdout.contains("ok       default: state: holds the refresh token of 20"), "{output:?}");
}

#[test]
fn live_asks_and_spends_nothing() {
    let world = World::new();
    let seed = world.seed();
    let refresh_token = seed.expose();
    world.sandbox.write_config(&format!(
        "issuer = \"{}\"\nclient_id = \"demo\"\nrefresh_token = \"{refresh_token}\"\n",
        world.server.url()
    ));
    assert_found(
        &world,
        &["--live"],
        0,
        &[
            "ok       issuer: the token endpoint of SERVER is SERVER/token",
            "ok       token_endpoint: SERVER/token answers (HTTP 405 to a GET; nothing was spent)",
            "ok       clock: agrees with the server's to the minute\nall is well",
        ],
    );
    assert_eq!((world.posts(), world.server.audit().len()), (0, 1), "{:?}", world.server.audit());
    world.once_gives(0, []);
    assert_eq!(world.posts(), 1);
}

#[test]
fn live_tells_what_keeps_it_from_the_server() {
    let world = World::new();
    world.sandbox.write_config(
        "token_endpoint = \"http://127.0.0.1:1/token\"\nclient_id = \"demo\"\nrefresh_token = \"x\"\n",
    );
    let refused = "problem  token_endpoint: no answer from http://127.0.0.1:1/token\n         \
                   cause: connection refused\n         \
                   hint: check that the host in token_endpoint is up and reachable from here";
    assert_found(&world, &["--live"], 78, &[refused, "1 problem"]);
    assert_found(&world, &[], 0, &[]);
    let documents = Documents::start();
    world.sandbox.write_config(&format!(
        "token_endpoint = \"{0}/token\"\nclient_id = \"demo\"\nrefresh_token = \"x\"\n",
        documents.url()
    ));
    documents.put("/token", 503, "date: Fri, 15 Jan 2010 08:00:00 GMT\r\n", "");
    let output = world.sandbox.run(["check", "--live"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    for words in [
        "warning  token_endpoint: http://127.0.0.1:",
        "answers (HTTP 503 to a GET; nothing was spent)\n         cause: the server has a problem\n         hint: wait, and check again\n",
        "warning  clock: the clock here is ",
        " ahead of the server's\n         hint: set the clock: date, timedatectl\n2 warnings\n",
    ] {
        assert!(output.stdout.contains(words), "{words:?}: {output:?}");
    }
}

#[test]
fn live_judges_certificates_proxies_and_issuers() {
    for (leaf, words) in [
        (Leaf::Expired, "has expired: it was valid until 2001-01-01 00:00 UTC"),
        (Leaf::OtherName, "the server's certificate is not for localhost, but for elsewhere.test"),
        (Leaf::Unknown, "from a certificate authority that is not trusted: test CA"),
    ] {
        let sandbox = Sandbox::new();
        let ca_file = sandbox.path("ca.pem");
        let server = tls::serve_as(leaf, IssuerOptions::default(), &ca_file);
        sandbox.write_config(&format!(
            "token_endpoint = \"{}\"\nclient_id = \"demo\"\nrefresh_token = \"x\"\nca_file = \"{}\"\n",
            server.token_endpoint(),
            ca_file.display()
        ));
        let output = sandbox.run(["check", "--live"]);
        assert!(output.code == Some(78) && output.stdout.contains(words), "{words}: {output:?}");
    }
    let world = World::new();
    world.sandbox.write_config(
        "token_endpoint = \"https://login.example/token\"\nclient_id = \"demo\"\nrefresh_token = \"x\"\n",
    );
    let live = |proxy: &str| finish(world.sandbox.command(["check", "--live"]).env("HTTPS_PROXY", proxy));
    let output = live("http://user:SECRET@127.0.0.1:1");
    assert!(
        output.code == Some(78) && output.stdout.contains("the proxy 127.0.0.1:1 cannot be reached"),
        "{output:?}"
    );
    let unknown = live("ftp://user:SECRET@127.0.0.1:1");
    assert!(unknown.stdout.contains("is neither http, https, socks5 nor socks5h"), "{unknown:?}");
    assert!(unknown.stdout.contains("or HTTPS_PROXY, ALL_PROXY and NO_PROXY"), "{unknown:?}");
    assert!(![output.stdout, unknown.stdout].concat().contains("SECRET"));
    // An issuer that names another one.
    let documents = Documents::start();
    documents.discover("openid-configuration", "https://other.example", "https://other.example/token");
    world.sandbox.write_config(&format!(
        "issuer = \"{}\"\nclient_id = \"demo\"\nrefresh_token = \"x\"\n",
        documents.url()
    ));
    let output = world.sandbox.run(["check", "--live"]);
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stdout.contains("hint: if that is your provider, set issuer = "), "{output:?}");
}

#[test]
fn secrets_are_read_and_never_shown() {
    let world = World::new();
    let home = world.sandbox.path("home");
    let write = |name: &str, text: &str, mode: u32| {
        fs::write(home.join(name), text).unwrap();
        chmod(home.join(name), Mode::from_raw_mode(mode)).unwrap();
    };
    write("good", "SECRET\n", 0o600);
    write("loose", "SECRET", 0o644);
    write("two", "SECRET\nSECRET", 0o600);
    write_script(&home.join("fails"), "#!/bin/sh\necho SECRET; exit 1");
    let home = home.display();
    let endpoint = format!("token_endpoint = \"{}\"\nclient_id = \"demo\"\n", world.server.token_endpoint());
    for (source, code, found) in [
        (
            format!("file = \"{home}/good\""),
            0,
            "ok       default: refresh_token: read from file ROOT/home/good",
        ),
        (
            format!("file = \"{home}/none\""),
            78,
            "problem  default: refresh_token: cannot read refresh_token from file ROOT/home/none\n         \
             cause: No such file or directory (os error 2)\n         \
             hint: write the secret into ROOT/home/none, mode 0600, or correct the config",
        ),
        (
            format!("file = \"{home}/loose\""),
            78,
            "problem  default: refresh_token: the refresh_token file ROOT/home/loose can be read or changed by other users \
             (mode 0644)\n         hint: chmod 600 ROOT/home/loose",
        ),
        (
            format!("file = \"{home}/two\""),
            78,
            "problem  default: refresh_token: refresh_token from file ROOT/home/two has more than one line\n         \
             hint: it must be the secret alone, on one line",
        ),
        (
            "env = \"ZG_NONE\"".to_owned(),
            78,
            "problem  default: refresh_token: the environment variable ZG_NONE is not set\n         \
             hint: set ZG_NONE in the environment of zg-tokend: a service or cron job does not have the variables of your shell",
        ),
        (
            "credential = \"rt\"".to_owned(),
            0,
            "warning  default: refresh_token: no systemd credential rt: \
             CREDENTIALS_DIRECTORY is not set\n         \
             hint: only a systemd service has credentials: add LoadCredential=rt:PATH to its unit and restart it",
        ),
        (format!("command = [\"{home}/fails\"]"), 78, "1 problem"),
    ] {
        world.sandbox.write_config(&format!("{endpoint}refresh_token = {{ {source} }}\n"));
        assert_found(&world, &[], code, &[found]);
        assert!(!world.sandbox.run(["check"]).stdout.contains("SECRET"), "{source}");
    }
    world.sandbox.write_config(&endpoint);
    assert_found(
        &world,
        &[],
        78,
        &[
            "problem  default: refresh_token: there is none, neither in the config nor in the state\n         \
           hint: log in, and give the refresh token to `zg-tokend set`, or set refresh_token",
        ],
    );
}

#[test]
fn an_unreadable_seed_matters_less_once_there_is_a_state() {
    let world = World::new();
    let path = world.sandbox.path("home/seed");
    fs::write(&path, world.seed().expose()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    world.configure_inputs(&format!("refresh_token = {{ file = \"{}\" }}", path.display()));
    world.once_gives(0, []);
    fs::remove_file(&path).unwrap();
    assert_found(&world, &[], 0, &["1 warning; `zg-tokend check --live` asks the servers, too"]);
    // A dead login is a problem, whatever else is in order.
    world.fault(Fault::reply(400, r#"{"error":"invalid_grant"}"#));
    world.once(["--force"]);
    let output = world.sandbox.run(["check"]);
    assert!(
        output.code == Some(78) && output.stdout.contains("default: state: the server refuses"),
        "{output:?}"
    );
    // Until the user has logged in again.
    fs::write(&path, world.seed().expose()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_found(
        &world,
        &[],
        0,
        &["ok       default: state: the login in the config is newer, and will be used"],
    );
}

#[test]
fn places_are_judged() {
    let world = World::new();
    let home = world.sandbox.path("home");
    let configure = |path: &Path, extra: &str| {
        world.configure(&format!("token_file = \"{}\"\n{extra}", path.display()));
    };
    symlink(home.join("real"), home.join("link")).unwrap();
    configure(&home.join("link"), "");
    assert_found(
        &world,
        &[],
        0,
        &["ok       default: token_file: the token goes to ROOT/home/real, configured as ROOT/home/link"],
    );
    fs::create_dir(home.join("group")).unwrap();
    fs::set_permissions(home.join("group"), fs::Permissions::from_mode(0o770)).unwrap();
    configure(&home.join("group/token"), "");
    assert_found(
        &world,
        &[],
        0,
        &[
            "         hint: chmod g-w ROOT/home/group",
            "1 warning; `zg-tokend check --live` asks the servers, too",
        ],
    );
    configure(&home.join("token"), "token_file_mode = \"0644\"");
    assert_found(
        &world,
        &[],
        0,
        &[
            "warning  config: token_file_mode 0644 of account default lets every user of this machine read the \
           token\n         hint: set token_file_mode = \"0640\", and token_file_group to a group that the readers are in",
        ],
    );
    fs::create_dir(home.join("open")).unwrap();
    fs::set_permissions(home.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    configure(&home.join("open/token"), "");
    assert_found(
        &world,
        &[],
        78,
        &[
            "problem  default: token_file: directory ROOT/home/open can be written by anybody (mode 0777)\n         \
           hint: chmod o-w ROOT/home/open, or chmod +t ROOT/home/open; in Kubernetes, give the emptyDir medium: Memory",
        ],
    );
    configure(&home.join("token"), &format!("state_dir = \"{}\"", home.join("open").display()));
    assert_found(
        &world,
        &[],
        78,
        &["problem  state_dir: directory ROOT/home/open can be written by anybody (mode 0777)\n         \
           hint: chmod o-w ROOT/home/open, or chmod +t ROOT/home/open; in Kubernetes, give the emptyDir medium: Memory"],
    );
    fs::write(home.join("file"), "").unwrap();
    configure(&home.join("token"), &format!("state_dir = \"{}\"", home.join("file/state").display()));
    assert_found(
        &world,
        &[],
        78,
        &[
            "problem  state_dir: ROOT/home/file is not a directory\n         hint: remove it, or choose another path",
        ],
    );
}

#[test]
fn a_file_system_without_locks_is_a_problem() {
    let world = World::new();
    world.configure("");
    for (error, words) in [
        ("ENOLCK", "problem  state_dir: the file system of ROOT/state has no locks\n         cause: "),
        ("EOPNOTSUPP", "hint: set state_dir to a directory on a local file system\n"),
    ] {
        let inject = format!("inject=flock:error={error}");
        let command = world.sandbox.command(["check"]);
        let output = finish(&mut under(["strace", "-f", "-o", "/dev/null", "-e", &inject], &command));
        let text = told(&world.sandbox, &output);
        assert!(output.code == Some(78) && text.contains(words), "{error}: {output:?}");
    }
    // A lock that somebody holds is a lock that works.
    let inject = "inject=flock:error=EAGAIN";
    let output = finish(&mut under(
        ["strace", "-f", "-o", "/dev/null", "-e", inject],
        &world.sandbox.command(["check"]),
    ));
    assert_eq!(output.code, Some(0), "{output:?}");
}

/// The output with this variable's directory on a read-only mount; `None` without root.
fn found_with_read_only(world: &World, variable: &str) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        leave_out("a read-only mount");
        return None;
    }
    let script = format!("mount -t tmpfs -o ro none \"${variable}\" && exec \"$0\" \"$@\"");
    let output = finish(&mut under(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script],
        &world.sandbox.command(["check"]),
    ));
    assert_eq!(output.code, Some(78), "{output:?}");
    Some(told(&world.sandbox, &output))
}

#[test]
fn a_state_directory_that_cannot_be_written_is_a_problem() {
    let world = World::new();
    world.configure("");
    let Some(found) = found_with_read_only(&world, "XDG_STATE_HOME") else { return };
    let problem = "problem  state_dir: cannot write into ROOT/state\n         \
                   cause: Read-only file system (os error 30)\n         \
                   hint: set state_dir to a directory that can be written\n";
    assert!(found.contains(problem), "{found}");
}

#[test]
fn a_token_directory_that_cannot_be_created_is_a_problem() {
    let world = World::new();
    world.configure(&format!("token_file = \"{}\"", world.sandbox.path("data/new/token").display()));
    let Some(found) = found_with_read_only(&world, "XDG_DATA_HOME") else { return };
    let problem = "problem  default: token_file: cannot create the directory ROOT/data/new\n         \
                   cause: Read-only file system (os error 30)\n         hint: remount it writable; ";
    assert!(found.contains(problem), "{found}");
}

#[test]
fn a_state_that_will_not_do_is_told() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let path = world.state_path("default", "state");
    fs::write(&path, r#"{"version":7}"#).unwrap();
    let newer = "problem  default: state: state file ROOT/state/zg-tokend/default/state has version 7; this zg-tokend \
                 reads versions up to 2\n         hint: install the newer zg-tokend again; nothing has changed";
    assert_found(&world, &[], 78, &[newer]);
    fs::write(&path, "garbage").unwrap();
    assert_found(
        &world,
        &[],
        0,
        &["         hint: the next refresh begins anew with the configured refresh_token"],
    );
    let directory = path.parent().unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    assert_found(&world, &[], 0, &["         hint: chmod 700 ROOT/state/zg-tokend/default"]);
}

#[test]
fn the_network_s_needs_are_looked_at_without_it() {
    let world = World::new();
    let ca_file = world.sandbox.path("home/ca.pem");
    let config = format!(
        "token_endpoint = \"https://login.example/token\"\nclient_id = \"demo\"\nrefresh_token = \"x\"\n\
         ca_file = \"{}\"\n",
        ca_file.display()
    );
    world.sandbox.write_config(&config);
    assert_found(
        &world,
        &[],
        78,
        &[
            "problem  default: token_endpoint: cannot read the root certificates in ROOT/home/ca.pem: No such file \
           or directory (os error 2)\n         hint: install ca-certificates, or name a PEM file in ca_file that this user can read",
        ],
    );
    fs::write(&ca_file, "no certificate").unwrap();
    assert_found(
        &world,
        &[],
        78,
        &["problem  default: token_endpoint: no usable certificate in ROOT/home/ca.pem\n         \
           hint: install ca-certificates, or name a PEM file in ca_file that this user can read"],
    );
}

#[test]
fn a_wrong_config_is_a_finding_in_json() {
    let world = World::new();
    world.sandbox.write_config("client_secret = \"SECRET\"\nclient_idd = 1\n");
    let output = world.sandbox.run(["check", "--json"]);
    assert_eq!((output.code, output.stderr.as_str()), (Some(78), ""));
    assert_schema("check.schema.json", &output.stdout);
    let json: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((json["level"].as_str(), json["findings"].as_array().unwrap().len()), (Some("problem"), 1));
    assert_eq!(json["findings"][0]["hint"], "did you mean `client_id`?");
    assert!(!output.stdout.contains("SECRET"));
}
