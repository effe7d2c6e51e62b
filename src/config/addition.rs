//! Adds an account to the text of a config. Every line that is there stays, with its comments; a flat
//! config becomes one with tables. Pure: the caller shows the change, and proves it by parsing both texts.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use crate::config::environment::Environment;
use crate::config::error::ConfigError;
use crate::config::keys::{self, Place};
use crate::config::parse;
use crate::config::settings::{AccountConfig, AccountName, Settings};

/// One line of the old or the new text, with its line break.
#[derive(Debug, PartialEq, Eq)]
pub enum LineChange<'a> {
    /// It may hold a secret.
    Kept(&'a str),
    Removed(&'a str),
    Added(String),
}

/// A text in which an account was added.
pub struct Addition<'a> {
    lines: Vec<LineChange<'a>>,
}

/// Why an account cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum AdditionError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No table can be added to it.
    #[error("`accounts` is an inline table")]
    Inline,
    /// The text is written in a way that this program does not change, or keys above the tables would
    /// change what was answered.
    #[error("account {0} would get other settings")]
    Changed(AccountName),
}

impl AdditionError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Inline | Self::Changed(_) => Some(
                "nothing was written: add [accounts.NAME] by hand; `zg-tokend man config` explains it".into(),
            ),
        }
    }
}

impl<'a> Addition<'a> {
    /// `text` is a valid config, and `table` that of the new account, which is added at the end. A flat
    /// config without `token_file` needs this line for it in a table.
    pub fn new(text: &'a str, table: &str, token_file_line: &str) -> Result<Self, AdditionError> {
        let (parsed, _) = DeTable::parse_recoverable(text);
        let parsed = parsed.get_ref();
        let mut lines = match parsed.get("accounts") {
            Some(accounts) if is_literal(text, accounts) => return Err(AdditionError::Inline),
            Some(_) => text.split_inclusive('\n').map(LineChange::Kept).collect(),
            None => tables(text, parsed, token_file_line),
        };
        if !text.ends_with('\n') && !text.is_empty() {
            lines.push(LineChange::Added("\n".into()));
        }
        lines.push(LineChange::Added("\n".into()));
        lines.extend(table.split_inclusive('\n').map(|line| LineChange::Added(line.to_owned())));
        Ok(Self { lines })
    }

    pub fn lines(&self) -> &[LineChange<'a>] {
        &self.lines
    }

    /// The new text.
    pub fn text(&self) -> Zeroizing<String> {
        let parts = || {
            self.lines.iter().filter_map(|line| match line {
                LineChange::Kept(text) => Some(*text),
                LineChange::Added(text) => Some(text),
                LineChange::Removed(_) => None,
            })
        };
        // Room for all of it: a string that grows would leave copies of its secrets behind.
        let mut text = Zeroizing::new(String::with_capacity(parts().map(str::len).sum()));
        parts().for_each(|part| text.push_str(part));
        text
    }
}

/// Whether a config has no tables of accounts.
pub fn is_flat(text: &str) -> bool {
    DeTable::parse_recoverable(text).0.get_ref().get("accounts").is_none()
}

/// The settings of the new text. All earlier accounts must be in it as they were, and the new one as it
/// was answered: `alone` is a config of that account only.
pub fn prove(
    before: &str,
    after: &str,
    alone: &str,
    path: &Path,
    environment: &Environment,
) -> Result<Settings, AdditionError> {
    let [before, after, alone] = [before, after, alone].map(|text| parse(text, path, environment));
    let (before, alone, after) = (before?, alone?, after?);
    let find = |name: &AccountName| after.accounts.iter().find(|account| account.name == *name);
    for account in &before.accounts {
        let is_same = |other: &AccountConfig| {
            other.refresh_token == account.refresh_token
                && other.token_file == account.token_file
                && other.common == account.common
        };
        if before.state_dir != after.state_dir || !find(&account.name).is_some_and(|other| is_same(other)) {
            return Err(AdditionError::Changed(account.name.clone()));
        }
    }
    for account in &alone.accounts {
        // Whatever else differs is a default that the user has set for all accounts.
        let is_answered = |added: &AccountConfig| {
            added.client_secret == account.client_secret
                && added.auth_method == account.auth_method
                && added.endpoint == account.endpoint
                && added.preset == account.preset
                && added.grant == account.grant
                && added.login.authorization_endpoint == account.login.authorization_endpoint
        };
        if !find(&account.name).is_some_and(|added| is_answered(added)) {
            return Err(AdditionError::Changed(account.name.clone()));
        }
    }
    Ok(after)
}

