//! One host: the core, and a shell that performs its actions in virtual time.

use std::collections::VecDeque;
use std::sync::Arc;

use zg_tokend::testing::clock::{BootId, Timestamp};
use zg_tokend::testing::oauth::{Answer, Grant};
use zg_tokend::testing::problem::{Class, Problem};
use zg_tokend::testing::refresh::{
    Action, Ask, Event, FleetPolicy, Inputs, LoginHint, Policy, Record, Refresher, Report, Role, RowReply,
    RowView, Terms, Trigger,
};
use zg_tokend::testing::secret::{Fingerprint, Secret};

use super::super::plan::SECOND;
use super::super::process::{Disk, client};
use super::super::server::Post;
use super::database::EPOCH;
use super::figures::Broken;
use super::mutants::FleetMutant;
use super::world::{FleetWorld, Incident};

/// At start, and whenever the row may have changed.
pub(super) const ROW: Trigger =
    Trigger { force: false, anew: false, retry_dead: false, reread: false, rejected: None, row: true };

/// A question to a database that does not answer is given up after this.
const PATIENCE: i64 = 5 * SECOND;

/// A request is sent within this time of the beginning of its claim.
const FRESH: i64 = 10 * SECOND;

pub(super) struct Host {
    pub(super) number: usize,
    pub(super) core: Refresher,
    queue: VecDeque<Action>,
    pub(super) doing: Option<Doing>,
    pub(super) disk: Disk,
    /// False after a kill.
    pub(super) up: bool,
    pub(super) frozen_until: i64,
    /// Behind a pooler that swallows LISTEN.
    pub(super) polls: bool,
    /// Until then it reaches the old primary, where there is one.
    pub(super) astray_until: i64,
    /// How far its wall clock is from the truth.
    wrong_by: i64,
    role: Role,
    /// In the config of the first host alone.
    seed: Option<Secret>,
    /// The refresh token of the last claim that the database has acknowledged, and when the claim began.
    acknowledged: Option<(Fingerprint, i64)>,
    /// The claim under way.
    claiming: Option<(String, Fingerprint, i64)>,
    /// The time that the mutant believes in while it sends late.
    pub(super) stopped_clock: Option<i64>,
    /// The record that the mutant has not stored yet.
    unstored: Option<Record>,
    /// The row as the mutant remembers it.
    last_view: Option<RowView>,
}

pub(super) enum Doing {
    File { action: Action, done_at: i64 },
    Ask { ask: Box<Ask>, reply: Option<Box<Result<RowReply, Problem>>>, done_at: i64 },
    Request(Box<Post>),
}

impl Doing {
    pub(super) fn done_at(&self) -> i64 {
        match self {
            Self::File { done_at, .. } | Self::Ask { done_at, .. } => *done_at,
            Self::Request(post) => post.reply_at,
        }
    }
}

impl Host {
    pub(super) fn new(number: usize, seed: Option<Secret>, polls: bool, role: Role, random: u64) -> Self {
        let core = Refresher::new(policy(number, seed.as_ref(), role), random);
        Self {
            number,
            core,
            queue: VecDeque::new(),
            doing: None,
            disk: Disk::default(),
            up: false,
            frozen_until: -1,
            polls,
            astray_until: -1,
            // Minutes to and fro: the instants of the row are those of the database.
            wrong_by: (random % 600) as i64 * SECOND - 300 * SECOND,
            role,
            seed,
            acknowledged: None,
            claiming: None,
            stopped_clock: None,
            unstored: None,
            last_view: None,
        }
    }

    pub(super) fn clock(&self, now: i64) -> Timestamp {
        let now = self.stopped_clock.unwrap_or(now);
        let boot_id = BootId::of([&self.number.to_be_bytes()[..]]);
        Timestamp { wall: EPOCH + now + self.wrong_by, boot: now + 60 * SECOND, boot_id }
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.up && self.doing.is_none() && self.core.is_idle()
    }

    /// When it wants to be woken, in true time.
    pub(super) fn wakes_at(&self, now: i64) -> Option<i64> {
        if !self.up || self.doing.is_some() {
            return None;
        }
        let clock = self.clock(now);
        self.core.next_wakeup().map(|at| now + (at.boot - clock.boot).max(0))
    }

    /// Whether a reader on this host gets a live token.
    pub(super) fn has_live_token(&self, now: i64) -> bool {
        let record = self.disk.state.as_ref();
        let token = record.and_then(|record| record.access_token.as_ref());
        let file = self.disk.token.as_ref();
        token.is_some_and(|token| {
            token.is_live(self.clock(now)) && file.is_some_and(|(published, _)| *published == token.value)
        })
    }

