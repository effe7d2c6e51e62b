//! Logins at the certified server, by its own pages.

use std::path::Path;

use serde_json::Value;
use zg_tokend::testing::secret::Secret;

use super::{Answer, LoginRun, fetch};
use crate::common::oidc::Oidc;
use crate::common::world::read;
use crate::common::{Background, Sandbox, wait_until};
use crate::grants::Machines;

/// A browser that keeps cookies and trusts the server's CA.
struct Browser<'a> {
    ca_file: &'a str,
    cookies: String,
}

impl<'a> Browser<'a> {
    fn new(oidc: &'a Oidc, sandbox: &Sandbox) -> Self {
        let cookies = sandbox.path("cookies").to_str().unwrap().to_owned();
        Self { ca_file: oidc.ca_file().to_str().unwrap(), cookies }
    }

    fn fetch(&self, args: &[&str]) -> Answer {
        let own = ["--cacert", self.ca_file, "-b", &self.cookies, "-c", &self.cookies];
        fetch(own.into_iter().chain(args.iter().copied()))
    }

    /// Follows redirects to a page, or to another server: its address.
    #[track_caller]
    fn visit(&self, server: &str, args: &[&str]) -> Result<Answer, String> {
        let mut answer = self.fetch(args);
        while let Some(location) = answer.location.take() {
            let next = if location.starts_with('/') { format!("{server}{location}") } else { location };
            if !next.starts_with(server) {
                return Err(next);
            }
            answer = self.fetch(&[&next]);
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        Ok(answer)
    }

    /// Fills in the forms until there is no more.
    #[track_caller]
    fn consent(&self, server: &str, mut page: Result<Answer, String>) -> Result<Answer, String> {
        for _ in 0..6 {
            let Ok(form) = &page else { return page };
            let Some(action) = attribute(&form.body, "action") else { return page };
            let data: String = form
                .body
                .split("<input")
                .skip(1)
                .filter_map(|input| {
                    let value = match attribute(input, "name")?.as_str() {
                        "login" => "alice".to_owned(),
                        "password" => "x".to_owned(),
                        _ => attribute(input, "value")?,
                    };
                    Some(format!("{}={value}&", attribute(input, "name")?))
                })
                .collect();
            page = self.visit(server, &["-d", &data, &action]);
        }
        page
    }
}

/// The value of an attribute of the first tag that has it.
fn attribute(html: &str, name: &str) -> Option<String> {
    let (_, rest) = html.split_once(&format!("{name}=\""))?;
    Some(rest.split_once('"')?.0.to_owned())
}

pub fn configure(oidc: &Oidc, sandbox: &Sandbox) {
    sandbox.write_config(&format!(
        "issuer = \"{}\"\nclient_id = \"zglogin\"\nca_file = \"{}\"\n",
        oidc.https(),
        oidc.ca_file().display()
    ));
}

pub fn status(sandbox: &Sandbox) -> Value {
    let status: Value = serde_json::from_str(&sandbox.run(["status", "--json"]).stdout).unwrap();
    status["accounts"][0].clone()
}

pub fn token(sandbox: &Sandbox) -> Secret {
    read(&sandbox.path("config/zerogravity/token"))
}

#[test]
fn a_login_by_browser_rotates_and_is_revoked() {
    let Some(oidc) = Oidc::start([("ACCESS_TOKEN_TTL", "600")]) else { return };
    let sandbox = Sandbox::below(Path::new("/dev/shm"));
    configure(&oidc, &sandbox);
    let mut login = LoginRun::start_in(&sandbox, "--no-browser", &[]);
    let browser = Browser::new(&oidc, &sandbox);
    let page = browser.visit(oidc.https(), &[&login.url()]);
    let redirect = browser.consent(oidc.https(), page).expect_err("a redirect to the listener");
    assert!(redirect.contains("&iss=https"), "the server names itself");
    let (_, page) = super::follow(&redirect);
    assert!(page.body.contains("You are logged in"), "{page:?}");
    login.ends_with(0);
    assert_eq!(status(&sandbox)["refresh_token"]["identity"], format!("{}#alice", oidc.https()));
    let first = token(&sandbox);
    assert_eq!(sandbox.run(["once", "--force"]).code, Some(0));
    assert_ne!(token(&sandbox), first);
    // The code was exchanged once: a replay would have revoked all of it.
    assert_eq!(sandbox.run(["once", "--force"]).code, Some(0));

    let output = sandbox.run(["logout"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("revoked and forgotten"), "{output:?}");
    assert!(!sandbox.path("config/zerogravity/token").exists());
    assert_eq!(sandbox.run(["once"]).code, Some(77));
}

/// Logs in as alice, by the code of a device.
#[track_caller]
fn log_in_by_device(oidc: &Oidc, sandbox: &Sandbox) {
    let mut command = sandbox.command(["login", "--device", "--json"]);
    let mut login = Background::start(&mut command, sandbox.path("device.log"));
    let code: Value = wait_until("the code", || {
        login
            .log()
            .lines()
            .find(|line| line.contains("user_code"))
            .map(|line| serde_json::from_str(line).unwrap())
    });
    let browser = Browser::new(oidc, sandbox);
    let page = browser.visit(oidc.https(), &[code["verification_uri_complete"].as_str().unwrap()]);
    let page = browser.consent(oidc.https(), page).expect("a page at the end");
    assert!(page.body.contains("Sign-in Success"), "{page:?}");
    assert_eq!(login.wait().code(), Some(0), "{}", login.log());
    assert_eq!(status(sandbox)["refresh_token"]["identity"], format!("{}#alice", oidc.https()));
    assert_eq!(sandbox.run(["once", "--force"]).code, Some(0));
}

#[test]
fn a_login_by_device_code() {
    let Some(oidc) = Oidc::start([("ACCESS_TOKEN_TTL", "600")]) else { return };
    let sandbox = Sandbox::below(Path::new("/dev/shm"));
    configure(&oidc, &sandbox);
    log_in_by_device(&oidc, &sandbox);
}

#[test]
fn a_client_that_signs_logs_in_by_browser_and_by_device() {
    let Some(machines) = Machines::start() else { return };
    let (oidc, sandbox) = (&machines.oidc, &machines.sandbox);
    let key = machines.key("next.pem");
    machines.configure(&format!(
        "client_id = \"zg-signer\"\nkey_id = \"next\"\nprivate_key = {{ file = \"{}\" }}\n",
        key.display()
    ));
    let mut login = LoginRun::start_in(sandbox, "--no-browser", &[]);
    let browser = Browser::new(oidc, sandbox);
    let page = browser.visit(oidc.https(), &[&login.url()]);
    let redirect = browser.consent(oidc.https(), page).expect_err("a redirect to the listener");
    let (_, page) = super::follow(&redirect);
    assert!(page.body.contains("You are logged in"), "{page:?}");
    login.ends_with(0);
    machines.once_gives(0, &["--force"]);
    assert_eq!(machines.owner().as_deref(), Some("zg-signer"));
    // The request to revoke is signed as well.
    let output = sandbox.run(["logout"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("revoked and forgotten"), "{output:?}");
    // So is each poll of a device.
    log_in_by_device(oidc, sandbox);
    assert_eq!(machines.owner().as_deref(), Some("zg-signer"));
    let proofs: Value = serde_json::from_str(&machines.get("/_proofs")).unwrap();
    let mut ids: Vec<_> =
        proofs.as_array().unwrap().iter().map(|it| it["claims"]["jti"].to_string()).collect();
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert!(count >= 5 && ids.len() == count, "each request has an assertion of its own: {proofs}");
}
