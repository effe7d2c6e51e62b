//! `zg-tokend check`

use std::path::Path;

use serde::Serialize;

use crate::check::{Finding, FindingLevel, JSON_VERSION, check, live};
use crate::cli::args::{Args, Check};
use crate::cli::exit::Exit;
use crate::cli::output::{self, printable};
use crate::cli::page::{
    BAD, CARE, FAINT, GOOD, Glyphs, Line, PLAIN, STRONG, TEXT_MAX, cause_and_hint, hanging, harmless,
};
use crate::cli::settings::{load, locate};
use crate::cli::terminal::{self, Terminal, columns, from_home, wrapped};

#[derive(Serialize)]
struct CheckJson<'a> {
    version: u32,
    level: FindingLevel,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<String>,
    findings: &'a [Finding],
}

pub(super) fn execute(args: &Args, flags: &Check) -> Result<Exit, Exit> {
    let only = args.common.account.as_deref();
    let findings = match load(args) {
        // Secrets may be missing for a while: that must not keep a reload from working.
        Ok(_) if flags.syntax => return Ok(Exit::Success),
        Ok(settings) => {
            let mut findings = check(&settings, only);
            if flags.live {
                findings.extend(live(&settings, only).map_err(|error| output::no_event_loop(&error))?);
            }
            findings
        }
        Err(failure) if flags.json => {
            vec![Finding::problem("config", failure.problem, failure.hint).because(failure.cause)]
        }
        Err(failure) => {
            failure.print();
            return Err(Exit::Config);
        }
    };
    let printed =
        if flags.json { output::print(json(args, &findings)) } else { show(&findings, !flags.live) };
    Ok(if printed { exit_of(&findings) } else { Exit::Io })
}

/// Prints the findings for people; `offline` suggests --live. False if stdout did not take them.
pub(super) fn show(findings: &[Finding], offline: bool) -> bool {
    let terminal = Terminal::of_stdout();
    let verdict = verdict(findings, offline);
    let lines = if terminal.live {
        let (width, _) = terminal::size();
        let page = page(findings, width, terminal.unicode);
        let mut lines: Vec<_> = page.iter().map(|line| line.text(width, terminal.colour)).collect();
        lines.push(String::new());
        lines.extend(wrapped(&verdict, width.min(TEXT_MAX)));
        lines
    } else {
        let mut lines = plain(findings);
        lines.push(verdict);
        lines
    };
    output::print(lines.join("\n"))
}

pub(super) fn exit_of(findings: &[Finding]) -> Exit {
    if worst(findings) == FindingLevel::Problem { Exit::Config } else { Exit::Success }
}

fn worst(findings: &[Finding]) -> FindingLevel {
    findings.iter().map(|finding| finding.level).max().unwrap_or(FindingLevel::Ok)
}

fn json(args: &Args, findings: &[Finding]) -> String {
    let config = locate(args).ok().and_then(|path| std::path::absolute(path).ok());
    let config = config.as_deref().map(Path::to_string_lossy).map(std::borrow::Cow::into_owned);
    let json = CheckJson { version: JSON_VERSION, level: worst(findings), config, findings };
    // Strings and numbers always encode.
    serde_json::to_string_pretty(&json).unwrap_or_default()
}

fn verdict(findings: &[Finding], offline: bool) -> String {
    let count = |level, word: &str| match findings.iter().filter(|finding| finding.level == level).count() {
        0 => None,
        1 => Some(format!("1 {word}")),
        count => Some(format!("{count} {word}s")),
    };
    let problems: Vec<_> = [count(FindingLevel::Problem, "problem"), count(FindingLevel::Warning, "warning")]
        .into_iter()
        .flatten()
        .collect();
    if worst(findings) == FindingLevel::Problem {
        return problems.join(", ");
    }
    let next = if offline { "; `zg-tokend check --live` asks the servers, too" } else { "" };
    if problems.is_empty() { format!("all is well{next}") } else { format!("{}{next}", problems.join(", ")) }
}

/// For a pipe: each finding on a line of its own, its cause and its hint on the next.
fn plain(findings: &[Finding]) -> Vec<String> {
    let line = |finding: &Finding| {
        let word = match finding.level {
            FindingLevel::Ok => "ok",
            FindingLevel::Warning => "warning",
            FindingLevel::Problem => "problem",
        };
        let account = finding.account.as_ref().map(|account| format!("{account}: ")).unwrap_or_default();
        let below = |name: &str, text: &Option<String>| {
            let text = text.as_deref().map(|text| format!("\n         {name}: {}", printable(text)));
            text.unwrap_or_default()
        };
        let (cause, hint) = (below("cause", &finding.cause), below("hint", &finding.hint));
        format!("{word:<9}{account}{}: {}{cause}{hint}", finding.subject, printable(&finding.message))
    };
    findings.iter().map(line).collect()
}

/// For a terminal: findings about all accounts, then those of each account under its name.
fn page(findings: &[Finding], width: usize, unicode: bool) -> Vec<Line> {
    let (width, glyphs) = (width.min(TEXT_MAX), Glyphs::of(unicode));
    let label = findings.iter().map(|finding| columns(finding.subject)).max().unwrap_or(0);
    let mut lines = Vec::new();
    let mut account = None;
    for finding in findings {
        if finding.account != account {
            account.clone_from(&finding.account);
            lines.push(Line::default());
            lines.extend(account.iter().map(|name| Line::one(STRONG, format!("  {name}"))));
        }
        let style = [GOOD, CARE, BAD][finding.level as usize];
        let head = Line::new([
            (style, format!("{} ", glyphs.marks[finding.level as usize])),
            (PLAIN, format!("{:<label$}  ", finding.subject)),
        ]);
        let indent = " ".repeat(head.width());
        let body = if finding.level == FindingLevel::Ok { FAINT } else { PLAIN };
        let shown = |text: &str| harmless(&from_home(text), unicode);
        lines.extend(hanging(head, (body, &shown(&finding.message)), width));
        let below = (finding.cause.as_deref(), finding.hint.as_deref());
        lines.extend(cause_and_hint(&indent, below, width, unicode));
    }
    lines
}
