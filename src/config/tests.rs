mod errors;
mod grant;
mod logins;
mod parts;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use crate::config::error::MINIMAL;
use crate::config::keys::{
    FLEET_KEYS, FORMS, KEYS, Key, OUTPUT_KEYS, PROBE_KEYS, PUSH_KEYS, Place, SIGNAL_KEYS,
};
use crate::config::*;
use crate::files::owner::Principal;
use crate::files::{Missing, owner};
use crate::oauth::AuthMethod;
use crate::secret::Secret;

const BASE: &str = "provider = \"google\"\nclient_id = \"id\"\n";

fn environment() -> Environment {
    Environment {
        config_file: None,
        home: Some("/home/u".into()),
        config_home: Some("/home/u/.config".into()),
        state_home: Some("/home/u/.local/state".into()),
    }
}

fn parse_text(text: &str) -> Result<Settings, ConfigError> {
    parse(text, Path::new("/c/config.toml"), &environment())
}

/// The account of a flat config: `BASE` and `more`.
fn account(more: &str) -> Arc<AccountConfig> {
    parse_text(&format!("{BASE}{more}")).unwrap().accounts.remove(0)
}

fn message(text: &str) -> String {
    let error = parse_text(text).unwrap_err();
    [Some(error.to_string()), error.excerpt()].into_iter().flatten().collect::<Vec<_>>().join("\n")
}

#[test]
fn a_minimal_config_has_these_defaults() {
    let settings = parse_text(MINIMAL).unwrap();
    assert_eq!(settings.state_dir, Path::new("/home/u/.local/state/zg-tokend"));
    let [account] = &settings.accounts[..] else { panic!("one account") };
    assert_eq!(account.name, AccountName::flat());
    let google = "https://oauth2.googleapis.com/token".parse().unwrap();
    assert_eq!(account.endpoint, Endpoint::Explicit(google));
    assert_eq!(account.auth_method, AuthMethod::ClientSecretPost);
    assert_eq!(account.timeout, Duration::from_secs(30));
    assert_eq!(account.default_lifetime, Duration::from_secs(3600));
    assert_eq!(account.skew, None);
    assert_eq!(
        account.token_file,
        TokenFile {
            path: "/home/u/.config/zerogravity/token".into(),
            mode: 0o600,
            owner: None,
            group: None,
            missing: Missing::CreateAll,
            write: WriteMode::Replace,
        }
    );
    assert_eq!(account.token_format, TokenFormat::default());
    assert!(!account.remove_expired && !account.token_file_info);
    assert!(settings.warnings.is_empty());
}

#[test]
fn each_key_is_taken_in_its_place_only() {
    const ACCOUNT: &str = "[accounts.a]\ntoken_file = \"a\"\nclient_secret = \"s\"\n";
    // `from` does without a client.
    for key in KEYS.iter().filter(|key| !["token_file", "client_secret", "from"].contains(&key.name)) {
        let line = format!("{} = {}\n", key.name, key.example);
        let base = if BASE.contains(&format!("{} ", key.name)) { "" } else { BASE };
        let [top, own] = [format!("{line}{base}{ACCOUNT}"), format!("{base}{ACCOUNT}{line}")]
            .map(|text| parse_text(&text));
        let refused = |result: &Result<Settings, ConfigError>| {
            let error = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
            error.contains("unknown key") || error.contains("at the top of a file with accounts")
        };
        assert_eq!(refused(&top), key.place == Place::Own, "{}", key.name);
        assert_eq!(refused(&own), key.place == Place::File, "{}", key.name);
    }
}

/// Keys that exclude others.
const ALONE: [&str; 3] = ["private_key", "client_assertion", "google_credentials"];

