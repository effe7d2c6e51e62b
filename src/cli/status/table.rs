//! The table on a terminal: a row for each account, then a few words on those that need
//! any. Pure, but for the time zone.

use std::time::Duration;

use anstyle::Style;

use crate::cli::page::{
    BAD, CARE, FAINT, GOOD, Glyphs, Line, PLAIN, STRONG, TEXT_MAX, cause_and_hint, hanging, harmless,
};
use crate::cli::status::text::{self, details};
use crate::cli::status::words::{problem, word};
use crate::cli::terminal::{columns, from_home, wrapped};
use crate::message::{duration, local_near};
use crate::status::{AccountStatus, Severity, Snapshot, State};

/// A longer bar says no more.
const BAR_MAX: usize = 36;

/// A shorter one says nothing.
const BAR_MIN: usize = 10;

/// Between two columns.
const GAP: usize = 2;

/// An account's name is cut to this where there is little room.
const NAME_MIN: usize = 12;

/// The width of most states.
const STATE_MIN: usize = 11;

/// The labels of the details, with their gap.
const LABEL: usize = 15;

/// More names than these are counted.
const NAMES_MAX: usize = 8;

/// All lines, none wider than `width`, if that is not absurd.
pub(in crate::cli) fn lines(snapshot: &Snapshot, width: usize, unicode: bool) -> Vec<Line> {
    let page = TablePage { snapshot, width, unicode, glyphs: Glyphs::of(unicode) };
    let mut lines = page.table();
    lines.extend(page.sentences());
    lines.extend(page.masked());
    lines.push(Line::default());
    match &*snapshot.accounts {
        [only] => lines.extend(page.details(only)),
        all => lines.extend(page.summary(all)),
    }
    lines
}

/// The label of a detail; its value follows.
pub(in crate::cli) fn detail(name: &str) -> Line {
    Line::one(FAINT, format!("  {name:<LABEL$}"))
}

struct TablePage<'a> {
    snapshot: &'a Snapshot,
    width: usize,
    unicode: bool,
    glyphs: &'static Glyphs,
}

/// The cells of a row, but for the bar.
struct Row<'a> {
    status: &'a AccountStatus,
    left: String,
    expires: String,
    refresh: String,
}

/// How wide each column is; 0 where it is left out.
struct Widths {
    name: usize,
    state: usize,
    bar: usize,
    left: usize,
    expires: usize,
    refresh: usize,
}

