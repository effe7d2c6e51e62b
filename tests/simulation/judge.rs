//! The invariants, checked at every step with arithmetic of their own.

use std::collections::{HashMap, HashSet};

use zg_tokend::testing::clock::Timestamp;
use zg_tokend::testing::demo::{AuditEntry, AuditEvent, RevocationReason};
use zg_tokend::testing::oauth::Answer;
use zg_tokend::testing::refresh::Record;
use zg_tokend::testing::secret::{Fingerprint, Secret};

use super::figures::Figures;
use super::plan::{HOUR, MINUTE, Plan, SECOND};
use super::rules::{Rule, Violation};
use super::server::Post;
use super::trouble::{Budget, Troubles};

/// No request before `until` with this client.
#[derive(Debug, Clone, Copy)]
struct Wait {
    until: i64,
    client: u32,
    /// The server has asked for it; else the client was refused, and a new login may help.
    asked: bool,
}

struct Grant {
    number: u64,
    live_until: i64,
    family: Option<u64>,
    started_at: i64,
    due_at: i64,
}

pub(crate) struct Judge {
    plan: Plan,
    pub(crate) troubles: Troubles,
    pub(crate) violation: Option<Violation>,
    pub(crate) figures: Figures,
    grants: HashMap<Fingerprint, Grant>,
    /// The content of the token file.
    file: Option<Fingerprint>,
    live_until: i64,
    /// When another process than `run` ended a gap, if `run` has brought no token since.
    brought_at: Option<i64>,
    gap_since: Option<i64>,
    /// The refresh must have been tried by then.
    due_at: Option<i64>,
    /// Successors that a process holds in memory: who, the old token, the new one.
    unstored: Vec<(u64, Fingerprint, Fingerprint)>,
    replaced: HashSet<Fingerprint>,
    /// Verdicts and waits that a process holds in memory.
    unstored_verdicts: Vec<(u64, Fingerprint, u32)>,
    unstored_waits: Vec<(u64, Wait)>,
    dead: HashSet<(Fingerprint, u32)>,
    wait: Option<Wait>,
    families: HashMap<Fingerprint, u64>,
    /// Families whose successor somebody lost, by no fault of the core.
    lost: HashSet<u64>,
    budget: Option<Budget>,
    /// When the backoff last began anew.
    anew_at: i64,
    unclear: (Option<Fingerprint>, u32),
    /// The last answer was a token that had expired on its way.
    dead_on_arrival: bool,
    /// Markers that dead processes have left since the last grant: how many, and the newest. Each
    /// counts as a send without an answer.
    markers: (usize, Option<Timestamp>),
    resend_by: Option<i64>,
    step: Option<(i64, u32)>,
    forced_at: i64,
    wakes: (i64, u32),
    /// Processes whose state was refused by the disk: they may publish first.
    refused_by_disk: HashSet<u64>,
    /// A writer died between rename and fsync of the directory: those who come after it see a
    /// state that a power loss would take back.
    half_stored: bool,
}

