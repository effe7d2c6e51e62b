//! A pasted address or code, in any login by browser.

use super::{LoginRun, assert_no_secret, configure, consent, with_parameter};
use crate::common::world::World;

#[test]
fn an_address_may_be_pasted_at_any_time_and_is_not_shown() {
    let world = World::new();
    configure(&world, "");
    let mut login = LoginRun::start(&world, "--paste");
    let url = login.url();
    let redirect = consent(&url, "alice");
    login.type_text("nonsense at all = no\r");
    login.process.wait_for("an answer without code and error was ignored");
    login.type_text(&format!("{}\r", with_parameter(&redirect, "state", "x")));
    login.process.wait_for("an answer to another login was ignored");
    login.type_text(&format!("{url}\r"));
    login.process.wait_for("this is the address of the login page");
    // As a mail breaks it.
    let (start, end) = redirect.split_at(60);
    login.type_text(&format!("  {start}\r{end} \r"));
    let shown = login.ends_with(0);
    assert_no_secret(&world, &shown, &redirect);
    assert!(!shown.contains("nonsense"), "{shown}");
    world.assert_live();
}

#[test]
fn a_bare_code_will_do() {
    let world = World::new();
    configure(&world, "");
    let mut login = LoginRun::by_browser(&world, "");
    let redirect = consent(&login.url(), "alice");
    let code = redirect.split_once("code=").unwrap().1.split('&').next().unwrap();
    login.type_text(&format!("{code}\r"));
    login.ends_with(0);
    world.assert_live();
}

#[test]
fn a_redirect_elsewhere_is_pasted() {
    let world = World::new();
    configure(&world, "redirect_uri = \"https://app.example/callback\"\n");
    let mut login = LoginRun::start(&world, "--paste");
    let url = login.url();
    assert!(url.contains("redirect_uri=https%3A%2F%2Fapp.example%2Fcallback"), "{url}");
    login.type_text("https://app.example/callback?error=access_denied\r");
    let shown = login.ends_with(77);
    assert!(shown.contains("the login was denied: access_denied"), "{shown}");
}
