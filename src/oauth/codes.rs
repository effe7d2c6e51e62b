//! The error codes that token endpoints send, and what each means for the refresh token.

/// The meaning of an error code for the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The refresh token is dead.
    DeadToken,
    /// The client is set up wrongly: another refresh token would not help.
    Client,
    /// The server cannot answer at the moment.
    NotNow,
}

use Meaning::{Client, DeadToken, NotNow};

/// Where a code is not from RFC 6749 section 5.2, its origin stands beside it.
const CODES: [(&str, Meaning); 20] = [
    ("invalid_grant", DeadToken),
    ("bad_refresh_token", DeadToken),         // GitHub
    ("invalid_refresh_token", DeadToken),     // this one and the next five: seen by sub2api
    ("refresh_token_reused", DeadToken),      // OpenAI, in an error object
    ("refresh_token_invalidated", DeadToken), // the same
    ("refresh_token_expired", DeadToken),     // the same
    ("token_expired", DeadToken),
    ("app_session_terminated", DeadToken),
    ("interaction_required", DeadToken), // OpenID Connect Core 3.1.2.6; Entra ID sends it on refresh
    ("login_required", DeadToken),       // the same
    ("consent_required", DeadToken),     // the same
    ("invalid_client", Client),
    ("unauthorized_client", Client),
    ("invalid_scope", Client),
    ("unsupported_grant_type", Client),
    ("invalid_request", Client),
    ("access_denied", Client), // RFC 6749 section 4.1.2.1, and RFC 8628 section 3.5
    ("temporarily_unavailable", NotNow), // RFC 6749 section 4.1.2.1
    ("server_error", NotNow),  // RFC 6749 section 4.1.2.1
    ("slow_down", NotNow),     // RFC 8628 section 3.5
];

/// The code in its registered spelling, and its meaning; `None` for one that is not known.
/// Upper and lower case do not count: servers with INVALID_GRANT exist.
pub(super) fn look_up(code: &str) -> Option<(&'static str, Meaning)> {
    CODES.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(code))
}
