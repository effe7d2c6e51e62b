//! The conclusions from one look. Pure.

use std::time::Duration;

use crate::account::token_file::Observation;
use crate::clock::{Timestamp, millis};
use crate::config;
use crate::config::SecretSource;
use crate::http::shown;
use crate::message::{LOG_IN_AGAIN, duration, local};
use crate::probe::PROBE_REFUSED;
use crate::probe::rules::Probed;
use crate::problem::chain;
use crate::refresh::record::{AccessToken, LoginSource, Record, Verdict, VerdictKind};
use crate::refresh::schedule;
use crate::refresh::schedule::Due;
use crate::status::{
    AccountStatus, AttemptStatus, Look, ProbeStatus, PushStatus, RefreshTokenStatus, Severity, State,
    SupervisorStatus, TokenFileStatus,
};
use crate::store::lock::Supervision;
use crate::store::state::Stored;

/// Cron comes every five minutes, and may skip one: a token that is due no longer than this is
/// nobody's fault yet.
const OVERDUE_GRACE: Duration = Duration::from_secs(10 * 60);

const REFRESH_IT: &str = "run `zg-tokend once` to see it refreshed, or `zg-tokend run` to keep it so";
const PUBLISH_IT: &str = "run `zg-tokend once`: it writes the live token again";

/// Draws the conclusions.
pub(super) fn assess(account: &config::AccountConfig, look: &Look, now: Timestamp) -> AccountStatus {
    let mut status = blank(account, look);
    match &look.stored {
        Ok(Stored::Record(record)) => status.judge(account, record, look, now),
        Ok(Stored::Nothing) => {
            status.state = State::Due;
            let problem = if status.token_file.exists {
                "there is no token yet, and nothing is known of the one in the token file"
            } else {
                "there is no token yet"
            };
            status.find(Severity::Critical, problem, Some(REFRESH_IT.into()));
            if !status.refresh_token.available {
                let hint = "log in, and give the refresh token to `zg-tokend set`";
                status.blame(status.severity, "there is no refresh token", Some(hint.into()));
            }
        }
        Ok(Stored::Garbage(why)) => {
            status.state = State::Unknown;
            let hint = "the next refresh begins anew with the configured refresh_token";
            let problem = format!("the state file {why}");
            status.find(Severity::Unknown, problem, Some(hint.into()));
        }
        Err(problem) => {
            status.state = State::Unknown;
            status.find(Severity::Unknown, problem.message.clone(), problem.hint.clone());
        }
    }
    if let Some(since) = look.hangs {
        let text = format!("the file system of its files does not answer since {}", local(since));
        let hint = "check the file system of token file and state: mount, df, dmesg";
        status.blame(Severity::Critical, text, Some(hint.into()));
    }
    if let Some(error) = &look.obstacle
        && status.state != State::NeedsLogin
    {
        // It is the cause of whatever else is wrong, or will be.
        status.blame(Severity::Warning, chain(error), error.hint());
    }
    status
}

impl AccountStatus {
    /// Adds a finding; the first of the worst is the one that is told.
    fn find(&mut self, severity: Severity, problem: impl Into<String>, hint: Option<String>) {
        let worst = self.severity.or(severity);
        if worst != self.severity || self.problem.is_none() {
            self.blame(worst, problem, hint);
        }
    }

    /// Names the cause of what was found so far: it is told in place of that.
    fn blame(&mut self, severity: Severity, cause: impl Into<String>, hint: Option<String>) {
        self.severity = self.severity.or(severity);
        self.problem = Some(cause.into());
        self.hint = hint;
    }

    /// The supervisor lives, and stands still.
    pub(super) fn note_stopped(&mut self, pid: u32) {
        self.supervisor = Some(SupervisorStatus { pid: Some(pid), stopped: true });
        if self.state != State::NeedsLogin && self.severity != Severity::Unknown {
            let cause = format!("the supervisor, process {pid}, is stopped and refreshes nothing");
            self.blame(Severity::Warning, cause, Some(format!("let it go on: kill -CONT {pid}")));
        }
    }

    fn judge(&mut self, account: &config::AccountConfig, record: &Record, look: &Look, now: Timestamp) {
        self.tell(record, now);
        if let Some(token) = &record.access_token {
            self.judge_token(account, token, now);
        } else {
            self.state = State::Due;
            self.find(Severity::Critical, "there is no token yet", Some(REFRESH_IT.into()));
        }
        if !self.refresh_token.available && record.verdict.is_none() {
            self.judge_lack_of_login(account, record, now);
        }
        self.judge_refresh(record, look, now);
        self.judge_login(record, now);
        if record.access_token.is_some() {
            self.judge_file(look);
        }
        self.judge_push(account, look);
        self.judge_probe(account, record, look);
    }