    /// A new process.
    fn restart(&mut self, random: u64) {
        self.core = Refresher::new(policy(self.number, self.seed.as_ref(), self.role), random);
        self.queue.clear();
        (self.doing, self.acknowledged, self.claiming) = (None, None, None);
        (self.stopped_clock, self.unstored) = (None, None);
        self.up = true;
    }
}

fn policy(number: usize, seed: Option<&Secret>, role: Role) -> Policy {
    Policy {
        from: None,
        account: "default".into(),
        inline_seed: seed.map(Secret::fingerprint),
        terms: Arc::new(Terms {
            lock_patience: zg_tokend::testing::refresh::LOCK_PATIENCE,
            config: "config.toml".into(),
            grant_type: zg_tokend::testing::oauth::GrantType::RefreshToken,
            skew: None,
            default_lifetime: std::time::Duration::from_secs(3600),
            horizon: None,
            login_hint: LoginHint::new(|_| "log in again".into()),
            reread_secrets: None,
            fleet: Some(FleetPolicy { role, host: format!("host-{number}").into(), place: None }),
            remove_expired: false,
            patient: true,
        }),
    }
}

fn unreachable_database() -> Problem {
    Problem {
        class: Class::Unavailable,
        kind: "fleet".into(),
        message: "simulated".into(),
        cause: None,
        hint: None,
    }
}

fn unknown(is_read: bool) -> Result<RowReply, Problem> {
    if is_read { Err(unreachable_database()) } else { Ok(RowReply::Unknown { why: "simulated".into() }) }
}

impl FleetWorld {
    pub(super) fn start(&mut self, place: usize) {
        if self.hosts[place].up {
            return;
        }
        let random = self.random.next();
        self.hosts[place].restart(random);
        self.tell(place, Event::Begin(ROW));
    }

    /// Hands an event to a host, and lets it begin what it is told to do next.
    pub(super) fn tell(&mut self, place: usize, event: Event) {
        let host = &mut self.hosts[place];
        let clock = host.clock(self.now);
        let actions = host.core.handle(clock, event);
        host.queue.extend(actions);
        while self.hosts[place].doing.is_none() {
            match self.hosts[place].queue.pop_front() {
                None => return,
                Some(Action::Report(report)) => self.hear(place, &report),
                Some(action) => self.begin(place, action),
            }
        }
    }

    fn hear(&self, place: usize, report: &Report) {
        assert!(!matches!(report, Report::Ignored { .. }), "{report:?}");
        if self.traced {
            println!("{:>12} host {place} {report:?}", self.now);
        }
    }

    fn begin(&mut self, place: usize, action: Action) {
        let doing = match action {
            Action::Request(request) => {
                let Grant::RefreshToken(token) = request.grant else { panic!("a refresh sends its token") };
                self.judge_request(place, &token);
                let issued_at = self.hosts[place].clock(self.now);
                let post = self.post(issued_at, token);
                Doing::Request(Box::new(post))
            }
            Action::Ask(ask) => self.ask(place, ask),
            action => Doing::File { action, done_at: self.now + self.random.between(0, 20) },
        };
        self.hosts[place].doing = Some(doing);
    }

    fn ask(&mut self, place: usize, ask: Box<Ask>) -> Doing {
        if self.traced {
            println!("{:>12} host {place} asks {ask:?}", self.now);
        }
        if let Ask::Claim { fence, nonce, .. } = &*ask {
            let held = fence.held.expect("a claim is for a refresh token");
            self.hosts[place].claiming = Some((nonce.clone(), held, self.now));
            self.aim(place);
        }
        if let Ask::Store { content, .. } = &*ask {
            let record = self.hosts[place].disk.synced_state.as_ref();
            let token = record.and_then(|record| record.refresh_token.as_ref());
            if token.map(|token| token.value.fingerprint()) != content.held {
                self.broken(Broken::NotOnDisk);
            }
        }
        let now = self.now;
        let down = !self.database_of(place).is_up(now);
        let done_at = self.now + if down { PATIENCE } else { self.statement_time() };
        let reply = down.then(|| Box::new(Err(unreachable_database())));
        Doing::Ask { ask, reply, done_at }
    }

