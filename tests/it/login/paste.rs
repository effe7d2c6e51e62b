//! A pasted address or code, in any login by browser.

use super::{LoginRun, assert_no_secret, configure, consent, follow, with_parameter};
use crate::common::world::World;
use crate::common::{wait_until, write_script};

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

/// An ssh that stays on this machine: its last argument is the command for the shell over there.
#[test]
fn a_login_on_another_host_opens_the_browser_here() {
    let world = World::new();
    configure(&world, "");
    let bin = world.sandbox.path("bin");
    std::fs::create_dir(&bin).unwrap();
    write_script(
        &bin.join("zg-tokend"),
        &format!("#!/bin/sh\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_zg-tokend")),
    );
    write_script(
        &bin.join("ssh"),
        "#!/bin/sh\necho \"$@\" >\"$0.arguments\"\nfor last; do :; done\nexec sh -c \"$last\" 2>&1\n",
    );
    write_script(&bin.join("browser"), "#!/bin/sh\necho \"$1\" >\"$0.new\"\nmv \"$0.new\" \"$0.url\"\n");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let environment = [("PATH", &*path), ("BROWSER", "browser"), ("NO_COLOR", "1")];
    let mut login = LoginRun::start_in(&world.sandbox, "--remote alice@server", &environment);
    let url = wait_until("the browser", || std::fs::read_to_string(bin.join("browser.url")).ok());
    follow(&consent(url.trim(), "alice"));
    let shown = login.ends_with(0);
    assert!(shown.contains("default: logged in as alice@example.com"), "{shown}");
    let arguments = std::fs::read_to_string(bin.join("ssh.arguments")).unwrap();
    let port = url.split("127.0.0.1%3A").nth(1).unwrap().split('%').next().unwrap();
    assert!(arguments.contains(&format!("-L {port}:127.0.0.1:{port} -- alice@server")), "{arguments}");
    world.assert_live();
}
