//! Every mistake in a config, as stderr shows it.

use std::fmt::Write as _;
use std::path::Path;

use crate::cli::output::tests::shown;
use crate::cli::output::tests::sources::sentences;
use crate::config::{ConfigError, Environment, Settings, parse};
use crate::golden::compare;

const BASE: &str = "provider = \"google\"\nclient_id = \"id\"\n";

/// The lines after [`BASE`].
const MISTAKES: &[&str] = &[
    "refesh_token = \"x\"",
    "token_url = \"x\"",
    "zzz = 1",
    "[work]\nscope = \"a\"",
    "[acounts.work]",
    "[accounts.a]\nstate_dir = \"x\"",
    "timeout = 30",
    "timeout = \"30\"",
    "timeout = \"31s\"",
    "timeout = \"999ms\"",
    "skew = \"0s\"",
    "default_lifetime = \"0s\"",
    "allow_http = \"yes\"",
    "accounts = 1",
    "accounts = {}",
    "[accounts.a]\nscope = 1",
    "[accounts.\"a/b\"]",
    "[accounts.\"\"]",
    "[accounts.a]",
    "refresh_token = \"x\"\n[accounts.a]",
    "token_file = \"x\"\n[accounts.a]",
    "scope = \"a\"\nscope = \"b\"",
    "timeout = 30s",
    "scope \"a\"",
    "refresh_token = \" \\n\"",
    "refresh_token = \"a\\nb\"",
    "refresh_token = \"a\\u0007b\"",
    "refresh_token = 5",
    "refresh_token = {}",
    "refresh_token = { file = \"a\", env = \"B\" }",
    "refresh_token = { flie = \"a\" }",
    "refresh_token = { url = \"a\" }",
    "refresh_token = { command = \"a\" }",
    "refresh_token = { command = [] }",
    "refresh_token = { env = \"A=B\" }",
    "refresh_token = { credential = \"../x\" }",
    "token_endpoint = \"http://a.example/\"",
    "token_endpoint = { url = \"a\" }",
    "proxy = \"socks4://127.0.0.1\"",
    "proxy = \"ftp://127.0.0.1\"",
    "proxy = \"http://user:word@\"",
    "[audience.mail]\nscope = \"a\"",
    "[accounts.a]\ntoken_file = \"a\"\n[accounts.a.audience.b]\ntoken_file = \"b\"\nclient_id = \"c\"",
    "[accounts.a]\ntoken_file = \"a\"\n[accounts.a.audience.b]\nfrom = \"c\"\ntoken_file = \"b\"",
    "[accounts.a]\ntoken_file = \"a\"\n[accounts.a.audience.b]\ntoken_file = \"b\"\n[accounts.a.audience.b.audience.c]\ntoken_file = \"c\"",
    "[accounts.a]\ntoken_file = \"a\"\n[accounts.a.audience.b]\ntoken_file = \"b\"\n[accounts.\"a.b\"]\ntoken_file = \"c\"",
    "token_endpoint = \"http://localhost.example/\"",
    "token_endpoint = \"https://a.example/#x\"",
    "token_endpoint = \"https://u:p@a.example/\"",
    "token_endpoint = \"a.example/token\"",
    "token_endpoint = \"ftp://a.example/\"",
    "token_endpoint = \"http://a.localhost/\"",
    "issuer = \"http://a.example\"",
    "allow_http = true\nissuer = \"http://a.example\"",
    "issuer = \"https://a.example/?x\"",
    "confirmed_endpoint_host = \"https://a\"",
    "write = \"inplace\"",
    "token_endpoint_auth_method = \"private_key_jwt\"",
    "token_endpoint_auth_method = \"client_secret_basic\"",
    "client_secret = \"s\"\ntoken_endpoint_auth_method = \"none\"",
    "scope = \" \"",
    "scope = \"a\\\"b\"",
    "audience = \"a \"",
    "extra_params = { client_secret = \"x\" }",
    "extra_params = { a = 1 }",
    "extra_params = \"a\"",
    "request_headers = { \"a b\" = \"x\" }",
    "request_headers = { Host = \"x\" }",
    "request_headers = { a = \"\\n\" }",
    "request_headers = { a = { evn = \"X\" } }",
    "request_body = \"{token}\"",
    "request_body = \"{refresh_token\"",
    "request_body = \"x\"",
    "[accounts.a]\nprovider = \"gogle\"",
    "[accounts.a]\nprovider = \"zz\"",
    "tenant = \"x\"",
    "request_headers = \"a\"",
    "token_file_mode = \"0602\"",
    "token_file_mode = \"0700\"",
    "token_file_mode = \"4600\"",
    "token_file_mode = \"0060\"",
    "token_file_mode = \"0800\"",
    "token_file_mode = \"rw\"",
    "token_file_mode = 384",
    "token_file_owner = -1",
    "token_file_owner = 4294967295",
    "token_file_group = \"a:b\"",
    "token_format = \"{token}\"",
    "token_file = \"~bob/token\"",
    "token_file = \"\"",
    "token_file = \"$HOME/token\"",
    "token_file = \"%t/token\"",
    "token_file = \"../c/./config.toml\"",
    "token_file = \"ca\"\nca_file = \"./ca\"",
    "token_file = \"s\"\nrefresh_token = { file = \"s\" }",
    "token_file = \"s\"\npush = [{ url = \"https://a.example\", api_key = { file = \"s\" } }]",
    "token_file = \"/s/default/x\"\nstate_dir = \"/s\"",
    "audience = test",
    "audience = 1abc",
    "timeout = 5m",
    "audience: \"x\"",
    "just text",
    "[accounts.work",
    "token_file = \"a\\u0000b\"",
    "audience = 2020-01-01",
    "audience = \"a\\u0007\"",
    "extra_params = { a = \"\\u0000\" }",
    "ca_file = \"\"",
    "token_format = \"{access_token\"",
    "token_format = \"x\"",
    "token_format = \"{refresh_token}\"",
    "token_format = \"{access_token|hex}\"",
    "token_format = \"{access_token|ms}\"",
    "token_format = \"netrc\"",
    "token_format = \"netrc:a b\"",
    "token_format = \"bare:a\"",
    "outputs = [{ format = \"bare\" }]",
    "outputs = [{ path = \"a\", fromat = \"bare\" }]",
    "outputs = [{ path = \"a\", zzz = 1 }]",
    "outputs = [{ path = \"a\", mode = \"0666\" }]",
    "outputs = [{ path = \"a\", write = \"twice\" }]",
    "outputs = \"a\"",
    "outputs = [{ path = \"a\" }, { path = \"./a\" }]",
    "outputs = [{ path = \"s\" }]\ntoken_file = \"s\"",
    "outputs = [{ path = \"a\" }]\n[accounts.a]\ntoken_file = \"t\"",
    "[[push]]\nurl = \"https://a.example\"\nmethod = \"GET\"",
    "[[push]]\nurl = \"https://a.example\"\ncontent_type = \"a\"\nheaders = { content-type = \"b\" }",
    "client_secret = { file = \"GOCSPX-a1b2\" }",
    "state_key = \"0123456789\"",
    "state_key = { sealed = \"key.sealed\" }",
    "on_refresh = [\"\"]",
    "on_refresh = [\"a\\u0000\"]",
    "on_expired = \"remove\"\nwrite = \"in-place\"",
    "on_expired = \"never\"",
    "[[push]]\nurl = \"https://a.example\"\nheaders = { \"a b\" = \"x\" }",
    "[[push]]\nurl = \"https://a.example\"\nheaders = { Host = \"x\" }",
    "from = \"a\"",
    "[accounts.a]\nfrom = \"b\"",
    "[accounts.a]\nfrom = \"a\"",
    "[accounts.a]\nclient_id = \"b\"\nfrom = \"b\"\n[accounts.b]",
    "[accounts.a]\nfrom = \"b\"\n[accounts.b]\ngrant_type = \"client_credentials\"",
    "signal = \"HUP\"",
    "signal = { pidfile = \"a\" }",
    "signal = { zzz = 1 }",
    "signal = { signal = \"HUP\" }",
    "signal = { pid_file = \"a\", signal = \"KILL\" }",
    "fleet = \"postgresql://u@db/zg\"",
    "fleet = { key = { file = \"k\" } }",
    "fleet = { url = { file = \"u\" } }",
    "fleet = { url = { file = \"u\" }, zzz = 1 }",
    "fleet = { url = { file = \"u\" }, key = { file = \"k\" }, role = \"reads\" }",
    "fleet = { url = { file = \"u\" }, key = { file = \"k\" }, role = \"read\" }",
    "grant_type = \"client_credentials\"\nfleet = { url = { file = \"u\" }, key = { file = \"k\" } }",
    "probe = \"https://a.example\"",
    "probe = { every = \"5m\" }",
    "[probe]\nevery = \"5m\"",
    "probe = { url = \"https://a.example\", evry = \"5m\" }",
    "probe = { url = \"https://a.example\", zzz = 1 }",
    "probe = { url = \"https://a.example\", every = \"4s\" }",
    "probe = { url = \"http://a.example\" }",
    "[[push]]\nurl = \"https://a.example\"\nheaders = { x = \"\\n\" }",
    "[[push]]\nurl = \"https://a.example\"\napi_key = \"k\"\nheaders = { Authorization = \"x\" }",
    "[[push]]\nurl = \"https://a.example\"\nbdy = \"\"",
    "[[push]]\nurl = \"https://a.example\"\nzzz = \"\"",
    "[[push]]\nbody = \"\"",
    "[[push]]\nurl = \"https://a.example\"\n[[push]]\nbody = \"\"",
    "push = [\"https://a.example\"]",
    "push = { api_key = \"k\" }",
    "[[push]]\nurl = \"https://a.example\"\n[accounts.a]\ntoken_file = \"t\"",
    "[accounts.a]\ntoken_file = \"t\"\n[accounts.b]\ntoken_file = \"./t\"",
    "[accounts.a]\ntoken_file = \"t\"\nrefresh_token = \"x\"\n[accounts.b]\ntoken_file = \"u\"\nrefresh_token = \"x\"",
    "[accounts.a]\ntoken_file = \"t\"\nrefresh_token = \"x\"\n[accounts.b]\ntoken_file = \"u\"\nrefresh_token = \"x\"\nclient_id = \"y\"",
    "token_file = \"a\"\ntoken_file_info = true\nca_file = \"a.json\"",
    "token_endpoint = \"https:\"",
    "token_endpoint = \"data:x\"",
    "refresh_token = { file = \"\" }",
    "token_endpoint_auth_method = \"private_key_jwt\"",
    "token_endpoint_auth_method = \"tls_client_auth\"",
    "client_secret = \"s\"\nprivate_key = \"k\"\ntoken_endpoint_auth_method = \"private_key_jwt\"",
    "grant_type = \"client_credentials\"\nrefresh_token = \"r\"",
    "grant_type = \"client_credentials\"",
    "subject_token = \"t\"",
    "grant_type = \"jwt-bearer\"",
    "certificate = \"c\"",
    "tls_certificate = \"c\"",
    "private_key = \"k\"\nclient_assertion = \"a\"",
    "grant_type = \"token-exchange\"",
    "grant_type = \"client_credentials\"\ngoogle_credentials = \"k\"",
];

