//! The values of a new config: from flags, from a file, and from questions on the terminal.

use crate::cli::args::Init;
use crate::cli::init::ask::{Source, absolute, hidden, letter, needed, optional, source};
use crate::cli::init::error::InitError;
use crate::cli::init::google::GoogleFile;
use crate::cli::init::guess::WrongGuess;
use crate::cli::init::machine::MachineKeys;
use crate::cli::init::{google, guess};
use crate::cli::{output, prompt};
use crate::oauth::providers::{PROVIDERS, Placeholder, Provider};
use crate::oauth::{GrantType, providers};

pub(super) struct Answers {
    /// `None` for a flat config.
    pub(super) account: Option<String>,
    /// `provider`, `issuer` or `token_endpoint`, and its value.
    pub(super) server: (&'static str, String),
    /// `tenant` and its like, each with its value.
    pub(super) parts: Vec<(&'static str, String)>,
    /// `None` if the grant says who asks.
    pub(super) client_id: Option<String>,
    /// `None` for a public client, or one that proves itself otherwise.
    pub(super) client_secret: Option<Source>,
    /// `None` if `zg-tokend login` or `set` will store it, or nobody logs in.
    pub(super) refresh_token: Option<Source>,
    pub(super) machine: MachineKeys,
    pub(super) token_file: Option<String>,
}

impl Answers {
    /// Takes the flags, then asks for the rest. Without a terminal, one error names all that is missing.
    pub(super) fn collect(account: Option<&str>, flags: &Init) -> Result<Self, InitError> {
        let google = flags.from.as_deref().map(google::read).transpose()?;
        let is_machine = matches!(google, Some(GoogleFile::Machine));
        let (id, secret, token) = match google {
            Some(GoogleFile::User(user)) => {
                (Some(user.client_id), user.client_secret, Some(user.refresh_token))
            }
            _ => (None, None, None),
        };
        let preset = if is_machine { Some("google-service-account") } else { id.as_ref().map(|_| "google") };
        let mut server = server(flags).or_else(|| preset.map(|name| ("provider", name.to_owned())));
        let mut parts = parts(flags);
        if server.as_ref().is_some_and(|(key, _)| *key == "provider") {
            parts.extend(flags.issuer.clone().map(|issuer| ("issuer", issuer)));
        }
        let mut client_id = flags.client_id.clone().or(id);
        let mut client_secret =
            source(flags.client_secret_file.as_deref(), flags.client_secret_env.as_deref())?
                .or(secret.map(Source::Inline));
        let mut refresh_token =
            source(flags.refresh_token_file.as_deref(), flags.refresh_token_env.as_deref())?
                .or(token.map(Source::Inline));
        let mut token_file = flags.token_file.as_deref().map(absolute).transpose()?;
        let asks = prompt::can_ask() && !flags.refresh_token_stdin;
        if asks {
            let chosen = server.map_or_else(|| ask_for_server(flags.offline), Ok)?;
            if let Some((provider, place)) = missing_part(&chosen, &parts) {
                parts.extend(ask_for_part(provider.token_endpoint, place)?);
            }
            server = Some(chosen);
        }
        let preset = server.as_ref().and_then(preset_of);
        let mut machine = MachineKeys::of_flags(flags, preset, is_machine)?;
        if asks {
            if preset.is_none() && flags.grant_type.is_none() && refresh_token.is_none() {
                machine.ask_for_grant()?;
            }
            if client_id.is_none() && machine.needs_client_id() {
                client_id = Some(needed("client_id: ")?);
            } else if client_id.is_none() && machine.grant_type == GrantType::TokenExchange {
                client_id = optional("client_id (empty if the token says who asks): ")?;
            }
            if client_secret.is_none() && client_id.is_some() {
                client_secret = machine.ask_for_proof()?;
            }
            if !machine.grant_type.has_login() {
                machine.ask_for_wanted()?;
            } else if refresh_token.is_none() {
                let note = if server.as_ref().is_some_and(has_login_page) {
                    "empty to run `zg-tokend login` later, not shown"
                } else {
                    "empty to pass it to `zg-tokend set` later, not shown"
                };
                refresh_token = hidden("refresh_token", note)?;
            }
            // A typed path means what it means in a config: relative to the file, or from ~/ on.
            token_file = match (token_file, account) {
                (None, None) => optional("token_file [~/.config/zerogravity/token]: ")?,
                (None, Some(_)) => Some(needed("token_file: ")?),
                (given, _) => given,
            };
        } else if flags.refresh_token_stdin {
            refresh_token = Some(Source::Inline(prompt::piped("refresh token").map_err(InitError::Answer)?));
        }
        let part = server.as_ref().and_then(|server| missing_part(server, &parts));
        let part = part.filter(|(_, place)| place.default.is_none());
        let part = part.map(|(_, place)| format!("--{}", place.key.replace('_', "-")));
        let needs_token = machine.grant_type.has_login() && !server.as_ref().is_some_and(has_login_page);
        let missing = [
            (server.is_none(), "--provider, --issuer or --token-endpoint"),
            (part.is_some(), part.as_deref().unwrap_or_default()),
            (client_id.is_none() && machine.needs_client_id(), "--client-id"),
            (
                refresh_token.is_none() && !asks && needs_token,
                "--refresh-token-file, --refresh-token-env or --refresh-token-stdin",
            ),
        ];
        let missing = missing.into_iter().filter_map(|(is, name)| is.then_some(name));
        let missing = missing.chain(machine.missing(client_secret.is_some()));
        let place = (account.is_some() && token_file.is_none()).then_some("--token-file");
        let missing: Vec<_> = missing.chain(place).collect();
        match server {
            Some(server) if missing.is_empty() => {
                let account = account.map(str::to_owned);
                Ok(Self {
                    account,
                    server,
                    parts,
                    client_id,
                    client_secret,
                    refresh_token,
                    machine,
                    token_file,
                })
            }
            _ => Err(InitError::Missing(missing.join("; "))),
        }
    }

    /// Whether `zg-tokend login` works with it.
    pub(super) fn can_log_in(&self) -> bool {
        self.machine.grant_type.has_login() && has_login_page(&self.server)
    }
}

fn server(flags: &Init) -> Option<(&'static str, String)> {
    let given =
        [("provider", &flags.provider), ("issuer", &flags.issuer), ("token_endpoint", &flags.token_endpoint)];
    given.into_iter().find_map(|(key, value)| Some((key, value.clone()?)))
}

/// Whether the preset names the endpoint of a login, or the issuer may.
fn has_login_page(server: &(&'static str, String)) -> bool {
    let has_endpoint = |preset: &Provider| preset.authorization_endpoint.is_some();
    server.0 == "issuer" || preset_of(server).is_some_and(has_endpoint)
}

fn preset_of((key, value): &(&'static str, String)) -> Option<&'static Provider> {
    (*key == "provider").then(|| providers::find(value)).flatten()
}

fn parts(flags: &Init) -> Vec<(&'static str, String)> {
    let given = [
        ("tenant", &flags.tenant),
        ("host", &flags.host),
        ("shop", &flags.shop),
        ("data_center", &flags.data_center),
    ];
    given.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect()
}

/// The key whose value is a part of the provider's endpoints, if there is one and it has no value yet.
fn missing_part(
    server: &(&'static str, String),
    parts: &[(&'static str, String)],
) -> Option<(&'static Provider, &'static Placeholder)> {
    let provider = preset_of(server)?;
    let place = provider.place.as_ref().filter(|place| !parts.iter().any(|(key, _)| *key == place.key))?;
    Some((provider, place))
}

/// `None` for the default. `endpoint` shows where the part belongs.
fn ask_for_part(endpoint: &str, place: &Placeholder) -> Result<Option<(&'static str, String)>, InitError> {
    let Placeholder { key, default, values } = place;
    let among = if values.is_empty() { String::new() } else { format!(" ({})", values.join(", ")) };
    let question = format!("{key} in {endpoint}{among}");
    let answer = match default {
        Some(default) => optional(&format!("{question} [{default}]: "))?,
        None => Some(needed(&format!("{question}: "))?),
    };
    Ok(answer.map(|answer| (*key, answer)))
}

/// Asks again until the answer is the name of a preset, or a URL that works or is kept all the same.
fn ask_for_server(offline: bool) -> Result<(&'static str, String), InitError> {
    loop {
        let answer = needed("provider (? lists them), or the URL of an issuer or token endpoint: ")?;
        match which_server(&answer) {
            ("provider", name) if providers::find(&name).is_none() => {
                let all: Vec<_> = PROVIDERS.iter().map(|provider| provider.name).collect();
                let alike: Vec<_> = all.iter().copied().filter(|known| known.contains(&*name)).collect();
                output::hint(format!(
                    "known providers: {}; for another one, enter a URL with https://",
                    if alike.is_empty() { all } else { alike }.join(", ")
                ));
            }
            ("provider", name) => return Ok(("provider", name)),
            (key, url) => match guess::prove(key, &url, offline) {
                Ok(said) => {
                    output::note(said);
                    return Ok((key, url));
                }
                Err(WrongGuess { message, cause, hint }) => {
                    output::error_for(message, Some(&cause), Some(&hint));
                    let question =
                        "i: it is the issuer, t: it is the token endpoint, Enter: another answer [i/t] ";
                    match letter(question, ["i", "t"])? {
                        Some("i") => return Ok(("issuer", url)),
                        Some("t") => return Ok(("token_endpoint", url)),
                        _ => {}
                    }
                }
            },
        }
    }
}

/// A word is a preset; a URL that ends like a token endpoint is one, any other an issuer.
fn which_server(answer: &str) -> (&'static str, String) {
    let key = match answer {
        url if !url.contains("://") => "provider",
        url if url.trim_end_matches('/').ends_with("token") => "token_endpoint",
        _ => "issuer",
    };
    (key, answer.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::cli::init::answers::*;

    #[test]
    fn one_answer_names_any_kind_of_server() {
        for (answer, key) in [
            ("google", "provider"),
            ("https://login.example", "issuer"),
            ("https://login.example/tenant/v2.0", "issuer"),
            ("https://login.example/oauth2/token", "token_endpoint"),
            ("https://login.example/token/", "token_endpoint"),
        ] {
            assert_eq!(which_server(answer), (key, answer.to_owned()));
        }
    }
}
