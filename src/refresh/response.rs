//! The effect of the token endpoint's answer on the record.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::oauth::{
    Answer, ErrorReply, ExpectedClaims, ExpiresInSource, ServerFailure, TokenResponse, Unavailable,
    check_id_token,
};
use crate::problem::{Class, Problem};
use crate::refresh::decide;
use crate::refresh::decide::{FileView, Loaded};
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::record::{
    AccessToken, Attempt, Failure, LoginLife, LoginSource, Record, RefreshToken, Verdict, VerdictKind,
};
use crate::refresh::replica::UnclearClaim;
use crate::refresh::{Action, Persisting, Phase, Refresher, Then, cause, report, report_first, schedule};
use crate::secret::Secret;

/// The result of an attempt whose token was dead on arrival.
const STALE_TOKEN: &str = "stale_token";

impl Refresher {
    pub(super) fn on_answered(
        &mut self,
        now: Timestamp,
        issued_at: Timestamp,
        answer: &Answer,
    ) -> Vec<Action> {
        let Some(mut record) = self.record().cloned() else {
            return self
                .unlock(Outcome::Failed(Problem::bug("an answer came while there was no state").into()));
        };
        // The wall clock may have been set since the request: count back from its present time.
        let elapsed = crate::clock::millis(now.since(issued_at));
        let issued_at = Timestamp { wall: now.wall.saturating_sub(elapsed), ..issued_at };
        record.in_flight = None;
        self.resend_soon = false;
        let has_login = self.policy.grant_type.has_login();
        let is_repeated = |reply: &ErrorReply| {
            let known = record.verdict.as_ref().filter(|verdict| verdict.kind == VerdictKind::Client);
            is_bare(&record, reply) && known.is_some_and(|verdict| verdict.error == reply.code)
        };
        if has_login
            && let Answer::InvalidGrant(reply) | Answer::ClientRefused(reply) = answer
            && (matches!(answer, Answer::InvalidGrant(_)) || is_repeated(reply))
        {
            let refusal = Box::new(Answer::InvalidGrant(reply.clone()));
            self.phase = Phase::Rechecking { issued_at, refusal };
            return vec![Action::Load];
        }
        let problem = self.problem(answer);
        let outcome = match answer {
            Answer::Granted(grant) => return self.granted(now, issued_at, record, grant),
            Answer::ClientRefused(reply) | Answer::InvalidGrant(reply) => {
                let mut problem = problem;
                if has_login && is_bare(&record, reply) {
                    problem.cause = Some(BARE_CAUSE.into());
                    problem.hint = Some(BARE_HINT.into());
                }
                let verdict =
                    self.verdict(&record, VerdictKind::Client, reply.code.as_str(), problem, issued_at);
                record.failure = None;
                record.verdict = Some(verdict.clone());
                record.last_attempt = Some(Attempt { at: issued_at, result: answer.kind().into() });
                self.remember(record);
                Outcome::Refused(Box::new(verdict))
            }
            Answer::Ambiguous(_) => {
                self.unclear(now, record, &problem, answer.retry_after(), issued_at);
                Outcome::Failed(problem.into())
            }
            Answer::Defective { refresh_token, .. } => {
                if has_login {
                    rotate(&mut record, refresh_token.as_ref(), issued_at);
                    self.note_reply(&mut record, false);
                }
                self.failed(now, record, &problem, None, None, issued_at);
                Outcome::Failed(problem.into())
            }
            Answer::Unavailable(Unavailable { reason: ServerFailure::NotSent(_), .. }) => {
                let wait = schedule::backoff(tries(&record), Duration::ZERO, self.next_random());
                self.failed(now, record, &problem, Some(wait), None, issued_at).not_sent = true;
                Outcome::Failed(problem.into())
            }
            Answer::Unavailable(_) => {
                self.failed(now, record, &problem, None, answer.retry_after(), issued_at);
                Outcome::Failed(problem.into())
            }
        };
        self.persist_answer(outcome)
    }

