//! The probable cause of a refresh token's death. The server only says that it is dead:
//! `invalid_grant` is "invalid, expired, revoked ...", RFC 6749 section 5.2.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::refresh::record::{LoginSource, RefreshToken};

const DAY: Duration = Duration::from_secs(86_400);

/// Google ends the logins of a client whose publishing status is "Testing" after seven days;
/// the refresh that notices comes up to an hour later, or whenever the machine is next awake.
const TESTING_LIFE: std::ops::Range<Duration> =
    Duration::from_secs(6 * 86_400 + 82_800)..Duration::from_secs(8 * 86_400);

/// A login that was unused for this long may have expired for that reason: the shortest idle limits
/// that providers document are weeks.
const IDLE: Duration = Duration::from_secs(14 * 86_400);

/// Words that servers use when a replaced token is presented again.
const REUSE_WORDS: [&str; 6] =
    ["reuse", "already used", "already been used", "rotated", "replay", "consumed"];

/// The most likely cause, as a sentence without a full stop. `words` is the server's refusal.
pub fn cause(token: &RefreshToken, words: &str, at: Timestamp) -> String {
    let age = at.since(token.seeded_at);
    let words = words.to_ascii_lowercase();
    if token.unclear_sends > 0 {
        return "the answer to an earlier request was lost, and the server had replaced the token with it"
            .into();
    }
    let Some(used_at) = token.used_at else {
        return "it has never worked here: it may belong to another client, be mistyped, or be used up elsewhere or by a state that is missing now".into();
    };
    if REUSE_WORDS.iter().any(|word| words.contains(word)) {
        return "another holder of the same login has used it: only one program may refresh with it".into();
    }
    let idle = at.since(used_at);
    if idle >= IDLE {
        return format!("it had not been used for {}, and providers end idle logins", days(idle));
    }
    if TESTING_LIFE.contains(&age) {
        return format!(
            "it died {} after the login: at Google, a client whose publishing status is \"Testing\" loses its logins after 7 days",
            days(age)
        );
    }
    let rotated = if token.source == LoginSource::Rotation {
        "; if another program refreshes with the same login, the server ends it for both"
    } else {
        ""
    };
    format!("it died {} after the login: expired, revoked, or the password was changed{rotated}", days(age))
}

/// `7.0 days`, `3 hours`, `1 minute`: precise enough to recognise a limit.
fn days(span: Duration) -> String {
    if span >= DAY * 2 {
        return format!("{:.1} days", span.as_secs_f64() / DAY.as_secs_f64());
    }
    let (count, unit) = match span.as_secs() {
        seconds @ 3600.. => (seconds / 3600, "hour"),
        seconds @ 60.. => (seconds / 60, "minute"),
        seconds => (seconds, "second"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use crate::refresh::cause::*;
    use crate::secret::{Fingerprint, Secret};

    #[test]
    fn the_history_shows_the_cause() {
        let login = Timestamp { wall: 1_700_000_000_000, boot: 0, boot_id: Fingerprint::of([b"a"]) };
        let fresh = RefreshToken {
            value: Secret::new("rt").into(),
            source: LoginSource::Rotation,
            seeded_at: login,
            obtained_at: login,
            used_at: Some(login),
            unclear_sends: 0,
        };
        let used = |days: f64| Some(login.plus(DAY.mul_f64(days)));
        for (token, words, died_after, expected) in [
            (
                RefreshToken { unclear_sends: 1, ..fresh.clone() },
                "",
                1.0,
                "answer to an earlier request was lost",
            ),
            (RefreshToken { used_at: None, ..fresh.clone() }, "", 0.0, "never worked"),
            (
                RefreshToken { used_at: used(1.0), ..fresh.clone() },
                "Refresh token Already Used",
                1.1,
                "another holder",
            ),
            (
                RefreshToken { used_at: used(7.0), ..fresh.clone() },
                "Token has been expired",
                7.02,
                "7.0 days",
            ),
            (RefreshToken { used_at: used(7.0), ..fresh.clone() }, "", 7.02, "\"Testing\""),
            (RefreshToken { used_at: used(2.0), ..fresh.clone() }, "", 92.0, "not been used for 90.0 days"),
            (RefreshToken { used_at: used(29.9), ..fresh.clone() }, "", 30.0, "30.0 days after the login"),
            (
                RefreshToken { used_at: used(0.1), source: LoginSource::Seed, ..fresh.clone() },
                "",
                0.2,
                "4 hours after",
            ),
        ] {
            let cause = cause(&token, words, login.plus(DAY.mul_f64(died_after)));
            assert!(cause.contains(expected), "{cause}");
        }
    }

    #[test]
    fn counts_have_the_right_unit() {
        for (seconds, expected) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "1 minute"),
            (7199, "1 hour"),
            (7200, "2 hours"),
            (2 * 86_400, "2.0 days"),
        ] {
            assert_eq!(days(Duration::from_secs(seconds)), expected);
        }
    }
}
