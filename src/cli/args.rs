//! The command line.

mod fleet;
mod init;
mod seal;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use crate::cli::args::fleet::{Fleet, FleetCommand};
pub use crate::cli::args::init::Init;
pub use crate::cli::args::seal::{KeyPlace, Seal};
use crate::config::token_format::FormatError;
use crate::config::{AccountName, NotAnAccountName, TokenFormat};
use crate::secret::Fingerprint;

/// The examples and notes below the help of a command, or of the program: a section of one file.
fn examples(command: &str) -> &'static str {
    let mut sections = include_str!("args/examples.txt").split("\n\n[");
    let section = sections.find_map(|section| section.strip_prefix(command)?.strip_prefix("]\n"));
    section.map(str::trim_end).unwrap_or_default()
}

/// Keeps an OAuth 2.0 access token fresh in a file.
#[derive(Debug, Parser)]
#[command(name = "zg-tokend", version, about, after_help = examples("zg-tokend"), disable_help_subcommand = true)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Default, clap::Args)]
pub struct Common {
    /// Config file [default: $ZG_TOKEND_CONFIG, else ~/.config/zg-tokend/config.toml]
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Name of the account
    #[arg(long, global = true, value_name = "NAME", value_parser = account_name)]
    pub account: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a config, or add an account to it, and check it
    #[command(after_help = examples("init"))]
    Init(Box<Init>),
    /// Keep the tokens fresh until stopped (SIGHUP reloads, SIGUSR1 refreshes now)
    #[command(after_help = examples("run"))]
    Run(Run),
    /// Refresh what is due, then exit
    #[command(after_help = examples("once"))]
    Once(Once),
    /// Log in with a browser, by device code or by paste, and store the login
    #[command(after_help = examples("login"))]
    Login(Box<Login>),
    /// Revoke the login and forget it
    #[command(after_help = examples("logout"))]
    Logout(Logout),
    /// Share one login among several machines, by a row in PostgreSQL
    #[command(after_help = examples("fleet"))]
    Fleet(Fleet),
    /// Seal the logins in the state with a key that is kept elsewhere, or lay them open again
    #[command(after_help = examples("seal"))]
    Seal(Seal),
    /// Store a new refresh token from stdin and refresh with it
    #[command(after_help = examples("set"))]
    Set(Set),
    /// Print a live access token, and refresh it first if needed
    #[command(after_help = examples("token"))]
    Token(Token),
    /// Run a command with the access token, again with a new one if it is refused
    #[command(after_help = examples("exec"))]
    Exec(Exec),
    /// Report that a resource refused the access token, and replace it
    #[command(after_help = examples("rejected"))]
    Rejected(Rejected),
    /// Show the state of each account, without network access
    #[command(after_help = examples("status"))]
    Status(Status),
    /// Check config, secrets, permissions and directories
    #[command(after_help = examples("check"))]
    Check(Check),
    /// Print a manual page: zg-tokend(1), or zg-tokend.toml(5) with `config`
    #[command(after_help = examples("man"))]
    Man(Man),
    /// Print a shell completion script
    #[command(after_help = examples("completions"))]
    Completions(Completions),
    /// Show a token's life with an embedded authorization server
    #[command(after_help = examples("demo"))]
    Demo(Demo),
}

/// Checks the form of the name; the config says whether the account exists.
pub fn account_name(text: &str) -> Result<String, NotAnAccountName> {
    text.parse().map(|name: AccountName| name.to_string())
}

/// humantime's own errors give a position and no example.
fn duration(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text).map_err(|_| "write for example 90s, 10m or \"1h 30m\"")
}

/// The standard library's error gives no example.
fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "write for example 127.0.0.1:9464, 0.0.0.0:9464 or [::]:9464")
}

fn template(text: &str) -> Result<TokenFormat, String> {
    text.parse().map_err(|error: FormatError| format!("it {error}; {}", error.hint()))
}

#[derive(Debug, Default, clap::Args)]
pub struct Run {
    /// Format of the log on stderr [default: text, and journal fields under systemd]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Also serve /healthz, /readyz and /metrics at this TCP address, such as 127.0.0.1:9464, to everybody who
    /// can connect
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// While another process supervises an account, stand by and take over when it ends
    #[arg(long)]
    pub wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object per line
    Json,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Default, clap::Args)]
