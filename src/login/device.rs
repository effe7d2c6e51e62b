//! A login by device code: RFC 8628.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock::Timestamp;
use crate::http::HttpEndpoint;
use crate::login::device_code::{
    DeviceCode, DeviceFault, LIFETIME, PollResult, error_in, judge_poll, judge_refusal, parse_device_code,
    pause,
};
use crate::login::event::{LoginEvent, LoginScreen};
use crate::login::grant::refusal;
use crate::login::request::Nonces;
use crate::login::server::no_endpoint;
use crate::login::session::{LoggedIn, LoginSession, denied, new_nonces};
use crate::message::command;
use crate::oauth::{ErrorReply, Grant, Reply, ReplyContext, error_of};
use crate::problem::{Class, Problem};
use crate::secret::Secret;

/// How long an expired code waits for the user.
const PATIENCE: Duration = Duration::from_secs(300);

impl LoginSession {
    /// Asks for a code, shows it, and waits until the user has entered it. `again` gets an item when the
    /// user asks for another code; `None`: nobody can.
    pub async fn by_device(
        &self,
        again: Option<&mut mpsc::UnboundedReceiver<Secret>>,
        screen: &dyn LoginScreen,
    ) -> Result<LoggedIn, DeviceFault> {
        let Some(again) = again else {
            let code = self.device_code().await?;
            let login = self.wait_for_user(&code, screen).await?;
            return login.ok_or_else(|| self.expired().into());
        };
        loop {
            let code = self.device_code().await?;
            if let Some(login) = self.wait_for_user(&code, screen).await? {
                return Ok(login);
            }
            screen.show(&LoginEvent::CodeExpired);
            // Lines that were typed before are about the old code.
            while again.try_recv().is_ok() {}
            match tokio::time::timeout(PATIENCE, again.recv()).await {
                Ok(Some(_)) => {}
                _ => return Err(self.expired().into()),
            }
        }
    }

    fn expired(&self) -> Problem {
        Problem::of(Class::Unavailable, "expired_token", "the code expired before it was entered").hint(
            format!(
                "run `{} --device` again for a new code",
                command("login", &self.settings, Some(&self.account))
            ),
        )
    }

    async fn device_code(&self) -> Result<(DeviceCode, Nonces), DeviceFault> {
        let endpoint = self.server.device_authorization_endpoint.as_ref();
        let endpoint = endpoint.ok_or_else(|| no_endpoint("device_authorization_endpoint"))?;
        let nonces = new_nonces()?;
        let challenge = nonces.code_challenge();
        // Keycloak wants PKCE here as well; others ignore it.
        let mut params = vec![("code_challenge", &*challenge), ("code_challenge_method", "S256")];
        params.extend(self.server.scope.as_deref().map(|scope| ("scope", scope)));
        params.extend(self.server.params.iter().filter_map(|(name, value)| {
            ["audience", "resource"].contains(&name.as_str()).then_some((name.as_str(), value.as_str()))
        }));
        let client = self.client.renewed(&self.server.client, &self.context).await?;
        let (headers, body) = client.form(&params);
        let http: &HttpEndpoint = &self.client.endpoint_for(&client, &self.context);
        let reply = http.send("POST", endpoint, &headers, &body).await.map_err(|failure| {
            Problem::of(
                Class::Unavailable,
                failure.kind.name(),
                "the device authorization endpoint did not answer",
            )
            .cause(failure.to_string())
            .hint(failure.kind.hint().unwrap_or("try again later"))
        })?;
        match parse_device_code(&reply.body).filter(|_| reply.status / 100 == 2) {
            Some(code) => Ok((code, nonces)),
            None => Err(judge_refusal(reply.status, self.words_of(&reply).as_ref())),
        }
    }

    fn words_of(&self, reply: &Reply) -> Option<ErrorReply> {
        let known_secrets = self.server.client.client_authentication.client_secret();
        let known_secrets: Vec<&Secret> = known_secrets.into_iter().collect();
        let (now, default_lifetime) = (self.context.clock.now(), LIFETIME);
        error_of(reply, &ReplyContext { now, default_lifetime, known_secrets: &known_secrets })
    }

    /// Polls until the user is done; `None` if the code expires before. The boot clock decides: it goes on
    /// while the machine sleeps.
    async fn wait_for_user(
        &self,
        (code, nonces): &(DeviceCode, Nonces),
        screen: &dyn LoginScreen,
    ) -> Result<Option<LoggedIn>, Problem> {
        screen.show(&LoginEvent::Code(code));
        let began_at = self.context.clock.now();
        let grant = Grant::DeviceCode {
            device_code: code.secret.clone(),
            code_verifier: nonces.code_verifier.clone(),
        };
        let (mut slower, troubled) = (0, Cell::new(false));
        loop {
            self.sleep(pause(code, slower)).await;
            if self.context.clock.now().since(began_at) >= code.expires_in {
                return Ok(None);
            }
            // A grant must be stored at once, and nobody may refresh the old login meanwhile.
            let held = self.lock(false).await?;
            let request = self.request(grant.clone()).await?;
            let issued_at = self.context.clock.now();
            let answer = Box::pin(self.client.post(&request, None, &self.context)).await;
            match judge_poll(&answer) {
                PollResult::Granted => {
                    screen.show(&LoginEvent::Exchanging);
                    return Box::pin(self.take(held, answer, issued_at, None)).await.map(Some);
                }
                PollResult::Pending => troubled.set(false),
                PollResult::SlowDown => slower += 1,
                PollResult::Expired => return Ok(None),
                PollResult::Denied => {
                    let said = error_in(&answer).map(ToString::to_string);
                    return Err(denied(&said.unwrap_or_else(|| answer.to_string())));
                }
                PollResult::Failed => return Err(refusal(&answer)),
                PollResult::Trouble => {
                    if !troubled.replace(true) {
                        screen.show(&LoginEvent::Trouble(format!(
                            "{}; trying again",
                            refusal(&answer).whole()
                        )));
                    }
                }
            }
        }
    }

    /// Sleeps, by the boot clock.
    async fn sleep(&self, wait: Duration) {
        let until: Timestamp = self.context.clock.now().plus(wait);
        loop {
            let left = until.boot.saturating_sub(self.context.clock.now().boot);
            if left <= 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(left.unsigned_abs())).await;
        }
    }
}
