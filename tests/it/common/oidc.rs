//! The certified authorization server in `tests/oidc`, as a child of the test.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::Deserialize;
use tempfile::TempDir;
use zg_tokend::testing::secret::Secret;

use super::{curl, leave_out};

/// Where it listens: the two base URLs are two issuers that know nothing of each other.
#[derive(Deserialize)]
struct Ready {
    http: String,
    https: String,
    ca: PathBuf,
}

/// The server, until this is dropped. Its clients are `zg` (client_secret_basic), `zgpost`
/// (client_secret_post) and `zgpub` (public).
pub struct Oidc {
    child: Child,
    ready: Ready,
    _directory: TempDir,
}

impl Oidc {
    /// Starts it with these settings (see `tests/oidc/issuer.mjs`). `None` where its packages
    /// are not installed and need not be: for an ordinary user outside CI.
    pub fn start<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc");
        if !home.join("node_modules/oidc-provider").exists() {
            leave_out("the certified server: the packages of tests/oidc are not installed");
            return None;
        }
        let directory = TempDir::new().unwrap();
        let log = directory.path().join("stderr");
        let mut child = Command::new("node")
            .arg(home.join("issuer.mjs"))
            .arg(directory.path())
            .envs(settings)
            // It ends when its stdin is closed: even a test that is killed leaves none behind.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .expect("node starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("not ready: {line}{}", fs::read_to_string(log).unwrap()));
        Some(Self { child, ready, _directory: directory })
    }

    /// The issuer over plain HTTP.
    pub fn http(&self) -> &str {
        &self.ready.http
    }

    /// The issuer over HTTPS.
    pub fn https(&self) -> &str {
        &self.ready.https
    }

    /// The CA that vouches for [`https`](Self::https).
    pub fn ca_file(&self) -> &Path {
        &self.ready.ca
    }

    /// A first refresh token for this client, from this one of the two issuers.
    pub fn seed(&self, issuer: &str, client_id: &str) -> Secret {
        let ca_file = self.ca_file().to_str().unwrap();
        let reply = curl(["--cacert", ca_file, "-d", "", &format!("{issuer}/_seed?client={client_id}")]);
        Secret::new(reply.body["refresh_token"].as_str().expect("a refresh token"))
    }
}

impl Drop for Oidc {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
