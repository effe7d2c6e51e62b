//! `check` does everything of a refresh that sends nothing. No server is there to be asked.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::{Value, json};

use crate::common::{Output, Sandbox, finish, write_private};

struct Machine(Sandbox);

impl Machine {
    fn new() -> Self {
        Self(Sandbox::new())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path("home").join(name);
        write_private(&path, text.as_bytes());
        path
    }

    /// A key and its certificate, which is valid in these years.
    fn pair(&self, name: &str, years: (i32, i32)) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut certificate = CertificateParams::new(vec!["client.example".to_owned()]).unwrap();
        certificate.not_before = date_time_ymd(years.0, 1, 1);
        certificate.not_after = date_time_ymd(years.1, 1, 1);
        let certificate = certificate.self_signed(&key).unwrap();
        let file = |ending: &str, text: &str| self.write(&format!("{name}.{ending}"), text);
        (file("pem", &key.serialize_pem()), file("crt", &certificate.pem()))
    }

    fn check(&self, lines: &str) -> Output {
        self.0.write_config(lines);
        self.0.run(["check"])
    }

    #[track_caller]
    fn finds(&self, code: i32, lines: &str, words: &[&str]) {
        let output = self.check(lines);
        assert_eq!((output.code, output.stderr.as_str()), (Some(code), ""), "{output:?}");
        for words in words {
            assert!(output.stdout.contains(words), "{words}: {output:?}");
        }
    }
}

const BASE: &str = "token_endpoint = \"https://as.example/token\"\nclient_id = \"id\"\n\
                    grant_type = \"client_credentials\"\n";

#[test]
fn keys_and_certificates_are_looked_at() {
    let machine = Machine::new();
    let (key, valid) = machine.pair("valid", (2020, 2120));
    let signing = |certificate: &PathBuf| {
        let (key, certificate) = (key.display(), certificate.display());
        format!("{BASE}private_key = {{ file = \"{key}\" }}\ncertificate = \"{certificate}\"\n")
    };
    let ok = [
        "ok       default: certificate: ",
        "ok       default: private_key: read from file ",
        "signs by ES256",
    ];
    machine.finds(0, &signing(&valid), &ok);
    let (other_key, other) = machine.pair("other", (2020, 2120));
    let not_a_pair = "problem  default: certificate: private_key is not the key of the certificate ";
    machine.finds(78, &signing(&other), &[not_a_pair]);
    let nothing = machine.write("nothing.crt", "nothing");
    let no_certificate = "problem  default: certificate: certificate ";
    machine.finds(78, &signing(&nothing), &[no_certificate, "is not a certificate in PEM", "1 problem"]);
    machine.finds(
        78,
        &signing(&"/nowhere.crt".into()),
        &["cannot read certificate /nowhere.crt", "1 problem"],
    );

    let tls = |key: &PathBuf, certificate: &PathBuf| {
        let (key, certificate) = (key.display(), certificate.display());
        format!("{BASE}tls_private_key = {{ file = \"{key}\" }}\ntls_certificate = \"{certificate}\"\n")
    };
    machine.finds(0, &tls(&key, &valid), &["ok       default: tls_private_key: read from file "]);
    let not_a_pair = "problem  default: tls_private_key: tls_private_key is not the key of the certificate ";
    machine.finds(78, &tls(&other_key, &valid), &[not_a_pair]);
    // A pair, of a kind that nothing here signs by.
    let (large_key, large) = (machine.write("p521.key", ""), machine.write("p521.crt", ""));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521", "-nodes"]);
    openssl.args(["-subj", "/CN=p521", "-keyout"]).arg(&large_key).arg("-out").arg(&large);
    let made = finish(&mut openssl);
    assert_eq!(made.code, Some(0), "{made:?}");
    machine.finds(78, &tls(&large_key, &large), &["holds a key that cannot sign"]);
    for (name, years, words) in
        [("ended", (2000, 2001), " ended "), ("later", (2100, 2101), " is not valid yet: it begins in ")]
    {
        let (key, certificate) = machine.pair(name, years);
        machine.finds(78, &tls(&key, &certificate), &["problem  default: tls_certificate: the ", words]);
    }
}

