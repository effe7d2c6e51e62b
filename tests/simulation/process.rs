//! One process: the core, and a shell that performs its actions in virtual time.

use std::collections::VecDeque;

use zg_tokend::testing::clock::Timestamp;
use zg_tokend::testing::oauth::{ClientAuthentication, Grant, TokenClient};
use zg_tokend::testing::problem::{Class, Problem};
use zg_tokend::testing::refresh::Record;
use zg_tokend::testing::refresh::Report;
use zg_tokend::testing::refresh::{Action, Event, LockFailure, Refresher};
use zg_tokend::testing::refresh::{FileView, Inputs, Loaded};
use zg_tokend::testing::secret::Secret;

use super::mutants::Mutant;
use super::plan::{Incident, Outage, SECOND};
use super::server::Post;
use super::world::World;

pub(crate) struct Process {
    pub(crate) id: u64,
    pub(crate) is_run: bool,
    pub(crate) core: Refresher,
    queue: VecDeque<Action>,
    pub(crate) doing: Option<Doing>,
    /// The client that was configured when the inputs were read.
    client: u32,
    /// For the mutant that does not look again.
    first_look: Option<Box<Loaded>>,
    /// For the mutant that stores last.
    unstored: Option<Record>,
    /// It stands on an older config, and is built anew when it is at rest.
    pub(crate) is_outdated: bool,
    pub(crate) dies_at: Option<i64>,
}

/// The event that a process waits for.
pub(crate) enum Doing {
    File { action: Action, done_at: i64 },
    Request(Box<Post>),
}

impl Doing {
    pub(crate) fn done_at(&self) -> i64 {
        match self {
            Self::File { done_at, .. } => *done_at,
            Self::Request(post) => post.reply_at,
        }
    }
}

/// The disk: as it is, and as a power loss would leave it.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) state: Option<Record>,
    pub(crate) synced_state: Option<Record>,
    pub(crate) token: Option<(Secret, i64)>,
    pub(crate) synced_token: Option<(Secret, i64)>,
    pub(crate) state_fails: bool,
    pub(crate) token_fails: bool,
}

impl Disk {
    pub(crate) fn load(&self) -> Loaded {
        let stored = self.state.as_ref().and_then(|record| record.access_token.as_ref());
        let file = match &self.token {
            None => FileView::Missing,
            Some((token, _)) if stored.is_some_and(|stored| stored.value == *token) => FileView::Current,
            Some((_, modified_at)) => FileView::Other { modified_at: *modified_at },
        };
        Loaded { record: self.state.clone(), garbage: None, file }
    }
}

impl Process {
    pub(crate) fn new(id: u64, is_run: bool, core: Refresher, client: u32) -> Self {
        Self {
            id,
            is_run,
            core,
            queue: VecDeque::new(),
            doing: None,
            client,
            first_look: None,
            unstored: None,
            is_outdated: false,
            dies_at: None,
        }
    }

    /// True if a `once` has nothing more to do.
    pub(crate) fn is_done(&self) -> bool {
        !self.is_run && self.doing.is_none() && self.core.is_idle() && !self.core.will_resend_soon()
    }

    /// When it wants to be woken, in true time: the shell's timer runs on the boot clock.
    pub(crate) fn wakes_at(&self, now: i64, clock: Timestamp) -> Option<i64> {
        if self.doing.is_some() {
            return None;
        }
        self.core.next_wakeup().map(|at| now + (at.boot - clock.boot).max(0))
    }
}

impl World {
    /// Hands an event to a process, and lets it begin what it is told to do next.
    pub(crate) fn tell(&mut self, place: usize, event: Event) {
        let now = self.clock();
        let process = &mut self.processes[place];
        let actions = process.core.handle(now, event);
        process.queue.extend(actions);
        self.go_on(place);
    }

    fn go_on(&mut self, place: usize) {
        while self.processes[place].doing.is_none() {
            let Some(action) = self.processes[place].queue.pop_front() else {
                self.rebuild(place);
                return;
            };
            match action {
                Action::Report(report) => self.hear(&report),
                action => self.begin(place, action),
            }
        }
    }

