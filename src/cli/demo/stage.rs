//! What a user would have: a provider with an account, a config, and a client that reads the
//! token file. All of it is gone when the stage is dropped.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::cli::demo::DemoError;
use crate::config;
use crate::config::{Environment, Settings};
use crate::demo::issuer::IssuerOptions;
use crate::demo::server::{Plain, Server};
use crate::secret::Secret;

/// How long an access token lives. A refresh is then due every 6 s, and a token left alone by an
/// outage lives for another 6 s: quick enough to watch, long enough for three tries.
pub(super) const LIFETIME: Duration = Duration::from_secs(12);

/// The client that the embedded server knows.
pub(super) const CLIENT_ID: &str = "demo";

/// The stage.
pub(super) struct Stage {
    /// The embedded authorization server.
    pub(super) server: Server,
    /// What the config says.
    pub(super) settings: Settings,
    /// The token file.
    pub(super) token_file: PathBuf,
    directory: TempDir,
}

impl Stage {
    /// Sets everything up; the server listens on this port (0: any that is free).
    pub(super) fn set(port: u16) -> Result<Self, DemoError> {
        let options = IssuerOptions { access_token_lifetime: LIFETIME, ..IssuerOptions::default() };
        let server = Server::spawn_thread(port, Plain, options)?;
        let directory = tempfile::Builder::new()
            .prefix("zg-tokend-demo-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(DemoError::Directory)?;
        let config_file = directory.path().join("config.toml");
        let text = config(&server, "token").ok_or(DemoError::Directory(io::ErrorKind::NotFound.into()))?;
        write_private(&config_file, &text).map_err(DemoError::Directory)?;
        let settings = config::load(&config_file, &Environment::of_process())?;
        Ok(Self { server, settings, token_file: directory.path().join("token"), directory })
    }

    /// What a client meets that takes the token from the file and uses it.
    pub(super) fn read(&self) -> Read {
        match fs::read_to_string(&self.token_file).map(Secret::new) {
            Ok(token) if self.server.is_live(&token) => Read::Accepted,
            Ok(_) => Read::Refused("the token in the file is dead"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Read::Missing,
            Err(_) => Read::Refused("the token file cannot be read"),
        }
    }

    /// Ends the server and removes the directory.
    pub(super) fn clear(self) -> Result<(), DemoError> {
        drop(self.server);
        self.directory.close().map_err(DemoError::Directory)
    }
}

/// How a client's read went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// The server accepts the token.
    Accepted,
    /// It was of no use, and why.
    Refused(&'static str),
    /// There is no token file.
    Missing,
}

/// A config for an account of this server, with a refresh token of its own. Paths are relative to
/// the config's directory. `None` if the client is unknown.
pub(super) fn config(server: &Server, token_file: &str) -> Option<Secret> {
    let refresh_token = server.seed(CLIENT_ID)?;
    Some(Secret::new(format!(
        "\
token_endpoint = \"{}\"
token_endpoint_auth_method = \"none\"
client_id = \"{CLIENT_ID}\"
refresh_token = \"{}\"
token_file = \"{token_file}\"
state_dir = \"state\"
",
        server.token_endpoint(),
        refresh_token.expose(),
    )))
}

fn write_private(path: &Path, text: &Secret) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.expose().as_bytes())
}
