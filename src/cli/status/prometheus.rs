//! Prometheus' text format 0.0.4, for node_exporter's textfile collector. Names and units follow
//! its conventions: base units, instants as `_timestamp_seconds`, one metric per fact.

use std::fmt::{Display, Write as _};

use crate::shell::status::{AccountStatus, Snapshot, State};

/// Every state, in the order of its enum.
const STATES: [(State, &str); 6] = [
    (State::Fresh, "fresh"),
    (State::Due, "due"),
    (State::Refreshing, "refreshing"),
    (State::BackingOff, "backing_off"),
    (State::NeedsLogin, "needs_login"),
    (State::Unknown, "unknown"),
];

/// All metrics. What is not known has no sample: an alert on its absence says more than a zero.
pub(super) fn exposition(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let mut gauge = Family { text: &mut text, accounts: &snapshot.accounts };
    gauge.once(
        "build_info",
        "The version of zg-tokend that tells this.",
        [("version", env!("CARGO_PKG_VERSION"))],
    );
    gauge.info("account_info", "The file that the account's access token is published in.");
    gauge.states("account_state", "The state of the account: 1 for the one it is in.");
    gauge.each("account_severity", "How serious it is: 0 ok, 1 warning, 2 critical, 3 unknown.", |status| {
        Some(status.severity as i64)
    });
    gauge.each("token_expiry_timestamp_seconds", "When the access token expires, Unix time.", |status| {
        status.expires_at
    });
    gauge.each("token_lifetime_seconds", "The life that the access token was granted.", |status| {
        status.lifetime
    });
    gauge.each(
        "next_refresh_timestamp_seconds",
        "When the next refresh, or the next try, is planned, Unix time.",
        |status| status.next_refresh_at,
    );
    gauge.each("token_generation", "The number of access tokens granted so far.", |status| {
        status.generation.map(u64::cast_signed)
    });
    gauge.each("token_file_current", "Whether the token file holds the newest access token.", |status| {
        let file = &status.token_file;
        if file.exists { file.current.map(i64::from) } else { Some(0) }
    });
    gauge.each(
        "refresh_token_available",
        "Whether there is a refresh token that is not known to be dead.",
        |status| Some(status.refresh_token.available.into()),
    );
    gauge.each(
        "last_attempt_timestamp_seconds",
        "When the last attempt to refresh began, Unix time.",
        |status| status.last_attempt.as_ref().map(|attempt| attempt.at),
    );
    gauge.each("consecutive_failures", "How many attempts have failed in a row.", |status| {
        let attempt = status.last_attempt.as_ref()?;
        Some(attempt.failures.unwrap_or(0).into())
    });
    gauge.each("supervised", "Whether a process supervises the account and is not stopped.", |status| {
        Some(status.supervisor.is_some_and(|supervisor| !supervisor.stopped).into())
    });
    text
}

/// One gauge after the other.
struct Family<'a> {
    text: &'a mut String,
    accounts: &'a [AccountStatus],
}

impl Family<'_> {
    fn head(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP zg_tokend_{name} {help}\n# TYPE zg_tokend_{name} gauge");
    }

    fn sample<'b>(
        &mut self,
        name: &str,
        labels: impl IntoIterator<Item = (&'static str, &'b str)>,
        value: impl Display,
    ) {
        let labels = labels.into_iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value)));
        let labels = labels.collect::<Vec<_>>().join(",");
        let _ = writeln!(self.text, "zg_tokend_{name}{{{labels}}} {value}");
    }

    fn once<'b>(
        &mut self,
        name: &str,
        help: &str,
        labels: impl IntoIterator<Item = (&'static str, &'b str)>,
    ) {
        self.head(name, help);
        self.sample(name, labels, 1);
    }

    fn each(&mut self, name: &str, help: &str, value: impl Fn(&AccountStatus) -> Option<i64>) {
        let accounts = self.accounts;
        if accounts.iter().any(|status| value(status).is_some()) {
            self.head(name, help);
        }
        for status in accounts {
            if let Some(value) = value(status) {
                self.sample(name, [("account", &*status.account)], value);
            }
        }
    }

    fn info(&mut self, name: &str, help: &str) {
        self.head(name, help);
        for status in self.accounts {
            let path = status.token_file.path.to_string_lossy();
            self.sample(name, [("account", &*status.account), ("token_file", &path)], 1);
        }
    }

    fn states(&mut self, name: &str, help: &str) {
        self.head(name, help);
        for status in self.accounts {
            for (state, word) in STATES {
                let is_it = u8::from(status.state == state);
                self.sample(name, [("account", &*status.account), ("state", word)], is_it);
            }
        }
    }
}

/// A label's value: backslash, quote and line feed are escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
