//! `token_format` and its like: the content of a file or message, with the token in it.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::clock::utc;
use crate::config::formats;
use crate::config::formats::{FORMATS, NameFault, NoIdToken};
use crate::secret::Secret;
use crate::template;

/// A template, parsed. The default is the bare access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFormat(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Value(TokenValue, Vec<Filter>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenValue {
    AccessToken,
    TokenType,
    IdToken,
    Scope,
    Account,
    ExpiresAt,
}

const PLACEHOLDERS: [(&str, TokenValue); 6] = [
    ("access_token", TokenValue::AccessToken),
    ("token_type", TokenValue::TokenType),
    ("id_token", TokenValue::IdToken),
    ("scope", TokenValue::Scope),
    ("account", TokenValue::Account),
    ("expires_at", TokenValue::ExpiresAt),
];

/// Values that a format could name, and that no reader gets.
const SECRETS: [&str; 2] = ["refresh_token", "client_secret"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    /// Of an instant: RFC 3339 in UTC.
    Rfc3339,
    /// Of an instant: milliseconds.
    Ms,
    /// Of an instant: the seconds until then.
    In,
    Base64,
    /// For JSON: in quotes, unless the place is in quotes already.
    Json {
        quoted: bool,
    },
    /// For a part of a URL (RFC 3986 section 2.1).
    Url,
    /// For HTTP Basic (RFC 7617): the base64 of the user, a colon and the value.
    Basic(String),
}

/// The fault of a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A name in braces that is no placeholder.
    #[error("has an unknown placeholder `{{{0}}}`")]
    Unknown(String),
    /// A name in braces of something that no reader gets.
    #[error("would give `{{{0}}}` to the program that reads it")]
    OtherSecret(String),
    #[error("has an unknown filter `|{0}`")]
    UnknownFilter(String),
    #[error("has a filter that does not fit: `{{{0}}}`")]
    Misplaced(String),
    /// `{` without `}`, or `}` without `{`.
    #[error("has an unmatched brace")]
    Unbalanced,
    /// A token file without the token.
    #[error("does not contain `{{access_token}}`")]
    NoToken,
    #[error(transparent)]
    Name(#[from] NameFault),
}

impl FormatError {
    pub fn hint(&self) -> String {
        let names = || FORMATS.iter().map(|format| format.name);
        match self {
            Self::UnknownFilter(_) | Self::Misplaced(_) => {
                "filters are |rfc3339, |ms and |in for expires_at, and |base64, |json, |url, |basic:USER"
                    .into()
            }
            Self::OtherSecret(_) => {
                "write {access_token}: a program that refreshes by itself needs a login of its own".into()
            }
            Self::NoToken => {
                format!(
                    "write {{access_token}} where the token belongs, or a format: {}",
                    names().collect::<Vec<_>>().join(", ")
                )
            }
            Self::Name(fault) => fault.hint(),
            Self::Unknown(_) | Self::Unbalanced => {
                let known: Vec<_> = PLACEHOLDERS.iter().map(|(name, _)| format!("{{{name}}}")).collect();
                format!("placeholders are {}; write {{{{ or }}}} for a brace", known.join(", "))
            }
        }
    }
}

/// The values of a format.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    pub access_token: &'a Secret,
    pub token_type: &'a str,
    pub id_token: Option<&'a Secret>,
    pub scope: &'a str,
    pub account: &'a str,
    /// Unix seconds.
    pub expires_at: i64,
    /// Unix seconds: when the text is written.
    pub now: i64,
}

impl Default for TokenFormat {
    fn default() -> Self {
        Self(vec![Piece::Value(TokenValue::AccessToken, Vec::new())])
    }
}