/// The keys that a key needs beside it.
fn companions(key: &str) -> &'static [(&'static str, &'static str)] {
    match key {
        "key_id" | "certificate" => &[("private_key", "{ file = \"k\" }")],
        "tls_certificate" => &[("tls_private_key", "{ file = \"k\" }")],
        "tls_private_key" => &[("tls_certificate", "\"c\"")],
        "assertion" | "assertion_issuer" | "assertion_subject" | "assertion_audience" => {
            &[("grant_type", "\"jwt-bearer\""), ("private_key", "{ file = \"k\" }")]
        }
        "subject_token" | "subject_token_type" | "requested_token_type" => &[
            ("grant_type", "\"token-exchange\""),
            ("subject_token", "\"t\""),
            ("subject_token_type", "\"jwt\""),
        ],
        "actor_token" | "actor_token_type" => &[
            ("grant_type", "\"token-exchange\""),
            ("subject_token", "\"t\""),
            ("subject_token_type", "\"jwt\""),
            ("actor_token", "\"t\""),
            ("actor_token_type", "\"jwt\""),
        ],
        _ => &[],
    }
}

#[test]
fn every_example_in_the_key_table_parses() {
    let needed =
        [("token_endpoint", "\"https://a.example/t\""), ("client_id", "\"id\""), ("client_secret", "\"s\"")];
    // `from` needs another account.
    for key in KEYS.iter().filter(|key| key.name != "from") {
        let companions = companions(key.name);
        let others = needed.into_iter().chain(companions.iter().copied());
        let others = others.filter(|(name, _)| *name != key.name);
        let lines: Vec<_> = others
            .chain([(key.name, key.example)])
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        parse_text(&lines.join("\n")).unwrap_or_else(|error| panic!("{error}"));
    }
    let push: Vec<_> = PUSH_KEYS.iter().map(|key| format!("{} = {}", key.name, key.example)).collect();
    account(&format!("push = [{{ {} }}]", push.join(", ")));
    let output: Vec<_> = OUTPUT_KEYS.iter().map(|key| format!("{} = {}", key.name, key.example)).collect();
    account(&format!("outputs = [{{ {} }}]", output.join(", ")));
    let probe: Vec<_> = PROBE_KEYS.iter().map(|key| format!("{} = {}", key.name, key.example)).collect();
    account(&format!("probe = {{ {} }}", probe.join(", ")));
    let signal: Vec<_> = SIGNAL_KEYS.iter().map(|key| format!("{} = {}", key.name, key.example)).collect();
    account(&format!("signal = {{ {} }}", signal.join(", ")));
    let fleet: Vec<_> = FLEET_KEYS.iter().map(|key| format!("{} = {}", key.name, key.example)).collect();
    account(&format!("fleet = {{ {} }}", fleet.join(", ")));
    for form in FORMS {
        account(&format!("refresh_token = {}", form.example));
    }
}

#[test]
fn the_example_config_has_every_key_once_and_parses() {
    let example = include_str!("../../packaging/config.example.toml");
    parse_text(example).unwrap();
    // `#key` is a key that is out of use, `# word` is prose.
    let commented = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
    let all: Vec<_> = example
        .lines()
        .map(|line| if commented(line) { &line[1..] } else { line })
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    // Nobody has all ways at once to prove who a client is, and all grants.
    let is_grant = |line: &&&str| {
        let name = line.split([' ', '=']).next().unwrap();
        name != "grant_type" && companions(name).is_empty() && !ALONE.contains(&name)
    };
    let together: Vec<_> = all.iter().filter(is_grant).copied().collect();
    parse_text(&together.join("\n")).unwrap();
    let all = all.join("\n");
    let names = |keys: &[Key]| keys.iter().map(|key| key.name.to_owned()).collect();
    let written = |tables: &[&DeTable<'_>]| -> BTreeSet<String> {
        tables.iter().flat_map(|table| table.keys()).map(|key| key.get_ref().to_string()).collect()
    };
    // That a key is there twice is an error of TOML's.
    let example = DeTable::parse(&all).unwrap().into_inner();
    let mut keys = written(&[&example]);
    // The example is flat, and has it in prose.
    keys.insert("from".into());
    assert_eq!(keys, names(KEYS));
    let push = example["push"].get_ref().as_array().unwrap().iter();
    let push: Vec<_> = push.map(|target| target.get_ref().as_table().unwrap()).collect();
    assert_eq!(written(&push), names(PUSH_KEYS));
    let outputs = example["outputs"].get_ref().as_array().unwrap().iter();
    let outputs: Vec<_> = outputs.map(|output| output.get_ref().as_table().unwrap()).collect();
    assert_eq!(written(&outputs), names(OUTPUT_KEYS));
    assert_eq!(written(&[example["probe"].get_ref().as_table().unwrap()]), names(PROBE_KEYS));
    assert_eq!(written(&[example["signal"].get_ref().as_table().unwrap()]), names(SIGNAL_KEYS));
    assert_eq!(written(&[example["fleet"].get_ref().as_table().unwrap()]), names(FLEET_KEYS));
}

