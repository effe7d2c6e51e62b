//! The simulated world of the tests. It performs every action at once, and records it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::oauth::{
    Answer, Doubt, ErrorReply, ExpiresInSource, FailureKind, Sent, ServerFailure, TokenResponse,
    TransportFailure, Unavailable, Unclear,
};
use crate::oauth::{ClientAuthentication, Grant, TokenClient};
use crate::problem::{Class, Problem};
use crate::refresh::decide::{FileView, Inputs, Loaded, Trigger};
use crate::refresh::fleet::{Ask, LoginRow};
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::record::Record;
use crate::refresh::tests::database::Database;
use crate::refresh::{Action, Event, LockFailure, LoginHint, Policy, Refresher, Terms};
use crate::secret::{Fingerprint, Secret};

pub const START: i64 = 1_700_000_000_000;

#[expect(clippy::struct_excessive_bools, reason = "each is a switch that a story turns on its own")]
pub struct World {
    pub now: Timestamp,
    pub supervisor: Refresher,
    pub policy: Policy,
    pub disk: Option<Record>,
    pub garbage: bool,
    /// The content of the token file, and its time.
    pub file: Option<(String, i64)>,
    pub inputs: Result<Inputs, Problem>,
    /// The state of another account.
    pub other: Option<Record>,
    /// The database that several machines share.
    pub database: Option<Rc<RefCell<Database>>>,
    pub lock_is_busy: bool,
    /// How many of the next actions of a kind fail.
    pub failing_loads: u32,
    pub failing_prepares: u32,
    pub failing_persists: u32,
    pub failing_publishes: u32,
    /// The next answers of the server; without any it grants.
    pub answers: VecDeque<Answer>,
    pub lifetime: Duration,
    /// In the server's answers.
    pub login_expires_in: Option<Duration>,
    pub rotates: bool,
    pub latency: Duration,
    /// The latency from the second request on.
    pub later_latency: Option<Duration>,
    /// The wall clock is set forward by so many milliseconds during a request.
    pub steps_during_request: i64,
    pub granted: u32,
    /// When, and with which refresh token.
    pub posts: Vec<(i64, String)>,
    pub did: Vec<&'static str>,
    pub reports: Vec<Report>,
    pub locked: bool,
    pub prepared: bool,
    /// Stop performing before the next action of this name: the process dies there.
    pub dies_before: Option<&'static str>,
    /// An event that comes when the next action of this name begins.
    pub meanwhile: Option<(&'static str, Event)>,
    /// Another machine stores this row during a request.
    pub meanwhile_row: Option<LoginRow>,
    /// A writer that ignores the lock stores this state during a request.
    pub written_during_request: Option<Record>,
}

impl World {
    /// The config holds the seed `seed-1`, and there are no files yet.
    pub fn new() -> Self {
        let policy = Policy {
            from: None,
            account: "default".into(),
            inline_seed: Some(Secret::new("seed-1").fingerprint()),
            terms: Arc::new(Terms {
                lock_patience: crate::refresh::LOCK_PATIENCE,
                config: "config.toml".into(),
                grant_type: crate::oauth::GrantType::RefreshToken,
                skew: None,
                default_lifetime: Duration::from_secs(3600),
                horizon: None,
                login_hint: LoginHint::new(|_| "log in again".into()),
                reread_secrets: None,
                fleet: None,
                remove_expired: false,
                patient: true,
            }),
        };
        Self {
            now: Timestamp { wall: START, boot: 50_000, boot_id: Fingerprint::of([b"first boot"]) },
            supervisor: Refresher::new(policy.clone(), 1),
            policy,
            disk: None,
            garbage: false,
            file: None,
            inputs: Ok(Inputs::new(Some(Secret::new("seed-1")), None, client("client 1"))),
            other: None,
            database: None,
            lock_is_busy: false,
            failing_loads: 0,
            failing_prepares: 0,
            failing_persists: 0,
            failing_publishes: 0,
            answers: VecDeque::new(),
            lifetime: Duration::from_secs(3600),
            login_expires_in: None,
            rotates: true,
            latency: Duration::ZERO,
            later_latency: None,
            steps_during_request: 0,
            granted: 0,
            posts: Vec::new(),
            did: Vec::new(),
            reports: Vec::new(),
            locked: false,
            prepared: false,
            dies_before: None,
            meanwhile: None,
            meanwhile_row: None,
            written_during_request: None,
        }
    }

