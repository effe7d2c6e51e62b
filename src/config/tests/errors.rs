//! What the errors in a config file look like.

use super::*;

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

/// What is wrong, and what the first line of the error, the line shown and the hint say.
#[test]
fn errors_name_the_key_and_a_way_out() {
    for (text, position, says, hint) in [
        ("refesh_token = \"x\"", "3:1", "unknown key `refesh_token`", "did you mean `refresh_token`?"),
        ("token_url = \"x\"", "3:1", "unknown key `token_url`", "token_"),
        ("zzz = 1", "3:1", "unknown key `zzz`", "known keys: provider, issuer"),
        ("[work]\nscope = \"a\"", "3:2", "unknown key `work`", "[accounts.NAME]"),
        ("[acounts.work]", "3:2", "unknown key `acounts`", "did you mean `accounts`?"),
        (
            "[accounts.a]\nstate_dir = \"x\"",
            "4:1",
            "unknown key `state_dir`",
            "above the first [accounts.NAME]",
        ),
        ("timeout = 30", "3:11", "`timeout` must be a duration in quotes, not a number", "timeout = \"30s\""),
        ("timeout = \"30\"", "3:11", "`timeout` is not a duration", "\"90s\""),
        ("timeout = \"31s\"", "3:11", "`timeout` must be between 1s and 30s", ""),
        ("timeout = \"999ms\"", "3:11", "`timeout` must be between 1s and 30s", ""),
        ("skew = \"0s\"", "3:8", "`skew` must be between", ""),
        ("default_lifetime = \"0s\"", "3:20", "`default_lifetime` must be between", ""),
        (
            "allow_http = \"yes\"",
            "3:14",
            "`allow_http` must be true or false, not a string",
            "allow_http = true",
        ),
        ("accounts = 1", "3:12", "`accounts` must be a table, not a number", "[accounts.NAME]"),
        ("accounts = {}", "1:1", "`accounts` has no account in it", ""),
        ("[accounts.a]\nscope = 1", "4:9", "`accounts.a.scope` must be a string, not a number", "scope ="),
        ("[accounts.\"a/b\"]", "3:11", "`accounts` has a bad name", ""),
        ("[accounts.\"\"]", "3:11", "`accounts` has a bad name", ""),
        ("[accounts.a]", "3:11", "missing key `token_file` in account `a`", "token_file ="),
        ("refresh_token = \"x\"\n[accounts.a]", "3:17", "`refresh_token` at the top", "[accounts.NAME]"),
        ("token_file = \"x\"\n[accounts.a]", "3:14", "`token_file` at the top", "[accounts.NAME]"),
        ("scope = \"a\"\nscope = \"b\"", "4:1", "`scope`: duplicate key", "each key once"),
        ("timeout = 30s", "3:11", "`timeout`: ", "strings in double quotes"),
        ("scope \"a\"", "3:7", "`scope`: ", "TOML"),
        ("refresh_token = \" \\n\"", "3:17", "`refresh_token` is empty", ""),
        ("refresh_token = \"a\\nb\"", "3:17", "`refresh_token` has more than one line", ""),
        ("refresh_token = \"a\\u0007b\"", "3:17", "`refresh_token` contains control characters", ""),
        ("refresh_token = 5", "3:17", "`refresh_token` must be a string or one of { file", "for example"),
        ("refresh_token = {}", "3:17", "`refresh_token` must have exactly one source", "keep one of"),
        (
            "refresh_token = { file = \"a\", env = \"B\" }",
            "3:17",
            "`refresh_token` must have exactly one",
            "",
        ),
        ("refresh_token = { flie = \"a\" }", "3:19", "unknown key `flie`", "did you mean `file`?"),
        ("refresh_token = { url = \"a\" }", "3:19", "unknown key `url`", "file, env, command, credential"),
        (
            "refresh_token = { command = \"a\" }",
            "3:29",
            "`refresh_token.command` must be an array of",
            "pass",
        ),
        ("refresh_token = { command = [] }", "3:29", "`refresh_token` names no program", ""),
        ("refresh_token = { env = \"A=B\" }", "3:25", "`refresh_token` does not name an environment", ""),
        ("refresh_token = { credential = \"../x\" }", "3:32", "`refresh_token` does not name a systemd", ""),
        ("token_endpoint = \"http://a.example/\"", "3:18", "would send secrets unencrypted", "allow_http"),
        ("token_endpoint = \"http://localhost.example/\"", "3:18", "would send secrets unencrypted", ""),
        ("token_endpoint = \"https://a.example/#x\"", "3:18", "contains a fragment", ""),
        ("token_endpoint = \"https://u:p@a.example/\"", "3:18", "contains a user name or password", ""),
        ("token_endpoint = \"a.example/token\"", "3:18", "`token_endpoint` is not a URL", "https://"),
        ("token_endpoint = \"ftp://a.example/\"", "3:18", "is neither https nor http", "https://"),
        ("issuer = \"http://a.example\"", "3:10", "`issuer` is not https", "token_endpoint"),
        (
            "allow_http = true\nissuer = \"http://a.example\"",
            "4:10",
            "`issuer` is not https",
            "token_endpoint",
        ),
        ("token_endpoint = \"http://a.localhost/\"", "3:18", "would send secrets unencrypted", ""),
        ("issuer = \"https://a.example/?x\"", "3:10", "`issuer` contains a query", ""),
        ("confirmed_endpoint_host = \"https://a\"", "3:27", "is not a host name", "without https://"),
        ("write = \"inplace\"", "3:9", "`write` has an unknown value", "did you mean \"in-place\"?"),
        (
            "token_endpoint_auth_method = \"private_key_jwt\"",
            "3:30",
            "unknown value",
            "known values: client_",
        ),
        ("token_endpoint_auth_method = \"client_secret_basic\"", "3:30", "needs a client_secret", "none"),
        (
            "client_secret = \"s\"\ntoken_endpoint_auth_method = \"none\"",
            "4:30",
            "yet there is a client_secret",
            "",
        ),
        ("scope = \" \"", "3:9", "`scope` is empty", ""),
        ("scope = \"a\\\"b\"", "3:9", "contains a character that no scope may have", ""),
        ("audience = \"a \"", "3:12", "begins or ends with white space", ""),
        ("extra_params = { client_secret = \"x\" }", "3:18", "must not repeat `client_secret`", ""),
        ("extra_params = { a = 1 }", "3:22", "`extra_params.a` must be a string, not a number", ""),
        ("extra_params = \"a\"", "3:16", "`extra_params` must be a table of strings, not a string", "tenant"),
        ("token_file_mode = \"0602\"", "3:19", "would let every user of this machine change", "0600"),
        ("token_file_mode = \"0700\"", "3:19", "has more than read and write bits", ""),
        ("token_file_mode = \"4600\"", "3:19", "has more than read and write bits", ""),
        ("token_file_mode = \"0060\"", "3:19", "would keep the owner from reading", ""),
        ("token_file_mode = \"0800\"", "3:19", "is not an octal mode", ""),
        ("token_file_mode = \"rw\"", "3:19", "is not an octal mode", ""),
        ("token_file_mode = 384", "3:19", "must be a string, not a number", "\"0640\""),
        ("token_file_owner = -1", "3:20", "is neither a name nor a number", ""),
        ("token_file_owner = 4294967295", "3:20", "is neither a name nor a number", ""),
        ("token_file_group = \"a:b\"", "3:20", "is neither a name nor a number", ""),
        (
            "token_format = \"{token}\"",
            "3:16",
            "`token_format` has an unknown placeholder `{token}`",
            "{access_token}",
        ),
        ("token_file = \"~bob/token\"", "3:14", "begins with `~`, but not with `~/`", ""),
        ("token_file = \"\"", "3:14", "`token_file` is empty", ""),
        ("token_file = \"../c/./config.toml\"", "3:14", "`token_file` is also the config file", "of its own"),
        ("token_file = \"ca\"\nca_file = \"./ca\"", "3:14", "is also the ca_file of account", ""),
        ("token_file = \"s\"\nrefresh_token = { file = \"s\" }", "3:14", "is also the refresh_token", ""),
        (
            "token_file = \"s\"\npush = [{ url = \"https://a.example\", api_key = { file = \"s\" } }]",
            "3:14",
            "is also the push.api_key",
            "",
        ),
        ("token_file = \"/s/default/x\"\nstate_dir = \"/s\"", "3:14", "`token_file` lies in state_dir", ""),
    ] {
        let error = parse_text(&format!("{BASE}{text}\n")).expect_err(text);
        let shown = error.to_string();
        let first = shown.lines().next().unwrap();
        assert!(first.starts_with(&format!("/c/config.toml:{position}: ")), "{text}\n{shown}");
        assert!(first.contains(says), "{text}\n{shown}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{text}\n{:?}", error.hint());
        assert!(shown.ends_with('^') || position == "1:1", "{text}\n{shown}");
    }
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
