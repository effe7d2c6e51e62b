//! The arguments of `fleet`.

use clap::Subcommand;

pub(super) const EXAMPLES: &str = "\
Examples:
  zg-tokend fleet sql | psql zg           create the table, as the owner of the database
  (umask 077; zg-tokend fleet key >fleet_key)    make the key of all machines that refresh
  zg-tokend fleet status                  the rows in the database, beside what this machine has";

#[derive(Debug, clap::Args)]
pub struct Fleet {
    #[command(subcommand)]
    pub command: FleetCommand,
}

#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// Print the table and the privileges, for the administrator of the database
    Sql,
    /// Print a new key for fleet.key
    Key,
    /// Show the row of each account in the database
    Status,
}
