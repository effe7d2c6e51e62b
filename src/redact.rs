//! Makes text of other programs safe to show: without secrets and control characters, and short.

use std::borrow::Cow;

use form_urlencoded::byte_serialize;

use crate::secret::Secret;

const REDACTED: &str = "[redacted]";

/// How much is shown: a cause fits into a line or two, a page of HTML does not.
const MAX_SHOWN: usize = 200;

/// `text` without control characters, with every known secret (also form-encoded) and every word
/// that looks like a token replaced, cut to 200 characters. Hosts, dates and ordinary words stay.
pub fn scrub(text: &str, known_secrets: &[&Secret]) -> String {
    let plain: String = text.chars().filter_map(visible).collect();
    let known = redact_known(&plain, known_secrets);
    let mut shown = String::new();
    for (kind, word) in words(&known) {
        redact_word(word, kind, &mut shown);
    }
    // Cut last: half a secret would no longer be recognised.
    match shown.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => shown[..end].to_owned() + "…",
        None => shown,
    }
}

/// Line breaks become spaces; characters without width, or that turn text around, are removed.
fn visible(c: char) -> Option<char> {
    match c {
        '\n' | '\r' | '\t' => Some(' '),
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => None,
        c if c.is_control() => None,
        c => Some(c),
    }
}

