//! The words of a login that is under way: for people on stderr, for programs as JSON on stdout.

use std::time::Duration;

use serde_json::json;

use crate::cli::exit::Exit;
use crate::cli::{output, terminal};
use crate::config::AccountConfig;
use crate::login::device_code::DeviceCode;
use crate::login::event::{LoginEvent, LoginScreen};
use crate::login::qr;
use crate::login::session::LoggedIn;
use crate::message::duration;
use crate::problem::Problem;

pub(super) struct TextScreen {
    shows_qr: bool,
    timeout: Duration,
}

impl TextScreen {
    pub(super) fn new(shows_qr: bool, timeout: Duration) -> Self {
        Self { shows_qr, timeout }
    }

    fn page(&self, url: &str, redirect_uri: &str, opened: bool) -> String {
        let begin = if opened {
            "A browser was started. If it shows nothing, open this address:"
        } else {
            "Open this address in a browser:"
        };
        let life = duration(self.timeout);
        let forward = port_of(redirect_uri).map(|port| {
            format!(
                "\nFrom another machine: ssh -L {port}:127.0.0.1:{port} and this host, then open it there."
            )
        });
        let forward = forward.filter(|_| std::env::var_os("SSH_CONNECTION").is_some()).unwrap_or_default();
        format!(
            "{begin}\n\n{url}\n\nWaiting for {life}. If the browser ends at a page that does\n\
             not load, paste the address of that page here and press\n\
             Enter. The terminal does not show it.{forward}\n"
        )
    }

    fn code(&self, code: &DeviceCode) -> String {
        let target = code.verification_uri_complete.as_deref().unwrap_or(&code.verification_uri);
        let columns = terminal::picture_columns().filter(|_| self.shows_qr);
        let picture = columns.and_then(|columns| qr::lines(target, columns));
        let picture =
            picture.map(|lines| format!("\nor scan this:\n\n{}\n", lines.join("\n"))).unwrap_or_default();
        format!(
            "Open this address on any device:\n\n  {}\n\nand enter the code:\n\n  {}\n{picture}\n\
             The code works for {}. Never enter a code that somebody else sent you.\n",
            output::printable(&code.verification_uri),
            output::printable(&code.user_code),
            code.life()
        )
    }
}

impl LoginScreen for TextScreen {
    fn show(&self, event: &LoginEvent<'_>) {
        match event {
            LoginEvent::Page { url, redirect_uri, opened } => {
                output::question(self.page(url.as_str(), redirect_uri, *opened));
            }
            LoginEvent::Ignored(why) => output::warning(why, "the login goes on: use the address above"),
            LoginEvent::Code(code) => output::question(self.code(code)),
            LoginEvent::CodeExpired => {
                output::question("The code has expired. Press Enter for another one, or Ctrl-C to stop.\n");
            }
            LoginEvent::Trouble(what) => output::warning(what, "wait: the login goes on by itself"),
            LoginEvent::Exchanging => output::question("Getting the tokens.\n"),
        }
    }
}

fn port_of(redirect_uri: &str) -> Option<u16> {
    let url: url::Url = redirect_uri.parse().ok()?;
    (url.scheme() == "http").then(|| url.port()).flatten()
}

/// One object per line on stdout.
pub(super) struct JsonScreen;

impl LoginScreen for JsonScreen {
    fn show(&self, event: &LoginEvent<'_>) {
        let line = match event {
            LoginEvent::Page { url, redirect_uri, .. } => {
                json!({ "event": "page", "url": url.as_str(), "redirect_uri": redirect_uri })
            }
            LoginEvent::Ignored(why) => json!({ "event": "ignored", "message": why.to_string() }),
            LoginEvent::Code(code) => json!({
                "event": "code",
                "verification_uri": code.verification_uri,
                "verification_uri_complete": code.verification_uri_complete,
                "user_code": code.user_code,
                "expires_in": code.expires_in.as_secs(),
            }),
            LoginEvent::CodeExpired => json!({ "event": "code_expired" }),
            LoginEvent::Trouble(what) => json!({ "event": "trouble", "message": what }),
            LoginEvent::Exchanging => json!({ "event": "exchanging" }),
        };
        output::print(&line);
    }
}

pub(super) fn print_success(account: &AccountConfig, login: &LoggedIn) {
    let identity = login.identity.as_ref();
    output::print(json!({
        "event": "logged_in",
        "account": account.name.as_str(),
        "identity": identity.map(ToString::to_string),
        "email": identity.and_then(|identity| identity.email.clone()),
        "token_file": account.token_file.path.to_string_lossy(),
    }));
}

pub(super) fn print_failure(account: &AccountConfig, problem: &Problem) -> Exit {
    let exit = Exit::from(problem.class);
    let mut line = json!({
        "event": "failed",
        "account": account.name.as_str(),
        "kind": problem.kind,
        "message": problem.message,
        "hint": problem.hint,
        "exit_code": exit.code(),
    });
    if let Some(cause) = &problem.cause {
        line["cause"] = cause.as_str().into();
    }
    output::print(line);
    exit
}
