//! The answer of the authorization server, which the browser or the user brings: RFC 6749 section 4.1.2,
//! RFC 9207. Pure.

use crate::oauth::is_issuer;
use crate::redact::scrub;
use crate::secret::Secret;

/// The facts that an answer must agree with.
#[derive(Debug, Clone)]
pub struct ExpectedAnswer {
    pub state: Secret,
    /// May have Entra ID's placeholder; `None` if no issuer is known.
    pub issuer: Option<String>,
    /// The server says that it sends `iss`.
    pub sends_issuer: bool,
}

/// An answer to this login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginAnswer {
    Code(Secret),
    /// The server's words, without secrets.
    Refused {
        error: String,
        description: Option<String>,
    },
    /// It is from another issuer, which may have got its hands on the request: the code is not sent.
    /// `None`: it names no issuer.
    Issuer(Option<String>),
}

/// Why something is not an answer to this login. The login goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("an answer to another login was ignored")]
    State,
    #[error("an answer without code and error was ignored")]
    Empty,
    #[error("this is the address of the login page; paste the one that the browser shows after the login")]
    OwnAddress,
}

/// Judges the query of a redirect, in which the state is required.
pub fn judge_query(query: &str, expected: &ExpectedAnswer) -> Result<LoginAnswer, NoAnswer> {
    let answer = Parameters::parse(query);
    match &answer.state {
        Some(state) if is_same(state, &expected.state) => judge(answer, expected),
        _ => Err(NoAnswer::State),
    }
}