#[test]
fn settings_are_debugged_without_secrets() {
    let settings = parse_text(MINIMAL).unwrap();
    assert!(!format!("{settings:?}").contains("REFRESH-TOKEN"));
}

#[test]
fn accounts_inherit_what_they_may() {
    let settings = parse_text(
        r#"
        provider = "google"
        client_id = "shared"
        client_secret = "s"
        timeout = "5s"
        extra_params = { a = "1" }

        [accounts.zoe]
        token_file = "zoe"
        timeout = "6s"

        [accounts.adam]
        token_file = "/t/adam"
        client_id = "own"

        [accounts.eve]
        token_file = "eve"
        issuer = "https://id.example"
        extra_params = { b = "2" }
        "#,
    )
    .unwrap();
    let [zoe, adam, eve] = &settings.accounts[..] else { panic!("three accounts") };
    assert_eq!([&zoe.name, &adam.name, &eve.name].map(AccountName::as_str), ["zoe", "adam", "eve"]);
    assert_eq!((zoe.timeout.as_secs(), adam.timeout.as_secs()), (6, 5));
    let id = |account: &AccountConfig| match &account.client_id {
        SecretSource::Inline(id) => id.expose().to_owned(),
        source => panic!("{source:?}"),
    };
    assert_eq!((id(zoe).as_str(), id(adam).as_str()), ("shared", "own"));
    // A secret goes with its client_id, and a preset with its endpoint.
    assert!(zoe.client_secret.is_some() && adam.client_secret.is_none());
    assert_eq!(
        [zoe, adam, eve].map(|account| account.auth_method),
        [AuthMethod::ClientSecretPost, AuthMethod::None, AuthMethod::ClientSecretBasic]
    );
    assert_eq!(eve.endpoint, Endpoint::Discovered { issuer: "https://id.example".into() });
    assert_eq!(zoe.extra_params, [("a".to_owned(), SecretSource::Inline(Secret::new("1")))]);
    assert_eq!(eve.extra_params, [("b".to_owned(), SecretSource::Inline(Secret::new("2")))]);
    assert_eq!(zoe.token_file.path, Path::new("/c/zoe"));
}

#[test]
fn two_accounts_share_no_login_and_no_token_file() {
    let two = |a: &str, b: &str| message(&format!("{BASE}[accounts.a]\n{a}\n[accounts.b]\n{b}\n"));
    for (a, b) in [
        ("\" same\"", "\"same \""),
        ("{ file = \"r\" }", "{ file = \"/c/x/../r\" }"),
        ("{ env = \"R\" }", "{ env = \"R\" }"),
        ("{ command = [\"r\"] }", "{ command = [\"r\"] }"),
        ("{ credential = \"r\" }", "{ credential = \"r\" }"),
    ] {
        let shown = two(
            &format!("token_file = \"a\"\nrefresh_token = {a}"),
            &format!("token_file = \"b\"\nrefresh_token = {b}"),
        );
        assert!(
            shown.starts_with("/c/config.toml:8:17: `refresh_token` is also that of account `a`"),
            "{shown}"
        );
    }
    let shown = two("token_file = \"t\"", "token_file = \"/c/./t\"");
    assert!(shown.starts_with("/c/config.toml:6:14: `token_file` is also that of account `a`"), "{shown}");
}

