//! Answers requests: each handler sends a request to the loop, and does its file work in another
//! thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use crate::account::context::Context;
use crate::account::obtain::{self, Replacement, StoredToken};
use crate::account::set::{NewLogin, NewLoginError, SetResult, set};
use crate::clock::millis;
use crate::config::{AccountConfig, SecretSource, Settings};
use crate::daemon::control::counts::Counts;
use crate::daemon::control::metrics::exposition;
use crate::daemon::control::reply::ControlReply;
use crate::daemon::control::routes::{Found, Handler, find};
use crate::daemon::requests::{CurrentConfig, LoopRequest, PassResult, Purpose};
use crate::problem::Problem;
use crate::refresh::record::AccessToken;
use crate::refresh::schedule::{self, Due};
use crate::secret::{Fingerprint, Secret};
use crate::status::status;
use crate::workers;

/// The longest head, and the longest body: tokens have up to 16 KiB.
pub const SIZE_MAX: usize = 64 * 1024;

/// Requests that wait for a pass at the same time: each costs a descriptor and little else.
const WAITING: usize = 1024;

/// A refresh requested this soon after the last one is answered by that one: many programs send
/// their requests at the same moment, but not all arrive before the refresh has ended.
const CROWD: Duration = Duration::from_secs(10);

/// Requested refreshes are no more frequent than this, like replacements of rejected tokens: a
/// client in a loop must not overload the provider.
const REFRESH_FLOOR: Duration = Duration::from_secs(60);

const PATHS: &str = "openapi.json lists the paths and methods";

const MEMBERS: &str = "openapi.json lists the members";

pub struct Service {
    requests: mpsc::UnboundedSender<LoopRequest>,
    context: Rc<Context>,
    counts: Rc<RefCell<Counts>>,
    /// Places for requests that wait for a pass: a crowd of them leaves health and metrics alone.
    waiting: Semaphore,
    /// Serve health and metrics alone.
    pub(super) probes_only: bool,
}

/// The account of a request, and its config.
#[derive(Clone)]
struct RequestTarget {
    settings: Arc<Settings>,
    account: Arc<AccountConfig>,
}

/// `POST /v1/token`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenBody {
    #[serde(default, deserialize_with = "non_null")]
    access_token: Option<String>,
    #[serde(default, deserialize_with = "non_null")]
    refresh_token: Option<String>,
    #[serde(default, deserialize_with = "non_null")]
    expires_in: Option<f64>,
    #[serde(default, deserialize_with = "non_null")]
    expires_at: Option<f64>,
    /// ZeroGravity's name for the access token.
    #[serde(default, deserialize_with = "non_null")]
    token: Option<String>,
}

/// `POST /v1/token/rejected`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RejectedBody {
    #[serde(default, deserialize_with = "non_null")]
    access_token: Option<String>,
    #[serde(default, deserialize_with = "non_null")]
    sha256: Option<String>,
}

/// Refuses null: a member is left out, or has a value.
fn non_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(member: D) -> Result<Option<T>, D::Error> {
    T::deserialize(member).map(Some)
}

#[derive(Serialize)]
pub struct PassBody<'a> {
    pub account: &'a str,
    pub result: &'static str,
}

#[derive(Serialize)]
pub struct Condition {
    pub status: &'static str,
}

type ReplyResult = Result<ControlReply, ControlReply>;

impl Service {
    /// A service that answers everything.
    pub fn new(
        requests: mpsc::UnboundedSender<LoopRequest>,
        context: Rc<Context>,
        counts: Rc<RefCell<Counts>>,
    ) -> Self {
        Self { requests, context, counts, waiting: Semaphore::new(WAITING), probes_only: false }
    }

