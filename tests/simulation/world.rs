//! The machine, its clocks, and what befalls it; time jumps from one event to the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use zg_tokend::testing::clock::{BootId, Timestamp};
use zg_tokend::testing::oauth::Answer;
use zg_tokend::testing::refresh::Trigger;
use zg_tokend::testing::refresh::{Event, LoginHint, Policy, Refresher, Terms};
use zg_tokend::testing::secret::Secret;

use super::figures::Figures;
use super::judge::Judge;
use super::mutants::Mutant;
use super::plan::{Incident, MINUTE, Plan, SECOND};
use super::process::{Disk, Doing, Process};
use super::random::Random;
use super::rules::Violation;
use super::server::{Post, Server};

/// True time begins here, on the wall.
const EPOCH: i64 = 1_700_000_000_000;

pub(crate) const ANEW: Trigger =
    Trigger { force: false, anew: true, retry_dead: false, reread: false, rejected: None, row: false };
pub(crate) const FORCE: Trigger =
    Trigger { force: true, anew: false, retry_dead: false, reread: false, rejected: None, row: false };
pub(crate) const REREAD: Trigger =
    Trigger { force: false, anew: false, retry_dead: false, reread: true, rejected: None, row: false };

#[expect(clippy::struct_excessive_bools, reason = "each is a state of its own of the machine")]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) traced: bool,
    /// True time, in milliseconds.
    pub(crate) now: i64,
    pub(crate) wrong_by: i64,
    pub(crate) booted_at: i64,
    pub(crate) boots: u32,
    pub(crate) boot_id: BootId,
    /// Suspended or without power.
    pub(crate) still: bool,
    /// How long it was suspended since boot.
    pub(crate) slept: i64,
    pub(crate) disk: Disk,
    pub(crate) server: Server,
    pub(crate) lock: Option<u64>,
    pub(crate) processes: Vec<Process>,
    /// Requests whose senders are gone.
    pub(crate) orphans: Vec<Post>,
    next_id: u64,
    /// The configuration.
    pub(crate) seed: Secret,
    pub(crate) client: u32,
    pub(crate) secrets_gone: bool,
    pub(crate) typos: Vec<Secret>,
    pub(crate) login_is_dead: bool,
    /// The token looks younger than it is, and nobody can know.
    pub(crate) token_looks_younger: bool,
    pub(crate) agenda: BTreeMap<(i64, u64), Incident>,
    pub(crate) judge: Judge,
    /// The memory of a mutant.
    pub(crate) sent_before: Option<Secret>,
    pub(crate) published_before: Option<Secret>,
    pub(crate) deceived: Option<Answer>,
}

enum Next {
    Incident((i64, u64)),
    Commit(usize),
    Orphan(usize),
    Death(usize),
    Done(usize),
    Wake(usize),
}

impl World {
    pub(crate) fn new(seed: u64, plan: Plan, mutant: Option<Mutant>) -> Self {
        let mut server = Server::new(&plan, seed);
        let mut world = Self {
            random: Random::new(seed ^ 0x5eed),
            mutant,
            traced: false,
            now: 0,
            wrong_by: 0,
            booted_at: -MINUTE,
            boots: 0,
            boot_id: BootId::of([b"first boot"]),
            still: false,
            slept: 0,
            disk: Disk::default(),
            lock: None,
            processes: Vec::new(),
            orphans: Vec::new(),
            next_id: 0,
            seed: server.login(0),
            client: 0,
            secrets_gone: false,
            typos: Vec::new(),
            login_is_dead: false,
            token_looks_younger: false,
            agenda: BTreeMap::new(),
            judge: Judge::new(&plan),
            sent_before: None,
            published_before: None,
            deceived: None,
            server,
            plan,
        };
        // From the empty machine to the first token there is a round trip.
        world.judge.troubles.blip(0, 0);
        for (at, incident) in world.plan.incidents.clone() {
            world.plan_for(at, incident);
        }
        if world.plan.run {
            world.plan_for(0, Incident::Start);
            world.judge.troubles.begins(0, false);
        }
        if world.plan.cron > 0 {
            world.plan_for(0, Incident::Cron);
        }
        world
    }

    pub(crate) fn clock(&self) -> Timestamp {
        Timestamp {
            wall: EPOCH + self.now + self.wrong_by,
            boot: self.now - self.booted_at,
            boot_id: self.boot_id,
        }
    }

    pub(crate) fn plan_for(&mut self, at: i64, incident: Incident) {
        self.next_id += 1;
        self.agenda.insert((at, self.next_id), incident);
    }

    /// Lives to the end of the plan, or to the first violation.
    pub(crate) fn live(mut self) -> Result<Figures, Violation> {
        while let Some((at, next)) = self.next().filter(|(at, _)| *at <= self.plan.duration) {
            self.now = self.now.max(at);
            self.judge.tick(self.now);
            match next {
                Next::Incident(key) => {
                    if let Some(incident) = self.agenda.remove(&key) {
                        if self.traced {
                            println!("{:>14} {incident:?}", self.now);
                        }
                        self.befall(incident);
                    }
                }
                Next::Commit(place) => {
                    if let Some(Doing::Request(mut post)) = self.processes[place].doing.take() {
                        self.commit(&mut post);
                        self.processes[place].doing = Some(Doing::Request(post));
                    }
                }
                Next::Orphan(place) => {
                    let mut post = self.orphans.swap_remove(place);
                    self.commit(&mut post);
                }
                Next::Death(place) => {
                    if self.random.one_in(4) {
                        let down = self.random.spread(SECOND, 10 * MINUTE);
                        self.befall(Incident::PowerLoss { down, wrong_by: self.wrong_by });
                    } else {
                        self.die(place);
                    }
                }
                Next::Done(place) => {
                    self.done(place);
                    self.processes.retain(|process| !process.is_done());
                }
                Next::Wake(place) => {
                    self.judge.woke(self.now);
                    self.tell(place, Event::Woke);
                    self.processes.retain(|process| !process.is_done());
                }
            }
            if let Some(violation) = self.judge.violation.take() {
                return Err(violation);
            }
        }
        self.judge.tick(self.plan.duration);
        self.judge.finish(self.plan.duration);
        match self.judge.violation.take() {
            Some(violation) => Err(violation),
            None => Ok(self.judge.figures),
        }
    }

