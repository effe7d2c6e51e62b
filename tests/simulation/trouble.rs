//! When a live token was impossible, as the world itself knows: the yardstick for gaps. Nothing
//! here comes from the core.

use super::plan::{HOUR, MINUTE, Plan, SECOND};
use super::server::DEADLINE;

/// A stretch in which something kept a token from coming: an outage, a full disk, a dead login,
/// or several that follow each other so closely that the core cannot tell them apart.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    start: i64,
    /// `i64::MAX` while it lasts.
    end: i64,
    /// It was nothing but sleep.
    asleep: bool,
}

#[derive(Debug)]
pub(crate) struct Troubles {
    stretches: Vec<Stretch>,
    active: u32,
    /// A wait that the server ordered ends here.
    held_until: i64,
    /// A request, its files, and a turn of the event loop.
    round_trip: i64,
    /// A machine without `run` recovers when cron comes round, and once more if that was early.
    cron: Option<i64>,
}

impl Troubles {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            stretches: Vec::new(),
            active: 0,
            held_until: 0,
            round_trip: 2 * plan.latency + SECOND,
            cron: (!plan.run).then_some(2 * plan.cron + MINUTE),
        }
    }

    /// How long after the end of a stretch the token may still be missing. Where the token was
    /// live when the trouble ended, the next attempt must have come before it expired.
    fn recovery(&self, stretch: &Stretch, was_live: bool) -> i64 {
        if stretch.asleep {
            return self.cron.unwrap_or(self.round_trip);
        }
        let outage = stretch.end - stretch.start;
        let wait = if outage < 40 * MINUTE || was_live { MINUTE.min(outage + SECOND) } else { 5 * MINUTE };
        (wait + DEADLINE + self.round_trip).max(self.cron.unwrap_or_default())
    }

    fn over(&self, stretch: &Stretch, was_live: bool) -> i64 {
        stretch.end.saturating_add(self.recovery(stretch, was_live))
    }

    fn last_that_reaches(&mut self, at: i64) -> Option<usize> {
        let last = self.stretches.len().checked_sub(1)?;
        (at <= self.over(&self.stretches[last], false)).then_some(last)
    }

    pub(crate) fn begins(&mut self, now: i64, asleep: bool) {
        self.active += 1;
        match self.last_that_reaches(now) {
            Some(last) => {
                self.stretches[last].end = i64::MAX;
                self.stretches[last].asleep &= asleep;
            }
            None => self.stretches.push(Stretch { start: now, end: i64::MAX, asleep }),
        }
    }

    pub(crate) fn ends(&mut self, now: i64) {
        self.active = self.active.saturating_sub(1);
        if self.active == 0
            && let Some(last) = self.stretches.last_mut()
        {
            last.end = now.max(self.held_until);
        }
    }

    /// A request has failed.
    pub(crate) fn blip(&mut self, start: i64, end: i64) {
        match self.last_that_reaches(start) {
            Some(last) => {
                let stretch = &mut self.stretches[last];
                stretch.end = stretch.end.max(end);
                stretch.asleep = false;
            }
            None => match self.stretches.last_mut().filter(|stretch| stretch.start >= start) {
                Some(stretch) => stretch.start = start,
                None => self.stretches.push(Stretch { start, end, asleep: false }),
            },
        }
    }

    /// Another token in a row was dead on arrival, which counts as a failure: the next request comes a
    /// second later, and no more, since the sleep that killed the token began the backoff anew.
    pub(crate) fn dead_again(&mut self, start: i64, now: i64) {
        if let Some(last) = self.last_that_reaches(start) {
            let stretch = &mut self.stretches[last];
            stretch.end = stretch.end.max(now + SECOND);
        }
    }

    /// The server has forbidden requests until then.
    pub(crate) fn hold(&mut self, start: i64, until: i64) {
        self.held_until = self.held_until.max(until);
        self.blip(start, until);
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active > 0
    }

    /// True if something excuses a missing token now.
    pub(crate) fn cover(&self, now: i64) -> bool {
        self.stretches.last().is_some_and(|last| last.start <= now && now <= self.over(last, false))
    }

    /// How much of a gap nothing excuses.
    ///
    /// A time that ended before `brought_at` ended without a live token: then came one from another process
    /// than `run`, a pass from cron that met a new login. `run` cannot know, and may wait for as long
    /// as DESIGN.md lets it after such an outage, up to 5 min. Once it has brought a token itself,
    /// it knows.
    pub(crate) fn unexcused(&self, brought_at: Option<i64>, from: i64, to: i64) -> i64 {
        let mut at = from;
        for stretch in &self.stretches {
            let was_live = stretch.end < from && brought_at.is_none_or(|brought| brought <= stretch.end);
            if stretch.start <= at && at < self.over(stretch, was_live) {
                at = self.over(stretch, false).max(at);
            }
        }
        (to - at).max(0)
    }
}

/// Requests in the hours of one run of failures.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    since: i64,
    last: i64,
    hours: Vec<u32>,
}

impl Budget {
    pub(crate) fn new(since: i64) -> Self {
        Self { since, last: since, hours: vec![1] }
    }

    /// Counts one more; false if that is too many.
    pub(crate) fn take(&mut self, now: i64) -> bool {
        let hour = ((now - self.since) / HOUR) as usize;
        if self.hours.len() <= hour {
            self.hours.resize(hour + 1, 0);
        }
        self.hours[hour] += 1;
        self.last = now;
        self.hours[hour] <= if hour == 0 { 60 } else { 16 }
    }

    /// True if nobody has tried for so long (the server's waits apart) that it is another story.
    pub(crate) fn is_over(&self, now: i64, held_until: i64) -> bool {
        now - self.last.max(held_until) > 15 * MINUTE
    }

    /// The most in a first hour, the most in a later one.
    pub(crate) fn peaks(&self) -> (u32, u32) {
        (self.hours[0], self.hours[1..].iter().copied().max().unwrap_or_default())
    }
}
