//! The binary against a certified server by somebody else.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use zg_tokend::testing::clock::monotonic;
use zg_tokend::testing::secret::Secret;

use crate::common::oidc::Oidc;
use crate::common::world::read;
use crate::common::{Background, Output, Sandbox, curl, poll_for, wait_until};

const SECRET: &str = "s3cret+/%: &=";

/// Client id, its lines of config, and how it authenticates in curl's words.
const CLIENTS: [(&str, &str, &[&str]); 3] = [
    ("zg", "client_secret = \"s3cret+/%: &=\"\n", &["-u", "zg:s3cret%2B%2F%25%3A+%26%3D"]),
    (
        "zgpost",
        "client_secret = \"p0st\"\ntoken_endpoint_auth_method = \"client_secret_post\"\n",
        &["-d", "client_id=zgpost", "-d", "client_secret=p0st"],
    ),
    ("zgpub", "", &["-d", "client_id=zgpub"]),
];

/// A sandbox whose config asks the certified server over HTTPS.
struct Peer {
    oidc: Oidc,
    sandbox: Sandbox,
}

impl Peer {
    fn start(lifetime: &str) -> Option<Self> {
        let oidc = Oidc::start([("ACCESS_TOKEN_TTL", lifetime)])?;
        // No disk to wait for: tokens live seconds.
        Some(Self { oidc, sandbox: Sandbox::below(Path::new("/dev/shm")) })
    }

    fn configure(&self, client_id: &str, lines: &str) -> Secret {
        let issuer = self.oidc.https();
        let seed = self.oidc.seed(issuer, client_id);
        self.sandbox.write_config(&format!(
            "issuer = \"{issuer}\"\nclient_id = \"{client_id}\"\nca_file = \"{}\"\n\
             refresh_token = \"{}\"\n{lines}",
            self.oidc.ca_file().display(),
            seed.expose()
        ));
        seed
    }

    fn once(&self, args: &[&str]) -> Output {
        self.sandbox.run(["once"].into_iter().chain(args.iter().copied()))
    }

    #[track_caller]
    fn once_gives(&self, code: i32, args: &[&str]) -> Output {
        let output = self.once(args);
        assert_eq!(output.code, Some(code), "{output:?}");
        output
    }

    fn token(&self) -> Secret {
        read(&self.sandbox.path("config/zerogravity/token"))
    }

    fn state(&self) -> Value {
        let path = self.sandbox.path("state/zg-tokend/default/state");
        serde_json::from_str(read(&path).expose()).unwrap()
    }

    fn post(&self, endpoint: &str, auth: &[&str], token: &str) -> Value {
        let (url, form) = (format!("{}/token/{endpoint}", self.oidc.https()), format!("token={token}"));
        let ca_file = self.oidc.ca_file().to_str().unwrap();
        let mut args = vec!["--cacert", ca_file, "-d", &form, &url];
        args.extend(auth);
        let reply = curl(args);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.body
    }

    fn is_active(&self, auth: &[&str], token: &Secret) -> bool {
        self.post("introspection", auth, token.expose())["active"].as_bool().unwrap()
    }
}

#[test]
fn once_refreshes_every_kind_of_client_over_https() {
    let Some(peer) = Peer::start("600") else { return };
    for (client_id, lines, auth) in CLIENTS {
        peer.configure(client_id, lines);
        for generation in 1..=3 {
            peer.once_gives(0, &["--force"]);
            assert!(peer.is_active(auth, &peer.token()), "{client_id} {generation}");
        }
        // Each has a state of its own.
        std::fs::remove_dir_all(peer.sandbox.path("state/zg-tokend")).unwrap();
    }
}

#[test]
fn a_ca_that_is_not_trusted_gets_no_token() {
    let Some(peer) = Peer::start("600") else { return };
    let (issuer, seed) = (peer.oidc.https(), peer.oidc.seed(peer.oidc.https(), "zgpub"));
    peer.sandbox.write_config(&format!(
        "token_endpoint = \"{issuer}/token\"\nclient_id = \"zgpub\"\nrefresh_token = \"{}\"\n",
        seed.expose()
    ));
    let output = peer.once_gives(69, &[]);
    assert!(output.stderr.contains("ca_file"), "{output:?}");
    assert_eq!(peer.state()["refresh_token"]["value"], seed.expose());
}

