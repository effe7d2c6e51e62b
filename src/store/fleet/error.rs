//! Errors of the database in our words.

use std::error::Error;
use std::path::PathBuf;

use tokio_postgres::error::SqlState;

use crate::problem::{Class, Problem};
use crate::refresh::fleet::FLEET;

#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error("fleet.url {what}")]
    Url { what: String, hint: String },
    #[error("fleet.key {0}")]
    NotAKey(#[source] crate::cipher::NotAKey),
    #[error("cannot read the certificates for the database in {}", path.display())]
    Roots { path: PathBuf, why: String },
    #[error("cannot connect to the database {place}")]
    Connect { place: String, source: tokio_postgres::Error },
    #[error("the database {place} does not answer within {seconds} s")]
    Timeout { place: String, seconds: u64 },
    #[error("the database {place} refuses the question")]
    Query { place: String, source: tokio_postgres::Error },
    #[error("the row of the account in the database has an unreadable {what}")]
    Unreadable { what: &'static str },
    #[error("the login in the database is sealed, and this machine has no key")]
    NoKey,
    #[error("the login in the database is sealed with another key")]
    WrongKey,
    #[error("cannot seal the login: the kernel gives no random bytes")]
    Random,
}

impl FleetError {
    fn sql_state(&self) -> Option<&SqlState> {
        match self {
            Self::Connect { source, .. } | Self::Query { source, .. } => source.code(),
            _ => None,
        }
    }

    /// A standby, or a primary that is none any more.
    pub fn is_standby(&self) -> bool {
        let by_state = self.sql_state().is_some_and(|state| {
            *state == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
                || *state == SqlState::READ_ONLY_SQL_TRANSACTION
        });
        by_state || self.cause().is_some_and(|cause| cause.contains("does not allow writes"))
    }

    /// Why, in the words of whoever said so.
    pub fn cause(&self) -> Option<String> {
        match self {
            Self::Roots { why, .. } => Some(why.clone()),
            Self::Connect { source, .. } | Self::Query { source, .. } => Some(cause(source)),
            _ => None,
        }
    }

    pub fn class(&self) -> Class {
        match self {
            Self::Url { .. } | Self::NotAKey(_) | Self::NoKey | Self::WrongKey | Self::Unreadable { .. } => {
                Class::Config
            }
            _ if self.is_denied() => Class::Config,
            _ => Class::Unavailable,
        }
    }

    fn is_denied(&self) -> bool {
        let denied = [
            SqlState::INSUFFICIENT_PRIVILEGE,
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_COLUMN,
            SqlState::INVALID_SCHEMA_NAME,
            SqlState::INVALID_CATALOG_NAME,
        ];
        self.sql_state().is_some_and(|state| denied.contains(state))
    }

    pub fn hint(&self) -> String {
        match self {
            Self::Url { hint, .. } => hint.clone(),
            Self::NotAKey(_) => "make one: `zg-tokend fleet key`".into(),
            Self::Roots { .. } => "set sslrootcert in fleet.url, or ca_file, to a file of certificates in PEM".into(),
            Self::WrongKey | Self::NoKey => {
                "set fleet.key to the key of the other machines; if it is lost, log in again with `zg-tokend login` after `UPDATE zg_tokend.login SET ...` as docs/FLEET.md shows".into()
            }
            Self::Unreadable { .. } => "install the newest zg-tokend here; only zg-tokend may write this row".into(),
            Self::Random => "allow getrandom(2) in the sandbox".into(),
            _ if self.is_standby() => {
                "name all hosts of the cluster in fleet.url, separated by commas: the primary is found".into()
            }
            Self::Connect { .. } | Self::Query { .. } | Self::Timeout { .. } => match self.sql_state() {
                Some(state) if *state == SqlState::INVALID_PASSWORD => {
                    "correct user and password in fleet.url".into()
                }
                Some(state)
                    if [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN, SqlState::INVALID_SCHEMA_NAME]
                        .contains(state) =>
                {
                    "let the administrator of the database run what `zg-tokend fleet sql` prints".into()
                }
                Some(state) if *state == SqlState::INSUFFICIENT_PRIVILEGE => {
                    "grant what `zg-tokend fleet sql` prints; a machine with the role zg_read needs role = \"read\""
                        .into()
                }
                _ => "check that the database runs and that this machine reaches it; `zg-tokend check --live` looks at it".into(),
            },
        }
    }
}

/// The innermost causes of an error, without the name of the crate's own level.
fn cause(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return error.message().to_owned();
    }
    let mut cause: &dyn Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

impl From<FleetError> for Problem {
    fn from(error: FleetError) -> Self {
        Self {
            class: error.class(),
            kind: FLEET.into(),
            message: error.to_string(),
            cause: error.cause(),
            hint: Some(error.hint()),
        }
    }
}
