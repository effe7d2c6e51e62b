//! Where servers put the grant, the error code and the words: one tree, and one search in it.
//!
//! The tree is built by a visitor rather than as a `serde_json::Value`: texts go straight into
//! [`Secret`]s, what lies too deep is skipped without being built, and of a body that breaks off
//! what came before stays. Of duplicate keys the last wins, as in most parsers.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Nothing that matters lies deeper: the deepest seen is Apigee's `fault.detail.errorcode`.
const MAX_DEPTH: usize = 4;

/// So many elements of a list are kept; the first says it all.
const MAX_ELEMENTS: usize = 4;

/// Members that a success is nested in: Withings, TikTok, Feishu, Slack, and gateways.
const WRAPPERS: [&str; 8] =
    ["data", "body", "result", "authed_user", "response", "token", "tokens", "payload"];

/// Members that hold an error code, the most telling first.
const CODES: [&str; 12] = [
    "error",
    "errorType",
    "error_subtype",
    "suberror",
    "errorCode",
    "error_code",
    "errcode",
    "errorcode",
    "code",
    "status",
    "type",
    "id",
];

/// Members that hold words for people.
const WORDS: [&str; 22] = [
    "error_description",
    "errorDescription",
    "message",
    "msg",
    "errmsg",
    "error_message",
    "errorMessage",
    "errorSummary",
    "hint",
    "reason",
    "detail",
    "title",
    "faultstring",
    "sub_msg",
    "error_msg",
    "description",
    "error_reason",
    "long_message",
    "developer_message",
    "user_message",
    "err",
    "errors",
];

/// Objects that an error is nested in.
const ERROR_WRAPPERS: [&str; 8] = ["error", "errors", "fault", "detail", "data", "body", "result", "status"];

/// One value of a reply. A text may be a token, hence [`Secret`].
#[derive(Debug, Clone, Default, PartialEq)]
pub enum JsonValue {
    #[default]
    Null,
    Text(Secret),
    Number(f64),
    Bool(bool),
    List(Vec<JsonValue>),
    Object(Vec<(String, JsonValue)>),
}

impl JsonValue {
    pub fn text(&self) -> Option<&Secret> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Null and the empty string are how some servers say "none".
    pub fn is_there(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Text(text) => !text.is_empty(),
            _ => true,
        }
    }

    /// The member of exactly this name, else the one that is spelled `accessToken` or the like.
    fn member(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        let named = |is: &dyn Fn(&str) -> bool| members.iter().rev().find(|(key, _)| is(key));
        named(&|key| key == name).or_else(|| named(&|key| is_same(key, name))).map(|(_, value)| value)
    }

    fn has(&self, name: &str) -> bool {
        self.member(name).is_some_and(Self::is_there)
    }

    /// The object that has the access token: this one, or one inside, the known members first.
    fn grant_holder(&self) -> Option<&Self> {
        match self {
            Self::Object(_) if self.has("access_token") => Some(self),
            Self::Object(members) => {
                let known = WRAPPERS.iter().filter_map(|name| self.member(name));
                known.chain(members.iter().map(|(_, value)| value)).find_map(Self::grant_holder)
            }
            Self::List(list) if list.len() == 1 => list[0].grant_holder(),
            _ => None,
        }
    }

    fn first_member(&self, names: &[&str]) -> Option<&Self> {
        names.iter().find_map(|name| self.member(name).filter(|value| value.is_there()))
    }
}

/// Lower case, and nothing but letters and digits: `refresh_token`, `RefreshToken` and
/// "refresh token" are one.
pub fn squeeze(text: &str) -> String {
    letters(text).collect()
}

/// Whether both are one. A reply is searched for some 80 names: without copies, and most are told apart by
/// their first letter.
fn is_same(one: &str, other: &str) -> bool {
    fn ascii(text: &str) -> impl Iterator<Item = u8> {
        text.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase())
    }
    if one.is_ascii() && other.is_ascii() {
        return ascii(one).eq(ascii(other));
    }
    letters(one).eq(letters(other))
}

fn letters(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase)
}

/// The parts of a grant.
#[derive(Debug, Default)]
pub struct Findings<'a> {
    pub access_token: Option<&'a JsonValue>,
    pub token_type: Option<&'a JsonValue>,
    pub expires_in: Option<&'a JsonValue>,
    /// A member that names an instant or, by its magnitude, a span.
    pub expires_at: Option<&'a JsonValue>,
    pub refresh_token: Option<&'a JsonValue>,
    pub refresh_token_expires_in: Option<&'a JsonValue>,
    pub scope: Option<&'a JsonValue>,
    pub id_token: Option<&'a JsonValue>,
}

/// A body that could be read, if only in part.
#[derive(Debug)]
pub struct ReplyBody {
    root: JsonValue,
    /// Nothing is missing or damaged.
    pub whole: bool,
}

