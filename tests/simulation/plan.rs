//! The kind of world of a seed, and its incidents.

use std::time::Duration;

use super::random::Random;

pub(crate) const SECOND: i64 = 1000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;
pub(crate) const YEAR: i64 = 365 * DAY;

/// How the server answers while it is out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// Nobody listens.
    Refused,
    /// 503.
    Unavailable,
    /// 503 or 429 with a Retry-After of so many seconds.
    Busy(u32),
    /// The gateway's 502.
    Gateway,
    /// The request is read, and never answered.
    Silent,
    /// The client is refused, by mistake.
    Client,
}

/// Incidents from outside. Times are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incident {
    Outage(Outage, i64),
    OutageEnds,
    /// The reply to the next request is lost, after the server has committed or before.
    LoseNext {
        committed: bool,
    },
    Suspend(i64),
    Resume,
    /// The wall clock is set so far from the truth.
    SetClock(i64),
    /// The machine loses power for so long; its wall clock then is so far from the truth.
    PowerLoss {
        down: i64,
        wrong_by: i64,
    },
    PowerReturns {
        wrong_by: i64,
    },
    /// `run` dies, and is started again after so long.
    Kill(i64),
    Start,
    /// State or token file cannot be written for so long.
    DiskFails {
        state: bool,
        duration: i64,
    },
    DiskWorks,
    SecretsVanish(i64),
    SecretsReturn,
    /// The user ends the login at the provider's.
    Revoke,
    /// The user logs in, or mistypes.
    Login {
        mistyped: bool,
    },
    /// Another client_secret and the like.
    ChangeClient,
    /// Somebody calls `once --force`.
    ForceOnce,
    /// SIGUSR1.
    ForceRun,
    Cron,
}

/// A world, drawn from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) lifetime: Duration,
    pub(crate) skew: Option<Duration>,
    pub(crate) rotation: bool,
    pub(crate) grace: Duration,
    /// Logins end by themselves after this time.
    pub(crate) login_lifetime: Option<Duration>,
    pub(crate) latency: i64,
    /// There is a `run`; else cron alone.
    pub(crate) run: bool,
    /// The refresh_token is in a file of its own, which is read only when something is due.
    pub(crate) seed_in_file: bool,
    /// Between two passes from cron; 0 for none.
    pub(crate) cron: i64,
    /// One action in so many is the last of its process.
    pub(crate) crash_one_in: u64,
    /// During one request in so many the machine is suspended.
    pub(crate) sleep_one_in: u64,
    pub(crate) duration: i64,
    pub(crate) incidents: Vec<(i64, Incident)>,
}

/// Lifetimes from the shortest to the longest that are taken seriously, in seconds. The common
/// ones are listed more than once.
const LIFETIMES: [u64; 12] =
    [2, 30, 60, 120, 600, 3600, 3600, 3600, 86_400, 86_400, 30 * 86_400, 365 * 86_400];

impl Plan {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let lifetime_s = random.pick(&LIFETIMES);
        let lifetime = lifetime_s as i64 * SECOND;
        // Long enough for some thousand refreshes.
        let duration = (lifetime * random.between(300, 3000)).min(random.between(YEAR / 2, 2 * YEAR));
        // Cron alone is for tokens whose skew is longer than the time between two passes.
        let run = lifetime < HOUR || !random.one_in(6);
        let cron = if run && random.one_in(2) { 0 } else { (5 * MINUTE).max(duration / 20_000) };
        let mut plan = Self {
            lifetime: Duration::from_secs(lifetime_s),
            skew: (lifetime_s > 2 && random.one_in(4)).then(|| Duration::from_secs(lifetime_s / 4)),
            rotation: !random.one_in(4),
            grace: Duration::from_secs(random.pick(&[0, 0, 60, 90])),
            login_lifetime: random.one_in(8).then(|| Duration::from_millis((duration / 3).cast_unsigned())),
            latency: random.spread(5, (lifetime / 10).min(2 * SECOND)),
            run,
            // Cron reads it only when something is due, however long the user has waited.
            seed_in_file: run && random.one_in(2),
            cron,
            crash_one_in: random.pick(&[0, 0, 500, 3000]),
            sleep_one_in: 0,
            duration,
            incidents: Vec::new(),
        };
        plan.draw_incidents(random);
        plan.sleep_one_in = random.pick(&[0, 0, 30, 300]);
        plan
    }

    /// A world in which nothing happens but what is scheduled by hand.
    pub(crate) fn quiet(lifetime_s: u64, duration: i64) -> Self {
        Self {
            lifetime: Duration::from_secs(lifetime_s),
            skew: None,
            rotation: true,
            grace: Duration::ZERO,
            login_lifetime: None,
            latency: 50,
            run: true,
            seed_in_file: false,
            cron: 0,
            crash_one_in: 0,
            sleep_one_in: 0,
            duration,
            incidents: Vec::new(),
        }
    }

    fn draw_incidents(&mut self, random: &mut Random) {
        let count = random.between(0, 120);
        // Each world has its own mixture, so that some see only steps, others only outages.
        let kinds: Vec<u64> = (0..13).filter(|_| random.one_in(2)).collect();
        if kinds.is_empty() {
            return;
        }
        let longest = self.longest();
        for _ in 0..count {
            let at = random.between(0, self.duration);
            let kind = random.pick(&kinds);
            let incident = Self::draw_incident(random, kind, longest);
            self.incidents.push((at, incident));
        }
    }

    /// The longest that anything lasts.
    pub(crate) fn longest(&self) -> i64 {
        (self.duration / 60).clamp(2 * SECOND, 3 * DAY)
    }

    fn draw_incident(random: &mut Random, kind: u64, longest: i64) -> Incident {
        let duration = random.spread(SECOND, longest);
        match kind {
            0 | 1 => {
                let busy = Outage::Busy(random.spread(1, 7200) as u32);
                let kinds = [Outage::Refused, Outage::Unavailable, busy, Outage::Gateway, Outage::Silent];
                Incident::Outage(random.pick(&kinds), duration)
            }
            2 => Incident::LoseNext { committed: true },
            3 => Incident::LoseNext { committed: random.one_in(2) },
            4 => Incident::Suspend(duration),
            5 => Incident::SetClock(random.pick(&[0, 0, -HOUR, HOUR, -DAY, DAY, -50 * YEAR])),
            6 => Incident::PowerLoss { down: duration, wrong_by: random.pick(&[0, 0, -50 * YEAR, DAY]) },
            7 => Incident::Kill(random.spread(SECOND, MINUTE)),
            8 => Incident::DiskFails { state: random.one_in(2), duration },
            9 => random.pick(&[Incident::ForceOnce, Incident::ForceRun]),
            10 => random.pick(&[
                Incident::Login { mistyped: false },
                Incident::Login { mistyped: true },
                Incident::ChangeClient,
            ]),
            11 => random.pick(&[Incident::Revoke, Incident::Outage(Outage::Client, duration)]),
            _ => Incident::SecretsVanish(duration),
        }
    }
}
