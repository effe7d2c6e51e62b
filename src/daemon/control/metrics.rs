//! What this process has counted, after what `status` knows.

use std::fmt::Display;

use crate::clock::Timestamp;
use crate::daemon::control::counts::{Count, Counts};
use crate::refresh::record::VerdictKind;
use crate::status::AccountStatus;
use crate::status::metrics;
use crate::status::metrics::MetricsPage;

/// All metrics. A counter begins at zero, so that its first increase is seen.
pub(super) fn exposition(accounts: &[AccountStatus], counts: &Counts, now: Timestamp) -> String {
    let page = MetricsPage { text: metrics::exposition(accounts) };
    let mut counted = Counted { page, accounts, counts };
    counted.each("refreshes_total", "counter", "Refreshes that brought a token.", |count| count.refreshes);
    counted.page.head("refresh_failures_total", "counter", "Passes that failed, by the kind of failure.");
    counted.with_count(|page, account, count| {
        for (kind, failures) in &count.failures {
            page.sample("refresh_failures_total", &[("account", account), ("kind", kind)], failures);
        }
    });
    counted.page.head("refresh_duration_seconds", "summary", "How long the exchanges of refreshes took.");
    counted.with_count(|page, account, count| {
        let labels = [("account", account)];
        page.sample("refresh_duration_seconds_sum", &labels, count.exchanging.as_secs_f64());
        page.sample("refresh_duration_seconds_count", &labels, count.refreshes);
    });
    counted.each(
        "token_gap_seconds_total",
        "counter",
        "The time without a live token since the first one that was seen.",
        |count| count.gaps(now).as_secs_f64(),
    );
    counted.page.head("verdict", "gauge", "1 while the server refuses the refresh token or the client.");
    counted.with_count(|page, account, count| {
        if let Some((kind, error)) = &count.verdict {
            let kind = match kind {
                VerdictKind::RefreshToken => "refresh_token",
                VerdictKind::Client => "client",
            };
            page.sample("verdict", &[("account", account), ("refuses", kind), ("error", error)], 1);
        }
    });
    counted.page.text
}

struct Counted<'a> {
    page: MetricsPage,
    accounts: &'a [AccountStatus],
    counts: &'a Counts,
}

impl Counted<'_> {
    fn each<T: Display>(&mut self, name: &str, kind: &str, help: &str, value: impl Fn(&Count) -> T) {
        self.page.head(name, kind, help);
        self.with_count(|page, account, count| page.sample(name, &[("account", account)], value(count)));
    }

    fn with_count(&mut self, mut tell: impl FnMut(&mut MetricsPage, &str, &Count)) {
        let nothing = Count::default();
        for AccountStatus { account, .. } in self.accounts {
            tell(&mut self.page, account, self.counts.of(account).unwrap_or(&nothing));
        }
    }
}
