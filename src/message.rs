//! Every sentence about an outcome, its log level and its hint.

mod fleet;

use std::time::Duration;

/// How grave a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Somebody has to act.
    Error,
    /// Somebody should look.
    Warn,
    /// Worth a line in the log.
    Info,
    /// For whoever looks for a fault.
    Debug,
}

impl Level {
    /// Its name, as in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::files::watch;
use crate::secret::Fingerprint;
use crate::timer;

use crate::problem::{Class, Problem, RAISE_PROCESSES, told};
use crate::refresh::decide::{Decision, Reason, Trigger};
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::record::VerdictKind;

/// The next step where only a new login helps and nothing is known of the account.
pub const LOG_IN_AGAIN: &str = "log in again, and pass the new refresh token to `zg-tokend set`";

/// While the server's answer is only in memory.
pub const UNSTORED: &str = "the new refresh token is only in memory; retrying to store it";

/// The next step after a refusal of the client, once the config has changed.
pub const CONFIG_CHANGED: &str =
    "the config has changed since: run `zg-tokend once` to try it; `zg-tokend run` tries it by itself";

/// The next step where the kernel refuses descriptors or threads.
pub const RAISE_LIMITS: &str =
    "raise the limits of this user: ulimit -n, ulimit -u; for a service LimitNOFILE=, TasksMax=";

/// The kernel refuses threads: nothing is lost, and work waits for other work.
pub fn no_threads(error: &std::io::Error) -> Message {
    let text = "cannot create a thread; the work is done one after the other";
    warn("no_threads", text, RAISE_PROCESSES).cause(Some(&error.to_string()))
}

/// The kernel refuses a timer: deadlines are noticed later, by a second at most.
pub fn no_timer(error: &std::io::Error) -> Message {
    let every = timer::POLL.as_secs();
    let text = format!("cannot create a timer; reading the clock every {every} s instead");
    warn("no_timer", text, RAISE_LIMITS).cause(Some(&error.to_string()))
}

/// The kernel refuses to watch files: their changes are noticed later.
pub fn no_watch(error: &std::io::Error) -> Message {
    let every = watch::POLL.as_secs();
    let text = format!("cannot watch files for changes; looking at them every {every} s instead");
    Message::new(Level::Warn, "no_watch", text).cause(Some(&error.to_string())).hint(
        "raise ulimit -n (LimitNOFILE=), or with sysctl fs.inotify.max_user_instances and fs.inotify.max_user_watches",
    )
}

/// One thing that happened, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// How grave it is.
    pub level: Level,
    /// A name for machines.
    pub event: &'static str,
    /// The sentence: lower case, without a full stop, without secrets.
    pub text: String,
    /// Why it happened, where the sentence does not say it.
    pub cause: Option<String>,
    /// The next step. Every warning and every error has one.
    pub hint: Option<String>,
    /// Number of the token that it is about.
    pub generation: Option<u64>,
}

impl Message {
    /// A message without a hint.
    pub fn new(level: Level, event: &'static str, text: impl Into<String>) -> Self {
        Self { level, event, text: text.into(), cause: None, hint: None, generation: None }
    }

    /// The same with a hint.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same with a cause, if there is one.
    pub fn cause(self, cause: Option<&str>) -> Self {
        Self { cause: cause.map(str::to_owned), ..self }
    }

    /// A sentence about a problem, with its cause and hint.
    fn of_problem(level: Level, event: &'static str, text: impl Into<String>, problem: &Problem) -> Self {
        Self::new(level, event, text)
            .cause(problem.cause.as_deref())
            .hint(way_out(problem.class, problem.hint.as_deref()))
    }
}

fn short(fingerprint: Fingerprint) -> String {
    fingerprint.to_string().chars().take(12).collect()
}

fn info(event: &'static str, text: impl Into<String>) -> Message {
    Message::new(Level::Info, event, text)
}

