//! Logins that are refused, each with its words, and what they leave behind: nothing.

use std::net::TcpListener;
use std::process::Stdio;

use zg_tokend::testing::demo::{Fault, IssuerOptions, Outage};

use super::{LoginRun, configure, consent, fetch, follow, log_in, with_parameter};
use crate::common::documents::Documents;
use crate::common::world::World;

#[test]
fn the_user_says_no() {
    let world = World::new();
    configure(&world, "");
    assert_eq!(log_in(&world, "", "alice").0, 0);
    let token = world.token();
    let mut login = LoginRun::by_browser(&world, "");
    let answer = fetch(["-d", "decision=deny", &login.url()]);
    let (_, page) = follow(&answer.location.unwrap());
    assert!(page.body.contains("The login failed") && page.body.contains("access_denied"), "{page:?}");
    let shown = login.ends_with(77);
    assert!(shown.contains("the login was denied: access_denied"), "{shown}");
    assert_eq!(world.token(), token);
    world.once_gives(0, ["--force"]);
}

#[test]
fn an_answer_from_another_issuer_is_not_exchanged() {
    for (issuer, words) in [
        (Some("https%3A%2F%2Fevil.example"), "the answer comes from the issuer https://evil.example"),
        (None, "the answer does not name its issuer"),
    ] {
        let world = World::new();
        configure(&world, "");
        let mut login = LoginRun::by_browser(&world, "");
        let redirect = consent(&login.url(), "alice");
        let redirect = with_parameter(&redirect, "iss", issuer.unwrap_or_default());
        let (_, page) = follow(&redirect);
        assert!(page.body.contains("The login failed"), "{page:?}");
        let shown = login.ends_with(78);
        assert!(shown.contains(words) && shown.contains("the code was not sent"), "{shown}");
        assert_eq!(world.posts(), 0);
    }
}

#[test]
fn a_code_that_the_server_refuses_is_no_login() {
    let world = World::new();
    configure(&world, "");
    let mut login = LoginRun::by_browser(&world, "");
    let redirect = consent(&login.url(), "alice");
    let (_, page) = follow(&with_parameter(&redirect, "code", "code_wrong"));
    assert!(page.body.contains("The server refuses the code of the login"), "{page:?}");
    let shown = login.ends_with(77);
    assert!(shown.contains("the server refuses the code of the login: invalid_grant"), "{shown}");
    assert!(!shown.contains("code_wrong") && !page.body.contains("code_wrong"), "{shown}");
}

#[test]
fn a_grant_without_a_refresh_token_is_no_login() {
    let world = World::new();
    configure(&world, "");
    let reply = r#"{"access_token":"short","token_type":"Bearer","expires_in":60}"#;
    world.fault(Fault::reply(200, reply));
    let (code, shown) = log_in(&world, "", "alice");
    assert_eq!(code, 77, "{shown}");
    assert!(shown.contains("the server gave no refresh token, only an access token for 1 min"), "{shown}");
    assert!(shown.contains("offline access"), "the remedy: {shown}");
    assert_eq!(world.token().expose(), "short", "it is of some use");
    // But not in the place of a live one.
    assert_eq!(log_in(&world, "", "alice").0, 0);
    let token = world.token();
    world.fault(Fault::reply(200, reply));
    assert_eq!(log_in(&world, "", "alice").0, 77);
    assert_eq!(world.token(), token);
    world.once_gives(0, ["--force"]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let world = World::new();
    configure(&world, "");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut login = LoginRun::by_browser(&world, &format!("--port {port}"));
    let shown = login.ends_with(69);
    assert!(shown.contains(&format!("cannot listen on port {port}")) && shown.contains("--port"), "{shown}");
}

#[test]
fn nobody_is_waited_for_for_ever() {
    let world = World::new();
    configure(&world, "");
    let mut login = LoginRun::by_browser(&world, "--timeout 1s");
    let shown = login.ends_with(69);
    assert!(shown.contains("nobody logged in within 1 s") && shown.contains("redirect_uri"), "{shown}");
    assert!(!world.state_path("default", "state").exists());
}

#[test]
fn two_logins_at_once_are_one_too_many() {
    let world = World::new();
    configure(&world, "");
    let mut first = LoginRun::by_browser(&world, "");
    let redirect = consent(&first.url(), "alice");
    let shown = LoginRun::by_browser(&world, "").ends_with(75);
    assert!(shown.contains("another login for this account is under way"), "{shown}");
    follow(&redirect);
    first.ends_with(0);
}

/// A fault that can be seen before is told before a person has done anything.
#[test]
fn the_page_is_not_shown_before_the_rest_is_proved() {
    let cases: [(&str, i32, &str); 3] = [
        ("token_file = \"/nowhere/at/all/token\"\n", 78, "/nowhere/at"),
        ("state_dir = \"/proc/nothing\"\n", 74, "/proc"),
        ("client_secret = { file = \"/nowhere/secret\" }\n", 69, "/nowhere/secret"),
    ];
    for (extra, code, words) in cases {
        let world = World::new();
        configure(&world, extra);
        let (ended, shown) = LoginRun::by_browser(&world, "").end();
        assert!(!shown.contains("code_challenge="), "{shown}");
        assert!(ended == code || ended == 78, "{ended} {shown}");
        assert!(shown.contains(words), "{shown}");
    }
    let world = World::new();
    configure(&world, "");
    world.outage(Some(Outage::Unavailable));
    let shown = LoginRun::by_browser(&world, "").ends_with(69);
    assert!(!shown.contains("code_challenge=") && shown.contains("discovery"), "{shown}");
}

#[test]
fn there_must_be_a_terminal_and_no_code_in_the_command_line() {
    let world = World::new();
    configure(&world, "");
    for (args, words) in [
        (&["login"][..], "a login needs a terminal"),
        (&["login", "--json"], "a login needs a terminal"),
        (&["login", "code_1"], "has no place in the command line"),
    ] {
        let mut command = world.sandbox.command(args.iter().copied());
        let output = crate::common::finish(command.stdin(Stdio::null()));
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.stderr.contains(words) && !output.stderr.contains("code_1"), "{output:?}");
    }
}

