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