    /// The facts of the record.
    fn tell(&mut self, record: &Record, now: Timestamp) {
        self.generation = Some(record.generation);
        if let Some(token) = &record.access_token {
            self.source = if token.given { "runtime" } else { "login" };
            let remaining = token.remaining(now);
            self.expires_in = Some(remaining.div_euclid(1000));
            self.expires_at = Some(now.wall.saturating_add(remaining) / 1000);
            self.lifetime = Some(millis(token.lifetime()) / 1000);
        }
        if let Some(token) = &record.refresh_token {
            self.refresh_token = RefreshTokenStatus {
                available: !record.needs_login(),
                source: Some("state"),
                seeded_at: Some(token.seeded_at.wall / 1000),
                rotated_at: (token.source == LoginSource::Rotation).then_some(token.obtained_at.wall / 1000),
                ends_at: record.login_life.as_ref().map(|life| life.ends_at().wall / 1000),
            };
        }
        let failure = record.failure.as_ref();
        let message = failure.map(|failure| failure.message.clone());
        self.last_attempt = record.last_attempt.as_ref().map(|attempt| AttemptStatus {
            at: attempt.at.wall / 1000,
            result: attempt.result.clone(),
            message: message.or_else(|| record.verdict.as_ref().map(Verdict::explanation)),
            failures: failure.map(|failure| failure.count),
            failing_since: failure.map(|failure| failure.since.wall / 1000),
        });
    }

    fn judge_token(&mut self, account: &config::AccountConfig, token: &AccessToken, now: Timestamp) {
        let skew = schedule::skew(token.lifetime(), account.skew);
        match schedule::due(token.issued_at, schedule::due_after(token, account.skew), now) {
            Due::In(left) => {
                self.refresh_at = Some(now.wall.saturating_add(left) / 1000);
                self.next_refresh_at = self.refresh_at;
            }
            Due::Since(late) => {
                self.state = State::Due;
                self.refresh_at = Some(now.wall.saturating_sub(late) / 1000);
                if late > millis(OVERDUE_GRACE.min(skew / 2)) {
                    let late = Duration::from_secs(late.unsigned_abs() / 1000);
                    let problem = format!("a refresh is overdue for {}, {}", duration(late), self.nobody());
                    self.find(Severity::Warning, problem, Some(self.somebody()));
                }
            }
            Due::ClockSetBack => {
                self.state = State::Due;
                let hint = "set the clock: date, timedatectl";
                let problem = "the wall clock is before the token's issue";
                self.find(Severity::Warning, problem, Some(hint.into()));
            }
        }
        if !token.is_live(now) {
            self.state = State::Due;
            let ago = Duration::from_secs(token.remaining(now).div_euclid(1000).unsigned_abs());
            let problem = format!("the token expired {} ago, {}", duration(ago), self.nobody());
            self.find(Severity::Critical, problem, Some(self.somebody()));
        }
    }

