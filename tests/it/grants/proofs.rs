//! How clients and grants prove themselves, as the server has verified it: forms of signatures, and
//! assertions and keys from everywhere.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{Machines, signing};
use crate::common::{finish, write_private};

/// A thumbprint by somebody else's reading of the certificate, as RFC 7515 writes it.
fn thumbprint(certificate: &Path, digest: &str) -> String {
    let args = ["x509", "-noout", "-fingerprint", digest, "-in"];
    let output = finish(Command::new("openssl").args(args).arg(certificate));
    let (_, hex) = output.stdout.trim().split_once('=').unwrap();
    let bytes: Vec<_> = hex.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The assertions of clients that the server has verified, oldest first.
fn proofs(machines: &Machines) -> Vec<Value> {
    serde_json::from_str(&machines.get("/_proofs")).unwrap()
}

#[test]
fn entra_gets_ps256_with_both_thumbprints() {
    let Some(machines) = Machines::start() else { return };
    let (key, certificate) = (machines.key("rsa.pem"), machines.key("rsa.crt"));
    let endpoint = format!("{}/token", machines.oidc.https());
    machines.sandbox.write_config(&format!(
        "provider = \"entra\"\ntoken_endpoint = \"{endpoint}\"\nca_file = \"{}\"\nclient_id = \"zg-ps\"\n\
         scope = \"api\"\nprivate_key = {{ file = \"{}\" }}\ncertificate = \"{}\"\n",
        machines.oidc.ca_file().display(),
        key.display(),
        certificate.display()
    ));
    machines.once_gives(0, &[]);
    assert_eq!(machines.owner().as_deref(), Some("zg-ps"));
    let proofs = proofs(&machines);
    let (header, claims) = (&proofs[0]["header"], &proofs[0]["claims"]);
    assert_eq!((&header["alg"], &claims["aud"]), (&"PS256".into(), &endpoint.into()), "{proofs:?}");
    assert_eq!(header["x5t"], thumbprint(&certificate, "-sha1"));
    assert_eq!(header["x5t#S256"], thumbprint(&certificate, "-sha256"));
}

/// A command of the config that prints a token which the server mints.
fn minting(machines: &Machines, query: &str) -> String {
    let url = format!("{}/_mint?{query}", machines.oidc.https());
    let ca = machines.oidc.ca_file().display();
    format!("{{ command = [\"curl\", \"-sS\", \"--noproxy\", \"*\", \"--cacert\", \"{ca}\", \"{url}\"] }}")
}

#[test]
fn a_client_assertion_of_the_platform_serves_until_it_is_refused() {
    let Some(machines) = Machines::start() else { return };
    let query = format!("sub=zg-federated&aud={}", machines.oidc.https());
    let lines = "grant_type = \"client_credentials\"\nclient_id = \"zg-federated\"\nscope = \"api\"\n";
    let file = machines.sandbox.path("assertion");
    machines.configure(&format!("{lines}client_assertion = {{ file = \"{}\" }}\n", file.display()));
    write_private(&file, machines.get(&format!("/_mint?{query}")).as_bytes());
    machines.once_gives(0, &[]);
    assert_eq!(machines.owner().as_deref(), Some("zg-federated"));
    // This server takes each assertion once, so that the same content is refused.
    let output = machines.once_gives(78, &["--force"]);
    assert!(output.stderr.contains("other content is tried as soon as it is there"), "{output:?}");
    let attempt = machines.state()["last_attempt"].clone();
    machines.once_gives(78, &["--force"]);
    assert_eq!(machines.state()["last_attempt"], attempt, "it was not sent again");
    let status = machines.sandbox.run(["status"]);
    let waits = format!("default: waits for file {}, ", file.display());
    assert!(status.stdout.contains(&waits), "{status:?}");
    write_private(&file, machines.get(&format!("/_mint?{query}")).as_bytes());
    machines.once_gives(0, &[]);

    // A command makes another one for each request.
    machines.configure(&format!("{lines}client_assertion = {}\n", minting(&machines, &query)));
    for _ in 0..2 {
        machines.once_gives(0, &["--force"]);
        assert_eq!(machines.owner().as_deref(), Some("zg-federated"));
    }
    let ids: Vec<_> = proofs(&machines).iter().map(|proof| proof["claims"]["jti"].clone()).collect();
    // The first was sent twice, as above.
    assert_eq!((ids.len(), &ids[0]), (5, &ids[1]), "{ids:?}");
    assert!(ids[1..].windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
}

#[test]
fn keys_assertions_and_tokens_come_from_commands() {
    let Some(machines) = Machines::start() else { return };
    let key = machines.key("p256.pem");
    machines.configure(&format!(
        "grant_type = \"client_credentials\"\nclient_id = \"zg-p256\"\nscope = \"api\"\n\
         private_key = {{ command = [\"cat\", \"{}\"] }}\n",
        key.display()
    ));
    machines.once_gives(0, &[]);
    assert_eq!(machines.owner().as_deref(), Some("zg-p256"));
    std::fs::remove_dir_all(machines.sandbox.path("state/zg-tokend")).unwrap();

    let token_endpoint = format!("{}/token", machines.oidc.https());
    let query = format!("key=rsa&iss=robot@project.example&sub=alice&aud={token_endpoint}");
    machines.configure(&format!(
        "grant_type = \"jwt-bearer\"\nclient_id = \"zgbearer\"\nscope = \"api\"\nassertion = {}\n",
        minting(&machines, &query)
    ));
    machines.once_gives(0, &[]);
    assert_eq!(machines.owner().as_deref(), Some("zgbearer"));
    std::fs::remove_dir_all(machines.sandbox.path("state/zg-tokend")).unwrap();

    machines.configure(&format!(
        "grant_type = \"token-exchange\"\nclient_id = \"zgexchange\"\nscope = \"api\"\n\
         subject_token = {}\nsubject_token_type = \"jwt\"\n",
        minting(&machines, "sub=workload")
    ));
    for _ in 0..2 {
        machines.once_gives(0, &["--force"]);
        assert_eq!(machines.owner().as_deref(), Some("zgexchange"));
    }
    let seen: Value = serde_json::from_str(&machines.get("/_seen")).unwrap();
    assert_eq!(seen[0]["payload"]["sub"], "alice", "{seen}");
    assert_eq!((&seen[1]["payload"]["sub"], seen[1].get("actor")), (&"workload".into(), None), "{seen}");
}

#[test]
fn an_actor_token_goes_along_and_an_expired_one_does_not() {
    let Some(machines) = Machines::start() else { return };
    let (subject, actor) = (machines.sandbox.path("subject"), machines.sandbox.path("actor"));
    machines.configure(&format!(
        "grant_type = \"token-exchange\"\nclient_id = \"zgexchange\"\nscope = \"api\"\n\
         subject_token = {{ file = \"{}\" }}\nsubject_token_type = \"jwt\"\n\
         actor_token = {{ file = \"{}\" }}\nactor_token_type = \"jwt\"\n",
        subject.display(),
        actor.display()
    ));
    write_private(&subject, machines.get("/_mint?sub=alice").as_bytes());
    write_private(&actor, machines.get("/_mint?sub=robot&life=-60").as_bytes());
    let output = machines.once_gives(69, &[]);
    assert!(output.stderr.contains("the actor token from file"), "{output:?}");
    assert_eq!(machines.get("/_seen"), "[]");
    write_private(&actor, machines.get("/_mint?sub=robot").as_bytes());
    machines.once_gives(0, &[]);
    let seen: Value = serde_json::from_str(&machines.get("/_seen")).unwrap();
    let (payload, actor) = (&seen[0]["payload"]["sub"], &seen[0]["actor"]["sub"]);
    assert_eq!((payload, actor), (&"alice".into(), &"robot".into()), "{seen}");
}

#[test]
fn status_names_what_a_refresh_waits_for() {
    let Some(machines) = Machines::start() else { return };
    let says = |words: &str| {
        let status = machines.sandbox.run(["status"]);
        assert!(status.stdout.contains(words), "{words}: {status:?}");
    };
    // The server knows another public half.
    machines.configure(&signing("zg-rsa", &machines.key("next.pem")));
    machines.once_gives(78, &[]);
    says("default: needs a key, ");
    let json: Value = serde_json::from_str(&machines.sandbox.run(["status", "--json"]).stdout).unwrap();
    assert_eq!(json["accounts"][0]["waits_for"], "key", "{json}");
    // A key that cannot be used, or read.
    std::fs::remove_dir_all(machines.sandbox.path("state/zg-tokend")).unwrap();
    machines.configure(&signing("zg-rsa", &machines.key("rsa.encrypted.pem")));
    machines.once_gives(78, &[]);
    says("default: needs a key, ");
    std::fs::remove_dir_all(machines.sandbox.path("state/zg-tokend")).unwrap();
    machines.configure(&signing("zg-rsa", Path::new("/nowhere/key.pem")));
    machines.once_gives(69, &[]);
    says("default: needs a key, ");
    std::fs::remove_dir_all(machines.sandbox.path("state/zg-tokend")).unwrap();

    let file = machines.sandbox.path("subject");
    machines.configure(&format!(
        "grant_type = \"token-exchange\"\nclient_id = \"zgexchange\"\n\
         subject_token = {{ file = \"{}\" }}\nsubject_token_type = \"jwt\"\n",
        file.display()
    ));
    let waits = format!("default: waits for file {}, ", file.display());
    machines.once_gives(69, &[]);
    says(&waits);
    write_private(&file, machines.get("/_mint?life=-60").as_bytes());
    machines.once_gives(69, &["--force"]);
    says(&waits);
}
