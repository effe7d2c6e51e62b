//! `from`, and a client_id from elsewhere.

use crate::config::tests::*;

#[test]
fn an_account_may_use_the_login_of_another() {
    const TWO: &str = r#"
        token_endpoint = "https://a.example/t"
        scope = "top"

        [accounts.mail]
        from = "work"
        scope = "imap"
        token_file = "mail"

        [accounts.work]
        client_id = "id"
        client_secret = "s"
        refresh_token = "rt"
        extra_params = { a = "1" }
        timeout = "6s"
        token_file = "work"
        "#;
    let settings = parse_text(TWO).unwrap();
    let [mail, work] = &settings.accounts[..] else { panic!("two accounts") };
    assert_eq!((mail.login_account(), work.login_account()), (&work.name, &work.name));
    assert_eq!(mail.client_id, work.client_id);
    assert_eq!((&mail.client_secret, &mail.refresh_token), (&work.client_secret, &work.refresh_token));
    assert_eq!((&mail.extra_params, mail.timeout), (&work.extra_params, work.timeout));
    assert_eq!((mail.scope.as_deref(), work.scope.as_deref()), (Some("imap"), Some("top")));

    for (line, expected) in [
        ("client_id = \"own\"", "`from` stands beside `client_id`"),
        ("refresh_token = \"own\"", "`from` stands beside `refresh_token`"),
        ("token_endpoint = \"https://b.example/t\"", "`from` stands beside `token_endpoint`"),
    ] {
        let error = parse_text(&TWO.replace("scope = \"imap\"", line)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let error = parse_text(&TWO.replace("from = \"work\"", "from = \"home\"")).unwrap_err();
    assert!(error.to_string().contains("names no account"), "{error}");
    let error = parse_text(&TWO.replace("from = \"work\"", "from = \"mail\"")).unwrap_err();
    assert!(error.to_string().contains("has `from` as well"), "{error}");
    let error =
        parse_text("token_endpoint = \"https://a.example/t\"\nfrom = \"a\"\nclient_id = \"c\"").unwrap_err();
    assert!(error.to_string().contains("needs [accounts.NAME]"), "{error}");
}

#[test]
fn a_client_id_may_come_from_elsewhere() {
    let settings = parse_text(
        "token_endpoint = \"https://a.example/t\"\nclient_id = { env = \"ZG_CLIENT\" }\nrefresh_token = \"r\"",
    );
    let account = &settings.unwrap().accounts[0];
    assert!(matches!(&account.client_id, SecretSource::Env(name) if name == "ZG_CLIENT"));
    assert_eq!(&*account.secret_variables, ["ZG_CLIENT"]);
}

/// Settings that several accounts have in common are checked once.
#[test]
fn an_account_among_others_has_the_same_settings_as_alone() {
    let tops = [
        "",
        "token_file_mode = \"0640\"\ntoken_file_owner = \"root\"\nskew = \"5m\"\n",
        "client_secret = { file = \"secret\" }\nwrite = \"in-place\"\n",
    ];
    let keys = [
        "refresh_token = \"SEED\"\ntoken_file = \"/t/NAME\"\n",
        "refresh_token = { env = \"SEED\" }\ntoken_file = \"~/NAME\"\n",
        "token_file = \"/t/NAME\"\n",
        "token_file = \"/t/NAME\"\nrefresh_token = \"SEED\"\ntimeout = \"9s\"\n",
    ];
    for top in tops {
        let table = |name: &str, keys: &str| {
            let keys = keys.replace("NAME", name).replace("SEED", &format!("seed_{name}"));
            format!("[accounts.{name}]\n{keys}")
        };
        let names: Vec<_> = (0..2 * keys.len()).map(|number| format!("a{number}")).collect();
        let tables: Vec<_> =
            names.iter().zip(keys.iter().cycle()).map(|(name, keys)| table(name, keys)).collect();
        let together = parse_text(&format!("{BASE}{top}{}", tables.concat())).unwrap().accounts;
        for (account, table) in together.iter().zip(&tables) {
            let alone = parse_text(&format!("{BASE}{top}{table}")).unwrap().accounts.remove(0);
            assert_eq!(account.common, alone.common, "{table}");
            assert_eq!(account.token_file, alone.token_file, "{table}");
            assert_eq!((&account.name, &account.from), (&alone.name, &alone.from), "{table}");
            assert_eq!(account.refresh_token, alone.refresh_token, "{table}");
        }
    }
    let broken =
        format!("{BASE}{0}a]\ntoken_file = \"/t/a\"\n{0}b]\ntoken_file = \"$HOME/b\"\n", "[accounts.");
    assert!(message(&broken).contains("config.toml:6:14"), "{}", message(&broken));
}
