//! The words of logins and logouts, one after the other, as people read them.

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use zg_tokend::testing::demo::{Fault, Outage};

use super::{LoginRun, configure, consent, follow, quick_devices, with_parameter};
use crate::common::golden::compare;
use crate::common::world::World;
use crate::messages::without_times;

/// All that a terminal showed, without the parts that differ from run to run.
pub(super) fn page(world: &World, line: &str, code: i32, shown: &str) -> String {
    let sandbox = world.sandbox.path("").display().to_string();
    let shown = shown.replace("\r\n", "\n").replace(sandbox.trim_end_matches('/'), "SANDBOX");
    let shown = shown.replace(world.server.url(), "SERVER").replace('\r', "");
    let mut text = String::new();
    // The beginning of every login by browser is told once.
    let shown = shown.split_once("The terminal does not show it.\n").map_or(&*shown, |(_, rest)| rest);
    for line in shown.lines().filter(|line| !line.starts_with("Script ")) {
        let line = without_ports(&without_times(line));
        let line = if line.contains("code_challenge=") { "SERVER/authorize?…".to_owned() } else { line };
        let _ = writeln!(text, "{}", if super::device::is_user_code(line.trim()) { "  CODE" } else { &line });
    }
    format!("$ zg-tokend {line}\n{}\n=> {code}\n\n", text.trim_end())
}

