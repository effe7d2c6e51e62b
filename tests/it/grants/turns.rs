//! Keys and certificates that are replaced while `run` refreshes.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::Machines;
use crate::common::{Background, wait_until};

/// A key and its certificate, where the config names them.
struct Pair<'a> {
    machines: &'a Machines,
    key: PathBuf,
    certificate: PathBuf,
}

impl<'a> Pair<'a> {
    /// The first of the server's pairs.
    fn new(machines: &'a Machines) -> Self {
        let (key, certificate) = (machines.sandbox.path("own.pem"), machines.sandbox.path("own.crt"));
        let pair = Self { machines, key, certificate };
        pair.write_key("turn1", usize::MAX);
        pair.write_certificate("turn1");
        pair
    }

    /// The key of this name, cut off after so many bytes, as a program writes it that knows no rename.
    fn write_key(&self, name: &str, length: usize) {
        let text = fs::read(self.machines.key(&format!("{name}.pem"))).unwrap();
        if !self.key.exists() {
            crate::common::write_private(&self.key, b"");
        }
        fs::write(&self.key, &text[..length.min(text.len())]).unwrap();
    }

    fn write_certificate(&self, name: &str) {
        fs::copy(self.machines.key(&format!("{name}.crt")), &self.certificate).unwrap();
    }
}

fn status(machines: &Machines) -> Value {
    let output = machines.sandbox.run(["status", "--json"]);
    let mut status: Value = serde_json::from_str(&output.stdout).unwrap();
    status["accounts"][0].take()
}

/// The failure of the last attempt says this.
fn fails_with(machines: &Machines, words: &str) {
    wait_until(words, || {
        let status = status(machines);
        status["last_attempt"]["message"].as_str().is_some_and(|said| said.contains(words)).then_some(())
    });
}

/// Replaces the pair twice under a `run` whose tokens live for seconds. At each step it stops until a
/// refresh has met what is half done; once the pair is whole, nobody helps.
fn mends_itself(client: &str, keys: impl Fn(&Pair) -> String, no_key: &str, no_pair: &str) {
    let Some(machines) = Machines::with_lifetime("4") else { return };
    let pair = Pair::new(&machines);
    machines.configure(&format!(
        "grant_type = \"client_credentials\"\nclient_id = \"{client}\"\nscope = \"api\"\n{}",
        keys(&pair)
    ));
    let mut run = Background::start(&mut machines.sandbox.command(["run"]), machines.sandbox.path("log"));
    run.wait_for("token 1 lives");
    for name in ["turn2", "turn3"] {
        pair.write_key(name, 100);
        fails_with(&machines, no_key);
        pair.write_key(name, usize::MAX);
        fails_with(&machines, no_pair);
        let before = machines.state()["generation"].as_u64().unwrap();
        pair.write_certificate(name);
        wait_until("a refresh with the new pair", || {
            let status = status(&machines);
            let is_new = status["generation"].as_u64().is_some_and(|now| now > before);
            (is_new && status["last_attempt"]["result"] == "refreshed").then_some(())
        });
        // The server knows the client by nothing but the pair.
        wait_until("a token of the client", || (machines.owner().as_deref() == Some(client)).then_some(()));
    }
    assert_eq!(run.stop().code(), Some(0), "{}", run.log());
}

#[test]
fn a_pair_that_signs_is_replaced_under_load() {
    mends_itself(
        "zg-turns",
        |pair| {
            let (key, certificate) = (pair.key.display(), pair.certificate.display());
            format!("private_key = {{ file = \"{key}\" }}\ncertificate = \"{certificate}\"\n")
        },
        "is not a private key in PEM",
        "private_key is not the key of the certificate",
    );
}

#[test]
fn a_pair_for_tls_is_replaced_under_load() {
    mends_itself(
        "zgturns",
        |pair| {
            let (key, certificate) = (pair.key.display(), pair.certificate.display());
            format!(
                "token_endpoint_auth_method = \"self_signed_tls_client_auth\"\n\
                 tls_private_key = {{ file = \"{key}\" }}\ntls_certificate = \"{certificate}\"\n"
            )
        },
        "is not a private key in PEM",
        "tls_private_key is not the key of the certificate",
    );
}
