//! Events that must never happen.

/// A rule that the judge knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    /// The file holds a live token.
    Gap,
    /// A refresh begins no later than expiry − skew.
    Late,
    /// No refresh token is sent after it was replaced.
    Replaced,
    /// No refresh token is sent after its verdict.
    Verdict,
    /// The login is never lost by our own doing.
    Revoked,
    /// At most so many requests in an hour of an outage.
    Budget,
    /// Nothing is sent before a Retry-After is over, and a refused client waits an hour.
    Wait,
    /// A lost answer is asked for again at once, and once more within 10 s.
    Resend,
    /// The file never goes back to an older token.
    Older,
    /// A published token is stored already.
    Order,
    /// A clock step costs at most one request.
    Step,
    /// Nobody wakes without end.
    Loop,
}

#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) at: i64,
    pub(crate) what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at {} ms: {}", self.rule, self.at, self.what)
    }
}
