//! The environment of a user: a server with an account, a config, and a client that reads the token
//! file. All of it is gone when this is dropped.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::cli::demo::error::DemoError;
use crate::config::{self, Environment, Settings, Symlinks};
use crate::demo::issuer::IssuerOptions;
use crate::demo::server::{Plain, Server};
use crate::secret::Secret;

/// A refresh is then due every 6 s, and in an outage the token is live for another 6 s: short
/// enough to watch, long enough for three tries.
const LIFETIME: Duration = Duration::from_secs(12);

/// The client that the embedded server knows.
pub(super) const CLIENT_ID: &str = "demo";

pub(super) struct Setup {
    pub(super) server: Server,
    pub(super) settings: Arc<Settings>,
    pub(super) token_file: PathBuf,
    directory: TempDir,
}

impl Setup {
    pub(super) fn new(port: u16) -> Result<Self, DemoError> {
        let options = IssuerOptions { access_token_lifetime: LIFETIME, ..IssuerOptions::default() };
        let server = Server::spawn_thread(port, Plain, options)?;
        let directory = tempfile::Builder::new()
            .prefix("zg-tokend-demo-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(DemoError::Directory)?;
        let path = directory.path().join("config.toml");
        let text = config(&server).ok_or(DemoError::Directory(io::ErrorKind::NotFound.into()))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.expose().as_bytes())).map_err(DemoError::Directory)?;
        let settings = config::load(&path, &Environment::of_process(), Symlinks::Follow)?;
        Ok(Self {
            server,
            settings: Arc::new(settings),
            token_file: directory.path().join("token"),
            directory,
        })
    }

    /// Reads the token and uses it, as a client does. The error says why it was refused; `None`:
    /// there is no token file.
    pub(super) fn read(&self) -> Option<Result<(), &'static str>> {
        match fs::read_to_string(&self.token_file).map(Secret::new) {
            Ok(token) if self.server.is_live(&token) => Some(Ok(())),
            Ok(_) => Some(Err("the token in the file is dead")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => Some(Err("the token file cannot be read")),
        }
    }

    pub(super) fn remove(self) -> Result<(), DemoError> {
        drop(self.server);
        self.directory.close().map_err(DemoError::Directory)
    }
}

/// A config for an account of this server, with a refresh token of its own. `None` if the client
/// is unknown.
fn config(server: &Server) -> Option<Secret> {
    let refresh_token = server.seed(CLIENT_ID)?;
    Some(Secret::new(format!(
        "\
token_endpoint = \"{}\"
token_endpoint_auth_method = \"none\"
client_id = \"{CLIENT_ID}\"
refresh_token = \"{}\"
token_file = \"token\"
state_dir = \"state\"
",
        server.token_endpoint(),
        refresh_token.expose(),
    )))
}
