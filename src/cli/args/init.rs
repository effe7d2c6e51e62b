//! The flags of `init`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;

use crate::oauth::providers::PROVIDERS;

// No flag takes a secret: other users can see a command line.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Default, clap::Args)]
pub struct Init {
    /// Take everything from a JSON file of Google: authorized_user, service_account or external_account
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// A provider with a preset; '?' lists them
    #[arg(long, value_name = "NAME", conflicts_with = "token_endpoint", value_parser = PossibleValuesParser::new(PROVIDERS.iter().map(|provider| provider.name).chain(["?"])), hide_possible_values = true)]
    pub provider: Option<String>,
    /// Your tenant at the provider (entra, microsoft); the Web API key (firebase)
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// Host of the provider's server (auth0, aws-cognito, exact-online, gitlab, okta, salesforce)
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Your shop at the provider (shopify)
    #[arg(long, value_name = "SHOP")]
    pub shop: Option<String>,
    /// Your data center at the provider (zoho)
    #[arg(long, value_name = "NAME")]
    pub data_center: Option<String>,
    /// URL of the issuer, to discover the token endpoint
    #[arg(long, value_name = "URL", conflicts_with = "token_endpoint")]
    pub issuer: Option<String>,
    /// URL of the token endpoint
    #[arg(long, value_name = "URL")]
    pub token_endpoint: Option<String>,
    /// ID of your OAuth client
    #[arg(long, value_name = "ID", conflicts_with = "from")]
    pub client_id: Option<String>,
    /// File that holds the client secret; leave it out for a public client
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "client_secret_env"])]
    pub client_secret_file: Option<PathBuf>,
    /// Environment variable that holds the client secret
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    pub client_secret_env: Option<String>,
    /// File that holds the refresh token
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "refresh_token_env", "refresh_token_stdin"])]
    pub refresh_token_file: Option<PathBuf>,
    /// Environment variable that holds the refresh token
    #[arg(long, value_name = "NAME", conflicts_with_all = ["from", "refresh_token_stdin"])]
    pub refresh_token_env: Option<String>,
    /// Read the refresh token from stdin and write it into the config
    #[arg(long, conflicts_with = "from")]
    pub refresh_token_stdin: bool,
    /// Grant of an account without a login: client_credentials, jwt-bearer or token-exchange [default: the
    /// provider's]
    #[arg(long, value_name = "GRANT", conflicts_with_all = ["from", "refresh_token_file", "refresh_token_env", "refresh_token_stdin"], value_parser = ["client_credentials", "jwt-bearer", "token-exchange"], hide_possible_values = true)]
    pub grant_type: Option<String>,
    /// File with the private key that signs for the client, or the assertion of jwt-bearer (PEM)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "client_assertion_file"])]
    pub private_key_file: Option<PathBuf>,
    /// ID of that key, if the server needs it
    #[arg(long, value_name = "ID", requires = "private_key_file")]
    pub key_id: Option<String>,
    /// Certificate of that key (PEM)
    #[arg(long, value_name = "FILE", requires = "private_key_file")]
    pub certificate: Option<PathBuf>,
    /// File with an assertion for the client that the platform writes
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    pub client_assertion_file: Option<PathBuf>,
    /// Certificate for mutual TLS (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_certificate: Option<PathBuf>,
    /// File with its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_private_key_file: Option<PathBuf>,
    /// File with the assertion for jwt-bearer, if somebody else signs it
    #[arg(long, value_name = "FILE", conflicts_with = "private_key_file")]
    pub assertion_file: Option<PathBuf>,
    /// File with the token for token-exchange
    #[arg(long, value_name = "FILE", requires = "subject_token_type")]
    pub subject_token_file: Option<PathBuf>,
    /// Type of that token, such as jwt
    #[arg(long, value_name = "TYPE", requires = "subject_token_file")]
    pub subject_token_type: Option<String>,
    /// Scope of the access token
    #[arg(long, value_name = "SCOPE")]
    pub scope: Option<String>,
    /// Audience of the access token
    #[arg(long, value_name = "AUDIENCE")]
    pub audience: Option<String>,
    /// File to write the access token to [default: ~/.config/zerogravity/token]
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,
    /// Replace an existing config
    #[arg(long, conflicts_with = "yes")]
    pub overwrite: bool,
    /// Add the account to an existing config without a question
    #[arg(long)]
    pub yes: bool,
    /// Do not ask the servers whether the answers are right
    #[arg(long)]
    pub offline: bool,
}