fn warn(event: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Message {
    Message::new(Level::Warn, event, text).hint(hint)
}

/// The message for a report.
pub fn words(report: &Report) -> Message {
    match report {
        Report::Decided { decision, trigger, facts } => decided(decision, *trigger, facts),
        Report::TookSeed(seed) => {
            info("new_login", format!("found a new refresh_token in the config (SHA-256 {}…)", short(*seed)))
        }
        Report::OlderSeed(seed) => info(
            "older_login",
            format!(
                "ignoring the refresh_token in the config (SHA-256 {}…): it is older than the login that `zg-tokend set` stored",
                short(*seed)
            ),
        ),
        Report::TookOver { account } => {
            let text = format!("took over the state of account {account}, which is no longer configured");
            info("took_over", text)
        }
        Report::FellBack { message, hint, .. } => {
            warn("fell_back", "the new login was refused, so the earlier one stays in use", hint)
                .cause(Some(message))
        }
        Report::Adopted => warn(
            "adopted",
            "another program has replaced the refresh token that the server refused; using the new one",
            "find what else writes into state_dir, such as another machine or a backup",
        ),
        Report::ArrivedDead { took } => {
            let took = duration(*took);
            let text =
                format!("the access token expired before it arrived (after {took}); requesting another");
            info("arrived_dead", text)
        }
        Report::RefreshTokenUnusable => warn(
            "refresh_token_unusable",
            "the server sent a refresh token that cannot be kept: it is too long, or has characters that none may have",
            "the earlier one stays in use; if the server refuses it, log in again and report this to the provider",
        ),
        Report::RefreshTokenIgnored => info(
            "refresh_token_ignored",
            "the server also sent a refresh token, which is not kept: the next request is made anew",
        ),
        Report::LifetimeUnreadable { assumed } => {
            let assumed = duration(*assumed);
            let text = format!("the server gives a lifetime that cannot be read; assuming {assumed}");
            warn("lifetime_unreadable", text, "set default_lifetime to what the provider documents")
        }
        Report::IdTokenUnusable { why } => warn(
            "id_token_unusable",
            format!("the ID token in the answer was not kept: it {why}"),
            "check the issuer and client_id in the config; the access token is not concerned",
        ),
        Report::FoundMarker { .. } => warn(
            "interrupted",
            "a process died during its request; the server may have answered it",
            "wait: the request is sent again; log in again if the server refuses it",
        ),
        Report::NotUnderstood { why, wait } => warn(
            "not_understood",
            format!("{why}; trying the configured refresh_token in {}", duration(*wait)),
            "if the server has rotated it since, log in again before then",
        ),
        Report::PutAside { path } => warn(
            "put_aside",
            format!("the state file is damaged and was renamed to {path}"),
            "zg-tokend tries the configured refresh_token; log in again if the server refuses it",
        ),
        Report::ForcedTooOften { wait } => warn(
            "forced_too_often",
            format!("too many forced refreshes; the next one is possible in {}", duration(*wait)),
            "find what forces them: a script in a loop, or a signal sent again and again",
        ),
        Report::ClockSetBack { issued_at } => {
            let at = local(issued_at.wall / 1000);
            let text =
                format!("the clock was set back to before {at}, when the token was issued; refreshing now");
            warn("clock_set_back", text, "check the clock of this machine: timedatectl")
        }
        Report::SeedUnreadable(problem) => {
            let text = format!("{}; using the refresh token in the state", problem.message);
            // No wait mends it.
            let hint = way_out(Class::Config, problem.hint.as_deref());
            warn("seed_unreadable", text, hint).cause(problem.cause.as_deref())
        }
        Report::NotYetStored(problem) => {
            let problem = problem.clone().within(UNSTORED);
            Message::of_problem(Level::Error, "not_stored", UNSTORED, &problem)
        }
        Report::OutputFailed(problem) => {
            let text = format!("{}; the token file has the new token", problem.message);
            Message::of_problem(Level::Warn, "output_failed", text, problem)
        }
        Report::Withdrawn => warn(
            "withdrawn",
            "removed the token file: its token has expired",
            "`zg-tokend status` shows why there is no newer one",
        ),
        Report::NotWithdrawn(problem) => {
            let text = "cannot remove the token file, whose token has expired";
            Message::of_problem(Level::Warn, "not_withdrawn", text, &problem.clone().within(text))
        }
        Report::Ignored { phase, event } => {
            Message::new(Level::Error, "bug", format!("unexpected event {event} in phase {phase}"))
                .hint("this is a bug: please report it")
        }
        Report::Fleet(report) => {
            let (event, text, hint) = fleet::sentence(*report);
            let message = Message::new(Level::Info, event, text);
            hint.map_or(message.clone(), |hint| Message { level: Level::Warn, ..message }.hint(hint))
        }
        Report::Undeliverable(problem) => {
            let text = format!("{}; the token stays, and this machine tries again", problem.message);
            Message::of_problem(Level::Warn, "fleet_unreachable", text, problem)
        }
        Report::Finished(outcome) => finished(outcome),
    }
}

fn decided(decision: &Decision, trigger: Trigger, facts: &str) -> Message {
    let text = match decision {
        Decision::Rest(wait) => format!("nothing is due for {}", duration(*wait)),
        Decision::Republish => "the token file or an output lacks the live token".into(),
        Decision::Refresh(reason) => format!("a refresh is due: {}", reason_text(*reason)),
        Decision::Hold { reason, wait, failure } => format!(
            "a refresh is due ({}); waiting {} after {} failures in a row, the last: {}",
            reason_text(*reason),
            duration(*wait),
            failure.count,
            failure.kind
        ),
        Decision::Lost(origin) => format!("the state that had token {} is not here", origin.generation),
        Decision::Refused(verdict) => format!("the server has refused this before: {}", verdict.error),
    };
    let Trigger { force, anew, retry_dead, reread, rejected, row } = trigger;
    let asked = [
        (force, " force"),
        (anew, " anew"),
        (retry_dead, " retry_dead"),
        (reread, " reread"),
        (rejected.is_some(), " rejected"),
        (row, " row"),
    ];
    let asked: String = asked.into_iter().filter_map(|(asked, name)| asked.then_some(name)).collect();
    Message::new(Level::Debug, "decided", format!("{text} [{facts}{asked}]"))
}

fn reason_text(reason: Reason) -> String {
    match reason {
        Reason::FirstToken => "there is no access token yet".into(),
        Reason::NewLogin => "the login is new".into(),
        Reason::Unclear => "an earlier request got no clear answer".into(),
        Reason::AfterVerdict => "the server refused the login or the client before".into(),
        Reason::Due(late) if late < 1000 => "it is time".into(),
        Reason::Due(late) => {
            format!("it was due {} ago", duration(Duration::from_millis(late.max(0).cast_unsigned())))
        }
        Reason::ClockSetBack => "the clock was set back to before the token was issued".into(),
        Reason::BeforeNextPass => "it would expire before the next pass".into(),
        Reason::Rejected => "a resource refused the token".into(),
        Reason::Forced => "forced".into(),
    }
}

fn finished(outcome: &Outcome) -> Message {
    match outcome {
        Outcome::Refreshed { generation, remaining, took } => {
            let (life, took) = (duration(*remaining), took.as_millis());
            let text = format!("refreshed: token {generation} lives {life} (the exchange took {took} ms)");
            Message { generation: Some(*generation), ..info("refreshed", text) }
        }
        Outcome::Fresh { remaining, .. } => {
            Message::new(Level::Debug, "fresh", format!("fresh: the token lives {}", duration(*remaining)))
        }
        Outcome::Republished => info("republished", "the token file has the live token again"),
        Outcome::Held { wait, problem } => {
            Message::new(Level::Debug, "held", format!("waiting {}: {}", duration(*wait), problem.message))
                .cause(problem.cause.as_deref())
                .hint(way_out(Class::Unavailable, problem.hint.as_deref()))
        }
        Outcome::Refused(verdict) => {
            let event = match verdict.kind {
                VerdictKind::RefreshToken => "needs_login",
                VerdictKind::Client => "client_refused",
            };
            Message::new(Level::Error, event, &*verdict.message)
                .cause(verdict.cause.as_deref())
                .hint(way_out(verdict.class(), verdict.hint.as_deref()))
        }
        Outcome::Failed(problem) => Message::of_problem(Level::Warn, "failed", &*problem.message, problem),
        Outcome::NotStored(problem) => {
            Message::of_problem(Level::Error, "not_stored", &*problem.message, problem)
        }
        Outcome::Stopped => Message::new(Level::Debug, "stopped", "stopped before the request was sent")
            .hint("run it again: nothing was sent, nothing has changed"),
    }
}

/// A duration in two units at most: `43 min`, `2 h 5 min`, `12 s`, `less than 1 s`.
pub fn duration(duration: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    // To the nearest second: an hour less the time of its request is an hour.
    let seconds = duration.saturating_add(Duration::from_millis(500)).as_secs();
    let Some(first) = UNITS.iter().position(|(length, _)| seconds >= *length) else {
        return if duration.is_zero() { "0 s" } else { "less than 1 s" }.into();
    };
    let (length, unit) = UNITS[first];
    let text = format!("{} {unit}", seconds / length);
    match UNITS.get(first + 1) {
        // Seconds beside minutes matter only while there are few of them.
        Some((next, unit)) if seconds % length / next > 0 && (*next > 1 || seconds < 600) => {
            format!("{text} {} {unit}", seconds % length / next)
        }
        _ => text,
    }
}

/// A wall time in Unix seconds as local date and time.
pub fn local(at: i64) -> String {
    let Ok(at) = jiff::Timestamp::from_second(at) else { return "never".into() };
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A wall time in Unix seconds as short as possible at `now`: the time alone for today.
pub fn local_near(at: i64, now: i64) -> String {
    let zone = jiff::tz::TimeZone::system();
    let zoned = |at| Some(jiff::Timestamp::from_second(at).ok()?.to_zoned(zone.clone()));
    let (Some(at), Some(now)) = (zoned(at), zoned(now)) else { return "never".into() };
    let format = match () {
        () if at.date() == now.date() => "%H:%M",
        () if at.year() == now.year() => "%-d %b %H:%M",
        () => "%Y-%m-%d",
    };
    at.strftime(format).to_string()
}

/// The local date and time, for a line of a log.
pub fn local_time() -> String {
    local(SystemClock::new().now().wall / 1000)
}

/// Why a pass left no fresh token behind, and the next step if only the user can take it; `None`
/// if it did.
pub fn explanation(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Refreshed { .. } | Outcome::Fresh { .. } | Outcome::Republished => None,
        Outcome::Held { problem, .. } | Outcome::Failed(problem) | Outcome::NotStored(problem) => {
            Some(told(&problem.message, problem.cause.as_deref()))
        }
        Outcome::Refused(verdict) => Some(match &verdict.hint {
            Some(hint) => format!("{}; {hint}", verdict.message),
            None => verdict.message.clone(),
        }),
        Outcome::Stopped => Some("stopped".into()),
    }
}

/// The hint of a problem, or the next step for its class.
pub fn way_out(class: Class, hint: Option<&str>) -> &str {
    hint.unwrap_or(match class {
        Class::NeedsLogin => LOG_IN_AGAIN,
        Class::Config => "correct the config; `zg-tokend check` shows what is wrong",
        Class::Io | Class::Unexpected => "run `zg-tokend check`",
        Class::Unavailable | Class::Busy => {
            "wait: `zg-tokend run` tries again by itself; without it, run `zg-tokend once` later"
        }
    })
}

/// A command line of this program for a config, and for an account if there are several.
pub fn command(name: &str, settings: &config::Settings, account: Option<&config::AccountConfig>) -> String {
    let mut command = format!("zg-tokend {name}");
    if let Some(account) = account.filter(|_| settings.accounts.len() > 1) {
        command = format!("{command} --account {}", account.name);
    }
    // The file that everybody else finds by itself need not be named.
    if !settings.path.ends_with("zg-tokend/config.toml") {
        command = format!("{command} --config {}", settings.path.display());
    }
    command
}

/// The next step where only a new login of this account helps.
pub fn login_hint(settings: &config::Settings, account: &config::AccountConfig) -> String {
    use config::SecretSource::{Command, Credential, Env, File, Inline, Sealed};
    let set = command("set", settings, Some(account));
    if account.can_log_in() {
        let login = command("login", settings, Some(account));
        return format!("log in with `{login}`, or pass a new refresh token to `{set}`");
    }
    let login = command("login", settings, Some(account));
    let by_command = format!("; with authorization_endpoint in the config, `{login}` does both");
    let place = match &account.refresh_token {
        None | Some(Sealed(_)) => {
            return format!("log in again, and pass the new refresh token to `{set}`{by_command}");
        }
        Some(Inline(_)) => format!("put it into {}", settings.path.display()),
        Some(File(path)) => format!("put it into {}", path.display()),
        Some(Env(variable)) => format!("put it into ${variable} and restart zg-tokend"),
        Some(source @ Command(_)) => format!("store it where {source} finds it"),
        Some(Credential(credential)) => format!("store it as credential {credential} and restart the unit"),
    };
    format!("log in again, and pass the new refresh token to `{set}`, or {place}{by_command}")
}

#[cfg(test)]
mod tests {
    use crate::clock::Timestamp;
    use crate::message::*;
    use crate::refresh::record::Verdict;

    fn start() -> Timestamp {
        Timestamp { wall: 0, boot: 0, boot_id: Fingerprint::of([]) }
    }

    /// Without a hint of its own.
    fn problem(class: Class) -> Problem {
        Problem { class, kind: "kind".into(), message: "it failed".into(), cause: None, hint: None }
    }

    fn verdict(kind: VerdictKind) -> Outcome {
        Outcome::Refused(Box::new(Verdict {
            is_of_login: false,
            kind,
            binding: Fingerprint::of([]),
            error: "no".into(),
            message: "refused".into(),
            cause: None,
            hint: None,
            at: start(),
            not_before: None,
        }))
    }

    #[test]
    fn every_warning_has_a_hint() {
        const CLASSES: [Class; 6] =
            [Class::Unavailable, Class::Io, Class::Busy, Class::NeedsLogin, Class::Config, Class::Unexpected];
        let of_problem: [fn(Problem) -> Report; 7] = [
            Report::SeedUnreadable,
            Report::OutputFailed,
            Report::NotYetStored,
            Report::NotWithdrawn,
            |problem| Report::Finished(Outcome::Held { wait: Duration::ZERO, problem: problem.into() }),
            |problem| Report::Finished(Outcome::Failed(problem.into())),
            |problem| Report::Finished(Outcome::NotStored(problem.into())),
        ];
        let reports = [
            Report::FellBack {
                refused: Fingerprint::of([]),
                error: "invalid_grant".into(),
                message: "refused".into(),
                hint: "log in".into(),
            },
            Report::Adopted,
            Report::FoundMarker { at: start() },
            Report::ClockSetBack { issued_at: start() },
            Report::ForcedTooOften { wait: Duration::ZERO },
            Report::NotUnderstood { why: "why".into(), wait: Duration::ZERO },
            Report::PutAside { path: "path".into() },
            Report::Withdrawn,
            Report::Ignored { phase: "phase".into(), event: "event".into() },
            Report::Finished(verdict(VerdictKind::RefreshToken)),
            Report::Finished(verdict(VerdictKind::Client)),
            Report::Finished(Outcome::Stopped),
        ];
        let problems = of_problem.into_iter().flat_map(|report| CLASSES.map(|class| report(problem(class))));
        for report in reports.into_iter().chain(problems) {
            assert!(words(&report).hint.is_some_and(|hint| !hint.is_empty()), "{report:?}");
        }
        assert_eq!(words(&Report::Finished(Outcome::Republished)).hint, None);
    }

    #[test]
    fn durations_as_people_say_them() {
        for (ms, said) in [
            (0, "0 s"),
            (300, "less than 1 s"),
            (500, "1 s"),
            (90_000, "1 min 30 s"),
            (3_599_800, "1 h"),
            (180_000_000, "2 d 2 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), said);
        }
    }
}
