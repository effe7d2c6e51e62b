//! `zg-tokend status`

mod screen;
mod selection;
pub mod short;
pub mod table;
#[cfg(test)]
mod tests;
mod text;
mod words;

use std::sync::Arc;

use serde::Serialize;

use crate::cli::args::{Args, Format, Status};
use crate::cli::output;
use crate::cli::settings::settings;
use crate::cli::status::selection::{Selection, masked_file};
use crate::cli::terminal::{self, Terminal};
use crate::config::Settings;
use crate::status::{AccountStatus, JSON_VERSION, Severity, Snapshot, metrics};

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
    let settings = Arc::new(settings);
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

fn json(settings: &Settings, snapshot: &Snapshot) -> String {
    let config = settings.path.to_string_lossy().into_owned();
    let (at, severity, accounts) = (snapshot.at, snapshot.severity(), &*snapshot.accounts);
    let json = StatusJson { version: JSON_VERSION, at, severity, config, accounts };
    // Strings and numbers always encode.
    serde_json::to_string_pretty(&json).unwrap_or_default()
}
