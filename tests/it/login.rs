//! `zg-tokend login` and `logout` against the embedded server. curl plays the browser: it opens the
//! address that the terminal shows, consents, and follows the redirect.

mod certified;
mod chromium;
pub mod device;
mod disks;
mod hour;
mod kill;
mod logout;
mod paste;
mod refused;
mod sealed;
mod words;

use std::io::{PipeWriter, Write as _};
use std::net::TcpStream;
use std::process::Command;

use rustix::process::{Pid, Signal};
use zg_tokend::testing::demo::{AuditEvent, Fault, IssuerOptions, RevocationReason};

use crate::common::world::World;
use crate::common::{Background, Sandbox, finish, wait_until};

/// An account of the embedded server that can log in, without a login.
fn configure(world: &World, extra: &str) {
    let issuer = world.server.url();
    world.sandbox.write_config(&format!("issuer = \"{issuer}\"\nclient_id = \"demo\"\n{extra}"));
}

/// `login` with these arguments on a terminal of its own.
pub struct LoginRun {
    process: Background,
    /// Keys for the terminal.
    keys: PipeWriter,
}

impl LoginRun {
    fn start(world: &World, args: &str) -> Self {
        Self::start_in(&world.sandbox, args, &[])
    }

    /// The same with more environment variables.
    pub fn start_in(sandbox: &Sandbox, args: &str, environment: &[(&str, &str)]) -> Self {
        let line: Vec<&str> = std::iter::once("login").chain(args.split_whitespace()).collect();
        let login = sandbox.command(line);
        let words = std::iter::once(login.get_program()).chain(login.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        let mut script = Command::new("script");
        // Wide, so that no line is broken where a test looks for it.
        let line = format!("stty cols 1000; exec {}", words.join(" "));
        script.args(["-qefc", &line, "/dev/null"]).current_dir(sandbox.path("home"));
        script.env_clear().envs(login.get_envs().filter_map(|(name, value)| Some((name, value?))));
        script.envs(environment.iter().copied());
        script.env("SHELL", "/bin/sh").env("TERM", "xterm-256color").env("LANG", "C.UTF-8");
        let (reader, keys) = std::io::pipe().unwrap();
        script.stdin(reader);
        let log = sandbox.path(format!("login-{}.log", next_number()));
        Self { process: Background::start(&mut script, log), keys }
    }

    /// By browser, which this test plays.
    fn by_browser(world: &World, args: &str) -> Self {
        Self::start(world, &format!("--no-browser {args}"))
    }

    /// The address of the login page.
    #[track_caller]
    pub fn url(&self) -> String {
        wait_until("the address of the login page", || {
            let log = self.process.log();
            let line = log.lines().find(|line| line.contains("code_challenge="))?;
            // The next line shows that this one is whole.
            log.contains("Waiting for").then(|| line.trim().to_owned())
        })
    }

    #[track_caller]
    fn type_text(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    /// The binary, which runs below `script`.
    #[track_caller]
    fn pid(&self) -> Pid {
        let children = |parent: u32| {
            let path = format!("/proc/{parent}/task/{parent}/children");
            let list = std::fs::read_to_string(path).unwrap_or_default();
            list.split_whitespace().map(|child| child.parse::<u32>().unwrap()).collect::<Vec<_>>()
        };
        wait_until("the binary below script", || {
            let mut found = children(self.process.id());
            while let Some(child) = found.pop() {
                found.extend(children(child));
                let name = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
                if name.trim() == "zg-tokend" {
                    return Pid::from_raw(child.cast_signed());
                }
            }
            None
        })
    }

    /// Waits for the end, and gives the exit code and all that was shown.
    #[track_caller]
    fn end(&mut self) -> (i32, String) {
        let status = self.process.wait();
        (status.code().unwrap(), self.process.log())
    }

    #[track_caller]
    pub fn ends_with(&mut self, code: i32) -> String {
        let (ended, log) = self.end();
        assert_eq!(ended, code, "{log}");
        log
    }
}

/// A number for the name of a file.
fn next_number() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// An answer as a browser sees it.
#[derive(Debug)]
struct Answer {
    status: u16,
    location: Option<String>,
    headers: String,
    body: String,
}

#[track_caller]
fn fetch<'a>(args: impl IntoIterator<Item = &'a str>) -> Answer {
    let mut curl = Command::new("curl");
    curl.args(["-q", "-sS", "-i", "--noproxy", "*", "--max-time", "100"]).args(args);
    let output = finish(&mut curl);
    assert_eq!(output.code, Some(0), "{curl:?}: {output:?}");
    let (headers, body) = output.stdout.split_once("\r\n\r\n").unwrap();
    let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
    let header = headers.lines().filter_map(|line| line.split_once(": "));
    let mut locations = header.filter(|(name, _)| name.eq_ignore_ascii_case("location"));
    let location = locations.next().map(|(_, value)| value.trim().to_owned());
    Answer { status, location, headers: headers.to_owned(), body: body.to_owned() }
}

/// Consents at the login page as this user; the address that the browser is sent to.
#[track_caller]
pub fn consent(url: &str, user: &str) -> String {
    let page = fetch([url]);
    assert!(page.status == 200 && page.body.contains("asks for the scope"), "{page:?}");
    let answer = fetch(["-d", &format!("decision=allow&user={user}"), url]);
    assert_eq!(answer.status, 303, "{answer:?}");
    answer.location.unwrap()
}

/// The page at the end of the redirects, and its address.
#[track_caller]
fn follow(redirect: &str) -> (String, Answer) {
    let answer = fetch([redirect]);
    assert_eq!(answer.status, 303, "{answer:?}");
    let (origin, _) = redirect.split_once("/?").unwrap();
    let address = format!("{origin}{}", answer.location.unwrap());
    let page = fetch([&*address]);
    (address, page)
}

/// A whole login as this user.
#[track_caller]
fn log_in(world: &World, args: &str, user: &str) -> (i32, String) {
    let mut login = LoginRun::by_browser(world, args);
    follow(&consent(&login.url(), user));
    login.end()
}

/// Nothing that was shown holds a code, a verifier or a token. The address of the login page holds the
/// challenge, the state and the nonce.
#[track_caller]
fn assert_no_secret(world: &World, shown: &str, redirect: &str) {
    let code = redirect.split_once("code=").unwrap().1.split('&').next().unwrap();
    assert!(!shown.contains(code), "the code is in {shown}");
    for secret in [world.token(), world.refresh_token()] {
        assert!(!shown.contains(secret.expose()), "a token is in {shown}");
    }
    assert!(!shown.contains("at_") && !shown.contains("rt_") && !shown.contains("eyJ"), "{shown}");
}

fn with_parameter(redirect: &str, name: &str, value: &str) -> String {
    let (start, query) = redirect.split_once('?').unwrap();
    let kept = query.split('&').filter(|pair| !pair.starts_with(&format!("{name}=")));
    let query: Vec<String> = kept.map(str::to_owned).chain([format!("{name}={value}")]).collect();
    format!("{start}?{}", query.join("&"))
}

#[test]
fn a_login_by_browser_is_stored_and_published() {
    let world = World::new();
    configure(&world, "");
    let mut login = LoginRun::by_browser(&world, "");
    let url = login.url();
    for part in ["scope=openid+offline_access", "prompt=consent", "code_challenge_method=S256", "&nonce="] {
        assert!(url.contains(part), "{part} in {url}");
    }
    assert!(!world.token_file().exists() && !world.state_path("default", "state").exists());
    let redirect = consent(&url, "alice");
    let (address, page) = follow(&redirect);
    assert!(address.ends_with("/done"), "no code in the address bar: {address}");
    for fact in
        ["You are logged in", "alice@example.com", "<dd>default</dd>", world.token_file().to_str().unwrap()]
    {
        assert!(page.body.contains(fact), "{fact} in {page:?}");
    }
    for header in ["referrer-policy: no-referrer", "cache-control: no-store", "default-src 'none'"] {
        assert!(page.headers.contains(header), "{header} in {page:?}");
    }
    let shown = login.ends_with(0);
    assert!(shown.contains("default: logged in as alice@example.com"), "{shown}");
    assert_no_secret(&world, &shown, &redirect);
    assert_no_secret(&world, &page.body, &redirect);
    world.assert_live();
    let status = world.status().0;
    assert_eq!(status["refresh_token"]["identity"], format!("{}#alice", world.server.url()));
    assert_eq!(
        (&status["state"], &status["refresh_token"]["email"]),
        (&"fresh".into(), &"alice@example.com".into())
    );
    assert!(world.state()["access_token"]["id_token"].is_string());
    // The login is used: nothing is due, and the next refresh works.
    world.once_gives(0, []);
    assert_eq!(world.posts(), 1);
    world.once_gives(0, ["--force"]);
    assert!(world.state()["access_token"]["id_token"].is_string(), "a refresh brings a new one");
    world.assert_live();
}

#[test]
fn the_page_comes_after_the_login_is_stored() {
    let world = World::new();
    configure(&world, "");
    let mut login = LoginRun::by_browser(&world, "");
    let redirect = consent(&login.url(), "alice");
    world.fault(Fault { delay_after_commit_ms: 500, ..Fault::default() });
    // A browser that opens two connections, or a reload: one exchange, and both get the page.
    let first = std::thread::spawn({
        let redirect = redirect.clone();
        move || fetch([&*redirect])
    });
    let answer = fetch([&*redirect]);
    assert!(world.state_path("default", "state").exists() && world.token_file().exists());
    for answer in [answer, first.join().unwrap()] {
        assert_eq!((answer.status, answer.location.as_deref()), (303, Some("/done")), "{}", answer.body);
    }
    let (origin, _) = redirect.split_once("/?").unwrap();
    assert!(fetch([&*format!("{origin}/done")]).body.contains("You are logged in"));
    login.ends_with(0);
    assert_eq!(world.posts(), 1);
}

#[test]
fn strangers_do_not_end_a_login() {
    let world = World::new();
    configure(&world, "");
    let mut login = LoginRun::by_browser(&world, "");
    let redirect = consent(&login.url(), "alice");
    let (origin, _) = redirect.split_once("/?").unwrap();
    let host = origin.strip_prefix("http://").unwrap();
    // As browsers open them in advance: they say nothing.
    let idle: Vec<_> = (0..8).map(|_| TcpStream::connect(host).unwrap()).collect();
    let wrong_state = with_parameter(&redirect, "state", "x");
    let no_state = redirect.replace("state=", "other=");
    let denied = format!("{origin}/?error=access_denied");
    let favicon = format!("{origin}/favicon.ico");
    let done = format!("{origin}/done");
    for round in 0..7 {
        for (args, status) in [
            (vec![&*wrong_state], 400),
            (vec![&*no_state], 400),
            (vec![&*denied], 400),
            (vec!["-X", "POST", &redirect], 405),
            (vec!["-H", "Host: evil.example", &redirect], 400),
            (vec!["-H", "Sec-Fetch-Dest: image", &redirect], 400),
            (vec![&*favicon], 404),
            (vec![&*done], 404),
        ] {
            let answer = fetch(args.iter().copied());
            assert_eq!(answer.status, status, "{round} {args:?} {answer:?}");
            assert!(answer.location.is_none() && !answer.body.contains("code_"), "{answer:?}");
        }
    }
    let mut garbage = TcpStream::connect(host).unwrap();
    let _ = garbage.write_all(&vec![b'x'; 20_000]);
    assert_eq!(world.posts(), 0, "no code was sent");
    follow(&redirect);
    let shown = login.ends_with(0);
    assert_eq!(shown.matches("an answer to another login was ignored").count(), 21, "{shown}");
    drop(idle);
    world.assert_live();
}

#[test]
fn a_running_supervisor_goes_on_with_the_login() {
    let world = World::new();
    configure(&world, "");
    let run = world.start_run();
    run.wait_for("there is no refresh token");
    assert_eq!(log_in(&world, "", "alice").0, 0);
    world.assert_live();
    wait_until("the supervisor's note of the login", || {
        let status = world.status().0;
        (status["state"] == "fresh" && status["supervisor"]["pid"].is_number()).then_some(())
    });
    assert_eq!(world.posts(), 1, "no refresh was needed");
    let hint = run.log();
    assert!(hint.contains("zg-tokend login"), "{hint}");
}

/// Nothing is due for an hour: only the commands can tell `run`.
#[test]
fn run_tells_a_new_login_of_a_healthy_account_at_once() {
    let world = World::new();
    configure(&world, "");
    assert_eq!(log_in(&world, "", "alice").0, 0);
    let run = world.run();
    assert_eq!(log_in(&world, "", "alice").0, 0);
    run.wait_for("another process stored token 2");
    let set = crate::common::feed(&mut world.sandbox.command(["set"]), world.seed().expose());
    assert_eq!(set.code, Some(0), "{set:?}");
    run.wait_for("another process stored token 3");
    logout::logout_gives(&world, 0, &[]);
    run.wait_for("there is no refresh token");
}

#[test]
fn a_dead_login_is_replaced_and_the_old_one_is_kept_until_the_new_one_has_worked() {
    let world = World::new();
    configure(&world, "");
    assert_eq!(log_in(&world, "", "alice").0, 0);
    world.fault(Fault::reply(400, r#"{"error":"invalid_grant"}"#));
    let output = world.once_gives(77, ["--force"]);
    assert!(output.stderr.contains("log in with `zg-tokend login`"), "{output:?}");
    assert_eq!(log_in(&world, "", "alice").0, 0);
    assert!(world.state()["previous"].is_null(), "a dead login is not kept");
    let first = world.refresh_token();
    assert_eq!(log_in(&world, "", "alice").0, 0);
    assert_eq!(world.state()["previous"]["value"], first.expose());
    world.once_gives(0, ["--force"]);
    assert!(world.state()["previous"].is_null());
    let revoked = |entry: &zg_tokend::testing::demo::AuditEntry| {
        matches!(entry.event, AuditEvent::Revocation { reason: RevocationReason::Request })
    };
    assert!(!world.server.audit().iter().any(revoked), "a new login revokes nothing");
}

#[test]
fn another_user_is_refused_and_their_token_is_revoked() {
    let world = World::new();
    configure(&world, "");
    assert_eq!(log_in(&world, "", "alice").0, 0);
    let (token, login) = (world.token(), world.refresh_token());
    let (code, shown) = log_in(&world, "", "bob");
    assert_eq!(code, 77, "{shown}");
    assert!(
        shown.contains("bob@example.com has logged in, but the account belongs to alice@example.com"),
        "{shown}"
    );
    assert!(shown.contains("--other-identity") && shown.contains("select_account"), "{shown}");
    assert_eq!((world.token(), world.refresh_token()), (token, login), "nothing has changed");
    let revocations = world.server.audit();
    let revocations = revocations.iter().filter(|entry| matches!(entry.event, AuditEvent::Revocation { .. }));
    assert_eq!(revocations.count(), 1, "bob's");
    world.once_gives(0, ["--force"]);

    assert_eq!(log_in(&world, "--other-identity", "bob").0, 0);
    assert_eq!(world.status().0["refresh_token"]["email"], "bob@example.com");

    let pinned = format!("identity = \"{}#carol\"\n", world.server.url());
    configure(&world, &pinned);
    let (code, shown) = log_in(&world, "--other-identity", "dave");
    assert!(code == 77 && shown.contains("remove identity from the config"), "{shown}");
    assert_eq!(log_in(&world, "", "carol").0, 0);
}

#[test]
fn a_login_that_was_killed_leaves_the_old_one() {
    let world = World::new();
    configure(&world, "");
    assert_eq!(log_in(&world, "", "alice").0, 0);
    let (token, refresh_token) = (world.token(), world.refresh_token());
    let mut login = LoginRun::by_browser(&world, "");
    let redirect = consent(&login.url(), "alice");
    let grants = world.grants();
    world.fault(Fault { delay_after_commit_ms: 60_000, ..Fault::default() });
    let browser = std::thread::spawn(move || {
        finish(Command::new("curl").args(["-q", "-sS", "--noproxy", "*", &redirect])).code
    });
    // The server has granted it, and the answer is on its way.
    wait_until("the grant", || (world.grants() > grants).then_some(()));
    kill_login(&mut login);
    assert_ne!(browser.join().unwrap(), Some(0));
    assert_eq!((world.token(), world.refresh_token()), (token, refresh_token));
    world.once_gives(0, ["--force"]);
    world.assert_live();
    assert_eq!(log_in(&world, "", "alice").0, 0, "and the next login works");
    world.once_gives(0, ["--force"]);
}

/// Kills the binary that runs below `script`.
fn kill_login(login: &mut LoginRun) {
    rustix::process::kill_process(login.pid(), Signal::KILL).unwrap();
    login.process.wait();
}

#[test]
fn a_login_that_ends_by_a_signal_changes_nothing() {
    let world = World::new();
    configure(&world, "");
    let mut login = LoginRun::by_browser(&world, "");
    login.url();
    // Ctrl-C, as a key.
    login.type_text("\u{3}");
    let shown = login.ends_with(1);
    assert!(shown.contains("the login was interrupted; nothing has changed"), "{shown}");
    assert!(!world.token_file().exists() && !world.state_path("default", "state").exists());
}

#[test]
fn init_ends_with_the_login() {
    let world = World::new();
    let issuer = world.server.url().to_owned();
    let output = world.sandbox.run(["init", "--issuer", &issuer, "--client-id", "demo"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("\nnext:\n  zg-tokend login    log in with a browser\n"), "{output:?}");
    assert_eq!(log_in(&world, "", "alice").0, 0);
    world.assert_live();
}

/// A server whose answers to device codes are quick.
fn quick_devices(lifetime: u64) -> World {
    use std::time::Duration;
    World::with(IssuerOptions {
        device_interval: Duration::from_millis(100),
        device_code_lifetime: Duration::from_secs(lifetime),
        ..IssuerOptions::default()
    })
}