    /// The same world shortly after its first refresh.
    pub fn refreshed() -> Self {
        let mut world = Self::new();
        world.begin();
        assert_eq!(world.posts.len(), 1);
        world.forget();
        world
    }

    /// Drops the records so far.
    pub fn forget(&mut self) {
        self.posts.clear();
        self.did.clear();
        self.reports.clear();
    }

    pub fn begin(&mut self) -> Outcome {
        self.begin_with(Trigger::default())
    }

    pub fn begin_with(&mut self, trigger: Trigger) -> Outcome {
        self.send(Event::Begin(trigger));
        self.last_outcome()
    }

    /// The process is gone; another one starts.
    pub fn restart(&mut self) -> Outcome {
        self.locked = false;
        self.prepared = false;
        self.dies_before = None;
        self.supervisor = Refresher::new(self.policy.clone(), 2);
        self.begin()
    }

    pub fn last_outcome(&self) -> Outcome {
        let outcome = self.reports.iter().rev().find_map(|report| match report {
            Report::Finished(outcome) => Some(outcome.clone()),
            _ => None,
        });
        outcome.unwrap_or(Outcome::Stopped)
    }

    /// Time passes without wake-ups.
    pub fn sleep(&mut self, duration: Duration) {
        self.now = self.now.plus(duration);
    }

    /// Time passes with every wake-up.
    pub fn live(&mut self, duration: Duration) {
        let end = self.now.plus(duration);
        let mut woken = 0;
        while let Some(at) = self.supervisor.next_wakeup().filter(|at| at.boot <= end.boot) {
            assert!(!self.supervisor.is_idle() || at.boot > self.now.boot || woken == 0, "a hot loop");
            woken = if at.boot > self.now.boot { 0 } else { woken + 1 };
            if at.boot > self.now.boot {
                self.now = self.now.plus(Duration::from_millis((at.boot - self.now.boot).cast_unsigned()));
            }
            self.send(Event::Woke);
        }
        let rest = (end.boot - self.now.boot).max(0);
        self.now = self.now.plus(Duration::from_millis(rest.cast_unsigned()));
    }

    pub fn set_seed(&mut self, seed: &str) {
        self.policy.inline_seed = Some(Secret::new(seed).fingerprint());
        if let Ok(inputs) = &mut self.inputs {
            inputs.seed = Some(Secret::new(seed));
        }
        // Like `run`: an account whose config has changed is created again.
        self.supervisor = Refresher::new(self.policy.clone(), 2);
        self.send(Event::Begin(Trigger { reread: true, ..Trigger::default() }));
    }

    pub fn set_client(&mut self, name: &str) {
        if let Ok(inputs) = &mut self.inputs {
            *inputs = Inputs::new(inputs.seed.clone(), inputs.seed_problem.clone(), client(name));
        }
    }

    pub fn token(&self) -> Option<&str> {
        self.file.as_ref().map(|(token, _)| token.as_str())
    }

    pub fn refresh_token(&self) -> &str {
        self.disk.as_ref().unwrap().refresh_token.as_ref().unwrap().value.open().unwrap().expose()
    }

    pub fn sent(&self) -> Vec<&str> {
        self.posts.iter().map(|(_, token)| token.as_str()).collect()
    }

    pub fn has_live_token(&self) -> bool {
        let token = self.disk.as_ref().and_then(|record| record.access_token.as_ref());
        token.is_some_and(|token| token.is_live(self.now) && self.token() == Some(token.value.expose()))
    }

