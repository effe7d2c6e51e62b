//! The arguments of `seal`.

use clap::ValueEnum;

#[derive(Debug, clap::Args)]
pub struct Seal {
    /// Make a key, keep it there, and add it to the config as state_key
    #[arg(long, value_name = "PLACE", conflicts_with = "remove")]
    pub with: Option<KeyPlace>,
    // Not --config, which every command has: the path of the config.
    /// Take the secrets out of the config, into sealed files beside it
    #[arg(long, conflicts_with_all = ["with", "account"])]
    pub secrets: bool,
    /// Write the logins in plain again, and take the key out of the config; with --secrets, take those back
    #[arg(long, conflicts_with = "account")]
    pub remove: bool,
    /// Change the secrets in the config without a question
    #[arg(long, requires = "secrets")]
    pub yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyPlace {
    /// The keyring of the desktop, by secret-tool(1)
    SecretTool,
    /// A file that only this machine can decrypt, by systemd-creds(1)
    SystemdCreds,
    /// A file beside the config, mode 0600
    File,
}
