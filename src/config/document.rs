//! The parsed text: as serde reads it, every value with its place and none checked yet; and, for
//! errors only, the place of every key, and which text may be shown. Serde's own messages quote
//! values, so none of them reaches an error.

use std::ops::Range;

use serde::Deserialize;
use serde::de::Error as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error, ValueDeserializer};

use crate::config::key::KeyTable;
use crate::config::keys;
use crate::config::keys::{
    AccountKeys, FORMS, KEYS, Key, Kind, Place, RawAccount, RawAccounts, RawAudience, RawTable,
};
use crate::config::problem::ConfigProblem;
use crate::config::raw_values::Value;
use crate::config::spelling;
use crate::config::values::is_pasted;

/// The whole file.
pub(super) struct RawFile {
    /// The keys of the file, and of the flat account or the defaults of all accounts.
    pub(super) top: Box<RawAccount>,
    /// In file order; `None` if the file is flat.
    pub(super) accounts: Option<Vec<RawEntry>>,
}

/// An account, as its table has it.
pub(super) struct RawEntry {
    pub(super) name: Spanned<String>,
    pub(super) keys: AccountKeys,
    /// The key by which it names the account with the login, if it has none of its own.
    pub(super) way: &'static str,
}

impl RawEntry {
    /// The account, without its keys from now on.
    pub(super) fn take(&mut self) -> Self {
        let none = AccountKeys::Simple { refresh_token: None, token_file: None };
        Self { name: self.name.clone(), keys: std::mem::replace(&mut self.keys, none), way: self.way }
    }
}

impl RawFile {
    /// Takes the table apart by hand: `serde(flatten)` would lose the spans.
    pub(super) fn from_table(mut table: Spanned<DeTable<'_>>) -> Result<Self, Error> {
        let accounts = table.get_mut().remove("accounts");
        let accounts = accounts
            .map(|accounts| RawAccounts::deserialize(ValueDeserializer::from(accounts)))
            .transpose()?;
        let accounts = accounts.map(|accounts| {
            let mut accounts: Vec<_> =
                accounts.into_iter().flat_map(|(name, raw)| entries(name, raw)).collect();
            accounts.sort_by_key(|entry| entry.name.span().start);
            accounts
        });
        let top = Box::<RawAccount>::deserialize(toml::Deserializer::from(table))?;
        if let Some(accounts) = &accounts
            && (top.has(Place::Own) || accounts.iter().any(|entry| entry.keys.has(Place::File)))
        {
            // The map says which one.
            return Err(Error::custom("misplaced"));
        }
        Ok(Self { top, accounts })
    }
}

/// A text is parsed in parts of at least this length: some thirty accounts.
const PART: usize = 4096;

/// Parses a long text account by account: the parser's lists of the whole text take ten times its length, and
/// the memory is not given back. `None` for a text without many accounts, and for one that must be parsed as a
/// whole: with an error, or with parts that may depend on each other. The spans are those in the part.
pub(super) fn in_parts(text: &str) -> Option<RawFile> {
    let parse = |part| {
        let (table, errors) = DeTable::parse_recoverable(part);
        if errors.is_empty() { RawFile::from_table(table).ok() } else { None }
    };
    let mut parts = parts(text)?.into_iter();
    let mut file = parse(parts.next()?)?;
    if file.accounts.is_some() || file.top.has(Place::Own) {
        return None;
    }
    let accounts = file.accounts.insert(Vec::new());
    for part in parts {
        accounts.append(&mut parse(part)?.accounts?);
    }
    Some(file)
}

/// The first part ends before the first account, and each other one has some accounts. A part ends before the
/// header of another account. Such a header may be the text of a string: then the part before it has a string
/// without an end, which is an error.
fn parts(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut at, mut account) = (Vec::new(), 0, 0, None);
    for line in text.split_inclusive('\n') {
        let header = line.trim_ascii_start();
        if header.starts_with('[') {
            let name = header.strip_prefix("[[accounts.").or_else(|| header.strip_prefix("[accounts."));
            let name = name.and_then(|name| name.split(['.', ']']).next());
            if account.is_some() && name.is_none() {
                return None;
            }
            let is_first = account.is_none() && name.is_some();
            if is_first || (name != account && at - start >= PART) {
                parts.push(&text[start..at]);
                start = at;
            }
            account = name;
        }
        at += line.len();
    }
    parts.push(&text[start..]);
    (parts.len() > 2).then_some(parts)
}

