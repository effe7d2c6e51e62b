//! What the demo looks like. Pure: from numbers and words to lines of text.

use std::path::Path;

use anstyle::Style;

use crate::cli::demo::story::{Event, Story, Tone};
use crate::cli::page::{BAD, CARE, FAINT, GOOD, Line, PLAIN, STRONG, wrapped};
use crate::config::MINIMAL;
use crate::status::{AccountStatus, State};

/// The column in which words begin, beside a time or a label.
const INDENT: usize = 10;

/// Room for what follows the bar: "] 12 s left".
const AFTER_BAR: usize = 12;

/// A longer bar says no more.
const BAR_MAX: usize = 60;

/// A shorter one says nothing.
const BAR_MIN: usize = 10;

/// Longer lines are hard to read.
const TEXT_MAX: usize = 100;

fn labelled(label: &str, rest: impl IntoIterator<Item = (Style, String)>) -> Line {
    let label = (STRONG, format!("{label:<INDENT$}"));
    Line::new(std::iter::once(label).chain(rest))
}

/// The life of the present token, as one look found it. All times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Life {
    generation: u64,
    left: i64,
    /// How much is left when the refresh is due.
    due_with: i64,
    next: Next,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    Refresh(i64),
    Try(i64),
    Now,
    Problem(String),
}

impl Life {
    /// From what `status` says at this instant of the wall clock; `None` while there is no token.
    /// `before`, the last look, knows when a refresh was due that is now late.
    pub(super) fn new(status: &AccountStatus, now: i64, before: Option<&Self>) -> Option<Self> {
        let (generation, expires_at) = (status.generation?, status.expires_at?);
        let next_in = status.next_refresh_at.map_or(0, |at| at * 1000 - now);
        let due_with = match (status.state, status.next_refresh_at) {
            (State::Fresh, Some(next_at)) => (expires_at - next_at) * 1000,
            _ => before.map_or(0, |before| before.due_with),
        };
        let next = match status.state {
            State::Fresh => Next::Refresh(next_in),
            State::BackingOff => Next::Try(next_in),
            State::Due | State::Refreshing => Next::Now,
            State::NeedsLogin | State::Unknown => Next::Problem(status.problem.clone().unwrap_or_default()),
        };
        Some(Self { generation, left: expires_at * 1000 - now, due_with, next })
    }

    fn next(&self) -> String {
        match &self.next {
            Next::Refresh(wait) => format!("next refresh in {} s", seconds(*wait)),
            Next::Try(wait) => format!("the refresh failed, next try in {} s", seconds(*wait)),
            Next::Now => "refreshing now".to_owned(),
            Next::Problem(problem) => problem.clone(),
        }
    }
}

/// Whole seconds, rounded up: 0 is said only of what is over.
fn seconds(ms: i64) -> i64 {
    (ms.max(0) + 999) / 1000
}

/// A life as a bar of `width` columns inside brackets: full at birth, `|` where the refresh is due.
/// `left`, `due_with` and `whole` are in one unit, `whole` positive. `#` is the life that is left.
fn bar(left: i64, due_with: i64, whole: i64, width: usize) -> String {
    let columns = |part: i64| {
        let part = part.clamp(0, whole).cast_unsigned() as usize;
        // A sliver of life is still life.
        (part * width).div_ceil(whole.cast_unsigned() as usize)
    };
    let (filled, mark) = (columns(left), columns(due_with));
    let cell = |column: usize| match column {
        _ if column == mark && due_with > 0 => '|',
        _ if column < filled => '#',
        _ => '.',
    };
    (0..width).map(cell).collect()
}

