//! `zg-tokend login`

mod remote;
mod screen;

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::account::context::Context;
use crate::account::set::has_login;
use crate::cli::args::{Args, Login, Once};
use crate::cli::exit::Exit;
use crate::cli::login::screen::{JsonScreen, TextScreen};
use crate::cli::once::Warnings;
use crate::cli::settings::{one_account, report};
use crate::cli::{ask, once, output, prompt};
use crate::config::{AccountConfig, Settings};
use crate::login::browser::BrowserFlow;
use crate::login::device_code::DeviceFault;
use crate::login::event::{LoginEvent, LoginScreen};
use crate::login::server::LoginServer;
use crate::login::session::{LoggedIn, LoginOptions, LoginSession};
use crate::problem::{Class, Problem};
use crate::runtime::{END, Signals, event_loop};
use crate::secret::Secret;

pub(super) fn execute(args: &Args, flags: &Login) -> Result<Exit, Exit> {
    if flags.code.is_some() {
        let message = "a code or token has no place in the command line, where other users can see it";
        let hint = "run `zg-tokend login`, and paste it when the command waits for it";
        return Err(output::fail(Exit::Usage, message, hint));
    }
    if let Some(host) = &flags.remote {
        return remote::execute(args, flags, host);
    }
    let (settings, account) = one_account(args)?;
    // Nobody has to be there to hear that there is no login.
    has_login(&account).map_err(|problem| report(&account, &problem))?;
    let needs_no_terminal = flags.device && flags.json;
    if !prompt::can_ask() && !needs_no_terminal {
        let hint =
            "run it in a terminal; a program can run `zg-tokend login --device --json` and show the code";
        let message = "a login needs a terminal: somebody has to be there";
        return Err(output::fail(Exit::Usage, message, hint));
    }
    for warning in &settings.warnings {
        output::warning(warning, warning.hint(&settings.path));
    }
    let settings = Arc::new(settings);
    let screen: &dyn LoginScreen =
        if flags.json { &JsonScreen } else { &TextScreen::new(!flags.no_qr, flags.timeout) };
    let ended = log_in(&settings, &account, flags, screen).map_err(|error| output::no_event_loop(&error))?;
    match ended {
        Some(Ok(login)) => Ok(conclude(&settings, &account, flags, &login)),
        Some(Err(problem)) if flags.json => Err(screen::print_failure(&account, &problem)),
        Some(Err(problem)) => Err(report(&account, &problem)),
        None => Err(output::fail(
            Exit::Failure,
            format!("account {}: the login was interrupted; nothing has changed", account.name),
            "run it again when you are ready",
        )),
    }
}

/// The result; `None` if a signal ended the login.
fn log_in(
    settings: &Arc<Settings>,
    account: &Arc<AccountConfig>,
    flags: &Login,
    screen: &dyn LoginScreen,
) -> std::io::Result<Option<Result<LoggedIn, Problem>>> {
    let runtime = event_loop()?;
    let result = runtime.block_on(async {
        let mut signals = Signals::new(&END)?;
        let context = Context::new(Rc::new(Warnings));
        let options = LoginOptions { scope: flags.scope.clone(), other_identity: flags.other_identity };
        let prepared = tokio::select! {
            prepared = LoginSession::prepare(settings, account, context, options) => prepared,
            _ = signals.next() => return Ok(None),
        };
        let session = match prepared {
            Ok(session) => session,
            Err(problem) => return Ok(Some(Err(problem))),
        };
        let mut login = pin!(run(&session, flags, screen));
        loop {
            tokio::select! {
                result = &mut login => return Ok(Some(result)),
                // A grant is stored before the process ends.
                _ = signals.next() => if !session.is_exchanging() {
                    return Ok(None);
                },
            }
        }
    });
    // Do not wait for a name lookup that is still running.
    runtime.shutdown_background();
    result
}

async fn run(session: &LoginSession, flags: &Login, screen: &dyn LoginScreen) -> Result<LoggedIn, Problem> {
    let mut flow = choose(flags, session.server(), Surroundings::of_process());
    // Without a terminal nobody types.
    let mut paste = prompt::can_ask().then(prompt::Paste::begin);
    if flow == Flow::Device {
        let again = paste.as_mut().map(|paste| &mut paste.texts);
        match Box::pin(session.by_device(again, screen)).await {
            Ok(login) => return Ok(login),
            Err(DeviceFault::Problem(problem)) => return Err(problem),
            Err(DeviceFault::NotOffered(message)) => {
                let other = other_flow(session.server(), paste.is_some());
                flow = other.ok_or_else(|| not_offered(message.clone()))?;
                screen.show(&LoginEvent::Trouble(format!("{message}; logging in by browser instead")));
            }
        }
    }
    let browser = BrowserFlow {
        opens: flow == Flow::Browser && !flags.no_browser,
        port: flags.port,
        timeout: flags.timeout,
        by_paste: flow == Flow::Paste,
    };
    let mut nobody: UnboundedReceiver<Secret> = unbounded_channel().1;
    let pasted = paste.as_mut().map_or(&mut nobody, |paste| &mut paste.texts);
    // The future is large, and would be moved around with its caller.
    Box::pin(session.by_browser(browser, pasted, screen)).await
}

