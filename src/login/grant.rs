//! The exchange of a code, and the login that comes of it: locked, exchanged, stored, published.

use std::time::Duration;

use crate::account::files::Files;
use crate::account::sealing;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::login::request::ungranted;
use crate::login::revocation::{TokenKind, revoke};
use crate::login::session::{Held, LoggedIn, LoginSession, OlderSeed};
use crate::message::{command, duration};
use crate::oauth::{
    Answer, ExpectedClaims, Grant, Identity, ServerFailure, TokenRequest, TokenResponse, Unavailable,
    check_id_token,
};
use crate::problem::{Class, Problem};
use crate::refresh::PERSIST_PATIENCE;
use crate::refresh::record::{AccessToken, LoginLife, Record};
use crate::refresh::schedule;
use crate::secret::Secret;
use crate::workers;

/// A code works once: it is sent again only if it never left this machine, as while a name server is
/// away for a moment.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);

/// The first pause before a state that could not be stored is stored again, and the longest.
const STORE_PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

impl LoginSession {
    /// Exchanges the code of the redirect and stores the login.
    pub(super) async fn exchange(&self, grant: Grant, nonce: &Secret) -> Result<LoggedIn, Problem> {
        self.exchanging.set(true);
        let held = self.lock(true).await?;
        let mut tries = 1;
        let (issued_at, answer) = loop {
            let request = self.request(grant.clone()).await?;
            let issued_at = self.context.clock.now();
            let answer = Box::pin(self.client.post(&request, None, &self.context)).await;
            if tries == TRIES || !is_unsent(&answer) {
                break (issued_at, answer);
            }
            tries += 1;
            tokio::time::sleep(PAUSE).await;
        };
        Box::pin(self.take(held, answer, issued_at, Some(nonce))).await
    }

    pub(super) async fn request(&self, grant: Grant) -> Result<TokenRequest, Problem> {
        let client = self.client.renewed(&self.server.client, &self.context).await?;
        Ok(TokenRequest { client, grant })
    }

    /// Stores the login in an answer, under the lock that was held for the request.
    pub(super) async fn take(
        &self,
        held: Held,
        answer: Answer,
        issued_at: Timestamp,
        nonce: Option<&Secret>,
    ) -> Result<LoggedIn, Problem> {
        self.exchanging.set(true);
        let (refresh_token, response) = match answer {
            Answer::Granted(mut response) => match response.refresh_token.take() {
                Some(refresh_token) => (refresh_token, Some(response)),
                None => return Err(self.without_refresh_token(held, response, issued_at).await),
            },
            // A login all the same: the first refresh shows what the server means.
            Answer::Defective { refresh_token: Some(refresh_token), .. } => (refresh_token, None),
            answer => return Err(refusal(&answer)),
        };
        let identity = match self.identity(response.as_ref(), &held.record, issued_at, nonce) {
            Ok(identity) => identity,
            Err(problem) => {
                drop(held);
                // Nobody will use it.
                if let Some(endpoint) = &self.server.revocation_endpoint {
                    let http = self.client.endpoint_for(&self.server.client, &self.context);
                    let client = &self.client.renewed(&self.server.client, &self.context).await?;
                    let _ = revoke(&http, client, endpoint, TokenKind::RefreshToken, &refresh_token).await;
                }
                return Err(problem);
            }
        };
        let mut warnings = Vec::new();
        if identity.is_none() {
            warnings.push((
                "the server does not say who has logged in, so another user could take this account over"
                    .into(),
                "add openid to login_scope, if the server knows OpenID Connect".into(),
            ));
        }
        if self.server.lacks_s256 {
            warnings.push((
                "the server does not say that it knows PKCE with S256, which was sent all the same".into(),
                "ask the operator to support it: it protects the code on its way through the browser".into(),
            ));
        }
        // A server that names no scope has granted the requested one (RFC 6749 section 5.1).
        let granted = response.as_ref().and_then(|response| response.scope.as_deref());
        if let (Some(requested), Some(granted)) = (&self.server.scope, granted) {
            let missed = ungranted(requested, granted);
            if !missed.is_empty() {
                warnings.push((
                    format!("the server granted less than the login asked for: not {}", missed.join(", ")),
                    "log in again and allow all of it, or allow the scope for this client in the provider's console".into(),
                ));
            }
        }
        let Held { mut files, mut record } = held;
        let life = response.as_ref().and_then(|response| response.login_expires_in);
        let token = response.as_ref().map(|response| access_token(response, issued_at));
        record.take_login(refresh_token, token, identity.clone(), issued_at);
        record.login_life = life.map(|life| LoginLife::stated(issued_at, life, None));
        match self.older {
            OlderSeed::Known(seed) => record.list_seed(seed),
            OlderSeed::Unread => record.config_is_older = true,
            OlderSeed::None => {}
        }
        record.config = self.settings.path.to_string_lossy().into_owned();
        // Under this lock: the key may have turned up, and the state changed, while a person typed.
        let is_lost = self.keys.as_ref().is_some_and(|keys| keys.is_lost);
        let kept = workers::run(move || {
            let kept = is_lost.then(|| files.store().keep_copy());
            store(files, &record, response.is_some()).map(|()| kept)
        });
        warnings.extend(kept.await?.map(|copy| sealing::lost_login(copy.ok().as_deref())));
        Ok(LoggedIn { identity, warnings })
    }