impl ReplyBody {
    /// `None` if it is neither JSON that begins with an object or a list, nor a form.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Option<Self> {
        // Tokens and codes are ASCII in all other charsets.
        let decoded = utf16(bytes, content_type).or_else(|| match String::from_utf8_lossy(bytes) {
            Cow::Borrowed(_) => None,
            Cow::Owned(text) => Some(Zeroizing::new(text)),
        });
        let bytes = decoded.as_ref().map_or(bytes, |text| text.as_bytes());
        // A byte order mark, as RFC 8259 section 8.1 permits.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii();
        match bytes.first()? {
            b'{' | b'[' => {
                let body = Self::json(bytes, false);
                // A fault in another member may hide the refresh token behind it.
                let hides = !body.whole && !body.found().refresh_token.is_some_and(JsonValue::is_there);
                let body = if hides { Self { whole: false, ..Self::json(bytes, true) } } else { body };
                matches!(body.root, JsonValue::Object(_)).then_some(body)
            }
            _ => form(bytes).map(|root| Self { root, whole: true }),
        }
    }

    fn json(bytes: &[u8], salvage: bool) -> Self {
        let mut root = JsonValue::Null;
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let read = Tree { value: &mut root, depth: 0, salvage }.deserialize(&mut json);
        let whole = read.and_then(|()| json.end()).is_ok();
        // A list with one object is that object.
        if let JsonValue::List(list) = &mut root
            && list.len() == 1
        {
            root = list.remove(0);
        }
        Self { root, whole }
    }

    /// The grant, at the top or in one of the known members.
    pub fn found(&self) -> Findings<'_> {
        // A refresh token alone may be an echo of the request: it counts in the known members only.
        let nested = || WRAPPERS.iter().filter_map(|name| self.root.member(name));
        let at = self
            .root
            .grant_holder()
            .or_else(|| nested().find(|value| value.has("refresh_token")))
            .unwrap_or(&self.root);
        let refresh_token = at.member("refresh_token").or_else(|| self.root.member("refresh_token"));
        let first = |names: &[&str]| at.first_member(names).or_else(|| self.root.first_member(names));
        let expires_in = first(&["expires_in", "expire_in", "access_token_expires_in"]);
        let expires_at = first(&[
            "expires_at",
            "expires_on",
            "expires",
            "expiry",
            "expiry_date",
            "access_token_expiration",
            "access_token_expires_at",
            "expiration",
            "expire",
            "expire_at",
            "expire_time",
            "expiration_time",
        ]);
        // Sentry names it `token`; alone that could be anything.
        let token = || at.member("token").filter(|_| refresh_token.or(expires_in).or(expires_at).is_some());
        Findings {
            access_token: at.member("access_token").or_else(token),
            token_type: at.member("token_type"),
            expires_in,
            expires_at,
            refresh_token,
            refresh_token_expires_in: first(&[
                "refresh_token_expires_in",
                "x_refresh_token_expires_in",
                "refresh_expires_in",
                "refresh_token_expiration",
                "refresh_token_expires_at",
            ]),
            scope: at.member("scope"),
            id_token: at.member("id_token"),
        }
    }

    /// The codes and the words of an error, the most telling first.
    pub fn error(&self) -> ErrorMembers {
        let mut trouble = ErrorMembers::default();
        trouble.collect(&self.root, 0);
        trouble.uri = self.root.member("error_uri").and_then(JsonValue::text).cloned();
        trouble
    }

    /// True if `error` is a word, as RFC 6749 has it. A sentence is no code: a server that never
    /// heard of OAuth says it.
    pub fn has_code(&self) -> bool {
        let code = self.root.member("error").and_then(JsonValue::text);
        code.is_some_and(|code| !code.is_empty() && !code.expose().contains(' '))
    }

    /// The member `error`, if it names one; "success" and the like do not.
    pub fn names_error(&self) -> bool {
        self.root.member("error").is_some_and(|error| match error {
            JsonValue::Text(text) => is_code(text.expose()),
            JsonValue::Number(number) => *number != 0.0,
            JsonValue::Object(members) => !members.is_empty(),
            JsonValue::List(list) => !list.is_empty(),
            JsonValue::Null | JsonValue::Bool(_) => false,
        })
    }
}

/// The usual words for "no error".
fn is_code(text: &str) -> bool {
    !["", "0", "200", "ok", "success", "none", "false", "error", "true", "null"].contains(&&*squeeze(text))
}

/// The error in a reply.
#[derive(Debug, Default)]
pub struct ErrorMembers {
    pub codes: Vec<Secret>,
    pub words: Vec<Secret>,
    pub uri: Option<Secret>,
}