#[test]
fn a_wrong_secret_is_the_client_s_fault_and_the_login_survives_it() {
    let Some(peer) = Peer::start("600") else { return };
    peer.configure("zg", "client_secret = \"wrong\"\n");
    let output = peer.once_gives(78, &[]);
    assert!(output.stderr.contains("invalid_client"), "{output:?}");
    let config = read(&peer.sandbox.config_path());
    peer.sandbox.write_config(&config.expose().replace("wrong", SECRET));
    peer.once_gives(0, &[]);
    assert!(peer.is_active(CLIENTS[0].2, &peer.token()));
}

#[test]
fn a_login_that_was_revoked_or_reused_needs_a_new_one() {
    let Some(peer) = Peer::start("600") else { return };
    let (client_id, lines, auth) = CLIENTS[0];
    for ended_by in ["revocation", "reuse"] {
        let seed = peer.configure(client_id, lines);
        peer.once_gives(0, &["--force"]);
        let token = peer.token();
        if ended_by == "revocation" {
            peer.post("revocation", auth, peer.state()["refresh_token"]["value"].as_str().unwrap());
        } else {
            // Somebody else presents the token that has been replaced.
            let form = format!("refresh_token={}", seed.expose());
            let ca_file = peer.oidc.ca_file().to_str().unwrap();
            let url = format!("{}/token", peer.oidc.https());
            let mut args = vec!["--cacert", ca_file, "-d", "grant_type=refresh_token", "-d", &form, &url];
            args.extend(auth);
            assert_eq!(curl(args).body["error"], "invalid_grant");
        }
        for _ in 0..2 {
            let output = peer.once_gives(77, &["--force"]);
            assert!(output.stderr.contains("invalid_grant"), "{ended_by}: {output:?}");
        }
        assert_eq!(peer.token(), token, "the readers' token stays");
        peer.configure(client_id, lines);
        peer.once_gives(0, &[]);
        assert!(peer.is_active(auth, &peer.token()));
    }
}

/// So many tokens must be seen.
const ROTATIONS: usize = 4;

/// Less than half of the life of a token, in milliseconds, by what a refresh takes.
const MARGIN: i64 = 3000;

#[test]
fn no_reader_ever_reads_a_bad_token_while_run_rotates_it() {
    let Some(peer) = Peer::start("12") else { return };
    let (client_id, lines, auth) = CLIENTS[2];
    peer.configure(client_id, lines);
    let log = peer.sandbox.path("log");
    let mut run = Background::start(&mut peer.sandbox.command(["run"]), log);
    wait_until("the first token", || peer.sandbox.path("config/zerogravity/token").exists().then_some(()));
    let (asked, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let (read_at, token) = (monotonic(), peer.token());
                // A token lives for half of its life at least, from when it is read: a busy machine may
                // take longer to ask.
                let is_active = peer.is_active(auth, &token) || monotonic() - read_at > MARGIN;
                assert!(is_active, "read {}", asked.load(Ordering::Relaxed));
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Between the reads that are tried, others: none may be empty or torn.
        let mut seen = std::collections::BTreeSet::new();
        let mut torn = None;
        poll_for(Duration::from_secs(120), || {
            let token = peer.token();
            seen.insert(token.fingerprint());
            torn = Some(token.expose().len()).filter(|length| *length < 20);
            (seen.len() >= ROTATIONS || torn.is_some() || reader.is_finished()).then_some(())
        });
        over.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        assert_eq!((torn, seen.len()), (None, ROTATIONS));
    });
    assert!(asked.load(Ordering::Relaxed) >= ROTATIONS, "{asked:?}");
    assert_eq!(run.stop().code(), Some(0));
    assert!(peer.state()["generation"].as_u64().unwrap() >= ROTATIONS as u64);
    assert!(peer.state().get("failure").is_none());
}
