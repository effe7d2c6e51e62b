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
    let url = server.url();
    let token_endpoint = server.token_endpoint();
    let login = || server.seed(CLIENT_ID);
    let (machine, secret) = MACHINE;
    Some(format!(
        "\
# An OAuth 2.0 authorization server, to test programs with. It forgets everything when it ends.
issuer = {url}
token_endpoint = {token_endpoint}
authorization_endpoint = {url}/authorize
device_authorization_endpoint = {url}/device_authorization
introspection_endpoint = {url}/introspect
revocation_endpoint = {url}/revoke
resource = {url}/resource
audit = {url}/audit
client_id = {CLIENT_ID}
token_endpoint_auth_method = none
expires_in = {}
refresh_token = {}

# A manual refresh. It works once: the reply holds the next refresh token.
  curl -d grant_type=refresh_token -d client_id={CLIENT_ID} -d refresh_token={} {token_endpoint}

# Another login with its own refresh token:
  curl -X POST {url}/seed

# A token without a person, by client credentials:
  curl -d grant_type=client_credentials -u {machine}:{secret} {token_endpoint}

# With zg-tokend, and a login in a browser:
#   zg-tokend init --config demo.toml --issuer {url} --client-id {CLIENT_ID} --token-file demo.token
#   zg-tokend login --config demo.toml
#   zg-tokend run --config demo.toml
#   curl -H \"Authorization: Bearer $(cat demo.token)\" {url}/resource

# With zg-tokend, and a refresh token that you have:
#   echo {} |
#     zg-tokend init --config seed.toml --token-endpoint {token_endpoint} --client-id {CLIENT_ID} \\
#     --token-file seed.token --refresh-token-stdin
#   zg-tokend run --config seed.toml

# With zg-tokend, and without a person:
#   (umask 077; echo {secret} >machine.secret)
#   zg-tokend init --config machine.toml --account machine --token-endpoint {token_endpoint} \\
#     --client-id {machine} --grant-type client_credentials --client-secret-file machine.secret \\
#     --token-file machine.token
#   zg-tokend run --config machine.toml

# Ctrl-C ends it.",
        LIFETIME.as_secs(),
        login()?.expose(),
        login()?.expose(),
        login()?.expose(),
    ))
}
