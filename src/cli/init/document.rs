//! The text of the new config, with a comment on each key.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use crate::cli::init::answers::Answers;
use crate::cli::init::ask::Source;
use crate::config::edit::quoted;

/// Room for the whole text: a string that grows would leave copies of its secrets behind.
const ROOM: usize = 256 * 1024;

/// How the secrets of the answers are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    Written,
    /// As `…`, for people.
    Masked,
}

/// A whole config.
pub(super) fn render(answers: &Answers) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(ROOM));
    // Writing to a string does not fail.
    let _ = writeln!(text, "# Config of zg-tokend(1). All keys: zg-tokend man config | man -l -");
    if answers.account.is_some() {
        let _ = writeln!(text, "\n# `zg-tokend init --account NAME` adds a table like this one.");
    }
    let _ = write(&mut text, answers, Secrets::Written);
    text
}

/// The table of the account alone.
pub(super) fn table(answers: &Answers, secrets: Secrets) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(ROOM));
    let _ = write(&mut text, answers, secrets);
    text
}

fn write(text: &mut String, answers: &Answers, secrets: Secrets) -> std::fmt::Result {
    match &answers.account {
        Some(account) => writeln!(text, "[accounts.{}]", key(account))?,
        None => writeln!(text)?,
    }
    let (key, value) = &answers.server;
    writeln!(text, "# The server that issues the tokens.\n{key} = {}", quoted(value))?;
    for (key, value) in &answers.parts {
        writeln!(text, "{key} = {}", quoted(value))?;
    }
    let machine = &answers.machine;
    if let Some(client_id) = &answers.client_id {
        writeln!(text, "\n# Your OAuth client.\nclient_id = {}", quoted(client_id))?;
        match &answers.client_secret {
            Some(secret) => line(text, "client_secret", secret, secrets)?,
            None if machine.proof.is_empty() => writeln!(text, "# A public client has no client_secret.")?,
            None => {}
        }
    }
    for (key, value) in &machine.proof {
        line(text, key, value, secrets)?;
    }
    match &answers.refresh_token {
        Some(token) => {
            writeln!(
                text,
                "\n# Your login. zg-tokend reads it once and keeps later refresh tokens in its state; it never changes\n\
                 # this line. After a new login, write the new refresh token here, or pass it to `zg-tokend set`."
            )?;
            line(text, "refresh_token", token, secrets)?;
        }
        None if !machine.grant_type.has_login() => {
            writeln!(text, "\n# Nobody logs in: each request is made anew.")?;
        }
        None if answers.can_log_in() => {
            let scope = if *key == "issuer" { "openid email offline_access" } else { "openid email" };
            writeln!(
                text,
                "\n# Your login comes from `zg-tokend login`, which keeps it in the state. Its scope:\n\
                 #login_scope = \"{scope}\""
            )?;
        }
        None => writeln!(text, "\n# Pass the refresh token to `zg-tokend set` on standard input.")?,
    }
    if let Some(grant_type) = machine.stated_grant() {
        writeln!(text, "grant_type = {}", quoted(grant_type))?;
    }
    for (key, value) in &machine.wanted {
        line(text, key, value, secrets)?;
    }
    writeln!(text, "\n# The file that gets the access token.")?;
    match &answers.token_file {
        Some(path) => writeln!(text, "token_file = {}", quoted(path)),
        None => writeln!(text, "#token_file = \"~/.config/zerogravity/token\""),
    }
}

fn line(text: &mut String, key: &str, source: &Source, secrets: Secrets) -> std::fmt::Result {
    match source {
        Source::Text(value) => writeln!(text, "{key} = {}", quoted(value)),
        Source::Inline(_) if secrets == Secrets::Masked => writeln!(text, "{key} = \"…\""),
        Source::Inline(secret) => {
            let secret = Zeroizing::new(quoted(secret.expose()));
            writeln!(text, "{key} = {}", *secret)
        }
        Source::File(path) => writeln!(text, "{key} = {{ file = {} }}", quoted(path)),
        Source::Env(name) => writeln!(text, "{key} = {{ env = {} }}", quoted(name)),
    }
}

/// A name as it is where TOML permits it, else in quotes.
fn key(name: &str) -> String {
    let is_bare = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if is_bare { name.to_owned() } else { quoted(name) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::cli::args::Init;
    use crate::cli::init::document::*;
    use crate::cli::init::machine::MachineKeys;
    use crate::config;
    use crate::config::{Environment, SecretSource};
    use crate::secret::Secret;

    #[test]
    fn it_reads_back_as_it_was_answered() {
        let odd = "a\"b\\c 'd' # é\u{7f}";
        for account in [None, Some("work@example.com".to_owned())] {
            let answers = Answers {
                account: account.clone(),
                server: ("issuer", "https://login.example".to_owned()),
                parts: Vec::new(),
                client_id: Some("id \"x\" # y".to_owned()),
                client_secret: Some(Source::Inline(Secret::new("s\"e\\c"))),
                refresh_token: Some(Source::File(format!("/{odd}"))),
                machine: MachineKeys::of_flags(&Init::default(), None, false).unwrap(),
                token_file: Some("/token".to_owned()),
            };
            let text = render(&answers);
            let settings = config::parse(
                &text,
                Path::new("/etc/x.toml"),
                &Environment { state_home: Some("/state".into()), ..Environment::default() },
            );
            let settings = settings.unwrap_or_else(|error| panic!("{error}\n{}", *text));
            let read = &settings.accounts[0];
            assert_eq!(read.name.as_str(), account.as_deref().unwrap_or("default"));
            assert_eq!(read.client_id, SecretSource::Inline(Secret::new("id \"x\" # y")));
            assert_eq!(read.client_secret, Some(SecretSource::Inline(Secret::new("s\"e\\c"))));
            assert_eq!(read.refresh_token, Some(SecretSource::File(format!("/{odd}").into())));
            assert!(text.capacity() == ROOM, "no copies");
        }
    }
}
