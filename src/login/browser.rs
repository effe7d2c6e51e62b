//! A login by browser: the redirect or a pasted address, whichever comes first.

use std::process::Stdio;
use std::time::Duration;

use tokio::sync::mpsc;
use url::Url;

use crate::config::is_loopback;
use crate::login::event::{LoginEvent, LoginScreen};
use crate::login::listener::{Listener, Reception, RedirectAnswers};
use crate::login::page::Page;
use crate::login::redirect::{ExpectedAnswer, LoginAnswer, NoAnswer, judge_pasted};
use crate::login::request::Nonces;
use crate::login::session::{LoggedIn, LoginSession, denied, new_nonces};
use crate::message::{command, duration};
use crate::oauth::Grant;
use crate::problem::{Class, Problem};
use crate::process;
use crate::secret::Secret;

/// How a login by browser is begun.
#[derive(Debug, Clone, Copy)]
pub struct BrowserFlow {
    /// Start a browser here.
    pub opens: bool,
    /// The port to listen on; 0 for any.
    pub port: u16,
    pub timeout: Duration,
    /// The browser is elsewhere: a listener that cannot be had is no fault.
    pub by_paste: bool,
}

impl LoginSession {
    /// Shows the address of the login page, and waits for the answer.
    pub async fn by_browser(
        &self,
        flow: BrowserFlow,
        pasted: &mut mpsc::UnboundedReceiver<Secret>,
        screen: &dyn LoginScreen,
    ) -> Result<LoggedIn, Problem> {
        let nonces = new_nonces()?;
        let request = self.server.authorization_request()?;
        let listener = self.listen(flow).await?;
        let redirect_uri = match &listener {
            Some(listener) => listener.redirect_uri().clone(),
            None => self.account.login.redirect_uri.clone(),
        };
        let redirect_uri = redirect_uri.as_str();
        let url = request.url(redirect_uri, &nonces);
        let expected = ExpectedAnswer {
            state: nonces.state.clone(),
            issuer: self.server.issuer.clone(),
            sends_issuer: self.server.sends_issuer,
        };
        let mut reception = listener.map(|listener| listener.serve(expected.clone()));
        let opened = flow.opens && open(&url, &self.account.secret_variables);
        screen.show(&LoginEvent::Page { url: &url, redirect_uri, opened });
        let deadline = tokio::time::sleep(flow.timeout);
        tokio::pin!(deadline);
        let mut reads_pasted = true;
        let answer = loop {
            let answer = tokio::select! {
                () = &mut deadline => return Err(self.timed_out(flow.timeout, redirect_uri)),
                answer = next(reception.as_mut().map(|(_, answers)| answers)) => answer,
                text = pasted.recv(), if reads_pasted => match text {
                    Some(text) if text.expose().trim().is_empty() => continue,
                    Some(text) => judge_pasted(&text, &expected),
                    None => {
                        reads_pasted = false;
                        continue;
                    }
                },
            };
            match answer {
                Ok(answer) => break answer,
                Err(why) => screen.show(&LoginEvent::Ignored(why)),
            }
        };
        let result = self.answered(answer, redirect_uri, &nonces, screen).await;
        if let Some((reception, _)) = reception {
            self.conclude(reception, &result).await;
        }
        result
    }

    /// The listener for the redirect; `None` where a redirect goes elsewhere and the user pastes it.
    async fn listen(&self, flow: BrowserFlow) -> Result<Option<Listener>, Problem> {
        let redirect_uri = &self.account.login.redirect_uri;
        if !is_loopback(redirect_uri) || redirect_uri.scheme() != "http" {
            return Ok(None);
        }
        let port = if flow.port == 0 { redirect_uri.port().unwrap_or(0) } else { flow.port };
        match Listener::bind(redirect_uri, port).await {
            Ok(listener) => Ok(Some(listener)),
            // The address alone is needed, and its port is in the config.
            Err(_) if flow.by_paste && redirect_uri.port() == Some(port) => Ok(None),
            Err(error) => {
                let hint = if flow.port == 0 && port != 0 {
                    format!(
                        "stop the program that uses the port (ss -ltnp 'sport = :{port}'), or log in with --paste"
                    )
                } else {
                    "choose another port with --port, or leave it out for a free one".into()
                };
                let message = format!("cannot listen on port {port} of this machine");
                Err(Problem::of(Class::Unavailable, "port", message).cause(error.to_string()).hint(hint))
            }
        }
    }