impl TablePage<'_> {
    fn table(&self) -> Vec<Line> {
        let rows: Vec<_> = self.snapshot.accounts.iter().map(|status| self.row(status)).collect();
        let widths = self.widths(&rows);
        let mut lines = vec![Self::header(&widths)];
        lines.extend(rows.iter().map(|row| self.line(row, &widths)));
        lines
    }

    fn row<'a>(&self, status: &'a AccountStatus) -> Row<'a> {
        let nothing = || self.glyphs.nothing.to_owned();
        Row {
            status,
            left: status.expires_in.map_or_else(nothing, |left| match left {
                1.. => span(left),
                _ => format!("{} ago", span(-left)),
            }),
            expires: status.expires_at.map_or_else(nothing, |at| self.time(at)),
            refresh: self.refresh(status),
        }
    }

    fn refresh(&self, status: &AccountStatus) -> String {
        let wait = status.next_refresh_at.map(|at| at - self.snapshot.at).filter(|wait| *wait > 0);
        match (status.state, wait) {
            (State::Unknown, _) => self.glyphs.nothing.into(),
            (State::NeedsLogin, _) => "after login".into(),
            (State::Refreshing, _) => "under way".into(),
            _ if !status.can_refresh() => "never".into(),
            (State::BackingOff | State::NeedsConfig, Some(wait)) => format!("retry in {}", span(wait)),
            (_, Some(wait)) => format!("in {}", span(wait)),
            (_, None) if status.supervisor.is_none() => "overdue".into(),
            (_, None) => "now".into(),
        }
    }

    /// The columns that fit, the most important first: name, state, time left; then the bar, what comes
    /// next, and when exactly.
    fn widths(&self, rows: &[Row<'_>]) -> Widths {
        let widest = |cell: fn(&Row<'_>) -> usize, header: &str| {
            rows.iter().map(cell).max().unwrap_or(0).max(columns(header))
        };
        let left = widest(|row| columns(&row.left), LEFT);
        let state = widest(|row| columns(word(row.status)), STATE_HEADER).max(STATE_MIN);
        let fixed = 2 + GAP + state + GAP + left;
        let name = widest(|row| columns(&row.status.account), ACCOUNT);
        let name = name.min(self.width.saturating_sub(fixed + GAP + BAR_MIN).max(NAME_MIN)).min(name);
        let mut room = self.width.saturating_sub(fixed + name);
        let mut take = |wanted: usize| {
            let fits = room >= wanted + GAP;
            room -= if fits { wanted + GAP } else { 0 };
            if fits { wanted } else { 0 }
        };
        let bar = take(BAR_MIN);
        let refresh = take(widest(|row| columns(&row.refresh), REFRESH));
        let expires = take(widest(|row| columns(&row.expires), EXPIRES));
        let bar = if bar > 0 { (bar + room).min(BAR_MAX) } else { 0 };
        Widths { name, state, bar, left, expires, refresh }
    }

    fn header(widths: &Widths) -> Line {
        let Widths { name, state, bar, left, expires, refresh } = *widths;
        let cells = [
            (name, format!("  {ACCOUNT:<name$}")),
            (state, format!("  {STATE_HEADER:<state$}")),
            (bar, format!("  {LIFE:<bar$}")),
            (left, format!("  {LEFT:>left$}")),
            (expires, format!("  {EXPIRES:<expires$}")),
            (refresh, format!("  {REFRESH}")),
        ];
        let shown = cells.into_iter().filter(|(width, _)| *width > 0);
        Line::new(shown.map(|(_, cell)| (FAINT, cell)))
    }

    fn line(&self, row: &Row<'_>, widths: &Widths) -> Line {
        let Widths { name, state, bar, left, expires, refresh } = *widths;
        let style = style(row.status.severity);
        let mut line = self.named(row.status.severity, &shortened(&row.status.account, name));
        line.push(PLAIN, " ".repeat(name.saturating_sub(columns(&row.status.account)) + GAP));
        line.push(style, format!("{:<state$}", word(row.status)));
        if bar > 0 {
            line.push(PLAIN, " ".repeat(GAP));
            self.bar(row.status, bar, &mut line);
        }
        line.push(PLAIN, format!("  {:>left$}", row.left));
        if expires > 0 {
            line.push(FAINT, format!("  {:<expires$}", row.expires));
        }
        if refresh > 0 {
            line.push(PLAIN, format!("  {}", row.refresh));
        }
        line
    }

    fn named(&self, severity: Severity, name: &str) -> Line {
        Line::new([
            (style(severity), format!("{} ", self.glyphs.marks[severity as usize])),
            (STRONG, name.to_owned()),
        ])
    }

    /// The life that is left, from the left; the mark stands where the refresh is due.
    fn bar(&self, status: &AccountStatus, width: usize, line: &mut Line) {
        let (Some(left), Some(whole)) = (status.expires_in, status.lifetime.filter(|whole| *whole > 0))
        else {
            line.push(PLAIN, " ".repeat(width));
            return;
        };
        let cells = |part: i64| {
            let part = part.clamp(0, whole).cast_unsigned() as usize;
            // A sliver of life is still life.
            (part * width).div_ceil(whole.cast_unsigned() as usize)
        };
        let due_with = status.expires_at.zip(status.refresh_at).map_or(0, |(end, due)| end - due);
        let (filled, mark) = (cells(left), cells(due_with).min(width - 1));
        let colour = if left > due_with { GOOD } else { CARE };
        let [full, spent, mark_in_full, mark_in_spent] = self.glyphs.bar;
        let run = |from: usize, to: usize, glyph: char| glyph.to_string().repeat(to.saturating_sub(from));
        let marks = due_with > 0;
        for (from, to) in if marks { [(0, mark), (mark + 1, width)] } else { [(0, width), (width, width)] } {
            let end = filled.clamp(from, to.max(from));
            line.push(colour, run(from, end, full));
            line.push(FAINT, run(end, to, spent));
            if marks && from == 0 {
                line.push(STRONG, if mark < filled { mark_in_full } else { mark_in_spent });
            }
        }
    }

    /// For those that are not fresh: who, why, and the way out. Equal ones share their words.
    fn sentences(&self) -> Vec<Line> {
        let mut groups: Vec<(Words, Vec<&AccountStatus>)> = Vec::new();
        for status in &self.snapshot.accounts {
            let Some(words) = self.words(status) else { continue };
            match groups.iter_mut().find(|(known, _)| *known == words) {
                Some((_, accounts)) => accounts.push(status),
                None => groups.push((words, vec![status])),
            }
        }
        let mut lines = Vec::new();
        for ((severity, said), accounts) in groups {
            let names: Vec<_> = accounts.iter().take(NAMES_MAX).map(|status| &*status.account).collect();
            let more = match accounts.len().saturating_sub(NAMES_MAX) {
                0 => String::new(),
                more => format!(" and {more} others"),
            };
            let names = names.join(", ") + &more;
            lines.extend(self.sentence(severity, &names, &said));
        }
        lines
    }

    fn words(&self, status: &AccountStatus) -> Option<Words> {
        let said = Said {
            problem: problem(status, |at| self.time(at)),
            cause: status.cause.clone(),
            hint: status.hint.clone(),
        };
        if said.problem.is_some() || said.hint.is_some() {
            return Some((status.severity, said));
        }
        let passed = status.refresh_at.filter(|at| *at < self.snapshot.at);
        let due = passed.map(|at| format!("a refresh is due since {}", self.time(at)));
        let due = due.unwrap_or_else(|| "a refresh is due".into());
        let (problem, way_out) = match (status.state, status.supervisor) {
            (State::Refreshing, _) => {
                ("a request is under way".into(), "wait for its end: `zg-tokend status --watch` shows it")
            }
            (State::Due, None) => (due, "`zg-tokend once` does it now"),
            (State::Due, Some(_)) => (due, "the supervisor does it now"),
            _ => return None,
        };
        let said = Said { problem: Some(problem), cause: None, hint: Some(way_out.into()) };
        Some((status.severity, said))
    }

    fn sentence(&self, severity: Severity, about: &str, said: &Said) -> Vec<Line> {
        let width = self.width.min(TEXT_MAX);
        let mut lines = vec![Line::default()];
        let mark = format!("{} ", self.glyphs.marks[severity as usize]);
        lines.extend(hanging(Line::one(style(severity), mark), (STRONG, about), width));
        if let Some(problem) = &said.problem {
            lines.extend(hanging(Line::plain("  "), (PLAIN, &self.harmless(problem)), width));
        }
        let below = (said.cause.as_deref(), said.hint.as_deref());
        lines.extend(cause_and_hint("  ", below, width, self.unicode));
        lines
    }

    /// That an environment variable goes before a token file is nobody's failure, and explains
    /// a 401 that nothing else does.
    fn masked(&self) -> Vec<Line> {
        let masked = self.snapshot.accounts.iter().find_map(|status| {
            Some((status.token_file.masked_by?, &status.token_file.path, &status.account))
        });
        let Some((variable, path, account)) = masked else { return Vec::new() };
        let problem = format!("{} is masked by {}", path.display(), text::masked(variable));
        let said = Said { problem: Some(problem), cause: None, hint: Some(format!("unset {variable}")) };
        self.sentence(Severity::Warning, account, &said)
    }

    fn details(&self, status: &AccountStatus) -> Vec<Line> {
        let width = self.width.min(TEXT_MAX);
        let details = details(status, |at| self.time(at)).into_iter();
        // A masked file has a sentence of its own.
        let details = details.filter(|(name, _)| *name != "masked by");
        let lines =
            details.flat_map(|(name, value)| hanging(detail(name), (PLAIN, &self.harmless(&value)), width));
        lines.collect()
    }

    fn summary(&self, accounts: &[AccountStatus]) -> Vec<Line> {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for word in accounts.iter().map(word) {
            match counts.iter_mut().find(|(known, _)| *known == word) {
                Some((_, count)) => *count += 1,
                None => counts.push((word, 1)),
            }
        }
        let counts: Vec<_> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
        let counts = format!("{} accounts: {}", accounts.len(), counts.join(", "));
        let lines = [counts, supervision(accounts)];
        let lines = lines.iter().flat_map(|text| wrapped(text, self.width.min(TEXT_MAX).saturating_sub(2)));
        lines.map(|line| Line::one(FAINT, format!("  {line}"))).collect()
    }

    fn time(&self, at: i64) -> String {
        local_near(at, self.snapshot.at)
    }

    fn harmless(&self, text: &str) -> String {
        harmless(&from_home(text), self.unicode)
    }
}

