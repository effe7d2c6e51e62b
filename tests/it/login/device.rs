//! Logins by device code.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use zg_tokend::testing::demo::Fault;

use super::logout::{logout_gives, revocations};
use super::{LoginRun, configure, fetch, log_in, quick_devices};
use crate::common::world::World;
use crate::common::{Background, Sandbox, finish, wait_until};

/// `login --device --json`, which needs no terminal.
pub fn start_json(sandbox: &Sandbox) -> Background {
    let mut command = sandbox.command(["login", "--device", "--json"]);
    Background::start(&mut command, sandbox.path("device.log"))
}

/// The events so far.
fn events(login: &Background) -> Vec<Value> {
    login.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[track_caller]
pub fn code(login: &Background) -> Value {
    wait_until("the code", || events(login).into_iter().find(|event| event["event"] == "code"))
}

#[track_caller]
pub fn decide(code: &Value, decision: &str) {
    let url = code["verification_uri"].as_str().unwrap();
    let user_code = code["user_code"].as_str().unwrap();
    let data = format!("user_code={user_code}&decision={decision}&user=alice");
    let answer = fetch(["-d", &data, url]);
    assert!(answer.status == 200 && answer.body.contains("The device goes on by itself"), "{answer:?}");
}

#[test]
fn a_login_by_device_code_survives_trouble() {
    let world = quick_devices(600);
    configure(&world, "");
    for (status, body) in
        [(400, r#"{"error":"slow_down"}"#), (503, "busy"), (400, r#"{"error":"authorization_pending"}"#)]
    {
        world.fault(Fault::reply(status, body));
    }
    world.fault(Fault { drop: true, ..Fault::default() });
    let mut login = start_json(&world.sandbox);
    decide(&code(&login), "allow");
    assert_eq!(login.wait().code(), Some(0), "{}", login.log());
    let events = events(&login);
    let last = events.iter().find(|event| event["event"] == "logged_in").unwrap();
    assert_eq!((&last["email"], &last["account"]), (&"alice@example.com".into(), &"default".into()));
    assert!(events.iter().any(|event| event["event"] == "trouble"), "{events:?}");
    assert!(world.posts() >= 5, "none of them ended it");
    let shown = login.log();
    for secret in [world.token(), world.refresh_token()] {
        assert!(!shown.contains(secret.expose()), "{shown}");
    }
    assert!(!shown.contains("dc_"), "the device code is a secret: {shown}");
    world.assert_live();
    world.once_gives(0, ["--force"]);
}

#[test]
fn a_denial_ends_it() {
    let world = quick_devices(600);
    configure(&world, "");
    let mut login = start_json(&world.sandbox);
    decide(&code(&login), "deny");
    assert_eq!(login.wait().code(), Some(77), "{}", login.log());
    let failed = events(&login).pop().unwrap();
    assert_eq!((&failed["event"], &failed["kind"]), (&"failed".into(), &"access_denied".into()), "{failed}");
    assert!(!world.token_file().exists());
}

#[test]
fn a_code_that_expires_ends_it_where_nobody_can_ask_for_another() {
    let world = quick_devices(1);
    configure(&world, "");
    let mut login = start_json(&world.sandbox);
    assert_eq!(login.wait().code(), Some(69), "{}", login.log());
    assert!(login.log().contains("the code expired before it was entered"), "{}", login.log());
}

#[test]
fn a_person_gets_another_code_with_enter() {
    let world = quick_devices(1);
    configure(&world, "");
    let mut login = LoginRun::start(&world, "--device --no-qr");
    login.process.wait_for("The code has expired. Press Enter for another one");
    world
        .server
        .issuer(|issuer| issuer.options_mut().device_code_lifetime = std::time::Duration::from_secs(600));
    login.type_text("\r");
    let user_code = wait_until("the second code", || {
        let log = login.process.log();
        let codes: Vec<_> = log.lines().map(str::trim).filter(|line| is_user_code(line)).collect();
        codes.get(1).map(|code| (*code).to_owned())
    });
    let url = format!("{}/device", world.server.url());
    fetch(["-d", &format!("user_code={user_code}&decision=allow&user=alice"), &url]);
    let shown = login.ends_with(0);
    assert!(shown.contains("Never enter a code that somebody else sent you"), "{shown}");
    world.assert_live();
}

pub(super) fn is_user_code(line: &str) -> bool {
    line.len() == 9
        && line.as_bytes()[4] == b'-'
        && line.bytes().all(|byte| byte == b'-' || byte.is_ascii_uppercase())
}

/// The picture as a camera sees it: each character is two modules, one above the other, in black on
/// white whatever the colours of the terminal are. A portable bitmap, eight pixels a module.
fn picture(shown: &str) -> String {
    const COLOURS: &str = "\u{1b}[38;5;16;48;5;231m";
    let lines = shown.lines().filter_map(|line| line.strip_prefix(COLOURS));
    let lines: Vec<&str> = lines.map(|line| line.split('\u{1b}').next().unwrap()).collect();
    let row = |line: &str, upper: bool| {
        let module = |c| if c == '█' || c == if upper { '▀' } else { '▄' } { "1 " } else { "0 " };
        let row: String = line.chars().map(|c| module(c).repeat(8)).collect();
        format!("{row}\n").repeat(8)
    };
    let rows: String = lines.iter().map(|line| row(line, true) + &row(line, false)).collect();
    let columns = lines.first().map_or(0, |line| line.chars().count());
    format!("P1\n{} {}\n{rows}", columns * 8, lines.len() * 16)
}

#[test]
fn a_camera_reads_the_picture_of_the_address() {
    let world = quick_devices(600);
    configure(&world, "");
    let mut login = LoginRun::start(&world, "--device");
    login.process.wait_for("The code works for 10 min");
    let shown = login.process.log();
    let image = world.sandbox.path("code.pbm");
    fs::write(&image, picture(&shown)).unwrap();
    let read = finish(std::process::Command::new("zbarimg").arg("-q").arg("--raw").arg(&image));
    let user_code = shown.lines().map(str::trim).find(|line| is_user_code(line)).unwrap();
    assert_eq!(
        read.stdout.trim(),
        format!("{}/device?user_code={user_code}", world.server.url()),
        "{read:?}"
    );
    login.type_text("\u{3}");
    login.ends_with(1);

    // Where it does not fit, and where colours are not wanted, there is none.
    for (line, environment) in [("--device --no-qr", None), ("--device", Some(("NO_COLOR", "1")))] {
        let mut login = LoginRun::start_in(&world.sandbox, line, environment.as_slice());
        login.process.wait_for("The code works for 10 min");
        assert!(!login.process.log().contains('▀'), "{}", login.process.log());
        login.type_text("\u{3}");
        login.ends_with(1);
    }
}

#[test]
fn a_server_without_device_codes_gets_a_login_by_browser() {
    let world = World::new();
    let issuer = world.server.url();
    configure(&world, &format!("device_authorization_endpoint = \"{issuer}/nothing\"\n"));
    let mut login = LoginRun::start(&world, "--device");
    let redirect = super::consent(&login.url(), "alice");
    super::follow(&redirect);
    let shown = login.ends_with(0);
    assert!(shown.contains("logging in by browser instead"), "{shown}");
}

#[test]
fn the_endpoints_of_a_login_may_stand_where_secrets_do() {
    let world = quick_devices(600);
    let home = world.sandbox.path("home");
    let write = |name: &str, value: &str| {
        let path = home.join(name);
        fs::write(&path, value).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let url = world.server.url();
    let endpoints = [
        ("authorization_endpoint", "authorize"),
        ("device_authorization_endpoint", "device_authorization"),
        ("revocation_endpoint", "revoke"),
    ];
    let lines = endpoints.map(|(name, path)| {
        write(name, &format!("{url}/{path}\n"));
        format!("{name} = {{ file = \"{}\" }}\n", home.join(name).display())
    });
    world.sandbox.write_config(&format!(
        "token_endpoint = \"{}\"\nclient_id = \"demo\"\n{}",
        world.server.token_endpoint(),
        lines.concat()
    ));
    let mut login = start_json(&world.sandbox);
    decide(&code(&login), "allow");
    assert_eq!(login.wait().code(), Some(0), "{}", login.log());
    world.assert_live();
    logout_gives(&world, 0, &[]);
    assert_eq!(revocations(&world), 1);
    assert_eq!(log_in(&world, "", "bob").0, 0);
    world.assert_live();
    // One that cannot be read, or is none, is named before a person is asked.
    let device = "device_authorization_endpoint";
    write(device, "http://192.0.2.1/device\n");
    let refused = finish(&mut world.sandbox.command(["login", "--device", "--json"]));
    assert!(refused.code == Some(78) && refused.stdout.contains(device), "{refused:?}");
    fs::remove_file(home.join(device)).unwrap();
    let refused = finish(&mut world.sandbox.command(["login", "--device", "--json"]));
    assert!(refused.code == Some(69) && refused.stdout.contains(device), "{refused:?}");
    world.assert_live();
}
