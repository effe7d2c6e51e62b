//! The parsed text before serde: which key stands where, whether it is known, and what of it
//! may be shown. Serde's own messages quote values, so none of them reaches an error.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::keys;
use crate::config::keys::{FORMS, KEYS, Key, KeyForm, Kind, PROBE_KEYS, PUSH_KEYS, Place};
use crate::config::problem::{ConfigProblem, Flaw};
use crate::config::values::is_pasted;

/// What is known of every key in the text.
#[derive(Default)]
pub(super) struct Map {
    entries: Vec<Entry>,
    /// Text that an error may show: keys, and values that are no secrets.
    pub(super) visible: Vec<Range<usize>>,
    /// Values that it may not.
    pub(super) hidden: Vec<Range<usize>>,
}

struct Entry {
    /// With the tables it is in: `accounts.work.timeout`.
    path: String,
    name: String,
    key: Range<usize>,
    value: Range<usize>,
    /// What the value is, as an error says it.
    found: &'static str,
    /// The key that the value, a table, must have and has not.
    lacks: Option<&'static str>,
    rule: Rule,
}

/// What the key at hand is.
#[derive(Clone, Copy)]
enum Rule {
    Key(&'static Key),
    Form(&'static KeyForm),
    Accounts,
    Account,
    Param,
    Unknown(TableLevel),
}

/// The table that a key stands in.
#[derive(Clone, Copy, PartialEq)]
enum TableLevel {
    Top,
    Accounts,
    Account,
    Secret,
    Params,
    Push,
    Probe,
    Unknown,
}

impl TableLevel {
    fn rule(self, name: &str) -> Rule {
        let known = match self {
            Self::Top if name == "accounts" => Some(Rule::Accounts),
            Self::Top => keys::find(name).map(Rule::Key),
            Self::Accounts => Some(Rule::Account),
            Self::Account => keys::find(name).filter(|key| key.place != Place::File).map(Rule::Key),
            Self::Secret => FORMS.iter().find(|form| form.name == name).map(Rule::Form),
            Self::Params => Some(Rule::Param),
            Self::Push => PUSH_KEYS.iter().find(|key| key.name == name).map(Rule::Key),
            Self::Probe => PROBE_KEYS.iter().find(|key| key.name == name).map(Rule::Key),
            Self::Unknown => None,
        };
        known.unwrap_or(Rule::Unknown(self))
    }
}

impl Rule {
    /// The level of the table that this key holds.
    fn below(self) -> TableLevel {
        match self {
            Self::Accounts => TableLevel::Accounts,
            Self::Account => TableLevel::Account,
            Self::Key(key) if key.kind == Kind::Secret => TableLevel::Secret,
            Self::Key(key) if key.kind == Kind::Params => TableLevel::Params,
            Self::Key(key) if key.kind == Kind::Pushes => TableLevel::Push,
            Self::Key(key) if key.kind == Kind::Probe => TableLevel::Probe,
            _ => TableLevel::Unknown,
        }
    }

    fn may_show(self, value: &DeValue<'_>) -> bool {
        let plain = match value {
            DeValue::Array(array) => {
                array.iter().all(|item| !item.get_ref().is_array() && !item.get_ref().is_table())
            }
            _ => true,
        };
        plain
            && match self {
                // A URL with an @ may carry a password, and a query may be a key.
                Self::Key(key) if key.kind == Kind::Url => {
                    value.as_str().is_some_and(|url| !url.contains(['@', '?']))
                }
                Self::Key(key) => key.kind.may_be_shown(),
                // A command's arguments may be anything; and of a name, only what is one.
                Self::Form(form) => form.name != "command" && !value.as_str().is_some_and(is_pasted),
                _ => false,
            }
    }

    /// What the value must be, and an example of the whole line.
    fn expects(self) -> (&'static str, String) {
        match self {
            Self::Key(key) => (key.kind.describe(), format!("for example: {} = {}", key.name, key.example)),
            Self::Form(form) => (form.describe, format!("for example: {}", form.example)),
            Self::Accounts | Self::Account => {
                ("a table", "an account is written as [accounts.NAME]".to_owned())
            }
            Self::Param | Self::Unknown(_) => ("a string", "write it in double quotes".to_owned()),
        }
    }
}

impl Map {
    /// Looks at every key of the text.
    pub(super) fn of(table: &DeTable<'_>) -> Self {
        let mut map = Self::default();
        map.walk(table, TableLevel::Top, "");
        map
    }

    fn walk(&mut self, table: &DeTable<'_>, level: TableLevel, prefix: &str) {
        for (key, value) in table {
            let name = key.get_ref().to_string();
            let rule = level.rule(&name);
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            self.visible.push(key.span());
            let mut lacks = None;
            match value.get_ref() {
                DeValue::Table(inner) => {
                    if rule.below() == TableLevel::Probe {
                        lacks = lacks_url(inner);
                    }
                    self.walk(inner, rule.below(), &path);
                }
                DeValue::Array(items) if rule.below() == TableLevel::Push => {
                    for item in items {
                        let DeValue::Table(inner) = item.get_ref() else {
                            self.hidden.push(item.span());
                            continue;
                        };
                        self.walk(inner, TableLevel::Push, &path);
                        let (path, name, key, value) = (path.clone(), name.clone(), key.span(), item.span());
                        let (found, lacks) = (describe(item), lacks_url(inner));
                        self.entries.push(Entry { path, name, key, value, found, lacks, rule });
                    }
                }
                value_ if rule.may_show(value_) => self.visible.push(value.span()),
                _ => self.hidden.push(value.span()),
            }
            let (key, value, found) = (key.span(), value.span(), describe(value));
            self.entries.push(Entry { path, name, key, value, found, lacks, rule });
        }
    }

    /// The first key in the text that is not known where it stands.
    pub(super) fn unknown(&self) -> Option<ConfigProblem> {
        let unknown =
            |entry: &&Entry| matches!(entry.rule, Rule::Unknown(level) if level != TableLevel::Unknown);
        let entry = self.entries.iter().filter(unknown).min_by_key(|entry| entry.key.start)?;
        let Rule::Unknown(level) = entry.rule else { return None };
        // A quoted key may be any text, so it is shown without its control characters.
        let name = entry.name.escape_debug();
        let problem = Flaw::new(entry.key.clone(), &entry.path, format!("unknown key `{name}`"));
        let hint = match level {
            TableLevel::Secret => {
                let forms: Vec<_> = FORMS.iter().map(|form| form.name).collect();
                did_you_mean(&entry.name, forms.iter().copied())
                    .unwrap_or_else(|| format!("a secret is one of {}", forms.join(", ")))
            }
            TableLevel::Push => did_you_mean_of("push", PUSH_KEYS, &entry.name),
            TableLevel::Probe => did_you_mean_of("probe", PROBE_KEYS, &entry.name),
            TableLevel::Account if keys::find(&entry.name).is_some() => {
                "it holds for the whole file: move it above the first [accounts.NAME]".to_owned()
            }
            _ => {
                let names = || KEYS.iter().map(|key| key.name);
                let tables = (level == TableLevel::Top).then_some("accounts");
                did_you_mean(&entry.name, names().chain(tables)).unwrap_or_else(|| {
                    if entry.found == "a table" {
                        "an account is written as [accounts.NAME]".to_owned()
                    } else {
                        format!("known keys: {}", names().collect::<Vec<_>>().join(", "))
                    }
                })
            }
        };
        Some(problem.hint(hint))
    }

    /// Serde found a value of the wrong type at `span`.
    pub(super) fn wrong_type(&self, span: Range<usize>) -> ConfigProblem {
        let entry = self
            .entries
            .iter()
            .filter(|entry| entry.value.start <= span.start && span.end <= entry.value.end)
            .min_by_key(|entry| entry.value.len());
        let Some(entry) = entry else {
            return Flaw::new(span, "", "a value of the wrong type".to_owned())
                .hint("`zg-tokend man config` tells what each key must be");
        };
        let (expected, hint) = entry.rule.expects();
        if let Some(missing) = entry.lacks.filter(|_| span == entry.value) {
            let message = format!("missing key `{}.{missing}`", entry.path.escape_debug());
            return Flaw::new(span, &entry.path, message).hint(hint);
        }
        let mut message = format!("`{}` must be {expected}", entry.path.escape_debug());
        // An item of an array is not the array.
        if span == entry.value {
            message.push_str(", not ");
            message.push_str(entry.found);
        }
        Flaw::new(span, &entry.path, message).hint(hint)
    }
}

fn did_you_mean<'a>(word: &str, mut names: impl Iterator<Item = &'a str>) -> Option<String> {
    // What other programs call it is like another key of ours.
    if matches!(word, "token_url" | "token_uri") && names.any(|name| name == "token_endpoint") {
        return Some("did you mean `token_endpoint`?".to_owned());
    }
    keys::nearest(word, names).map(|name| format!("did you mean `{name}`?"))
}

/// Of the table that `key` holds.
fn did_you_mean_of(key: &str, keys: &[Key], word: &str) -> String {
    let names = || keys.iter().map(|key| key.name);
    did_you_mean(word, names())
        .unwrap_or_else(|| format!("known keys of {key}: {}", names().collect::<Vec<_>>().join(", ")))
}

/// The one key that a table of `push` or `probe` must have; serde tells of it at the table's place.
fn lacks_url(table: &DeTable<'_>) -> Option<&'static str> {
    (!table.contains_key("url")).then_some("url")
}

fn describe(value: &Spanned<DeValue<'_>>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