    fn next(&self) -> Option<(i64, Next)> {
        let clock = self.clock();
        let mut first = self.agenda.keys().next().map(|key| (key.0, Next::Incident(*key)));
        let mut consider = |at: Option<i64>, next: Next| {
            if let Some(at) = at
                && first.as_ref().is_none_or(|(first, _)| at < *first)
            {
                first = Some((at, next));
            }
        };
        for (place, post) in self.orphans.iter().enumerate() {
            consider(Some(post.commit_at.unwrap_or(self.now)), Next::Orphan(place));
        }
        for (place, process) in self.processes.iter().enumerate() {
            if let Some(Doing::Request(post)) = &process.doing {
                consider(post.commit_at, Next::Commit(place));
            }
            if self.still {
                continue;
            }
            consider(process.dies_at, Next::Death(place));
            consider(process.doing.as_ref().map(Doing::done_at), Next::Done(place));
            let failure = process.core.record().and_then(|record| record.failure.as_ref());
            let failure = failure.map(|failure| failure.kind.as_str());
            let wakes_at = process.wakes_at(self.now, clock);
            consider(wakes_at.map(|at| self.mutate_wakeup(at, failure)), Next::Wake(place));
        }
        first
    }

    fn commit(&mut self, post: &mut Post) {
        if post.commit_at.is_none() {
            return;
        }
        let seen = self.server.audit_len();
        self.server.commit(self.now, post);
        if self.judge.audit(self.now, Some(post), self.server.audit_from(seen)) {
            self.login_dies();
        }
    }

    pub(crate) fn policy(&self) -> Policy {
        let late = self.mutant == Some(Mutant::RefreshesLate);
        Policy {
            from: None,
            account: "default".into(),
            inline_seed: (!self.plan.seed_in_file).then(|| self.seed.fingerprint()),
            terms: Arc::new(Terms {
                lock_patience: zg_tokend::testing::refresh::LOCK_PATIENCE,
                config: "config.toml".into(),
                grant_type: zg_tokend::testing::oauth::GrantType::RefreshToken,
                skew: if late { Some(Duration::from_secs(1)) } else { self.plan.skew },
                default_lifetime: Duration::from_secs(3600),
                horizon: None,
                login_hint: LoginHint::new(|_| "log in again".into()),
                reread_secrets: None,
                fleet: None,
                remove_expired: false,
                patient: true,
            }),
        }
    }

    fn process(&mut self, is_run: bool) -> usize {
        self.next_id += 1;
        let mut policy = self.policy();
        policy.patient = is_run;
        let core = Refresher::new(policy, self.random.next());
        self.processes.push(Process::new(self.next_id, is_run, core, self.client));
        self.processes.len() - 1
    }

    pub(crate) fn start(&mut self) {
        if self.still || self.processes.iter().any(|process| process.is_run) {
            return;
        }
        if self.mutant == Some(Mutant::ForgetsState) {
            self.disk.state = None;
        }
        self.judge.troubles.ends(self.now);
        let place = self.process(true);
        // Somebody may have logged in while nobody watched the secrets.
        self.tell(place, Event::Begin(REREAD));
    }

    pub(crate) fn once(&mut self, trigger: Trigger) {
        // A pass that finds another one at work for long would only wait.
        if self.still || self.processes.len() > 4 {
            return;
        }
        if trigger.force {
            self.judge.forced(self.now);
        }
        let place = self.process(false);
        self.tell(place, Event::Begin(trigger));
    }

    pub(crate) fn tell_run(&mut self, event: impl Fn() -> Event) {
        if self.still {
            return;
        }
        if let Some(place) = self.processes.iter().position(|process| process.is_run) {
            self.tell(place, event());
        }
    }

    /// Config or a secret's file has been edited, and `run` hears of it.
    pub(crate) fn tell_policy(&mut self) {
        if self.still {
            return;
        }
        if self.plan.seed_in_file {
            self.tell_run(|| Event::Begin(REREAD));
        } else {
            let Some(place) = self.processes.iter().position(|process| process.is_run) else { return };
            self.processes[place].is_outdated = true;
            self.rebuild(place);
        }
    }

    /// Builds `run` anew from the present config, as soon as it is at rest.
    pub(crate) fn rebuild(&mut self, place: usize) {
        let process = &self.processes[place];
        if !process.is_outdated || process.doing.is_some() || !process.core.is_idle() {
            return;
        }
        let core = Refresher::new(self.policy(), self.random.next());
        let process = &mut self.processes[place];
        (process.core, process.is_outdated) = (core, false);
        self.tell(place, Event::Begin(REREAD));
    }

    pub(crate) fn is_typo(&self, token: &Secret) -> bool {
        self.typos.contains(token)
    }
}
