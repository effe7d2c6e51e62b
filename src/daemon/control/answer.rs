//! Answers requests: each handler asks the loop, and does its file work on another thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::account::context::Context;
use crate::account::obtain;
use crate::account::obtain::{Held, Replacement};
use crate::account::set;
use crate::account::set::{GivenError, NewLogin, set};
use crate::clock::millis;
use crate::config::{AccountConfig, SecretSource, Settings};
use crate::daemon::control::SIZE_MAX;
use crate::daemon::control::counts::Counts;
use crate::daemon::control::metrics::exposition;
use crate::daemon::control::reply::ControlReply;
use crate::daemon::control::routes::{Found, Handler, Route, find};
use crate::daemon::requests::{Current, LoopRequest, PassResult, Purpose};
use crate::problem::Problem;
use crate::refresh::record::AccessToken;
use crate::refresh::schedule;
use crate::refresh::schedule::Due;
use crate::secret::{Fingerprint, Secret};
use crate::status::status;

/// A refresh that somebody asked for, and that comes so soon after the last one, is answered by
/// that: a crowd asks at the same moment, and not all of it is heard at once.
const CROWD: Duration = Duration::from_secs(10);

/// Refreshes that are asked for come no more often than this, like replacements of rejected tokens:
/// a caller in a loop must not become an outage at the provider.
const REFRESH_FLOOR: Duration = Duration::from_secs(60);

/// For who asks for something that is not served.
const PATHS: &str = "the paths, and how to ask for them, are in openapi.json";

/// What handlers share.
pub(super) struct Answering {
    asks: mpsc::UnboundedSender<LoopRequest>,
    context: Rc<Context>,
    counts: Rc<RefCell<Counts>>,
    threads: Arc<Semaphore>,
}

/// An account, and the config it stands in.
#[derive(Clone)]
struct Chosen {
    settings: Arc<Settings>,
    account: Arc<AccountConfig>,
}

/// `POST /v1/token`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GivenBody {
    #[serde(default, deserialize_with = "given")]
    access_token: Option<String>,
    #[serde(default, deserialize_with = "given")]
    refresh_token: Option<String>,
    #[serde(default, deserialize_with = "given")]
    expires_in: Option<f64>,
    #[serde(default, deserialize_with = "given")]
    expires_at: Option<f64>,
    /// As ZeroGravity calls an access token.
    #[serde(default, deserialize_with = "given")]
    token: Option<String>,
}

/// `POST /v1/token/rejected`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RejectedBody {
    #[serde(default, deserialize_with = "given")]
    access_token: Option<String>,
    #[serde(default, deserialize_with = "given")]
    sha256: Option<String>,
}

/// A member that is there: null is no way to leave one out.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(member: D) -> Result<Option<T>, D::Error> {
    T::deserialize(member).map(Some)
}

#[derive(Serialize)]
pub(super) struct PassBody<'a> {
    pub(super) account: &'a str,
    pub(super) result: &'static str,
}

#[derive(Serialize)]
pub(super) struct Condition {
    pub(super) status: &'static str,
}

type Answered = Result<ControlReply, ControlReply>;

impl Answering {
    pub(super) fn new(
        asks: mpsc::UnboundedSender<LoopRequest>,
        context: Rc<Context>,
        counts: Rc<RefCell<Counts>>,
        threads: Arc<Semaphore>,
    ) -> Self {
        Self { asks, context, counts, threads }
    }