#[test]
fn endpoints_may_be_http_where_it_is_safe_or_asked_for() {
    for url in ["http://127.9.9.9:1/t", "http://[::1]:1/t", "http://localhost/t", "https://a.example/t?x=1"] {
        account(&format!("token_endpoint = \"{url}\""));
    }
    account("token_endpoint = \"http://a.example/t\"\nallow_http = true");
}

#[test]
fn explicit_keys_win_over_the_issuer_and_the_preset() {
    let both = "issuer = \"https://id.example/\"\ntoken_endpoint = \"https://a.example/t\"";
    assert_eq!(account(both).endpoint, Endpoint::Explicit("https://a.example/t".parse().unwrap()));
    let issuer = account("issuer = \"https://id.example\"").endpoint.clone();
    assert_eq!(issuer, Endpoint::Discovered { issuer: "https://id.example".into() });
}

#[test]
fn a_preset_fills_what_the_config_leaves_open() {
    let read = |lines: &str| {
        let settings = parse_text(&format!("client_id = \"id\"\n{lines}\n")).unwrap();
        Arc::clone(&settings.accounts[0])
    };
    for (lines, endpoint) in [
        ("provider = \"microsoft\"", "https://login.microsoftonline.com/common/oauth2/v2.0/token"),
        ("provider = \"gitlab\"\nhost = \"git.example\"", "https://git.example/oauth/token"),
        ("provider = \"shopify\"\nshop = \"a\"", "https://a.myshopify.com/admin/oauth/access_token"),
        ("provider = \"zoho\"\ndata_center = \"com.au\"", "https://accounts.zoho.com.au/oauth/v2/token"),
    ] {
        assert_eq!(read(lines).endpoint, Endpoint::Explicit(endpoint.parse().unwrap()), "{lines}");
    }
    let notion = read("provider = \"notion\"\nrequest_headers = { Notion-Version = \"2025-09-03\" }");
    assert!(notion.request_body.as_ref().is_some_and(crate::oauth::BodyTemplate::is_json));
    assert_eq!(notion.request_headers.len(), 1, "the user's own wins");
    assert_eq!(read("provider = \"withings\"").extra_params.len(), 1);
}

#[test]
fn values_are_understood() {
    let all = account(
        r#"
        token_file = "~/t"
        token_file_mode = "644"
        token_file_owner = 1000
        token_file_group = "mail"
        scope = """
        a
        b"""
        resource = "r"
        write = "in-place"
        refresh_token = { command = ["./bin/get", "-n"] }
        confirmed_endpoint_host = "ID.example"
        skew = "1m 30s"
        "#,
    );
    assert_eq!(all.token_file.path, Path::new("/home/u/t"));
    assert_eq!(all.token_file.mode, 0o644);
    assert_eq!(all.token_file.owner, Some(Principal::Id(1000)));
    assert_eq!(all.token_file.group, Some(Principal::Name("mail".into())));
    assert_eq!(all.token_file.write, WriteMode::InPlace);
    assert_eq!(all.scope.as_deref(), Some("a b"));
    assert_eq!(all.resource, ["r"]);
    assert_eq!(all.refresh_token, Some(SecretSource::Command(vec!["/c/./bin/get".into(), "-n".into()])));
    assert_eq!(all.confirmed_endpoint_host.as_deref(), Some("id.example"));
    assert_eq!(all.skew, Some(Duration::from_secs(90)));
    let settings = parse_text(&format!("{BASE}token_file_mode = \"0644\"")).unwrap();
    assert!(settings.warnings[0].to_string().contains("every user of this machine"));
}

#[test]
fn the_state_is_where_the_config_says() {
    for (path, expected) in [
        ("/etc/zg-tokend/mail.toml", "/var/lib/zg-tokend/mail"),
        ("/etc/zg-tokend/mail.conf", "/home/u/.local/state/zg-tokend"),
        ("/etc/zg-tokend/d/mail.toml", "/home/u/.local/state/zg-tokend"),
        ("/c/config.toml", "/home/u/.local/state/zg-tokend"),
    ] {
        let settings = parse(MINIMAL, Path::new(path), &environment()).unwrap();
        assert_eq!(settings.state_dir, Path::new(expected), "{path}");
    }
    let homeless = Environment::default();
    let error = parse(MINIMAL, Path::new("/c/config.toml"), &homeless).unwrap_err();
    assert!(error.to_string().contains("missing key `state_dir`"), "{error}");
    let tilde = format!("{MINIMAL}state_dir = \"~/s\"");
    let error = parse(&tilde, Path::new("/c/config.toml"), &homeless).unwrap_err();
    assert!(error.to_string().contains("no home directory is known"), "{error}");
}

