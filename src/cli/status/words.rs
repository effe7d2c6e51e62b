//! The words for an account that all views share.

use crate::status::{AccountStatus, Severity, State};

/// The state in a word or two, at most 12 characters: the state of the token goes before that of
/// the next refresh.
pub(super) fn word(status: &AccountStatus) -> &'static str {
    let now = status.expires_at.zip(status.expires_in).map(|(at, left)| at - left);
    match status.state {
        State::Unknown => "unreadable",
        State::NeedsLogin => "needs login",
        State::Refreshing => "refreshing",
        _ if status.expires_in.is_none() => "no token",
        _ if status.expires_in <= Some(0) => "expired",
        State::BackingOff | State::NeedsConfig if status.waits_for.as_deref() == Some("key") => "needs a key",
        State::BackingOff | State::NeedsConfig if status.waits_for.is_some() => "needs file",
        State::BackingOff => "backing off",
        State::NeedsConfig => "needs config",
        State::Due if status.severity != Severity::Ok && status.refresh_at < now => "overdue",
        State::Due => "due",
        State::Fresh if status.token_file.current != Some(true) => "not in file",
        State::Fresh => "fresh",
    }
}

/// The problem and its number of failures, if there is a problem. `time` formats an instant.
pub(super) fn problem(status: &AccountStatus, time: impl Fn(i64) -> String) -> Option<String> {
    let problem = status.problem.clone()?;
    let attempt = status.last_attempt.as_ref().filter(|attempt| attempt.message.as_ref() == Some(&problem));
    let repeated = attempt.and_then(|attempt| attempt.failures.zip(attempt.failing_since));
    Some(match repeated {
        Some((count, since)) if count > 1 => {
            format!("{problem} ({count} failures in a row since {})", time(since))
        }
        _ => problem,
    })
}
