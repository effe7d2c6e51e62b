//! The flags of `init`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;

use crate::oauth::providers::PROVIDERS;

// No flag takes a secret: other users can see a command line.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Default, clap::Args)]
pub struct Init {
    /// Read client and login from an authorized_user JSON file (Google)
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// A provider with a preset; '?' lists them
    #[arg(long, value_name = "NAME", conflicts_with_all = ["issuer", "token_endpoint"], value_parser = PossibleValuesParser::new(PROVIDERS.iter().map(|provider| provider.name).chain(["?"])), hide_possible_values = true)]
    pub provider: Option<String>,
    /// Your tenant at the provider (microsoft); the Web API key (firebase)
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// Host of the provider's server (exact-online, gitlab, salesforce)
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