    /// The database answers what it was asked, whether or not the asker still lives.
    pub(super) fn answer(&mut self, place: usize, ask: &Ask) -> (Result<RowReply, Problem>, i64) {
        let is_read = matches!(ask, Ask::Read);
        let now = self.now;
        if !self.database_of(place).is_up(now) {
            // The connection broke before the statement arrived.
            return (Err(unreachable_database()), self.now);
        }
        let lost = self.loses_statement();
        if lost == Some(false) {
            self.figures.unknown += u64::from(!is_read);
            return (unknown(is_read), self.now + PATIENCE);
        }
        let (reply, notifies) = self.database_of(place).answer(now, ask);
        if notifies {
            self.notify(place);
        }
        if self.database_of(place).waits && !is_read {
            return (Ok(reply), self.now + PATIENCE);
        }
        // Nobody but its own hosts reads what the old primary has.
        if let (Ask::Conclude { fence, result, .. }, RowReply::Done { .. }, false) =
            (ask, &reply, self.is_astray(place))
            && let (Some(held), Some(_)) = (fence.held, &result.verdict)
        {
            self.refused(held);
        }
        if lost == Some(true) {
            self.figures.unknown += u64::from(!is_read);
            return (unknown(is_read), self.now + PATIENCE);
        }
        (Ok(reply), self.now)
    }

    /// The host is done with its action.
    pub(super) fn done(&mut self, place: usize) {
        let Some(doing) = self.hosts[place].doing.take() else { return };
        let event = match doing {
            Doing::File { action, .. } => self.perform(place, action),
            Doing::Ask { ask, reply, .. } => {
                let (reply, at) = match reply {
                    Some(reply) => (*reply, self.now),
                    None => self.answer(place, &ask),
                };
                if at > self.now {
                    self.hosts[place].doing =
                        Some(Doing::Ask { ask, reply: Some(Box::new(reply)), done_at: at });
                    return;
                }
                let reply = self.mutate_reply(place, &ask, reply);
                self.note_acknowledgement(place, &reply);
                if self.traced {
                    println!("{:>12} host {place} hears {reply:?}", self.now);
                }
                Event::Replied(reply)
            }
            Doing::Request(post) => {
                let answer = post.answer.clone().expect("the server has decided, or the network has");
                if matches!(answer, Answer::Granted(_)) {
                    self.received(&post.token);
                }
                if self.traced {
                    println!("{:>12} host {place} {answer}", self.now);
                }
                Event::Answered(answer)
            }
        };
        self.tell(place, event);
    }

    fn note_acknowledgement(&mut self, place: usize, reply: &Result<RowReply, Problem>) {
        let Some((nonce, held, at)) = &self.hosts[place].claiming.clone() else { return };
        let is_ours = match reply {
            Ok(RowReply::Done { .. }) => true,
            Ok(RowReply::Row(view)) => view
                .row
                .as_ref()
                .and_then(|row| row.attempt.as_ref())
                .is_some_and(|attempt| attempt.nonce == *nonce),
            _ => return,
        };
        // Only of the true database: the mutant's word is none.
        let truly = self.database_of(place).row.as_ref().and_then(|row| row.attempt.as_ref());
        if is_ours && truly.is_some_and(|attempt| attempt.nonce == *nonce) {
            self.hosts[place].acknowledged = Some((*held, *at));
        }
    }

    /// No request without a claim that the database has acknowledged, and none after it has become old.
    fn judge_request(&mut self, place: usize, token: &Secret) {
        let acknowledged = self.hosts[place].acknowledged.take();
        match acknowledged {
            None => self.broken(Broken::NoClaim),
            Some((held, _)) if held != token.fingerprint() => self.broken(Broken::NoClaim),
            Some((_, at)) if self.now - at > FRESH => self.broken(Broken::OldClaim),
            Some(_) => {}
        }
        // The old primary does not know what the new one has.
        if self.is_refused(token) && !self.is_astray(place) {
            self.broken(Broken::SentAfterVerdict);
        }
        self.figures.posts += 1;
    }

