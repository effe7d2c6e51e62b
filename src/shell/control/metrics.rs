//! Prometheus' text format 0.0.4. Names and units follow its conventions: base units, `_total` for
//! counters, instants as `_timestamp_seconds`, one metric per fact.

use std::fmt::{Display, Write as _};

use super::counts::{Count, Counts};
use crate::clock::Timestamp;
use crate::shell::status::{AccountStatus, State};
use crate::supervisor::record::VerdictKind;

/// Every state, in the order of its enum.
const STATES: [(State, &str); 6] = [
    (State::Fresh, "fresh"),
    (State::Due, "due"),
    (State::Refreshing, "refreshing"),
    (State::BackingOff, "backing_off"),
    (State::NeedsLogin, "needs_login"),
    (State::Unknown, "unknown"),
];

/// All metrics. A gauge that is not known has no sample: an alert on its absence says more than a
/// zero. A counter begins at zero, so that its first increase is seen.
pub(super) fn exposition(accounts: &[AccountStatus], counts: &Counts, now: Timestamp) -> String {
    let mut page = Page { text: String::new(), accounts, counts };
    page.head("build_info", "gauge", "The version of zg-tokend that tells this.");
    page.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.head("account_state", "gauge", "The state of the account: 1 for the one it is in.");
    for status in accounts {
        for (state, word) in STATES {
            let is_it = u8::from(status.state == state);
            page.sample("account_state", &[("account", &status.account), ("state", word)], is_it);
        }
    }
    page.gauge("account_severity", "How serious it is: 0 ok, 1 warning, 2 critical, 3 unknown.", |status| {
        Some(status.severity as i64)
    });
    page.gauge("token_expiry_timestamp_seconds", "When the access token expires, Unix time.", |status| {
        status.expires_at
    });
    page.gauge(
        "next_refresh_timestamp_seconds",
        "When the next refresh, or the next try, is planned, Unix time.",
        |status| status.next_refresh_at,
    );
    page.gauge("token_generation", "The number of access tokens granted so far.", |status| {
        status.generation.map(u64::cast_signed)
    });
    page.gauge("token_file_current", "Whether the token file holds the newest access token.", |status| {
        let file = &status.token_file;
        if file.exists { file.current.map(i64::from) } else { Some(0) }
    });
    page.gauge(
        "refresh_token_available",
        "Whether there is a refresh token that is not known to be dead.",
        |status| Some(status.refresh_token.available.into()),
    );
    page.gauge(
        "last_attempt_timestamp_seconds",
        "When the last attempt to refresh began, Unix time.",
        |status| status.last_attempt.as_ref().map(|attempt| attempt.at),
    );
    page.gauge("consecutive_failures", "How many attempts have failed in a row.", |status| {
        let attempt = status.last_attempt.as_ref()?;
        Some(attempt.failures.unwrap_or(0).into())
    });
    page.counts(now);
    page.text
}

struct Page<'a> {
    text: String,
    accounts: &'a [AccountStatus],
    counts: &'a Counts,
}

impl Page<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // A string takes everything.
        let _ = writeln!(self.text, "# HELP zg_tokend_{name} {help}\n# TYPE zg_tokend_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value)));
        let labels = labels.collect::<Vec<_>>().join(",");
        let _ = writeln!(self.text, "zg_tokend_{name}{{{labels}}} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Fn(&AccountStatus) -> Option<i64>) {
        let accounts = self.accounts;
        if accounts.iter().any(|status| value(status).is_some()) {
            self.head(name, "gauge", help);
        }
        for status in accounts {
            if let Some(value) = value(status) {
                self.sample(name, &[("account", &status.account)], value);
            }
        }
    }

    /// What this process has counted.
    fn counts(&mut self, now: Timestamp) {
        self.each("refreshes_total", "counter", "Refreshes that brought a token.", |count| count.refreshes);
        self.head("refresh_failures_total", "counter", "Passes that failed, by the kind of failure.");
        self.with_count(|page, account, count| {
            for (kind, failures) in &count.failures {
                page.sample("refresh_failures_total", &[("account", account), ("kind", kind)], failures);
            }
        });
        self.head("refresh_duration_seconds", "summary", "How long the exchanges of refreshes took.");
        self.with_count(|page, account, count| {
            let labels = [("account", account)];
            page.sample("refresh_duration_seconds_sum", &labels, count.exchanging.as_secs_f64());
            page.sample("refresh_duration_seconds_count", &labels, count.refreshes);
        });
        self.each(
            "token_gap_seconds_total",
            "counter",
            "The time without a live token since the first one that was seen.",
            |count| count.gaps(now).as_secs_f64(),
        );
        self.head("verdict", "gauge", "1 while the server refuses the refresh token or the client.");
        self.with_count(|page, account, count| {
            if let Some((kind, error)) = &count.verdict {
                let kind = match kind {
                    VerdictKind::RefreshToken => "refresh_token",
                    VerdictKind::Client => "client",
                };
                page.sample("verdict", &[("account", account), ("refuses", kind), ("error", error)], 1);
            }
        });
    }

    fn each<T: Display>(&mut self, name: &str, kind: &str, help: &str, value: impl Fn(&Count) -> T) {
        self.head(name, kind, help);
        self.with_count(|page, account, count| page.sample(name, &[("account", account)], value(count)));
    }

    fn with_count(&mut self, mut tell: impl FnMut(&mut Self, &str, &Count)) {
        let (accounts, counts) = (self.accounts, self.counts);
        let nothing = Count::default();
        for AccountStatus { account, .. } in accounts {
            tell(self, account, counts.of(account).unwrap_or(&nothing));
        }
    }
}

/// A label's value: backslash, quote and line feed are escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
