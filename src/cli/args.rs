//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args as ClapArgs, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::{AccountName, NotAnAccountName, PROVIDERS};
use crate::secret::Fingerprint;

const EXAMPLES: &str = "\
Examples:
  zg-tokend demo                       see it work, with nothing configured
  zg-tokend init                       write a config
  zg-tokend check                      is the config right?
  zg-tokend once                       refresh what is due, then exit
  zg-tokend run                        keep the tokens fresh until stopped
  zg-tokend status                     what is true now
  */5 * * * *  zg-tokend once --quiet  the same from cron, without a daemon

Exit codes of run and once: 0 done, 2 usage, 69 unavailable, 74 files, 75 busy, 77 log in again, 78 config.
Exit codes of check: 0 no problem, 78 a problem. Of status: 0 fresh, 1 warning, 2 critical, 3 unknown.";

/// Keeps an OAuth 2.0 access token fresh in a file.
#[derive(Debug, Parser)]
#[command(name = "zg-tokend", version, about, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Args {
    /// The flags of every command.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Args {
    /// Reads the command line of this process.
    pub fn of_process() -> Result<Self, clap::Error> {
        let line: Vec<OsString> = std::env::args_os().collect();
        Self::read_briefly(&line).map_or_else(|| Self::try_parse_from(line), Ok)
    }

    /// Reads a line that begins with a command which scripts run often, by the definition of that
    /// command alone: the definition of all costs as much time as `status` has work. `None` for
    /// every other line, for help and for mistakes, which are the whole definition's to answer.
    fn read_briefly(line: &[OsString]) -> Option<Self> {
        let (name, flags): (_, fn(clap::Command) -> clap::Command) = match line.get(1)?.to_str()? {
            "run" => ("run", Run::augment_args),
            "once" => ("once", Once::augment_args),
            "token" => ("token", Token::augment_args),
            "exec" => ("exec", Exec::augment_args),
            "rejected" => ("rejected", Rejected::augment_args),
            "status" => ("status", Status::augment_args),
            _ => return None,
        };
        let program = Common::augment_args(clap::Command::new("zg-tokend"));
        let program = program.subcommand(flags(clap::Command::new(name)));
        Self::from_arg_matches(&program.try_get_matches_from(line).ok()?).ok()
    }
}

/// The flags of every command.
#[derive(Debug, Default, ClapArgs)]
pub struct Common {
    /// The config file [default: $ZG_TOKEND_CONFIG, else ~/.config/zg-tokend/config.toml]
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// The account that is meant, if there are several; what `init` is to call the one it writes
    #[arg(long, global = true, value_name = "NAME", value_parser = account_name)]
    pub account: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a config from a few answers, and check it
    Init(Box<Init>),
    /// Keep the tokens fresh until stopped (SIGHUP reloads the config, SIGUSR1 refreshes now)
    Run(Run),
    /// Refresh what is due, then exit
    Once(Once),
    /// Store a new refresh token, read from stdin, and refresh with it
    Set(Set),
    /// Print a live access token, refreshed first if need be
    Token(Token),
    /// Run a command with the access token; a refused token is replaced, and the command run once more
    Exec(Exec),
    /// Report that the token was refused: replace it, unless that has been done
    Rejected(Rejected),
    /// Tell what is true now, without touching the network
    Status(Status),
    /// Check config, secrets, permissions and places; exits with 78 if there is a problem
    Check(Check),
    /// Print a manual page: zg-tokend(1), or zg-tokend.toml(5) for `config`
    Man(Man),
    /// Print the completions for a shell
    Completions(Completions),
    /// Watch a token's life against an embedded authorization server
    Demo(Demo),
}

/// A name that an account can have; whether one has it, the config tells.
fn account_name(text: &str) -> Result<String, NotAnAccountName> {
    text.parse().map(|name: AccountName| name.to_string())
}

/// humantime's own errors tell where its parser stood.
fn duration(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text).map_err(|_| "write for example 90s, 10m or \"1h 30m\"")
}

