//! Retry-After, RFC 9110 section 10.2.3: seconds, or an HTTP-date.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::Timestamp;

/// The longest wait that a server can demand: a date in a wrong year must not stop the refreshes.
const LONGEST: Duration = Duration::from_secs(3600);

/// The wait; `None` if the header is absent or not valid. A date counts from the reply's Date, so that
/// a wrong clock on this machine does not matter; without one, from `now`.
pub(super) fn parse(retry_after: Option<&str>, date: Option<&str>, now: Timestamp) -> Option<Duration> {
    let value = retry_after?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only a number too large for u64 fails to parse here.
        return Some(value.parse().map_or(LONGEST, Duration::from_secs).min(LONGEST));
    }
    let until = epoch_millis(value)?;
    let from = date.and_then(|date| epoch_millis(date.trim())).unwrap_or(now.wall);
    let wait = Duration::from_millis(until.saturating_sub(from).max(0).cast_unsigned());
    Some(wait.min(LONGEST))
}

pub fn epoch_millis(http_date: &str) -> Option<i64> {
    let at = httpdate::parse_http_date(http_date).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(crate::clock::millis(at))
}

#[cfg(test)]
mod tests {
    use crate::oauth::retry_after::*;
    use crate::secret::Fingerprint;

    #[test]
    fn seconds_dates_and_nonsense() {
        // Sun, 06 Nov 1994 08:49:37 GMT, the RFC's own example.
        let now = Timestamp { wall: 784_111_777_000, boot: 0, boot_id: Fingerprint::of([b"a"]) };
        let date = Some("Sun, 06 Nov 1994 08:49:00 GMT");
        for (value, date, expected) in [
            ("120", None, Some(120)),
            (" 0 ", None, Some(0)),
            ("3601", None, Some(3600)),
            ("99999999999999999999999999", None, Some(3600)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", None, Some(60)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", date, Some(97)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some("yesterday"), Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", None, Some(60)),
            ("Sun Nov  6 08:50:37 1994", None, Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", None, Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", None, Some(3600)),
            ("-5", None, None),
            ("1.5", None, None),
            ("", None, None),
            ("soon", None, None),
        ] {
            assert_eq!(parse(Some(value), date, now), expected.map(Duration::from_secs), "{value:?}");
        }
        assert_eq!(parse(None, date, now), None);
    }
}
