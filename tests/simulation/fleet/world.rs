//! Several hosts, one database, one server; time jumps from one event to the next.

use std::collections::{BTreeMap, HashMap, HashSet};

use zg_tokend::testing::clock::Timestamp;
use zg_tokend::testing::demo::{AuditEvent, RevocationReason};
use zg_tokend::testing::oauth::{FailureKind, Sent};
use zg_tokend::testing::refresh::{Event, Record, Role, Trigger};
use zg_tokend::testing::secret::{Fingerprint, Secret};

use super::super::plan::{DAY, HOUR, MINUTE, Plan, SECOND};
use super::super::random::Random;
use super::super::server::{DEADLINE, Post, Server, no_reply};
use super::database::Database;
use super::figures::{Broken, Faults, Figures};
use super::host::{Doing, Host, ROW};
use super::mutants::FleetMutant;

#[derive(Clone, Copy)]
pub(super) enum Incident {
    Start(usize),
    Freeze(usize, i64),
    Kill(usize, i64),
    Outage(i64),
    /// An outage each two days.
    Outages,
    Failover,
    /// A failover whose old primary goes on; true if some hosts do not see the new one at first.
    Split(bool),
    /// This host reaches the old primary until then.
    Stray(usize, i64),
    /// A failover each week.
    Failovers,
    /// The row may have changed.
    Row(usize),
    Poll(usize),
    Watch,
    Relogin,
    /// Somebody logs in on another host than this one.
    Login(usize),
}

pub(crate) struct FleetWorld {
    pub(super) faults: Faults,
    pub(super) mutant: Option<FleetMutant>,
    pub(crate) traced: bool,
    pub(super) random: Random,
    pub(super) now: i64,
    duration: i64,
    pub(super) hosts: Vec<Host>,
    pub(super) database: Database,
    /// The primary before the last failover, where it goes on.
    pub(super) old_primary: Option<Database>,
    server: Server,
    agenda: BTreeMap<(i64, u64), Incident>,
    next_id: u64,
    /// Requests whose senders are gone.
    pub(super) orphans: Vec<Post>,
    pub(super) figures: Figures,
    heard: usize,
    /// The server's successor of each refresh token.
    successors: HashMap<Fingerprint, Fingerprint>,
    /// The refresh tokens whose successors a host has received.
    answered: HashSet<Fingerprint>,
    /// Those whose refusal the database was told.
    refusals: HashSet<Fingerprint>,
    /// The access tokens: their login, and their place among its grants.
    pub(super) order: HashMap<Fingerprint, (Option<u64>, usize)>,
    revoked: bool,
    dead_since: Option<i64>,
}

/// The hosts are left alone for the last hours, in which they must agree.
const REST: i64 = 10 * HOUR;

/// Somebody logs in again so long after a login was lost.
const RELOGIN: i64 = 4 * HOUR;

const WATCH: i64 = MINUTE;

impl FleetWorld {
    pub(crate) fn new(seed: u64, faults: Faults, days: i64, mutant: Option<FleetMutant>) -> Self {
        let mut plan = Plan::quiet(3600, days * DAY);
        plan.grace = std::time::Duration::from_secs(faults.grace);
        plan.latency = 200;
        let mut server = Server::new(&plan, seed);
        let first = server.login(0);
        let mut random = Random::new(seed ^ 0xf1ee7);
        let hosts = (0..3 + usize::from(faults.reader)).map(|number| {
            let role = if number == 3 { Role::Read } else { Role::Refresh };
            let own = (number == 0).then(|| first.clone());
            Host::new(number, own, faults.polling && number == 1, role, random.next())
        });
        let mut world = Self {
            hosts: hosts.collect(),
            faults,
            mutant,
            traced: false,
            random,
            now: 0,
            duration: days * DAY + REST,
            database: Database::new(mutant),
            old_primary: None,
            server,
            agenda: BTreeMap::new(),
            next_id: 0,
            orphans: Vec::new(),
            figures: Figures::default(),
            heard: 0,
            successors: HashMap::new(),
            answered: HashSet::new(),
            refusals: HashSet::new(),
            order: HashMap::new(),
            revoked: false,
            dead_since: None,
        };
        for place in 0..world.hosts.len() {
            world.plan(place as i64 * MINUTE, Incident::Start(place));
            if world.hosts[place].polls {
                world.plan(place as i64 * MINUTE, Incident::Poll(place));
            }
        }
        world.plan(HOUR, Incident::Watch);
        if faults.outage > 0 {
            world.plan_outage();
        }
        if faults.failover > 0 {
            world.plan_failover();
        }
        world
    }