/// The flags of `run`.
#[derive(Debug, Default, ClapArgs)]
pub struct Run {
    /// How to write the log to stderr [default: text, and the journal's fields under systemd]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// How the log is written to stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// The flags of `init`. A secret is never one of them: other users can see a command line.
#[derive(Debug, Default, ClapArgs)]
pub struct Init {
    /// Take client and login from an authorized_user JSON file of yours (Google)
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// A provider with a preset: google
    #[arg(long, value_name = "NAME", conflicts_with_all = ["issuer", "token_endpoint"], value_parser = PossibleValuesParser::new(PROVIDERS), hide_possible_values = true)]
    pub provider: Option<String>,
    /// The issuer, whose token endpoint is discovered
    #[arg(long, value_name = "URL", conflicts_with = "token_endpoint")]
    pub issuer: Option<String>,
    /// The token endpoint
    #[arg(long, value_name = "URL")]
    pub token_endpoint: Option<String>,
    /// Your OAuth client
    #[arg(long, value_name = "ID", conflicts_with = "from")]
    pub client_id: Option<String>,
    /// The file that holds the client's secret; leave it out for a public client
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "client_secret_env"])]
    pub client_secret_file: Option<PathBuf>,
    /// The environment variable that holds the client's secret
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    pub client_secret_env: Option<String>,
    /// The file that holds the refresh token
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "refresh_token_env", "refresh_token_stdin"])]
    pub refresh_token_file: Option<PathBuf>,
    /// The environment variable that holds the refresh token
    #[arg(long, value_name = "NAME", conflicts_with_all = ["from", "refresh_token_stdin"])]
    pub refresh_token_env: Option<String>,
    /// Read the refresh token from stdin, and write it into the config
    #[arg(long, conflicts_with = "from")]
    pub refresh_token_stdin: bool,
    /// The file that the access token goes to [default: ~/.config/zerogravity/token]
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,
    /// Replace a config that exists
    #[arg(long)]
    pub overwrite: bool,
}

/// The flags of `once`.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Default, ClapArgs)]
pub struct Once {
    /// Refresh what is not due, too
    #[arg(long)]
    pub force: bool,
    /// Send a refresh token once more that the server has refused
    #[arg(long, requires = "force")]
    pub retry_dead: bool,
    /// How far apart the passes come: also refresh what would expire before the next one
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub every: Option<Duration>,
    /// Print one JSON object
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    /// Print failures and warnings only
    #[arg(long)]
    pub quiet: bool,
}

/// The flags of `set`.
#[derive(Debug, ClapArgs)]
pub struct Set {
    /// It is an access token: publish it for as long as it lives
    #[arg(long, requires = "expires_in")]
    pub access_token: bool,
    /// The life that the access token has left, as in 55min
    #[arg(long, requires = "access_token", value_name = "DURATION", value_parser = duration)]
    pub expires_in: Option<Duration>,
}

/// The least life that a token must have left: enough for a request that is made with it.
const MIN_VALID: &str = "60s";

/// How long a caller waits for another process by default: as long as people wait for a command.
const WAIT: &str = "8s";

/// What a token must be, and what to do if there is none such.
#[derive(Debug, Clone, ClapArgs)]
pub struct TokenFlags {
    /// Refresh first if less life than this is left (at most half of the token's life counts)
    #[arg(long, value_name = "DURATION", default_value = MIN_VALID, value_parser = duration)]
    pub min_valid: Duration,
    /// If the refresh fails
    #[arg(long, value_name = "POLICY", default_value = "use-existing")]
    pub on_error: OnError,
    /// If another process is refreshing
    #[arg(long, value_name = "POLICY", default_value = "wait")]
    pub on_busy: OnBusy,
    /// How long to wait for another process
    #[arg(long, value_name = "DURATION", default_value = WAIT, value_parser = duration)]
    pub wait: Duration,
}

/// What to do if the refresh fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    /// Take the stored token while it lives
    UseExisting,
    /// Fail
    Fail,
}

/// What to do if another process is refreshing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnBusy {
    /// Wait for its token
    Wait,
    /// Take the stored token while it lives
    UseExisting,
}

/// The flags of `token`.
#[derive(Debug, ClapArgs)]
pub struct Token {
    /// What to print
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub format: TokenOutput,
    /// What it must be.
    #[command(flatten)]
    pub wanted: TokenFlags,
    /// The user name for git
    #[arg(long, value_name = "NAME", default_value = "oauth2")]
    pub username: String,
    /// What git asks of its credential helper: get, store or erase
    #[arg(value_name = "OPERATION")]
    pub operation: Option<String>,
}

/// What `token` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenOutput {
    /// The token, and a line break
    Raw,
    /// `Authorization: Bearer TOKEN`, as `curl -H @-` reads it
    Header,
    /// access_token, token_type and expires_at
    Json,
    /// An ExecCredential for kubectl
    Kubernetes,
    /// git's credential helper protocol
    Git,
}

