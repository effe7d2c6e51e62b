//! The conclusions from one look. Pure.
//!
//! The core decides whether a refresh is due. Of all findings the worst is reported, and of equal
//! ones the first, unless a later step finds their cause.

use std::time::Duration;

use crate::account::barrier::barrier;
use crate::account::outputs::matches;
use crate::account::token_file::Observation;
use crate::clock::{Timestamp, millis};
use crate::config::{AccountConfig, SecretSource, TokenFile};
use crate::http::shown;
use crate::message::{CONFIG_CHANGED, LOG_IN_AGAIN, duration, local, way_out};
use crate::probe::PROBE_REFUSED;
use crate::probe::rules::ProbeNote;
use crate::problem::{Class, cause, chain};
use crate::refresh::Policy;
use crate::refresh::decide::{Decision, FileView, Loaded, Reason, Trigger, decide};
use crate::refresh::record::{AccessToken, LoginSource, Record, VerdictKind};
use crate::refresh::schedule::{self, Due};
use crate::status::account::{
    AccountStatus, AttemptStatus, CertificateStatus, FleetStatus, ProbeStatus, PushStatus,
    RefreshTokenStatus, Severity, State, SupervisorStatus, TokenFileStatus,
};
use crate::status::credentials::waits_for;
use crate::status::look::Look;
use crate::store::lock::Supervision;

/// Cron runs every five minutes and may skip one run: a refresh that is due for no longer than this
/// is no problem yet.
const OVERDUE_GRACE: Duration = Duration::from_secs(10 * 60);

const STATE_LOST: &str = "mount or restore state_dir, or log in again";
const REFRESH_IT: &str = "run `zg-tokend once` to see it refreshed, or `zg-tokend run` to keep it so";
const RUN_IT: &str = "run `zg-tokend run`, or `zg-tokend once` from cron or a timer";
const PUBLISH_IT: &str = "run `zg-tokend once`: it writes the live token again";

pub(super) fn judge(account: &AccountConfig, policy: &Policy, look: &Look, now: Timestamp) -> AccountStatus {
    let mut status = of_config(account, look);
    match &look.loaded {
        Ok(loaded @ Loaded { record: Some(record), .. }) => {
            status.add_record(account, record, now);
            status.judge_record(account, policy, (loaded, record), look, now);
            status.judge_fleet(record);
        }
        Ok(Loaded { garbage: Some(why), .. }) => {
            status.state = State::Unknown;
            let hint = "the next refresh begins anew with the configured refresh_token";
            status.find(Severity::Unknown, format!("the state file {why}"), hint);
        }
        Ok(Loaded { file: FileView::Ahead(_), .. }) => {
            status.state = State::Due;
            let cause = Some("the token file has a token that the state does not know".into());
            status.find_with(Severity::Critical, "the state is missing", cause, STATE_LOST);
        }
        Ok(_) => {
            status.state = State::Due;
            let problem = if status.token_file.exists {
                "there is no token yet, and nothing is known of the one in the token file"
            } else {
                "there is no token yet"
            };
            status.find(Severity::Critical, problem, REFRESH_IT);
            if status.judge_fleet_unseen() {
                // The login may be in the database.
            } else if !status.can_refresh() {
                status.state = State::NeedsLogin;
                let hint = "log in, and give the refresh token to `zg-tokend set`".into();
                let hint = if account.can_log_in() { policy.login_hint() } else { hint };
                status.blame(status.severity, "there is no refresh token", Some(hint));
            }
        }
        Err(problem) => {
            status.state = State::Unknown;
            status.blame(Severity::Unknown, &*problem.message, problem.hint.clone());
            status.cause.clone_from(&problem.cause);
        }
    }
    status.judge_certificates(look, now);
    if let Some(since) = look.hangs {
        let text = format!("the file system of its files does not answer since {}", local(since));
        let hint = "check the file system of token file and state: mount, df, dmesg".into();
        status.blame(Severity::Critical, text, Some(hint));
    }
    if let Some(error) = &look.obstacle
        && status.state != State::NeedsLogin
    {
        // It is the cause of everything else that is wrong, or will be.
        status.blame(Severity::Warning, error.to_string(), error.hint());
        status.cause = cause(error);
    }
    status
}

