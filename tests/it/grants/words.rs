//! The words of the commands for an account without a login.

use super::{Machines, signing};
use crate::common::feed;

#[test]
fn keys_that_cannot_sign_are_named_with_the_way_to_better_ones() {
    let Some(machines) = Machines::start() else { return };
    for (key, words) in [
        ("small.pem", "less than 2048 bits"),
        ("p256.sec1.pem", "openssl pkcs8 -topk8 -nocrypt -in"),
        ("rsa.encrypted.pem", "openssl pkcs8 -topk8 -nocrypt -in"),
        ("rsa.crt", "is not a private key in PEM"),
    ] {
        machines.configure(&signing("zg-rsa", &machines.key(key)));
        let output = machines.once_gives(78, &["--force"]);
        assert!(output.stderr.contains(words), "{key}: {output:?}");
        std::fs::remove_dir_all(machines.sandbox.path("state/zg-tokend")).unwrap();
    }
}

#[test]
fn the_converted_key_works() {
    let Some(machines) = Machines::start() else { return };
    let (old, new) = (machines.key("p256.sec1.pem"), machines.sandbox.path("new.pem"));
    let converted = std::process::Command::new("openssl")
        .args(["pkcs8", "-topk8", "-nocrypt", "-in"])
        .arg(&old)
        .arg("-out")
        .arg(&new)
        .status()
        .unwrap();
    assert!(converted.success());
    crate::common::write_private(&new, &std::fs::read(&new).unwrap());
    machines.configure(&signing("zg-p256", &new));
    machines.once_gives(0, &[]);
}

#[test]
fn there_is_no_login_to_make_end_or_set() {
    let Some(machines) = Machines::start() else { return };
    machines.configure(&signing("zg-rsa", &machines.key("rsa.pem")));
    machines.once_gives(0, &[]);
    let state = machines.state();
    for command in [&["login", "--no-browser"][..], &["logout"], &["logout", "--local"]] {
        let output = machines.sandbox.run(command.iter().copied());
        assert_eq!(output.code, Some(78), "{command:?}: {output:?}");
        assert!(
            output.stderr.contains("has no login: its tokens come from client_credentials"),
            "{output:?}"
        );
    }
    let output = feed(&mut machines.sandbox.command(["set"]), "a-refresh-token");
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(output.stderr.contains("has no login"), "{output:?}");
    assert_eq!(machines.state(), state);
    assert!(machines.sandbox.path("config/zerogravity/token").exists());
}
