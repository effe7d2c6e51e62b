//! `zg-tokend status`

mod screen;
pub mod short;
pub mod table;
#[cfg(test)]
mod tests;
mod text;

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::args::{Args, Format, Status};
use crate::cli::terminal;
use crate::cli::terminal::Terminal;
use crate::cli::{output, settings};
use crate::config::{Environment, Settings};
use crate::status::metrics;
use crate::status::{AccountStatus, JSON_VERSION, Severity, Snapshot, State, status};

/// If set, ZeroGravity takes its token from here instead of the token file.
const ZEROGRAVITY_TOKEN: &str = "ZEROGRAVITY_TOKEN";

#[derive(Serialize)]
struct StatusJson<'a> {
    version: u32,
    at: i64,
    severity: Severity,
    config: String,
    accounts: &'a [AccountStatus],
}

pub(super) fn execute(args: &Args, flags: &Status) -> Severity {
    let Some(settings) = settings(args) else { return Severity::Unknown };
    let selection = Selection { settings, only: args.common.account.as_deref(), masked: masked_file() };
    let format = match flags {
        Status { json: true, .. } => Format::Json,
        Status { short: true, .. } => Format::Short,
        flags => flags.format,
    };
    let terminal = Terminal::of_stdout();
    if flags.watch {
        return screen::show(selection, args, terminal);
    }
    let snapshot = selection.snapshot();
    let printed = match format {
        Format::Json => output::print(json(&selection.settings, &snapshot)),
        Format::Short => output::print(short::line(&snapshot)),
        Format::Prometheus => output::print(metrics::page(&snapshot.accounts).text.trim_end()),
        Format::Text if terminal.live => {
            let (width, _) = terminal::size();
            let lines = table::lines(&snapshot, width, terminal.unicode);
            let lines = lines.iter().map(|line| line.text(width, terminal.colour));
            output::print(lines.collect::<Vec<_>>().join("\n"))
        }
        // One write: with many accounts, one write each would take longer than the rest.
        Format::Text => output::print(text::text(&snapshot)),
    };
    if printed { snapshot.severity() } else { Severity::Unknown }
}

struct Selection<'a> {
    settings: Settings,
    only: Option<&'a str>,
    /// The token file that an environment variable masks.
    masked: Option<PathBuf>,
}

impl Selection<'_> {
    fn snapshot(&self) -> Snapshot {
        let masked = self.masked.as_deref().map(|path| (ZEROGRAVITY_TOKEN, path));
        status(&self.settings, self.only, masked)
    }
}

fn masked_file() -> Option<PathBuf> {
    std::env::var_os(ZEROGRAVITY_TOKEN).filter(|value| !value.is_empty())?;
    Environment::of_process().zerogravity_token()
}

fn json(settings: &Settings, snapshot: &Snapshot) -> String {
    let config = settings.path.to_string_lossy().into_owned();
    let (at, severity, accounts) = (snapshot.at, snapshot.severity(), &*snapshot.accounts);
    let json = StatusJson { version: JSON_VERSION, at, severity, config, accounts };
    // Strings and numbers always encode.
    serde_json::to_string_pretty(&json).unwrap_or_default()
}

/// The state in a word or two, at most 12 characters: the state of the token goes before that of
/// the next refresh.
fn word(status: &AccountStatus) -> &'static str {
    let now = status.expires_at.zip(status.expires_in).map(|(at, left)| at - left);
    match status.state {
        State::Unknown => "unreadable",
        State::NeedsLogin => "needs login",
        State::Refreshing => "refreshing",
        _ if status.expires_in.is_none() => "no token",
        _ if status.expires_in <= Some(0) => "expired",
        State::BackingOff | State::NeedsConfig if status.waits_for.as_deref() == Some("key") => "needs a key",
        State::BackingOff | State::NeedsConfig if status.waits_for.is_some() => "needs file",
        State::BackingOff => "backing off",
        State::NeedsConfig => "needs config",
        State::Due if status.severity != Severity::Ok && status.refresh_at < now => "overdue",
        State::Due => "due",
        State::Fresh if status.token_file.current != Some(true) => "not in file",
        State::Fresh => "fresh",
    }
}

/// The problem and its number of failures, if there is a problem. `time` formats an instant.
fn problem(status: &AccountStatus, time: impl Fn(i64) -> String) -> Option<String> {
    let problem = status.problem.clone()?;
    let attempt = status.last_attempt.as_ref().filter(|attempt| attempt.message.as_ref() == Some(&problem));
    let repeated = attempt.and_then(|attempt| attempt.failures.zip(attempt.failing_since));
    Some(match repeated {
        Some((count, since)) if count > 1 => {
            format!("{problem} ({count} failures in a row since {})", time(since))
        }
        _ => problem,
    })
}