impl std::str::FromStr for TokenFormat {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let named = if text.contains(['{', '}']) { None } else { formats::template(text).transpose()? };
        let text = named.as_deref().unwrap_or(text);
        let mut pieces = Vec::new();
        let mut quoted = false;
        for (literal, name) in template::pieces(text).map_err(|_| FormatError::Unbalanced)? {
            quoted ^= literal.replace("\\\"", "").matches('"').count() % 2 == 1;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal));
            }
            pieces.extend(name.map(|name| placeholder(name, quoted)).transpose()?);
        }
        let is_token =
            |piece: &Piece| matches!(piece, Piece::Value(TokenValue::AccessToken | TokenValue::IdToken, _));
        if !pieces.iter().any(is_token) {
            return Err(FormatError::NoToken);
        }
        Ok(Self(pieces))
    }
}

/// `name|filter|filter`.
fn placeholder(text: &str, quoted: bool) -> Result<Piece, FormatError> {
    let mut parts = text.split('|');
    let name = parts.next().unwrap_or_default();
    if SECRETS.contains(&name) {
        return Err(FormatError::OtherSecret(name.to_owned()));
    }
    let known = PLACEHOLDERS.iter().find(|(known, _)| *known == name);
    let (_, value) = known.ok_or_else(|| FormatError::Unknown(name.to_owned()))?;
    let mut filters: Vec<Filter> = Vec::new();
    for part in parts {
        let filter = filter(part, quoted)?;
        let is_of_instant = matches!(filter, Filter::Rfc3339 | Filter::Ms | Filter::In);
        if is_of_instant && (*value != TokenValue::ExpiresAt || !filters.is_empty()) {
            return Err(FormatError::Misplaced(text.to_owned()));
        }
        filters.push(filter);
    }
    Ok(Piece::Value(*value, filters))
}

fn filter(text: &str, quoted: bool) -> Result<Filter, FormatError> {
    Ok(match text.split_once(':').unwrap_or((text, "")) {
        ("rfc3339", "") => Filter::Rfc3339,
        ("ms", "") => Filter::Ms,
        ("in", "") => Filter::In,
        ("base64", "") => Filter::Base64,
        ("json", "") => Filter::Json { quoted: !quoted },
        ("url", "") => Filter::Url,
        ("basic", user) if !user.is_empty() => Filter::Basic(user.to_owned()),
        _ => return Err(FormatError::UnknownFilter(text.to_owned())),
    })
}

impl TokenFormat {
    pub fn render(&self, values: &Values<'_>) -> Result<Secret, NoIdToken> {
        self.write(values, false)
    }

    /// The same, with values escaped for JSON where the format has no filter for them.
    pub fn render_json(&self, values: &Values<'_>) -> Result<Secret, NoIdToken> {
        self.write(values, true)
    }

    fn write(&self, values: &Values<'_>, is_json: bool) -> Result<Secret, NoIdToken> {
        let parts = self.0.iter().map(|piece| match piece {
            Piece::Literal(text) => Ok(Zeroizing::new(text.clone())),
            Piece::Value(value, filters) => {
                let text = filtered(*value, filters, values)?;
                Ok(if is_json && filters.is_empty() { escaped(&text, false) } else { text })
            }
        });
        let parts: Vec<_> = parts.collect::<Result<_, _>>()?;
        // Room for all of it at once: a string that grows leaves copies behind, unwiped.
        let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum());
        text.extend(parts.iter().map(|part| part.as_str()));
        Ok(Secret::new(text))
    }

    /// Whether the text depends on the instant when it is written.
    pub fn is_timed(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Value(_, filters) if filters.contains(&Filter::In)))
    }

    /// Whether the text has the ID token in it.
    pub fn needs_id_token(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Value(TokenValue::IdToken, _)))
    }

    /// The access token in a file of this format; `None` if the file has another one. Only where
    /// the token stands between fixed texts is it certain which part is the token.
    pub fn parse(&self, content: &str) -> Option<Secret> {
        let literal = |pieces: &[Piece]| match pieces {
            [] => Some(String::new()),
            [Piece::Literal(text)] => Some(text.clone()),
            _ => None,
        };
        let is_token = |piece: &Piece| matches!(piece, Piece::Value(TokenValue::AccessToken, filters) if filters.is_empty());
        let place = self.0.iter().position(is_token)?;
        let (before, after) = (literal(&self.0[..place])?, literal(&self.0[place + 1..])?);
        let token = content.strip_prefix(before.as_str())?.strip_suffix(after.as_str())?;
        (!token.is_empty()).then(|| Secret::new(token))
    }
}