    pub(super) fn plan(&mut self, at: i64, incident: Incident) {
        self.next_id += 1;
        self.agenda.insert((at, self.next_id), incident);
    }

    fn plan_outage(&mut self) {
        let at = self.now + self.random.between(HOUR, 4 * DAY);
        self.plan(at, Incident::Outages);
    }

    fn plan_failover(&mut self) {
        let at = self.now + self.random.between(HOUR, 14 * DAY);
        self.plan(at, Incident::Failovers);
    }

    /// Whether there are still faults.
    fn is_rough(&self) -> bool {
        self.now < self.duration - REST
    }

    pub(crate) fn live(mut self) -> Figures {
        while let Some((at, next)) = self.next().filter(|(at, _)| *at <= self.duration) {
            self.now = self.now.max(at);
            match next {
                Next::Incident(key) => {
                    let incident = self.agenda.remove(&key).expect("it is the first");
                    self.befall(incident);
                }
                Next::Orphan(place) => {
                    let mut post = self.orphans.swap_remove(place);
                    self.commit(&mut post);
                }
                Next::Commit(place) => {
                    if let Some(Doing::Request(mut post)) = self.hosts[place].doing.take() {
                        self.commit(&mut post);
                        self.hosts[place].doing = Some(Doing::Request(post));
                    }
                }
                Next::Done(place) => self.done(place),
                Next::Wake(place) => self.tell(place, Event::Woke),
            }
        }
        self.judge_rest();
        self.figures.ms = self.duration;
        self.figures.repairs = self.database.repairs;
        for _ in 0..self.database.back {
            self.broken(Broken::RowBack);
        }
        self.figures
    }

    fn next(&self) -> Option<(i64, Next)> {
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
        for (place, host) in self.hosts.iter().enumerate() {
            if let Some(Doing::Request(post)) = &host.doing {
                consider(post.commit_at, Next::Commit(place));
            }
            let done_at = host.doing.as_ref().map(Doing::done_at);
            consider(done_at.map(|at| at.max(host.frozen_until)), Next::Done(place));
            consider(host.wakes_at(self.now).map(|at| at.max(host.frozen_until)), Next::Wake(place));
        }
        first
    }

    fn befall(&mut self, incident: Incident) {
        match incident {
            Incident::Start(place) => self.start(place),
            Incident::Freeze(place, until) => {
                let host = &mut self.hosts[place];
                host.frozen_until = host.frozen_until.max(until);
            }
            Incident::Kill(place, down) => self.kill(place, down),
            Incident::Outage(duration) => self.outage(duration),
            Incident::Outages => {
                if self.is_rough() {
                    let duration = self.random.pick(&[20, 120, 900, 3000]) * SECOND;
                    self.outage(duration);
                    self.plan_outage();
                }
            }
            Incident::Failover => self.fail_over(),
            Incident::Split(at_once) => self.split(at_once),
            Incident::Stray(place, until) => self.stray(place, until),
            Incident::Failovers => {
                if self.is_rough() {
                    self.fail_over();
                    self.plan_failover();
                }
            }
            Incident::Row(place) => self.look(place),
            Incident::Poll(place) => {
                self.look(place);
                self.plan(self.now + 30 * SECOND, Incident::Poll(place));
            }
            Incident::Watch => self.watch(),
            Incident::Relogin => self.log_in(None),
            Incident::Login(place) => {
                if !self.revoked {
                    self.log_in(Some(place));
                }
            }
        }
    }

    fn look(&mut self, place: usize) {
        let host = &self.hosts[place];
        if !host.up {
            return;
        }
        if host.frozen_until > self.now {
            let until = host.frozen_until;
            return self.plan(until, Incident::Row(place));
        }
        self.tell(place, Event::Begin(ROW));
    }

    /// The database of this host tells its listeners.
    pub(super) fn notify(&mut self, by: usize) {
        for place in 0..self.hosts.len() {
            if !self.hosts[place].polls && self.is_astray(place) == self.is_astray(by) {
                let at = self.now + self.random.between(10, 300);
                self.plan(at, Incident::Row(place));
            }
        }
    }