#[test]
fn the_config_is_looked_for_in_three_places() {
    let mut environment = environment();
    let locate = |flag, environment: &Environment| locate(flag, environment).unwrap();
    assert_eq!(locate(None, &environment), Path::new("/home/u/.config/zg-tokend/config.toml"));
    environment.config_file = Some("/e".into());
    assert_eq!(locate(None, &environment), Path::new("/e"));
    assert_eq!(locate(Some(Path::new("f")), &environment), Path::new("f"));
    let error = crate::config::locate(None, &Environment::default()).unwrap_err();
    assert!(matches!(error, ConfigError::NoHome) && error.hint().unwrap().contains("--config"));
}

fn load_with_mode(text: &str, mode: u32) -> Result<Settings, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    load(&path, &environment(), Symlinks::Follow)
}

#[test]
fn a_config_with_a_secret_is_for_its_owner_only() {
    load_with_mode(MINIMAL, 0o600).unwrap();
    let own_group = owner::group_name(rustix::process::getegid().as_raw())
        == owner::user_name(rustix::process::geteuid().as_raw());
    assert_eq!(load_with_mode(MINIMAL, 0o640).is_ok(), own_group);
    for mode in [0o604, 0o644] {
        let error = load_with_mode(MINIMAL, mode).unwrap_err();
        assert!(matches!(error, ConfigError::Readable { .. }), "{mode:o} {error}");
        assert!(error.hint().unwrap().starts_with("chmod 600 /"));
    }
    load_with_mode(BASE, 0o644).unwrap();
    load_with_mode(&format!("{BASE}refresh_token = {{ file = \"r\" }}"), 0o644).unwrap();
}

#[test]
fn a_config_that_others_can_change_is_refused() {
    let error = load_with_mode(BASE, 0o602).unwrap_err();
    assert!(matches!(error, ConfigError::Writable { .. }), "{error}");
    let settings = load_with_mode(BASE, 0o660).unwrap();
    assert_eq!(settings.warnings, [ConfigWarning::ConfigGroupWritable { mode: 0o660 }]);
    for (uid, effective, stranger) in
        [(0, 0, false), (0, 1000, false), (1000, 1000, false), (1000, 0, true), (1001, 1000, true)]
    {
        let refused = check_owner(Path::new("/c"), uid, 0o600, effective);
        assert_eq!(matches!(refused, Err(ConfigError::Stranger { .. })), stranger, "{uid} {effective}");
    }
}

#[test]
fn a_file_that_is_none_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let missing = load(&directory.path().join("none"), &environment(), Symlinks::Follow).unwrap_err();
    assert!(matches!(missing, ConfigError::Missing { .. }));
    assert!(
        missing.hint().unwrap().contains("zg-tokend demo") && missing.example().unwrap().contains(MINIMAL)
    );
    let not_a_file = load(directory.path(), &environment(), Symlinks::Follow).unwrap_err();
    assert!(matches!(not_a_file, ConfigError::Read { .. }), "{not_a_file}");
    assert_eq!(not_a_file.hint().as_deref(), Some("write the path of the file, not of its directory"));
    assert!(matches!(load_with_mode(&"#".repeat(MAX_LEN + 1), 0o600), Err(ConfigError::Read { .. })));
    let path = directory.path().join("latin1");
    std::fs::write(&path, b"scope = \"\xfc\"").unwrap();
    let not_utf8 = load(&path, &environment(), Symlinks::Follow).unwrap_err();
    assert!(matches!(not_utf8, ConfigError::Read { .. }), "{not_utf8}");
    assert_eq!(not_utf8.hint().as_deref(), Some("save it as UTF-8 text"));
}