fn filtered(
    value: TokenValue,
    filters: &[Filter],
    values: &Values<'_>,
) -> Result<Zeroizing<String>, NoIdToken> {
    let mut text = Zeroizing::new(match value {
        TokenValue::AccessToken => values.access_token.expose().to_owned(),
        TokenValue::TokenType => values.token_type.to_owned(),
        TokenValue::IdToken => values.id_token.ok_or(NoIdToken)?.expose().to_owned(),
        TokenValue::Scope => values.scope.to_owned(),
        TokenValue::Account => values.account.to_owned(),
        TokenValue::ExpiresAt => values.expires_at.to_string(),
    });
    for filter in filters {
        text = match filter {
            Filter::Rfc3339 => Zeroizing::new(utc(values.expires_at)),
            Filter::Ms => Zeroizing::new(values.expires_at.saturating_mul(1000).to_string()),
            Filter::In => Zeroizing::new(values.expires_at.saturating_sub(values.now).max(0).to_string()),
            Filter::Base64 => Zeroizing::new(STANDARD.encode(text.as_bytes())),
            Filter::Json { quoted } => escaped(&text, *quoted),
            Filter::Url => encoded(&text),
            Filter::Basic(user) => {
                let pair = Zeroizing::new([user, ":", text.as_str()].concat());
                Zeroizing::new(STANDARD.encode(pair.as_bytes()))
            }
        };
    }
    Ok(text)
}

/// Escaped for a JSON string (RFC 8259 section 7).
fn escaped(text: &str, quoted: bool) -> Zeroizing<String> {
    // Allocated at once: a string that grows leaves unwiped copies behind.
    let mut json = Zeroizing::new(String::with_capacity(text.len() * 6 + 2));
    json.extend(quoted.then_some('"'));
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json.extend(quoted.then_some('"'));
    json
}

