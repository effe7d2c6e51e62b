//! The end of a login: revoked at the server first, then forgotten here.

use std::sync::Arc;

use url::Url;

use crate::account::client::Client;
use crate::account::context::Context;
use crate::account::files::Files;
use crate::account::sealing::{self, KeyUse};
use crate::account::set::{has_login, lock};
use crate::account::sources::read;
use crate::clock::{SystemClock, Timestamp};
use crate::config::{AccountConfig, Settings};
use crate::http::discovery;
use crate::login::revocation::{TokenKind, revoke};
use crate::message::local;
use crate::oauth::TokenClient;
use crate::problem::{Class, Problem};
use crate::refresh::record::{AccessToken, Record};
use crate::refresh::stored::StoredSecret;
use crate::secret::Secret;
use crate::workers;

/// The result of a logout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedOut {
    /// There was a login.
    pub had_login: bool,
    /// Worth a warning each, with the next step.
    pub warnings: Vec<(String, String)>,
}

/// Revokes the login and forgets it. With `local` the server is not asked.
///
/// Under the lock, so that no refresh is under way. A server that cannot be reached changes nothing: a
/// login that is forgotten here and alive there would be out of anybody's control.
pub async fn logout(
    settings: &Arc<Settings>,
    account: &Arc<AccountConfig>,
    context: &Context,
    is_local: bool,
) -> Result<LoggedOut, Problem> {
    has_login(account)?;
    let client = Client::new(settings, account);
    let (server, seed, keys) = if is_local {
        // A sealed login can be forgotten without its key.
        (None, configured_seed(account).await, None)
    } else {
        let keys = sealing::read_keys(settings, account, KeyUse::Open, context.inline).await?;
        let inputs = client.read_inputs(context).await?;
        let endpoint = revocation_endpoint(&client, &client.account(), context).await?;
        let seed = match (inputs.seed, inputs.seed_problem) {
            (Some(seed), _) => ConfiguredSeed::Read(seed),
            (None, Some(_)) => ConfiguredSeed::Unread,
            (None, None) => ConfiguredSeed::None,
        };
        (Some((inputs.client, endpoint)), seed, keys)
    };
    let (mut files, record) = {
        let (settings, account) = (Arc::clone(settings), Arc::clone(account));
        workers::run(move || {
            let mut files = Files::new(&settings, &account, true).with_keys(keys);
            let record = lock(&mut files, SystemClock::new())?;
            Ok::<_, Problem>((files, record))
        })
        .await?
    };
    let config = settings.path.to_string_lossy().into_owned();
    let mut record = record.unwrap_or_else(|| Record::new(account.name.as_str(), config));
    let tokens = refresh_tokens(&record, &seed);
    let had_login = !tokens.is_empty() || record.access_token.is_some();
    let now = context.clock.now();
    let warnings = match &server {
        None => live_tokens(&record, !tokens.is_empty(), now),
        Some((token_client, endpoint)) => {
            let revocation = Revocation { token_client, endpoint, client: &client, context };
            revocation.all(&record, &tokens, now).await?
        }
    };
    record.log_out();
    match seed {
        ConfiguredSeed::Read(seed) => record.list_seed(seed.fingerprint()),
        ConfiguredSeed::Unread => record.config_is_older = true,
        ConfiguredSeed::None => {}
    }
    let users = settings.accounts.iter().filter(|other| other.from.as_ref() == Some(&account.name));
    let mut users: Vec<_> = users.map(|user| Files::new(settings, user, true)).collect();
    workers::run(move || {
        files.persist(&record)?;
        users.iter_mut().chain([&mut files]).try_for_each(Files::remove)
    })
    .await?;
    Ok(LoggedOut { had_login, warnings })
}

/// The refresh_token in the config. It must not be used after a logout.
enum ConfiguredSeed {
    None,
    Read(Secret),
    Unread,
}

