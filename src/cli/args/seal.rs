//! The arguments of `seal`.

use clap::ValueEnum;

pub(super) const EXAMPLES: &str = "\
Examples:
  zg-tokend seal --with secret-tool       make a key in the GNOME or KDE keyring, and seal
  zg-tokend seal --with systemd-creds     make a key that only this machine (its TPM) decrypts
  zg-tokend seal --with file              make a key file; keep it off the backups of the state
  zg-tokend seal                          seal now with the state_key in the config
  zg-tokend seal --secrets                move the secrets of the config into sealed files beside it
  openssl rand -base64 32 | pass insert -m zg/state-key    a key for state_key = { command = [...] }

To change the key: name the old one state_key_previous, the new one state_key, and run `zg-tokend seal`.";

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
