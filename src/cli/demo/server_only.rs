//! The embedded server alone, to test other programs with.

use std::time::Duration;

use crate::cli::demo::ending::Ending;
use crate::cli::demo::error::DemoError;
use crate::cli::demo::setup::CLIENT_ID;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::demo::client::DemoClient;
use crate::demo::issuer::IssuerOptions;
use crate::demo::server::{Plain, Server};

/// Short enough to wait for a refresh, long enough to type commands meanwhile.
const LIFETIME: Duration = Duration::from_secs(60);

/// The client that asks for itself, and its secret.
const MACHINE: (&str, &str) = ("machine", "machine-secret");

/// Serves until the ending comes. Scripts read the lines `key = value`.
pub(super) async fn serve(port: u16, ending: Ending) -> Result<Exit, DemoError> {
    let options = IssuerOptions {
        clients: vec![DemoClient::public(CLIENT_ID), DemoClient::basic(MACHINE.0, MACHINE.1)],
        access_token_lifetime: LIFETIME,
        ..IssuerOptions::default()
    };
    let server = Server::spawn_thread(port, Plain, options)?;
    output::print(guide(&server).unwrap_or_default());
    ending.comes().await;
    Ok(Exit::Success)
}

/// The instructions. Its tokens guard nothing, so they may be shown. Each login is shown only
/// once: two users of one refresh token would look like a theft (RFC 9700 4.14.2).
fn guide(server: &Server) -> Option<String> {
    let login = || server.seed(CLIENT_ID);
    let guide = format!(
        include_str!("guide.txt"),
        url = server.url(),
        client_id = CLIENT_ID,
        expires_in = LIFETIME.as_secs(),
        first = login()?.expose(),
        second = login()?.expose(),
        third = login()?.expose(),
        machine = MACHINE.0,
        secret = MACHINE.1,
    );
    Some(guide.trim_end().to_owned())
}