/// PORT for the number in each address of this machine.
fn without_ports(line: &str) -> String {
    let mut parts = line.split("127.0.0.1:");
    let first = parts.next().unwrap_or_default().to_owned();
    let rest =
        parts.map(|part| format!("127.0.0.1:PORT{}", part.trim_start_matches(|c: char| c.is_ascii_digit())));
    let line: String = std::iter::once(first).chain(rest).collect();
    match line.split_once("on port ") {
        Some((before, after)) => {
            format!("{before}on port PORT{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => line,
    }
}

/// A login to its end; `browser` gets the redirect, and says where it goes instead.
pub(super) fn login(world: &World, args: &str, browser: impl FnOnce(&mut LoginRun, &str)) -> String {
    let mut login = LoginRun::start_in(&world.sandbox, &format!("--no-browser {args}"), &[("NO_COLOR", "1")]);
    let url = login.url();
    let redirect = consent(&url, "alice");
    browser(&mut login, &redirect);
    let (code, shown) = login.end();
    page(world, format!("login --no-browser {args}").trim(), code, &shown)
}

pub(super) fn plain(_: &mut LoginRun, redirect: &str) {
    follow(redirect);
}

/// A login that ends without an answer.
fn alone(world: &World, args: &str) -> String {
    let (code, shown) = LoginRun::start_in(&world.sandbox, args, &[("NO_COLOR", "1")]).end();
    page(world, format!("login {args}").trim(), code, &shown)
}

fn id_token(claims: &Value) -> String {
    format!("e30.{}.", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn logout(world: &World, args: &[&str]) -> String {
    let output = world.sandbox.run(["logout"].into_iter().chain(args.iter().copied()));
    let line = format!("logout {}", args.join(" "));
    page(world, line.trim(), output.code.unwrap(), &format!("{}{}", output.stdout, output.stderr))
}

#[test]
fn logins_are_told_with_a_way_out() {
    let world = World::new();
    configure(&world, "");
    let mut first = LoginRun::start_in(&world.sandbox, "--no-browser", &[("NO_COLOR", "1")]);
    first.url();
    let begin = first.process.log().replace(world.server.url(), "SERVER").replace("\r\n", "\n");
    let begin =
        begin.lines().map(|line| if line.contains("code_challenge=") { "SERVER/authorize?…" } else { line });
    let mut pages = format!("{}\n\n", begin.collect::<Vec<_>>().join("\n"));
    first.type_text("\u{3}");
    first.end();
    pages += &alone(&world, "--timeout 1s --no-browser");
    pages += &login(&world, "", plain);
    pages += &login(&world, "", |login, redirect| {
        super::fetch([&*with_parameter(redirect, "state", "x")]);
        login.type_text("nothing=here\r");
        login.process.wait_for("without code and error");
        let url = login.url();
        login.type_text(&format!("{url}\r"));
        login.process.wait_for("this is the address of the login page");
        login.type_text(&format!("{redirect}\r"));
    });
    pages += &login(&world, "", |_, redirect| {
        follow(&with_parameter(redirect, "iss", "https%3A%2F%2Fevil.example"));
    });
    for (error, description) in
        [("access_denied", ""), ("invalid_scope", "api+x+is+unknown"), ("server_error", "")]
    {
        pages += &login(&world, "", |_, redirect| {
            let redirect = with_parameter(&redirect.replace("code=", "was="), "error", error);
            follow(&with_parameter(&redirect, "error_description", description));
        });
    }
    let now = world.server.now() / 1000;
    let good = json!({ "iss": world.server.url(), "sub": "alice", "aud": "demo", "exp": now + 3600 });
    for (name, value) in [
        ("iss", json!("https://evil.example")),
        ("aud", json!("other")),
        ("exp", json!(now - 86_400)),
        ("sub", Value::Null),
        ("nonce", json!("x")),
    ] {
        let mut claims = good.clone();
        claims[name] = value;
        let reply = json!({ "access_token": "a", "refresh_token": "r", "expires_in": 60, "id_token": id_token(&claims) });
        world.fault(Fault::reply(200, reply.to_string()));
        pages += &login(&world, "", plain);
    }
    for (status, reply) in [
        (400, r#"{"error":"invalid_grant"}"#),
        (401, r#"{"error":"invalid_client"}"#),
        (400, r#"{"error":"unauthorized_client"}"#),
        (503, "busy"),
        (200, r#"{"access_token":"a","expires_in":3600}"#),
    ] {
        world.fault(Fault::reply(status, reply));
        pages += &login(&world, "", plain);
    }
    let mut other = LoginRun::start_in(&world.sandbox, "--no-browser", &[("NO_COLOR", "1")]);
    let redirect = consent(&other.url(), "bob");
    pages += &alone(&world, "--no-browser");
    follow(&redirect);
    let (code, shown) = other.end();
    pages += &page(&world, "login --no-browser", code, &shown);
    pages += &login(&world, "--scope api", plain);
    for extra in [
        "identity = \"https://as.example#carol\"\n",
        "identity = \"https://as.example#carol\"\nlogin_scope = \"api\"\n",
    ] {
        configure(&world, extra);
        pages += &if extra.contains("login_scope") {
            std::fs::remove_dir_all(world.sandbox.path("state/zg-tokend")).unwrap();
            alone(&world, "--no-browser")
        } else {
            login(&world, "", plain)
        };
    }
    compare("login", &pages_and_devices(pages));
}

/// The rest: device codes, refused command lines, logouts.
fn pages_and_devices(mut pages: String) -> String {
    let world = quick_devices(1);
    configure(&world, "");
    let devices = |world: &World| {
        let output = world.sandbox.run(["login", "--device", "--json"]);
        let events: Vec<_> = output.stdout.lines().filter(|line| line.contains("\"failed\"")).collect();
        page(world, "login --device --json", output.code.unwrap(), &events.join("\n"))
    };
    pages += &devices(&world);
    world.server.issuer(|issuer| issuer.options_mut().device_code_lifetime = Duration::from_secs(600));
    for (status, reply) in [(400, r#"{"error":"access_denied"}"#), (400, r#"{"error":"invalid_grant"}"#)] {
        world.fault(Fault::reply(status, reply));
        pages += &devices(&world);
    }
    configure(&world, &format!("device_authorization_endpoint = \"{}/nothing\"\n", world.server.url()));
    pages += &devices(&world);
    for line in ["login", "login code_1", "login --device --paste", "login --remote -x"] {
        let output = world.sandbox.run(line.split(' '));
        pages += &page(&world, line, output.code.unwrap(), &format!("{}{}", output.stdout, output.stderr));
    }
    world.configure("");
    pages += &alone(&world, "--no-browser");
    pages += &logout(&world, &[]);
    configure(&world, &format!("revocation_endpoint = \"{}/revoke\"\n", world.server.url()));
    pages += &logout(&world, &[]);
    pages += &login(&world, "", plain);
    pages += &logout(&world, &[]);
    pages += &login(&world, "", plain);
    world.outage(Some(Outage::Unavailable));
    pages += &logout(&world, &[]);
    pages += &logout(&world, &["--local"]);
    pages
}