    /// Why a token is late without a failure: nobody has tried.
    fn nobody(&self) -> &'static str {
        match self.supervisor {
            Some(_) => "and the supervisor has not tried",
            None => "and no supervisor is running",
        }
    }

    fn somebody(&self) -> String {
        match self.supervisor {
            Some(SupervisorStatus { pid: Some(pid), .. }) => {
                format!("look at its log, or restart it: kill {pid}; `zg-tokend once` refreshes now")
            }
            _ => "run `zg-tokend run`, or `zg-tokend once` from cron or a timer".into(),
        }
    }

    fn judge_push(&mut self, account: &config::AccountConfig, look: &Look) {
        for target in &account.push {
            let url = shown(&target.url);
            let last = look.pushed.0.get(&url);
            let current = last.map(|last| last.problem.is_none() && Some(last.generation) == self.generation);
            if let Some(problem) = last.and_then(|last| last.problem.as_ref()) {
                let problem = format!("the token was not sent to {url}: {problem}");
                let hint = "it is tried again; the token file has the token";
                self.find(Severity::Warning, problem, Some(hint.into()));
            }
            let (at, problem) = (last.map(|last| last.at), last.and_then(|last| last.problem.clone()));
            self.push.push(PushStatus { url, current, at, problem });
        }
    }

    fn judge_probe(&mut self, account: &config::AccountConfig, record: &Record, look: &Look) {
        let Some(probe) = &account.probe else { return };
        let url = shown(&probe.url);
        let last = look.probed.as_ref().filter(|last| last.url == url);
        // A server that gives out the same token again has been asked, too.
        let token = record.access_token.as_ref().map(|token| token.value.fingerprint());
        let rejection = record.rejection.as_ref().filter(|rejection| Some(rejection.token) == token);
        let is_answered = rejection.is_some_and(|rejection| rejection.answered);
        if last.is_some_and(|last| last.refuses_still(record.generation, is_answered)) {
            let problem = format!("{url} refuses the token, and a refresh has not helped");
            self.find(Severity::Warning, problem, Some(PROBE_REFUSED.into()));
        }
        self.probe = Some(ProbeStatus {
            url,
            at: last.map(|last| last.at),
            result: last.map(Probed::result),
            http_status: last.and_then(|last| last.status),
            problem: last.and_then(|last| last.problem.clone()),
            answered_at: last.and_then(|last| last.answered_at),
        });
    }

    /// Warns of a login that works and will not for long.
    fn judge_login(&mut self, record: &Record, now: Timestamp) {
        if record.refresh_token_unusable {
            let problem = "the server sent a refresh token that cannot be kept";
            let hint = "the earlier one stays in use; if the server refuses it, log in again and report this to the provider";
            self.find(Severity::Warning, problem, Some(hint.into()));
        }
        if let Some(life) = record.login_life.as_ref().filter(|life| life.ends_soon(now)) {
            let left = Duration::from_secs((life.ends_at().wall - now.wall).max(0).unsigned_abs() / 1000);
            let problem = format!("the login ends in {}", duration(left));
            self.find(Severity::Warning, problem, Some(LOG_IN_AGAIN.into()));
        }
    }

    fn judge_lack_of_login(&mut self, account: &config::AccountConfig, record: &Record, now: Timestamp) {
        let hint = "refresh unavailable: configure a refresh_token, or the token will end";
        let skew = |token: &AccessToken| millis(schedule::skew(token.lifetime(), account.skew));
        let soon = record.access_token.as_ref().is_none_or(|token| token.remaining(now) < skew(token));
        if soon {
            let cause = "refresh unavailable: there is no refresh token";
            self.blame(Severity::Warning, cause, Some(hint.into()));
        } else if self.problem.is_none() {
            self.hint = Some(hint.into());
        }
    }

    fn judge_refresh(&mut self, record: &Record, look: &Look, now: Timestamp) {
        let due = self.state == State::Due;
        if let Some(verdict) = &record.verdict {
            let (state, severity) = match verdict.kind {
                VerdictKind::RefreshToken => (State::NeedsLogin, Severity::Critical),
                VerdictKind::Client => (State::BackingOff, Severity::Warning),
            };
            self.state = state;
            self.blame(severity, verdict.explanation(), verdict.hint.clone());
            self.next_refresh_at = verdict.not_before.map(|at| at.wall / 1000);
        }
        if let Some(failure) = &record.failure
            && due
        {
            self.state = State::BackingOff;
            let again = match self.supervisor {
                Some(_) => "it is tried again by itself",
                None => "the next `zg-tokend once` tries again",
            };
            let hint = failure.hint.clone().or_else(|| Some(again.into()));
            self.blame(Severity::Warning, failure.message.clone(), hint);
            let wait = schedule::wait_after(failure, now).unwrap_or_default();
            self.next_refresh_at = Some((now.wall + millis(wait)) / 1000);
        }
        if record.in_flight.is_some() {
            if look.lock_held {
                self.state = State::Refreshing;
            } else {
                self.state = State::Due;
                let cause = "a process died while its request was under way";
                self.blame(Severity::Warning, cause, Some("run `zg-tokend once`: it asks again".into()));
            }
        }
    }

    fn judge_file(&mut self, look: &Look) {
        let path = self.token_file.path.display();
        match (&look.file, look.current) {
            (Observation::Missing, _) => {
                let problem = format!("the token file {path} is missing");
                self.find(Severity::Critical, problem, Some(PUBLISH_IT.into()));
            }
            (Observation::Unreadable(error), _) => {
                self.find(Severity::Critical, chain(error), error.hint());
            }
            (Observation::Holds { .. }, Some(false)) => {
                let problem = format!("the token file {path} holds something else than the newest token");
                self.find(Severity::Warning, problem, Some(PUBLISH_IT.into()));
            }
            (Observation::Holds { .. }, _) => {}
        }
    }
}

/// Before anything is known.
fn blank(account: &config::AccountConfig, look: &Look) -> AccountStatus {
    let (exists, modified_at) = match &look.file {
        Observation::Missing => (false, None),
        Observation::Holds { modified_at, .. } => (true, Some(modified_at / 1000)),
        Observation::Unreadable(_) => (true, None),
    };
    AccountStatus {
        account: account.name.to_string(),
        state: State::Fresh,
        severity: Severity::Ok,
        problem: None,
        hint: None,
        source: "file",
        token_file: TokenFileStatus {
            path: account.token_file.path.clone(),
            exists,
            current: look.current,
            modified_at,
            masked_by: None,
        },
        generation: None,
        expires_at: None,
        expires_in: None,
        lifetime: None,
        refresh_at: None,
        next_refresh_at: None,
        refresh_token: RefreshTokenStatus {
            available: account.refresh_token.is_some(),
            source: account.refresh_token.as_ref().map(source),
            seeded_at: None,
            rotated_at: None,
            ends_at: None,
        },
        last_attempt: None,
        push: Vec::new(),
        probe: None,
        supervisor: match look.supervision {
            Supervision::None => None,
            Supervision::Alive(supervisor) => {
                let pid = supervisor.map(|supervisor| supervisor.pid);
                Some(SupervisorStatus { pid, stopped: false })
            }
        },
    }
}

fn source(source: &SecretSource) -> &'static str {
    match source {
        SecretSource::Inline(_) => "config",
        SecretSource::File(_) => "file",
        SecretSource::Env(_) => "env",
        SecretSource::Command(_) => "command",
        SecretSource::Credential(_) => "credential",
    }
}