pub struct Once {
    /// Refresh even if nothing is due
    #[arg(long)]
    pub force: bool,
    /// Send a refresh token again that the server has refused; implies --force
    #[arg(long)]
    pub retry_dead: bool,
    /// Interval between passes: also refresh tokens that would expire before the next pass
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub every: Option<Duration>,
    /// Print one JSON object
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    /// Print only failures and warnings; repeat a failure that goes on once a day
    #[arg(long)]
    pub quiet: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Default, clap::Args)]
pub struct Login {
    /// Enter a code on another device
    #[arg(long, conflicts_with = "paste")]
    pub device: bool,
    /// Paste the address that the browser shows after the login
    #[arg(long)]
    pub paste: bool,
    /// Show the address of the login page instead of starting a browser
    #[arg(long)]
    pub no_browser: bool,
    /// Show no QR code
    #[arg(long)]
    pub no_qr: bool,
    /// Port for the answer of the browser [default: that of redirect_uri, else a free port]
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub port: u16,
    /// Maximum wait for the login in the browser
    #[arg(long, value_name = "DURATION", default_value = LOGIN_TIMEOUT, value_parser = duration)]
    pub timeout: Duration,
    /// Scope of the login [default: login_scope, else scope and what the provider needs]
    #[arg(long, value_name = "SCOPE")]
    pub scope: Option<String>,
    /// Allow another user than the one of the last login
    #[arg(long)]
    pub other_identity: bool,
    /// Log in on this host by ssh, with the browser of this machine
    #[arg(long, value_name = "USER@HOST", conflicts_with_all = ["device", "paste", "json"])]
    pub remote: Option<String>,
    /// Print one JSON object per line; with --device it needs no terminal
    #[arg(long)]
    pub json: bool,
    /// Only there to be refused: other users can see a command line.
    #[arg(hide = true, value_name = "CODE")]
    pub code: Option<String>,
}

/// Enough for a password, a second factor and a consent.
const LOGIN_TIMEOUT: &str = "5m";

impl Login {
    /// As without flags on the command line.
    pub fn by_default() -> Self {
        Self { timeout: duration(LOGIN_TIMEOUT).unwrap_or_default(), ..Self::default() }
    }
}

#[derive(Debug, clap::Args)]
pub struct Logout {
    /// Forget the login on this machine alone, without asking the server to revoke it
    #[arg(long)]
    pub local: bool,
}

#[derive(Debug, clap::Args)]
pub struct Set {
    /// Store an access token instead, and publish it until it expires
    #[arg(long, requires = "expires_in")]
    pub access_token: bool,
    /// Remaining lifetime of the access token, such as 55min
    #[arg(long, requires = "access_token", value_name = "DURATION", value_parser = duration)]
    pub expires_in: Option<Duration>,
}

/// Enough time for a request that uses the token.
const MIN_VALID: &str = "60s";

/// As long as people wait for a command.
const WAIT: &str = "8s";

#[derive(Debug, Clone, clap::Args)]
pub struct TokenFlags {
    /// Refresh first if the token expires sooner than this (at most half of its lifetime counts)
    #[arg(long, value_name = "DURATION", default_value = MIN_VALID, value_parser = duration)]
    pub min_valid: Duration,
    /// Policy for a failed refresh
    #[arg(long, value_name = "POLICY", default_value = "use-existing")]
    pub on_error: OnError,
    /// Policy for a refresh by another process
    #[arg(long, value_name = "POLICY", default_value = "wait")]
    pub on_busy: OnBusy,
    /// Maximum wait for another process
    #[arg(long, value_name = "DURATION", default_value = WAIT, value_parser = duration)]
    pub wait: Duration,
}

