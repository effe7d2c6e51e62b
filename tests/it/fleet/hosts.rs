//! Hosts: processes of the binary with directories and a config of their own, before one database.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use zg_tokend::testing::clock::millis;
use zg_tokend::testing::demo::{AuditEntry, AuditEvent, IssuerOptions, Plain, Server};
use zg_tokend::testing::secret::Secret;

use super::postgres::{Cluster, DATABASE, available};
use super::proxy::Proxy;
use crate::common::world::{pass_time, permit_force, read, state_in};
use crate::common::{Background, Output, PATIENCE, Sandbox, audit, poll_for, wait_until, write_private};

/// The key that seals the login in the row.
pub const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Another one.
pub const OTHER_KEY: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

/// Past the time when a token of one hour is due, and long before the last chance.
pub const DUE: Duration = Duration::from_secs(50 * 60);

/// From there to the last chance of a token of one hour, before its end.
pub const TO_LAST_CHANCE: Duration = Duration::from_secs(8 * 60);

/// Some hosts, the database and the server that they share.
pub struct Fleet {
    pub hosts: Vec<Host>,
    pub server: Server,
    pub cluster: Cluster,
}

/// One host. Its connections to the database go through a proxy of its own.
pub struct Host {
    pub sandbox: Sandbox,
    pub proxy: Proxy,
    role: &'static str,
}

impl Fleet {
    /// Tokens of one hour; a refresh token that is sent again revokes the login. `None` where
    /// PostgreSQL is not installed and need not be.
    pub fn new(hosts: usize) -> Option<Self> {
        Self::with(hosts, IssuerOptions::default())
    }

    /// The same with tokens that live so many seconds.
    pub fn with_lifetime(hosts: usize, seconds: u64) -> Option<Self> {
        let access_token_lifetime = Duration::from_secs(seconds);
        Self::with(hosts, IssuerOptions { access_token_lifetime, ..IssuerOptions::default() })
    }

    pub fn with(hosts: usize, options: IssuerOptions) -> Option<Self> {
        if !available() {
            return None;
        }
        let cluster = Cluster::new();
        let server = Server::spawn_thread(0, Plain, options).unwrap();
        let mut fleet = Self { hosts: Vec::new(), server, cluster };
        for _ in 0..hosts {
            fleet.add("refresh");
        }
        // The administrator runs what the program prints, and the program itself creates nothing.
        let sql = fleet.hosts[0].run(["fleet", "sql"]);
        assert_eq!(sql.code, Some(0), "{sql:?}");
        fleet.cluster.sql(&sql.stdout);
        Some(fleet)
    }

    /// One more host, with this role. It has no login of its own.
    pub fn add(&mut self, role: &'static str) -> &Host {
        let host = Host { sandbox: Sandbox::new(), proxy: Proxy::new(&self.cluster.socket()), role };
        self.configure(&host, "");
        self.hosts.push(host);
        self.hosts.last().unwrap()
    }

    /// The config of a host, with more lines for the account.
    pub fn configure(&self, host: &Host, lines: &str) {
        self.configure_url(host, lines, &host.url());
    }

    /// The same with this URL of the database.
    pub fn configure_url(&self, host: &Host, lines: &str, url: &str) {
        let key = host.sandbox.path("fleet.key");
        if !key.exists() {
            write_private(&key, KEY.as_bytes());
        }
        let key = match host.role {
            "read" => String::new(),
            _ => format!("key = {{ file = \"{}\" }}\n", key.display()),
        };
        host.sandbox.write_config(&format!(
            "token_endpoint = \"{}\"\nclient_id = \"demo\"\n{lines}\n[fleet]\nurl = \"{}\"\n{key}role = \"{}\"\n",
            self.server.token_endpoint(),
            url,
            host.role
        ));
    }