    /// Answers a request; `arrived` is told when nothing more is awaited of the client.
    pub(super) async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        arrived: oneshot::Sender<()>,
    ) -> ControlReply {
        let (head, body) = request.into_parts();
        let route = match find(head.method.as_str(), head.uri.path()) {
            Found::Route(route) => route,
            Found::Method(method) => {
                return ControlReply::error(
                    405,
                    "method_not_allowed",
                    &format!("only {method} is served here"),
                    PATHS,
                )
                .allow(method);
            }
            Found::Nothing => {
                return ControlReply::error(404, "not_found", "there is nothing here", PATHS);
            }
        };
        let content_type = head.headers.get(CONTENT_TYPE).map(|value| value.as_bytes().to_vec());
        if route.body.is_some() && !is_json(content_type.as_deref()) {
            let hint = "send JSON, with content-type: application/json";
            return ControlReply::error(415, "unsupported_media_type", "the body must be JSON", hint);
        }
        let body = match Limited::new(body, SIZE_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return ControlReply::error(
                    413,
                    "too_large",
                    "the body is over 64 KiB",
                    "send the tokens alone",
                );
            }
            Err(_) => return invalid("the body broke off", "send it again, whole"),
        };
        // It may have been given up just now.
        let _ = arrived.send(());
        let query = head.uri.query().unwrap_or_default().to_owned();
        self.route(route, &query, &body).await.unwrap_or_else(|refused| refused)
    }

    async fn route(&self, route: &Route, query: &str, body: &Bytes) -> Answered {
        let standing = self.standing().await?;
        match route.endpoint {
            Handler::Health => return Ok(ControlReply::json(200, &Condition { status: "ok" })),
            Handler::Ready if standing.ready => {
                return Ok(ControlReply::json(200, &Condition { status: "ready" }));
            }
            Handler::Ready => {
                let text = "not every account has been looked at, or the end has begun";
                let hint = "ask again; `zg-tokend status` says how each account is";
                return Err(
                    ControlReply::error(503, "not_ready", text, hint).retry_after(Duration::from_secs(1))
                );
            }
            Handler::Metrics => return self.metrics(standing.settings).await,
            _ => {}
        }
        let chosen = choose(standing.settings, query)?;
        match route.endpoint {
            Handler::Set => self.set(chosen, body).await,
            Handler::Rejected => self.rejected(chosen, body).await,
            Handler::Refresh => self.refresh(chosen).await,
            _ => self.status(chosen).await,
        }
    }

    /// The loop's own answer: that there is one shows that it is at work.
    async fn standing(&self) -> Result<Current, ControlReply> {
        let (reply, standing) = oneshot::channel();
        self.asks.send(LoopRequest::Current(reply)).map_err(|_| ControlReply::stopping())?;
        standing.await.map_err(|_| ControlReply::stopping())
    }

    /// A pass over the account, from now on, and what it comes to.
    async fn pass(&self, chosen: &Chosen, wish: Purpose) -> Result<PassResult, ControlReply> {
        let (reply, ended) = oneshot::channel();
        let account = chosen.account.name.to_string();
        self.asks.send(LoopRequest::Pass { account, wish, reply }).map_err(|_| ControlReply::stopping())?;
        ended.await.map_err(|_| ControlReply::stopping())
    }

    /// File work, for which the loop must not wait.
    async fn elsewhere<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ControlReply> {
        let permit = Arc::clone(&self.threads).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        // A panic aborts the process, and nothing cancels the task but the end.
        done.await.map_err(|_| ControlReply::stopping())
    }

    async fn status(&self, chosen: Chosen) -> Answered {
        let look = move || status(&chosen.settings, Some(chosen.account.name.as_str()), None).accounts.pop();
        let status = self.elsewhere(look).await?;
        Ok(status.map_or_else(ControlReply::stopping, |status| ControlReply::json(200, &status)))
    }

    async fn metrics(&self, settings: Arc<Settings>) -> Answered {
        let accounts = self.elsewhere(move || status(&settings, None, None).accounts).await?;
        let now = self.context.clock.now();
        Ok(ControlReply::metrics(exposition(&accounts, &self.counts.borrow(), now)))
    }

    async fn set(&self, chosen: Chosen, body: &Bytes) -> Answered {
        let body: GivenBody = parse(body)?;
        let given = self.given(body, &chosen.account)?;
        let login = given.login();
        let Chosen { settings, account } = chosen.clone();
        let stored = self.elsewhere(move || set(&settings, &account, given)).await?;
        if let set::SetResult::Known = stored.map_err(|problem| ControlReply::problem(&problem, None))? {
            return Ok(done(&chosen, "known"));
        }
        let ended = self.pass(&chosen, Purpose::Look { login }).await?;
        match ended.result {
            // The token is served, whatever may be said of what comes after it.
            Err(problem) if login.is_some() => Err(ControlReply::problem(&problem, ended.next_in)),
            _ => Ok(done(&chosen, "stored")),
        }
    }

    /// What was given, if it can be used.
    fn given(&self, body: GivenBody, account: &AccountConfig) -> Result<NewLogin, ControlReply> {
        let value = match (body.access_token, body.token) {
            (Some(_), Some(_)) => {
                return Err(invalid("token and access_token are the same thing", "give one of them"));
            }
            (access_token, token) => access_token.or(token),
        };
        let access_token = value.map(|value| text("access_token", value)).transpose()?;
        let refresh_token = body.refresh_token.map(|value| text("refresh_token", value)).transpose()?;
        let now = self.context.clock.now().wall as f64 / 1000.0;
        let expires_in = match (body.expires_in, body.expires_at) {
            (Some(_), Some(_)) => {
                return Err(invalid("expires_in and expires_at say the same thing", "give one of them"));
            }
            (Some(seconds), None) => Some(seconds),
            (None, Some(at)) if at - now < 1.0 => {
                let hint = GivenError::Expired.hint();
                return Err(ControlReply::error(409, "expired", "the access token has expired", hint));
            }
            (None, Some(at)) => Some(at - now),
            (None, None) => None,
        };
        let access_token = match (access_token, expires_in) {
            (None, Some(_)) => return Err(invalid("there is no access_token to expire", "give one")),
            (None, None) if refresh_token.is_none() => {
                return Err(invalid("there is no token", "give access_token, refresh_token or both"));
            }
            (None, None) => None,
            (Some(token), seconds) => {
                Some((token, seconds.unwrap_or(account.default_lifetime.as_secs_f64())))
            }
        };
        NewLogin::new(refresh_token, access_token).map_err(|error| invalid(&error.to_string(), error.hint()))
    }

    async fn rejected(&self, chosen: Chosen, body: &Bytes) -> Answered {
        let body: RejectedBody = parse(body)?;
        let refused = match (body.access_token, body.sha256) {
            (Some(token), None) => text("access_token", token)?.fingerprint(),
            (None, Some(sha256)) => sha256.parse::<Fingerprint>().map_err(|error| {
                invalid(&format!("sha256: {error}"), "it is what `printf %s TOKEN | sha256sum` prints")
            })?,
            _ => {
                return Err(invalid(
                    "which token was refused must be said once",
                    "give access_token or sha256",
                ));
            }
        };
        let Chosen { settings, account } = chosen.clone();
        let held = self.elsewhere(move || obtain::held(&settings, &account, refused)).await?;
        let wish = match held.map_err(|problem| ControlReply::problem(&problem, None))? {
            Held::Refused(token) => Purpose::Replacement(token),
            Held::Another => return Ok(done(&chosen, "already_replaced")),
            Held::Nothing => Purpose::Look { login: None },
        };
        let ended = self.pass(&chosen, wish).await?;
        match concluded(&chosen, ended)? {
            Replacement::Reaffirmed => Err(ControlReply::error(
                409,
                "reaffirmed",
                "the server has given out the same token again, as good",
                "ask the operator of the resource why it refuses this token",
            )),
            rejected => Ok(done(&chosen, name(&rejected))),
        }
    }

    async fn refresh(&self, chosen: Chosen) -> Answered {
        let Chosen { settings, account } = chosen.clone();
        let record = self.elsewhere(move || obtain::record(&settings, &account)).await?;
        let record = record.map_err(|problem| ControlReply::problem(&problem, None))?;
        let generation = record.as_ref().map_or(0, |record| record.generation);
        let stored = record.and_then(|record| record.access_token);
        match stored.as_ref().and_then(|token| self.refreshed_ago(token, &chosen.account)) {
            Some(ago) if ago < CROWD => return Ok(done(&chosen, name(&Replacement::AlreadyReplaced))),
            Some(ago) if ago < REFRESH_FLOOR => {
                let hint = "a token that is refused is reported to /v1/token/rejected";
                let text = "the token was refreshed less than a minute ago";
                return Err(ControlReply::error(429, "too_soon", text, hint)
                    .retry_after(REFRESH_FLOOR.saturating_sub(ago)));
            }
            _ => {}
        }
        let known = stored.map(|token| token.value.fingerprint());
        let ended = self.pass(&chosen, Purpose::Refresh { known, generation }).await?;
        Ok(done(&chosen, name(&concluded(&chosen, ended)?)))
    }

    /// How long ago a token was refreshed for which nothing is due yet.
    fn refreshed_ago(&self, token: &AccessToken, account: &AccountConfig) -> Option<Duration> {
        let now = self.context.clock.now();
        let due = schedule::due(token.issued_at, schedule::due_after(token, account.skew), now);
        let age = millis(token.lifetime()) - token.remaining(now);
        (matches!(due, Due::In(_)) && !token.given).then(|| Duration::from_millis(age.max(0).cast_unsigned()))
    }
}