impl Default for TokenFlags {
    fn default() -> Self {
        let time = |text| duration(text).unwrap_or_default();
        Self {
            min_valid: time(MIN_VALID),
            on_error: OnError::UseExisting,
            on_busy: OnBusy::Wait,
            wait: time(WAIT),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    /// Use the stored token while it is live
    UseExisting,
    /// Fail
    Fail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnBusy {
    /// Wait for its token
    Wait,
    /// Use the stored token while it is live
    UseExisting,
}

#[derive(Debug, clap::Args)]
pub struct Token {
    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub format: TokenOutput,
    /// Print this instead: a template or the name of a format, as for token_format in the config
    #[arg(long, value_name = "TEMPLATE", conflicts_with_all = ["format", "operation"], value_parser = template)]
    pub template: Option<TokenFormat>,
    /// The copy of this program that makes the exchange for a reader
    #[arg(long, hide = true)]
    pub own_session: bool,
    #[command(flatten)]
    pub wanted: TokenFlags,
    /// User name for git
    #[arg(long, value_name = "NAME", default_value = GIT_USER)]
    pub username: String,
    /// Operation that git passes to its credential helper: get, store or erase
    #[arg(value_name = "OPERATION")]
    pub operation: Option<String>,
}

/// Most git servers take any name beside a token.
const GIT_USER: &str = "oauth2";

impl Default for Token {
    fn default() -> Self {
        Self {
            format: TokenOutput::Raw,
            template: None,
            own_session: false,
            wanted: TokenFlags::default(),
            username: GIT_USER.to_owned(),
            operation: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenOutput {
    /// The token and a line break
    Raw,
    /// `Bearer TOKEN`, for programs that send it as it is
    Bearer,
    /// The ID token of OpenID Connect, if the server sent one
    IdToken,
    /// `Authorization: Bearer TOKEN`, for `curl -H @-`
    Header,
    /// A JSON object with access_token, token_type and expires_at
    Json,
    /// An ExecCredential for kubectl
    Kubernetes,
    /// git's credential helper protocol
    Git,
}

#[derive(Debug, clap::Args)]
pub struct Exec {
    #[command(flatten)]
    pub wanted: TokenFlags,
    /// Environment variable that holds the token for the command
    #[arg(long, value_name = "NAME", default_value = "ACCESS_TOKEN")]
    pub env: String,
    /// Pass the token in a file instead: its path replaces {} in the arguments. The file gets each new token while
    /// the command runs
    #[arg(long, conflicts_with = "env")]
    pub file: bool,
    /// Pass this instead of the bare token: a template or the name of a format, as for token_format in the config
    #[arg(long, value_name = "TEMPLATE", value_parser = template)]
    pub template: Option<TokenFormat>,
    /// Exit code of the command that means the token was refused: replace the token and run the command again
    /// (may be given several times). `exec` does not replay standard input for the second run
    #[arg(long, value_name = "CODE")]
    pub retry_on_exit: Vec<u8>,
    /// Command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub struct Rejected {
    /// SHA-256 of the refused token in hex, instead of the token on stdin
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<Fingerprint>,
    /// Maximum wait for another process
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = duration)]
    pub wait: Duration,
    /// The copy of this program that makes the exchange for a reader
    #[arg(long, hide = true)]
    pub own_session: bool,
    /// Leave the hooks to the next pass
    #[arg(long, hide = true)]
    pub no_hooks: bool,
}

#[derive(Debug, clap::Args)]
pub struct Man {
    /// Page to print
    #[arg(value_enum, default_value_t)]
    pub page: ManualPage,
    /// Write both pages to where man finds them: ../share/man beside the directory of this program
    #[arg(long, conflicts_with = "page")]
    pub install: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ManualPage {
    /// zg-tokend(1): the commands.
    #[default]
    Commands,
    /// zg-tokend.toml(5): the config file.
    Config,
}

#[derive(Debug, clap::Args)]
pub struct Completions {
    /// Shell
    pub shell: Shell,
}

#[derive(Debug, Default, clap::Args)]
pub struct Check {
    /// Check only the config file itself, as a reload does
    #[arg(long, conflicts_with_all = ["live", "json"])]
    pub syntax: bool,
    /// Also ask the servers (DNS, certificates, proxy, discovery, clock), without a refresh
    #[arg(long)]
    pub live: bool,
    /// Print one JSON object (see check.schema.json)
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Default, clap::Args)]
pub struct Status {
    /// Keep the display up to date until Ctrl-C
    #[arg(long, conflicts_with_all = ["json", "short", "format"])]
    pub watch: bool,
    /// Print one JSON object (see status.schema.json)
    #[arg(long, conflicts_with_all = ["short", "format"])]
    pub json: bool,
    /// Print one line, for prompts and status bars
    #[arg(long, conflicts_with = "format")]
    pub short: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t, hide_default_value = true)]
    pub format: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: a table on a terminal, plain lines in a pipe.
    #[default]
    Text,
    /// Same as --json.
    Json,
    /// Same as --short.
    Short,
    /// Metrics for the textfile collector of the Prometheus node_exporter.
    Prometheus,
}

#[derive(Debug, clap::Args)]
pub struct Demo {
    /// End after this time, such as 30s or 2min
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub for_: Option<Duration>,
    /// Run only the authorization server, to test other programs with
    #[arg(long)]
    pub server_only: bool,
    /// Port of the server [default: a free port]
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub port: u16,
}

#[cfg(test)]
mod tests;