/// The key of an account in an `audience` that names a login as well.
pub(super) const FROM_IN_AUDIENCE: &str = "audience.from";

/// The account, and those in its `audience`, which use its login.
fn entries(name: Spanned<String>, mut keys: AccountKeys) -> Vec<RawEntry> {
    let audience = match &mut keys {
        AccountKeys::Any(raw) => {
            raw.audience.take_if(|audience| matches!(audience.get_ref(), RawAudience::Other(_)))
        }
        AccountKeys::Simple { .. } => None,
    };
    let login = name.clone();
    let mut entries = vec![RawEntry { name, keys, way: "from" }];
    if let Some(RawAudience::Other(users)) = audience.map(Value::into_inner) {
        entries.extend(users.into_iter().map(|(user, keys)| {
            let mut raw = keys.all();
            let name = format!("{}.{}", login.get_ref(), user.get_ref());
            let way = if raw.from.is_some() { FROM_IN_AUDIENCE } else { "audience" };
            raw.from.get_or_insert_with(|| Value::new(user.span(), login.get_ref().clone()));
            RawEntry { name: Spanned::new(user.span(), name), keys: AccountKeys::Any(raw), way }
        }));
    }
    entries
}

/// Every key of the text.
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
    /// The type of the value, for messages.
    found: &'static str,
    rule: Rule,
}