async fn configured_seed(account: &AccountConfig) -> ConfiguredSeed {
    match &account.refresh_token {
        None => ConfiguredSeed::None,
        Some(source) => {
            read(account, "refresh_token", source).await.map_or(ConfiguredSeed::Unread, ConfiguredSeed::Read)
        }
    }
}

/// The refresh tokens that may live: that of the state, the one before it, and an unused one in the config.
fn refresh_tokens(record: &Record, seed: &ConfiguredSeed) -> Vec<StoredSecret> {
    let stored = [&record.refresh_token, &record.previous].into_iter().flatten();
    let mut tokens: Vec<_> = stored.map(|token| token.value.clone()).collect();
    if let ConfiguredSeed::Read(seed) = seed
        && !record.config_is_older
        && !record.seeds.contains(&seed.fingerprint())
    {
        tokens.push(seed.clone().into());
    }
    tokens
}

async fn revocation_endpoint(
    client: &Client,
    account: &AccountConfig,
    context: &Context,
) -> Result<Url, Problem> {
    if let Some(url) = &account.login.revocation_endpoint {
        return Ok(url.clone());
    }
    if let Some(issuer) = &account.issuer
        && let Some(url) = discovery::fetch(&client.endpoint(context), issuer).await?.revocation_endpoint
    {
        return Ok(url);
    }
    Err(Problem::of(Class::Config, "no_endpoint", "the login cannot be revoked from here")
        .cause("neither the config nor the issuer names a revocation_endpoint")
        .hint(
            "revoke it on the provider's page, then forget it here with --local; or set revocation_endpoint",
        ))
}

struct Revocation<'a> {
    client: &'a Client,
    context: &'a Context,
    token_client: &'a Arc<TokenClient>,
    endpoint: &'a Url,
}

impl Revocation<'_> {
    async fn revoke(&self, kind: TokenKind, token: &Secret) -> Result<(), Problem> {
        let client = self.client.renewed(self.token_client, self.context).await?;
        let http = self.client.endpoint_for(&client, self.context);
        revoke(&http, &client, self.endpoint, kind, token).await
    }

    /// The refresh tokens must go. An access token ends soon by itself.
    async fn all(
        &self,
        record: &Record,
        tokens: &[StoredSecret],
        now: Timestamp,
    ) -> Result<Vec<(String, String)>, Problem> {
        for token in tokens {
            let token = sealing::open(token)?;
            self.revoke(TokenKind::RefreshToken, token).await?;
        }
        let mut warnings = Vec::new();
        for token in live(record, now) {
            if let Err(problem) = self.revoke(TokenKind::AccessToken, &token.value).await {
                let until = local(token.expires_at().wall / 1000);
                let text =
                    format!("the access token was not revoked and works until {until}: {}", problem.whole());
                warnings.push((text, "wait until then, or revoke it on the provider's page".into()));
            }
        }
        Ok(warnings)
    }
}

/// The live access tokens of the login: its own, and those of accounts that use it.
fn live(record: &Record, now: Timestamp) -> impl Iterator<Item = &AccessToken> {
    let others = record.tokens.values().filter_map(|part| part.access_token.as_ref());
    record.access_token.iter().chain(others).filter(move |token| token.is_live(now))
}

/// The warnings of a logout on this machine alone.
fn live_tokens(record: &Record, has_login: bool, now: Timestamp) -> Vec<(String, String)> {
    let mut warnings = Vec::new();
    let way_out = "revoke the login on the provider's page: copies of its tokens work until then";
    if has_login {
        let until = match &record.login_life {
            Some(life) => format!("until {}", local(life.ends_at().wall / 1000)),
            None => "until somebody revokes it".to_owned(),
        };
        warnings
            .push((format!("the server was not told: the refresh token works {until}"), way_out.to_owned()));
    }
    for token in live(record, now) {
        let until = local(token.expires_at().wall / 1000);
        warnings.push((format!("the access token works until {until}"), way_out.to_owned()));
    }
    warnings
}