    fn granted(
        &mut self,
        now: Timestamp,
        issued_at: Timestamp,
        mut record: Record,
        grant: &TokenResponse,
    ) -> Vec<Action> {
        let has_login = self.policy.grant_type.has_login();
        if has_login {
            rotate(&mut record, grant.refresh_token.as_ref(), issued_at);
        }
        record.came_by.clone_from(&grant.came_by);
        let id_token = grant.id_token.as_ref().map(|token| self.check_id_token(&record, token, now));
        let earlier = record.access_token.clone().filter(|earlier| earlier.value == grant.access_token);
        let lifetime = match &earlier {
            // The same token again without a lifetime: its expiry has not changed.
            Some(earlier) if grant.expires_in_source != ExpiresInSource::Stated => {
                earlier.life_left(issued_at)
            }
            _ => grant.expires_in,
        };
        let token = AccessToken {
            value: grant.access_token.clone(),
            token_type: grant.token_type.clone(),
            scope: grant.scope.clone().or(earlier.as_ref().and_then(|earlier| earlier.scope.clone())),
            issued_at,
            lifetime_ms: lifetime.as_millis() as u64,
            jitter_ms: schedule::jitter_ms(lifetime, self.next_random()),
            repeated: earlier.is_some(),
            given: false,
            id_token: match &id_token {
                Some(checked) => checked.clone().ok().map(Into::into),
                None => earlier.as_ref().and_then(|earlier| earlier.id_token.clone()),
            },
        };
        if !token.is_live(now) {
            self.note_reply(&mut record, false);
            return self.arrived_dead(now, record, &token);
        }
        let outcome = Outcome::Refreshed {
            generation: record.generation.saturating_add(u64::from(earlier.is_none())),
            remaining: token.life_left(now),
            took: now.since(issued_at),
        };
        // RFC 6749 section 4.4.3 and RFC 8693 section 2.2.1: nothing to keep, since the next request is made
        // anew.
        let ignored = !has_login && grant.refresh_token.is_some() && record.generation == 0;
        record.generation = record.generation.saturating_add(u64::from(earlier.is_none()));
        record.access_token = Some(token);
        record.token_seed = self.policy.from.as_ref().and_then(|_| record.seeds.last().copied());
        if let Some(rejection) = &mut record.rejection {
            rejection.answered |=
                earlier.is_some_and(|earlier| earlier.value.fingerprint() == rejection.token);
        }
        if has_login {
            note_login(&mut record, grant, issued_at);
        }
        record.failure = None;
        record.verdict = None;
        record.last_attempt = Some(Attempt { at: issued_at, result: "refreshed".into() });
        self.note_reply(&mut record, true);
        self.remember(record);
        self.note_file(FileView::Other { modified_at: now.wall });
        let mut actions = Vec::new();
        if ignored {
            actions.push(report(Report::RefreshTokenIgnored));
        }
        if has_login && grant.refresh_token_unusable {
            actions.push(report(Report::RefreshTokenUnusable));
        }
        if grant.expires_in_unreadable {
            actions.push(report(Report::LifetimeUnreadable { assumed: lifetime }));
        }
        if let Some(Err(why)) = id_token {
            actions.push(report(Report::IdTokenUnusable { why }));
        }
        actions.extend(self.persist_answer(outcome));
        actions
    }

    /// OpenID Connect Core 1.0 section 12.2: a refresh keeps issuer, user and client of the login. Of a
    /// login that the config gives, none of them is known.
    fn check_id_token(&self, record: &Record, token: &Secret, now: Timestamp) -> Result<Secret, String> {
        let known = record.identity.as_ref().filter(|_| self.policy.grant_type.has_login());
        let expected = ExpectedClaims {
            issuer: known.map(|known| known.issuer.as_str()),
            client_id: known.and(self.inputs.as_ref()).map(|inputs| inputs.client.client_id.as_str()),
            nonce: None,
            now: now.wall / 1000,
        };
        match check_id_token(token, &expected) {
            Ok(found) if known.is_some_and(|known| known.subject != found.subject) => {
                Err(format!("is about another user: {found}"))
            }
            Ok(_) => Ok(token.clone()),
            Err(fault) => Err(fault.to_string()),
        }
    }

    /// The token expired before its answer came, as after a suspend: it is requested again at once,
    /// and this is no failure. A second one in a row, or one amid failures, is: otherwise a server
    /// whose tokens live shorter than its answers take would get requests without end.
    fn arrived_dead(&mut self, now: Timestamp, mut record: Record, token: &AccessToken) -> Vec<Action> {
        let took = now.since(token.issued_at);
        let repeated = record.last_attempt.as_ref().is_some_and(|last| last.result == STALE_TOKEN);
        if token.lifetime_ms > 0 && !repeated && record.failure.is_none() {
            record.last_attempt = Some(Attempt { at: token.issued_at, result: STALE_TOKEN.into() });
            record.verdict = None;
            self.remember(record);
            // The trigger is not served yet, so it stays.
            let persisting = Persisting { has_answer: true, then: Then::Again, failures: None };
            return report_first(Report::ArrivedDead { took }, self.persist_again(persisting));
        }
        let message = format!(
            "the access token had expired when it arrived: it lived {:.1} s, and the exchange took {:.1} s",
            token.lifetime().as_secs_f64(),
            took.as_secs_f64()
        );
        let problem = Problem::of(Class::Unavailable, STALE_TOKEN, message)
            .hint("if the machine did not sleep meanwhile, ask the operator of the token endpoint for tokens that live longer");
        self.failed(now, record, &problem, None, None, token.issued_at);
        self.persist_answer(Outcome::Failed(problem.into()))
    }

