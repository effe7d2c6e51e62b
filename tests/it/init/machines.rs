//! `init` for accounts without a login: it asks for what the grant needs, and for nothing else.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use zg_tokend::testing::demo::{DemoClient, IssuerOptions};

use super::{assert_nothing, init, init_live, secret_file};
use crate::common::pane::Pane;
use crate::common::world::World;
use crate::common::{Sandbox, finish, wait_until};
use crate::grants::Machines;

/// A key that signs, and its certificate, in the home directory.
fn write_pair(sandbox: &Sandbox) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    secret_file(sandbox, "key.pem", &key.serialize_pem());
    fs::write(sandbox.path("home/client.crt"), certificate.pem()).unwrap();
}

fn service_account() -> Value {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    json!({ "type": "service_account", "client_email": "robot@p.iam.gserviceaccount.com", "private_key": key })
}

/// The config of this account in the JSON of `status`.
fn grant_type(sandbox: &Sandbox) -> Value {
    let status = sandbox.run(["status", "--json"]);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    status["accounts"][0]["grant_type"].clone()
}

#[test]
fn every_preset_without_a_login_has_its_flags() {
    let id = ["--client-id", "id"];
    for (args, grant, lines) in [
        (
            &[
                "--provider",
                "entra",
                "--tenant",
                "t",
                "--private-key-file",
                "key.pem",
                "--certificate",
                "client.crt",
                "--scope",
                "https://graph.example/.default",
            ][..],
            "client_credentials",
            &[
                "private_key = { file = \"HOME/key.pem\" }\n",
                "certificate = \"HOME/client.crt\"\n",
                "scope = \"https://graph.example/.default\"\n",
            ][..],
        ),
        (
            &["--provider", "entra", "--tenant", "t", "--client-assertion-file", "token", "--scope", "s"],
            "client_credentials",
            &["tenant = \"t\"\n", "client_assertion = { file = \"HOME/token\" }\n"],
        ),
        (
            &[
                "--provider",
                "okta",
                "--host",
                "dev.okta.com",
                "--private-key-file",
                "key.pem",
                "--key-id",
                "k1",
            ],
            "client_credentials",
            &["host = \"dev.okta.com\"\n", "key_id = \"k1\"\n"],
        ),
        (
            &[
                "--provider",
                "auth0",
                "--host",
                "t.eu.auth0.com",
                "--client-secret-file",
                "token",
                "--audience",
                "https://api.example",
            ],
            "client_credentials",
            &["client_secret = { file = \"HOME/token\" }\n", "audience = \"https://api.example\"\n"],
        ),
        (
            &[
                "--provider",
                "aws-cognito",
                "--host",
                "pool.auth.eu-west-1.amazoncognito.com",
                "--client-secret-file",
                "token",
            ],
            "client_credentials",
            &["provider = \"aws-cognito\"\n"],
        ),
        (
            &[
                "--provider",
                "keycloak",
                "--issuer",
                "https://kc.example/realms/r",
                "--client-secret-file",
                "token",
            ],
            "client_credentials",
            &["provider = \"keycloak\"\nissuer = \"https://kc.example/realms/r\"\n"],
        ),
        (
            &[
                "--issuer",
                "https://as.example",
                "--grant-type",
                "client_credentials",
                "--tls-certificate",
                "client.crt",
                "--tls-private-key-file",
                "key.pem",
            ],
            "client_credentials",
            &[
                "grant_type = \"client_credentials\"\n",
                "tls_certificate = \"HOME/client.crt\"\n",
                "tls_private_key = { file = \"HOME/key.pem\" }\n",
            ],
        ),
        (
            &[
                "--token-endpoint",
                "https://as.example/token",
                "--grant-type",
                "jwt-bearer",
                "--assertion-file",
                "token",
            ],
            "jwt-bearer",
            &["grant_type = \"jwt-bearer\"\nassertion = { file = \"HOME/token\" }\n"],
        ),
        (
            &[
                "--token-endpoint",
                "https://as.example/token",
                "--grant-type",
                "token-exchange",
                "--subject-token-file",
                "token",
                "--subject-token-type",
                "jwt",
            ],
            "token-exchange",
            &["subject_token = { file = \"HOME/token\" }\nsubject_token_type = \"jwt\"\n"],
        ),
    ] {
        let sandbox = Sandbox::new();
        write_pair(&sandbox);
        secret_file(&sandbox, "token", "opaque");
        let output = init(&sandbox, &[&id[..], args].concat(), None);
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{args:?}: {output:?}");
        assert!(output.stdout.contains("\nnext:\n  zg-tokend once "), "{args:?}: {output:?}");
        let home = sandbox.path("home").display().to_string();
        let text = fs::read_to_string(sandbox.config_path()).unwrap().replace(&home, "HOME");
        for line in lines {
            assert!(text.contains(line), "{line:?}: {text}");
        }
        assert!(!text.contains("refresh_token") && !text.contains("zg-tokend login"), "{text}");
        assert_eq!(grant_type(&sandbox), grant, "{text}");
    }
}