    fn mutate_reply(
        &mut self,
        place: usize,
        ask: &Ask,
        mut reply: Result<RowReply, Problem>,
    ) -> Result<RowReply, Problem> {
        let Some(mutant) = self.mutant else { return reply };
        let server_time = EPOCH + self.now;
        match (mutant, ask) {
            (FleetMutant::RefreshesWithoutIt, Ask::Read) => {
                match (&reply, &mut self.hosts[place].last_view) {
                    (Ok(RowReply::Row(view)), last) => *last = Some(view.clone()),
                    (_, Some(view)) => {
                        view.server_time = server_time;
                        reply = Ok(RowReply::Row(view.clone()));
                    }
                    _ => {}
                }
            }
            (FleetMutant::RefreshesWithoutIt, Ask::Claim { .. }) if reply.is_err() => {
                reply = Ok(RowReply::Done { at: server_time });
            }
            (FleetMutant::BelievesCommits, Ask::Claim { .. }) => {
                // So that there are enough of them: it also believes in what it has lost.
                if matches!(reply, Ok(RowReply::Unknown { .. }) | Err(_)) {
                    reply = Ok(RowReply::Done { at: server_time });
                }
            }
            (FleetMutant::SendsLate, Ask::Claim { .. }) if matches!(reply, Ok(RowReply::Done { .. })) => {
                let begun = self.hosts[place].claiming.as_ref().map(|(_, _, at)| *at);
                self.hosts[place].stopped_clock = begun;
            }
            _ => {}
        }
        if let (Ok(RowReply::Row(view)), FleetMutant::StealsClaims) = (&mut reply, mutant)
            && let Some(row) = &mut view.row
        {
            row.attempt = None;
        }
        if let (Ok(RowReply::Row(view)), FleetMutant::TakesOverAtOnce) = (&mut reply, mutant)
            && let Some(row) = &mut view.row
        {
            row.attempt.take_if(|attempt| attempt.claim_until <= view.server_time);
        }
        if let (Ok(RowReply::Row(view)), FleetMutant::TrustsOldPrimaries) = (&mut reply, mutant) {
            // As a program that does not know of timelines, but for the wait after a failover.
            view.timeline = self.database.timeline;
        }
        if let (Ok(RowReply::Row(view)), FleetMutant::NoQuarantine) = (&mut reply, mutant)
            && let Some(row) = &mut view.row
        {
            row.timeline = view.timeline;
        }
        reply
    }

    fn perform(&mut self, place: usize, action: Action) -> Event {
        let wall = self.hosts[place].clock(self.now).wall;
        let mutant = self.mutant;
        let host = &mut self.hosts[place];
        match action {
            Action::Load | Action::Lock => {
                let mut loaded = Box::new(host.disk.load());
                let replica = loaded.record.as_mut().and_then(|record| record.replica.as_mut());
                if let (Some(FleetMutant::TakesOverUnseen), Some(replica)) = (mutant, replica)
                    && let Some((_, since)) = &mut replica.watched
                {
                    *since = since.minus(std::time::Duration::from_secs(3600));
                }
                if matches!(action, Action::Load) {
                    Event::Loaded(Ok(loaded))
                } else {
                    Event::Locked(Ok(loaded))
                }
            }
            Action::ReadInputs => {
                host.stopped_clock = None;
                Event::InputsRead(Ok(Inputs::new(host.seed.clone(), None, client("demo"))))
            }
            Action::TakeOver(_) => Event::TakenOver(Ok(None)),
            Action::Prepare(record) => {
                store(&mut host.disk, *record);
                Event::Prepared(Ok(()))
            }
            Action::Persist(record) if mutant == Some(FleetMutant::StoresRowFirst) => {
                host.unstored = Some(*record);
                Event::Persisted(Ok(()))
            }
            Action::Persist(record) => {
                store(&mut host.disk, *record);
                host.stopped_clock = None;
                Event::Persisted(Ok(()))
            }
            Action::Publish(token) => {
                let older = host.disk.token.as_ref().is_some_and(|(published, _)| {
                    self.order.get(&published.fingerprint()) > self.order.get(&token.value.fingerprint())
                });
                host.disk.token = Some((token.value.clone(), wall));
                host.disk.synced_token.clone_from(&host.disk.token);
                if older {
                    self.broken(Broken::Older);
                }
                Event::Published(Ok(Vec::new()))
            }
            Action::Unlock => {
                if let Some(record) = host.unstored.take() {
                    store(&mut host.disk, record);
                }
                Event::Unlocked
            }
            Action::Withdraw(_) | Action::Ask(_) | Action::Request(_) | Action::Report(_) => {
                unreachable!("nobody asked for it, or it is not done on files")
            }
        }
    }

    /// The process is no more; what it was doing may have come to something.
    pub(super) fn kill(&mut self, place: usize, down: i64) {
        let host = &mut self.hosts[place];
        if !host.up {
            return;
        }
        host.up = false;
        host.frozen_until = -1;
        let half = self.random.one_in(2);
        match host.doing.take() {
            Some(Doing::File { action: Action::Prepare(record) | Action::Persist(record), .. })
                if half && self.mutant != Some(FleetMutant::StoresRowFirst) =>
            {
                store(&mut host.disk, *record);
            }
            // The server goes on with what it has received, and so does the database.
            Some(Doing::Request(mut post)) => {
                post.loses_reply = true;
                self.orphans.push(*post);
            }
            Some(Doing::Ask { ask, reply: None, .. }) if half => {
                let _ = self.answer(place, &ask);
            }
            _ => {}
        }
        self.figures.kills += 1;
        self.plan(self.now + down, Incident::Start(place));
    }
}

fn store(disk: &mut Disk, record: Record) {
    disk.synced_state = Some(record.clone());
    disk.state = Some(record);
}