    /// Seconds until the next wake-up.
    pub fn wakes_in(&self) -> Option<f64> {
        self.supervisor.next_wakeup().map(|at| (at.boot - self.now.boot) as f64 / 1000.0)
    }

    pub fn send(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        let mut steps = 0;
        while let Some(event) = events.pop_front() {
            steps += 1;
            assert!(steps < 1000, "an endless pass");
            for action in self.supervisor.handle(self.now, event) {
                let name = name(&action);
                if self.dies_before == Some(name) {
                    return;
                }
                if let Some((_, event)) = self.meanwhile.take_if(|(at, _)| *at == name) {
                    for action in self.supervisor.handle(self.now, event) {
                        events.extend(self.perform(action));
                    }
                }
                events.extend(self.perform(action));
            }
        }
    }

    pub fn loaded(&self) -> Box<Loaded> {
        let record = self.disk.clone().filter(|_| !self.garbage);
        let stored = record.as_ref().and_then(|record| record.access_token.as_ref());
        let file = match &self.file {
            None => FileView::Missing,
            Some((token, _)) if stored.is_some_and(|stored| stored.value.expose() == token) => {
                FileView::Current
            }
            Some((_, modified_at)) => FileView::Other { modified_at: *modified_at },
        };
        Box::new(Loaded { record, garbage: self.garbage.then(|| "state.corrupt-1".into()), file })
    }

    pub fn perform(&mut self, action: Action) -> Option<Event> {
        if !matches!(action, Action::Report(_)) {
            self.did.push(name(&action));
        }
        Some(match action {
            Action::Load if fails(&mut self.failing_loads) => Event::Loaded(Err(problem(Class::Io, "load"))),
            Action::Load => Event::Loaded(Ok(self.loaded())),
            Action::ReadInputs => Event::InputsRead(self.inputs.clone()),
            Action::Lock if self.lock_is_busy => Event::Locked(Err(LockFailure::Busy)),
            Action::Lock => {
                assert!(!self.locked, "locked twice");
                self.locked = true;
                let loaded = self.loaded();
                if self.garbage {
                    self.garbage = false;
                    self.disk = None;
                }
                Event::Locked(Ok(loaded))
            }
            Action::TakeOver(seed) => {
                let other = self.other.take_if(|other| other.seeds.contains(&seed));
                Event::TakenOver(Ok(other.map(Box::new)))
            }
            Action::Prepare(_) if fails(&mut self.failing_prepares) => {
                Event::Prepared(Err(problem(Class::Io, "disk_full")))
            }
            Action::Prepare(record) => {
                assert!(self.locked && record.in_flight.is_some() == self.policy.grant_type.has_login());
                self.prepared = true;
                self.disk = Some(*record);
                Event::Prepared(Ok(()))
            }
            Action::Request(request) => {
                let token = match request.grant {
                    Grant::RefreshToken(token) => token,
                    grant => Secret::new(grant.grant_type()),
                };
                assert!(self.locked && self.prepared, "a request out of order");
                self.posts.push((self.now.boot, token.expose().to_owned()));
                self.sleep(self.latency);
                self.latency = self.later_latency.take().unwrap_or(self.latency);
                self.now.wall += self.steps_during_request;
                if let Some(record) = self.written_during_request.take() {
                    self.disk = Some(record);
                }
                if let (Some(row), Some(database)) = (self.meanwhile_row.take(), &self.database) {
                    database.borrow_mut().row = Some(row);
                }
                let answer = self.answers.pop_front().unwrap_or_else(|| self.grant());
                Event::Answered(answer)
            }
            Action::Persist(_) if fails(&mut self.failing_persists) => {
                Event::Persisted(Err(problem(Class::Io, "disk_full")))
            }
            Action::Persist(record) => {
                assert!(self.locked && record.in_flight.is_none());
                self.disk = Some(*record);
                Event::Persisted(Ok(()))
            }
            Action::Publish(_) if fails(&mut self.failing_publishes) => {
                Event::Published(Err(problem(Class::Io, "read_only")))
            }
            Action::Publish(token) => {
                assert!(self.locked);
                self.file = Some((token.value.expose().to_owned(), self.now.wall));
                Event::Published(Ok(Vec::new()))
            }
            Action::Withdraw(token) => {
                assert!(self.locked && !token.is_live(self.now));
                self.file = None;
                Event::Withdrawn(Ok(()))
            }
            Action::Ask(ask) => {
                assert!(self.locked, "a question without the lock");
                let now = self.now.boot;
                let database = self.database.as_ref().unwrap();
                Event::Replied(database.borrow_mut().ask(*ask, now))
            }
            Action::Unlock => {
                assert!(self.locked, "unlocked twice");
                self.locked = false;
                self.prepared = false;
                Event::Unlocked
            }
            Action::Report(report) => {
                assert!(!matches!(*report, Report::Ignored { .. }), "{report:?}");
                self.reports.push(*report);
                return None;
            }
        })
    }

