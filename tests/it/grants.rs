//! Accounts without a person: grants, keys and certificates, against a certified server by somebody else.

mod check;
mod files;
mod google;
mod proofs;
mod turns;
mod words;

use std::path::{Path, PathBuf};

use serde_json::Value;
use zg_tokend::testing::secret::Secret;

use crate::common::oidc::Oidc;
use crate::common::world::read;
use crate::common::{Background, Output, Sandbox, curl, leave_out};

/// A sandbox beside the server with its machine clients.
pub(crate) struct Machines {
    pub(crate) oidc: Oidc,
    pub(crate) sandbox: Sandbox,
}

impl Machines {
    pub(crate) fn start() -> Option<Self> {
        Self::with_lifetime("600")
    }

    /// Tokens live for so many seconds.
    pub(crate) fn with_lifetime(lifetime: &str) -> Option<Self> {
        let oidc = Oidc::start([("ACCESS_TOKEN_TTL", lifetime), ("MACHINES", "1")])?;
        Some(Self { oidc, sandbox: Sandbox::new() })
    }

    /// One of the server's keys or certificates, readable by its owner alone.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        let (from, to) = (self.oidc.ca_file().with_file_name(name), self.sandbox.path(name));
        crate::common::write_private(&to, &std::fs::read(from).unwrap());
        to
    }

    pub(crate) fn configure(&self, lines: &str) {
        let (issuer, ca) = (self.oidc.https(), self.oidc.ca_file().display());
        self.sandbox.write_config(&format!("issuer = \"{issuer}\"\nca_file = \"{ca}\"\n{lines}\n"));
    }

    #[track_caller]
    pub(crate) fn once_gives(&self, code: i32, args: &[&str]) -> Output {
        let output = self.sandbox.run(["once"].into_iter().chain(args.iter().copied()));
        assert_eq!(output.code, Some(code), "{output:?}");
        output
    }

    pub(crate) fn token(&self) -> Secret {
        read(&self.sandbox.path("config/zerogravity/token"))
    }

    pub(crate) fn state(&self) -> Value {
        let path = self.sandbox.path("state/zg-tokend/default/state");
        serde_json::from_str(read(&path).expose()).unwrap()
    }

    /// A pass fails, as others did for hours: the next try by itself is minutes away, longer than any test
    /// waits. Gives the number of failures.
    pub(crate) fn fail_for_hours(&self) -> u64 {
        self.once_gives(69, &[]);
        let mut state = self.state();
        let since = state["failure"]["since"].as_object_mut().unwrap();
        for (_, instant) in since.iter_mut().filter(|(_, value)| value.is_i64()) {
            *instant = (instant.as_i64().unwrap() - 7_200_000).into();
        }
        let path = self.sandbox.path("state/zg-tokend/default/state");
        std::fs::write(path, state.to_string()).unwrap();
        self.failures()
    }

    pub(crate) fn failures(&self) -> u64 {
        self.state()["failure"]["count"].as_u64().unwrap_or_default()
    }

    /// The client of the token in the token file, if the server knows it.
    pub(crate) fn owner(&self) -> Option<String> {
        let (url, ca) = (format!("{}/token/introspection", self.oidc.https()), self.oidc.ca_file());
        let form = format!("token={}", self.token().expose());
        let auth = "zg:s3cret%2B%2F%25%3A+%26%3D";
        let reply = curl(["--cacert", ca.to_str().unwrap(), "-u", auth, "-d", &form, &url]);
        (reply.body["active"] == true).then(|| reply.body["client_id"].as_str().unwrap().to_owned())
    }

    /// A text of the server: a platform's token, or what it has verified.
    pub(crate) fn get(&self, path: &str) -> String {
        let ca = self.oidc.ca_file().to_str().unwrap();
        let output = std::process::Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--cacert", ca, &format!("{}{path}", self.oidc.https())])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Lines of a config for a client that signs with this key.
pub(crate) fn signing(client: &str, key: &Path) -> String {
    format!(
        "grant_type = \"client_credentials\"\nclient_id = \"{client}\"\nscope = \"api\"\n\
         private_key = {{ file = \"{}\" }}\n",
        key.display()
    )
}

#[test]
fn client_credentials_need_no_login_and_keep_none() {
    let Some(machines) = Machines::start() else { return };
    machines.configure(
        "grant_type = \"client_credentials\"\nclient_id = \"zgmachine\"\nclient_secret = \"s3cret\"\nscope = \"api\"",
    );
    machines.once_gives(0, &[]);
    let first = machines.token();
    assert_eq!(machines.owner().as_deref(), Some("zgmachine"));
    let state = machines.state();
    assert_eq!(state["generation"], 1);
    assert_eq!((state.get("refresh_token"), state.get("in_flight")), (None, None), "{state}");
    // Nothing is due.
    machines.once_gives(0, &[]);
    assert_eq!(machines.token(), first);
    machines.once_gives(0, &["--force"]);
    assert_ne!(machines.token(), first);
    assert_eq!(machines.owner().as_deref(), Some("zgmachine"));
    let status = machines.sandbox.run(["status", "--json"]);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(
        (&status["accounts"][0]["state"], &status["accounts"][0]["severity"]),
        (&"fresh".into(), &"ok".into()),
        "{status}"
    );
}

#[test]
fn every_kind_of_key_signs_what_the_server_verifies() {
    let Some(machines) = Machines::start() else { return };
    for (client, key) in [
        ("zg-rsa", "rsa.pem"),
        ("zg-rsa", "rsa.pkcs1.pem"),
        ("zg-p256", "p256.pem"),
        ("zg-p384", "p384.pem"),
        ("zg-ed25519", "ed25519.pem"),
    ] {
        let lines = signing(client, &machines.key(key));
        let key_id = client.trim_start_matches("zg-");
        // Both audiences, and an assertion of its own for each request.
        for audience in ["issuer", "token_endpoint"] {
            machines.configure(&format!(
                "{lines}key_id = \"{key_id}\"\nclient_assertion_audience = \"{audience}\"\n"
            ));
            machines.once_gives(0, &["--force"]);
            assert_eq!(machines.owner().as_deref(), Some(client), "{key} {audience}");
        }
        std::fs::remove_dir_all(machines.sandbox.path("state/zg-tokend")).unwrap();
    }
}

#[test]
fn a_certificate_proves_the_client_at_the_alias_of_the_endpoint() {
    let Some(machines) = Machines::start() else { return };
    let tls = |client: &str, name: &str, method: &str| {
        let (certificate, key) = (machines.key(&format!("{name}.crt")), machines.key(&format!("{name}.pem")));
        machines.configure(&format!(
            "grant_type = \"client_credentials\"\nclient_id = \"{client}\"\nscope = \"api\"\n\
             token_endpoint_auth_method = \"{method}\"\n\
             tls_certificate = \"{}\"\ntls_private_key = {{ file = \"{}\" }}\n",
            certificate.display(),
            key.display()
        ));
    };
    tls("zgtls", "client", "tls_client_auth");
    machines.once_gives(0, &[]);
    assert_eq!(machines.owner().as_deref(), Some("zgtls"));
    std::fs::remove_dir_all(machines.sandbox.path("state/zg-tokend")).unwrap();
    tls("zgself", "self", "self_signed_tls_client_auth");
    machines.once_gives(0, &[]);
    assert_eq!(machines.owner().as_deref(), Some("zgself"));
    // Somebody else's certificate is refused, and the next one is tried at once.
    tls("zgself", "client", "self_signed_tls_client_auth");
    let output = machines.once_gives(78, &["--force"]);
    assert!(output.stderr.contains("invalid_client"), "{output:?}");
    tls("zgself", "self", "self_signed_tls_client_auth");
    machines.once_gives(0, &["--force"]);
}

#[test]
fn a_key_that_is_not_the_certificate_s_is_named_before_any_request() {
    let Some(machines) = Machines::start() else { return };
    let (certificate, key) = (machines.key("client.crt"), machines.key("self.pem"));
    machines.configure(&format!(
        "grant_type = \"client_credentials\"\nclient_id = \"zgtls\"\n\
         tls_certificate = \"{}\"\ntls_private_key = {{ file = \"{}\" }}\n",
        certificate.display(),
        key.display()
    ));
    let output = machines.once_gives(78, &[]);
    assert!(output.stderr.contains("tls_private_key is not the key of the certificate"), "{output:?}");
}

#[test]
fn an_assertion_is_signed_here_for_jwt_bearer() {
    let Some(machines) = Machines::start() else { return };
    let key = machines.key("rsa.pem");
    let lines = |issuer: &str| {
        format!(
            "grant_type = \"urn:ietf:params:oauth:grant-type:jwt-bearer\"\nclient_id = \"zgbearer\"\n\
             token_endpoint_auth_method = \"none\"\nprivate_key = {{ file = \"{}\" }}\nkey_id = \"k1\"\n\
             assertion_issuer = \"{issuer}\"\nassertion_subject = \"user@example.com\"\nscope = \"api\"\n",
            key.display()
        )
    };
    machines.configure(&lines("robot@project.example"));
    // The server sends a refresh token as well, which nothing keeps.
    let mut run = Background::start(&mut machines.sandbox.command(["run"]), machines.sandbox.path("log"));
    run.wait_for("also sent a refresh token");
    run.wait_for("token 1 lives");
    assert_eq!(run.stop().code(), Some(0));
    assert_eq!(machines.state().get("refresh_token"), None);
    machines.once_gives(0, &["--force"]);
    let seen: Value = serde_json::from_str(&machines.get("/_seen")).unwrap();
    let claims = |index: usize| &seen[index]["payload"];
    assert_eq!(seen[0]["header"], serde_json::json!({ "alg": "RS256", "kid": "k1", "typ": "JWT" }));
    assert_eq!(claims(0)["sub"], "user@example.com");
    assert_ne!(claims(0)["jti"], claims(1)["jti"], "each assertion serves one request");
    let (iat, exp) = (claims(0)["iat"].as_i64().unwrap(), claims(0)["exp"].as_i64().unwrap());
    assert_eq!(exp - iat, 310);
    // The server refuses our own signature: nobody is asked to log in.
    machines.configure(&lines("another@project.example"));
    let output = machines.once_gives(78, &["--force"]);
    assert!(output.stderr.contains("the assertion that private_key has signed: invalid_grant"), "{output:?}");
    assert!(!output.stderr.contains("log in"), "{output:?}");
    let posts = machines.get("/_seen");
    machines.once_gives(78, &["--force"]);
    assert_eq!(machines.get("/_seen"), posts);
    machines.configure(&lines("robot@project.example"));
    machines.once_gives(0, &[]);
}

#[test]
fn a_wrong_clock_is_named_by_the_date_of_the_reply() {
    let Some(machines) = Machines::start() else { return };
    let library = ["x86_64-linux-gnu", "aarch64-linux-gnu", ""]
        .map(|directory| Path::new("/usr/lib").join(directory).join("faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| path.exists());
    let Some(library) = library else {
        leave_out("wrong clocks and assertions: libfaketime is not installed");
        return;
    };
    // Without TLS, whose certificates a wrong clock refuses first.
    let lines = signing("zg-rsa", &machines.key("rsa.pem"));
    machines.sandbox.write_config(&format!("issuer = \"{}\"\n{lines}", machines.oidc.http()));
    for (offset, words) in [("+10m", "min ahead of the server's"), ("-10m", "min behind the server's")] {
        let mut once = machines.sandbox.command(["once", "--force"]);
        let output = crate::common::finish(once.env("LD_PRELOAD", &library).env("FAKETIME", offset));
        assert_eq!(output.code, Some(78), "{offset}: {output:?}");
        assert!(output.stderr.contains("the clock of this machine is"), "{offset}: {output:?}");
        assert!(output.stderr.contains(words), "{offset}: {output:?}");
        assert!(output.stderr.contains("timedatectl"), "{offset}: {output:?}");
        std::fs::remove_dir_all(machines.sandbox.path("state/zg-tokend")).unwrap();
    }
    machines.once_gives(0, &[]);
}

#[test]
fn status_and_check_tell_when_a_certificate_ends() {
    let Some(machines) = Machines::start() else { return };
    let (key, certificate) = (machines.key("rsa.pem"), machines.key("rsa.crt"));
    machines.configure(&format!("{}certificate = \"{}\"\n", signing("zg-rsa", &key), certificate.display()));
    machines.once_gives(0, &[]);
    let status = machines.sandbox.run(["status", "--json"]);
    assert_eq!(status.code, Some(1), "{status:?}");
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let account = &status["accounts"][0];
    assert_eq!((&account["state"], &account["severity"]), (&"fresh".into(), &"warning".into()), "{account}");
    assert!(account["problem"].as_str().unwrap().contains("rsa.crt ends in "), "{account}");
    // By somebody else's reading of the certificate.
    let end = std::process::Command::new("openssl")
        .args(["x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in"])
        .arg(&certificate)
        .output()
        .unwrap();
    let end = String::from_utf8(end.stdout).unwrap();
    let end = end.trim().trim_start_matches("notAfter=").replace(' ', "T");
    let end: jiff::Timestamp = end.parse().unwrap();
    assert_eq!(account["certificates"][0]["ends_at"], end.as_second());
    let check = machines.sandbox.run(["check"]);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(check.stdout.contains("rsa.crt ends"), "{check:?}");
}

#[test]
fn a_client_that_signs_may_have_a_login_too() {
    let Some(machines) = Machines::start() else { return };
    let (key, seed) = (machines.key("next.pem"), machines.oidc.seed(machines.oidc.https(), "zg-next"));
    machines.configure(&format!(
        "client_id = \"zg-next\"\nprivate_key = {{ file = \"{}\" }}\nrefresh_token = \"{}\"\n",
        key.display(),
        seed.expose()
    ));
    for _ in 0..2 {
        machines.once_gives(0, &["--force"]);
        assert_eq!(machines.owner().as_deref(), Some("zg-next"));
    }
    assert_ne!(machines.state()["refresh_token"]["value"], seed.expose(), "it was rotated");
    // A wrong key is the client's fault, and the login survives it.
    let other = machines.key("rsa.pem");
    std::fs::copy(other, &key).unwrap();
    let output = machines.once_gives(78, &["--force"]);
    assert!(output.stderr.contains("public half of private_key"), "{output:?}");
    machines.key("next.pem");
    machines.once_gives(0, &["--force"]);
}
