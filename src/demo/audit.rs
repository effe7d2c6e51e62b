//! A record of requests, for the assertions of tests.

use serde::{Deserialize, Serialize};

use crate::secret::Fingerprint;

/// One thing that happened. It holds fingerprints, never a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Counts from 0, without gaps.
    pub seq: u64,
    /// Milliseconds on the issuer's clock.
    pub at: i64,
    /// The refresh token concerned: the one presented, or for [`AuditEvent::Seed`] the one minted.
    pub refresh_token: Option<Fingerprint>,
    /// The family (all successors of one seed) of that refresh token, if the issuer knows it.
    pub family: Option<u64>,
    /// How many rotations lie between the seed and that refresh token.
    pub generation: Option<u64>,
    /// The event.
    #[serde(flatten)]
    pub event: AuditEvent,
}

/// An event. In JSON its name is the entry's `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AuditEvent {
    /// A first refresh token was minted.
    Seed,
    /// A POST to the token endpoint arrived.
    Post,
    /// A scripted fault was applied to the POST before it.
    Fault {
        /// The fault in words.
        what: String,
    },
    /// A connection was closed at once ([`Outage::Closed`](crate::demo::faults::Outage::Closed)).
    Hangup,
    /// An access token was issued.
    Grant {
        /// The access token.
        access_token: Fingerprint,
        /// The refresh token that came with it; `None` without rotation.
        successor: Option<Fingerprint>,
        /// True if the successor is one that an earlier grant had issued (reuse grace).
        replayed: bool,
    },
    /// The token endpoint refused the request.
    Refusal {
        /// The error code of RFC 6749 5.2.
        error: String,
    },
    /// The family is dead from here on, with all its tokens.
    Revocation {
        /// Why.
        reason: RevocationReason,
    },
}

/// Why a family was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    /// A refresh token that had been replaced was presented again (RFC 9700 4.14.2).
    Reuse,
    /// A client (RFC 7009) or the operator revoked it.
    Request,
}