#[test]
fn a_refresh_token_makes_a_login_of_any_preset() {
    let sandbox = Sandbox::new();
    let args = ["--provider", "okta", "--host", "dev.okta.com", "--client-id", "id", "--refresh-token-stdin"];
    let output = init(&sandbox, &args, Some("RT\n"));
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    let text = fs::read_to_string(sandbox.config_path()).unwrap();
    assert!(text.contains("refresh_token = \"RT\"\ngrant_type = \"refresh_token\"\n"), "{text}");
    assert_eq!(grant_type(&sandbox), Value::Null);
}

#[test]
fn google_s_file_is_all_that_a_service_account_needs() {
    let sandbox = Sandbox::new();
    let path = secret_file(&sandbox, "key.json", &service_account().to_string());
    let output = init(&sandbox, &["--from", "key.json", "--scope", "s"], None);
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    assert!(output.stdout.contains("google_credentials: service_account from file "), "{output:?}");
    assert!(output.stdout.contains("\nnext:\n  zg-tokend once "), "{output:?}");
    let text = fs::read_to_string(sandbox.config_path()).unwrap();
    for line in [
        "provider = \"google-service-account\"\n",
        &format!("google_credentials = \"{path}\"\nscope = \"s\"\n"),
    ] {
        assert!(text.contains(line), "{line:?}: {text}");
    }
    assert!(!text.contains("client_id") && !text.contains("private_key"), "{text}");
    assert_eq!(grant_type(&sandbox), "google_credentials");
}

#[test]
fn init_names_what_a_grant_lacks() {
    let sandbox = Sandbox::new();
    for (args, missing) in [
        (
            &["--provider", "entra", "--client-id", "id"][..],
            "--tenant; --client-secret-file, --client-secret-env, --private-key-file, --client-assertion-file or --tls-certificate; --scope",
        ),
        (
            &[
                "--provider",
                "entra",
                "--tenant",
                "t",
                "--client-id",
                "id",
                "--private-key-file",
                "k",
                "--scope",
                "s",
            ],
            "--certificate",
        ),
        (
            &["--provider", "auth0", "--host", "h", "--client-id", "id", "--client-secret-env", "S"],
            "--audience",
        ),
        (&["--provider", "keycloak", "--client-id", "id", "--client-secret-env", "S"], "--issuer"),
        (&["--provider", "google-service-account"], "--from"),
        (
            &["--issuer", "https://as.example", "--grant-type", "jwt-bearer", "--client-id", "id"],
            "--assertion-file or --private-key-file",
        ),
        (&["--issuer", "https://as.example", "--grant-type", "token-exchange"], "--subject-token-file"),
    ] {
        assert_nothing(
            &sandbox,
            &init(&sandbox, args, None),
            &format!(
                "error: standard input is not a terminal, and these are missing: {missing}\n\
                 hint: pass them as flags: see `zg-tokend init --help`\n"
            ),
        );
    }
}

/// Each way from the flags to a token, at a server that verifies everything.
#[test]
fn the_flags_make_a_config_that_the_server_accepts() {
    let Some(machines) = Machines::start() else { return };
    let issuer = machines.oidc.http();
    let mint = |query: &str| {
        let url = format!("{issuer}/_mint?{query}");
        let minted = finish(Command::new("curl").args(["-sS", "--noproxy", "*", &url]));
        assert_eq!(minted.code, Some(0), "{minted:?}");
        minted.stdout
    };
    let key = machines.key("rsa.pem");
    for (args, token) in [
        (
            &["client_credentials", "--client-id", "zgmachine", "--client-secret-file", "token"][..],
            "s3cret".to_owned(),
        ),
        (
            &[
                "client_credentials",
                "--client-id",
                "zg-rsa",
                "--private-key-file",
                key.to_str().unwrap(),
                "--key-id",
                "rsa",
            ],
            String::new(),
        ),
        (
            &["client_credentials", "--client-id", "zg-federated", "--client-assertion-file", "token"],
            mint(&format!("sub=zg-federated&aud={issuer}")),
        ),
        (
            &["jwt-bearer", "--client-id", "zgbearer", "--assertion-file", "token"],
            mint(&format!("key=rsa&iss=robot@project.example&aud={issuer}/token")),
        ),
        (
            &[
                "token-exchange",
                "--client-id",
                "zgexchange",
                "--subject-token-file",
                "token",
                "--subject-token-type",
                "jwt",
            ],
            mint("sub=alice"),
        ),
    ] {
        let sandbox = Sandbox::new();
        secret_file(&sandbox, "token", &token);
        let args = [&["--issuer", issuer, "--scope", "api", "--grant-type"], args].concat();
        let output = init_live(&sandbox, &args, None);
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{args:?}: {output:?}");
        let output = sandbox.run(["once"]);
        assert_eq!(output.code, Some(0), "{args:?}: {output:?}");
        assert!(sandbox.path("config/zerogravity/token").exists(), "{args:?}");
    }
}

