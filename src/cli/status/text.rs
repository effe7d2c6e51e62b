//! The words for a pipe: stable lines, the same on every machine.

use std::path::Path;
use std::time::Duration;

use crate::cli::output::printable;
use crate::cli::status::words::problem;
use crate::message::{duration, local};
use crate::status::{AccountStatus, FleetStatus, ProbeStatus, PushStatus, Snapshot, TokenFileStatus};
use crate::workers;

/// Each account: a headline, then what is known of it, a name and a value on each line.
pub(super) fn text(snapshot: &Snapshot) -> String {
    workers::map(&snapshot.accounts, account).join("\n")
}

fn account(status: &AccountStatus) -> String {
    let mut lines = vec![headline(status)];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<14}{}", printable(&value)));
    if let Some(problem) = problem(status, local) {
        line("problem", problem);
    }
    if let Some(cause) = &status.cause {
        line("cause", cause.clone());
    }
    if let Some(hint) = &status.hint {
        line("hint", hint.clone());
    }
    for (name, value) in details(status, local) {
        line(name, value);
    }
    lines.join("\n")
}

/// The facts beside the headline, each with its name; `time` words an instant.
pub(super) fn details(status: &AccountStatus, time: impl Fn(i64) -> String) -> Vec<(&'static str, String)> {
    let mut details = vec![("token file", token_file(&status.token_file))];
    details.extend(status.outputs.iter().map(|output| ("output", token_file(output))));
    if let Some(variable) = status.token_file.masked_by {
        details.push(("masked by", masked(variable)));
    }
    if let Some(login) = &status.from {
        details.push(("login", format!("of account {login}")));
    }
    match status.grant_type {
        Some(grant_type) => details.push(("grant", grant_type.to_owned())),
        None => details.push(("refresh token", refresh_token(status, &time))),
    }
    details.extend(status.certificates.iter().map(|certificate| {
        let ends = certificate.ends_at.map_or_else(|| "unreadable".into(), |at| format!("ends {}", time(at)));
        ("certificate", format!("{} ({ends})", certificate.path.display()))
    }));
    if let Some(identity) = &status.refresh_token.identity {
        let email = status.refresh_token.email.as_ref().map(|email| format!(", {email}")).unwrap_or_default();
        details.push(("user", format!("{identity}{email}")));
    }
    if let Some(attempt) = &status.last_attempt {
        let failures = match attempt.failures {
            Some(count) if count > 1 => format!(", {count} failures in a row"),
            _ => String::new(),
        };
        // Unless it is what the problem says anyway.
        let message = attempt.message.as_ref().filter(|message| status.problem.as_ref() != Some(message));
        let message = message.map(|message| match &attempt.cause {
            Some(cause) => format!(" ({message}: {cause})"),
            None => format!(" ({message})"),
        });
        let message = message.unwrap_or_default();
        details
            .push(("last attempt", format!("{}: {}{message}{failures}", time(attempt.at), attempt.result)));
    }
    // Without a token there is nothing to be sent.
    let missed = status.push.iter().filter(|push| status.expires_at.is_some() && push.current != Some(true));
    details.extend(missed.map(|missed| ("push", push(missed, &time))));
    if let Some(probe) = status.probe.as_ref().filter(|probe| probe.result != Some("accepted")) {
        details.push(("probe", probe_result(probe, &time)));
    }
    if let Some(fleet) = &status.fleet {
        details.push(("fleet", fleet_words(fleet, status.supervisor.is_some(), &time)));
    }
    details.push(("supervisor", supervisor(status)));
    if let Some(path) = &status.plain_copy {
        details.push((
            "plain copy",
            format!("{path} has the secrets of the config; a refresh of each account removes it"),
        ));
    }
    details
}

/// The row as this machine knows it, and how it hears of changes. Only a supervisor listens.
fn fleet_words(fleet: &FleetStatus, is_supervised: bool, time: impl Fn(i64) -> String) -> String {
    let epoch = fleet.epoch.map_or_else(|| "no refresh yet".into(), |epoch| format!("refresh {epoch}"));
    let role = if fleet.role == "read" { " (only reads)" } else { "" };
    let seen = fleet.seen_at.map(|at| format!(", row seen {}", time(at))).unwrap_or_default();
    let claim = fleet.claimed_by.as_ref().map(|host| format!(", claimed by {host}")).unwrap_or_default();
    let news = match fleet.listens.filter(|_| is_supervised) {
        Some(true) => ", listening",
        Some(false) => ", not notified: reads the row every 30 s",
        None => "",
    };
    let alone = if fleet.undelivered { "; not in the database yet" } else { "" };
    format!("{epoch}{role}{seen}{claim}{news}{alone}")
}

/// The effect of the variable, and its readers.
pub(super) fn masked(variable: &str) -> String {
    format!("{variable}, which is set in this environment: what is started from here never reads the file")
}

fn headline(status: &AccountStatus) -> String {
    let state = match &status.waits_for {
        None => status.state.name().replace('_', " "),
        Some(waits_for) if waits_for == "key" => "needs a key".into(),
        Some(source) => format!("waits for {source}"),
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

fn token_file(file: &TokenFileStatus) -> String {
    let condition = match (file.exists, file.current) {
        (false, _) => "missing",
        (true, Some(true)) => "holds the newest token",
        (true, Some(false)) => "holds something else",
        (true, None) => "unknown content",
    };
    format!("{} ({condition})", Path::display(&file.path))
}

fn refresh_token(status: &AccountStatus, time: impl Fn(i64) -> String) -> String {
    let token = &status.refresh_token;
    let Some(source) = token.source else { return "none".into() };
    let condition = if token.available { "" } else { ", dead" };
    let source = if source == "state" { "in the state" } else { "in the config, not used yet" };
    let seeded = token.seeded_at.map(|at| format!(", login of {}", time(at))).unwrap_or_default();
    let rotated = token.rotated_at.map(|at| format!(", rotated {}", time(at))).unwrap_or_default();
    let ends = token.ends_at.map(|at| format!(", ends {}", time(at))).unwrap_or_default();
    let sealed = if token.at_rest == Some("sealed") { ", sealed" } else { "" };
    format!("{source}{sealed}{condition}{seeded}{rotated}{ends}")
}

/// Said of a target that does not have the newest token.
fn push(push: &PushStatus, time: impl Fn(i64) -> String) -> String {
    let url = &push.url;
    let Some(at) = push.at.map(&time) else { return format!("{url}, nothing sent yet") };
    match &push.problem {
        Some(problem) => format!("{at}: not sent to {url}: {problem}"),
        None => format!("{url} has an older token, sent {at}"),
    }
}

/// Said where the resource does not just take the token.
fn probe_result(probe: &ProbeStatus, time: impl Fn(i64) -> String) -> String {
    let url = &probe.url;
    let Some(at) = probe.at.map(&time) else { return format!("{url}, not asked yet") };
    match (probe.http_status, &probe.problem) {
        (Some(status), _) => format!("{at}: {url} answers HTTP {status}"),
        (None, problem) => {
            let problem = problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
            let last = probe
                .answered_at
                .map_or_else(|| "never answered".into(), |at| format!("last answer {}", time(at)));
            format!("{at}: no answer from {url}{problem} ({last})")
        }
    }
}

fn supervisor(status: &AccountStatus) -> String {
    match status.supervisor {
        None => "none".into(),
        Some(supervisor) => {
            let who = supervisor.pid.map_or_else(|| "alive".into(), |pid| format!("process {pid}"));
            if supervisor.stopped { format!("{who}, stopped") } else { who }
        }
    }
}
