//! The part of a machine's state about the row that several machines share.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::secret::Fingerprint;

/// The part of a machine in its fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It refreshes.
    Refresh,
    /// It publishes the access token, and cannot see the refresh token.
    Read,
}

/// The row as a machine knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// This machine among the others.
    pub host: String,
    /// Where that name was given, or kept: see `FleetPolicy::place`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Fingerprint>,
    /// The identity of the login: a UUID.
    pub login: String,
    /// When the login began, in milliseconds since 1970 by the clock of the database.
    pub login_at: i64,
    /// The client and the token endpoint that the login belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Fingerprint>,
    /// The number of the reply; a new login counts on.
    pub epoch: u64,
    /// The refresh token of this epoch; `None` after a logout, and for a reader.
    pub held: Option<Fingerprint>,
    /// When the access token was requested, by the clock of the database.
    pub issued_at: i64,
    /// The refresh token that earned this epoch, while the row does not have it: the reply is on this disk alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undelivered: Option<Fingerprint>,
    /// The highest timeline of the database that was seen: it grows with each failover.
    pub timeline: u32,
    /// The last claim of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// A claim of another machine, and since when it has been seen unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched: Option<(String, Timestamp)>,
    /// A timeline that is not the row's, and since when it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<(u32, Timestamp)>,
}

/// A claim of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub nonce: String,
    /// Before the claim was sent.
    pub at: Timestamp,
    /// By the clock of the database.
    pub claimed_at: i64,
    /// The attempt of another machine that it took over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<UnclearClaim>,
}

/// A claim of another machine that ended without a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnclearClaim {
    pub host: String,
    /// By the clock of the database, in milliseconds since 1970.
    pub at: i64,
}