    /// Notifies `arrived` when the client has sent its whole request.
    pub(super) async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        arrived: &Notify,
        waits: &Cell<bool>,
    ) -> ControlReply {
        let (head, body) = request.into_parts();
        let handler = match find(head.method.as_str(), head.uri.path()) {
            Found::Handler(handler) if self.probes_only && !handler.is_probe() => {
                let text = "this address serves probes and metrics alone";
                return ControlReply::error(404, "not_found", text, "the control socket serves it");
            }
            Found::Handler(handler) => handler,
            Found::OtherMethod(method) => {
                let text = format!("this path supports only {method}");
                return ControlReply::error(405, "method_not_allowed", &text, PATHS).allow(method);
            }
            Found::Nothing => return ControlReply::error(404, "not_found", "unknown path", PATHS),
        };
        let content_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
        if handler.takes_json() && !media_type.trim_ascii().eq_ignore_ascii_case(b"application/json") {
            let hint = "send JSON, with content-type: application/json";
            return ControlReply::error(415, "unsupported_media_type", "the body must be JSON", hint);
        }
        let body = match Limited::new(body, SIZE_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                let text = "the body is larger than 64 KiB";
                return ControlReply::error(413, "too_large", text, "send only the tokens");
            }
            Err(_) => return invalid("the body is incomplete", "send the whole body again"),
        };
        arrived.notify_one();
        waits.set(true);
        let query = head.uri.query().unwrap_or_default();
        self.route(handler, query, &body).await.unwrap_or_else(|error| error)
    }

    async fn route(&self, handler: Handler, query: &str, body: &Bytes) -> ReplyResult {
        let CurrentConfig { settings, ready } = self.snapshot().await?;
        let _place = match handler {
            Handler::Set | Handler::Rejected | Handler::Refresh => {
                Some(self.waiting.try_acquire().map_err(|_| ControlReply::busy())?)
            }
            _ => None,
        };
        match handler {
            Handler::Health => Ok(ControlReply::json(200, &Condition { status: "ok" })),
            Handler::Ready if ready => Ok(ControlReply::json(200, &Condition { status: "ready" })),
            Handler::Ready => {
                let text = "not every account was checked yet, or zg-tokend is stopping";
                let hint = "try again; `zg-tokend status` shows the state of each account";
                Err(ControlReply::error(503, "not_ready", text, hint).retry_after(Duration::from_secs(1)))
            }
            Handler::Metrics => self.metrics(settings).await,
            Handler::Set => self.set(target(settings, query)?, body).await,
            Handler::Rejected => self.rejected(target(settings, query)?, body).await,
            Handler::Refresh => self.refresh(target(settings, query)?).await,
            Handler::Reread => self.reread(target(settings, query)?).await,
            Handler::Status => self.status(target(settings, query)?).await,
        }
    }

    async fn snapshot(&self) -> Result<CurrentConfig, ControlReply> {
        let (reply, snapshot) = oneshot::channel();
        self.requests.send(LoopRequest::CurrentConfig(reply)).map_err(|_| ControlReply::stopping())?;
        snapshot.await.map_err(|_| ControlReply::stopping())
    }

    /// The result of a pass that begins after this call.
    async fn pass(&self, target: &RequestTarget, purpose: Purpose) -> Result<PassResult, ControlReply> {
        let (reply, result) = oneshot::channel();
        let account = target.account.name.clone();
        let request = LoopRequest::Pass { account, purpose, reply };
        self.requests.send(request).map_err(|_| ControlReply::stopping())?;
        result.await.map_err(|_| ControlReply::stopping())
    }

    /// Does file work in another thread, so that the loop need not wait for it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, ControlReply> {
        workers::run(work).await.map_err(|problem| ControlReply::problem(&problem, None))
    }

    async fn status(&self, target: RequestTarget) -> ReplyResult {
        let RequestTarget { settings, account } = target;
        let read = move || Ok(status(&settings, Some(account.name.as_str()), None).accounts.pop());
        Ok(self
            .blocking(read)
            .await?
            .map_or_else(ControlReply::stopping, |status| ControlReply::json(200, &status)))
    }

    async fn metrics(&self, settings: Arc<Settings>) -> ReplyResult {
        let accounts = self.blocking(move || Ok(status(&settings, None, None).accounts)).await?;
        let now = self.context.clock.now();
        Ok(ControlReply::metrics(exposition(&accounts, &self.counts.borrow(), now)))
    }

    async fn set(&self, target: RequestTarget, body: &Bytes) -> ReplyResult {
        let body: TokenBody = parse(body)?;
        let new = self.new_login(body, &target.account)?;
        let login = new.login();
        let RequestTarget { settings, account } = target.clone();
        if let SetResult::Known = self.blocking(move || set(&settings, &account, new)).await? {
            return Ok(done(&target, "known"));
        }
        let pass = self.pass(&target, Purpose::Check { login }).await?;
        match pass.result {
            Err(problem) if login.is_some() => Err(ControlReply::problem(&problem, pass.next_in)),
            // An access token alone is stored and served, whatever the result of the pass.
            _ => Ok(done(&target, "stored")),
        }
    }

    fn new_login(&self, body: TokenBody, account: &AccountConfig) -> Result<NewLogin, ControlReply> {
        let value = match (body.access_token, body.token) {
            (Some(_), Some(_)) => {
                return Err(invalid("token and access_token mean the same", "send only one of them"));
            }
            (access_token, token) => access_token.or(token),
        };
        let access_token = value.map(|value| text("access_token", value)).transpose()?;
        let refresh_token = body.refresh_token.map(|value| text("refresh_token", value)).transpose()?;
        let now = self.context.clock.now().wall as f64 / 1000.0;
        let expires_in = match (body.expires_in, body.expires_at) {
            (Some(_), Some(_)) => {
                return Err(invalid("expires_in and expires_at mean the same", "send only one of them"));
            }
            (Some(seconds), None) => Some(seconds),
            (None, Some(at)) if at - now < 1.0 => {
                let hint = NewLoginError::Expired.hint();
                return Err(ControlReply::error(409, "expired", "the access token has expired", hint));
            }
            (None, Some(at)) => Some(at - now),
            (None, None) => None,
        };
        let access_token = match (access_token, expires_in) {
            (None, Some(_)) => {
                return Err(invalid("there is no access_token that could expire", "send an access_token"));
            }
            (None, None) if refresh_token.is_none() => {
                return Err(invalid("the body has no token", "send access_token, refresh_token or both"));
            }
            (None, None) => None,
            (Some(token), seconds) => {
                Some((token, seconds.unwrap_or(account.default_lifetime.as_secs_f64())))
            }
        };
        NewLogin::new(refresh_token, access_token).map_err(|error| invalid(&error.to_string(), error.hint()))
    }

    async fn rejected(&self, target: RequestTarget, body: &Bytes) -> ReplyResult {
        let body: RejectedBody = parse(body)?;
        let refused = match (body.access_token, body.sha256) {
            (Some(token), None) => text("access_token", token)?.fingerprint(),
            (None, Some(sha256)) => sha256.parse::<Fingerprint>().map_err(|error| {
                invalid(&format!("sha256: {error}"), "send what `printf %s TOKEN | sha256sum` prints")
            })?,
            _ => {
                let text = "the body must name the rejected token once";
                return Err(invalid(text, "send either access_token or sha256"));
            }
        };
        let RequestTarget { settings, account } = target.clone();
        let compare = move || obtain::compare(&settings, &account, refused);
        let purpose = match self.blocking(compare).await? {
            StoredToken::Refused(token) => Purpose::Replace(token),
            StoredToken::Other => return Ok(done(&target, "already_replaced")),
            StoredToken::Missing => Purpose::Check { login: None },
        };
        match replacement(&target, self.pass(&target, purpose).await?)? {
            Replacement::Reaffirmed => {
                let text = "the server returned the same token again as valid";
                let hint = "ask the operator of the resource why it rejects this token";
                Err(ControlReply::error(409, "reaffirmed", text, hint))
            }
            replacement => Ok(done(&target, name(&replacement))),
        }
    }

    async fn refresh(&self, target: RequestTarget) -> ReplyResult {
        let RequestTarget { settings, account } = target.clone();
        let record = self.blocking(move || obtain::record(&settings, &account)).await?;
        let generation = record.as_ref().map_or(0, |record| record.generation);
        let stored = record.and_then(|record| record.access_token);
        match stored.as_ref().and_then(|token| self.refreshed_ago(token, &target.account)) {
            Some(ago) if ago < CROWD => return Ok(done(&target, name(&Replacement::AlreadyReplaced))),
            Some(ago) if ago < REFRESH_FLOOR => {
                let hint = "to report a rejected token, use /v1/token/rejected";
                let text = "the token was refreshed less than a minute ago";
                return Err(ControlReply::error(429, "too_soon", text, hint)
                    .retry_after(REFRESH_FLOOR.saturating_sub(ago)));
            }
            _ => {}
        }
        let known = stored.map(|token| token.value.fingerprint());
        let pass = self.pass(&target, Purpose::Refresh { known, generation }).await?;
        Ok(done(&target, name(&replacement(&target, pass)?)))
    }

    /// Another process has changed the login: a pass, with the state as it is now.
    async fn reread(&self, target: RequestTarget) -> ReplyResult {
        self.pass(&target, Purpose::Check { login: None }).await?;
        Ok(done(&target, "reread"))
    }

    /// How long ago the token was refreshed; `None` if it is due again.
    fn refreshed_ago(&self, token: &AccessToken, account: &AccountConfig) -> Option<Duration> {
        let now = self.context.clock.now();
        let due = schedule::due(token.issued_at, schedule::due_after(token, account.skew), now);
        let age = millis(token.lifetime()) - token.remaining(now);
        (matches!(due, Due::In(_)) && !token.given).then(|| Duration::from_millis(age.max(0).cast_unsigned()))
    }
}