/// Without the state.
fn of_config(account: &AccountConfig, look: &Look) -> AccountStatus {
    AccountStatus {
        account: account.name.to_string(),
        from: account.from.as_ref().map(ToString::to_string),
        source: "file",
        fleet: FleetStatus::of_config(account, &look.fleet),
        grant_type: (!account.grant.grant_type.has_login()).then(|| account.grant.grant_type.name()),
        certificates: look
            .certificates
            .iter()
            .map(|(key, path, certificate)| CertificateStatus {
                key,
                path: path.clone(),
                ends_at: certificate.as_ref().ok().map(|certificate| certificate.ends_at),
            })
            .collect(),
        token_file: file_status(&account.token_file, &look.file),
        outputs: account
            .outputs
            .iter()
            .zip(&look.outputs)
            .map(|(output, seen)| file_status(&output.file, seen))
            .collect(),
        refresh_token: RefreshTokenStatus {
            available: account.refresh_token.is_some(),
            source: account.refresh_token.as_ref().map(|source| match source {
                SecretSource::Inline(_) => "config",
                SecretSource::File(_) => "file",
                SecretSource::Env(_) => "env",
                SecretSource::Command(_) => "command",
                SecretSource::Credential(_) => "credential",
                SecretSource::Sealed(_) => "sealed",
            }),
            ..RefreshTokenStatus::default()
        },
        supervisor: match look.supervision {
            Supervision::None => None,
            Supervision::Alive(supervisor) => {
                Some(SupervisorStatus { pid: supervisor.map(|supervisor| supervisor.pid), stopped: false })
            }
        },
        ..AccountStatus::default()
    }
}

fn file_status(file: &TokenFile, seen: &Observation) -> TokenFileStatus {
    TokenFileStatus {
        path: file.path.clone(),
        exists: !matches!(seen, Observation::Missing),
        modified_at: match seen {
            Observation::Holds { modified_at, .. } => Some(modified_at / 1000),
            _ => None,
        },
        ..TokenFileStatus::default()
    }
}

impl AccountStatus {
    /// Whether there is something to exchange for the next token.
    pub fn can_refresh(&self) -> bool {
        let only_reads = self.fleet.as_ref().is_some_and(|fleet| fleet.role == "read");
        self.grant_type.is_some() || self.refresh_token.available || only_reads
    }

    /// Adds a finding, which is reported if it is the worst so far.
    pub(super) fn find(&mut self, severity: Severity, problem: impl Into<String>, hint: impl Into<String>) {
        self.find_with(severity, problem, None, hint);
    }

    /// The same with its cause.
    pub(super) fn find_with(
        &mut self,
        severity: Severity,
        problem: impl Into<String>,
        cause: Option<String>,
        hint: impl Into<String>,
    ) {
        let worst = self.severity.or(severity);
        if worst != self.severity || self.problem.is_none() {
            self.blame(worst, problem, Some(hint.into()));
            self.cause = cause;
        }
    }

    /// Adds what explains the findings so far, and is reported in their place.
    fn blame(&mut self, severity: Severity, problem: impl Into<String>, hint: Option<String>) {
        self.severity = self.severity.or(severity);
        self.problem = Some(problem.into());
        self.cause = None;
        self.hint = hint;
    }

    pub(super) fn stop_supervisor(&mut self, pid: u32) {
        self.supervisor = Some(SupervisorStatus { pid: Some(pid), stopped: true });
        if self.state != State::NeedsLogin && self.severity != Severity::Unknown {
            let cause = format!("the supervisor, process {pid}, is stopped and refreshes nothing");
            self.blame(Severity::Warning, cause, Some(format!("continue it: kill -CONT {pid}")));
        }
    }