/// Instead of it.
const WHOLE: [&str; 7] = [
    "provider = \"shopify\"\nclient_id = \"a\"",
    "provider = \"zoho\"\ndata_center = \"fr\"\nclient_id = \"a\"",
    "provider = \"gitlab\"\nhost = \"https://a\"\nclient_id = \"a\"",
    "",
    "provider = \"google\"\nclient_id = \"\"",
    "client_id = \"a\"",
    "provider = \"google\"",
];

/// Errors that cannot be brought about here: a fallback, and a path that is no text.
const UNREACHABLE: [&str; 4] = [
    "a value of the wrong type",
    "`zg-tokend man config` describes each key",
    "is in a directory whose name is not UTF-8",
    "write the program's full path, or rename that directory",
];

fn read(text: &str, home: bool) -> Result<Settings, ConfigError> {
    let of_home = |path: &str| home.then(|| Path::new("/home/u").join(path));
    let environment = Environment {
        config_file: None,
        home: of_home(""),
        config_home: of_home(".config"),
        state_home: of_home(".local/state"),
    };
    parse(text, Path::new("/c/config.toml"), &environment)
}

#[test]
fn every_mistake_in_a_config_is_told_with_a_way_out() {
    let mistakes = MISTAKES.iter().map(|mistake| (format!("{BASE}{mistake}\n"), *mistake, true));
    let whole = WHOLE.iter().map(|text| (format!("{text}\n"), *text, true));
    let homeless = ["state_dir = \"/s\"\ntoken_file = \"~/x\"", "token_file = \"/x\""];
    let homeless = homeless.iter().map(|mistake| (format!("{BASE}{mistake}\n"), *mistake, false));
    let mut page = String::new();
    for (text, mistake, home) in mistakes.chain(whole).chain(homeless) {
        let error = read(&text, home).expect_err(mistake);
        let shown = shown(&error, error.excerpt().as_deref(), error.hint().as_deref());
        let quoted: Vec<_> = mistake.lines().map(|line| format!("# {line}\n")).collect();
        let _ = writeln!(page, "{}{shown}", quoted.concat());
    }
    compare("config", &page);
    let places = ["values", "validate", "inherit", "targets", "collisions", "document", "token_format"];
    let sentences = sentences(&places.map(|place| format!("config/{place}.rs")));
    let is_missing = |said: &&String| !page.contains(*said) && !UNREACHABLE.contains(&said.as_str());
    let missing: Vec<_> = sentences.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "no golden text says {missing:#?}");
}