    /// The same for an account that logs in by browser.
    pub fn configure_issuer(&self, host: &Host) {
        self.configure(host, "");
        let config = fs::read_to_string(host.sandbox.config_path()).unwrap();
        let issuer = format!("issuer = \"{}\"\n", self.server.url());
        let lines = config.lines().filter(|line| !line.starts_with("token_endpoint"));
        host.sandbox.write_config(&format!("{issuer}{}\n", lines.collect::<Vec<_>>().join("\n")));
    }

    /// A new login at the server.
    pub fn seed(&self) -> Secret {
        self.server.seed("demo").unwrap()
    }

    /// The first host brings the login, and all hosts have its token.
    pub fn log_in(&self) {
        let seed = self.seed();
        self.configure(&self.hosts[0], &format!("refresh_token = \"{}\"", seed.expose()));
        for host in &self.hosts {
            host.once_gives(0, []);
        }
        assert_eq!(self.posts(), 1);
        self.assert_agreed();
    }

    pub fn posts(&self) -> usize {
        audit::posts(&self.server.audit())
    }

    /// Every refresh token was sent once at most, and none was refused.
    #[track_caller]
    pub fn assert_one_post_per_epoch(&self) {
        audit::assert_one_post_per_epoch(&self.server.audit());
    }

    pub fn is_revoked(&self) -> bool {
        self.server.audit().iter().any(|entry| matches!(entry.event, AuditEvent::Revocation { .. }))
    }

    /// No login was revoked.
    #[track_caller]
    pub fn assert_not_revoked(&self) {
        assert!(!self.is_revoked(), "{:#?}", self.server.audit());
    }

    /// The access token and the successor of the last grant.
    fn last_grant(&self) -> AuditEntry {
        let log = self.server.audit();
        let grants = log.into_iter().rev().filter(|entry| matches!(entry.event, AuditEvent::Grant { .. }));
        grants.into_iter().next().unwrap()
    }

    /// Every host, the row and the server have the same.
    #[track_caller]
    pub fn assert_agreed(&self) {
        let AuditEvent::Grant { access_token, successor, .. } = self.last_grant().event else {
            unreachable!()
        };
        for (place, host) in self.hosts.iter().enumerate() {
            assert_eq!(host.token().fingerprint(), access_token, "host {place} has the newest access token");
            if host.role == "refresh" {
                assert_eq!(host.refresh_token().fingerprint(), successor.unwrap(), "host {place}");
                assert!(host.replica()["undelivered"].is_null(), "host {place}: {}", host.state());
            }
        }
        self.assert_row_current();
    }

    /// The row has what the server gave last.
    #[track_caller]
    pub fn assert_row_current(&self) {
        let AuditEvent::Grant { successor, .. } = self.last_grant().event else { unreachable!() };
        assert_eq!(self.row("encode(held, 'hex')"), successor.unwrap().to_string(), "the row is current");
    }

    /// Waits until every host has the token of the last grant.
    #[track_caller]
    pub fn wait_for_token(&self) {
        let agree = poll_for(PATIENCE, || {
            let AuditEvent::Grant { access_token, .. } = self.last_grant().event else { unreachable!() };
            self.hosts.iter().all(|host| host.token().fingerprint() == access_token).then_some(())
        });
        assert!(agree.is_some(), "the token of the last grant is not on every host: {}", self.describe());
    }

    /// When the last token file was replaced, in milliseconds since 1970.
    pub fn last_published(&self) -> i64 {
        let times = self.hosts.iter().map(|host| {
            let replaced = fs::metadata(host.token_file()).unwrap().modified().unwrap();
            millis(replaced.duration_since(SystemTime::UNIX_EPOCH).unwrap())
        });
        times.max().unwrap()
    }

    /// Where everybody stands, for a test that fails.
    fn describe(&self) -> String {
        let hosts = self.hosts.iter().map(|host| {
            let log = fs::read_to_string(host.sandbox.path("run.log")).unwrap_or_default();
            format!("{}\n{}\n{log}\n", host.replica(), host.run(["status"]).stdout)
        });
        let hosts: String = hosts.collect();
        format!(
            "{hosts}{}\n{:#?}",
            self.row("(SELECT row_to_json(l) FROM zg_tokend.login AS l)"),
            self.server.audit()
        )
    }