    /// The user who has logged in, who must be the one of the earlier logins.
    fn identity(
        &self,
        response: Option<&TokenResponse>,
        record: &Record,
        now: Timestamp,
        nonce: Option<&Secret>,
    ) -> Result<Option<Identity>, Problem> {
        let asked =
            self.server.scope.as_deref().is_some_and(|scope| scope.split(' ').any(|word| word == "openid"));
        let refused =
            |message: String, hint: String| Problem::of(Class::NeedsLogin, "identity", message).hint(hint);
        let Some(token) = response.and_then(|response| response.id_token.as_ref()) else {
            return match &self.account.login.identity {
                Some(identity) => Err(refused(
                    format!("the server does not say who has logged in, and only {identity} may"),
                    "add openid to login_scope, or remove identity from the config".into(),
                )),
                None => Ok(None),
            };
        };
        let expected = ExpectedClaims {
            issuer: self.server.issuer.as_deref(),
            client_id: Some(&self.server.client.client_id),
            nonce: nonce.filter(|_| asked),
            now: now.wall / 1000,
        };
        let found = check_id_token(token, &expected).map_err(|fault| {
            refused(
                format!("the ID token of the login {fault}"),
                "log in again; if it happens again, check issuer and client_id in the config".into(),
            )
        })?;
        let pinned = self.account.login.identity.clone();
        let (name, is_pinned) = match (&pinned, &record.identity) {
            (Some(pinned), _) => (pinned.clone(), *pinned == found.to_string()),
            (None, Some(known)) if !self.options.other_identity => {
                (known.short(), (&known.issuer, &known.subject) == (&found.issuer, &found.subject))
            }
            _ => return Ok(Some(found)),
        };
        if is_pinned {
            return Ok(Some(found));
        }
        let way_out = if pinned.is_some() {
            "remove identity from the config"
        } else {
            "pass --other-identity if the account is to change hands"
        };
        Err(refused(
            format!("{} has logged in, but the account belongs to {name}", found.short()),
            format!(
                "choose the other user: authorization_params = {{ prompt = \"select_account\" }}, or a private window; {way_out}"
            ),
        ))
    }

    /// The way to a refresh token.
    fn remedy(&self) -> String {
        let is_offline = |(name, value): &(String, String)| name == "access_type" && value == "offline";
        if self.server.params.iter().any(is_offline) {
            let command = command("login", &self.settings, Some(&self.account));
            return format!(
                "remove the app from your account (Google: https://myaccount.google.com/permissions), then `{command}` again"
            );
        }
        let scope = self.server.scope.as_deref().unwrap_or_default();
        if scope.split(' ').any(|word| word == "offline_access") {
            return "allow the refresh_token grant, or offline access, for this client in the provider's console"
                .into();
        }
        "add offline_access to login_scope, or allow refresh tokens for this client in the provider's console"
            .into()
    }

