//! Logins with a real Chromium at the certified server, by its own pages.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::LoginRun;
use super::certified::{configure, status, token};
use crate::common::chromium::Chromium;
use crate::common::oidc::Oidc;
use crate::common::{Background, Sandbox, curl, wait_until, write_script};

/// As a person does: name, password, consent.
fn consent(browser: &Chromium) {
    browser.fill_in("input[name=login]", "alice");
    browser.fill_in("input[name=password]", "x");
    browser.submit("button[type=submit]");
    browser.submit("button[type=submit]");
}

/// Whether the server takes this token for a live one.
fn is_active(oidc: &Oidc, token: &str) -> bool {
    let form = format!("client_id=zglogin&token={token}");
    let url = format!("{}/token/introspection", oidc.https());
    let reply = curl(["--cacert", oidc.ca_file().to_str().unwrap(), "-d", &form, &url]);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body["active"].as_bool().unwrap()
}

fn refresh_token(sandbox: &Sandbox) -> String {
    let state = fs::read(sandbox.path("state/zg-tokend/default/state")).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    state["refresh_token"]["value"].as_str().unwrap().to_owned()
}

/// WCAG's contrast of two colours of the page: `rgb(1, 2, 3)`.
fn contrast(one: &Value, other: &Value) -> f64 {
    let luminance = |colour: &Value| {
        let numbers = colour.as_str().unwrap().trim_start_matches("rgb(").trim_end_matches(')');
        let channels: Vec<f64> = numbers
            .split(", ")
            .map(|number| number.parse::<f64>().unwrap() / 255.0)
            .map(|value| if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) })
            .collect();
        0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]
    };
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

#[test]
fn a_login_in_the_browser_rotates_and_is_revoked() {
    let Some(oidc) = Oidc::start([("ACCESS_TOKEN_TTL", "600")]) else { return };
    let Some(browser) = Chromium::start() else { return };
    let sandbox = Sandbox::below(Path::new("/dev/shm"));
    configure(&oidc, &sandbox);
    // The command starts a browser, which here only notes the address.
    let (opener, address_file) = (sandbox.path("opener"), sandbox.path("address_file"));
    write_script(
        &opener,
        &format!("#!/bin/sh\necho \"$1\" >'{0}~' && mv '{0}~' '{0}'\n", address_file.display()),
    );
    let desktop = [("BROWSER", opener.to_str().unwrap()), ("DISPLAY", ":0")];
    let mut login = LoginRun::start_in(&sandbox, "", &desktop);
    let url = wait_until("the browser's start", || fs::read_to_string(&address_file).ok());
    browser.open(url.trim());
    consent(&browser);
    wait_until("the page", || browser.address().ends_with("/done").then_some(()));

    // The page is there, so the login is stored.
    assert_eq!(browser.title(), "You are logged in - zg-tokend");
    let text = browser.text();
    let token_file = sandbox.path("config/zerogravity/token");
    for fact in ["alice", "default", token_file.to_str().unwrap()] {
        assert!(text.contains(fact), "{fact} in {text}");
    }
    let first = token(&sandbox);
    assert!(is_active(&oidc, first.expose()));
    // The code is neither in the address bar nor in what the page can see of the way to it.
    let seen = "[location.href, document.referrer, document.documentElement.outerHTML, \
                ...performance.getEntries().map(entry => entry.name)].join(' ')";
    let seen = browser.value(seen).to_string();
    assert!(!seen.contains("code=") && !seen.contains("state="), "{seen}");
    // Both colour schemes, and letters that can be read in them.
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        let colour = |of: &str, which: &str| {
            browser.value(&format!("getComputedStyle(document.querySelector('{of}')).{which}"))
        };
        let ground = colour("main", "backgroundColor");
        for element in ["h1", "p", "dt", "dd"] {
            let letters = colour(element, "color");
            let contrast = contrast(&letters, &ground);
            assert!(contrast >= 7.0, "{scheme} {element}: {contrast} of {letters} on {ground}");
        }
        grounds.push(ground);
        if let Some(directory) = std::env::var_os("ZG_PICTURES") {
            browser.picture(&Path::new(&directory).join(format!("done-{scheme}.png")));
        }
    }
    assert_ne!(grounds[0], grounds[1]);
    // As one of a style that the page's own policy blocks. Whatever the server's pages do is not meant.
    let address = browser.address();
    let origin = address.strip_suffix("/done").unwrap();
    let complaints: Vec<String> =
        browser.complaints().into_iter().filter(|line| line.contains(origin)).collect();
    assert_eq!(complaints, Vec::<String>::new());
    let shown = login.ends_with(0);
    let logged_in = format!("default: logged in as {}#alice", oidc.https());
    assert!(shown.contains("A browser was started.") && shown.contains(&logged_in), "{shown}");

    // It rotates, and the server takes it for one login: a replayed code would have ended it.
    for _ in 0..2 {
        let output = sandbox.run(["once", "--force"]);
        assert_eq!(output.code, Some(0), "{output:?}");
    }
    let (access, refresh) = (token(&sandbox), refresh_token(&sandbox));
    assert_ne!(access, first);
    assert!(is_active(&oidc, access.expose()) && is_active(&oidc, &refresh));
    assert_eq!(status(&sandbox)["refresh_token"]["identity"], format!("{}#alice", oidc.https()));
    let output = sandbox.run(["logout"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(!is_active(&oidc, access.expose()) && !is_active(&oidc, &refresh));
    assert!(!token_file.exists());
}

#[test]
fn a_code_is_entered_in_the_browser() {
    let Some(oidc) = Oidc::start([("ACCESS_TOKEN_TTL", "600")]) else { return };
    let Some(browser) = Chromium::start() else { return };
    let sandbox = Sandbox::below(Path::new("/dev/shm"));
    configure(&oidc, &sandbox);
    let mut command = sandbox.command(["login", "--device", "--json"]);
    let mut login = Background::start(&mut command, sandbox.path("device.log"));
    let code: Value = wait_until("the code", || {
        let log = login.log();
        let line = log.lines().find(|line| line.contains("user_code"))?;
        serde_json::from_str(line).ok()
    });
    browser.open(code["verification_uri"].as_str().unwrap());
    browser.fill_in("input[name=user_code]", code["user_code"].as_str().unwrap());
    browser.submit("button[type=submit]");
    assert!(browser.text().contains(code["user_code"].as_str().unwrap()), "{}", browser.text());
    browser.submit("button[autofocus]");
    consent(&browser);
    assert!(browser.text().contains("Sign-in Success"), "{}", browser.text());
    assert_eq!(login.wait().code(), Some(0), "{}", login.log());
    assert!(is_active(&oidc, token(&sandbox).expose()));
    assert_eq!(status(&sandbox)["refresh_token"]["identity"], format!("{}#alice", oidc.https()));
}
