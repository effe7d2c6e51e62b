//! The metrics page: the metrics of `status`, and the counts of this process.

use std::fmt::Display;

use crate::clock::Timestamp;
use crate::daemon::control::counts::{Count, Counts};
use crate::refresh::record::VerdictKind;
use crate::status::AccountStatus;
use crate::status::metrics;
use crate::status::metrics::MetricsPage;

/// Counters start at zero, so that their first increase is visible.
pub fn exposition(accounts: &[AccountStatus], counts: &Counts, now: Timestamp) -> String {
    let page = MetricsPage { text: metrics::exposition(accounts) };
    let mut all = AccountCounts { page, accounts, counts };
    all.each("refreshes_total", "counter", "Successful refreshes.", |count| count.refreshes);
    all.page.head("refresh_failures_total", "counter", "Passes that failed, by the kind of failure.");
    all.with_count(|page, account, count| {
        for (kind, failures) in &count.failures {
            page.sample("refresh_failures_total", &[("account", account), ("kind", kind)], failures);
        }
    });
    all.page.head(
        "refresh_duration_seconds",
        "summary",
        "Duration of the exchanges of successful refreshes.",
    );
    all.with_count(|page, account, count| {
        let labels = [("account", account)];
        page.sample("refresh_duration_seconds_sum", &labels, count.exchange_time.as_secs_f64());
        page.sample("refresh_duration_seconds_count", &labels, count.refreshes);
    });
    all.each(
        "token_gap_seconds_total",
        "counter",
        "Time without a live token since the first token.",
        |count| count.gaps(now).as_secs_f64(),
    );
    all.page.head("verdict", "gauge", "1 while the server refuses the refresh token or the client.");
    all.with_count(|page, account, count| {
        if let Some((kind, error)) = &count.verdict {
            let kind = match kind {
                VerdictKind::RefreshToken => "refresh_token",
                VerdictKind::Client => "client",
            };
            page.sample("verdict", &[("account", account), ("refuses", kind), ("error", error)], 1);
        }
    });
    all.page.text
}

struct AccountCounts<'a> {
    page: MetricsPage,
    accounts: &'a [AccountStatus],
    counts: &'a Counts,
}

impl AccountCounts<'_> {
    fn each<T: Display>(&mut self, name: &str, kind: &str, help: &str, value: impl Fn(&Count) -> T) {
        self.page.head(name, kind, help);
        self.with_count(|page, account, count| page.sample(name, &[("account", account)], value(count)));
    }

    fn with_count(&mut self, mut write: impl FnMut(&mut MetricsPage, &str, &Count)) {
        let nothing = Count::default();
        for AccountStatus { account, .. } in self.accounts {
            write(&mut self.page, account, self.counts.0.get(account).unwrap_or(&nothing));
        }
    }
}