/// All but the unreserved characters in percent-encoding (RFC 3986 section 2).
fn encoded(text: &str) -> Zeroizing<String> {
    let mut url = Zeroizing::new(String::with_capacity(text.len() * 3));
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use crate::config::formats::FORMATS;
    use crate::config::token_format::*;

    fn rendered(template: &str, token: &str) -> String {
        let id_token = Secret::new("a.b.c");
        let values = Values {
            access_token: &Secret::new(token),
            token_type: "Bearer",
            id_token: Some(&id_token),
            scope: "mail",
            account: "work",
            expires_at: 1700,
            now: 1600,
        };
        template.parse::<TokenFormat>().unwrap().render(&values).unwrap().expose().to_owned()
    }

    #[test]
    fn finds_the_token_between_fixed_texts() {
        for (template, content, expected) in [
            ("{access_token}", "tok", Some("tok")),
            ("{access_token}\n", "tok\n", Some("tok")),
            ("Authorization: Bearer {access_token}", "Authorization: Bearer tok", Some("tok")),
            ("Authorization: Bearer {access_token}", "something else", None),
            ("{access_token} {expires_at}", "tok 1700", None),
            ("{access_token|base64}", "dG9r", None),
            ("{id_token}", "a.b.c", None),
            ("{access_token}", "", None),
        ] {
            let format: TokenFormat = template.parse().unwrap();
            let parsed = format.parse(content);
            assert_eq!(parsed.as_ref().map(Secret::expose), expected, "{template}");
        }
    }

    #[test]
    fn renders_what_it_says() {
        for (template, expected) in [
            ("{access_token}", "tok"),
            ("{access_token}\n", "tok\n"),
            ("Authorization: {token_type} {access_token}", "Authorization: Bearer tok"),
            (r#"{{"token": "{access_token}", "exp": {expires_at}}}"#, r#"{"token": "tok", "exp": 1700}"#),
            ("{{{access_token}}}", "{tok}"),
            ("{access_token}{access_token}", "toktok"),
            ("{id_token} {scope} {account}", "a.b.c mail work"),
            ("{access_token|base64}", "dG9r"),
            ("{access_token|basic:me}", "bWU6dG9r"),
            (
                "{access_token} {expires_at|rfc3339} {expires_at|ms} {expires_at|in}",
                "tok 1970-01-01T00:28:20Z 1700000 100",
            ),
        ] {
            assert_eq!(rendered(template, "tok"), expected, "{template}");
        }
    }

    #[test]
    fn a_value_is_escaped_for_its_place() {
        for (template, expected) in [
            ("{access_token|json}", r#""a\"/ b""#),
            (r#""{access_token|json}""#, r#""a\"/ b""#),
            (
                r#"{{"a\"b": {access_token|json}, "t": "x {access_token|json}"}}"#,
                r#"{"a\"b": "a\"/ b", "t": "x a\"/ b"}"#,
            ),
            ("{access_token|url}", "a%22%2F%20b"),
            ("{access_token|url|json}", r#""a%22%2F%20b""#),
        ] {
            assert_eq!(rendered(template, "a\"/ b"), expected, "{template}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_mean() {
        for (template, error) in [
            ("", FormatError::NoToken),
            ("Bearer", FormatError::NoToken),
            ("{{access_token}}", FormatError::NoToken),
            ("{token_type}", FormatError::NoToken),
            ("{acess_token}", FormatError::Unknown("acess_token".into())),
            ("{refresh_token}", FormatError::OtherSecret("refresh_token".into())),
            ("{access_token", FormatError::Unbalanced),
            ("{access_token}}", FormatError::Unbalanced),
            ("{access_token} }", FormatError::Unbalanced),
            ("{ access_token }", FormatError::Unknown(" access_token ".into())),
            ("{access_token|b64}", FormatError::UnknownFilter("b64".into())),
            ("{access_token|basic:}", FormatError::UnknownFilter("basic:".into())),
            ("{access_token|ms}", FormatError::Misplaced("access_token|ms".into())),
            ("{access_token}{expires_at|json|ms}", FormatError::Misplaced("expires_at|json|ms".into())),
            ("netrc", NameFault::Missing("netrc", "[USER@]HOST").into()),
            ("bare:a", NameFault::Surplus("bare").into()),
            ("netrc:a b", NameFault::Forbidden("netrc", "[USER@]HOST").into()),
            ("docker:ftp://a", NameFault::Forbidden("docker", "[USER@]HOST[:PORT]").into()),
        ] {
            assert_eq!(template.parse::<TokenFormat>(), Err(error), "{template}");
        }
    }

    #[test]
    fn a_format_with_an_id_token_needs_one() {
        let format: TokenFormat = "{id_token}".parse().unwrap();
        let (access_token, scope) = (&Secret::new("t"), "");
        let values = Values {
            access_token,
            token_type: "",
            id_token: None,
            scope,
            account: "",
            expires_at: 0,
            now: 0,
        };
        assert_eq!(format.render(&values), Err(NoIdToken));
    }

    #[test]
    fn every_named_format_is_a_template_with_the_token() {
        for format in FORMATS {
            let argument = match format.argument {
                "" => "",
                "REGISTRY" => ":mine",
                _ => ":me@a.example:8080/x/",
            };
            let text = rendered(&format!("{}{argument}", format.name), "to/k");
            let tokens = ["to/k", "to%2Fk", "bWU6dG8vaw=="];
            assert!(tokens.iter().any(|token| text.contains(token)), "{text}");
            assert!(!text.contains(['@']) || text.contains("me:to%2Fk@a.example"), "{text}");
        }
    }
}