/// The ways to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Browser,
    Device,
    Paste,
}

/// The signs of a desktop.
#[derive(Debug, Clone, Copy, Default)]
struct Surroundings {
    has_display: bool,
    is_remote: bool,
}

impl Surroundings {
    fn of_process() -> Self {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Self {
            has_display: ["DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"].into_iter().any(is_set),
            is_remote: ["SSH_CONNECTION", "SSH_TTY"].into_iter().any(is_set),
        }
    }
}

/// A wrong guess does no harm: the login by browser takes a pasted address at any time.
fn choose(flags: &Login, server: &LoginServer, surroundings: Surroundings) -> Flow {
    let has_page = server.authorization_endpoint.is_some();
    let has_codes = server.device_authorization_endpoint.is_some();
    let is_desktop = surroundings.has_display && !surroundings.is_remote;
    match () {
        () if flags.device || !has_page => Flow::Device,
        () if flags.paste => Flow::Paste,
        // A port or no browser was asked for: these belong to one flow.
        () if is_desktop || flags.no_browser || flags.port != 0 => Flow::Browser,
        () if has_codes => Flow::Device,
        () => Flow::Paste,
    }
}

/// The way to log in where a server does not offer device codes to this client.
fn other_flow(server: &LoginServer, has_terminal: bool) -> Option<Flow> {
    let surroundings = Surroundings::of_process();
    let is_desktop = surroundings.has_display && !surroundings.is_remote;
    let flow = if is_desktop { Flow::Browser } else { Flow::Paste };
    (server.authorization_endpoint.is_some() && has_terminal).then_some(flow)
}

fn not_offered(message: String) -> Problem {
    Problem::of(Class::Config, "device_code", message)
        .hint("allow device codes for this client in the provider's console, or log in without --device")
}

/// Tells the result. The pass after it runs hooks, and refreshes a login that came without a token.
fn conclude(settings: &Settings, account: &Arc<AccountConfig>, flags: &Login, login: &LoggedIn) -> Exit {
    for (warning, way_out) in &login.warnings {
        output::warning(format!("account {}: {warning}", account.name), way_out);
    }
    if flags.json {
        screen::print_success(account, login);
    } else {
        let user = login.identity.as_ref().map(|identity| format!(" as {}", identity.short()));
        output::print_line(format!("{}: logged in{}", account.name, user.unwrap_or_default()));
    }
    let quiet = Once { quiet: true, ..Once::default() };
    let exit = once::pass(settings, Some(account.name.as_str()), &quiet, Rc::new(Warnings));
    ask::reread(settings, account);
    if exit == Exit::Success && !flags.json {
        let place = account.token_file.path.display();
        output::print_line(format!(
            "the token is in {place}; `zg-tokend run` keeps it fresh, and needs no restart"
        ));
    }
    exit
}

#[cfg(test)]
mod tests {
    use crate::cli::login::*;
    use crate::oauth::{ClientAuthentication, Shape, TokenClient};

    fn server(page: bool, codes: bool) -> LoginServer {
        let url = || "https://as.example/".parse().unwrap();
        LoginServer {
            client: Arc::new(TokenClient {
                token_endpoint: url(),
                client_id: "c".into(),
                client_authentication: ClientAuthentication::None,
                scope: None,
                extra_params: Vec::new(),
                shape: Shape::default(),
            }),
            authorization_endpoint: page.then(url),
            device_authorization_endpoint: codes.then(url),
            revocation_endpoint: None,
            issuer: None,
            sends_issuer: false,
            scope: None,
            params: Vec::new(),
            lacks_s256: false,
        }
    }

    #[test]
    fn the_flow_fits_the_place() {
        let desktop = Surroundings { has_display: true, is_remote: false };
        let by_ssh = Surroundings { has_display: true, is_remote: true };
        let console = Surroundings::default();
        let flags = |change: fn(&mut Login)| {
            let mut flags = Login::default();
            change(&mut flags);
            flags
        };
        let plain = || flags(|_| ());
        for (flags, (page, codes), surroundings, flow) in [
            (plain(), (true, true), desktop, Flow::Browser),
            (plain(), (true, true), by_ssh, Flow::Device),
            (plain(), (true, true), console, Flow::Device),
            (plain(), (true, false), console, Flow::Paste),
            (plain(), (false, true), desktop, Flow::Device),
            (flags(|flags| flags.device = true), (true, true), desktop, Flow::Device),
            (flags(|flags| flags.paste = true), (true, true), desktop, Flow::Paste),
            (flags(|flags| flags.no_browser = true), (true, true), console, Flow::Browser),
            (flags(|flags| flags.port = 9), (true, true), by_ssh, Flow::Browser),
        ] {
            assert_eq!(
                choose(&flags, &server(page, codes), surroundings),
                flow,
                "{flags:?} {surroundings:?}"
            );
        }
    }
}