    async fn answered(
        &self,
        answer: LoginAnswer,
        redirect_uri: &str,
        nonces: &Nonces,
        screen: &dyn LoginScreen,
    ) -> Result<LoggedIn, Problem> {
        let code = match answer {
            LoginAnswer::Code(code) => code,
            LoginAnswer::Refused { error, description } => {
                return Err(refused(&error, description.as_deref()));
            }
            LoginAnswer::Issuer(issuer) => return Err(self.other_issuer(issuer.as_deref())),
        };
        screen.show(&LoginEvent::Exchanging);
        let grant = Grant::AuthorizationCode {
            code,
            redirect_uri: redirect_uri.to_owned(),
            code_verifier: nonces.code_verifier.clone(),
        };
        self.exchange(grant, &nonces.nonce).await
    }

    async fn conclude(&self, reception: Reception, result: &Result<LoggedIn, Problem>) {
        let account = self.account.name.as_str();
        let page = match result {
            Ok(login) => {
                let identity = login.identity.as_ref().map(crate::oauth::Identity::short);
                let token_file = self.account.token_file.path.to_string_lossy();
                Page::logged_in(account, identity.as_deref(), &token_file)
            }
            Err(problem) => Page::failed(account, problem),
        };
        reception.conclude(page).await;
    }

    /// The answer may be made for the code of another server: RFC 9207.
    fn other_issuer(&self, issuer: Option<&str>) -> Problem {
        let expected = self.server.issuer.as_deref().unwrap_or_default();
        let message = match issuer {
            Some(issuer) => format!("the answer comes from the issuer {issuer}, not from {expected}"),
            None => format!("the answer does not name its issuer, as {expected} says that it does"),
        };
        let hint = "log in again; if it happens again, check issuer and authorization_endpoint, and suspect an attack";
        Problem::of(Class::Config, "issuer", format!("{message}; the code was not sent")).hint(hint)
    }

    fn timed_out(&self, timeout: Duration, redirect_uri: &str) -> Problem {
        let command = command("login", &self.settings, Some(&self.account));
        let hint = format!(
            "log in again; if the page spoke of a redirect_uri mismatch, register {redirect_uri} for the client and set redirect_uri to it; if its button did nothing, try `{command} --device` or --paste"
        );
        Problem::of(Class::Unavailable, "timeout", format!("nobody logged in within {}", duration(timeout)))
            .hint(hint)
    }
}

/// The next answer; without a listener there is none.
async fn next(answers: Option<&mut RedirectAnswers>) -> Result<LoginAnswer, NoAnswer> {
    if let Some(answers) = answers
        && let Some(answer) = answers.recv().await
    {
        return answer;
    }
    std::future::pending().await
}

/// The words for an error in the redirect, RFC 6749 section 4.1.2.1.
fn refused(error: &str, description: Option<&str>) -> Problem {
    let said = description.map_or_else(|| error.to_owned(), |text| format!("{error}: \"{text}\""));
    let (class, hint) = match error {
        "access_denied" | "consent_required" | "interaction_required" | "login_required" => {
            return denied(&said);
        }
        "temporarily_unavailable" | "server_error" => (Class::Unavailable, "try again later"),
        "invalid_scope" => (Class::Config, "check login_scope and scope against the provider's console"),
        _ => (
            Class::Config,
            "check client_id, login_scope and authorization_params, and allow logins by code for this client in the provider's console",
        ),
    };
    Problem::of(class, "login_refused", format!("the server refuses the login: {said}")).hint(hint)
}

/// The programs that open an address, the user's own first.
const OPENERS: [&str; 5] = ["xdg-open", "wslview", "gio", "sensible-browser", "x-www-browser"];

/// Starts a browser. False if there is none; whether the page appears, only the user sees.
pub fn open(url: &Url, secret_variables: &[String]) -> bool {
    let own = std::env::var("BROWSER").unwrap_or_default();
    let own = own.split(':').filter(|program| !program.is_empty()).map(str::to_owned);
    own.chain(OPENERS.map(str::to_owned)).any(|program| {
        let mut argv: Vec<String> = vec![program.clone()];
        argv.extend((program == "gio").then(|| "open".to_owned()));
        argv.push(url.to_string());
        if process::find(&program).is_err() {
            return false;
        }
        let Ok(mut command) = process::command(&argv, secret_variables) else { return false };
        let Ok(mut child) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else { return false };
        // Some of them are the browser itself and stay. A thread that cannot be had leaves a zombie until
        // this process ends.
        let _ = std::thread::Builder::new().name("browser".into()).spawn(move || child.wait());
        true
    })
}

#[cfg(test)]
mod tests {
    use crate::login::browser::*;

    #[test]
    fn each_error_has_its_class() {
        for (error, class) in [
            ("access_denied", Class::NeedsLogin),
            ("server_error", Class::Unavailable),
            ("invalid_scope", Class::Config),
            ("unauthorized_client", Class::Config),
            ("something_new", Class::Config),
        ] {
            let problem = refused(error, Some("words"));
            assert_eq!(problem.class, class, "{error}");
            assert!(problem.message.contains("\"words\"") && problem.hint.is_some());
        }
    }
}