    fn hear(&self, report: &Report) {
        assert!(!matches!(report, Report::Ignored { .. }), "{report:?}");
        if self.traced {
            println!("{:>14} {report:?}", self.now);
        }
    }

    fn begin(&mut self, place: usize, action: Action) {
        let clock = self.clock();
        let doing = if let Action::Request(request) = action {
            let Grant::RefreshToken(token) = request.grant else { panic!("a refresh sends its token") };
            let token = self.mutate_request(token);
            let reaches = self.server.outage != Some(Outage::Refused);
            self.judge.posted(self.now, &token, self.processes[place].client, reaches);
            let post = self.server.post(self.now, clock, token, &mut self.random);
            if post.answer.is_some() {
                // The network has decided already that nothing will come of it.
                self.judge.troubles.blip(self.now, post.reply_at);
            }
            if self.random.one_in(self.plan.sleep_one_in) {
                let at = self.random.between(self.now, post.reply_at);
                let duration = self.random.spread(SECOND, self.plan.longest());
                self.plan_for(at, Incident::Suspend(duration));
            }
            Doing::Request(Box::new(post))
        } else {
            let slow = if self.random.one_in(50) { 40 } else { 3 };
            Doing::File { action, done_at: self.now + self.random.between(0, slow) }
        };
        let process = &mut self.processes[place];
        if self.random.one_in(self.plan.crash_one_in) {
            process.dies_at = Some(self.random.between(self.now, doing.done_at()));
        }
        process.doing = Some(doing);
    }

    /// The thing that a process was doing is done.
    pub(crate) fn done(&mut self, place: usize) {
        let Some(doing) = self.processes[place].doing.take() else { return };
        let event = match doing {
            Doing::File { action, .. } => self.perform(place, action),
            Doing::Request(post) => self.heard(place, &post),
        };
        self.tell(place, event);
    }

    fn heard(&mut self, place: usize, post: &Post) -> Event {
        let answer = post.answer.clone().expect("the server has decided, or the network has");
        let answer = self.mutate_answer(answer);
        let process = &self.processes[place];
        if self.traced {
            println!("{:>14} {} {answer}", self.now, process.id);
        }
        self.judge.answered(self.now, process.id, post, process.client, &answer);
        if matches!(answer, zg_tokend::testing::oauth::Answer::InvalidGrant(_)) && !self.is_typo(&post.token)
        {
            self.login_dies();
        }
        Event::Answered(self.deceived.take().unwrap_or(answer))
    }

    fn perform(&mut self, place: usize, action: Action) -> Event {
        let id = self.processes[place].id;
        match action {
            Action::Load => {
                let loaded = Box::new(self.mutate_look(self.disk.load()));
                self.processes[place].first_look.get_or_insert_with(|| loaded.clone());
                Event::Loaded(Ok(loaded))
            }
            Action::ReadInputs if self.secrets_gone => {
                Event::InputsRead(Err(trouble(Class::Unavailable, "secret")))
            }
            Action::ReadInputs => {
                self.processes[place].client = self.client;
                Event::InputsRead(Ok(Inputs::new(
                    Some(self.seed.clone()),
                    None,
                    client(&self.client.to_string()),
                )))
            }
            Action::Lock if self.lock.is_some() && self.mutant != Some(Mutant::NoLock) => {
                Event::Locked(Err(LockFailure::Busy))
            }
            Action::Lock => {
                self.lock = Some(id);
                let first_look = self.processes[place].first_look.take();
                let loaded = match (self.mutant, first_look) {
                    (Some(Mutant::TrustsFirstLook), Some(first_look)) => first_look,
                    _ => Box::new(self.mutate_look(self.disk.load())),
                };
                Event::Locked(Ok(loaded))
            }
            Action::TakeOver(_) => Event::TakenOver(Ok(None)),
            Action::Prepare(_) if self.disk.state_fails || self.disk.token_fails => {
                Event::Prepared(Err(trouble(Class::Io, "disk_full")))
            }
            Action::Prepare(record) => {
                self.store(*record, 2);
                Event::Prepared(Ok(()))
            }
            Action::Persist(record) => self.persist(place, *record),
            Action::Publish(_) if self.disk.token_fails => {
                Event::Published(Err(trouble(Class::Io, "disk_full")))
            }
            Action::Publish(token) => {
                let token = self.mutate_publish(token.value);
                self.publish(&token, 2);
                Event::Published(Ok(Vec::new()))
            }
            Action::Withdraw(_) => unreachable!("nobody asked for it"),
            Action::Unlock => {
                self.lock = None;
                self.processes[place].first_look = None;
                if let Some(record) = self.processes[place].unstored.take() {
                    self.store(record, 2);
                }
                Event::Unlocked
            }
            Action::Ask(_) => unreachable!("there is no fleet"),
            Action::Request(_) | Action::Report(_) => unreachable!("not done on files"),
        }
    }