/// Answers the questions of `init`; each waits until its question is the last line.
fn answer(pane: &Pane, answers: &[(&str, &str)]) {
    for (question, text) in answers {
        wait_until(question, || {
            pane.screen().last().is_some_and(|line| line.starts_with(question)).then_some(())
        });
        pane.text(text);
        pane.key("Enter");
    }
}

#[test]
fn a_person_is_asked_for_what_the_grant_needs() {
    let machine = DemoClient::basic("machine", "s3cret");
    let world = World::with(IssuerOptions { clients: vec![machine], ..IssuerOptions::default() });
    let pane = Pane::open(&world.sandbox, (140, 40), &[], "init");
    answer(
        &pane,
        &[
            ("provider (?", &world.server.token_endpoint()),
            ("Enter: a person logs in, c: client credentials, j: a signed assertion,", "c"),
            ("client_id:", "machine"),
            ("Enter: the client has a client_secret, k: a private key,", ""),
            ("client_secret (not shown):", "s3cret"),
            ("scope (empty for the server's default):", ""),
            ("token_file [~/.config/zerogravity/token]:", ""),
            ("Get the first token now? [Y/n]", ""),
        ],
    );
    let screen = pane.wait_for("code 0").join("\n");
    assert!(!screen.contains("s3cret") && !screen.contains("refresh_token"), "{screen}");
    world.assert_live();
    let text = fs::read_to_string(world.sandbox.config_path()).unwrap();
    assert!(text.contains("grant_type = \"client_credentials\"\n"), "{text}");
}

#[test]
fn a_person_is_asked_for_files() {
    let home = |sandbox: &Sandbox, name: &str| sandbox.path("home").join(name).display().to_string();
    let asked = |answers: &dyn Fn(&Sandbox) -> Vec<(&'static str, String)>, lines: &[&str]| {
        let sandbox = Sandbox::new();
        write_pair(&sandbox);
        secret_file(&sandbox, "key.json", &service_account().to_string());
        secret_file(&sandbox, "token", "opaque");
        let pane = Pane::open(&sandbox, (160, 40), &[], "init --offline");
        let answers = answers(&sandbox);
        let answers: Vec<_> = answers.iter().map(|(question, text)| (*question, text.as_str())).collect();
        answer(&pane, &answers);
        answer(&pane, &[("token_file [", ""), ("Get the first token now? [Y/n]", "n")]);
        let screen = pane.wait_for("code 0").join("\n");
        assert!(screen.contains("zg-tokend once ") && !screen.contains("refresh_token"), "{screen}");
        let text = fs::read_to_string(sandbox.config_path()).unwrap();
        let text = text.replace(Path::display(&sandbox.path("home")).to_string().as_str(), "HOME");
        for line in lines {
            assert!(text.contains(line), "{line:?}: {text}");
        }
    };
    asked(
        &|sandbox| {
            vec![
                ("provider (?", "google-service-account".into()),
                ("google_credentials (the JSON file from Google's console):", home(sandbox, "key.json")),
                ("scope (empty for the server's default):", "s".into()),
            ]
        },
        &["google_credentials = \"HOME/key.json\"\nscope = \"s\"\n"],
    );
    asked(
        &|sandbox| {
            vec![
                ("provider (?", "entra".into()),
                ("tenant in https://login.microsoftonline.com/", "contoso.example".into()),
                ("client_id:", "id".into()),
                ("Enter: the client has a client_secret, k: a private key,", "k".into()),
                ("private_key (a PEM file):", home(sandbox, "key.pem")),
                ("certificate (the PEM file that is registered):", home(sandbox, "client.crt")),
                ("scope (https://RESOURCE/.default):", "https://graph.example/.default".into()),
            ]
        },
        &["private_key = { file = \"HOME/key.pem\" }\ncertificate = \"HOME/client.crt\"\n"],
    );
    asked(
        &|sandbox| {
            vec![
                ("provider (?", "okta".into()),
                ("host in https://{host}/oauth2/default/v1/token:", "dev.okta.example".into()),
                ("client_id:", "id".into()),
                ("Enter: the client has a client_secret, k: a private key,", "a".into()),
                ("client_assertion (a file):", home(sandbox, "token")),
                ("scope (empty for the server's default):", String::new()),
            ]
        },
        &["client_assertion = { file = \"HOME/token\" }\n"],
    );
    asked(
        &|sandbox| {
            vec![
                ("provider (?", "https://as.example/token".into()),
                ("Enter: a person logs in, c: client credentials,", "x".into()),
                ("client_id (empty if the token says who asks):", String::new()),
                ("subject_token (a file):", home(sandbox, "token")),
                ("subject_token_type [jwt]:", String::new()),
                ("scope (empty for the server's default):", String::new()),
            ]
        },
        &[
            "grant_type = \"token-exchange\"\nsubject_token = { file = \"HOME/token\" }\nsubject_token_type = \"jwt\"\n",
        ],
    );
}
