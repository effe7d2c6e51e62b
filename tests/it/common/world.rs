//! A sandbox beside an embedded server: what most tests begin with.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use zg_tokend::testing::clock::millis;
use zg_tokend::testing::demo::DemoClient;
use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::demo::{Fault, Outage};
use zg_tokend::testing::demo::{Plain, Server};
use zg_tokend::testing::secret::Secret;

use super::{Background, Output, Sandbox, audit};

/// A sandbox and the server that its config asks.
pub struct World {
    pub sandbox: Sandbox,
    pub server: Server,
}

impl World {
    /// One public client, strict rotation, tokens of one hour.
    pub fn new() -> Self {
        Self::with(IssuerOptions::default())
    }

    pub fn with(options: IssuerOptions) -> Self {
        Self { sandbox: Sandbox::new(), server: Server::spawn_thread(0, Plain, options).unwrap() }
    }

    /// The same with tokens that live so many seconds.
    pub fn with_lifetime(seconds: u64) -> Self {
        Self::with(IssuerOptions {
            access_token_lifetime: Duration::from_secs(seconds),
            ..IssuerOptions::default()
        })
    }

    /// The same where no disk is waited for: a refresh is as quick as the processor lets it be, and
    /// tokens of few seconds live through a busy machine.
    pub fn in_memory(seconds: u64) -> Self {
        let sandbox = Sandbox::below(Path::new("/dev/shm"));
        Self { sandbox, ..Self::with_lifetime(seconds) }
    }

    /// The same with one confidential client, `zg`, whose secret is `right`.
    pub fn with_secret() -> Self {
        Self::with(IssuerOptions {
            clients: vec![DemoClient::basic("zg", "right")],
            ..IssuerOptions::default()
        })
    }

    /// A configured, flat account; gives its seed. `extra` are more lines.
    pub fn configure(&self, extra: &str) -> Secret {
        let seed = self.seed();
        self.configure_seed(&seed, extra);
        seed
    }

    pub fn configure_seed(&self, seed: &Secret, extra: &str) {
        self.configure_inputs(&format!("refresh_token = \"{}\"\n{extra}", seed.expose()));
    }

    /// A flat account without refresh_token, but for what `lines` say.
    pub fn configure_inputs(&self, lines: &str) {
        self.sandbox.write_config(&format!("{}{lines}\n", self.client()));
    }

    /// Several accounts, each with this seed and a token file of its own.
    pub fn configure_accounts(&self, accounts: &[(&str, &Secret)]) {
        let tables = accounts.iter().map(|(name, seed)| {
            let path = self.token_file_of(name);
            let (seed, path) = (seed.expose(), path.display());
            format!("[accounts.{name}]\nrefresh_token = \"{seed}\"\ntoken_file = \"{path}\"\n")
        });
        let tables: String = tables.collect();
        self.sandbox.write_config(&format!("{}{tables}", self.client()));
    }

    /// Token endpoint and client, as lines of a config.
    pub fn client(&self) -> String {
        format!("token_endpoint = \"{}\"\nclient_id = \"demo\"\n", self.server.token_endpoint())
    }

    /// A new login.
    pub fn seed(&self) -> Secret {
        let client = self.server.issuer(|issuer| issuer.first_client().unwrap().to_owned());
        self.server.seed(&client).unwrap()
    }

    /// The next request meets this.
    pub fn fault(&self, fault: Fault) {
        self.server.faults(|faults| faults.next.push_back(fault));
    }

    pub fn outage(&self, outage: Option<Outage>) {
        self.server.faults(|faults| faults.outage = outage);
    }

    /// `once` with these arguments.
    pub fn once<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Output {
        self.sandbox.run(["once"].into_iter().chain(args))
    }