impl Judge {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            troubles: Troubles::new(plan),
            violation: None,
            figures: Figures::default(),
            grants: HashMap::new(),
            file: None,
            live_until: 0,
            brought_at: None,
            gap_since: Some(0),
            due_at: None,
            unstored: Vec::new(),
            replaced: HashSet::new(),
            unstored_verdicts: Vec::new(),
            unstored_waits: Vec::new(),
            dead: HashSet::new(),
            wait: None,
            families: HashMap::new(),
            lost: HashSet::new(),
            budget: None,
            anew_at: 0,
            unclear: (None, 0),
            dead_on_arrival: false,
            markers: (0, None),
            resend_by: None,
            step: None,
            forced_at: i64::MIN / 2,
            wakes: (0, 0),
            refused_by_disk: HashSet::new(),
            half_stored: false,
        }
    }

    fn accuse(&mut self, rule: Rule, at: i64, what: impl Into<String>) {
        self.violation.get_or_insert(Violation { rule, at, what: what.into() });
    }

    /// Time has come to `now`; what should have happened by now has, or never will.
    pub(crate) fn tick(&mut self, now: i64) {
        if now > self.live_until && self.gap_since.is_none() {
            self.gap_since = Some(self.live_until);
        }
        let round_trip = 2 * self.plan.latency + SECOND;
        self.expect_refresh(now, round_trip);
        if let Some(by) = self.resend_by.take_if(|by| now > *by) {
            self.accuse(Rule::Resend, now, format!("a lost answer should have been asked for by {by}"));
        }
        if let Some((_, posts)) = self.step.take_if(|(at, _)| now > *at + 30 * SECOND) {
            self.figures.steps += 1;
            self.figures.posts_per_step = self.figures.posts_per_step.max(posts);
        }
    }

    /// The refresh that was due has begun, or is over after so long. `run` is there to be on time;
    /// cron comes when it comes.
    fn expect_refresh(&mut self, now: i64, round_trip: i64) {
        let turn = if self.plan.run { SECOND } else { self.plan.cron + MINUTE };
        if let Some(due_at) = self.due_at
            && now > due_at + turn + round_trip
            && !self.troubles.cover(now)
        {
            self.accuse(Rule::Late, now, format!("a refresh was due at {due_at}"));
        }
    }

    pub(crate) fn woke(&mut self, now: i64) {
        self.wakes =
            if self.wakes.0 == now / SECOND { (self.wakes.0, self.wakes.1 + 1) } else { (now / SECOND, 1) };
        if self.wakes.1 > 100 {
            self.accuse(Rule::Loop, now, "woken 100 times in a second");
        }
    }

    /// `reaches`: the server gets it. A request that never leaves this machine costs the server nothing,
    /// and is tried each minute (DESIGN.md, Time).
    pub(crate) fn posted(&mut self, now: i64, token: &Secret, client: u32, reaches: bool) {
        let token = token.fingerprint();
        self.figures.posts += 1;
        self.expect_refresh(now, 0);
        self.resend_by = None;
        if self.replaced.contains(&token) {
            self.accuse(Rule::Replaced, now, "a refresh token was sent after it had been replaced");
        }
        if self.dead.contains(&(token, client)) {
            self.accuse(Rule::Verdict, now, "a dead refresh token was sent again");
        }
        if self.wait.is_some_and(|wait| now < wait.until && wait.client == client) {
            self.accuse(Rule::Wait, now, format!("a request before {:?}", self.wait));
        }
        let held_until = self.wait.map_or(0, |wait| wait.until);
        if self.budget.as_ref().is_some_and(|budget| budget.is_over(now, held_until)) {
            self.note_budget();
        }
        if let Some(budget) = self.budget.as_mut().filter(|_| reaches)
            && !budget.take(now)
        {
            let budget = budget.clone();
            self.accuse(Rule::Budget, now, format!("too many requests: {budget:?}"));
        }
        if let Some((at, posts)) = &mut self.step {
            *posts += 1;
            if *posts > 1 && self.forced_at < *at - MINUTE {
                self.accuse(Rule::Step, now, "a clock step cost more than one request");
            }
        }
    }

    /// The server has decided; `post` is what about, if it was a request. True if a login died.
    pub(crate) fn audit(&mut self, now: i64, post: Option<&Post>, audit: &[AuditEntry]) -> bool {
        let started_at = post.map_or(now, |post| post.started_at);
        let loses_reply = post.is_some_and(|post| post.loses_reply);
        let mut died = false;
        for entry in audit {
            if let (Some(token), Some(family)) = (entry.refresh_token, entry.family) {
                self.families.insert(token, family);
            }
            match &entry.event {
                AuditEvent::Grant { access_token, successor, replayed } => {
                    let lifetime = self.plan.lifetime.as_millis() as i64;
                    // The design's formula, once more.
                    let skew = self
                        .plan
                        .skew
                        .map_or((lifetime / 3).max(MINUTE), |skew| skew.as_millis() as i64)
                        .min(lifetime / 2);
                    self.figures.grants += 1;
                    let grant = Grant {
                        number: self.figures.grants,
                        live_until: now + lifetime,
                        family: entry.family,
                        started_at,
                        due_at: started_at + lifetime - skew,
                    };
                    self.grants.insert(*access_token, grant);
                    if let (Some(successor), Some(family)) = (successor, entry.family) {
                        self.families.insert(*successor, family);
                        if loses_reply && !replayed {
                            self.lost.insert(family);
                        }
                    }
                }
                AuditEvent::Revocation { reason } => {
                    let by_us = *reason == RevocationReason::Reuse;
                    let excused = entry.family.is_some_and(|family| self.lost.contains(&family));
                    if by_us && !excused {
                        self.accuse(Rule::Revoked, now, "a login was revoked by our own doing");
                    }
                    if self.plan.grace.is_zero() {
                        self.figures.logins_lost += u32::from(by_us);
                    } else {
                        self.figures.lost_despite_grace += u32::from(by_us);
                    }
                    self.revoked(now, entry.family);
                    died = true;
                }
                _ => {}
            }
        }
        died
    }

    /// The access tokens of a family are worth nothing from now on.
    fn revoked(&mut self, now: i64, family: Option<u64>) {
        for grant in self.grants.values_mut().filter(|grant| grant.family == family) {
            grant.live_until = grant.live_until.min(now);
        }
        if let Some(grant) = self.file.and_then(|file| self.grants.get(&file)) {
            self.live_until = grant.live_until;
        }
    }

    fn family_of(&self, token: &Secret) -> Option<u64> {
        self.families.get(&token.fingerprint()).copied()
    }

    /// A process has heard the answer.
    pub(crate) fn answered(&mut self, now: i64, who: u64, post: &Post, client: u32, answer: &Answer) {
        let token = post.token.fingerprint();
        let ambiguous = matches!(answer, Answer::Ambiguous(_));
        self.unclear = match self.unclear {
            (Some(of), count) if of == token => (Some(token), if ambiguous { count + 1 } else { count }),
            _ => (Some(token), u32::from(ambiguous)),
        };
        let was_dead = std::mem::take(&mut self.dead_on_arrival);
        if let Answer::Granted(grant) = answer {
            let dead = now - post.started_at >= grant.expires_in.as_millis() as i64;
            self.figures.dead_on_arrival += u64::from(dead);
            self.dead_on_arrival = dead;
            if dead && was_dead {
                self.figures.dead_again += 1;
                self.troubles.dead_again(post.started_at, now);
            }
            self.note_budget();
            self.unclear = (None, 0);
            self.markers.0 = 0;
            let successor = grant.refresh_token.as_ref().map(Secret::fingerprint);
            if let Some(successor) = successor.filter(|successor| *successor != token) {
                self.unstored.push((who, token, successor));
            }
            return;
        }
        self.troubles.blip(post.started_at, now);
        // The consequences are due to the failure.
        self.step = None;
        match answer {
            Answer::InvalidGrant(_) => {
                self.note_budget();
                self.unstored_verdicts.push((who, token, client));
            }
            Answer::ClientRefused(_) => {
                self.note_budget();
                self.unstored_waits.push((who, Wait { until: post.started_at + HOUR, client, asked: false }));
                self.troubles.hold(post.started_at, now + HOUR);
            }
            _ => {
                // A request that was under way at a resume failed after it, and a resume starts the
                // backoff anew (DESIGN.md).
                let since = post.started_at.max(self.anew_at);
                self.budget.get_or_insert_with(|| Budget::new(since));
            }
        }
        if let Some(wait) = answer.retry_after() {
            let until = now + wait.as_millis() as i64;
            self.unstored_waits.push((who, Wait { until, client, asked: true }));
            self.troubles.hold(post.started_at, until);
        } else if ambiguous && !self.troubles.is_active() {
            let count = self.unclear.1 as usize - 1 + self.markers.0;
            self.resend_by = [SECOND, 10 * SECOND].get(count).map(|by| now + by);
        }
    }

    pub(crate) fn note_budget(&mut self) {
        if let Some(budget) = self.budget.take() {
            let (first, later) = budget.peaks();
            self.figures.first_hour = self.figures.first_hour.max(first);
            self.figures.later_hour = self.figures.later_hour.max(later);
        }
    }

    /// The state is on disk, for good.
    pub(crate) fn persisted(&mut self, who: u64) {
        self.refused_by_disk.remove(&who);
        self.half_stored = false;
        for (_, old, _) in self.unstored.extract_if(.., |(of, _, _)| *of == who) {
            self.replaced.insert(old);
            // Whatever was lost before, the newest is in safe hands again.
            if let Some(family) = self.families.get(&old) {
                self.lost.remove(family);
            }
        }
        for (_, token, client) in self.unstored_verdicts.extract_if(.., |(of, _, _)| *of == who) {
            self.dead.insert((token, client));
        }
        for (_, wait) in self.unstored_waits.extract_if(.., |(of, _)| *of == who) {
            self.wait = Some(wait);
        }
    }

    pub(crate) fn half_stored(&mut self) {
        self.half_stored = true;
    }

    pub(crate) fn persist_refused(&mut self, who: u64) {
        self.refused_by_disk.insert(who);
    }

    /// The token file has changed. `stored` is what a power loss would leave.
    pub(crate) fn published(
        &mut self,
        now: i64,
        (who, is_run): (u64, bool),
        token: &Secret,
        stored: Option<&Record>,
    ) {
        let token = token.fingerprint();
        let stored = stored.and_then(|record| record.access_token.as_ref());
        if stored.is_none_or(|stored| stored.value.fingerprint() != token)
            && !self.refused_by_disk.contains(&who)
            && !self.half_stored
        {
            self.accuse(Rule::Order, now, "a token was published before it was stored");
        }
        let number = |token: Fingerprint| self.grants.get(&token).map(|grant: &Grant| grant.number);
        if self.file.is_some_and(|file| number(file) > number(token)) {
            self.accuse(Rule::Older, now, "the file went back to an older token");
        }
        self.file = Some(token);
        self.look_at_file(now);
        if is_run {
            self.brought_at = None;
        }
    }

    /// How long ago an access token was asked for, in true time.
    pub(crate) fn age(&self, now: i64, token: &Secret) -> i64 {
        self.grants.get(&token.fingerprint()).map_or(0, |grant| now - grant.started_at)
    }

    /// The file holds this now, by whatever means.
    pub(crate) fn found_file(&mut self, now: i64, token: Option<&Secret>) {
        self.file = token.map(Secret::fingerprint);
        self.look_at_file(now);
    }

    fn look_at_file(&mut self, now: i64) {
        let grant = self.file.and_then(|file| self.grants.get(&file));
        let (live_until, due_at) = grant.map_or((0, None), |grant| (grant.live_until, Some(grant.due_at)));
        self.live_until = live_until;
        self.due_at = due_at;
        if live_until <= now {
            self.gap_since.get_or_insert(now);
            return;
        }
        if let Some(since) = self.gap_since.take().filter(|since| *since < now) {
            self.figures.gap_ms += now - since;
            let unexcused = self.troubles.unexcused(self.brought_at, since, now);
            if unexcused > 0 {
                self.accuse(Rule::Gap, now, format!("no live token since {since}, {unexcused} ms unexcused"));
            }
            self.brought_at = Some(now);
        }
    }

    pub(crate) fn died(&mut self, who: u64) {
        self.resend_by = None;
        self.step = None;
        self.figures.crashes += 1;
        let lost: Vec<_> = self.unstored.extract_if(.., |(of, _, _)| *of == who).collect();
        self.lost.extend(lost.iter().filter_map(|(_, old, _)| self.families.get(old)));
        self.unstored_verdicts.retain(|(of, _, _)| *of != who);
        self.unstored_waits.retain(|(of, _)| *of != who);
    }

    /// A dead process has left its marker, or one that it had found.
    pub(crate) fn left_marker(&mut self, marker: Timestamp) {
        if self.markers.1 != Some(marker) {
            self.markers = (self.markers.0 + 1, Some(marker));
        }
    }

    /// A reply will find nobody.
    pub(crate) fn reply_lost(&mut self, token: &Secret) {
        self.lost.extend(self.family_of(token));
    }

    /// The backoff may begin anew.
    pub(crate) fn anew(&mut self, now: i64) {
        self.note_budget();
        self.anew_at = now;
        self.resend_by = None;
    }

    /// Another login is configured.
    pub(crate) fn login(&mut self, now: i64) {
        self.anew(now);
        self.wait = self.wait.filter(|wait| wait.asked);
        self.unstored_waits.retain(|(_, wait)| wait.asked);
    }

    /// A wait may be forgotten: the machine has been restarted.
    pub(crate) fn forget_wait(&mut self, now: i64) {
        self.anew(now);
        self.wait = None;
    }

    /// Requests cannot be expected just now.
    pub(crate) fn excuse_resend(&mut self) {
        self.resend_by = None;
    }

    pub(crate) fn forced(&mut self, now: i64) {
        self.forced_at = now;
        self.step = None;
    }

    pub(crate) fn stepped(&mut self, now: i64) {
        self.anew(now);
        // A token that lives for seconds is refreshed anyway.
        if self.plan.lifetime.as_secs() >= 600 && !self.troubles.cover(now) && self.forced_at < now - MINUTE {
            self.step = Some((now, 0));
        }
    }

    pub(crate) fn finish(&mut self, now: i64) {
        self.note_budget();
        self.figures.account_ms = now;
        if let Some(since) = self.gap_since {
            self.figures.gap_ms += now - since;
            let unexcused = self.troubles.unexcused(self.brought_at, since, now);
            if unexcused > 0 {
                self.accuse(Rule::Gap, now, format!("no live token since {since} until the end"));
            }
        }
    }
}