    /// After invalid_grant: another writer may have replaced the refresh token in the state.
    pub(super) fn on_rechecked(
        &mut self,
        now: Timestamp,
        issued_at: Timestamp,
        refusal: &Answer,
        on_disk: Option<Box<Loaded>>,
    ) -> Vec<Action> {
        let sent = self
            .record()
            .and_then(|record| record.refresh_token.as_ref())
            .map(|token| token.value.fingerprint());
        let stored = on_disk.and_then(|loaded| loaded.record);
        let stored_token = stored.as_ref().and_then(|record| record.refresh_token.as_ref());
        if stored_token.is_some_and(|token| Some(token.value.fingerprint()) != sent) {
            return report_first(Report::Adopted, self.unlock(Then::Again));
        }
        self.ask_about_refusal(issued_at, refusal).unwrap_or_else(|| self.refuse(now, issued_at, refusal))
    }

    /// The server refuses the refresh token, and nobody has replaced it.
    pub(super) fn refuse(&mut self, now: Timestamp, issued_at: Timestamp, refusal: &Answer) -> Vec<Action> {
        let Some(mut record) = self.record().cloned() else {
            return self
                .unlock(Outcome::Failed(Problem::bug("an answer came while there was no state").into()));
        };
        let sent = record.refresh_token.as_ref().map(|token| token.value.fingerprint());
        let problem = self.problem(refusal);
        record.in_flight = None;
        record.last_attempt = Some(Attempt { at: issued_at, result: problem.kind.clone() });
        // The refusal may be about the scope of an account with `from`: the account with the login finds out.
        if let Some(previous) = record.previous.take_if(|_| self.policy.from.is_none()) {
            // Among several machines the newest login counts.
            let seeded_at = if self.policy.fleet.is_some() { now } else { previous.seeded_at };
            record.refresh_token = Some(RefreshToken { seeded_at, ..previous });
            record.failure = None;
            self.remember(record);
            let Problem { kind: error, message, .. } = problem;
            let hint = self.policy.login_hint();
            let fell_back = sent.map(|refused| report(Report::FellBack { refused, error, message, hint }));
            let mut actions = Vec::from_iter(fell_back);
            actions.extend(self.persist_answer(Then::Again));
            return actions;
        }
        let error = problem.kind.clone();
        let mut verdict = self.verdict(&record, VerdictKind::RefreshToken, &error, problem, now);
        if let Some(UnclearClaim { host, at }) = self.spent_by() {
            let at = crate::clock::utc(at / 1000);
            verdict.cause =
                Some(format!("host {host} spent it at {at}, and the reply to that is on its disk"));
            verdict.hint = Some(format!(
                "start zg-tokend on {host}; if that does not help: {}",
                self.policy.login_hint()
            ));
        }
        record.failure = None;
        record.verdict = Some(verdict.clone());
        self.remember(record);
        self.persist_answer(Outcome::Refused(Box::new(verdict)))
    }

    fn verdict(
        &self,
        record: &Record,
        kind: VerdictKind,
        error: &str,
        problem: Problem,
        at: Timestamp,
    ) -> Verdict {
        let empty = Secret::new("");
        let own = record.refresh_token.as_ref().filter(|_| self.policy.grant_type.has_login());
        // It was sent, so it is open.
        let token = own.and_then(|token| token.value.open()).unwrap_or(&empty);
        let request = self.inputs.as_ref().map_or(empty.fingerprint(), |inputs| inputs.evidence.fingerprint);
        let dead = record.refresh_token.as_ref().filter(|_| kind == VerdictKind::RefreshToken);
        Verdict {
            kind,
            binding: decide::binding(token, request),
            error: error.into(),
            cause: dead.map(|token| cause::cause(token, &problem.message, at)).or(problem.cause),
            hint: if dead.is_some() { Some(self.policy.login_hint()) } else { problem.hint },
            message: problem.message,
            at,
            not_before: (kind == VerdictKind::Client).then(|| at.plus(schedule::CLIENT_RETRY)),
            is_of_login: false,
        }
    }

