//! The look of errors in a config file.

use crate::config::tests::*;

#[test]
fn an_error_shows_its_place() {
    assert_eq!(
        message("provider = \"google\"\nclient_id = \"id\"\n\nrefesh_token = \"1//0gSECRET\" # SECRET\n"),
        "/c/config.toml:4:1: unknown key `refesh_token`\n\
         \x20 |\n\
         4 | refesh_token = \"…\"\n\
         \x20 | ^^^^^^^^^^^^"
    );
    // A tab and a character of two bytes before the caret, and a line number of two digits.
    let lines = "\r\n".repeat(9);
    assert_eq!(
        message(&format!("{lines}resource = [\"zürich\",\t7]\r\n{BASE}")),
        "/c/config.toml:10:23: `resource` must be a string or an array of strings\n\
         \x20  |\n\
         10 | resource = [\"zürich\", 7]\n\
         \x20  |                       ^"
    );
    // A secret before the caret is shown shorter than it is, and the caret follows.
    assert_eq!(
        message("client_secret = { env = \"A\", command = [\"SECRET\"], flie = \"x\" }"),
        "/c/config.toml:1:52: unknown key `flie`\n\
         \x20 |\n\
         1 | client_secret = { env = \"A\", command = …, flie = \"…\" }\n\
         \x20 |                                           ^^^^"
    );
    // A line that is no TOML shows its key only. The message is the parser's.
    let shown = message("refresh_token = 1//0gSECRET, SECRET");
    assert!(shown.starts_with("/c/config.toml:1:18: `refresh_token`: "), "{shown}");
    let excerpt = "\n  |\n1 | refresh_token = …\n  |                 ^";
    assert!(shown.ends_with(excerpt), "{shown}");
}

#[test]
fn missing_keys_are_named() {
    for (text, says, hint) in [
        ("", "missing key `token_endpoint`", "provider = \"google\""),
        ("client_id = \"a\"", "missing key `token_endpoint`", "issuer"),
        ("provider = \"google\"", "missing key `client_id`", "for example: client_id ="),
    ] {
        let error = parse_text(text).unwrap_err();
        assert_eq!(error.to_string(), format!("/c/config.toml:1:1: {says}"));
        assert!(error.hint().unwrap().contains(hint));
    }
}

#[test]
fn no_error_shows_a_secret() {
    for line in [
        "client_secret = \"SECRET\" # SECRET",
        "client_secret = 5 # SECRET",
        "client_secret = [\"SECRET\"]",
        "client_secret = { command = [\"x\", \"SECRET\", 5] }",
        "client_secret = { file = \"a\", env = \"B\", SECRET = \"SECRET\" }",
        "client_secret = { key = \"SECRET\" }",
        "client_secret = SECRET",
        "client_secret = \"SECRET",
        "client_secret = 'SECRET'x",
        "client_secret = \"\"\"\nscope = SECRET",
        "client_secret = \"\"\"\nSECRET=\\q\"\"\"",
        "client_secret \"SECRET\"",
        "\"SECRET",
        "1//SECRET",
        "[SECRET",
        "clent_secret = \"SECRET\"",
        "clent_secret = { a = \"SECRET\" }",
        "clent_secret = [ { a = \"SECRET\" } ]",
        "accounts = { a = { x = \"SECRET\" }, b = \"SECRET\" }",
        "accounts = { a = \"SECRET\" }",
        "accounts = [ { refresh_token = \"SECRET\" } ]",
        "[[scope]]\nrefresh_token = \"SECRET\"",
        "scope = [ { refresh_token = \"SECRET\" } ]",
        "extra_params = \"SECRET\"",
        "extra_params = { assertion = \"SECRET\", b = 5 }",
        "provider.x = \"SECRET\"",
        "token_endpoint = \"https://u:SECRET@a.example/\"",
        "refresh_token = \"SECRET\\nSECRET\"",
        "refresh_token = \"SECRET\\u0000\"",
        "token_endpoint_auth_method = \"client_secret_basic\" # client_secret = \"SECRET\"",
    ] {
        // A quoted key is shown, since it has to be found: `SECRET` as a key is not meant.
        let text = format!("client_id = \"a\"\n{line}\n");
        let error = parse_text(&text).expect_err(line);
        let everything = format!("{error}\n{error:?}\n{:?}", error.hint());
        let keys_only = everything.replace("`SECRET`", "").replace("SECRET = ", "");
        let keys_only = keys_only.replace("client_secret.SECRET", "");
        assert!(!keys_only.contains("SECRET"), "{line}\n{everything}");
    }
}
