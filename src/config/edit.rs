//! Small changes of the text of a config: everything else in it stays as the user wrote it.

use std::ops::Range;

use toml::de::DeTable;
use zeroize::Zeroizing;

/// The text with a new first line, which holds for the whole file.
pub fn with_first_line(text: &str, line: &str) -> Zeroizing<String> {
    joined(&[line, "\n", text])
}

/// A basic string of TOML, which a string of JSON is, but for one character: DEL must be escaped.
pub fn quoted(value: &str) -> String {
    serde_json::to_string(value).unwrap_or_default().replace('\u{7f}', "\\u007f")
}

/// The text with a key at its top renamed; `None` if there is no such key.
pub fn renamed(text: &str, key: &str, name: &str) -> Option<Zeroizing<String>> {
    let (key, _) = find(text, key)?;
    Some(joined(&[&text[..key.start], name, &text[key.end..]]))
}

/// The text without a key at its top and its value; `None` if there is no such key.
pub fn without(text: &str, key: &str) -> Option<Zeroizing<String>> {
    let (key, value) = find(text, key)?;
    let start = text[..key.start].rfind('\n').map_or(0, |end| end + 1);
    let end = text[value.end..].find('\n').map_or(text.len(), |end| value.end + end + 1);
    Some(joined(&[&text[..start], &text[end..]]))
}

/// The text with other texts at these places, which are in order and do not overlap.
pub fn replaced(text: &str, changes: &[(Range<usize>, String)]) -> Zeroizing<String> {
    let mut parts = Vec::new();
    let mut end = 0;
    for (span, new) in changes {
        parts.extend([&text[end..span.start], new]);
        end = span.end;
    }
    parts.push(&text[end..]);
    joined(&parts)
}

/// The places of a key at the top and of its value.
fn find(text: &str, name: &str) -> Option<(Range<usize>, Range<usize>)> {
    let table = DeTable::parse(text).ok()?;
    let (key, value) = table.get_ref().iter().find(|(key, _)| key.get_ref() == name)?;
    Some((key.span(), value.span()))
}

/// Room for all of it at once: a string that grows would leave copies of secrets behind.
fn joined(parts: &[&str]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(parts.iter().map(|part| part.len()).sum()));
    text.extend(parts.iter().copied());
    text
}

#[cfg(test)]
mod tests {
    use crate::config::edit::*;

    const TEXT: &str = "# mine\nclient_id = \"x\" # id\n  state_key = { file = \"k\" } # the key\n\n[accounts.a]\nstate_key = 1\n";

    #[test]
    fn only_the_key_at_the_top_changes() {
        let renamed = renamed(TEXT, "state_key", "state_key_previous").unwrap();
        assert_eq!(*renamed, TEXT.replacen("state_key", "state_key_previous", 1));
        let without = without(TEXT, "state_key").unwrap();
        assert_eq!(*without, "# mine\nclient_id = \"x\" # id\n\n[accounts.a]\nstate_key = 1\n");
        assert_eq!(super::without(TEXT, "skew"), None);
        assert_eq!(*with_first_line(TEXT, "a = 1"), format!("a = 1\n{TEXT}"));
    }

    #[test]
    fn several_places_change_at_once() {
        let changes = [(0..1, "x".to_owned()), (4..4, "y".to_owned()), (4..6, "<z>".to_owned())];
        assert_eq!(*replaced("abcdef", &changes), "xbcdy<z>");
        assert_eq!(*replaced("abc", &[]), "abc");
    }

    #[test]
    fn a_table_and_a_last_line_without_an_end_are_found() {
        assert_eq!(*without("a = 1\nstate_key = { file = \"k\" }", "state_key").unwrap(), "a = 1\n");
        assert_eq!(*without("state_key = { file = \"k\" }\na = 1\n", "state_key").unwrap(), "a = 1\n");
    }
}
