//! The metrics page: the metrics of `status`, and the counts of this process.

use crate::clock::Timestamp;
use crate::daemon::control::counts::{Count, Counts};
use crate::refresh::record::VerdictKind;
use crate::status::{AccountStatus, metrics};

/// Counters start at zero, so that their first increase is visible.
pub fn exposition(accounts: &[AccountStatus], counts: &Counts, now: Timestamp) -> String {
    let nothing = Count::default();
    let count = |status: &AccountStatus| counts.0.get(&*status.account).unwrap_or(&nothing);
    let mut page = metrics::page(accounts);
    page.each("refreshes_total", "counter", "Successful refreshes.", |status| Some(count(status).refreshes));
    page.head("refresh_failures_total", "counter", "Passes that failed, by the kind of failure.");
    for status in accounts {
        for (kind, failures) in count(status).failures() {
            page.sample("refresh_failures_total", &[("account", &status.account), ("kind", kind)], failures);
        }
    }
    page.head("refresh_duration_seconds", "summary", "Duration of the exchanges of successful refreshes.");
    for status in accounts {
        let labels = [("account", &*status.account)];
        page.sample("refresh_duration_seconds_sum", &labels, count(status).exchange_time.as_secs_f64());
        page.sample("refresh_duration_seconds_count", &labels, count(status).refreshes);
    }
    let help = "Time without a live token since the first token.";
    page.each("token_gap_seconds_total", "counter", help, |status| {
        Some(count(status).gaps(now).as_secs_f64())
    });
    page.head("verdict", "gauge", "1 while the server refuses the refresh token or the client.");
    for status in accounts {
        if let Some((kind, error)) = count(status).verdict() {
            let kind = match kind {
                VerdictKind::RefreshToken => "refresh_token",
                VerdictKind::Client => "client",
            };
            let labels = [("account", &*status.account), ("refuses", kind), ("error", error)];
            page.sample("verdict", &labels, 1);
        }
    }
    page.text
}
