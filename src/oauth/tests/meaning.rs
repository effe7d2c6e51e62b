//! The table of meanings holds in every place of a body, and nothing transient is ever dead.

use proptest::prelude::*;

use crate::oauth::Answer;
use crate::oauth::meaning::{CODES, Meaning};
use crate::oauth::tests::{classify_with, reply};

/// Texts that a transient answer may hold, with whatever code.
const TRANSIENT: [&str; 25] = [
    "token request is already being processed",
    "multiple concurrent requests using the same token",
    "Too many concurrent token refresh requests on the same session or refresh token",
    "another request is competing for the same resource",
    "Rate limit exceeded",
    "login rate exceeded",
    "Application request limit reached",
    "User usage reached",
    "Too many requests",
    "The token is not yet expired",
    "Service unavailable, try again later",
    "The account is temporarily locked",
    "Down for maintenance",
    "Internal server error",
    "Service is unavailable",
    "could not reach the upstream identity provider",
    "Failed to query: connection refused",
    "context deadline exceeded",
    "Please retry your request",
    "An unexpected error occurred",
    "Database error finding refresh token",
    "Request timed out",
    "A transient error has occurred",
    "ip restricted or invalid login hours",
    "AADSTS50196: a client request loop",
];

/// Sentences of dead logins: X, Zoom, Atlassian, Gitea, UAA, Dex, Exact Online, Auth0.
const DEAD_WORDS: &[&str] = &[
    "Value passed for the token was invalid.",
    "Invalid Token!",
    "refresh_token is invalid",
    "unable to parse refresh token",
    "token was already used",
    "The token expired, was revoked, or the token ID is incorrect.",
    "Refresh token expired.",
    "Old refresh token used.",
    "user is blocked",
];

/// Words that servers use for a dead login, in every member that they are looked for in.
fn dead_body(code: &str, words: &str, member: usize) -> String {
    let plus = |text: &str| text.replace(' ', "+");
    match member % 6 {
        0 => format!(r#"{{"error":"{code}","error_description":"{words}"}}"#),
        1 => format!(r#"{{"errors":[{{"errorType":"{code}","message":"{words}"}}]}}"#),
        2 => format!(r#"{{"errorCode":"{code}","errorSummary":"{words}"}}"#),
        3 => format!(r#"{{"error":{{"code":"{code}","message":"{words}"}}}}"#),
        4 => format!(r#"{{"status":"{code}","message":"{words}"}}"#),
        _ => format!("error={}&error_description={}", plus(code), plus(words)),
    }
}

proptest! {
    #![proptest_config(crate::regressions::cases(256))]
    /// A transient status, and a web page, say nothing of the login, whatever words are in them.
    #[test]
    fn no_transient_status_and_no_page_is_dead(
        status in prop_oneof![Just(408_u16), Just(425), Just(429), 500_u16..600],
        other in prop_oneof![Just(200_u16), 400_u16..500],
        code in prop::sample::select(CODES.iter().map(|(code, _)| *code).collect::<Vec<_>>()),
        member in 0_usize..6,
    ) {
        let body = dead_body(code, "refresh token invalid, expired, revoked", member);
        let answer = classify_with(Ok(&reply(status, body.as_str())), &[]);
        prop_assert!(!matches!(answer, Answer::InvalidGrant(_)), "{status} {answer:?}");
        let page = format!("<html><p>{code}</p>{body}</html>");
        let answer = classify_with(Ok(&reply(other, page)), &[]);
        prop_assert!(!matches!(answer, Answer::InvalidGrant(_)), "{answer:?}");
    }

    /// "Not now" wins over every code.
    #[test]
    fn no_transient_words_are_dead(
        words in prop::sample::select(&TRANSIENT[..]),
        code in prop::sample::select(CODES.iter().map(|(code, _)| *code).collect::<Vec<_>>()),
        status in 400_u16..500,
        member in 0_usize..6,
    ) {
        let answer = classify_with(Ok(&reply(status, dead_body(code, words, member))), &[]);
        prop_assert!(matches!(answer, Answer::Unavailable(_)), "{answer:?}");
    }

    /// Nor do dead words beside them make a login dead.
    #[test]
    fn transient_words_win_over_dead_ones(
        transient in prop::sample::select(&TRANSIENT[..]),
        dead in prop::sample::select(DEAD_WORDS),
        first in any::<bool>(),
        status in 400_u16..500,
        member in 0_usize..6,
    ) {
        let words = if first { format!("{transient}. {dead}") } else { format!("{dead}: {transient}") };
        for code in ["invalid_grant", "invalid_request", "odd"] {
            let answer = classify_with(Ok(&reply(status, dead_body(code, &words, member))), &[]);
            prop_assert!(matches!(answer, Answer::Unavailable(_)), "{words} {answer:?}");
        }
    }

    /// Words that tell a dead login are understood with each vague code, and never with a transient
    /// status.
    #[test]
    fn dead_words_mean_the_same_everywhere(
        words in prop::sample::select(DEAD_WORDS),
        code in prop::sample::select(&["invalid_request", "unauthorized_client", "odd"][..]),
        status in 400_u16..404,
        transient in prop_oneof![Just(408_u16), Just(425), Just(429), 500_u16..600],
        member in 0_usize..6,
    ) {
        let body = dead_body(code, words, member);
        let answer = classify_with(Ok(&reply(status, body.as_str())), &[]);
        prop_assert!(matches!(answer, Answer::InvalidGrant(_)), "{words} {answer:?}");
        let answer = classify_with(Ok(&reply(transient, body)), &[]);
        prop_assert!(!matches!(answer, Answer::InvalidGrant(_)), "{words} {answer:?}");
    }

    /// A code is understood in every place and spelling.
    #[test]
    fn a_code_means_the_same_everywhere(
        row in prop::sample::select(CODES),
        upper in any::<bool>(),
        member in 0_usize..6,
    ) {
        let code = if upper { row.0.to_uppercase() } else { row.0.to_owned() };
        let answer = classify_with(Ok(&reply(400, dead_body(&code, "no", member))), &[]);
        let found = match answer {
            Answer::InvalidGrant(_) => Meaning::DeadToken,
            Answer::ClientRefused(_) => Meaning::Client,
            _ => Meaning::NotNow,
        };
        prop_assert_eq!(found, row.1, "{}", code);
    }
}