/// The lines that are redrawn in place. `left` and `whole`, the show's rest and a token's life, in
/// milliseconds.
pub(super) fn block(
    life: Option<&Life>,
    story: &Story,
    left: Option<i64>,
    whole: i64,
    width: usize,
) -> Vec<Line> {
    let mut lines = vec![Line::plain("")];
    if let Some(life) = life {
        let columns = width.saturating_sub(INDENT + AFTER_BAR).clamp(BAR_MIN, BAR_MAX);
        let style = match life.left {
            ..=0 => BAD,
            left if left > life.due_with => GOOD,
            _ => CARE,
        };
        let bar = bar(life.left, life.due_with, whole, columns);
        let mut pieces = vec![(PLAIN, "[".to_owned())];
        for run in bar.as_bytes().chunk_by(|a, b| a == b) {
            let style = match run[0] {
                b'#' => style,
                b'|' => STRONG,
                _ => FAINT,
            };
            pieces.push((style, String::from_utf8_lossy(run).into_owned()));
        }
        pieces.push((PLAIN, format!("] {} s left", seconds(life.left))));
        lines.push(labelled(&format!("token {}", life.generation), pieces));
        lines.push(labelled("", [(PLAIN, life.next()), (FAINT, "  (| marks when it is due)".to_owned())]));
    } else {
        lines.push(labelled("token", [(PLAIN, "none yet".to_owned())]));
    }
    let style = if story.refused() > 0 { BAD } else { PLAIN };
    lines.push(labelled("client", [(style, story.reads_in_words())]));
    let ending = match left {
        Some(left) => format!("ends in {} s; Ctrl-C ends it now", seconds(left)),
        None => "Ctrl-C ends it".to_owned(),
    };
    lines.push(labelled("", [(FAINT, ending)]));
    lines
}

/// What is shown, before it begins.
pub(super) fn opening(url: &str, token_file: &Path, width: Option<usize>) -> Vec<Line> {
    let mut lines =
        vec![Line::one(STRONG, "The life of an access token, sped up: it lives 12 s, not an hour.")];
    let room = width.map_or(usize::MAX, |width| width.min(TEXT_MAX));
    let cast = "An authorization server inside this process issues the tokens, and takes each refresh \
                token only once. The supervisor is the real one, zg-tokend run. A client reads the token \
                file 20 times a second and tries the token.";
    lines.extend(wrapped(cast, room).into_iter().map(Line::plain));
    lines.push(Line::plain(""));
    for (label, value) in [("server", url.to_owned()), ("file", token_file.display().to_string())] {
        lines.push(labelled(label, [(PLAIN, value)]));
    }
    lines.push(Line::plain(""));
    lines
}

/// What it came to, and what to do next.
pub(super) fn farewell(story: &Story, width: Option<usize>) -> Vec<Line> {
    let mut lines = vec![Line::plain(""), Line::one(STRONG, "What you have seen:")];
    lines.extend(story.summary().into_iter().map(|line| Line::plain(format!("  {line}"))));
    lines.push(Line::plain(""));
    lines.push(Line::one(STRONG, "The same for a token of yours:"));
    let room = width.map_or(usize::MAX, |width| width.min(TEXT_MAX));
    let next = "Write ~/.config/zg-tokend/config.toml, mode 0600, for example:";
    lines.extend(wrapped(next, room).into_iter().map(Line::plain));
    lines.extend(MINIMAL.lines().map(|line| Line::plain(format!("  {line}"))));
    lines.push(Line::plain("Then:"));
    for (command, what) in
        [("zg-tokend check", "is the config right?"), ("zg-tokend run", "keep the token fresh")]
    {
        lines.push(Line::new([(PLAIN, format!("  {command:<17}")), (FAINT, what.to_owned())]));
    }
    lines
}

/// The same in one line, where nothing can be redrawn.
pub(super) fn sentence(life: Option<&Life>, story: &Story) -> Event {
    let text = match life {
        Some(life) => format!(
            "token {}: {} s left, {}; {}",
            life.generation,
            seconds(life.left),
            life.next(),
            story.reads_in_words()
        ),
        None => "no token yet".to_owned(),
    };
    Event::new(Tone::Plain, text)
}

/// An event beside its time of day; broken into lines of this width, if one is given.
pub(super) fn event(time: &str, event: &Event, width: Option<usize>) -> Vec<Line> {
    let style = match event.tone {
        Tone::Plain => PLAIN,
        Tone::Good => GOOD,
        Tone::Care => CARE,
        Tone::Bad => BAD,
    };
    let room = width.map_or(usize::MAX, |width| width.min(TEXT_MAX).saturating_sub(INDENT).max(20));
    let mut label = time;
    let mut lines = Vec::new();
    for text in wrapped(&event.text, room) {
        lines.push(Line::new([(FAINT, format!("{label:<INDENT$}")), (style, text)]));
        label = "";
    }
    lines
}

#[cfg(test)]
mod tests;