/// The account that the query names; without one, the only one.
fn choose(settings: Arc<Settings>, query: &str) -> Result<Chosen, ControlReply> {
    let wanted = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "account");
    let names =
        || settings.accounts.iter().map(|account| account.name.as_str()).collect::<Vec<_>>().join(", ");
    let account = match &wanted {
        Some((_, wanted)) => settings.chosen(Some(wanted)).next().ok_or_else(|| {
            let hint = format!("the config has: {}", names());
            ControlReply::error(404, "unknown_account", "there is no such account", &hint)
        })?,
        None if settings.accounts.len() == 1 => &settings.accounts[0],
        None => {
            let hint = format!("add ?account=NAME, one of: {}", names());
            return Err(ControlReply::error(400, "account_missing", "there are several accounts", &hint));
        }
    };
    let account = Arc::clone(account);
    Ok(Chosen { settings, account })
}

/// What a pass came to, but for waits and problems, which are errors.
fn concluded(chosen: &Chosen, ended: PassResult) -> Result<Replacement, ControlReply> {
    let problem = |problem: &Problem| ControlReply::problem(problem, ended.next_in);
    match ended.result.map_err(|error| problem(&error))? {
        Replacement::TooSoon { wait } => {
            let text = format!(
                "account {}: the token before this one was refused, too, and replaced only just now",
                chosen.account.name
            );
            let hint = "see why fresh tokens are refused: scope, audience, or a clock that is wrong";
            Err(ControlReply::error(429, "too_soon", &text, hint).retry_after(wait))
        }
        rejected => Ok(rejected),
    }
}