    pub fn grant(&mut self) -> Answer {
        self.granted += 1;
        Answer::Granted(TokenResponse {
            access_token: Secret::new(format!("at-{}", self.granted)),
            token_type: "Bearer".into(),
            expires_in: self.lifetime,
            expires_in_source: ExpiresInSource::Stated,
            refresh_token: self.rotates.then(|| Secret::new(format!("rt-{}", self.granted))),
            refresh_token_unusable: false,
            expires_in_unreadable: false,
            login_expires_in: self.login_expires_in,
            scope: None,
            id_token: None,
            came_by: None,
        })
    }
}

pub fn name(action: &Action) -> &'static str {
    match action {
        Action::Load => "load",
        Action::ReadInputs => "inputs",
        Action::Lock => "lock",
        Action::TakeOver(_) => "take over",
        Action::Prepare(_) => "prepare",
        Action::Request(_) => "request",
        Action::Persist(_) => "persist",
        Action::Publish(_) => "publish",
        Action::Withdraw(_) => "withdraw",
        Action::Ask(ask) => match **ask {
            Ask::Read => "read",
            Ask::Claim { .. } => "claim",
            Ask::Store { .. } => "store",
            Ask::Repair { .. } => "repair",
            Ask::Found { .. } => "found",
            Ask::Conclude { .. } => "conclude",
        },
        Action::Unlock => "unlock",
        Action::Report(_) => "report",
    }
}

pub fn fails(left: &mut u32) -> bool {
    let fails = *left > 0;
    *left = left.saturating_sub(1);
    fails
}

pub fn problem(class: Class, kind: &str) -> Problem {
    Problem { class, kind: kind.into(), message: kind.into(), cause: None, hint: None }
}

pub fn error(code: &str) -> ErrorReply {
    ErrorReply { code: code.into(), description: None, uri: None, clock_ahead: None }
}

pub fn invalid_grant() -> Answer {
    Answer::InvalidGrant(error("invalid_grant"))
}

pub fn client_refused() -> Answer {
    Answer::ClientRefused(error("invalid_client"))
}

pub fn unavailable(retry_after: Option<u64>) -> Answer {
    Answer::Unavailable(Unavailable {
        reason: ServerFailure::Status { status: 503, words: None },
        retry_after: retry_after.map(Duration::from_secs),
    })
}

pub fn lost() -> Answer {
    let failure = TransportFailure {
        sent: Sent::PerhapsSent,
        kind: FailureKind::Timeout,
        detail: "no answer in time".into(),
    };
    Answer::Ambiguous(Unclear { reason: Doubt::Lost(failure), retry_after: None })
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A public client of this name.
pub fn client(name: &str) -> TokenClient {
    TokenClient {
        token_endpoint: "https://as.example/token".parse().unwrap(),
        client_id: name.into(),
        client_authentication: ClientAuthentication::None,
        scope: None,
        extra_params: Vec::new(),
        shape: crate::oauth::shape::Shape::default(),
    }
}