    /// Counts one more send without a definite answer.
    pub(super) fn unclear(
        &mut self,
        now: Timestamp,
        mut record: Record,
        problem: &Problem,
        retry_after: Option<Duration>,
        issued_at: Timestamp,
    ) {
        record.in_flight = None;
        let has_login = self.policy.grant_type.has_login();
        let resend = record.refresh_token.as_mut().filter(|_| has_login).and_then(|token| {
            token.unclear_sends = token.unclear_sends.saturating_add(1);
            schedule::resend(token.unclear_sends)
        });
        self.resend_soon = resend.is_some() && retry_after.is_none() && !record.needs_login();
        self.failed(now, record, problem, resend, retry_after, issued_at);
    }

    /// Counts one more failure in the record, and sets when the next request may be sent.
    pub(super) fn failed(
        &mut self,
        now: Timestamp,
        mut record: Record,
        problem: &Problem,
        resend: Option<Duration>,
        retry_after: Option<Duration>,
        issued_at: Timestamp,
    ) -> &mut Failure {
        let request = self.inputs.as_ref().map(|inputs| inputs.request);
        let anew = self.trigger.anew;
        // Attempts that failed on this machine, on a full disk say, are not in the record.
        let tried_from = self.local_problems.as_ref().map_or(now, |problems| problems.0);
        let run = record.failure.take().filter(|failure| {
            let same = failure.request.is_none() || request.is_none() || failure.request == request;
            same && !anew && !schedule::is_forgotten(failure, tried_from)
        });
        let request = request.or(run.as_ref().and_then(|run| run.request));
        let (since, count) =
            run.map_or((now, 1), |run| (schedule::since(&run, now), run.count.saturating_add(1)));
        let backoff = schedule::backoff(count, now.since(since), self.next_random());
        let retry_after = retry_after.map(|wait| wait.min(schedule::RETRY_AFTER_MAX));
        // No quick resend against a Retry-After.
        let own = resend.filter(|_| retry_after.is_none()).unwrap_or(backoff);
        let wait = schedule::before_expiry(own, life_left(&record, now)).max(retry_after.unwrap_or_default());
        record.last_attempt = Some(Attempt { at: issued_at, result: problem.kind.clone() });
        let failure = Failure {
            kind: problem.kind.clone(),
            message: problem.message.clone(),
            cause: problem.cause.clone(),
            hint: problem.hint.clone(),
            since,
            count,
            last_at: now,
            not_before: now.plus(wait),
            not_sent: false,
            from_inputs: false,
            retry_after: retry_after.map(|wait| now.plus(wait)),
            request,
        };
        self.remember(record).failure.insert(failure)
    }
}

/// A reply that granted a token, and its part about the login.
fn note_login(record: &mut Record, grant: &TokenResponse, issued_at: Timestamp) {
    if let Some(refresh_token) = &mut record.refresh_token {
        refresh_token.used_at = Some(issued_at);
    }
    if let Some(life) = grant.login_expires_in {
        record.login_life = Some(LoginLife::stated(issued_at, life, record.login_life.as_ref()));
    } else if grant.refresh_token.is_some() {
        // The life of an earlier token need not be the life of this one.
        record.login_life = None;
    }
    record.refresh_token_unusable = grant.refresh_token_unusable;
    record.previous = None;
}

/// The number of the present try in its run of failures.
fn tries(record: &Record) -> u32 {
    record.failure.as_ref().map_or(1, |failure| failure.count.saturating_add(1))
}

/// Adopts the refresh token of a reply; without one the old one stays (RFC 6749 section 6). Either
/// way the answer was definite.
fn rotate(record: &mut Record, rotated: Option<&Secret>, at: Timestamp) {
    let Some(token) = &mut record.refresh_token else { return };
    if let Some(value) = rotated.filter(|value| token.value != **value) {
        *token = RefreshToken {
            value: value.clone().into(),
            source: LoginSource::Rotation,
            obtained_at: at,
            ..token.clone()
        };
    }
    token.unclear_sends = 0;
}

/// Nextcloud, Reddit and others say no more than this of a dead login.
fn is_bare(record: &Record, reply: &ErrorReply) -> bool {
    let worked = record.refresh_token.as_ref().is_some_and(|token| token.used_at.is_some());
    worked && reply.code == "invalid_request" && reply.description.is_none()
}

const BARE_CAUSE: &str =
    "the server does not say what is wrong with the request; some servers say this of a dead login";

const BARE_HINT: &str = "if nothing in the config has changed since it last worked, log in again; else check \
    client_id, scope, extra_params and token_endpoint_auth_method";

fn life_left(record: &Record, now: Timestamp) -> Duration {
    record.access_token.as_ref().map_or(Duration::ZERO, |token| token.life_left(now))
}
