//! Errors of the database that several machines share, in our words.

use std::path::PathBuf;

use crate::cipher::NotAKey;
use crate::problem::{Class, Problem};
use crate::refresh::fleet::FLEET;

/// Why a database does not do what it is asked, in its own words or in those of the connection.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct DatabaseFault {
    /// The SQLSTATE; empty if the database said nothing.
    pub code: String,
    pub message: String,
}

#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error("fleet.url {what}")]
    Url { what: String, hint: String },
    #[error("fleet.key {0}")]
    NotAKey(NotAKey),
    #[error("cannot read the certificates for the database in {}", path.display())]
    Roots { path: PathBuf, source: DatabaseFault },
    #[error("cannot connect to the database {place}")]
    Connect { place: String, source: DatabaseFault },
    #[error("the database {place} does not answer within {seconds} s")]
    Timeout { place: String, seconds: u64 },
    #[error("the database {place} refuses a question")]
    Query { place: String, source: DatabaseFault },
    #[error("the row of the account in the database has an unreadable {what}")]
    Unreadable { what: &'static str },
    #[error("the column {what} of zg_tokend.login has another type than `zg-tokend fleet sql` gives it")]
    Column { what: &'static str },
    #[error("the login in the database is sealed, and this machine has no key")]
    NoKey,
    #[error("the login in the database is sealed with another key, or the row was changed by hand")]
    WrongKey,
    #[error("cannot seal the login: the kernel gives no random bytes")]
    Random,
}

/// SQLSTATEs of a role or a table that are not as they have to be.
const WRONG_PASSWORD: [&str; 2] = ["28P01", "28000"];
const NO_TABLE: [&str; 4] = ["42P01", "42703", "3F000", "3D000"];
const NO_PRIVILEGE: &str = "42501";
/// Values that cannot be what they are asked for: the class of most of them, and a time of infinity as a number.
const BAD_VALUE: &str = "22";
const INFINITE: &str = "0A000";
/// Not in the state for this, and a transaction that only reads: a standby.
const STANDBY: [&str; 2] = ["55000", "25006"];

impl FleetError {
    fn fault(&self) -> Option<&DatabaseFault> {
        match self {
            Self::Connect { source, .. } | Self::Query { source, .. } => Some(source),
            _ => None,
        }
    }

    fn is_of_certificate(&self) -> bool {
        self.fault().is_some_and(|fault| fault.code.is_empty() && fault.message.contains("certificate"))
    }

    /// The database asks for a password, and fleet.url has none; or it refuses the one that it has.
    fn is_of_password(&self) -> bool {
        self.fault().is_some_and(|fault| {
            WRONG_PASSWORD.contains(&&*fault.code)
                || (fault.code.is_empty() && fault.message.contains("password missing"))
        })
    }

    /// The row has a value that zg-tokend does not write.
    fn is_of_value(&self) -> bool {
        self.fault().is_some_and(|fault| fault.code.starts_with(BAD_VALUE) || fault.code == INFINITE)
    }

    /// A standby, or a primary that is none any more.
    pub fn is_standby(&self) -> bool {
        self.fault().is_some_and(|fault| {
            STANDBY.contains(&&*fault.code) || fault.message.contains("does not allow writes")
        })
    }

    /// The connection is of no use any more.
    #[cfg(feature = "fleet")]
    pub fn ends_connection(&self) -> bool {
        match self {
            Self::Query { source, .. } => source.code.is_empty() || self.is_standby(),
            _ => true,
        }
    }

    pub fn class(&self) -> Class {
        let code = self.fault().map_or("", |fault| &fault.code);
        let is_denied = self.is_of_password() || NO_TABLE.contains(&code) || code == NO_PRIVILEGE;
        match self {
            Self::Url { .. }
            | Self::NotAKey(_)
            | Self::NoKey
            | Self::WrongKey
            | Self::Unreadable { .. }
            | Self::Column { .. } => Class::Config,
            _ if is_denied || self.is_of_value() => Class::Config,
            _ => Class::Unavailable,
        }
    }

    pub fn hint(&self) -> String {
        let code = self.fault().map_or("", |fault| &fault.code);
        let hint = match self {
            Self::Url { hint, .. } => hint,
            Self::NotAKey(_) => "make one: zg-tokend fleet key",
            Self::Roots { .. } => {
                "set sslrootcert in fleet.url, or ca_file, to a file of certificates in PEM"
            }
            Self::WrongKey | Self::NoKey => {
                "set fleet.key to the key of the other machines; if it is lost, docs/FLEET.md shows how to go on with a new one"
            }
            Self::Unreadable { .. } => {
                "install the newest zg-tokend here; if the row was changed by hand, docs/FLEET.md shows how to replace it"
            }
            Self::Column { .. } => {
                "let the administrator of the database make the table anew: docs/FLEET.md shows how to go on with the login"
            }
            _ if self.is_of_value() => "the row was changed by hand: docs/FLEET.md shows how to replace it",
            Self::Random => "allow getrandom(2) in the sandbox",
            _ if self.is_standby() => {
                "name all hosts of the cluster in fleet.url, separated by commas: the primary is found"
            }
            _ if self.is_of_password() => "correct user and password in fleet.url",
            _ if NO_TABLE.contains(&code) => {
                "let the administrator of the database run what `zg-tokend fleet sql` prints"
            }
            _ if self.is_of_certificate() => {
                "set sslrootcert in fleet.url to the authority of the database, and name the host as its certificate does"
            }
            _ if code == NO_PRIVILEGE => {
                "grant what `zg-tokend fleet sql` prints; a machine with the role zg_read needs role = \"read\""
            }
            Self::Connect { .. } | Self::Query { .. } | Self::Timeout { .. } => {
                "check that the database runs, and that this machine reaches it: zg-tokend check --live"
            }
        };
        hint.to_owned()
    }
}

impl From<FleetError> for Problem {
    fn from(error: FleetError) -> Self {
        Self::new(&error, error.class(), FLEET, Some(error.hint()))
    }
}