#[test]
fn account_names_are_file_names() {
    for name in ["a", "A.b_c@d-e", "0", &"x".repeat(64)] {
        assert!(name.parse::<AccountName>().is_ok(), "{name}");
    }
    for name in ["", ".", "..", ".a", "-a", "@a", "a/b", "a b", "ä", "a\n", &"x".repeat(65)] {
        assert!(name.parse::<AccountName>().is_err(), "{name}");
    }
}

#[test]
fn a_push_is_strict_and_has_defaults() {
    let push = |text: &str| account(&format!("push = [{{ {text} }}]")).push[0].clone();
    let default = push("url = \"http://localhost:8741/v1/token\"");
    assert!(default.is_json() && default.api_key.is_none());
    let (access_token, scope) = (&Secret::new("t"), "");
    let values =
        Values { access_token, token_type: "", id_token: None, scope, account: "", expires_at: 1, now: 0 };
    assert_eq!(default.body.render(&values).unwrap().expose(), r#"{"token": "t"}"#);
    for (text, words) in [
        ("url = \"http://other.example/\"", "unencrypted"),
        ("body = \"{access_token}\"", "url"),
        ("url = \"https://a.example\", bdoy = \"x\"", "bdoy"),
        ("url = \"https://a.example\", body = \"x\"", "{access_token}"),
        ("url = \"https://a.example\", headers = { Host = \"x\" }", "host"),
        ("url = \"https://a.example\", headers = { \"a b\" = \"x\" }", "name"),
        ("url = \"https://a.example\", headers = { a = \"x\\n\" }", "value"),
        (
            "url = \"https://a.example\", api_key = \"SECRET\", headers = { Authorization = \"SECRET\" }",
            "beside",
        ),
        ("url = \"https://a.example\", api_key = \"\"", "empty"),
    ] {
        let message = message(&format!("{BASE}push = [{{ {text} }}]"));
        assert!(message.contains(words) && !message.contains("SECRET"), "{text}: {message}");
    }
    let text = format!("{BASE}[[push]]\nurl = \"https://a.example\"\n[accounts.a]\ntoken_file = \"a\"\n");
    assert!(message(&text).contains("push"), "two accounts must not share a target");
}

#[test]
fn loopback_hosts() {
    for url in [
        "http://127.0.0.1/",
        "http://127.9.9.9:1/",
        "http://[::1]/",
        "http://localhost/",
        "http://localhost./",
    ] {
        assert!(is_loopback(&url.parse().unwrap()), "{url}");
    }
    for url in [
        "http://10.0.0.1/",
        "http://localhost.example/",
        "http://a.localhost/",
        "http://[::2]/",
        "http://notlocalhost/",
    ] {
        assert!(!is_loopback(&url.parse().unwrap()), "{url}");
    }
}

#[test]
fn a_probe_is_strict_and_has_a_default() {
    let probe = |text: &str| account(&format!("probe = {{ {text} }}")).probe.clone().unwrap();
    assert_eq!(probe("url = \"http://localhost/me\"").every, Duration::from_secs(300));
    assert_eq!(probe("url = \"https://a.example\", every = \"5s\"").every, Duration::from_secs(5));
    for (text, words) in [
        ("every = \"5m\"", "url"),
        ("url = \"http://other.example/\"", "unencrypted"),
        ("url = \"https://u:SECRET@a.example/\"", "user name or password"),
        ("url = \"https://a.example\", every = \"4s\"", "between 5s and 1day"),
        ("url = \"https://a.example\", every = \"2days\"", "between 5s and 1day"),
        ("url = \"https://a.example\", evry = \"5m\"", "evry"),
    ] {
        let message = message(&format!("{BASE}probe = {{ {text} }}"));
        assert!(message.contains(words) && !message.contains("SECRET"), "{text}: {message}");
    }
    // Each account's token goes where its own table says, and nowhere else.
    let text = format!("{BASE}probe.url = \"https://a.example\"\n[accounts.a]\ntoken_file = \"a\"\n");
    assert!(message(&text).contains("probe"), "two accounts must not share a probe");
}
