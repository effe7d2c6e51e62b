//! `status` in Prometheus' text format 0.0.4: for node_exporter's textfile collector and, with the
//! counts of a running process, on the control socket. Names and units follow its conventions: base
//! units, instants as `_timestamp_seconds`, one metric per fact.

use std::fmt::{Display, Write as _};

use crate::status::account::{AccountStatus, State};

/// The metrics of these accounts.
pub fn page(accounts: &[AccountStatus]) -> MetricsPage<'_> {
    let mut page = MetricsPage { text: String::new(), accounts };
    page.head("build_info", "gauge", "The version of zg-tokend that writes this.");
    page.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.head("account_info", "gauge", "The file that the account's access token is published in.");
    for AccountStatus { account, token_file, .. } in accounts {
        let path = token_file.path.to_string_lossy();
        page.sample("account_info", &[("account", account), ("token_file", &path)], 1);
    }
    page.head("account_state", "gauge", "The state of the account: 1 for the one it is in.");
    for status in accounts {
        for (state, name) in State::ALL {
            let is_it = u8::from(status.state == state);
            page.sample("account_state", &[("account", &status.account), ("state", name)], is_it);
        }
    }
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&AccountStatus) -> Option<i64>| {
        page.each(name, "gauge", help, value);
    };
    gauge("account_severity", "How serious it is: 0 ok, 1 warning, 2 critical, 3 unknown.", &|status| {
        Some(status.severity as i64)
    });
    gauge("token_expiry_timestamp_seconds", "When the access token expires, Unix time.", &|status| {
        status.expires_at
    });
    gauge("token_lifetime_seconds", "The granted lifetime of the access token.", &|status| status.lifetime);
    gauge(
        "next_refresh_timestamp_seconds",
        "When the next refresh, or the next try, is planned, Unix time.",
        &|status| status.next_refresh_at,
    );
    gauge("token_generation", "The number of access tokens granted so far.", &|status| {
        status.generation.map(u64::cast_signed)
    });
    gauge("token_file_current", "Whether the token file holds the newest access token.", &|status| {
        let file = &status.token_file;
        if file.exists { file.current.map(i64::from) } else { Some(0) }
    });
    gauge(
        "refresh_token_available",
        "Whether there is a refresh token that is not known to be dead.",
        &|status| status.grant_type.is_none().then(|| status.refresh_token.available.into()),
    );
    gauge(
        "certificate_expiry_timestamp_seconds",
        "When the first certificate of the client ends, Unix time.",
        &|status| status.certificates.iter().filter_map(|certificate| certificate.ends_at).min(),
    );
    gauge("login_expiry_timestamp_seconds", "When the login ends, Unix time.", &|status| {
        status.refresh_token.ends_at
    });
    gauge(
        "last_attempt_timestamp_seconds",
        "When the last attempt to refresh began, Unix time.",
        &|status| status.last_attempt.as_ref().map(|attempt| attempt.at),
    );
    gauge("consecutive_failures", "How many attempts have failed in a row.", &|status| {
        let attempt = status.last_attempt.as_ref()?;
        Some(attempt.failures.unwrap_or(0).into())
    });
    gauge("supervised", "Whether a process supervises the account and is not stopped.", &|status| {
        Some(status.supervisor.is_some_and(|supervisor| !supervisor.stopped).into())
    });
    page
}

/// A page that grows.
pub struct MetricsPage<'a> {
    pub text: String,
    accounts: &'a [AccountStatus],
}

impl MetricsPage<'_> {
    /// A metric with one sample per account. A value that is not known has no sample: an alert on
    /// its absence says more than a zero.
    pub fn each<T: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        value: impl Fn(&AccountStatus) -> Option<T>,
    ) {
        let accounts = self.accounts.iter();
        let known: Vec<_> = accounts.filter_map(|status| Some((&*status.account, value(status)?))).collect();
        if !known.is_empty() {
            self.head(name, kind, help);
        }
        for (account, value) in known {
            self.sample(name, &[("account", account)], value);
        }
    }

    /// Begins a metric; its samples follow.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP zg_tokend_{name} {help}\n# TYPE zg_tokend_{name} {kind}");
    }

    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels = labels.iter().map(|(label, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{label}=\"{value}\"")
        });
        let labels = labels.collect::<Vec<_>>().join(",");
        let _ = writeln!(self.text, "zg_tokend_{name}{{{labels}}} {value}");
    }
}