impl ErrorMembers {
    fn collect(&mut self, at: &JsonValue, depth: usize) {
        match at {
            // Twitch and Keycloak write a sentence where the code belongs.
            JsonValue::Text(text) => push(&mut self.words, text.clone()),
            JsonValue::List(list) => {
                if let Some(first) = list.first() {
                    self.collect(first, depth);
                }
            }
            JsonValue::Object(_) if depth < MAX_DEPTH => {
                // Strava names the thing, and then what is wrong with it.
                let resource = at.member("resource").and_then(JsonValue::text);
                // At the top, an id is the request's.
                let codes = if depth == 0 { &CODES[..CODES.len() - 1] } else { &CODES[..] };
                for name in codes {
                    match at.member(name) {
                        Some(JsonValue::Text(code)) if is_code(code.expose()) => match resource {
                            Some(thing) => {
                                let both = format!("{} {}", thing.expose(), code.expose());
                                push(&mut self.codes, Secret::new(both));
                            }
                            None => push(&mut self.codes, code.clone()),
                        },
                        Some(JsonValue::Number(code)) if ![0, 200].contains(&(*code as i64)) => {
                            push(&mut self.codes, Secret::new(code.to_string()));
                        }
                        _ => {}
                    }
                }
                for name in WORDS {
                    if let Some(JsonValue::Text(words)) = at.member(name)
                        && is_code(words.expose())
                    {
                        push(&mut self.words, words.clone());
                    }
                }
                for name in ERROR_WRAPPERS {
                    if let Some(nested @ (JsonValue::Object(_) | JsonValue::List(_))) = at.member(name) {
                        self.collect(nested, depth + 1);
                    }
                }
            }
            _ => {}
        }
    }
}

fn push(list: &mut Vec<Secret>, text: Secret) {
    if !text.is_empty() && !list.contains(&text) {
        list.push(text);
    }
}

/// UTF-16, by its byte order mark or the charset.
fn utf16(bytes: &[u8], content_type: Option<&str>) -> Option<Zeroizing<String>> {
    let charset = content_type.is_some_and(|text| squeeze(text).contains("charsetutf16"));
    let little = match bytes {
        [0xff, 0xfe, ..] => true,
        [0xfe, 0xff, ..] => false,
        // The text begins with an ASCII character in any case.
        [first, ..] if charset => *first != 0,
        _ => return None,
    };
    let unit = |pair: &[u8]| {
        let pair = [pair[0], pair[1]];
        if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
    };
    let units = bytes.chunks_exact(2).map(unit).filter(|unit| *unit != 0xfeff);
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 2));
    text.extend(char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)));
    Some(text)
}

/// A form, if it has a member that matters: GitHub and Facebook of old.
fn form(bytes: &[u8]) -> Option<JsonValue> {
    if !bytes.contains(&b'=') || bytes.iter().any(|byte| byte.is_ascii_whitespace() || *byte == b'<') {
        return None;
    }
    let members: Vec<_> = form_urlencoded::parse(bytes)
        .map(|(key, value)| (key.into_owned(), JsonValue::Text(Secret::new(value.into_owned()))))
        .collect();
    let root = JsonValue::Object(members);
    root.first_member(&["access_token", "error", "refresh_token", "errcode"]).is_some().then_some(root)
}

/// Fills a value in place, so that what was read before a fault stays.
struct Tree<'a> {
    value: &'a mut JsonValue,
    depth: usize,
    /// Skips, and so does not look into, what is no refresh token and does not hold one.
    salvage: bool,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.depth > MAX_DEPTH {
            deserializer.deserialize_ignored_any(IgnoredAny).map(drop)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        *self.value = JsonValue::Text(Secret::new(text));
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        *self.value = JsonValue::Number(number);
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        *self.value = JsonValue::Bool(value);
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        *self.value = JsonValue::List(Vec::new());
        let JsonValue::List(list) = self.value else { return Ok(()) };
        loop {
            let mut element = JsonValue::Null;
            let (depth, salvage) = (self.depth + 1, self.salvage);
            let read = seq.next_element_seed(Tree { value: &mut element, depth, salvage });
            if list.len() <= MAX_ELEMENTS {
                list.push(element);
            }
            if read?.is_none() {
                list.pop_if(|last| *last == JsonValue::Null);
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        *self.value = JsonValue::Object(Vec::new());
        let JsonValue::Object(members) = self.value else { return Ok(()) };
        while let Some(key) = map.next_key::<String>()? {
            if self.salvage && squeeze(&key) != "refreshtoken" && !WRAPPERS.contains(&&*key) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let mut value = JsonValue::Null;
            let (depth, salvage) = (self.depth + 1, self.salvage);
            let read = map.next_value_seed(Tree { value: &mut value, depth, salvage });
            members.push((key, value));
            read?;
        }
        Ok(())
    }
}