/// The lines of a flat config as a table of the account that it had, which keeps its name: its state is
/// found by it. Keys for the whole file stay above the table.
fn tables<'a>(text: &'a str, parsed: &DeTable<'_>, token_file_line: &str) -> Vec<LineChange<'a>> {
    let mut literals = Vec::new();
    find_literals(text, parsed, &mut literals);
    let mut start = 0;
    let lines: Vec<(usize, &str)> = text
        .split_inclusive('\n')
        .map(|line| {
            start += line.len();
            (start - line.len(), line)
        })
        .collect();
    let line_at = |offset: usize| lines.partition_point(|(start, _)| *start <= offset) - 1;
    // With the comment lines right above.
    let with_comments = |first: usize| {
        let above = lines[..first].iter().rev().take_while(|(_, line)| line.trim_start().starts_with('#'));
        first - above.count()
    };
    let is_inside =
        |start: usize| literals.iter().any(|literal| literal.start < start && start < literal.end);
    let of_file = |name: &str| keys::find(name).is_some_and(|key| key.place == Place::File);
    let is_header = |index: usize| {
        let (start, line) = lines[index];
        line.trim_start().starts_with('[') && !is_inside(start)
    };
    // The header of a table that is itself for the whole file stays as it is.
    let is_account_header = |index: usize| {
        let name = lines[index].1.trim_start_matches(['[', ' ', '\t']);
        is_header(index) && !of_file(name.split(['.', ']', ' ']).next().unwrap_or_default())
    };
    let first_key = parsed.keys().filter(|key| !of_file(key.get_ref())).map(|key| line_at(key.span().start));
    let begin = with_comments(first_key.min().unwrap_or(0));
    let moved: Vec<Range<usize>> = parsed
        .iter()
        .filter(|(key, _)| of_file(key.get_ref()))
        .map(|(key, value)| {
            with_comments(line_at(key.span().start))..line_at(value.span().end.saturating_sub(1)) + 1
        })
        .filter(|range| range.start >= begin && !range.clone().any(is_header))
        .collect();

    let kept = |range: Range<usize>| lines[range].iter().map(|(_, line)| LineChange::Kept(line));
    let mut changed: Vec<LineChange<'a>> = kept(0..begin).collect();
    for line in moved.iter().flat_map(|range| &lines[range.clone()]) {
        let (_, line) = line;
        changed.push(LineChange::Added(format!("{}\n", line.trim_end_matches(['\r', '\n']))));
    }
    if !moved.is_empty() || (begin > 0 && !lines[begin - 1].1.trim().is_empty()) {
        changed.push(LineChange::Added("\n".into()));
    }
    changed.push(LineChange::Added(format!("[accounts.{}]\n", AccountName::flat())));
    if !parsed.contains_key("token_file") {
        changed.push(LineChange::Added(token_file_line.to_owned()));
        changed.push(LineChange::Added("\n".into()));
    }
    for (index, (_, line)) in lines.iter().enumerate().skip(begin) {
        if moved.iter().any(|range| range.contains(&index)) {
            changed.push(LineChange::Removed(line));
        } else if is_account_header(index) {
            let brackets = line.len() - line.trim_start().trim_start_matches('[').trim_start().len();
            let (brackets, name) = line.split_at(brackets);
            changed.push(LineChange::Removed(line));
            changed.push(LineChange::Added(format!("{brackets}accounts.{}.{name}", AccountName::flat())));
        } else {
            changed.push(LineChange::Kept(line));
        }
    }
    changed
}

/// Where values are written behind a `=`; what looks like a header in there is none.
fn find_literals(text: &str, table: &DeTable<'_>, literals: &mut Vec<Range<usize>>) {
    for value in table.values() {
        find_literal(text, value, literals);
    }
}