    /// An access token alone is no login; it is published if none lives.
    async fn without_refresh_token(
        &self,
        held: Held,
        response: TokenResponse,
        issued_at: Timestamp,
    ) -> Problem {
        let Held { files, mut record } = held;
        let lives = record.access_token.as_ref().is_some_and(|token| token.is_live(issued_at));
        let token = access_token(&response, issued_at);
        let left = token.lifetime();
        let mut used = "";
        if !lives {
            record.generation = record.generation.saturating_add(1);
            record.access_token = Some(token);
            used = "; it is in the token file";
            let stored = workers::run(move || store(files, &record, true)).await;
            if let Err(problem) = stored {
                return problem;
            }
        }
        let left = duration(left);
        let message = format!("the server gave no refresh token, only an access token for {left}{used}");
        Problem::of(Class::NeedsLogin, "no_refresh_token", message).hint(self.remedy())
    }
}

fn access_token(response: &TokenResponse, issued_at: Timestamp) -> AccessToken {
    let lifetime = response.expires_in;
    AccessToken {
        value: response.access_token.clone(),
        token_type: response.token_type.clone(),
        scope: response.scope.clone(),
        issued_at,
        lifetime_ms: lifetime.as_millis() as u64,
        jitter_ms: schedule::jitter_ms(lifetime, getrandom::u64().unwrap_or_default()),
        repeated: false,
        given: false,
        id_token: response.id_token.clone().map(Into::into),
    }
}

/// Persists, then publishes. The grant exists nowhere else, so a disk that refuses it is
/// tried again, and readers get the token meanwhile.
fn store(mut files: Files, record: &Record, publishes: bool) -> Result<(), Problem> {
    let clock = SystemClock::new();
    let begun_at = clock.now();
    let token = record.access_token.as_ref().filter(|_| publishes);
    let (mut pause, longest) = STORE_PAUSES;
    let mut early = None;
    while let Err(problem) = files.persist(record) {
        if clock.now().since(begun_at) >= PERSIST_PATIENCE {
            let hint = problem.hint.clone().unwrap_or_else(|| "run `zg-tokend check`".into());
            let problem = Problem { hint: Some(format!("{hint}; then log in again")), ..problem };
            return Err(problem.within("the new login could not be stored and is lost"));
        }
        // Readers need not wait for the disk of the state.
        early = early.or_else(|| token.map(|token| files.publish(token)));
        std::thread::sleep(pause);
        pause = (pause * 2).min(longest);
    }
    let failed = match (early, token) {
        (Some(Ok(failed)), _) => failed,
        (_, None) => return Ok(()),
        (_, Some(token)) => files.publish(token).map_err(unpublished)?,
    };
    failed.into_iter().next().map_or(Ok(()), |problem| Err(unpublished(problem)))
}

fn unpublished(problem: Problem) -> Problem {
    problem.within("the login is stored, but its token is not published")
}

fn is_unsent(answer: &Answer) -> bool {
    matches!(answer, Answer::Unavailable(Unavailable { reason: ServerFailure::NotSent(_), .. }))
}

/// The words for an answer that grants nothing.
pub(super) fn refusal(answer: &Answer) -> Problem {
    let (class, message, cause, hint) = match answer {
        Answer::InvalidGrant(error) => (
            Class::NeedsLogin,
            format!("the server refuses the code of the login: {error}"),
            Some("a code works once, and lives for some minutes".to_owned()),
            Some("log in again".to_owned()),
        ),
        Answer::ClientRefused(error) if error.code == "invalid_client" => {
            (Class::Config, answer.to_string(), answer.cause(), answer.hint())
        }
        Answer::ClientRefused(_) => (
            Class::Config,
            answer.to_string(),
            None,
            Some(
                "check client_id, client_secret, login_scope and redirect_uri, and allow this kind of login for the client in the provider's console"
                    .to_owned(),
            ),
        ),
        _ => {
            let hint = answer.hint().unwrap_or_else(|| "try again later".to_owned());
            (Class::Unavailable, answer.to_string(), answer.cause(), Some(format!("{hint}; then log in again")))
        }
    };
    Problem { class, kind: answer.kind().into(), message, cause, hint }
}
