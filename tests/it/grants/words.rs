//! The words of the commands for an account without a login.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Machines, signing};
use crate::common::{feed, finish};

#[test]
fn keys_that_cannot_sign_are_named_with_the_way_to_better_ones() {
    let Some(machines) = Machines::start() else { return };
    for (key, words) in [
        ("small.pem", "less than 2048 bits"),
        ("p256.sec1.pem", "openssl pkcs8 -topk8 -nocrypt -in"),
        ("rsa.encrypted.pem", "openssl pkcs8 -topk8 -nocrypt -in"),
        ("rsa.encrypted1.pem", "openssl pkcs8 -topk8 -nocrypt -in"),
        ("rsa.crt", "is not a private key in PEM"),
    ] {
        machines.configure(&signing("zg-rsa", &machines.key(key)));
        let output = machines.once_gives(78, &["--force"]);
        assert!(output.stderr.contains(words), "{key}: {output:?}");
        std::fs::remove_dir_all(machines.sandbox.path("state/zg-tokend")).unwrap();
    }
}

/// Runs the command that a hint gives, beside the key, and gives the new key.
#[track_caller]
fn follow(machines: &Machines, stderr: &str, old: &Path) -> PathBuf {
    let (_, command) = stderr.split_once("openssl ").unwrap_or_else(|| panic!("no command: {stderr}"));
    let command = format!("openssl {}", command.lines().next().unwrap());
    // Whoever runs it is asked for the password.
    let command = command.replace(" -topk8 ", " -topk8 -passin pass:secret ");
    let directory = old.parent().unwrap();
    let new = directory.join("NEW.pem");
    let _ = std::fs::remove_file(&new);
    let output = finish(Command::new("sh").args(["-c", &command]).current_dir(directory));
    assert_eq!(output.code, Some(0), "{command}: {output:?}");
    assert!(machines.sandbox.path("NEW.pem") == new && new.exists(), "{command}");
    new
}

#[test]
fn the_command_of_the_hint_makes_a_key_that_works() {
    let Some(machines) = Machines::start() else { return };
    for (client, key) in
        [("zg-p256", "p256.sec1.pem"), ("zg-rsa", "rsa.encrypted.pem"), ("zg-rsa", "rsa.encrypted1.pem")]
    {
        let old = machines.key(key);
        machines.configure(&signing(client, &old));
        let output = machines.once_gives(78, &["--force"]);
        machines.configure(&signing(client, &follow(&machines, &output.stderr, &old)));
        machines.once_gives(0, &["--force"]);
        assert_eq!(machines.owner().as_deref(), Some(client), "{key}");
        std::fs::remove_dir_all(machines.sandbox.path("state/zg-tokend")).unwrap();
    }
    // A short key has no better form: the server must learn the new one, and refuses it until then.
    let old = machines.key("small.pem");
    machines.configure(&signing("zg-rsa", &old));
    let output = machines.once_gives(78, &["--force"]);
    machines.configure(&signing("zg-rsa", &follow(&machines, &output.stderr, &old)));
    let output = machines.once_gives(78, &["--force"]);
    assert!(output.stderr.contains("invalid_client"), "{output:?}");
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
