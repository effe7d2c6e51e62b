//! When to probe, and what an answer means for the token. Pure.
//!
//! Only a 401 means anything (RFC 6750 section 3.1), and only once: a resource that refuses the next
//! token as well has another reason, and its answers must not cause a refresh each.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_with_macros::skip_serializing_none;

use crate::clock::Timestamp;
use crate::refresh::Policy;
use crate::refresh::decide::{Decision, FileView, Loaded, Trigger, decide};
use crate::refresh::record::{AccessToken, Record};

/// The status of an answer that refuses the token (RFC 9110 section 15.5.2).
const REFUSED: u16 = 401;

/// The note of the last probe of an account.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeNote {
    /// Without its query. A note about another URL is ignored.
    pub url: String,
    /// The number of the token.
    pub generation: u64,
    /// When, Unix seconds.
    pub at: i64,
    /// The status of the answer; absent if there was no answer.
    pub status: Option<u16>,
    /// Why there was no answer.
    pub problem: Option<String>,
    /// The last answer, Unix seconds.
    pub answered_at: Option<i64>,
    /// The first token that was refused since the last other answer.
    pub refused: Option<u64>,
}

/// The meaning of an answer, or of the lack of one, for the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeMeaning {
    Nothing,
    /// It is refused, and is replaced if it is still the stored one.
    Refused,
    /// It is refused as the one before it: another one would not help.
    RefusedAgain {
        /// Whether the last probe did not show this yet.
        first: bool,
    },
}

impl ProbeNote {
    /// The note and the meaning after one more answer.
    pub fn after(
        last: Option<&Self>,
        url: &str,
        generation: u64,
        at: i64,
        answer: Result<u16, String>,
    ) -> (Self, ProbeMeaning) {
        let last = last.filter(|last| last.url == url);
        let refused = last.and_then(|last| last.refused);
        let (status, problem) = match answer {
            Ok(status) => (Some(status), None),
            Err(problem) => (None, Some(problem)),
        };
        let (refused, meaning) = match (status, refused) {
            (Some(REFUSED), Some(earlier)) if earlier != generation => {
                let is_known = |last: &Self| last.generation == generation && last.status == status;
                let first = !last.is_some_and(is_known);
                (refused, ProbeMeaning::RefusedAgain { first })
            }
            // The same token is reported again: the first report may have come too soon after another.
            (Some(REFUSED), _) => (Some(generation), ProbeMeaning::Refused),
            (Some(_), _) => (None, ProbeMeaning::Nothing),
            (None, _) => (refused, ProbeMeaning::Nothing),
        };
        let answered_at = status.map(|_| at).or(last.and_then(|last| last.answered_at));
        (Self { url: url.into(), generation, at, status, problem, answered_at, refused }, meaning)
    }

    /// Whether the resource refuses this token after a refresh: it refused the one before, or the
    /// server has `reaffirmed` this one, that is, granted it again.
    pub fn refuses_still(&self, generation: u64, reaffirmed: bool) -> bool {
        let is_second = self.refused.is_some_and(|earlier| earlier != generation);
        self.status == Some(REFUSED) && self.generation == generation && (is_second || reaffirmed)
    }

    /// As in the JSON of `status`.
    pub fn result(&self) -> &'static str {
        match self.status {
            Some(200..=299) => "accepted",
            Some(REFUSED) => "refused",
            Some(_) => "other",
            None => "no_answer",
        }
    }
}

/// The wait before the first probe: accounts that start together drift apart at once.
pub fn first_wait(every: Duration, random: u64) -> Duration {
    Duration::from_millis(random % (every.as_millis() as u64).max(1))
}

/// The token to send, and its number. `None` while a probe means nothing: there is no live token, a
/// refresh is due or without an answer, or only a login can bring another token.
pub fn candidate(record: Record, policy: &Policy, now: Timestamp) -> Option<(AccessToken, u64)> {
    let loaded = Loaded { record: Some(record), garbage: None, file: FileView::Current };
    let Decision::Rest(_) = decide(&loaded, policy, None, Trigger::default(), now) else { return None };
    let record = loaded.record.filter(|record| record.refresh_token.is_some())?;
    Some((record.access_token.filter(|token| token.is_live(now))?, record.generation))
}