    /// The facts of the record, without a judgement.
    fn add_record(&mut self, account: &AccountConfig, record: &Record, now: Timestamp) {
        self.generation = Some(record.generation);
        if let Some(token) = &record.access_token {
            self.source = if token.given { "runtime" } else { "login" };
            let remaining = token.remaining(now);
            self.expires_in = Some(remaining.div_euclid(1000));
            self.expires_at = Some(now.wall.saturating_add(remaining) / 1000);
            self.lifetime = Some(millis(token.lifetime()) / 1000);
            self.refresh_at = match due(account, token, now) {
                Due::In(left) => Some(now.wall.saturating_add(millis(left)) / 1000),
                Due::Since(late) => Some(now.wall.saturating_sub(late) / 1000),
                Due::ClockSetBack => None,
            };
        }
        if let Some(token) = record.refresh_token.as_ref().filter(|_| self.grant_type.is_none()) {
            self.refresh_token = RefreshTokenStatus {
                available: !record.needs_login(),
                source: Some("state"),
                at_rest: Some(if token.value.sealed().is_some() { "sealed" } else { "plain" }),
                seeded_at: Some(token.seeded_at.wall / 1000),
                rotated_at: (token.source == LoginSource::Rotation).then_some(token.obtained_at.wall / 1000),
                ends_at: record.login_life.as_ref().map(|life| life.ends_at().wall / 1000),
                identity: record.identity.as_ref().map(ToString::to_string),
                email: record.identity.as_ref().and_then(|identity| identity.email.clone()),
            };
        }
        let failure = record.failure.as_ref();
        let said = failure.map(|failure| (failure.message.clone(), failure.cause.clone()));
        let of_verdict =
            || record.verdict.as_ref().map(|verdict| (verdict.message.clone(), verdict.cause.clone()));
        let (message, cause) = said.or_else(of_verdict).unzip();
        self.last_attempt = record.last_attempt.as_ref().map(|attempt| AttemptStatus {
            at: attempt.at.wall / 1000,
            result: attempt.result.clone(),
            message,
            cause: cause.flatten(),
            failures: failure.map(|failure| failure.count),
            failing_since: failure.map(|failure| failure.since.wall / 1000),
        });
    }

    fn judge_record(
        &mut self,
        account: &AccountConfig,
        policy: &Policy,
        (loaded, record): (&Loaded, &Record),
        look: &Look,
        now: Timestamp,
    ) {
        match &record.access_token {
            Some(token) => self.judge_token(account, token, now),
            None => self.find(Severity::Critical, "there is no token yet", REFRESH_IT),
        }
        if !self.can_refresh() && record.verdict.is_none() {
            self.judge_missing_login(account, policy, record, now);
        }
        // Without secrets, which `status` does not read, the core decides nothing else.
        if let Decision::Refresh(reason) = decide(loaded, policy, None, Trigger::default(), now) {
            let has_login = self.can_refresh() || record.verdict.is_some();
            self.state = if has_login { State::Due } else { State::NeedsLogin };
            self.judge_due(record, reason, look, now);
            self.waits_for = waits_for(account, record);
        } else {
            self.next_refresh_at = self.refresh_at;
        }
        if self.grant_type.is_none() {
            self.judge_login(account, policy, record, now);
        }
        if let Some(token) = &record.access_token {
            self.judge_file(loaded.file, account, token, look);
            self.judge_outputs(account, token, look);
            self.judge_readers(account, look);
        }
        self.judge_push(account, look);
        self.judge_probe(account, record, look);
    }

    fn judge_token(&mut self, account: &AccountConfig, token: &AccessToken, now: Timestamp) {
        let (nobody, hint) = match self.supervisor {
            Some(SupervisorStatus { pid: Some(pid), .. }) => (
                "the supervisor has not tried",
                format!("look at its log, or restart it: kill {pid}; `zg-tokend once` refreshes now"),
            ),
            Some(_) => ("the supervisor has not tried", RUN_IT.to_owned()),
            None => ("no supervisor is running", RUN_IT.to_owned()),
        };
        let ago = |ms: i64| duration(Duration::from_secs(ms.div_euclid(1000).unsigned_abs()));
        match due(account, token, now) {
            Due::Since(late) => {
                let grace = OVERDUE_GRACE.min(schedule::skew(token.lifetime(), account.skew) / 2);
                if late > millis(grace) {
                    let problem = format!("a refresh is overdue for {}", ago(late));
                    self.find_with(Severity::Warning, problem, Some(nobody.into()), &*hint);
                }
            }
            Due::ClockSetBack => {
                let problem = "the wall clock is before the token's issue";
                self.find(Severity::Warning, problem, "set the clock: date, timedatectl");
            }
            Due::In(_) => {}
        }
        if !token.is_live(now) {
            let problem = format!("the token expired {} ago", ago(token.remaining(now)));
            self.find_with(Severity::Critical, problem, Some(nobody.into()), hint);
        }
    }