/// The account that the query names; without one, the only one.
fn target(settings: Arc<Settings>, query: &str) -> Result<RequestTarget, ControlReply> {
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
            let text = "the config has several accounts";
            return Err(ControlReply::error(400, "account_missing", text, &hint));
        }
    };
    let account = Arc::clone(account);
    Ok(RequestTarget { settings, account })
}

/// The result of a pass. Waits and problems are errors.
fn replacement(target: &RequestTarget, pass: PassResult) -> Result<Replacement, ControlReply> {
    match pass.result.map_err(|problem| ControlReply::problem(&problem, pass.next_in))? {
        Replacement::TooSoon { wait } => {
            let text = format!(
                "account {}: the previous token was rejected too, and was replaced less than a minute ago",
                target.account.name
            );
            let hint = "check why new tokens are rejected: scope, audience, or a wrong clock";
            Err(ControlReply::error(429, "too_soon", &text, hint).retry_after(wait))
        }
        replacement => Ok(replacement),
    }
}

fn name(replacement: &Replacement) -> &'static str {
    match replacement {
        Replacement::AlreadyReplaced => "already_replaced",
        Replacement::Replaced => "replaced",
        Replacement::TooSoon { .. } => "too_soon",
        Replacement::Reaffirmed => "reaffirmed",
    }
}

fn done(target: &RequestTarget, result: &'static str) -> ControlReply {
    ControlReply::json(200, &PassBody { account: target.account.name.as_str(), result })
}

fn invalid(description: &str, hint: &str) -> ControlReply {
    ControlReply::error(400, "invalid_request", description, hint)
}

/// The message of the parser could quote a secret, so only the position is reported.
fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ControlReply> {
    let parsed = serde_json::from_slice(body).map_err(|error| {
        let text = if error.is_data() { "unknown or wrong members" } else { "not valid JSON" };
        let text = format!("{text}, at line {} column {}", error.line(), error.column());
        invalid(&text, MEMBERS)
    })?;
    // Serde accepts an array as the members in their order.
    if body.trim_ascii_start().starts_with(b"{") {
        Ok(parsed)
    } else {
        Err(invalid("an array instead of an object", MEMBERS))
    }
}

/// A token without the white space around it.
fn text(member: &str, value: String) -> Result<Secret, ControlReply> {
    SecretSource::secret_from(Secret::new(value).expose().as_bytes())
        .map_err(|unusable| invalid(&format!("the {member} {unusable}"), "send only the token"))
}
