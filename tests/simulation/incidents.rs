//! Incidents of the machine.

use zg_tokend::testing::clock::BootId;
use zg_tokend::testing::oauth::{FailureKind, Sent};
use zg_tokend::testing::refresh::Event;
use zg_tokend::testing::refresh::{Record, Trigger};
use zg_tokend::testing::secret::Secret;

use super::mutants::Mutant;
use super::plan::{DAY, Incident, MINUTE, Outage, SECOND};
use super::process::Doing;
use super::server::no_reply;
use super::world::{ANEW, FORCE, World};

impl World {
    pub(crate) fn befall(&mut self, incident: Incident) {
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
                self.judge.forget_wait(self.now);
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
                self.judge.anew(self.now);
                self.tell_policy();
            }
            Incident::ForceOnce => self.once(FORCE),
            Incident::ForceRun => {
                self.judge.anew(self.now);
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

    pub(crate) fn die(&mut self, place: usize) {
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
                && self.random.one_in(2)
            {
                // The connection does not outlive the sleep; else the reply waits for the resume.
                post.loses_reply = true;
                post.answer = Some(no_reply(Sent::PerhapsSent, FailureKind::Timeout));
                self.judge.reply_lost(&post.token);
            }
        }
        self.slept += if self.mutant == Some(Mutant::SleepsOn) { duration } else { 0 };
        self.plan_for(end, Incident::Resume);
    }

    fn resume(&mut self) {
        self.still = false;
        self.judge.troubles.ends(self.now);
        self.judge.anew(self.now);
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
        self.leave_marker();
        self.judge.found_file(self.now, self.disk.token.as_ref().map(|(token, _)| token));
        self.plan_for(self.now + down, Incident::PowerReturns { wrong_by });
    }

    fn revoke(&mut self) {
        let token = self.disk.state.as_ref().and_then(|record| record.refresh_token.as_ref());
        let Some(token) = token.and_then(|token| token.value.open().cloned()) else { return };
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
            let login = self.server.login(self.now);
            // `zg-tokend login` waits for the lock, and needs a disk and a server that answers; a user who
            // cannot have them edits the config.
            let can_log_in = self.lock.is_none() && !self.disk.state_fails && self.server.outage.is_none();
            if can_log_in && self.random.one_in(2) {
                self.store_login(login);
                // The token endpoint has granted a request since it asked for a wait.
                self.judge.forget_wait(self.now);
            } else {
                self.seed = login;
            }
            if std::mem::take(&mut self.login_is_dead) {
                self.judge.troubles.ends(self.now);
            }
        }
        self.judge.login(self.now);
        self.tell_policy();
    }

    /// As `zg-tokend login` does under the lock: the configured login is older.
    fn store_login(&mut self, login: Secret) {
        let policy = self.policy();
        let state = self.disk.state.clone();
        let mut record = state.unwrap_or_else(|| Record::new(&*policy.account, &*policy.config));
        record.take_login(login, None, None, self.clock());
        record.list_seed(self.seed.fingerprint());
        self.store(record, 2);
    }
}
