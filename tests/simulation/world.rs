//! The machine, its clocks, and what befalls it; time jumps from one event to the next.

use std::collections::BTreeMap;
use std::time::Duration;

use zg_tokend::clock::{BootId, Timestamp};
use zg_tokend::oauth::{Answer, FailureKind, Sent};
use zg_tokend::secret::Secret;
use zg_tokend::supervisor::decide::Trigger;
use zg_tokend::supervisor::{Event, Policy, Supervisor};

use super::judge::{Figures, Judge, Violation};
use super::mutants::Mutant;
use super::plan::{DAY, Incident, MINUTE, Outage, Plan, SECOND};
use super::process::{Disk, Doing, Process};
use super::random::Random;
use super::server::{Post, Server};

/// True time begins here, on the wall.
const EPOCH: i64 = 1_700_000_000_000;

const ANEW: Trigger = Trigger { force: false, anew: true, retry_dead: false, reread: false };
const FORCE: Trigger = Trigger { force: true, anew: false, retry_dead: false, reread: false };
const REREAD: Trigger = Trigger { force: false, anew: false, retry_dead: false, reread: true };

#[expect(clippy::struct_excessive_bools, reason = "each is a state of its own of the machine")]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) traced: bool,
    /// True time, in milliseconds.
    pub(crate) now: i64,
    wrong_by: i64,
    booted_at: i64,
    boots: u32,
    boot_id: BootId,
    /// Suspended or without power.
    still: bool,
    /// How long it was suspended since boot.
    pub(crate) slept: i64,
    pub(crate) disk: Disk,
    pub(crate) server: Server,
    pub(crate) lock: Option<u64>,
    pub(crate) processes: Vec<Process>,
    /// Requests whose senders are gone.
    pub(crate) orphans: Vec<Post>,
    next_id: u64,
    /// What is configured.
    pub(crate) seed: Secret,
    pub(crate) client: u32,
    pub(crate) secrets_gone: bool,
    typos: Vec<Secret>,
    login_is_dead: bool,
    /// The token looks younger than it is, and nobody can know.
    token_looks_younger: bool,
    agenda: BTreeMap<(i64, u64), Incident>,
    pub(crate) judge: Judge,
    /// What a mutant remembers.
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

    fn plan_for(&mut self, at: i64, incident: Incident) {
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
            let failing = process.core.record().is_some_and(|record| record.failure.is_some());
            let wakes_at = process.wakes_at(self.now, clock);
            consider(wakes_at.map(|at| self.mutate_wakeup(at, failing)), Next::Wake(place));
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

    fn befall(&mut self, incident: Incident) {
        match incident {
            Incident::Outage(outage, duration) => {
                if self.server.outage.is_none() {
                    self.server.outage = Some(outage);
                    self.judge.troubles.begins(self.now, false);
                    self.plan_for(self.now + duration, Incident::OutageEnds);
                    if outage == Outage::Client {
                        // Nobody knows that it has ended until the hour is over.
                        self.judge.troubles.hold(self.now, self.now + duration);
                    }
                }
            }
            Incident::OutageEnds => {
                self.server.outage = None;
                self.judge.troubles.ends(self.now);
            }
            Incident::LoseNext { committed } => self.server.lose_next = Some(committed),
            Incident::Suspend(duration) => self.suspend(duration),
            Incident::Resume => self.resume(),
            Incident::SetClock(wrong_by) => {
                let stepped = wrong_by != self.wrong_by;
                self.wrong_by = wrong_by;
                self.look_at_age();
                if stepped && !self.still {
                    self.judge.stepped(self.now);
                    self.tell_run(|| Event::Begin(ANEW));
                    if self.mutant == Some(Mutant::FearsSteps) {
                        self.plan_for(self.now + SECOND, Incident::ForceRun);
                        self.plan_for(self.now + 3 * SECOND, Incident::ForceRun);
                    }
                }
            }
            Incident::PowerLoss { down, wrong_by } => self.lose_power(down, wrong_by),
            Incident::PowerReturns { wrong_by } => {
                self.still = false;
                self.slept = 0;
                self.boots += 1;
                self.boot_id = BootId::of([&self.boots.to_be_bytes()]);
                self.booted_at = self.now - 10 * SECOND;
                self.wrong_by = wrong_by;
                self.look_at_age();
                if self.plan.run {
                    // Ended by the start.
                    self.judge.troubles.begins(self.now, false);
                    self.plan_for(self.now + SECOND, Incident::Start);
                }
                self.judge.troubles.ends(self.now);
                self.judge.forget_wait();
            }
            Incident::Kill(down) => {
                if let Some(place) = self.processes.iter().position(|process| process.is_run)
                    && !self.still
                {
                    self.die_for(place, down);
                }
            }
            Incident::Start => self.start(),
            Incident::DiskFails { state, duration } => {
                if !self.disk.state_fails && !self.disk.token_fails {
                    self.disk.state_fails = state;
                    self.disk.token_fails = !state;
                    self.judge.troubles.begins(self.now, false);
                    self.judge.excuse_resend();
                    self.plan_for(self.now + duration, Incident::DiskWorks);
                }
            }
            Incident::DiskWorks => {
                self.disk.state_fails = false;
                self.disk.token_fails = false;
                self.judge.troubles.ends(self.now);
            }
            Incident::SecretsVanish(duration) => {
                if !self.secrets_gone {
                    self.secrets_gone = true;
                    self.judge.troubles.begins(self.now, false);
                    self.judge.excuse_resend();
                    self.plan_for(self.now + duration, Incident::SecretsReturn);
                }
            }
            Incident::SecretsReturn => {
                self.secrets_gone = false;
                self.judge.troubles.ends(self.now);
            }
            Incident::Revoke => self.revoke(),
            Incident::Login { mistyped } => self.login(mistyped),
            Incident::ChangeClient => {
                self.client += 1;
                self.judge.anew();
                self.tell_policy();
            }
            Incident::ForceOnce => self.once(FORCE),
            Incident::ForceRun => {
                self.judge.anew();
                if self.mutant != Some(Mutant::FearsSteps) {
                    self.judge.forced(self.now);
                }
                self.tell_run(|| Event::Begin(Trigger { anew: true, ..FORCE }));
            }
            Incident::Cron => {
                self.once(Trigger::default());
                self.plan_for(self.now + self.plan.cron, Incident::Cron);
            }
        }
    }

    /// A wall clock that was wrong when the token was issued, and right after a reboot, or the
    /// other way round, can make it look younger: the age since the boot is lost.
    pub(crate) fn look_at_age(&mut self) {
        let token = self.disk.state.as_ref().and_then(|record| record.access_token.as_ref());
        let looks_younger = token.is_some_and(|token| {
            let age = self.judge.age(self.now, &token.value);
            token.issued_at.boot_id != self.boot_id && self.clock().wall_since(token.issued_at) < age - SECOND
        });
        if looks_younger && !self.token_looks_younger {
            self.judge.troubles.begins(self.now, false);
        } else if !looks_younger && self.token_looks_younger {
            self.judge.troubles.ends(self.now);
        }
        self.token_looks_younger = looks_younger;
    }

    fn policy(&self) -> Policy {
        let late = self.mutant == Some(Mutant::RefreshesLate);
        Policy {
            account: "default".into(),
            config: "config.toml".into(),
            skew: if late { Some(Duration::from_secs(1)) } else { self.plan.skew },
            default_lifetime: Duration::from_secs(3600),
            horizon: None,
            inline_seed: (!self.plan.seed_in_file).then(|| self.seed.fingerprint()),
            login_hint: "log in again".into(),
            reread_secrets: None,
            patient: true,
        }
    }

    fn process(&mut self, is_run: bool) -> usize {
        self.next_id += 1;
        let policy = Policy { patient: is_run, ..self.policy() };
        let core = Supervisor::new(policy, self.random.next());
        self.processes.push(Process::new(self.next_id, is_run, core, self.client));
        self.processes.len() - 1
    }

    fn start(&mut self) {
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

    fn once(&mut self, trigger: Trigger) {
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

    fn tell_run(&mut self, event: impl Fn() -> Event) {
        if self.still {
            return;
        }
        if let Some(place) = self.processes.iter().position(|process| process.is_run) {
            self.tell(place, event());
        }
    }

    /// Config or a secret's file has been edited, and `run` hears of it.
    fn tell_policy(&mut self) {
        if self.plan.seed_in_file {
            self.tell_run(|| Event::Begin(REREAD));
        } else {
            let policy = self.policy();
            self.tell_run(|| Event::PolicyChanged(Box::new(policy.clone())));
        }
    }

    fn die(&mut self, place: usize) {
        let down = self.random.between(SECOND, 30 * SECOND);
        self.die_for(place, down);
    }

    fn die_for(&mut self, place: usize, down: i64) {
        if self.processes[place].is_run {
            self.judge.troubles.begins(self.now, false);
            self.plan_for(self.now + down, Incident::Start);
        } else {
            self.judge.troubles.blip(self.now, self.now);
        }
        self.kill(place);
    }

    fn suspend(&mut self, duration: i64) {
        if self.still {
            return;
        }
        self.still = true;
        self.judge.excuse_resend();
        self.judge.troubles.begins(self.now, true);
        let end = self.now + duration;
        for process in &mut self.processes {
            if let Some(Doing::Request(post)) = &mut process.doing
                && post.reply_at < end
            {
                // The connection does not outlive the sleep.
                post.loses_reply = true;
                post.answer = Some(super::server::no_reply(Sent::PerhapsSent, FailureKind::Timeout));
                self.judge.reply_lost(&post.token);
            }
        }
        self.slept += if self.mutant == Some(Mutant::SleepsOn) { duration } else { 0 };
        self.plan_for(end, Incident::Resume);
    }

    fn resume(&mut self) {
        self.still = false;
        self.judge.troubles.ends(self.now);
        self.judge.anew();
        if self.mutant != Some(Mutant::SleepsOn) {
            // Config may have been changed in the last moment before the sleep.
            self.tell_policy();
            self.tell_run(|| Event::Begin(ANEW));
        }
    }

    fn lose_power(&mut self, down: i64, wrong_by: i64) {
        if self.still {
            return;
        }
        self.still = true;
        self.judge.troubles.begins(self.now, false);
        while let Some(place) = self.processes.len().checked_sub(1) {
            self.kill(place);
        }
        // A start that was planned is replaced by the one after the boot.
        let starts = self.agenda.iter().filter(|(_, incident)| **incident == Incident::Start);
        for key in starts.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.agenda.remove(&key);
            self.judge.troubles.ends(self.now);
        }
        self.disk.state.clone_from(&self.disk.synced_state);
        self.disk.token.clone_from(&self.disk.synced_token);
        self.judge.found_file(self.now, self.disk.token.as_ref().map(|(token, _)| token));
        self.plan_for(self.now + down, Incident::PowerReturns { wrong_by });
    }

    fn revoke(&mut self) {
        let token = self.disk.state.as_ref().and_then(|record| record.refresh_token.as_ref());
        let Some(token) = token.map(|token| token.value.clone()) else { return };
        let seen = self.server.audit_len();
        if !self.login_is_dead && self.server.revoke(self.now, &token) {
            self.judge.audit(self.now, None, self.server.audit_from(seen));
            self.login_dies();
        }
    }

    /// The user has to log in again, and will, some time.
    pub(crate) fn login_dies(&mut self) {
        if !self.login_is_dead {
            self.login_is_dead = true;
            self.judge.troubles.begins(self.now, false);
            let later = self.random.spread(MINUTE, 2 * DAY);
            self.plan_for(self.now + later, Incident::Login { mistyped: false });
        }
    }

    fn login(&mut self, mistyped: bool) {
        if mistyped {
            let taken = self
                .disk
                .state
                .as_ref()
                .is_some_and(|record| record.seeds.contains(&self.seed.fingerprint()));
            if !taken && !self.is_typo(&self.seed) {
                // The login before was never seen, and now nobody knows it any more.
                self.login_dies();
            }
            self.seed = Secret::new(format!("typo-{}", self.typos.len()));
            self.typos.push(self.seed.clone());
            self.judge.troubles.blip(self.now, self.now);
        } else {
            self.seed = self.server.login(self.now);
            if std::mem::take(&mut self.login_is_dead) {
                self.judge.troubles.ends(self.now);
            }
        }
        self.judge.login();
        self.tell_policy();
    }

    pub(crate) fn is_typo(&self, token: &Secret) -> bool {
        self.typos.contains(token)
    }
}
