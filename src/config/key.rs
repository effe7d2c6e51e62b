//! A config key: its name, its place, its type and its documentation. The keys themselves are in the table
//! of `keys.rs`.

/// One key of the config file.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    pub name: &'static str,
    pub place: Place,
    pub(super) group: Option<Group>,
    pub kind: Kind,
    /// For people. Where it is a value in plain text, it is the value that is used.
    pub default: &'static str,
    /// The purpose of the key, in one line.
    pub doc: &'static str,
    /// Valid TOML: what comes after `=`; in `FORMS` the whole secret.
    pub example: &'static str,
}

/// Where a key is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At the top only: it holds for the whole file.
    File,
    /// In an account; at the top it is the default of all accounts.
    Account,
    /// In an account, and never inherited: two accounts must not share it.
    Own,
}

/// Keys that an account has or inherits together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// The server: an account with an endpoint of its own must not send its secrets to another one.
    Server,
    /// The client: secrets and keys belong to its client_id.
    Client,
    /// The rest of what an account with `from` has from the account with the login.
    Login,
}

/// A table of keys in an account.
#[derive(Debug, PartialEq, Eq)]
pub struct KeyTable {
    pub name: &'static str,
    /// The form of the value.
    form: &'static str,
    pub keys: &'static [Key],
}

impl KeyTable {
    pub(super) const fn new(name: &'static str, form: &'static str, keys: &'static [Key]) -> Self {
        Self { name, form, keys }
    }
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Path,
    Url,
    Duration,
    Bool,
    Secret,
    /// Text that may also come from where secrets come from.
    TextSource,
    /// The same of a URL.
    UrlSource,
    /// A text, or tables of accounts.
    Audience,
    Principal,
    List,
    Body,
    Params,
    Secrets,
    Command,
    Table(&'static KeyTable),
    /// An array of them.
    Tables(&'static KeyTable),
}

impl Kind {
    /// The form of a value, for error messages and the manual page.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Text | Self::Body => "a string",
            Self::Path => "a path in quotes",
            Self::Url => "a URL in quotes",
            Self::Duration => "a duration in quotes",
            Self::Bool => "true or false",
            Self::Secret | Self::TextSource | Self::UrlSource => {
                "a string or one of { file = \"…\" }, { env = \"…\" }, { command = [\"…\"] }, { credential = \"…\" }, { sealed = \"…\" }"
            }
            Self::Audience => "a string, or a table for each audience: [accounts.NAME.audience.OTHER]",
            Self::Principal => "a name in quotes or a number",
            Self::List => "a string or an array of strings",
            Self::Params => "a table of strings",
            Self::Secrets => "a table of secrets, each a string or a table such as { env = \"…\" }",
            Self::Command => "an array of strings, the program and its arguments",
            Self::Table(table) | Self::Tables(table) => table.form,
        }
    }

    /// The table that a value is, or a list of.
    pub(super) fn table(self) -> Option<&'static KeyTable> {
        match self {
            Self::Table(table) | Self::Tables(table) => Some(table),
            _ => None,
        }
    }

    /// Whether an error may show the value. Parameters that the program does not know may be
    /// anything, an assertion for instance, and so may the arguments of other programs.
    pub fn may_be_shown(self) -> bool {
        !matches!(
            self,
            Self::Secret
                | Self::Body
                | Self::Params
                | Self::Secrets
                | Self::Command
                | Self::Table(_)
                | Self::Tables(_)
        )
    }
}