    /// Warns of a login that works now, but will end soon.
    fn judge_login(&mut self, account: &AccountConfig, policy: &Policy, record: &Record, now: Timestamp) {
        if record.refresh_token_unusable {
            let problem = "the server sent a refresh token that cannot be kept";
            let hint = "the earlier one stays in use; if the server refuses it, log in again and report this to the provider";
            self.find(Severity::Warning, problem, hint);
        }
        if let Some(life) = record.login_life.as_ref().filter(|life| life.ends_soon(now)) {
            let left = Duration::from_secs((life.ends_at().wall - now.wall).max(0).unsigned_abs() / 1000);
            let problem = format!("the login ends in {}", duration(left));
            let hint = if account.can_log_in() { policy.login_hint() } else { LOG_IN_AGAIN.into() };
            self.find(Severity::Warning, problem, hint);
        }
    }

    fn judge_missing_login(
        &mut self,
        account: &AccountConfig,
        policy: &Policy,
        record: &Record,
        now: Timestamp,
    ) {
        let hint = if account.can_log_in() {
            policy.login_hint()
        } else {
            "refresh unavailable: configure a refresh_token, or the token will end".to_owned()
        };
        let skew = |token: &AccessToken| millis(schedule::skew(token.lifetime(), account.skew));
        let soon = record.access_token.as_ref().is_none_or(|token| token.remaining(now) < skew(token));
        if soon {
            let cause = "refresh unavailable: there is no refresh token";
            self.blame(Severity::Warning, cause, Some(hint));
        } else if self.problem.is_none() {
            self.hint = Some(hint);
        }
    }

    fn judge_due(&mut self, record: &Record, reason: Reason, look: &Look, now: Timestamp) {
        if record.in_flight.is_some() && look.is_locked {
            self.state = State::Refreshing;
            return;
        }
        if record.in_flight.is_some() {
            let cause = "a process died while its request was under way";
            self.blame(Severity::Warning, cause, Some("run `zg-tokend once`: it asks again".into()));
            return;
        }
        if let Some(verdict) = &record.verdict {
            if reason == Reason::NewLogin {
                self.find(Severity::Warning, "the new login in the config was not used yet", REFRESH_IT);
                return;
            }
            let severity;
            (self.state, severity) = match verdict.kind {
                VerdictKind::RefreshToken => (State::NeedsLogin, Severity::Critical),
                VerdictKind::Client => (State::NeedsConfig, Severity::Warning),
            };
            let is_mended =
                verdict.kind == VerdictKind::Client && look.config_changed_at > Some(verdict.at.wall);
            let hint = if is_mended { Some(CONFIG_CHANGED.to_owned()) } else { verdict.hint.clone() };
            self.blame(severity, &*verdict.message, hint);
            self.cause.clone_from(&verdict.cause);
            self.next_refresh_at = verdict.not_before.filter(|_| !is_mended).map(|at| at.wall / 1000);
        }
        if let Some(failure) = &record.failure
            && !matches!(self.state, State::NeedsLogin | State::NeedsConfig)
        {
            self.state = State::BackingOff;
            let again = match self.supervisor {
                Some(_) => "it is tried again by itself",
                None => "the next `zg-tokend once` tries again",
            };
            let hint = failure.hint.clone().or_else(|| Some(again.into()));
            self.blame(Severity::Warning, &*failure.message, hint);
            self.cause.clone_from(&failure.cause);
            let wait = schedule::wait_after(failure, now).unwrap_or_default();
            self.next_refresh_at = Some((now.wall + millis(wait)) / 1000);
        }
    }

    fn judge_file(&mut self, file: FileView, account: &AccountConfig, token: &AccessToken, look: &Look) {
        let path = self.token_file.path.display();
        if let Observation::Unreadable(error) = &look.file {
            return self.find_with(
                Severity::Critical,
                error.to_string(),
                cause(error),
                way_out(error.class(), error.hint().as_deref()),
            );
        }
        match file {
            FileView::Missing => {
                let problem = format!("the token file {path} is missing");
                self.find(Severity::Critical, problem, PUBLISH_IT);
            }
            FileView::Current | FileView::Incomplete => self.token_file.current = Some(true),
            FileView::Ahead(_) => {
                let is_current = matches(account, &account.token_format, token, &look.file);
                let cause = if is_current {
                    "the token file of another account of this login holds a newer token than the state"
                        .to_owned()
                } else {
                    format!("the token file {path} holds a newer token than the state")
                };
                self.token_file.current = Some(is_current);
                // It explains everything else that is wrong, or will be.
                self.blame(
                    Severity::Warning,
                    "the state was restored from an earlier time",
                    Some(STATE_LOST.into()),
                );
                self.cause = Some(cause);
            }
            FileView::Other { .. } => {
                let problem = format!("the token file {path} holds something else than the newest token");
                self.token_file.current = Some(false);
                self.find(Severity::Warning, problem, PUBLISH_IT);
            }
        }
    }