    fn outage(&mut self, duration: i64) {
        self.database.down_until = self.database.down_until.max(self.now + duration);
        self.plan_return();
    }

    pub(super) fn fail_over(&mut self) {
        let behind = if self.faults.sync { 0 } else { self.random.pick(&[0, 500, 2000, 5000]) };
        let down = self.random.between(3 * SECOND, 60 * SECOND);
        let lost = self.database.fail_over(self.now, behind, down);
        self.figures.failovers_with_loss += u64::from(lost);
        self.plan_return();
    }

    /// Connections broke, so each host reads the row when it is connected again.
    fn plan_return(&mut self) {
        for place in 0..self.hosts.len() {
            let at = self.database.down_until + self.random.between(100, 5000);
            self.plan(at, Incident::Row(place));
        }
    }

    pub(super) fn happens(&mut self, chance: u64) -> bool {
        self.random.between(0, 9999).cast_unsigned() < chance
    }

    /// How long a statement takes.
    pub(super) fn statement_time(&mut self) -> i64 {
        if self.happens(self.faults.slow) {
            self.random.between(100, 5000)
        } else {
            self.random.between(2, 40)
        }
    }

    /// Whether a statement gets no answer; then, whether it is done.
    pub(super) fn loses_statement(&mut self) -> Option<bool> {
        self.happens(self.faults.unknown).then(|| self.random.one_in(2))
    }

    /// A fault that is aimed at this refresh, somewhere around its request.
    pub(super) fn aim(&mut self, place: usize) {
        if !self.is_rough() {
            return;
        }
        let Faults { kill, freeze, outage, failover, split, stale, login, .. } = self.faults;
        if self.happens(login) {
            let at = self.now + self.random.between(0, 20 * SECOND);
            self.plan(at, Incident::Login(place));
        }
        let chance = self.random.between(0, 9999).cast_unsigned();
        let at = self.now + self.random.between(0, SECOND);
        if chance < kill {
            let down = self.random.pick(&[2, 30, 300, 1500, 20_000]) * SECOND;
            self.plan(at, Incident::Kill(place, down));
        } else if chance < kill + freeze {
            let until = at + self.random.pick(&[20, 80, 200, 900]) * SECOND;
            self.plan(at, Incident::Freeze(place, until));
        } else if chance < kill + freeze + outage {
            let duration = self.random.pick(&[10, 100, 1000, 5000]) * SECOND;
            self.plan(at, Incident::Outage(duration));
        } else if chance < kill + freeze + outage + failover {
            let at = at + self.random.between(0, 2 * SECOND);
            self.plan(at, Incident::Failover);
        } else if chance < kill + freeze + outage + failover + split {
            self.plan(at, Incident::Split(true));
        } else if chance < kill + freeze + outage + failover + split + stale {
            self.plan(at, Incident::Split(false));
        }
    }

    /// A request leaves.
    pub(super) fn post(&mut self, issued_at: Timestamp, token: Secret) -> Post {
        let mut post = self.server.post(self.now, issued_at, token, &mut self.random);
        if self.random.one_in(100) {
            let slow = self.random.between(5 * SECOND, self.faults.slowest * SECOND);
            post.commit_at = Some(self.now + SECOND);
            post.reply_at = self.now + slow;
        }
        let lost = self.happens(self.faults.lose) && self.is_rough();
        if lost || post.reply_at > self.now + DEADLINE {
            post.reply_at = self.now + DEADLINE;
            post.answer = Some(no_reply(Sent::PerhapsSent, FailureKind::Timeout));
            post.loses_reply = true;
        }
        post
    }

    fn commit(&mut self, post: &mut Post) {
        if post.commit_at.is_none() {
            return;
        }
        self.server.commit(self.now, post);
        for entry in self.server.audit_from(self.heard) {
            let token = entry.refresh_token;
            match entry.event {
                AuditEvent::Grant { access_token, successor, replayed } => {
                    if let (Some(token), Some(successor)) = (token, successor) {
                        self.successors.insert(token, successor);
                    }
                    self.figures.epochs += u64::from(!replayed);
                    let place = (entry.family, self.order.len());
                    self.order.insert(access_token, place);
                }
                AuditEvent::Revocation { reason: RevocationReason::Reuse } if !self.revoked => {
                    self.revoked = true;
                    self.figures.lost += 1;
                    let avoidable = token.is_some_and(|token| self.is_succeeded_on_a_disk(token));
                    let received = token.is_some_and(|token| self.answered.contains(&token));
                    self.figures.avoidable += u64::from(avoidable);
                    self.figures.cut_off += u64::from(received && !avoidable);
                    if self.traced {
                        println!("{:>12} the login is lost, avoidable: {avoidable}", self.now);
                    }
                    self.next_id += 1;
                    self.agenda.insert((self.now + RELOGIN, self.next_id), Incident::Relogin);
                }
                _ => {}
            }
        }
        self.heard = self.server.audit_len();
    }

