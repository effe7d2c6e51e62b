//! Finds the secrets that stand in the text of a config, and those that it takes from sealed files.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::key::KeyTable;
use crate::config::keys::{KEYS, Key, Kind};
use crate::config::settings::PLAIN_HEADERS;
use crate::secret::Secret;

/// A secret in the text.
#[derive(Debug, PartialEq, Eq)]
pub struct PlacedSecret {
    /// The account; `None` above the tables, where it is for all accounts.
    pub account: Option<String>,
    /// The key, with the name in its table: `push.headers.x-key`.
    pub key: String,
    /// The place of the value in the text.
    pub span: Range<usize>,
    pub form: SecretForm,
}

#[derive(Debug, PartialEq, Eq)]
pub enum SecretForm {
    /// It stands there.
    Inline(Secret),
    /// The text names a sealed file, as it is written there. False: not as one inline table.
    Sealed { file: String, is_inline_table: bool },
}

/// A word in the name of a parameter that is a secret. Most parameters are none.
const SECRET_WORDS: [&str; 6] = ["secret", "password", "token", "assertion", "api_key", "apikey"];

/// The secrets of a valid config, in the order of the text. `flat` is the name of the account of a config
/// without tables.
pub fn secrets(text: &str, flat: &str) -> Vec<PlacedSecret> {
    let (table, _) = DeTable::parse_recoverable(text);
    let table = table.get_ref();
    let mut found = SecretFinder { text, secrets: Vec::new() };
    let accounts = table.get("accounts").map(Spanned::get_ref);
    found.walk(table, KEYS, "", accounts.is_none().then_some(flat));
    if let Some(DeValue::Table(accounts)) = accounts {
        for (name, account) in accounts {
            if let DeValue::Table(account) = account.get_ref() {
                found.walk(account, KEYS, "", Some(name.get_ref()));
            }
        }
    }
    found.secrets.sort_by_key(|secret| secret.span.start);
    found.secrets
}

struct SecretFinder<'a> {
    text: &'a str,
    secrets: Vec<PlacedSecret>,
}

impl SecretFinder<'_> {
    fn walk(&mut self, table: &DeTable<'_>, keys: &[Key], prefix: &str, account: Option<&str>) {
        for (name, value) in table {
            let Some(key) = keys.iter().find(|key| key.name == name.get_ref().as_ref()) else { continue };
            let path = format!("{prefix}{}", key.name);
            match (key.kind, value.get_ref()) {
                (Kind::Secret, _) => self.take(path, value, account, true),
                (Kind::Secrets, DeValue::Table(entries)) => {
                    let is_params = key.name == "extra_params";
                    for (name, value) in entries {
                        let lower = name.get_ref().to_ascii_lowercase();
                        let is_secret = if is_params {
                            SECRET_WORDS.iter().any(|word| lower.contains(word))
                        } else {
                            !PLAIN_HEADERS.contains(&lower.as_str())
                        };
                        let name = if is_params { name.get_ref() } else { lower.as_str() };
                        self.take(format!("{path}.{name}"), value, account, is_secret);
                    }
                }
                (Kind::UrlSource, url) => {
                    let has_login = url.as_str().is_some_and(|url| url.contains('@'));
                    self.take(path, value, account, has_login && key.name == "proxy");
                }
                (Kind::Audience, DeValue::Table(users)) => {
                    for (user, table) in users {
                        if let (DeValue::Table(table), Some(login)) = (table.get_ref(), account) {
                            let user = format!("{login}.{}", user.get_ref());
                            self.walk(table, KEYS, "", Some(&user));
                        }
                    }
                }
                (Kind::Table(keys), table) => self.walk_table(keys, table, account),
                (Kind::Tables(keys), DeValue::Array(tables)) => {
                    tables.iter().for_each(|table| self.walk_table(keys, table.get_ref(), account));
                }
                _ => {}
            }
        }
    }

    fn walk_table(
        &mut self,
        KeyTable { name, keys, .. }: &KeyTable,
        table: &DeValue<'_>,
        account: Option<&str>,
    ) {
        if let DeValue::Table(table) = table {
            self.walk(table, keys, &format!("{name}."), account);
        }
    }

    fn take(&mut self, key: String, value: &Spanned<DeValue<'_>>, account: Option<&str>, is_secret: bool) {
        let form = match value.get_ref() {
            DeValue::String(text) if is_secret && !text.trim().is_empty() => {
                SecretForm::Inline(Secret::new(text.as_ref()))
            }
            DeValue::Table(forms) => {
                let file = forms.get("sealed").and_then(|file| file.get_ref().as_str());
                let Some(file) = file else { return };
                let is_inline_table = self.text[value.span()].starts_with('{');
                SecretForm::Sealed { file: file.to_owned(), is_inline_table }
            }
            _ => return,
        };
        let account = account.map(str::to_owned);
        self.secrets.push(PlacedSecret { account, key, span: value.span(), form });
    }
}

