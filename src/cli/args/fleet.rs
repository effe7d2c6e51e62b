//! The arguments of `fleet`.

use clap::Subcommand;

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