    fn persist(&mut self, place: usize, record: Record) -> Event {
        let id = self.processes[place].id;
        if self.mutant == Some(Mutant::PublishesFirst) {
            self.processes[place].unstored = Some(record);
            return Event::Persisted(Ok(()));
        }
        if self.disk.state_fails {
            if self.mutant == Some(Mutant::BelievesTheDisk) {
                return Event::Persisted(Ok(()));
            }
            self.judge.persist_refused(id);
            return Event::Persisted(Err(trouble(Class::Io, "disk_full")));
        }
        self.store(record, if self.mutant == Some(Mutant::NeverSyncs) { 1 } else { 2 });
        self.judge.persisted(id);
        Event::Persisted(Ok(()))
    }

    /// Replaces the state: 1, as processes see it; 2, for good.
    pub(crate) fn store(&mut self, record: Record, stage: u8) {
        if stage >= 2 {
            self.disk.synced_state = Some(record.clone());
        }
        if stage >= 1 {
            self.disk.state = Some(record);
        }
    }

    fn publish(&mut self, token: &Secret, stage: u8) {
        let file = Some((token.clone(), self.clock().wall));
        if stage >= 2 {
            self.disk.synced_token.clone_from(&file);
        }
        if stage >= 1 {
            self.disk.token = file;
            let by = self.lock.unwrap_or_default();
            let is_run = self.processes.iter().any(|process| process.is_run && process.id == by);
            self.judge.published(self.now, (by, is_run), token, self.disk.synced_state.as_ref());
            self.look_at_age();
        }
    }

    /// The process is no more; what it was doing may have come to something.
    pub(crate) fn kill(&mut self, place: usize) {
        let process = self.processes.remove(place);
        let stage = self.random.between(0, 2) as u8;
        match process.doing {
            Some(Doing::File { action: Action::Prepare(record), .. }) if !self.disk.state_fails => {
                self.store(*record, stage);
            }
            Some(Doing::File { action: Action::Persist(record), .. }) if !self.disk.state_fails => {
                self.store(*record, stage);
                match stage {
                    1 => self.judge.half_stored(),
                    2 => self.judge.persisted(process.id),
                    _ => {}
                }
            }
            Some(Doing::File { action: Action::Publish(token), .. }) if !self.disk.token_fails => {
                self.publish(&token.value, stage);
            }
            // The server goes on with what it has received.
            Some(Doing::Request(mut post)) => {
                self.judge.reply_lost(&post.token);
                post.loses_reply = true;
                self.orphans.push(*post);
            }
            _ => {}
        }
        self.judge.died(process.id);
        if self.lock == Some(process.id) {
            self.lock = None;
            self.leave_marker();
        }
    }

    /// Nobody is left who could clear a marker away.
    pub(crate) fn leave_marker(&mut self) {
        let marker = self.disk.state.as_ref().and_then(|record| record.in_flight.as_ref());
        if let Some(marker) = marker {
            self.judge.left_marker(marker.at);
        }
    }
}

fn trouble(class: Class, kind: &str) -> Problem {
    Problem { class, kind: kind.into(), message: kind.into(), cause: None, hint: None }
}

pub(crate) fn client(client_id: &str) -> TokenClient {
    TokenClient {
        token_endpoint: "https://as.example/token".parse().expect("a URL"),
        client_id: client_id.into(),
        client_authentication: ClientAuthentication::None,
        scope: None,
        extra_params: Vec::new(),
        shape: zg_tokend::testing::oauth::Shape::default(),
    }
}