fn find_literal(text: &str, value: &Spanned<DeValue<'_>>, literals: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        _ if is_literal(text, value) => literals.push(value.span()),
        DeValue::Table(table) => find_literals(text, table, literals),
        DeValue::Array(items) => items.iter().for_each(|item| find_literal(text, item, literals)),
        _ => {}
    }
}

fn is_literal(text: &str, value: &Spanned<DeValue<'_>>) -> bool {
    let before = text.get(..value.span().start).unwrap_or_default();
    before.trim_end_matches([' ', '\t']).ends_with('=')
}

#[cfg(test)]
mod tests {
    use crate::config::addition::*;

    const TABLE: &str =
        "[accounts.mail]\nissuer = \"https://login.example\"\nclient_id = \"m\"\ntoken_file = \"/m\"\n";

    fn environment() -> Environment {
        Environment {
            home: Some("/home/a".into()),
            config_home: Some("/home/a/.config".into()),
            state_home: Some("/state".into()),
            ..Environment::default()
        }
    }

    fn add(text: &str) -> Result<(String, Settings), AdditionError> {
        let flat = "token_file = \"~/.config/zerogravity/token\"\n";
        let after = Addition::new(text, TABLE, flat)?.text();
        let settings = prove(text, &after, TABLE, Path::new("/home/a/.config/c.toml"), &environment())?;
        Ok((after.to_string(), settings))
    }

    #[test]
    fn a_flat_config_becomes_tables_and_keeps_every_line() {
        let (after, _) = add(r#"# Mine.

# The server.
provider = "google" # as ever
client_id = "id"
# The state is on the other disk.
state_dir = "/other"
client_secret = { file = "s" }
resource = [
    "https://a",
]

# What the server wants.
[extra_params]
a = """
[not.a.header]
"""
[[ push ]]
url = "http://localhost/"
[state_key]
file = "key"
"#)
        .unwrap();
        assert_eq!(
            after,
            r#"# Mine.

# The state is on the other disk.
state_dir = "/other"

[accounts.default]
token_file = "~/.config/zerogravity/token"

# The server.
provider = "google" # as ever
client_id = "id"
client_secret = { file = "s" }
resource = [
    "https://a",
]

# What the server wants.
[accounts.default.extra_params]
a = """
[not.a.header]
"""
[[ accounts.default.push ]]
url = "http://localhost/"
[state_key]
file = "key"

"#
            .to_owned()
                + TABLE
        );
    }

    #[test]
    fn a_config_with_tables_gets_one_more() {
        let text = "skew = \"5m\"\n[accounts.work]\nprovider = \"google\"\nclient_id = \"i\"\nclient_secret = \"s\"\ntoken_file = \"/w\"";
        let (after, settings) = add(text).unwrap();
        assert_eq!(after, format!("{text}\n\n{TABLE}"));
        let names: Vec<_> = settings.accounts.iter().map(|account| account.name.as_str()).collect();
        assert_eq!(names, ["work", "mail"]);
    }

    #[test]
    fn what_would_change_an_account_is_refused() {
        let inline =
            "accounts = { work = { provider = \"google\", client_id = \"i\", token_file = \"/w\" } }\n";
        assert!(matches!(add(inline), Err(AdditionError::Inline)));
        let dotted =
            "extra_params.a = \"b\"\nprovider = \"google\"\nclient_id = \"i\"\nclient_secret.file = \"s\"\n";
        assert!(add(dotted).is_ok());
    }

    #[test]
    fn other_settings_are_noticed() {
        let text = "provider = \"google\"\nclient_id = \"id\"\nclient_secret = \"s\"\n";
        let addition = Addition::new(text, TABLE, "token_file = \"/elsewhere\"\n").unwrap();
        let prove =
            |after: &str, alone: &str| prove(text, after, alone, Path::new("/c.toml"), &environment());
        let result = prove(&addition.text(), TABLE);
        assert!(matches!(result, Err(AdditionError::Changed(_))), "{result:?}");
        let addition = Addition::new(text, TABLE, "token_file = \"~/.config/zerogravity/token\"\n").unwrap();
        assert!(prove(&addition.text(), TABLE).is_ok());
        let result = prove(&addition.text(), &TABLE.replace("issuer", "token_endpoint"));
        assert!(matches!(result, Err(AdditionError::Changed(_))), "{result:?}");
    }
}