/// The kind of a key.
#[derive(Clone, Copy)]
enum Rule {
    Key(&'static Key),
    Form(&'static Key),
    Accounts,
    Account,
    Param,
    SecretParam,
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
    Secrets,
    Table(&'static KeyTable),
    Unknown,
}

impl TableLevel {
    /// The keys that such a table may have, where they are known.
    fn keys(self) -> &'static [Key] {
        match self {
            Self::Top | Self::Account => KEYS,
            Self::Secret => FORMS,
            Self::Table(table) => table.keys,
            Self::Accounts | Self::Params | Self::Secrets | Self::Unknown => &[],
        }
    }

    fn rule(self, name: &str) -> Rule {
        let key = self.keys().iter().find(|key| key.name == name);
        match (self, key) {
            (Self::Top, _) if name == "accounts" => Rule::Accounts,
            (Self::Accounts, _) => Rule::Account,
            (Self::Params, _) => Rule::Param,
            (Self::Secrets, _) => Rule::SecretParam,
            (Self::Account, Some(Key { place: Place::File, .. })) | (_, None) => Rule::Unknown(self),
            (Self::Secret, Some(form)) => Rule::Form(form),
            (_, Some(key)) => Rule::Key(key),
        }
    }
}

impl Rule {
    /// The level of the table that this key holds.
    fn below(self) -> TableLevel {
        match self {
            Self::Accounts => TableLevel::Accounts,
            Self::Account => TableLevel::Account,
            Self::SecretParam => TableLevel::Secret,
            Self::Key(key) => match key.kind {
                Kind::Audience => TableLevel::Accounts,
                Kind::Secret | Kind::TextSource | Kind::UrlSource => TableLevel::Secret,
                Kind::Params => TableLevel::Params,
                Kind::Secrets => TableLevel::Secrets,
                kind => kind.table().map_or(TableLevel::Unknown, TableLevel::Table),
            },
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
                Self::Key(key) if matches!(key.kind, Kind::Url | Kind::UrlSource) => {
                    value.as_str().is_some_and(|url| !url.contains(['@', '?']))
                }
                Self::Key(key) => key.kind.may_be_shown(),
                // A command's arguments may be anything; and of a name, only what is one.
                Self::Form(form) => form.kind.may_be_shown() && !value.as_str().is_some_and(is_pasted),
                _ => false,
            }
    }

    /// The type of the value, and a hint.
    fn expects(self) -> (&'static str, String) {
        match self {
            Self::Key(key) => (key.kind.describe(), format!("for example: {} = {}", key.name, key.example)),
            Self::Form(form) => (form.kind.describe(), format!("for example: {}", form.example)),
            Self::Accounts | Self::Account => {
                ("a table", "an account is written as [accounts.NAME]".to_owned())
            }
            Self::SecretParam => (Kind::Secret.describe(), "write it in double quotes".to_owned()),
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
            match value.get_ref() {
                DeValue::Table(inner) => self.walk(inner, rule.below(), &path),
                DeValue::Array(items) if matches!(rule, Rule::Key(Key { kind: Kind::Tables(_), .. })) => {
                    for item in items {
                        let DeValue::Table(inner) = item.get_ref() else {
                            self.hidden.push(item.span());
                            continue;
                        };
                        self.walk(inner, rule.below(), &path);
                        let (path, name, key, value) = (path.clone(), name.clone(), key.span(), item.span());
                        self.entries.push(Entry { path, name, key, value, found: describe(item), rule });
                    }
                }
                value_ if rule.may_show(value_) => self.visible.push(value.span()),
                _ => self.hidden.push(value.span()),
            }
            let (key, value, found) = (key.span(), value.span(), describe(value));
            self.entries.push(Entry { path, name, key, value, found, rule });
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
        let names = || level.keys().iter().map(|key| key.name);
        let accounts = (level == TableLevel::Top).then_some("accounts");
        let hint = if level == TableLevel::Account && keys::find(&entry.name).is_some() {
            "it is for the whole file: move it above the first [accounts.NAME]".to_owned()
        } else if let Some(name) = did_you_mean(&entry.name, names().chain(accounts)) {
            format!("did you mean `{name}`?")
        } else {
            let names = names().collect::<Vec<_>>().join(", ");
            match level {
                TableLevel::Secret => format!("a secret is one of {names}"),
                TableLevel::Table(table) => format!("known keys of {}: {names}", table.name),
                _ if entry.found == "a table" => "an account is written as [accounts.NAME]".to_owned(),
                _ => format!("known keys: {names}"),
            }
        };
        Some(ConfigProblem::new(entry.key.clone(), format!("unknown key `{name}`"), hint))
    }

    /// A key at the top of a file with accounts that only an account can have.
    pub(super) fn shared(&self) -> Option<ConfigProblem> {
        let own = |entry: &&Entry| {
            entry.path == entry.name && matches!(entry.rule, Rule::Key(Key { place: Place::Own, .. }))
        };
        self.entries.iter().find(|entry| matches!(entry.rule, Rule::Accounts))?;
        let Entry { name, value, .. } =
            self.entries.iter().filter(own).min_by_key(|entry| entry.key.start)?;
        let message = format!("`{name}` at the top of a file with accounts");
        let hint = "two accounts cannot share it: move it into [accounts.NAME]";
        Some(ConfigProblem::new(value.clone(), message, hint))
    }

    /// Serde found a value of the wrong type at `span`.
    pub(super) fn wrong_type(&self, span: Range<usize>) -> ConfigProblem {
        let entry = self
            .entries
            .iter()
            .filter(|entry| entry.value.start <= span.start && span.end <= entry.value.end)
            .min_by_key(|entry| entry.value.len());
        let Some(entry) = entry else {
            return ConfigProblem::new(
                span,
                "a value of the wrong type",
                "`zg-tokend man config` describes each key",
            );
        };
        let (expected, hint) = entry.rule.expects();
        let mut message = format!("`{}` must be {expected}", entry.path.escape_debug());
        // An item of an array is not the array.
        if span == entry.value {
            message.push_str(", not ");
            message.push_str(entry.found);
        }
        ConfigProblem::new(span, message, hint)
    }
}

fn did_you_mean<'a>(word: &str, mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Names of other programs that are more like another key of ours.
    if matches!(word, "token_url" | "token_uri") && names.any(|name| name == "token_endpoint") {
        return Some("token_endpoint");
    }
    spelling::nearest(word, names)
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