fn name(rejected: &Replacement) -> &'static str {
    match rejected {
        Replacement::AlreadyReplaced => "already_replaced",
        Replacement::Replaced => "replaced",
        Replacement::TooSoon { .. } => "too_soon",
        Replacement::Reaffirmed => "reaffirmed",
    }
}

fn done(chosen: &Chosen, result: &'static str) -> ControlReply {
    ControlReply::json(200, &PassBody { account: chosen.account.name.as_str(), result })
}

fn is_json(content_type: Option<&[u8]>) -> bool {
    let media_type = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    media_type.is_some_and(|media_type| media_type.trim_ascii().eq_ignore_ascii_case(b"application/json"))
}

fn invalid(description: &str, hint: &str) -> ControlReply {
    ControlReply::error(400, "invalid_request", description, hint)
}

/// The body as JSON. The parser's own words could quote a secret: only the place is told.
fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ControlReply> {
    let parsed = serde_json::from_slice(body).map_err(|error| {
        let text = if error.is_data() { "not the members that belong here" } else { "not JSON" };
        let text = format!("{text}, at line {} column {}", error.line(), error.column());
        invalid(&text, "what belongs here is in openapi.json")
    })?;
    // Serde takes an array for the members in their order.
    if body.trim_ascii_start().starts_with(b"{") {
        Ok(parsed)
    } else {
        Err(invalid("not the members that belong here, but an array", "what belongs here is in openapi.json"))
    }
}

/// The text of a member, without the white space around it.
fn text(member: &str, value: String) -> Result<Secret, ControlReply> {
    SecretSource::secret_from(Secret::new(value).expose().as_bytes())
        .map_err(|unusable| invalid(&format!("the {member} {unusable}"), "give the token and nothing else"))
}