#[cfg(test)]
mod tests {
    use crate::config::inline::*;

    fn seen(text: &str) -> Vec<(Option<String>, String, String)> {
        let secrets = secrets(text, "default").into_iter();
        secrets.map(|secret| (secret.account, secret.key, text[secret.span].to_owned())).collect()
    }

    fn of(account: Option<&str>, key: &str, value: &str) -> (Option<String>, String, String) {
        (account.map(str::to_owned), key.to_owned(), value.to_owned())
    }

    #[test]
    fn secrets_are_found_wherever_they_stand() {
        let text = r#"
client_id = "id"
client_secret = "s3cret" # mine
private_key = """
-----BEGIN
"""
request_headers = { User-Agent = "me", "X-Key" = 'k', other = { env = "E" } }
extra_params.tenant = "t"
extra_params.Client_Password = "p"
proxy = "http://u:pw@proxy:3128"
issuer = "https://as@example/"
fleet = { url = "postgresql://u:pw@db/zg" }
[accounts.a]
refresh_token = "rt"
client_secret = { sealed = "a.sealed" }
[[accounts.a.push]]
url = "https://x/"
api_key = "ak"
headers = { content-type = "text/plain", x-h = "h" }
[accounts.a.audience.u]
proxy = "http://proxy:3128"
[[accounts.a.audience.u.push]]
api_key = "uk"
[accounts.b]
refresh_token = { file = "f" }
client_secret.sealed = "b.sealed"
"#;
        let a = Some("a");
        assert_eq!(
            seen(text),
            [
                of(None, "client_secret", "\"s3cret\""),
                of(None, "private_key", "\"\"\"\n-----BEGIN\n\"\"\""),
                of(None, "request_headers.x-key", "'k'"),
                of(None, "extra_params.Client_Password", "\"p\""),
                of(None, "proxy", "\"http://u:pw@proxy:3128\""),
                of(None, "fleet.url", "\"postgresql://u:pw@db/zg\""),
                of(a, "refresh_token", "\"rt\""),
                of(a, "client_secret", "{ sealed = \"a.sealed\" }"),
                of(a, "push.api_key", "\"ak\""),
                of(a, "push.headers.x-h", "\"h\""),
                of(Some("a.u"), "push.api_key", "\"uk\""),
                of(Some("b"), "client_secret", seen(text).pop().unwrap().2.as_str()),
            ]
        );
        let forms = secrets(text, "default").into_iter().filter_map(|secret| match secret.form {
            SecretForm::Sealed { file, is_inline_table } => Some((file, is_inline_table)),
            SecretForm::Inline(_) => None,
        });
        assert_eq!(forms.collect::<Vec<_>>(), [("a.sealed".into(), true), ("b.sealed".into(), false)]);
    }

    #[test]
    fn a_flat_config_has_one_account() {
        assert_eq!(
            seen("refresh_token = \"rt\"\nclient_secret = \"\"\n"),
            [of(Some("default"), "refresh_token", "\"rt\"")]
        );
    }
}