/// The flags of `exec`.
#[derive(Debug, ClapArgs)]
pub struct Exec {
    /// What the token must be.
    #[command(flatten)]
    pub wanted: TokenFlags,
    /// The variable that the command finds the token in
    #[arg(long, value_name = "NAME", default_value = "ACCESS_TOKEN")]
    pub env: String,
    /// Give it as a file instead: {} in the arguments becomes its path
    #[arg(long, conflicts_with = "env")]
    pub file: bool,
    /// The exit code that says that the token was refused; may be given several times. Stdin is given once:
    /// what the first try has read of it is gone, so let the command itself open what it sends
    #[arg(long, value_name = "CODE")]
    pub retry_on_exit: Vec<u8>,
    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// The flags of `rejected`.
#[derive(Debug, ClapArgs)]
pub struct Rejected {
    /// The SHA-256 of the refused token, in hex, instead of the token on stdin
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<Fingerprint>,
    /// How long to wait for another process
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = duration)]
    pub wait: Duration,
}

/// The argument of `man`.
#[derive(Debug, ClapArgs)]
pub struct Man {
    /// Which page
    #[arg(value_enum, default_value_t)]
    pub page: ManualPage,
}

/// A manual page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ManualPage {
    /// zg-tokend(1): the commands.
    #[default]
    Commands,
    /// zg-tokend.toml(5): the config file.
    Config,
}

/// The argument of `completions`.
#[derive(Debug, ClapArgs)]
pub struct Completions {
    /// Whose
    pub shell: Shell,
}

/// The flags of `check`.
#[derive(Debug, Default, ClapArgs)]
pub struct Check {
    /// Only what the config file itself says, as a reload takes it over
    #[arg(long, conflicts_with_all = ["live", "json"])]
    pub syntax: bool,
    /// Ask the servers, too: names, certificates, proxy, discovery, clock; spends no token
    #[arg(long)]
    pub live: bool,
    /// Print one JSON object, as check.schema.json describes it
    #[arg(long)]
    pub json: bool,
}

/// The flags of `status`.
#[derive(Debug, Default, ClapArgs)]
pub struct Status {
    /// Show it until Ctrl-C, drawn anew as things happen
    #[arg(long, conflicts_with_all = ["json", "short", "format"])]
    pub watch: bool,
    /// Print one JSON object, as status.schema.json describes it
    #[arg(long, conflicts_with_all = ["short", "format"])]
    pub json: bool,
    /// Print one line, for prompts and status bars
    #[arg(long, conflicts_with = "format")]
    pub short: bool,
    /// Print it in another form
    #[arg(long, value_enum, default_value_t, hide_default_value = true)]
    pub format: Format,
}

/// How `status` tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: a table on a terminal, plain lines in a pipe.
    #[default]
    Text,
    /// The same as --json.
    Json,
    /// The same as --short.
    Short,
    /// Metrics for the textfile collector of Prometheus' node_exporter.
    Prometheus,
}

/// The flags of `demo`.
#[derive(Debug, ClapArgs)]
pub struct Demo {
    /// End after this time, as in 30s or 2min
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub for_: Option<Duration>,
    /// Only run the authorization server, for other programs to be tried against
    #[arg(long)]
    pub server_only: bool,
    /// The server's port [default: a free one]
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub port: u16,
}

#[cfg(test)]
mod tests {
    use crate::cli::args::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn global_flags_go_before_and_after_the_command() {
        for line in [
            ["zg-tokend", "--config", "c", "--account", "a", "run"],
            ["zg-tokend", "run", "--config", "c", "--account", "a"],
        ] {
            let args = Args::try_parse_from(line).unwrap();
            let Common { config, account } = args.common;
            assert_eq!((config.unwrap(), account.unwrap()), (PathBuf::from("c"), "a".into()));
        }
    }

    #[test]
    fn a_line_that_is_read_briefly_means_the_same() {
        for line in [
            "run --log-format json",
            "once --force --retry-dead --every 5min --account a",
            "token --format git get",
            "token help",
            "exec --config c --retry-on-exit 3 -- env --json",
            "rejected --wait 1s",
            "status --json",
            "status",
        ] {
            let line: Vec<OsString> = format!("zg-tokend {line}").split(' ').map(OsString::from).collect();
            let briefly = Args::read_briefly(&line).unwrap();
            assert_eq!(format!("{briefly:?}"), format!("{:?}", Args::try_parse_from(line).unwrap()));
        }
    }

    #[test]
    fn help_and_mistakes_are_for_the_whole_definition() {
        for line in ["", "--config c status", "once -h", "run -V", "status --jsn", "token --wait x", "exec"] {
            let line = ["zg-tokend"].into_iter().chain(line.split(' ')).map(OsString::from);
            assert!(Args::read_briefly(&line.collect::<Vec<_>>()).is_none());
        }
    }
}
