//! An error in the text with its line, column and a caret, without the secrets of that line.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::config::document::Map;
use crate::config::keys;
use crate::config::problem::ConfigProblem;

const FORM: &str = "write one `key = value` on a line, text in double quotes, each key once (TOML)";

/// An error in the text of a config file: `config.toml:7:1: unknown key `refesh_token``.
#[derive(Debug)]
pub struct Diagnostic {
    path: PathBuf,
    line: usize,
    column: usize,
    message: String,
    hint: String,
    excerpt: Option<Excerpt>,
}

impl Diagnostic {
    /// Finds the place of `problem` in `text`. Without a `map`, since the text is not valid TOML,
    /// nothing but a known key is shown of the line.
    pub(super) fn new(path: &Path, text: &str, map: Option<&Map>, problem: ConfigProblem) -> Self {
        let ConfigProblem { span, message, hint } = problem;
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[line_start..].lines().next().unwrap_or("");
        let excerpt = match map {
            Some(_) if span.is_empty() => None,
            Some(map) => Some(Excerpt::new(line, line_start, &span, &map.visible, &map.hidden)),
            None => {
                let value = line_start + value_offset(line);
                let (key, rest) = (line_start..value, value..text.len());
                Some(Excerpt::new(line, line_start, &span, &[key], &[rest]))
            }
        };
        Self {
            path: path.to_owned(),
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            message,
            hint,
            excerpt,
        }
    }

    /// The error of the TOML parser at `span`. Its messages are fixed texts, which quote nothing.
    pub(super) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let span = error.span().unwrap_or(text.len()..text.len());
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let key = leading_key(&text[line_start..]).unwrap_or("");
        // The parser guesses the type from the first letter: `t` for true, `i` for infinity.
        let unquoted = ["invalid boolean", "invalid float", "string values must be quoted"]
            .iter()
            .any(|guess| error.message().starts_with(guess));
        let (message, hint) = if unquoted {
            let example = keys::find(key)
                .map_or("key = \"value\"".to_owned(), |key| format!("{} = {}", key.name, key.example));
            let message = "the value is neither a number nor true or false; text needs quotes".to_owned();
            (message, format!("write it in double quotes, for example: {example}"))
        } else {
            (error.message().to_owned(), FORM.to_owned())
        };
        let message = if key.is_empty() { message } else { format!("`{key}`: {message}") };
        Self::new(path, text, None, ConfigProblem::new(span, message, hint))
    }

    /// The problem, without its place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The change that helps.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// The line, with carets under the error, without control characters and secrets:
    ///
    /// ```text
    ///   |
    /// 7 | refesh_token = "…"
    ///   | ^^^^^^^^^^^^
    /// ```
    pub fn excerpt(&self) -> Option<String> {
        let Excerpt { text, caret } = self.excerpt.as_ref()?;
        let number = self.line.to_string();
        let (gap, indent, carets) =
            (" ".repeat(number.len()), " ".repeat(caret.start), "^".repeat(caret.len()));
        Some(format!("{gap} |\n{number} | {text}\n{gap} | {indent}{carets}"))
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.path.display(), self.line, self.column, self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// A known key that begins the line. Nothing else of a line that is not valid TOML may be shown: it
/// may be the middle of a secret.
fn leading_key(line: &str) -> Option<&str> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(line.len());
    keys::find(&line[..end]).map(|key| key.name)
}

/// Where the value begins on a line that begins with a known key; 0 on any other.
fn value_offset(line: &str) -> usize {
    let Some(key) = leading_key(line) else { return 0 };
    let after = line[key.len()..].trim_start();
    let value = after.strip_prefix('=').unwrap_or(after).trim_start();
    line.len() - value.len()
}

/// A line as it may be shown, and which of its characters the carets go under.
#[derive(Debug)]
struct Excerpt {
    text: String,
    caret: Range<usize>,
}

impl Excerpt {
    /// Shows what is `visible`, and punctuation outside of values; each run of anything else
    /// becomes one `…`, and a comment is left out. All ranges are bytes of the whole text.
    fn new(
        line: &str,
        line_start: usize,
        span: &Range<usize>,
        visible: &[Range<usize>],
        hidden: &[Range<usize>],
    ) -> Self {
        let within = |ranges: &[Range<usize>], at| ranges.iter().any(|range| range.contains(&at));
        let mut text = String::new();
        // The characters of `text` so far, and where in it the glyph of `c` begins.
        let (mut width, mut glyph) = (0, 0);
        let mut in_hidden_run = false;
        let mut caret: Option<Range<usize>> = None;
        for (offset, c) in line.char_indices() {
            let at = line_start + offset;
            let (is_visible, is_hidden) = (within(visible, at), within(hidden, at));
            if c == '#' && !is_visible && !is_hidden {
                break;
            }
            let shown = !is_hidden && (is_visible || c.is_ascii_whitespace() || "=.,[]{}".contains(c));
            if shown || !in_hidden_run {
                glyph = width;
                match c {
                    '"' | '\'' if !shown => text.push_str("\"…\""),
                    _ if !shown => text.push('…'),
                    '\t' => text.push(' '),
                    c if c.is_control() => text.push('\u{fffd}'),
                    c => text.push(c),
                }
                width += if shown || !matches!(c, '"' | '\'') { 1 } else { 3 };
            }
            in_hidden_run = !shown;
            // An empty span is between two characters: the caret goes under the second.
            if at == span.start || span.contains(&at) {
                caret = Some(caret.map_or(glyph, |caret| caret.start)..width);
            }
        }
        Self { text: text.trim_end().to_owned(), caret: caret.unwrap_or(width..width + 1) }
    }
}