/// How serious, and what is said of it.
type Words = (Severity, Said);

/// The problem, its cause, and the way out.
#[derive(PartialEq, Eq)]
struct Said {
    problem: Option<String>,
    cause: Option<String>,
    hint: Option<String>,
}

const ACCOUNT: &str = "ACCOUNT";
const STATE_HEADER: &str = "STATE";
const LIFE: &str = "LIFE";
const LEFT: &str = "LEFT";
const EXPIRES: &str = "EXPIRES";
const REFRESH: &str = "REFRESH";

/// The process that refreshes all these.
fn supervision(accounts: &[AccountStatus]) -> String {
    let mut supervisors: Vec<u32> = accounts
        .iter()
        .filter_map(|status| status.supervisor.and_then(|supervisor| supervisor.pid))
        .collect();
    supervisors.sort_unstable();
    supervisors.dedup();
    let who = match &*supervisors {
        [] => "no supervisor is running: `zg-tokend run`, or `once` from cron or a timer".to_owned(),
        [pid] => format!("supervised by process {pid}"),
        pids => {
            let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
            format!("supervised by processes {}", pids.join(", "))
        }
    };
    let alone = accounts.iter().filter(|status| status.supervisor.is_none()).count();
    if supervisors.is_empty() || alone == 0 { who } else { format!("{who}; {alone} by none") }
}

fn style(severity: Severity) -> Style {
    match severity {
        Severity::Ok => GOOD,
        Severity::Warning | Severity::Unknown => CARE,
        Severity::Critical => BAD,
    }
}

fn span(seconds: i64) -> String {
    duration(Duration::from_secs(seconds.unsigned_abs()))
}

/// A name, cut where it does not fit.
fn shortened(name: &str, width: usize) -> String {
    if columns(name) <= width {
        return name.to_owned();
    }
    // Account names are ASCII.
    format!("{}~", name.chars().take(width.saturating_sub(1)).collect::<String>())
}