    /// `once`, which must end with this code.
    #[track_caller]
    pub fn once_gives<'a>(&self, code: i32, args: impl IntoIterator<Item = &'a str>) -> Output {
        let output = self.once(args);
        assert_eq!(output.code, Some(code), "{output:?}");
        output
    }

    /// `run`, once it supervises.
    pub fn run(&self) -> Background {
        let run = self.start_run();
        run.wait_for("supervising");
        run
    }

    pub fn start_run(&self) -> Background {
        Background::start(&mut self.sandbox.command(["run"]), self.sandbox.path("run.log"))
    }

    /// `status --json` of the first account, and the exit code.
    #[track_caller]
    pub fn status(&self) -> (Value, i32) {
        let output = self.sandbox.run(["status", "--json"]);
        let json: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        (json["accounts"][0].clone(), output.code.unwrap())
    }

    pub fn token_file(&self) -> PathBuf {
        self.sandbox.seen("config/zerogravity/token")
    }

    pub fn token_file_of(&self, account: &str) -> PathBuf {
        self.sandbox.path("home").join(format!("{account}.token"))
    }

    /// The token that a reader gets.
    pub fn token(&self) -> Secret {
        read(&self.token_file())
    }

    /// Whether a reader of this file gets a live token. Its life is judged at the time before the
    /// file was read: a busy machine may stop this thread after that for longer than a token lives.
    pub fn reads_live(&self, path: &Path) -> bool {
        let now = self.server.now();
        let token = read(path);
        self.server.issuer(|issuer| issuer.is_live(now, &token))
    }

    #[track_caller]
    pub fn assert_live(&self) {
        assert!(self.reads_live(&self.token_file()), "the token file holds a live token");
    }

    pub fn posts(&self) -> usize {
        audit::posts(&self.server.audit())
    }

    pub fn grants(&self) -> usize {
        audit::grants(&self.server.audit())
    }

    /// A file in the state directory of an account.
    pub fn state_path(&self, account: &str, name: &str) -> PathBuf {
        state_path(&self.sandbox, account, name)
    }

    pub fn state(&self) -> Value {
        self.state_of("default")
    }

    pub fn state_of(&self, account: &str) -> Value {
        state_in(&self.sandbox, account)
    }

    /// Replaces the state, whoever has the lock: a reader finds the earlier one or this.
    pub fn write_state(&self, state: &Value) {
        replace_state(&self.sandbox, "default", state);
    }

    /// Lets a test force more refreshes within a minute than the program permits: the state forgets
    /// those so far.
    pub fn permit_force(&self) {
        permit_force(&self.sandbox);
    }

    /// The SHA-256 of the refresh token in the state.
    pub fn refresh_token(&self) -> Secret {
        Secret::new(self.state()["refresh_token"]["value"].as_str().unwrap())
    }

    /// Lets time pass for the account `default`: every instant in its state moves into the past.
    pub fn pass_time(&self, by: Duration) {
        self.pass_time_of("default", by);
    }

    pub fn pass_time_of(&self, account: &str, by: Duration) {
        pass_time(&self.sandbox, account, by);
    }
}

fn state_path(sandbox: &Sandbox, account: &str, name: &str) -> PathBuf {
    sandbox.seen("state/zg-tokend").join(account).join(name)
}

/// The state of an account in a sandbox.
pub fn state_in(sandbox: &Sandbox, account: &str) -> Value {
    serde_json::from_slice(&fs::read(state_path(sandbox, account, "state")).unwrap()).unwrap()
}

fn replace_state(sandbox: &Sandbox, account: &str, state: &Value) {
    let path = state_path(sandbox, account, "state");
    let next = path.with_extension("next");
    fs::write(&next, state.to_string()).unwrap();
    fs::set_permissions(&next, Permissions::from_mode(0o600)).unwrap();
    fs::rename(next, path).unwrap();
}

/// Changes a state with its lock: what a pass has just stored is not lost.
fn change_state(sandbox: &Sandbox, account: &str, change: impl FnOnce(&mut Value)) {
    let directory = File::open(state_path(sandbox, account, "")).unwrap();
    super::wait_until("the lock of the account", || {
        flock(&directory, FlockOperation::NonBlockingLockExclusive).ok()
    });
    let mut state = state_in(sandbox, account);
    change(&mut state);
    replace_state(sandbox, account, &state);
    // Not by closing it alone: a child that another test has just forked has a copy.
    flock(&directory, FlockOperation::Unlock).unwrap();
}

/// The state forgets the forced refreshes so far.
pub fn permit_force(sandbox: &Sandbox) {
    super::wait_until("the end of a request", || {
        state_in(sandbox, "default")["in_flight"].is_null().then_some(())
    });
    change_state(sandbox, "default", |state| drop(state.as_object_mut().unwrap().remove("forced")));
}

/// Lets time pass for an account: every instant in its state moves into the past.
pub fn pass_time(sandbox: &Sandbox, account: &str, by: Duration) {
    change_state(sandbox, account, |state| shift(state, millis(by)));
}

/// The token in a file.
pub fn read(path: &Path) -> Secret {
    Secret::new(fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn shift(value: &mut Value, by: i64) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member.as_i64() {
                    Some(at) if name == "wall_ms" || name == "boot_ms" => *member = (at - by).into(),
                    _ => shift(member, by),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| shift(item, by)),
        _ => {}
    }
}