/// Judges a text that the user pasted: the whole address, its query, or the code alone. White space is
/// forgiven, for a terminal or a mail may have broken the line. State and issuer are checked if they are
/// there.
pub fn judge_pasted(pasted: &Secret, expected: &ExpectedAnswer) -> Result<LoginAnswer, NoAnswer> {
    let text = Secret::new(pasted.expose().split_whitespace().collect::<String>());
    let text = text.expose().trim_matches(['"', '\'', '<', '>']);
    // Some servers answer in the fragment.
    let query = text.split_once('?').or_else(|| text.split_once('#')).map_or(text, |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    let answer = Parameters::parse(query);
    if text.contains("code_challenge=") {
        return Err(NoAnswer::OwnAddress);
    }
    if answer.code.is_none() && answer.error.is_none() {
        // Of a code that is copied from an address, some characters are escaped.
        let code = form_urlencoded::parse(text.as_bytes()).next().map(|(code, _)| code.into_owned());
        let is_code = !text.contains("://") && !text.contains('=') && !text.is_empty();
        return code
            .filter(|_| is_code)
            .map(|code| LoginAnswer::Code(Secret::new(code)))
            .ok_or(NoAnswer::Empty);
    }
    match &answer.state {
        Some(state) if !is_same(state, &expected.state) => Err(NoAnswer::State),
        None => judge(answer, &ExpectedAnswer { sends_issuer: false, ..expected.clone() }),
        Some(_) => judge(answer, expected),
    }
}

fn judge(answer: Parameters, expected: &ExpectedAnswer) -> Result<LoginAnswer, NoAnswer> {
    match (&expected.issuer, &answer.iss) {
        (Some(issuer), Some(iss)) if !is_issuer(issuer, iss) => {
            return Ok(LoginAnswer::Issuer(Some(scrub(iss, &[]))));
        }
        (Some(_), None) if expected.sends_issuer => return Ok(LoginAnswer::Issuer(None)),
        _ => {}
    }
    if let Some(error) = answer.error {
        let known = [&expected.state];
        let description = answer.error_description.map(|text| scrub(&text, &known));
        return Ok(LoginAnswer::Refused {
            error: scrub(&error, &known),
            description: description.filter(|text| !text.is_empty()),
        });
    }
    answer.code.map(LoginAnswer::Code).ok_or(NoAnswer::Empty)
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
fn is_same(one: &Secret, other: &Secret) -> bool {
    one.fingerprint() == other.fingerprint()
}

#[derive(Default)]
struct Parameters {
    code: Option<Secret>,
    state: Option<Secret>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Parameters {
    /// Of a parameter that comes twice the first counts.
    fn parse(query: &str) -> Self {
        let mut found = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()).filter(|(_, value)| !value.is_empty()) {
            match &*name {
                "code" if found.code.is_none() => found.code = Some(Secret::new(value)),
                "state" if found.state.is_none() => found.state = Some(Secret::new(value)),
                "iss" if found.iss.is_none() => found.iss = Some(value.into_owned()),
                "error" if found.error.is_none() => found.error = Some(value.into_owned()),
                "error_description" if found.error_description.is_none() => {
                    found.error_description = Some(value.into_owned());
                }
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use crate::login::redirect::*;

    fn expected(sends_issuer: bool) -> ExpectedAnswer {
        ExpectedAnswer { state: Secret::new("s1"), issuer: Some("https://as.example".into()), sends_issuer }
    }

    #[expect(clippy::unnecessary_wraps, reason = "a row of a table of results")]
    fn code(code: &str) -> Result<LoginAnswer, NoAnswer> {
        Ok(LoginAnswer::Code(Secret::new(code)))
    }

    #[expect(clippy::unnecessary_wraps, reason = "a row of a table of results")]
    fn refused(error: &str, description: Option<&str>) -> Result<LoginAnswer, NoAnswer> {
        Ok(LoginAnswer::Refused { error: error.into(), description: description.map(str::to_owned) })
    }

    #[test]
    fn state_then_issuer_then_the_rest() {
        let other = || Ok(LoginAnswer::Issuer(Some("https://evil.example".into())));
        for (query, sends_issuer, answer) in [
            ("code=c%2F1&state=s1", false, code("c/1")),
            ("code=c&state=s1&iss=https%3A%2F%2Fas.example", true, code("c")),
            ("code=c&state=s1&iss=https%3A%2F%2Fas.example", false, code("c")),
            ("code=c&state=s1", true, Ok(LoginAnswer::Issuer(None))),
            ("code=c&state=s1&iss=https%3A%2F%2Fevil.example", true, other()),
            ("code=c&state=s1&iss=https%3A%2F%2Fevil.example", false, other()),
            ("error=access_denied&state=s1&iss=https%3A%2F%2Fevil.example", false, other()),
            ("error=access_denied&state=s1", false, refused("access_denied", None)),
            ("error=x&error_description=no+%1b[1mway&state=s1", false, refused("x", Some("no [1mway"))),
            ("error=access_denied", false, Err(NoAnswer::State)),
            ("code=c&state=s2", false, Err(NoAnswer::State)),
            ("code=c", false, Err(NoAnswer::State)),
            ("code=c&state=s2&state=s1", false, Err(NoAnswer::State)),
            ("state=s1", false, Err(NoAnswer::Empty)),
            ("code=&state=s1", false, Err(NoAnswer::Empty)),
            ("", false, Err(NoAnswer::State)),
        ] {
            assert_eq!(judge_query(query, &expected(sends_issuer)), answer, "{query}");
        }
    }

    #[test]
    fn a_pasted_text_is_an_address_or_a_code() {
        for (pasted, answer) in [
            ("http://127.0.0.1:9/?code=c1&state=s1&iss=https%3A%2F%2Fas.example", code("c1")),
            (" http://127.0.0.1:9/?co\nde=c1 &state=s1&iss=https%3A%2F%2Fas.example\n", code("c1")),
            ("<http://127.0.0.1:9/?code=c1&state=s1&iss=https%3A%2F%2Fas.example>", code("c1")),
            ("http://127.0.0.1:9/?code=c1&state=s1", Ok(LoginAnswer::Issuer(None))),
            ("https://app.example/cb#code=c1&state=s1&iss=https%3A%2F%2Fas.example", code("c1")),
            ("code=c1", code("c1")),
            ("4/0Ab_c-1", code("4/0Ab_c-1")),
            ("4%2F0Ab_c-1", code("4/0Ab_c-1")),
            ("http://127.0.0.1:9/?code=c1&state=s2", Err(NoAnswer::State)),
            ("http://127.0.0.1:9/?error=access_denied", refused("access_denied", None)),
            ("https://as.example/authorize?code_challenge=x&state=s1", Err(NoAnswer::OwnAddress)),
            ("http://127.0.0.1:9/", Err(NoAnswer::Empty)),
            ("  ", Err(NoAnswer::Empty)),
        ] {
            assert_eq!(judge_pasted(&Secret::new(pasted), &expected(true)), answer, "{pasted}");
        }
    }
}