#[test]
fn what_somebody_else_writes_is_read_and_its_end_is_told() {
    let machine = Machine::new();
    let jwt = |exp: i64| {
        let part = |value: Value| {
            base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, value.to_string())
        };
        format!("{}.{}.c2ln", part(json!({ "alg": "none" })), part(json!({ "exp": exp })))
    };
    let file = machine.write("token", &jwt(4_000_000_000));
    let lines = format!(
        "token_endpoint = \"https://as.example/token\"\ngrant_type = \"token-exchange\"\n\
         subject_token = {{ file = \"{}\" }}\nsubject_token_type = \"jwt\"\n",
        file.display()
    );
    machine.finds(0, &lines, &["ok       default: subject_token: read from file ", "; it expires 2096-"]);
    machine.write("token", &jwt(1_000_000_000));
    machine.finds(
        78,
        &lines,
        &["problem  default: subject_token: the subject token from file ", "has stopped"],
    );
    fs::remove_file(file).unwrap();
    machine.finds(78, &lines, &["problem  default: subject_token: cannot read subject_token from file "]);
    // The service has the credential, and this shell has not.
    let lines = format!("{BASE}client_assertion = {{ credential = \"proof\" }}\n");
    machine.finds(0, &lines, &["warning  default: client_assertion: no systemd credential proof"]);
}

#[test]
fn google_s_file_is_opened() {
    let machine = Machine::new();
    let file = |document: &Value| {
        let file = machine.write("key.json", &document.to_string());
        format!("google_credentials = \"{}\"\nscope = \"s\"\n", file.display())
    };
    let key = KeyPair::generate().unwrap();
    let service_account = json!({
        "type": "service_account", "client_email": "robot@project.iam.gserviceaccount.com",
        "private_key": key.serialize_pem(), "token_uri": "https://oauth2.googleapis.com/token",
    });
    let with = |document: &Value, path: &str, value: Value| {
        let mut document = document.clone();
        *document.pointer_mut(path).unwrap() = value;
        file(&document)
    };
    let ok = "ok       default: google_credentials: service_account from file ";
    machine.finds(
        0,
        &file(&service_account),
        &[ok, "its token endpoint is https://oauth2.googleapis.com/token"],
    );
    let sec1 = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
    machine.finds(
        78,
        &with(&service_account, "/private_key", sec1.into()),
        &["in the form of SEC 1", "openssl pkcs8"],
    );
    let elsewhere = "https://attacker.example/token";
    machine.finds(
        78,
        &with(&service_account, "/token_uri", elsewhere.into()),
        &["leads to attacker.example"],
    );
    let plain = "http://oauth2.googleapis.com/token";
    machine.finds(
        78,
        &with(&service_account, "/token_uri", plain.into()),
        &["the token_uri in google_credentials is not https"],
    );
    machine.finds(78, &with(&service_account, "/type", "other".into()), &["is of the type other"]);

    let token = machine.write("token", "opaque");
    let external = json!({
        "type": "external_account", "audience": "//iam.googleapis.com/pool",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/x:generateAccessToken",
        "credential_source": { "file": token },
    });
    let ok = [
        "ok       default: subject_token: read from file ",
        "ok       default: google_credentials: external_account from file ",
        "its token endpoint is https://sts.googleapis.com/v1/token",
    ];
    machine.finds(0, &file(&external), &ok);
    let plain = "http://iamcredentials.googleapis.com/v1/x:generateAccessToken";
    let url = "/service_account_impersonation_url";
    let words = "the service_account_impersonation_url in google_credentials is not https";
    machine.finds(78, &with(&external, url, plain.into()), &[words]);
    let lines = with(&external, "/credential_source/file", "/nowhere/token".into());
    machine.finds(
        78,
        &lines,
        &["problem  default: subject_token: cannot read subject_token from file /nowhere/token"],
    );
    let lines = file(&external);
    machine.write("key.json", "{ nothing");
    machine.finds(78, &lines, &["problem  default: google_credentials: google_credentials from file "]);
}