#[test]
fn an_account_that_no_server_can_log_in_says_so() {
    let world = World::new();
    world.configure("");
    let shown = LoginRun::by_browser(&world, "").ends_with(78);
    assert!(shown.contains("neither the config nor the issuer names the authorization_endpoint"), "{shown}");
}

/// A redirect could carry the code, or the whole login, to another server.
#[test]
fn no_redirect_is_followed() {
    let world = World::new();
    configure(&world, "");
    assert_eq!(log_in(&world, "", "alice").0, 0);
    let (token, login) = (world.token(), world.refresh_token());
    let elsewhere = Documents::start();
    let location = vec![("location".to_owned(), format!("{}/token", elsewhere.url()))];
    for status in [302, 307] {
        let posts = world.posts();
        let mut fault = Fault::reply(status, "");
        fault.reply.as_mut().unwrap().headers.extend(location.clone());
        world.fault(fault);
        let (code, shown) = log_in(&world, "", "alice");
        assert!(code == 69 && shown.contains("redirects to"), "{code} {shown}");
        assert_eq!(world.posts(), posts + 1, "the code is sent once");
    }
    assert!(elsewhere.requests().is_empty(), "{:?}", elsewhere.requests());
    assert_eq!((world.token(), world.refresh_token()), (token, login));
    world.once_gives(0, ["--force"]);

    let moved = Documents::start();
    let issuer = moved.url();
    let location = format!("location: {}/.well-known/openid-configuration\r\n", world.server.url());
    for name in ["oauth-authorization-server", "openid-configuration"] {
        moved.put(&format!("/.well-known/{name}"), 302, &location, "");
    }
    world.sandbox.write_config(&format!("issuer = \"{issuer}\"\nclient_id = \"demo\"\n"));
    let (code, shown) = LoginRun::by_browser(&world, "").end();
    assert!(!shown.contains("code_challenge=") && shown.contains("302"), "{code} {shown}");
    assert_ne!(code, 0, "{shown}");
    assert!(!moved.requests().is_empty());
}

#[test]
fn a_login_needs_https_but_on_loopback() {
    let world = World::new();
    let server = world.server.url();
    for lines in [
        "issuer = \"http://as.example\"\n".to_owned(),
        format!("issuer = \"{server}\"\nauthorization_endpoint = \"http://as.example/authorize\"\n"),
        format!("issuer = \"{server}\"\ndevice_authorization_endpoint = \"http://as.example/device\"\n"),
        format!("issuer = \"{server}\"\nrevocation_endpoint = \"http://as.example/revoke\"\n"),
    ] {
        world.sandbox.write_config(&format!("client_id = \"demo\"\n{lines}"));
        let shown = LoginRun::by_browser(&world, "").ends_with(78);
        assert!(shown.contains("http://as.example") && shown.contains("https"), "{lines} {shown}");
        assert!(!shown.contains("code_challenge="), "{shown}");
    }
}

#[test]
fn a_scope_that_was_not_granted_is_named() {
    let scope = "mail.read mail.send".to_owned();
    let world = World::with(IssuerOptions { scope, ..IssuerOptions::default() });
    configure(&world, "login_scope = \"mail.read mail.send\"\n");
    let reply = r#"{"access_token":"a","refresh_token":"r","token_type":"Bearer","expires_in":3600,"scope":"mail.read"}"#;
    world.fault(Fault::reply(200, reply));
    let (code, shown) = log_in(&world, "", "alice");
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("granted less than the login asked for: not mail.send"), "{shown}");
    assert_eq!(world.token().expose(), "a");
    // All of it, or a server that does not say: no warning.
    for scope in [r#","scope":"mail.send mail.read""#, ""] {
        let reply = reply.replace(r#","scope":"mail.read""#, scope);
        world.fault(Fault::reply(200, reply));
        let (code, shown) = log_in(&world, "", "alice");
        assert!(code == 0 && !shown.contains("granted less"), "{shown}");
    }
}