/// The text without the secrets that it repeats.
pub(super) fn redact_known<'a>(text: &'a str, known_secrets: &[&Secret]) -> Cow<'a, str> {
    let mut needles: Vec<String> = known_secrets
        .iter()
        .flat_map(|secret| {
            let plain: String = secret.expose().chars().filter_map(visible).collect();
            let encoded = byte_serialize(secret.expose().as_bytes()).collect();
            [plain, encoded]
        })
        .filter(|needle| !needle.is_empty())
        .collect();
    // The longest first: one secret may begin with another.
    needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
    // In any case: a host name comes back in lower case.
    let starts = |text: &str, needle: &str| {
        text.get(..needle.len()).is_some_and(|start| start.eq_ignore_ascii_case(needle))
    };
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(needle) = needles.iter().find(|needle| starts(rest, needle)) {
            out.push_str(REDACTED);
            rest = &rest[needle.len()..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    Cow::Owned(out)
}

#[derive(Clone, Copy, PartialEq)]
enum WordKind {
    Between,
    /// Characters of which tokens consist (RFC 6750 section 2.1, and `%` for encoded ones).
    Token,
    /// A token-like run right after `://`: the host and path of a URL.
    Url,
}

/// Splits text into runs of token characters and what is between them.
fn words(text: &str) -> impl Iterator<Item = (WordKind, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-._~+/%".contains(c);
    let mut rest = text;
    let mut after_colon = false;
    std::iter::from_fn(move || {
        let token = is_token(rest.chars().next()?);
        let end = rest.find(|c| is_token(c) != token).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        rest = tail;
        let kind = match token {
            false => WordKind::Between,
            // The part before an @ is a user and a password.
            true if after_colon && word.starts_with("//") && !tail.starts_with('@') => WordKind::Url,
            true => WordKind::Token,
        };
        after_colon = word.ends_with(':');
        Some((kind, word))
    })
}

fn redact_word(word: &str, kind: WordKind, out: &mut String) {
    match kind {
        WordKind::Between => out.push_str(word),
        WordKind::Token if !looks_like_token(word) => out.push_str(word),
        WordKind::Token if !word.split('/').next().is_some_and(is_host) => out.push_str(REDACTED),
        WordKind::Token | WordKind::Url => {
            for (at, segment) in word.split('/').enumerate() {
                if at > 0 {
                    out.push('/');
                }
                out.push_str(if looks_like_token(segment) && !is_host(segment) { REDACTED } else { segment });
            }
        }
    }
}

/// A longer label of a host name may be a token.
const LABEL_LEN: usize = 20;

/// True for a name such as `login.eu-1.example.com`.
fn is_host(word: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() < LABEL_LEN
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    word.rsplit_once('.').is_some_and(|(labels, top)| {
        top.len() >= 2 && top.bytes().all(|byte| byte.is_ascii_lowercase()) && labels.split('.').all(label)
    })
}

/// A word of this length with letters and digits counts as a token. Real tokens have 22 characters
/// and more (128 bits in base64); error codes and dates have less.
const TOKEN_LEN: usize = 20;

/// The beginnings of well-known secrets, which may be of any length.
const TOKEN_PREFIXES: [&str; 8] = ["1//", "ya29.", "eyJ", "gho_", "ghu_", "ghr_", "ghp_", "GOCSPX-"];

/// Whether a word may be a token.
fn looks_like_token(word: &str) -> bool {
    let mixed = || {
        word.bytes().any(|byte| byte.is_ascii_digit()) && word.bytes().any(|byte| byte.is_ascii_alphabetic())
    };
    // A prefix alone, or an ordinary word that happens to begin like one, is not a token.
    let known = |prefix: &&str| word.len() >= prefix.len() + 4 && word.starts_with(*prefix);
    (word.len() >= TOKEN_LEN && mixed()) || TOKEN_PREFIXES.iter().any(known)
}

/// Whether the name of a variable or file looks like a secret that was pasted in its place: names are
/// made of short words, `ZG_REFRESH_TOKEN_2`.
pub fn looks_pasted(name: &str) -> bool {
    let has = |is: fn(&u8) -> bool| name.bytes().any(|byte| is(&byte));
    let random = has(u8::is_ascii_digit) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    let known = TOKEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && looks_like_token(name);
    known || (name.len() >= TOKEN_LEN && random) || name.split(['_', '-', '.', '/']).any(looks_like_token)
}

#[cfg(test)]
mod tests {
    use crate::redact::*;

    #[test]
    fn words_hosts_and_dates_stay() {
        for text in [
            "Token has been expired or revoked.",
            "AADSTS700082: The refresh token has expired due to inactivity on 2024-05-01T12:34:56.789Z.",
            "see https://login.us-east-1.example2.com/oauth2/v2/error?code=700082 for more",
            "host login.us-east-1.amazonaws.example.com said no",
            "oauth2.googleapis.example.com/token answered",
            "urn:ietf:params:oauth:grant-type:refresh_token",
            "Unternehmenszugehörigkeitsprüfung fehlgeschlagen",
            "eyJ",
        ] {
            assert_eq!(scrub(text, &[]), text);
        }
    }

    #[test]
    fn tokens_go() {
        for (text, expected) in [
            ("token 1//0gAbCdEf is bad", "token [redacted] is bad"),
            ("ya29.a0AfH6 expired", "[redacted] expired"),
            ("jwt eyJhbGciOi.eyJzdWIi.c2ln", "jwt [redacted]"),
            ("refresh_token=abcdefghij0123456789&x=1", "refresh_token=[redacted]&x=1"),
            ("id 3f2504e0-4f89-11d3-9a0c-0305e82c3301", "id [redacted]"),
            ("'0.AXoAbCdEfGhIjKlMnOpQrS/tUvWx+yz=='", "'[redacted]=='"),
            ("https://a.example/reset/abcdefghij0123456789", "https://a.example/reset/[redacted]"),
            ("https://user:abcdefghij0123456789@a.example/", "https://user:[redacted]@a.example/"),
            ("https://abcdefghij0123456789@a.example/", "https:[redacted]@a.example/"),
        ] {
            assert_eq!(scrub(text, &[]), expected);
        }
    }

    #[test]
    fn known_secrets_go_however_short_and_in_either_encoding() {
        let secrets = [Secret::new("pass"), Secret::new("pass word/1"), Secret::new("")];
        let known: Vec<&Secret> = secrets.iter().collect();
        assert_eq!(
            scrub("pass, pass word/1, pass+word%2F1, passion", &known),
            "[redacted], [redacted], [redacted], [redacted]ion"
        );
        assert_eq!(scrub("pa\u{0}ss pa\u{200b}ss", &known), "[redacted] [redacted]");
    }

    #[test]
    fn control_characters_go_and_the_length_is_capped() {
        assert_eq!(scrub("a\u{1b}[31mb\nc\u{202e}d", &[]), "a[31mb cd");
        let long = scrub(&"é ".repeat(5000), &[]);
        assert_eq!(long.chars().count(), MAX_SHOWN + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn a_secret_across_the_cut_is_not_shown_in_half() {
        let secret = Secret::new("plainsecretwithoutanydigits");
        let text = format!("{}{}", "x ".repeat(95), secret.expose());
        assert!(!scrub(&text, &[&secret]).contains("plains"));
    }

    #[test]
    fn pasted_secrets_are_not_names() {
        for name in [
            "ZG_REFRESH_TOKEN",
            "ZG_REFRESH_TOKEN_2_WORK",
            "my_refresh_token_of_2024",
            "refresh-token.2024-11-22",
            "home/me/secrets/refresh_token",
            "MyRefreshTokenForTheWorkAccount",
        ] {
            assert!(!looks_pasted(name), "{name}");
        }
        for secret in [
            "1//0gAbCdEf",
            "GOCSPX-a1b2",
            "ya29.a0AfH6",
            "3f2504e04f8911d39a0c0305e82c3301",
            "aB3_dEf-Gh1jKl_mNo2pQr",
            "eyJhbGciOi.eyJzdWIi.c2ln",
        ] {
            assert!(looks_pasted(secret), "{secret}");
        }
    }
}