    /// The token file has the token: without it, that is the problem.
    fn judge_outputs(&mut self, account: &AccountConfig, token: &AccessToken, look: &Look) {
        for (index, (output, seen)) in account.outputs.iter().zip(&look.outputs).enumerate() {
            let is_current = matches(account, &output.format, token, seen);
            self.outputs[index].current = Some(is_current);
            if is_current {
                continue;
            }
            let path = output.file.path.display();
            let obstacle = match seen {
                Observation::Unreadable(error) => Some((chain(error), error.hint())),
                _ => output.file.check().err().map(|error| (chain(&error), error.hint())),
            };
            match obstacle {
                Some((why, hint)) => {
                    let hint = hint.unwrap_or_else(|| way_out(Class::Config, None).to_owned());
                    let problem = format!("the output {path} cannot be written");
                    self.find_with(Severity::Warning, problem, Some(why), hint);
                }
                None if matches!(seen, Observation::Missing) => {
                    self.find(Severity::Warning, format!("the output {path} is missing"), PUBLISH_IT);
                }
                None => {
                    let problem = format!("the output {path} holds something else than the newest token");
                    self.find(Severity::Warning, problem, PUBLISH_IT);
                }
            }
        }
    }

    /// Whether those for whom the files are can get to them.
    fn judge_readers(&mut self, account: &AccountConfig, look: &Look) {
        let outputs = account.outputs.iter().map(|output| &output.file);
        let files = std::iter::once(&account.token_file).chain(outputs).filter(|_| look.hangs.is_none());
        for file in files {
            if let Some(barrier) = barrier(file) {
                let problem = format!("{barrier}, and so not read {}", file.path.display());
                self.find(Severity::Warning, problem, barrier.hint());
            }
        }
    }

    fn judge_push(&mut self, account: &AccountConfig, look: &Look) {
        for target in &account.push {
            let url = shown(&target.url);
            let last = look.pushed.0.get(&url);
            let current = last.map(|last| self.generation.is_some_and(|generation| last.has(generation)));
            let (at, problem) = (last.map(|last| last.at), last.and_then(|last| last.problem.clone()));
            if let Some(problem) = &problem {
                self.find_with(
                    Severity::Warning,
                    format!("cannot send the token to {url}"),
                    Some(problem.clone()),
                    "it is tried again; the token file has the token",
                );
            }
            self.push.push(PushStatus { url, current, at, problem });
        }
    }

    fn judge_probe(&mut self, account: &AccountConfig, record: &Record, look: &Look) {
        let Some(probe) = &account.probe else { return };
        let url = shown(&probe.url);
        let last = look.probed.as_ref().filter(|last| last.url == url);
        // A server that repeats the token after a report has been asked, too.
        let token = record.access_token.as_ref().map(|token| token.value.fingerprint());
        let rejection = record.rejection.as_ref().filter(|rejection| Some(rejection.token) == token);
        let is_answered = rejection.is_some_and(|rejection| rejection.answered);
        if last.is_some_and(|last| last.refuses_still(record.generation, is_answered)) {
            let problem = format!("{url} refuses the token, and a refresh has not helped");
            self.find(Severity::Warning, problem, PROBE_REFUSED);
        }
        self.probe = Some(ProbeStatus {
            url,
            at: last.map(|last| last.at),
            result: last.map(ProbeNote::result),
            http_status: last.and_then(|last| last.status),
            problem: last.and_then(|last| last.problem.clone()),
            answered_at: last.and_then(|last| last.answered_at),
        });
    }
}

fn due(account: &AccountConfig, token: &AccessToken, now: Timestamp) -> Due {
    schedule::due(token.issued_at, schedule::due_after(token, account.skew), now)
}
