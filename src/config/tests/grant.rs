//! Grants without a login, and clients with keys.

use crate::config::tests::{message, parse_text};
use crate::oauth::{AuthMethod, GrantType};

const BASE: &str = "token_endpoint = \"https://as.example/token\"\nclient_id = \"id\"\n";

#[test]
fn the_keys_show_how_a_client_proves_itself() {
    for (lines, grant_type, method) in [
        ("", GrantType::RefreshToken, AuthMethod::None),
        ("private_key = { file = \"k\" }", GrantType::RefreshToken, AuthMethod::PrivateKeyJwt),
        (
            "grant_type = \"client_credentials\"\nclient_secret = \"s\"",
            GrantType::ClientCredentials,
            AuthMethod::ClientSecretBasic,
        ),
        (
            "grant_type = \"client_credentials\"\nclient_assertion = { file = \"a\" }",
            GrantType::ClientCredentials,
            AuthMethod::PrivateKeyJwt,
        ),
        (
            "grant_type = \"client_credentials\"\ntls_certificate = \"c\"\ntls_private_key = { file = \"k\" }",
            GrantType::ClientCredentials,
            AuthMethod::TlsClientAuth,
        ),
        // The key signs the grant, not the client.
        (
            "grant_type = \"jwt-bearer\"\nprivate_key = { file = \"k\" }",
            GrantType::JwtBearer,
            AuthMethod::None,
        ),
    ] {
        let account = parse_text(&format!("{BASE}{lines}")).unwrap().accounts.remove(0);
        assert_eq!((account.grant.grant_type, account.auth_method), (grant_type, method), "{lines}");
    }
    let google = parse_text("google_credentials = \"key.json\"").unwrap().accounts.remove(0);
    assert_eq!(google.grant.grant_type, GrantType::GoogleCredentials);
    assert!(!google.can_log_in());
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    let machine = "grant_type = \"client_credentials\"\n";
    for (lines, words) in [
        (
            format!("{machine}client_secret = \"s\"\nrefresh_token = \"r\""),
            "`refresh_token` does not belong to grant_type client_credentials",
        ),
        (machine.to_owned(), "needs a client that proves who it is"),
        (
            format!("{machine}client_secret = \"s\"\nsubject_token = \"t\""),
            "`subject_token` belongs to grant_type token-exchange",
        ),
        ("grant_type = \"token-exchange\"".to_owned(), "missing key `subject_token`"),
        (
            "grant_type = \"token-exchange\"\nsubject_token = \"t\"".to_owned(),
            "missing key `subject_token_type`",
        ),
        ("grant_type = \"jwt-bearer\"".to_owned(), "needs an assertion"),
        ("grant_type = \"password\"".to_owned(), "unknown value"),
        (format!("{machine}certificate = \"c\""), "`certificate` needs a private_key"),
        (format!("{machine}tls_certificate = \"c\""), "needs a tls_private_key"),
        (
            format!("{machine}client_secret = \"s\"\ntoken_endpoint_auth_method = \"private_key_jwt\""),
            "needs a private_key",
        ),
        (
            format!(
                "{machine}client_secret = \"s\"\nprivate_key = \"k\"\ntoken_endpoint_auth_method = \"private_key_jwt\""
            ),
            "uses no client_secret",
        ),
        (format!("{machine}google_credentials = \"k\""), "stands beside google_credentials"),
    ] {
        let said = message(&format!("{BASE}{lines}"));
        assert!(said.contains(words), "{lines}: {said}");
    }
}

#[test]
fn the_recipes_are_valid() {
    let blocks = include_str!("../../../docs/recipes/machines.md").split("```toml\n").skip(1);
    let mut count = 0;
    for block in blocks {
        let block = block.split("```").next().unwrap();
        // The second half of an example.
        let base =
            if block.contains("client_id") || block.contains("google") || block.contains("token-exchange") {
                String::new()
            } else {
                format!("{BASE}grant_type = \"client_credentials\"\n")
            };
        parse_text(&format!("{base}{block}")).unwrap_or_else(|error| panic!("{error}\n{block}"));
        count += 1;
    }
    assert_eq!(count, 6);
}
