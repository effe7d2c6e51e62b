//! A long text is parsed in parts, and means what it means as a whole.

use std::fmt::Write as _;

use crate::config::document::in_parts;
use crate::config::tests::{message, parse_text};

/// Accounts of several kinds, more of them than go into one part.
fn long() -> String {
    let mut text =
        "# comment\nprovider = \"google\"\nclient_id = \"id\"\n[extra_params]\nprompt = \"none\"\n"
            .to_owned();
    for number in 0..400 {
        let _ = match number % 5 {
            0 => writeln!(
                text,
                "[accounts.a{number}]\nrefresh_token = \"\"\"\nseed{number}\"\"\"\ntoken_file = \"/t/{number}\"\n\
                 [[accounts.a{number}.outputs]]\npath = \"/o/{number}\"\n[[accounts.a{number}.outputs]]\n\
                 path = \"/p/{number}\""
            ),
            1 => writeln!(
                text,
                "[accounts.a{number}.refresh_token]\nenv = \"SEED{number}\"\n[accounts.a{number}]\ntoken_file = \"/t/{number}\"\r"
            ),
            2 => writeln!(
                text,
                "  [accounts.\"b-{number}\"]\nrefresh_token.command = [\n  \"a\",\n  \"{number}\",\n]\n\
                 token_file = \"/t/{number}\""
            ),
            _ => writeln!(
                text,
                "[accounts.a{number}] # comment\nrefresh_token = \"s{number}\"\ntoken_file = \"/t/{number}\""
            ),
        };
    }
    text
}

/// The same for TOML, and not recognised as parts.
fn as_a_whole(text: &str) -> String {
    text.replace("[accounts.a", "[ accounts.a")
}

#[test]
fn parts_mean_the_same_as_the_whole() {
    let text = long();
    let whole = as_a_whole(&text);
    parse_text(&whole).unwrap();
    assert!(in_parts(&text).is_some() && in_parts(&whole).is_none());
    let settings = |text: &str| format!("{:#?}", parse_text(text).unwrap());
    assert!(settings(&text) == settings(&whole));
    // Parts that belong together.
    for (before, after) in
        [("", "[accounts.a3.extra_params]\nx = \"y\"\n"), ("accounts.z.token_file = \"/z\"\n", "")]
    {
        let [text, whole] = [&text, &whole].map(|text| settings(&format!("{before}{text}{after}")));
        assert!(text == whole);
    }
}

#[test]
fn few_accounts_are_parsed_as_a_whole() {
    let text = "client_id = \"id\"\n[accounts.a]\ntoken_file = \"/t\"\n[accounts.b]\ntoken_file = \"/u\"\n";
    assert!(in_parts(text).is_none());
}

#[test]
fn an_error_is_reported_as_in_the_whole() {
    let accounts = long();
    for (before, after) in [
        ("", "[accounts.a3]\ntoken_file = \"/again\"\n"),
        ("", "[accounts]\nz = 1\n"),
        ("", "[extra_params]\nx = \"y\"\n"),
        ("", "[accounts.z]\ntoken_file = \"\"\"/z\n"),
        ("", "[accounts.z]\ntoken_flie = \"/z\"\n"),
        ("", "[accounts.z]\nrefresh_token = 7\n"),
        ("", "[accounts.z]\nrefresh_token = \"s\"\ntoken_file = \"/t/3\"\n"),
        ("accounts = {}\n", ""),
        ("token_file = \"/z\"\n", ""),
        ("x = \"\"\"\n", ""),
    ] {
        let text = format!("{before}{accounts}{after}");
        // Without the place: the spelling of a header is longer by one character.
        let text_of = |message: String| {
            message.lines().next().and_then(|line| Some(line.split_once(": ")?.1.to_owned()))
        };
        let whole = text_of(message(&as_a_whole(&text)));
        assert!(whole.is_some());
        assert_eq!(text_of(message(&text)), whole);
    }
}
