//! `zg-tokend status`

use std::time::Duration;

use serde::Serialize;

use super::args::{Args, Status};
use super::{settings, voice};
use crate::shell::status::{AccountStatus, JSON_VERSION, Severity, State, status as look};
use crate::shell::words::{duration, local};

#[derive(Serialize)]
struct Json<'a> {
    version: u32,
    severity: Severity,
    config: String,
    accounts: &'a [AccountStatus],
}

/// Tells what is true now.
pub(super) fn status(args: &Args, flags: &Status) -> Severity {
    let Some(settings) = settings(args) else { return Severity::Unknown };
    let accounts = look(&settings, args.account.as_deref());
    let severity = accounts.iter().fold(Severity::Ok, |worst, account| worst.or(account.severity));
    if flags.json {
        let config = settings.path.to_string_lossy().into_owned();
        let json = Json { version: JSON_VERSION, severity, config, accounts: &accounts };
        // Strings and numbers always encode.
        voice::say(serde_json::to_string_pretty(&json).unwrap_or_default());
    } else {
        // At once: a write for each of many accounts would cost more than the look at them.
        voice::say(accounts.iter().map(text).collect::<Vec<_>>().join("\n"));
    }
    severity
}

fn text(status: &AccountStatus) -> String {
    let mut lines = vec![headline(status)];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<14}{value}"));
    if let Some(problem) = &status.problem {
        line("problem", problem.clone());
    }
    if let Some(hint) = &status.hint {
        line("hint", hint.clone());
    }
    let file = &status.token_file;
    let condition = match (file.exists, file.current) {
        (false, _) => "missing",
        (true, Some(true)) => "holds the newest token",
        (true, Some(false)) => "holds something else",
        (true, None) => "unknown content",
    };
    line("token file", format!("{} ({condition})", file.path.display()));
    line("refresh token", refresh_token(status));
    if let Some(attempt) = &status.last_attempt {
        let failures = match attempt.failures {
            Some(count) if count > 1 => format!(", {count} failures in a row"),
            _ => String::new(),
        };
        let message = attempt.message.as_ref().map(|message| format!(" ({message})")).unwrap_or_default();
        line("last attempt", format!("{}: {}{message}{failures}", local(attempt.at), attempt.result));
    }
    line(
        "supervisor",
        match status.supervisor {
            Some(supervisor) => match supervisor.pid {
                Some(pid) => format!("process {pid}"),
                None => "alive".into(),
            },
            None => "none".into(),
        },
    );
    lines.join("\n")
}

fn headline(status: &AccountStatus) -> String {
    let state = match status.state {
        State::Fresh => "fresh",
        State::Due => "due",
        State::Refreshing => "refreshing",
        State::BackingOff => "backing off",
        State::NeedsLogin => "needs login",
        State::Unknown => "unknown",
    };
    let mut parts = vec![format!("{}: {state}", status.account)];
    if let (Some(left), Some(at)) = (status.expires_in, status.expires_at) {
        let span = duration(Duration::from_secs(left.unsigned_abs()));
        let at = local(at);
        parts.push(if left > 0 {
            format!("expires in {span} ({at})")
        } else {
            format!("expired {span} ago ({at})")
        });
    }
    parts.extend(status.next_refresh_at.map(|next| format!("next refresh {}", local(next))));
    parts.join(", ")
}

fn refresh_token(status: &AccountStatus) -> String {
    let token = &status.refresh_token;
    let Some(source) = token.source else { return "none".into() };
    let condition = if token.available { "" } else { ", dead" };
    let source = if source == "state" { "in the state" } else { "in the config, not used yet" };
    let seeded = token.seeded_at.map(|at| format!(", login of {}", local(at))).unwrap_or_default();
    let rotated = token.rotated_at.map(|at| format!(", rotated {}", local(at))).unwrap_or_default();
    format!("{source}{condition}{seeded}{rotated}")
}
