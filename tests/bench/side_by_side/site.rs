//! Where the programs work: a home with configured accounts, and a server that knows them.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;
use zg_tokend::testing::demo::AuditEvent;
use zg_tokend::testing::demo::Server;
use zg_tokend::testing::secret::Secret;

/// The program as users build it. The one that cargo makes for a bench has more features of dependencies, and
/// so other functions than packaging/functions.txt lists.
pub fn zg_tokend() -> PathBuf {
    released().join("release/zg-tokend")
}

/// The target directory of that build.
pub fn released() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("released")
}

/// The distribution's certificate authorities, which every client has to read.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// An opponent; `name` is one of the examples in Cargo.toml.
pub fn opponent(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_zg-tokend")).with_file_name("examples").join(name)
}

pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/opponents/script.sh")
}

/// The distribution's bundle with one more CA in it.
pub fn add_to_bundle(ca_file: &Path) -> Result<()> {
    let mut bundle = fs::read(BUNDLE).with_context(|| format!("{BUNDLE} (install ca-certificates)"))?;
    bundle.extend(fs::read(ca_file)?);
    Ok(fs::write(ca_file, bundle)?)
}

/// A home of one's own, on the disk that target/ is on.
pub struct Site<'a> {
    directory: TempDir,
    server: &'a Server,
    ca_file: &'a Path,
    accounts: Vec<String>,
}

impl<'a> Site<'a> {
    /// Everything ready, every account due.
    pub fn new(server: &'a Server, ca_file: &'a Path, accounts: usize) -> Result<Self> {
        let site = Self {
            directory: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?,
            server,
            ca_file,
            accounts: (0..accounts).map(|number| format!("account-{number}")).collect(),
        };
        for account in &site.accounts {
            fs::create_dir_all(site.bare(account))?;
            let state = json!({ "refresh_token": site.seed()? });
            fs::write(site.bare(account).join("state"), state.to_string())?;
        }
        site.log_in()?;
        Ok(site)
    }

    /// Writes the config with new refresh tokens, so that every account is due.
    pub fn log_in(&self) -> Result<()> {
        let (home, token_endpoint) = (self.path("").display().to_string(), self.token_endpoint());
        let mut config = format!(
            "token_endpoint = {token_endpoint:?}\nclient_id = \"demo\"\nstate_dir = \"{home}/state\"\n"
        );
        for account in &self.accounts {
            let seed = self.seed()?;
            writeln!(config, "[accounts.{account}]\nrefresh_token = {seed:?}")?;
            writeln!(config, "token_file = \"{home}/tokens/{account}\"")?;
        }
        let path = self.path("config.toml");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(file.write_all(config.as_bytes())?)
    }

    fn seed(&self) -> Result<String> {
        let seed = self.server.seed("demo").context("the server knows no client named demo")?;
        Ok(seed.expose().to_owned())
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }

    /// Where the opponents keep an account.
    fn bare(&self, account: &str) -> PathBuf {
        self.path("bare").join(account)
    }

    pub fn token_endpoint(&self) -> String {
        self.server.token_endpoint()
    }

    /// The SHA-256 of the token that the first account's readers have.
    pub fn token_sha256(&self) -> Result<String> {
        let token = fs::read_to_string(self.path("tokens").join(&self.accounts[0]))?;
        Ok(Secret::new(token).fingerprint().to_string())
    }

    /// Lets the first account forget that a token was refused: the next report may count at once.
    pub fn forget_rejection(&self) -> Result<()> {
        self.forget(&self.accounts[0], "rejection")
    }

    /// Lets all accounts forget that refreshes were forced: the next one need not wait for a minute.
    pub fn forget_forced(&self) -> Result<()> {
        self.accounts.iter().try_for_each(|account| self.forget(account, "forced"))
    }

    fn forget(&self, account: &str, member: &str) -> Result<()> {
        let path = self.path("state").join(account).join("state");
        let mut state: Value = serde_json::from_slice(&fs::read(&path)?)?;
        state.as_object_mut().context("the state is no object")?.remove(member);
        Ok(fs::write(path, state.to_string())?)
    }

    /// How many requests for a token came in so far.
    pub fn posts(&self) -> usize {
        self.server.audit().iter().filter(|entry| matches!(entry.event, AuditEvent::Post)).count()
    }

    /// zg-tokend with these arguments.
    pub fn zg_tokend(&self, args: &[&str]) -> Command {
        let mut command = self.command(zg_tokend());
        command.args(args).arg("--config").arg(self.path("config.toml"));
        command
    }

    /// The bare client at one of its tasks, on one account or on all of them.
    pub fn bare_client(&self, task: &str, directory: &str) -> Command {
        let mut command = self.command(opponent("bare"));
        command.arg(task).arg(self.token_endpoint()).arg(self.path(directory));
        command
    }

    /// Any other program, with the same small environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.directory.path()).env("SSL_CERT_FILE", self.ca_file);
        command.env("XDG_RUNTIME_DIR", self.directory.path());
        command.current_dir(self.directory.path());
        command
    }
}
