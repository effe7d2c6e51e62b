//! Lines of styled pieces, and how text is broken into them. Pure.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::cli::output::printable;
use crate::cli::terminal::{NARROWEST, columns, from_home, indent_of, wrapped};

pub(super) const PLAIN: Style = Style::new();
pub(super) const STRONG: Style = Style::new().bold();
pub(super) const FAINT: Style = Style::new().dimmed();
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const CARE: Style = AnsiColor::Yellow.on_default();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(super) const WAY_OUT: Style = AnsiColor::Cyan.on_default();

/// A line of styled pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    pieces: Vec<(Style, String)>,
    /// One word of it is longer than a line: the terminal goes on with it in the next row, and whoever
    /// copies it gets it whole.
    is_longer: bool,
}

impl Line {
    /// A line of these pieces.
    pub(super) fn new(pieces: impl IntoIterator<Item = (Style, String)>) -> Self {
        Self { pieces: pieces.into_iter().collect(), is_longer: false }
    }

    /// A line in one style.
    pub(super) fn one(style: Style, text: impl Into<String>) -> Self {
        Self::new([(style, text.into())])
    }

    /// A line without style.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::one(PLAIN, text)
    }

    /// Adds a piece at the end.
    pub(super) fn push(&mut self, style: Style, text: impl Into<String>) {
        self.pieces.push((style, text.into()));
    }

    #[must_use]
    pub(super) fn and(mut self, style: Style, text: impl Into<String>) -> Self {
        self.push(style, text);
        self
    }

    pub(super) fn width(&self) -> usize {
        self.pieces.iter().map(|(_, text)| columns(text)).sum()
    }

    /// The line, cut off at a width unless it has a word that is longer.
    pub(super) fn text(&self, width: usize, colour: bool) -> String {
        let mut left = if self.is_longer { usize::MAX } else { width };
        let mut line = String::new();
        for (style, text) in &self.pieces {
            let text: String = text.chars().take(left).collect();
            left -= columns(&text);
            if colour && *style != PLAIN && !text.trim().is_empty() {
                let _ = write!(line, "{style}{text}{style:#}");
            } else {
                line += &text;
            }
        }
        line
    }

    /// The rows of a screen for this line: more than one only for a word that is longer than a row.
    pub(super) fn rows(self, width: usize) -> Vec<Self> {
        if !self.is_longer {
            return vec![self];
        }
        let (mut rows, mut row, mut left) = (Vec::new(), Self::default(), width.max(1));
        for (style, text) in self.pieces {
            let mut rest: Vec<char> = text.chars().collect();
            while !rest.is_empty() {
                let after = rest.split_off(rest.len().min(left));
                left -= rest.len();
                row.push(style, rest.into_iter().collect::<String>());
                if left == 0 {
                    rows.push(std::mem::take(&mut row));
                    left = width.max(1);
                }
                rest = after;
            }
        }
        rows.extend((row.width() > 0).then_some(row));
        rows
    }
}

/// The characters that things are drawn with.
pub(super) struct Glyphs {
    /// For well, warning, wrong, unknown.
    pub(super) marks: [&'static str; 4],
    /// A bar: what is left, what is spent, and a mark in either.
    pub(super) bar: [char; 4],
    /// Before what to do.
    pub(super) way_out: &'static str,
    /// In place of what is not known.
    pub(super) nothing: &'static str,
}

impl Glyphs {
    /// Those that the terminal has.
    pub(super) fn of(unicode: bool) -> &'static Self {
        if unicode { &UNICODE } else { &ASCII }
    }
}

const UNICODE: Glyphs =
    Glyphs {
        marks: ["●", "▲", "✗", "?"], bar: ['━', '─', '┿', '┼'], way_out: "→ ", nothing: "–"
    };

const ASCII: Glyphs =
    Glyphs { marks: ["*", "!", "x", "?"], bar: ['=', '.', '|', '|'], way_out: "> ", nothing: "-" };

/// Longer lines are hard to read.
pub(super) const TEXT_MAX: usize = 100;

/// A wrapped text with the first line behind `label`, and the others below where it ends; `width` is
/// that of the whole.
pub(super) fn hanging(label: Line, text: (Style, &str), width: usize) -> Vec<Line> {
    let indent = label.width();
    // Not even a narrow terminal makes a column of single words.
    let room = width.saturating_sub(indent).max(NARROWEST);
    let (mut label, mut lines) = (Some(label), Vec::new());
    for piece in wrapped(text.1, room) {
        let length = columns(&piece);
        let begin = indent_of(length, indent, width);
        // A path that has no room beside its label gets the next line.
        let mut line = match label.take() {
            Some(label) if begin == indent => label,
            label => {
                lines.extend(label);
                Line::plain(" ".repeat(begin))
            }
        };
        line.is_longer = length > width;
        line.push(text.0, piece);
        lines.push(line);
    }
    lines
}

/// The cause and the next step of a problem, below its text and so far to the right.
pub(super) fn cause_and_hint(
    indent: &str,
    (cause, hint): (Option<&str>, Option<&str>),
    width: usize,
    unicode: bool,
) -> Vec<Line> {
    let shown = |text: &str| harmless(&from_home(text), unicode);
    let mut lines = Vec::new();
    if let Some(cause) = cause {
        lines.extend(hanging(Line::plain(format!("{indent}cause: ")), (PLAIN, &shown(cause)), width));
    }
    if let Some(hint) = hint {
        let arrow = Line::one(WAY_OUT, format!("{indent}{}", Glyphs::of(unicode).way_out));
        lines.extend(hanging(arrow, (WAY_OUT, &shown(hint)), width));
    }
    lines
}

/// A text as a terminal may get it: on one line, see [`printable`]; in ASCII if the terminal knows
/// no more.
pub(super) fn harmless(text: &str, unicode: bool) -> String {
    let shown = |c: char| match c {
        c if unicode || c.is_ascii() => c,
        '…' => '.',
        _ => '?',
    };
    printable(text).chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use crate::cli::page::*;

    #[test]
    fn text_is_broken_between_words_only() {
        assert_eq!(wrapped("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrapped("see /a/long/path ok", 6), ["see", "/a/long/path", "ok"]);
        assert_eq!(wrapped("", 4), [""]);
    }

    #[test]
    fn a_long_path_is_shown_whole_and_has_rows_on_a_screen() {
        let lines = hanging(Line::plain("> "), (PLAIN, "see /a/path/of/twenty-five/c ok"), 22);
        let texts: Vec<_> = lines.iter().map(|line| line.text(22, false)).collect();
        assert_eq!(texts, ["> see", "/a/path/of/twenty-five/c", "  ok"]);
        let rows = lines.into_iter().flat_map(|line| line.rows(22));
        let rows: Vec<_> = rows.map(|line| line.text(22, false)).collect();
        assert_eq!(rows, ["> see", "/a/path/of/twenty-five", "/c", "  ok"]);
    }

    #[test]
    fn a_hanging_text_stays_right_of_its_label() {
        let lines = hanging(Line::one(STRONG, "name  "), (PLAIN, "one two three four five six"), 26);
        let lines: Vec<_> = lines.iter().map(|line| line.text(usize::MAX, false)).collect();
        assert_eq!(lines, ["name  one two three four", "      five six"]);
    }

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(harmless("a\x1b[2Jb\nc\u{9b}é", true), "a\\u{1b}[2Jb\\nc\\u{9b}é");
        assert_eq!(harmless("é…", false), "?.");
    }
}
