//! `token_format`: the content of the token file.

use crate::secret::Secret;
use crate::template;

/// A template, parsed. The default is the bare access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFormat(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    AccessToken,
    TokenType,
    ExpiresAt,
}

/// The fault of a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A name in braces that is no placeholder.
    #[error("has an unknown placeholder `{{{0}}}`")]
    Unknown(String),
    /// `{` without `}`, or `}` without `{`.
    #[error("has an unmatched brace")]
    Unbalanced,
    /// A token file without the token.
    #[error("does not contain `{{access_token}}`")]
    NoToken,
}

impl Default for TokenFormat {
    fn default() -> Self {
        Self(vec![Piece::AccessToken])
    }
}

impl std::str::FromStr for TokenFormat {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let mut pieces = Vec::new();
        for (literal, name) in template::pieces(text).map_err(|_| FormatError::Unbalanced)? {
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal));
            }
            pieces.extend(match name {
                Some("access_token") => Some(Piece::AccessToken),
                Some("token_type") => Some(Piece::TokenType),
                Some("expires_at") => Some(Piece::ExpiresAt),
                Some(name) => return Err(FormatError::Unknown(name.to_owned())),
                None => None,
            });
        }
        if !pieces.contains(&Piece::AccessToken) {
            return Err(FormatError::NoToken);
        }
        Ok(Self(pieces))
    }
}

impl TokenFormat {
    /// `expires_at` is in Unix seconds.
    pub fn render(&self, access_token: &Secret, token_type: &str, expires_at: i64) -> Secret {
        let expires_at = expires_at.to_string();
        let parts = || {
            self.0.iter().map(|piece| match piece {
                Piece::Literal(text) => text.as_str(),
                Piece::AccessToken => access_token.expose(),
                Piece::TokenType => token_type,
                Piece::ExpiresAt => &expires_at,
            })
        };
        // Room for all of it at once: a string that grows leaves copies behind, unwiped.
        let mut text = String::with_capacity(parts().map(str::len).sum());
        text.extend(parts());
        Secret::new(text)
    }

    /// The access token in a file of this format; `None` if the file has another one. Only where
    /// the token stands between fixed texts is it certain which part is the token.
    pub fn parse(&self, content: &str) -> Option<Secret> {
        let literal = |pieces: &[Piece]| match pieces {
            [] => Some(String::new()),
            [Piece::Literal(text)] => Some(text.clone()),
            _ => None,
        };
        let place = self.0.iter().position(|piece| *piece == Piece::AccessToken)?;
        let (before, after) = (literal(&self.0[..place])?, literal(&self.0[place + 1..])?);
        let token = content.strip_prefix(before.as_str())?.strip_suffix(after.as_str())?;
        (!token.is_empty()).then(|| Secret::new(token))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::token_format::*;

    #[test]
    fn finds_the_token_between_fixed_texts() {
        for (template, content, expected) in [
            ("{access_token}", "tok", Some("tok")),
            ("{access_token}\n", "tok\n", Some("tok")),
            ("Authorization: Bearer {access_token}", "Authorization: Bearer tok", Some("tok")),
            ("Authorization: Bearer {access_token}", "something else", None),
            ("{access_token} {expires_at}", "tok 1700", None),
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
        ] {
            let format: TokenFormat = template.parse().unwrap();
            let rendered = format.render(&Secret::new("tok"), "Bearer", 1700);
            assert_eq!(rendered.expose(), expected, "{template}");
        }
        let rendered = TokenFormat::default().render(&Secret::new("tok"), "Bearer", 1700);
        assert_eq!(rendered.expose(), "tok");
    }

    #[test]
    fn refuses_what_it_cannot_mean() {
        for (template, error) in [
            ("", FormatError::NoToken),
            ("Bearer", FormatError::NoToken),
            ("{{access_token}}", FormatError::NoToken),
            ("{token_type}", FormatError::NoToken),
            ("{acess_token}", FormatError::Unknown("acess_token".into())),
            ("{access_token", FormatError::Unbalanced),
            ("{access_token}}", FormatError::Unbalanced),
            ("{access_token} }", FormatError::Unbalanced),
            ("{ access_token }", FormatError::Unknown(" access_token ".into())),
        ] {
            assert_eq!(template.parse::<TokenFormat>(), Err(error), "{template}");
        }
    }
}