    /// Whether a host has a later refresh token of the same login on its disk.
    fn is_succeeded_on_a_disk(&self, mut token: Fingerprint) -> bool {
        let disks = self.hosts.iter().filter_map(|host| host.disk.synced_state.as_ref());
        let held = disks.filter_map(|record| record.refresh_token.as_ref());
        let held: HashSet<_> = held.map(|token| token.value.fingerprint()).collect();
        while let Some(successor) = self.successors.get(&token) {
            if held.contains(successor) {
                return true;
            }
            token = *successor;
        }
        false
    }

    /// A host has received the answer to this refresh token.
    pub(super) fn received(&mut self, token: &Secret) {
        self.answered.insert(token.fingerprint());
    }

    /// The database has the refusal of this refresh token: all hosts can know it.
    pub(super) fn refused(&mut self, token: Fingerprint) {
        self.refusals.insert(token);
    }

    pub(super) fn is_refused(&self, token: &Secret) -> bool {
        self.refusals.contains(&token.fingerprint())
    }

    pub(super) fn broken(&mut self, rule: Broken) {
        if self.traced {
            println!("{:>12} broken: {rule:?}", self.now);
        }
        *self.figures.broken.entry(rule).or_default() += 1;
    }

    fn watch(&mut self) {
        let live = self.hosts.iter().filter(|host| host.has_live_token(self.now)).count();
        self.figures.dead += (self.hosts.len() - live) as i64 * WATCH / SECOND;
        if live > 0 || self.revoked {
            self.dead_since = None;
        } else if self.now - *self.dead_since.get_or_insert(self.now) > RELOGIN {
            self.figures.stuck += 1;
            self.dead_since = None;
            self.log_in(None);
        }
        self.plan(self.now + WATCH, Incident::Watch);
    }

    /// Somebody runs `zg-tokend login` on a host, but not on this one.
    fn log_in(&mut self, not_on: Option<usize>) {
        let refreshing = self.hosts.iter().filter(|host| host.is_at_rest() && host.frozen_until < self.now);
        let places = refreshing.map(|host| host.number);
        let places: Vec<usize> = places.filter(|number| *number < 3 && Some(*number) != not_on).collect();
        if places.is_empty() || !self.database.is_up(self.now) {
            return match not_on {
                Some(_) => {}
                None => self.plan(self.now + MINUTE, Incident::Relogin),
            };
        }
        let place = self.random.pick(&places);
        let login = self.server.login(self.now);
        self.heard = self.server.audit_len();
        let clock = self.hosts[place].clock(self.now);
        let state = self.hosts[place].disk.state.clone();
        let mut record = state.unwrap_or_else(|| Record::new("default", "config.toml"));
        record.take_login(login, None, None, clock);
        self.hosts[place].disk.synced_state = Some(record.clone());
        self.hosts[place].disk.state = Some(record);
        self.revoked = false;
        self.tell(place, Event::Begin(Trigger { reread: true, ..ROW }));
    }

    fn judge_rest(&mut self) {
        let row = self.database.row.as_ref().map(|row| row.content.clone());
        let Some(row) = row.filter(|_| !self.revoked) else { return };
        for place in 0..self.hosts.len() {
            let record = self.hosts[place].disk.state.as_ref();
            let replica = record.and_then(|record| record.replica.as_deref());
            let agrees = replica.is_some_and(|replica| {
                replica.login == row.login && replica.epoch == row.epoch && replica.undelivered.is_none()
            });
            if !self.hosts[place].is_at_rest() {
                continue;
            }
            if !agrees || !self.hosts[place].has_live_token(self.now) {
                if self.traced {
                    println!("host {place} is apart: {record:?} from {row:?}");
                }
                self.broken(Broken::Apart);
            }
        }
    }
}

enum Next {
    Incident((i64, u64)),
    Commit(usize),
    Orphan(usize),
    Done(usize),
    Wake(usize),
}