    /// Waits until the row has this epoch.
    #[track_caller]
    pub fn wait_for_epoch(&self, epoch: u64) {
        wait_until("an epoch", || (self.row("epoch") == epoch.to_string()).then_some(()));
    }

    /// A column, or an expression, of the one row.
    #[track_caller]
    pub fn row(&self, expression: &str) -> String {
        self.cluster.sql(&format!("SELECT {expression} FROM zg_tokend.login"))
    }

    /// Lets time pass for all: for the states and for the row.
    pub fn pass_time(&self, by: Duration) {
        for host in &self.hosts {
            pass_time(&host.sandbox, "default", by);
        }
        let seconds = by.as_secs();
        self.cluster.sql(&format!(
            "UPDATE zg_tokend.login SET issued_at = issued_at - interval '{seconds} s', \
             claimed_at = claimed_at - interval '{seconds} s', claim_until = claim_until - interval '{seconds} s'"
        ));
    }

    /// A claim that stands is over: its host had time enough.
    pub fn end_claims(&self) {
        self.cluster.sql(
            "UPDATE zg_tokend.login SET claimed_at = claimed_at - interval '80 s', \
             claim_until = claim_until - interval '80 s'",
        );
    }

    /// All hosts lead to this cluster from now on, as a virtual address does after a failover.
    pub fn lead_to(&self, cluster: &Cluster) {
        for host in &self.hosts {
            host.proxy.lead_to(&cluster.socket());
        }
    }
}

impl Host {
    pub fn url(&self) -> String {
        self.url_of([self.proxy.port()])
    }

    /// The URL that names these ports, in this order.
    pub fn url_of(&self, ports: impl IntoIterator<Item = u16>) -> String {
        let hosts: Vec<String> = ports.into_iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("postgresql://{}@{}/{DATABASE}?sslmode=disable", self.user(), hosts.join(","))
    }

    /// Its role in the database.
    pub fn user(&self) -> &'static str {
        if self.role == "read" { "zg_read" } else { "zg_refresh" }
    }

    pub fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        self.sandbox.command(args)
    }

    pub fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Output {
        self.sandbox.run(args)
    }

    /// `once` with these arguments, which must end with this code.
    #[track_caller]
    pub fn once_gives<'a>(&self, code: i32, args: impl IntoIterator<Item = &'a str>) -> Output {
        let output = self.run(["once"].into_iter().chain(args));
        assert_eq!(output.code, Some(code), "{output:?}");
        output
    }

    pub fn start_run(&self) -> Background {
        Background::start(&mut self.command(["run"]), self.sandbox.path("run.log"))
    }

    /// `run`, once it supervises.
    pub fn supervise(&self) -> Background {
        let run = self.start_run();
        run.wait_for("supervising");
        run
    }

    pub fn token_file(&self) -> PathBuf {
        self.sandbox.path("config/zerogravity/token")
    }

    /// The token that a program on this host gets.
    pub fn token(&self) -> Secret {
        read(&self.token_file())
    }

    pub fn state(&self) -> Value {
        state_in(&self.sandbox, "default")
    }

    pub fn replica(&self) -> Value {
        self.state()["replica"].clone()
    }

    /// Lets a test force more refreshes within a minute than the program permits.
    pub fn permit_force(&self) {
        permit_force(&self.sandbox);
    }

    /// The name of this host in the row.
    pub fn name(&self) -> String {
        self.replica()["host"].as_str().unwrap().to_owned()
    }

    pub fn refresh_token(&self) -> Secret {
        Secret::new(self.state()["refresh_token"]["value"].as_str().unwrap())
    }

    /// `status --json` of the account, and the exit code.
    #[track_caller]
    pub fn status(&self) -> (Value, i32) {
        let output = self.run(["status", "--json"]);
        let json: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        (json["accounts"][0].clone(), output.code.unwrap())
    }
}
